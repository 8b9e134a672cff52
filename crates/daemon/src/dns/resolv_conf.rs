//! This machine's own resolvers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::SystemTime;

/// As it is on every system (resolv.conf(5)).
pub(super) const PATH: &str = "/etc/resolv.conf";
/// Where systemd-resolved says whom it asks, when the former names systemd-resolved alone.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const RESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// Those that are asked at most; the C library asks three.
const RESOLVERS_MAX: usize = 3;
const FILE_MAX: u64 = 64 << 10;

/// The resolvers that a text names.
fn resolvers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = match words.next() {
            Some("nameserver") => words.next()?,
            _ => return None,
        };
        // With an interface behind `%` it is a link-local one, which is not asked.
        address.parse().ok()
    });
    named.take(RESOLVERS_MAX).collect()
}

/// This machine's.
pub(super) fn own() -> Vec<IpAddr> {
    behind(read(Path::new(PATH)), || read(Path::new(BEHIND_RESOLVED)))
}

/// Those that are asked in the end: which of them is on the LAN has to be seen.
fn behind(named: Vec<IpAddr>, others: impl FnOnce() -> Vec<IpAddr>) -> Vec<IpAddr> {
    if named == [RESOLVED] {
        let others = others();
        if !others.is_empty() {
            return others;
        }
    }
    named
}

/// When they were last changed.
pub(super) fn own_changed() -> [Option<SystemTime>; 2] {
    [PATH, BEHIND_RESOLVED].map(|path| changed(Path::new(path)))
}

/// The same of a file; none where it cannot be read.
fn read(path: &Path) -> Vec<IpAddr> {
    use std::io::Read;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => resolvers(&text),
        Err(_) => Vec::new(),
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolvers_of_a_file_are_those_the_c_library_asks() {
        let text = "# made by dhclient\nsearch lan\noptions edns0\nnameserver 192.168.1.1\n\
                    nameserver\t2001:db8::53 # second\nnameserver fe80::1%eth0\n; nameserver 192.0.2.9\n\
                    nameserver\nnameserver 127.0.0.53\nnameserver 192.0.2.4\n";
        let expected = ["192.168.1.1", "2001:db8::53", "127.0.0.53"];
        assert_eq!(
            resolvers(text),
            expected.map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert!(resolvers("").is_empty());
        let router: Vec<IpAddr> = vec!["192.168.1.1".parse().unwrap()];
        assert_eq!(behind(vec![RESOLVED], || router.clone()), router);
        assert_eq!(behind(vec![RESOLVED], Vec::new), [RESOLVED]);
        assert_eq!(behind(router.clone(), Vec::new), router);
        assert!(read(Path::new("/nonexistent/resolv.conf")).is_empty());
    }
}
