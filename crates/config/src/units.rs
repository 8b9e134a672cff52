//! Values written as strings: durations, sizes, networks.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// `500ms`, `0.5s`, `90s`, `10m`, `4h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a number and a unit: ms, s, m, h or d, such as \"90s\" or \"4h\"";
    let (number, unit) = split_unit(text);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no duration: {expected}"))?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("`{text}` is no duration: {expected}")),
    } * number;
    if !(0.001..=315_360_000.0).contains(&seconds) {
        return Err(format!(
            "`{text}` is out of range: expected 1ms to ten years"
        ));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// `4096`, `500MB`, `1GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected =
        "expected a number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB behind it";
    let (number, unit) = split_unit(text);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no size: {expected}"))?;
    let factor = match unit {
        "" | "B" => 1u64,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(format!("`{text}` is no size: {expected}")),
    };
    let bytes = number * factor as f64;
    if !(1.0..9.0e18).contains(&bytes) {
        return Err(format!("`{text}` is out of range: {expected}"));
    }
    Ok(bytes as u64)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim())
}

/// `10.1.0.0/24`, `fd00:1::/64`. Host bits must be zero.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(no_prefix_length(address));
    }
    let net: IpNet = text.parse().map_err(|_| {
        format!("`{text}` is no network: expected an address and a prefix length, such as \"10.1.0.0/24\" or \"fd00:1::/64\"")
    })?;
    if net.addr() != net.network() {
        return Err(format!(
            "`{text}` has bits set behind its prefix; did you mean `{}`?",
            net.trunc()
        ));
    }
    Ok(net)
}

/// A whole network was meant more often than one host of it, so neither is assumed.
fn no_prefix_length(address: IpAddr) -> String {
    let one = IpNet::from(address);
    let length = if address.is_ipv4() { 24 } else { 64 };
    let network = IpNet::new(address, length).map_or(one, |n| n.trunc());
    format!(
        "`{address}` has no prefix length: write \"{network}\" for a network, or \"{one}\" for this one address"
    )
}

/// An IPv4 or IPv6 address.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address: expected one such as \"192.0.2.1\" or \"2001:db8::1\"")
    })
}

/// A domain name as DNS writes it (RFC 1035 §2.3.1, RFC 8598 §4.1), in lower case, without a final dot.
pub(crate) fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name.to_ascii_lowercase());
    }
    Err(format!(
        "`{text}` is no domain name: expected one such as \"corp.example\" (other letters than a to z \
         as their xn-- form)"
    ))
}

/// A name Linux accepts for a network interface.
pub(crate) fn interface(text: &str) -> Result<String, String> {
    let good = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is no interface name: expected 1 to 15 letters, digits, `-`, `_` or `.`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("4h"), Ok(Duration::from_secs(4 * 3600)));
        assert_eq!(duration("250 ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "4", "h", "-1s", "1y", "0s", "1e3s", "99999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("77"), Ok(77));
        for bad in ["", "0", "1gb", "GiB", "-5"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_with_host_bits_is_answered_with_the_network() {
        assert_eq!(
            network("10.1.0.7/24"),
            Err("`10.1.0.7/24` has bits set behind its prefix; did you mean `10.1.0.0/24`?".into())
        );
        assert!(network("home").is_err());
    }

    #[test]
    fn a_network_has_a_prefix_length() {
        assert_eq!(
            network("10.99.0.0"),
            Err("`10.99.0.0` has no prefix length: write \"10.99.0.0/24\" for a network, or \"10.99.0.0/32\" for this one address".into())
        );
        assert_eq!(
            network("fd99::7"),
            Err("`fd99::7` has no prefix length: write \"fd99::/64\" for a network, or \"fd99::7/128\" for this one address".into())
        );
        assert_eq!(
            network("10.1.0.7/32"),
            Ok("10.1.0.7/32".parse().expect("a network"))
        );
    }

    #[test]
    fn interface_names_are_those_of_linux() {
        assert!(interface("cyg-home").is_ok());
        for bad in ["", "a/b", "sixteen-letters-", "a b", ".."] {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }
}
