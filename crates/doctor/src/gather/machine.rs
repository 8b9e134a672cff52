//! What this machine tells of itself in files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cygnet_config::{Config, Daemon};
use cygnet_crypto::suite::aes_is_fast;
use cygnet_linux::UdpOffloads;

use crate::facts::{Machine, Unit, Units};
use crate::unit::{PACKAGED, configuration_of_unit};

/// Settings that are looked at, of `all` and of each interface.
const SETTINGS: [(&str, &[&str]); 2] = [
    (
        "net/ipv4/conf",
        &[
            "forwarding",
            "send_redirects",
            "accept_redirects",
            "rp_filter",
        ],
    ),
    ("net/ipv6/conf", &["forwarding", "accept_redirects"]),
];

/// Seconds since 1970, as the clock says.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// Settings of the kernel, by their paths below /proc/sys.
pub(super) fn settings() -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for (directory, names) in SETTINGS {
        let root = Path::new("/proc/sys").join(directory);
        let entries = std::fs::read_dir(&root).into_iter().flatten().flatten();
        for interface in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            for name in names {
                let value = std::fs::read_to_string(root.join(&interface).join(name));
                if let Ok(value) = value {
                    let path = format!("{directory}/{interface}/{name}");
                    settings.insert(path, value.trim().to_owned());
                }
            }
        }
    }
    settings
}

/// What starts cygnet at boot with the configuration of this path.
pub(super) fn units(units: Option<&[Unit; 2]>, path: &Path, config: Option<&Config>) -> Units {
    let Some([run, guard]) = units else {
        return Units::NoSystemd;
    };
    let guarded = config.is_some_and(|c| c.gateway.as_ref().is_some_and(|g| g.guard));
    let needed: Vec<&Unit> = [Some(run), guarded.then_some(guard)]
        .into_iter()
        .flatten()
        .collect();
    // Whoever has a file elsewhere and no unit for it starts the program in some other way.
    let starts = |unit: &&Unit| {
        let text = unit.text.as_deref();
        text.map_or_else(|| PACKAGED.into(), configuration_of_unit) == path
    };
    if !needed.iter().all(starts) {
        return Units::OtherConfiguration;
    }
    let state = |unit: &Unit| (unit.name, unit.enabled);
    Units::Are(needed.into_iter().map(state).collect())
}

/// Whether a program of this machine's answers others at the port of DNS.
pub(super) fn answers_names() -> bool {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(std::fs::read_to_string);
    tables.iter().flatten().any(|table| has_resolver(table))
}

/// The same by a table of proc_net_udp.
fn has_resolver(table: &str) -> bool {
    let socket = |line: &str| {
        let (address, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
        // Words of four octets in the machine's order: one of IPv4, four of IPv6, of which the first three are zero
        // for loopback.
        let (rest, last) = address.split_at_checked(address.len().checked_sub(8)?)?;
        let last = u32::from_str_radix(last, 16).ok()?.to_ne_bytes();
        let loopback = match rest.is_empty() {
            true => last[0] == 127,
            false => rest.bytes().all(|digit| digit == b'0') && last == [0, 0, 0, 1],
        };
        Some(!loopback && u16::from_str_radix(port, 16) == Ok(53))
    };
    table.lines().skip(1).filter_map(socket).any(|it| it)
}

/// Processor and kernel. `interfaces`: those of tunnels.
pub(super) fn machine(daemon: Option<&Daemon>, interfaces: &[String]) -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let ports = daemon.map(|daemon| [daemon.ike_port, daemon.natt_port]);
    let sockets = ["/proc/net/udp", "/proc/net/udp6"].map(read);
    let full = ports.into_iter().flatten().map(|port| {
        let of = sockets.iter().map(|table| overflows(table, port));
        (port, of.sum())
    });
    Machine {
        aes: has_aes(&read("/proc/cpuinfo")).unwrap_or_else(aes_is_fast),
        release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        tun: Path::new("/dev/net/tun").exists(),
        offloads: UdpOffloads::of_kernel(),
        overflows: full.collect(),
        passed: passed(&read("/proc/net/dev"), interfaces),
    }
}

/// Whether every processor of /proc/cpuinfo has instructions for AES-GCM; `None`: it does not say.
fn has_aes(cpuinfo: &str) -> Option<bool> {
    let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let features = lines.filter(|(key, _)| matches!(key.trim(), "flags" | "Features"));
    let has = features.map(|(_, features)| {
        let has = |wanted: &str| features.split_whitespace().any(|one| one == wanted);
        has("aes") && (has("pclmulqdq") || has("pmull"))
    });
    has.reduce(|all, one| all && one)
}

/// Datagrams that sockets of this port had no room for, by a table of proc_net_udp.
fn overflows(table: &str, port: u16) -> u64 {
    let socket = |line: &str| {
        let mut words = line.split_whitespace();
        let (_, local) = words.nth(1)?.rsplit_once(':')?;
        let local = u16::from_str_radix(local, 16).ok()?;
        let drops = words.next_back()?.parse::<u64>().ok()?;
        (local == port).then_some(drops)
    };
    table.lines().skip(1).filter_map(socket).sum()
}

