//! This machine's own resolvers.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::SystemTime;

/// As it is on every system (resolv.conf(5)).
pub(crate) const PATH: &str = "/etc/resolv.conf";
/// Where systemd-resolved says whom it asks, when the former names systemd-resolved alone.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const RESOLVED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)),
];
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
        // A link-local one has its interface behind it.
        address.split('%').next()?.parse().ok()
    });
    named.collect()
}

/// All that this machine names.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn named() -> io::Result<Vec<IpAddr>> {
    let named = read(Path::new(PATH))?;
    Ok(behind(named, || {
        read(Path::new(BEHIND_RESOLVED)).unwrap_or_default()
    }))
}

/// Those of this machine that are asked: no link-local one, which is an address only with its interface.
pub(super) fn own() -> Vec<IpAddr> {
    asked(named().unwrap_or_default())
}

fn asked(named: Vec<IpAddr>) -> Vec<IpAddr> {
    let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    let asked = named.into_iter().filter(|a| !link_local(a));
    asked.take(RESOLVERS_MAX).collect()
}

/// Those that are asked in the end: which of them is on the LAN has to be seen.
fn behind(named: Vec<IpAddr>, others: impl FnOnce() -> Vec<IpAddr>) -> Vec<IpAddr> {
    if matches!(named.as_slice(), [one] if RESOLVED.contains(one)) {
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

/// Those of a file.
fn read(path: &Path) -> io::Result<Vec<IpAddr>> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_MAX)
        .read_to_string(&mut text)?;
    Ok(resolvers(&text))
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
        let expected = expected.map(|a| a.parse::<IpAddr>().unwrap());
        assert_eq!(asked(resolvers(text)), expected);
        assert!(resolvers(text).contains(&"fe80::1".parse().unwrap()));
        assert!(resolvers("").is_empty());
        let router: Vec<IpAddr> = vec!["192.168.1.1".parse().unwrap()];
        for stub in RESOLVED {
            assert_eq!(behind(vec![stub], || router.clone()), router);
            assert_eq!(behind(vec![stub], Vec::new), [stub]);
        }
        assert_eq!(behind(router.clone(), Vec::new), router);
        assert!(read(Path::new("/nonexistent/resolv.conf")).is_err());
    }
}
