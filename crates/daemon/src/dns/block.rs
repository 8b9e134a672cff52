//! Block lists: files in hosts format, of hundreds of thousands of lines, kept in eight octets a name.
//!
//! Kept is a hash of each name under a key that is drawn anew in each process: whoever chooses the names on a list, or
//! those that are asked, cannot make two of them meet.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{self, BufRead, Read};
use std::net::IpAddr;

/// Names that are kept at most (16 MB); the largest lists that are published have half a million.
pub(super) const NAMES_MAX: usize = 2_000_000;
/// Octets of a file that are read at most.
const FILE_MAX: u64 = 128 << 20;
/// A longer line is none of a hosts file.
const LINE_MAX: u64 = 4096;
/// Octets of a name (RFC 1035 §2.3.4), as text.
const NAME_MAX: usize = 253;

/// Names, without those below them.
#[derive(Debug, Default)]
pub(super) struct BlockList {
    hashes: Vec<u64>,
    key: RandomState,
}

impl BlockList {
    /// Adds the names of a file. `false` where there were more than are kept.
    pub(super) fn add(&mut self, file: impl BufRead) -> io::Result<bool> {
        let (hashes, key) = (&mut self.hashes, &self.key);
        let mut room = true;
        each_line(file, |line| {
            for name in names(line) {
                room = hashes.len() < NAMES_MAX;
                if !room {
                    // The same name may be there many times. Where that makes little room it is not worth the work.
                    tidy(hashes);
                    room = hashes.len() <= NAMES_MAX - NAMES_MAX / 8;
                }
                if !room {
                    return false;
                }
                hashes.extend(hash(key, name));
            }
            true
        })?;
        tidy(&mut self.hashes);
        self.hashes.shrink_to_fit();
        Ok(room)
    }

    /// How many names.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether it is on a list; however it is written, without a final dot.
    pub(super) fn contains(&self, name: &str) -> bool {
        hash(&self.key, name.as_bytes())
            .is_some_and(|hash| self.hashes.binary_search(&hash).is_ok())
    }
}

fn tidy(hashes: &mut Vec<u64>) {
    hashes.sort_unstable();
    hashes.dedup();
}

fn hash(key: &RandomState, name: &[u8]) -> Option<u64> {
    let mut lower = [0; NAME_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    Some(key.hash_one(&*lower))
}

/// Calls `on_line` for each line, without its end, until it says `false`.
fn each_line(file: impl BufRead, mut on_line: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut file = file.take(FILE_MAX);
    let mut line = Vec::new();
    // Of a line that is too long nothing is taken: its pieces are no lines.
    let mut at_start = true;
    loop {
        line.clear();
        let read = file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let ended = line.last() == Some(&b'\n');
        let whole = at_start && (ended || (read as u64) < LINE_MAX);
        if whole && !on_line(line.trim_ascii()) {
            return Ok(());
        }
        at_start = ended;
    }
}

/// The names that a line sends nowhere: `0.0.0.0 ads.example tracker.example # why`.
fn names(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let text = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    let mut words = text
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let address = words.next().and_then(|word| std::str::from_utf8(word).ok());
    let address = address.and_then(|word| word.parse::<IpAddr>().ok());
    // A line with another address says where somebody is, and blocks nothing.
    let nowhere = address.is_some_and(|to| to.is_unspecified() || to.is_loopback());
    words
        .map(|name| name.strip_suffix(b".").unwrap_or(name))
        .filter(move |name| nowhere && may_be_blocked(name))
}

/// Every hosts file begins with the machine's own names.
fn may_be_blocked(name: &[u8]) -> bool {
    let is_address = || std::str::from_utf8(name).is_ok_and(|name| name.parse::<IpAddr>().is_ok());
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    name.len() <= NAME_MAX
        && name.contains(&b'.')
        && name.iter().all(plain)
        && !name.eq_ignore_ascii_case(b"localhost.localdomain")
        && !is_address()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn list(text: &[u8]) -> BlockList {
        let mut list = BlockList::default();
        assert!(list.add(text).unwrap());
        list
    }

    #[test]
    fn hosts_files_are_read_as_they_are_written() {
        let list = list(
            b"\xef\xbb\xbf0.0.0.0 first.example\r\n\
              # 0.0.0.0 comment.example\n\
              127.0.0.1\tlocalhost\n\
              ::1 localhost ip6-localhost localhost.localdomain\n\
              0.0.0.0 0.0.0.0\n\
              fe80::1%lo0 scoped.example\n\
              0.0.0.0  Ads.Example.  two.example#three.example\n\
              192.0.2.7 somebody.example\n\
              :: six.example\n\
              bare.example\n\
              0.0.0.0 \xff\xfe.example b\xc3\xbccher.example\n\
              \n\
              127.0.0.1 last.example",
        );
        for name in [
            "first.example",
            "ads.example",
            "ADS.example",
            "two.example",
            "six.example",
            "last.example",
        ] {
            assert!(list.contains(name), "{name}");
        }
        assert_eq!(list.len(), 5);
        for name in [
            "",
            "comment.example",
            "localhost",
            "localhost.localdomain",
            "0.0.0.0",
            "scoped.example",
            "three.example",
            "somebody.example",
            "bare.example",
            "www.ads.example",
            "example",
        ] {
            assert!(!list.contains(name), "{name}");
        }
        assert!(!list.contains(&"x".repeat(NAME_MAX + 1)));
    }

    #[test]
    fn two_hundred_thousand_lines_are_kept_compactly() {
        let mut text = String::new();
        for n in 0..200_000 {
            writeln!(text, "0.0.0.0 host-{n}.ads-and-trackers.example").unwrap();
        }
        let mut list = list(text.as_bytes());
        assert_eq!(list.len(), 200_000);
        assert!(list.hashes.capacity() * size_of::<u64>() <= 1_600_000);
        for n in [0, 99_999, 199_999] {
            assert!(list.contains(&format!("host-{n}.ads-and-trackers.example")));
        }
        assert!(!list.contains("host-200000.ads-and-trackers.example"));
        // The same again adds nothing.
        assert!(list.add(text.as_bytes()).unwrap());
        assert_eq!(list.len(), 200_000);
    }

    #[test]
    fn what_is_no_list_costs_no_memory() {
        let mut text = b"0.0.0.0 cut.example ".to_vec();
        text.extend(vec![b'x'; 1 << 20]);
        text.extend_from_slice(b" end.example\n0.0.0.0 good.example\n");
        let list = list(&text);
        assert_eq!(list.len(), 1);
        assert!(list.contains("good.example"));
        let nothing = self::list(&vec![0; 1 << 20]);
        assert_eq!(nothing.len(), 0);
    }
}