/// Packets that these interfaces have passed, by /proc/net/dev. One of theirs may be many on the way (segments that
/// are cut later), so their octets count as well.
fn passed(table: &str, interfaces: &[String]) -> u64 {
    /// Octets of a packet as most have them.
    const PACKET: u64 = 1400;
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        if !interfaces.iter().any(|one| one == name.trim()) {
            return None;
        }
        let numbers = numbers.split_whitespace().map(str::parse);
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
        // Octets and packets received, and sent.
        let [octets, packets] = [0, 1].map(|n| {
            let of = |n: usize| numbers.get(n).copied().unwrap_or_default();
            of(n).saturating_add(of(n + 8))
        });
        Some(packets.max(octets / PACKET))
    };
    let passed = table.lines().filter_map(interface);
    passed.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_for_aes_are_those_of_every_processor() {
        let intel = "processor\t: 0\nflags\t\t: fpu aes pclmulqdq avx2\n\n";
        let cortex = "processor\t: 0\nFeatures\t: fp asimd aes pmull sha1\n\n";
        let raspberry = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\n";
        for (text, expected) in [
            (intel.to_owned(), Some(true)),
            (cortex.repeat(4), Some(true)),
            (raspberry.to_owned(), Some(false)),
            (format!("{cortex}{raspberry}"), Some(false)),
            (intel.replace("pclmulqdq", "popcnt"), Some(false)),
            (intel.replace(" aes ", " vaes "), Some(false)),
            ("model name: aes pclmulqdq\n".to_owned(), None),
        ] {
            assert_eq!(has_aes(&text), expected, "{text}");
        }
        let this = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        assert_eq!(has_aes(&this), Some(aes_is_fast()));
    }

    #[test]
    fn drops_of_a_socket_are_counted_by_its_port() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  \
            501: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 21 2 0 7\n \
            4501: 00000000:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 22 2 0 35\n \
            4501: 0100007F:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 23 2 0 1\n";
        assert_eq!(
            [500, 4500, 53].map(|port| overflows(table, port)),
            [7, 36, 0]
        );
    }

    #[test]
    fn who_answers_on_loopback_alone_answers_no_device() {
        let word = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let (none, one) = (word([0; 4]), word([0, 0, 0, 1]));
        let loopback6 = format!("{}{one}", none.repeat(3));
        for (address, port, found) in [
            (word([127, 0, 0, 53]), "0035", false),
            (word([192, 168, 1, 2]), "0035", true),
            (none.clone(), "0035", true),
            (word([192, 168, 1, 2]), "0044", false),
            (loopback6, "0035", false),
            (none.repeat(4), "0035", true),
        ] {
            let table =
                format!("  sl  local_address rem_address\n 12: {address}:{port} {none}:0000 07\n");
            assert_eq!(has_resolver(&table), found, "{table}");
        }
    }

    #[test]
    fn what_tunnels_have_passed_is_counted_by_packets_or_by_octets() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 9000 90 0 0 0 0 0 0 9000 90 0 0 0 0 0 0\n\
            cyg-a: 100 7 0 0 0 0 0 0 50 5 0 0 0 0 0 0\n\
            cyg-b: 1400000 10 0 0 0 0 0 0 2800 2 0 0 0 0 0 0\n";
        let passed = |interfaces: &[&str]| {
            let interfaces: Vec<String> = interfaces.iter().map(|i| (*i).to_owned()).collect();
            passed(table, &interfaces)
        };
        assert_eq!(passed(&["cyg-a"]), 12);
        assert_eq!(passed(&["cyg-a", "cyg-b", "cyg-c"]), 12 + 1002);
        assert_eq!(passed(&[]), 0);
    }

    #[test]
    fn units_are_judged_by_the_configuration_that_they_start_with() {
        let unit = |name, text: Option<&str>, enabled| Unit {
            name,
            text: text.map(str::to_owned),
            enabled,
        };
        let judged = |text: Option<&str>, path: &str| {
            let both = [unit("run", text, true), unit("guard", None, false)];
            units(Some(&both), Path::new(path), None)
        };
        let own = "[Service]\nExecStart=/usr/local/bin/cygnet run --config /srv/vpn.toml\n";
        let are = || Units::Are(vec![("run", true)]);
        assert_eq!(judged(Some(own), "/srv/vpn.toml"), are());
        assert_eq!(judged(Some(own), PACKAGED), Units::OtherConfiguration);
        let dropped_in = format!("{own}[Service]\nExecStart=\nExecStart=/c run --config=/a.toml\n");
        assert_eq!(judged(Some(&dropped_in), "/a.toml"), are());
        let plain = "ExecStart=/usr/local/bin/cygnet run\n";
        assert_eq!(judged(Some(plain), PACKAGED), are());
        // Nothing is installed: that is wrong of the usual file, and somebody's own affair of another one.
        assert_eq!(judged(None, PACKAGED), are());
        assert_eq!(judged(None, "/srv/vpn.toml"), Units::OtherConfiguration);
        assert_eq!(units(None, Path::new(PACKAGED), None), Units::NoSystemd);
        let guarded = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
            [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n";
        let config = Config::parse("t", guarded, &mut |p| Err(format!("no {p}"))).unwrap();
        let both = [
            unit("run", Some(plain), true),
            unit("guard", Some(plain), false),
        ];
        let judged = units(Some(&both), Path::new(PACKAGED), Some(&config));
        assert_eq!(judged, Units::Are(vec![("run", true), ("guard", false)]));
    }

    #[test]
    fn settings_of_this_machine_are_read() {
        let settings = settings();
        for path in ["net/ipv4/conf/all/forwarding", "net/ipv4/conf/lo/rp_filter"] {
            assert!(settings.contains_key(path), "{settings:?}");
        }
    }
}
