//! `cygnet gateway guide`: how devices come to use this machine as their gateway, with this LAN's addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use cygnet_config::Gateway;
use cygnet_linux::Netlink;
use ipnet::Ipv4Net;

use super::Leg;
use crate::error::StartError;
use crate::supervisor::start;
use crate::survey::SOME_RESOLVER;

/// The guide for the gateway of a configuration.
pub(crate) fn guide(file: &Path) -> Result<String, StartError> {
    let (config, _) = start::public(file)?;
    let Some(gateway) = &config.gateway else {
        return Err(StartError::refused(
            "there is no [gateway] section: `cygnet gateway setup` asks for what it needs, and writes it",
        ));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::refused)?;
    let mut why = String::new();
    for interface in lent_first(gateway) {
        match runtime.block_on(Leg::look(interface)) {
            Ok(leg) => match leg.v4.first() {
                Some(own) => {
                    let others = runtime.block_on(announced(interface));
                    return Ok(text(file, gateway, interface, *own, &leg.routers, others));
                }
                None => why = format!("{interface} has no IPv4 address"),
            },
            Err(error) => why = error,
        }
    }
    Err(StartError::refused(format_args!(
        "{why}: give this machine a fixed address in the LAN first"
    )))
}

/// Whether a router is seen to advertise itself there; where nobody can tell, one may.
async fn announced(interface: &str) -> bool {
    let seen = match Netlink::connect() {
        Ok(netlink) => netlink.announced().await,
        Err(error) => Err(error),
    };
    seen.map_or(true, |seen| seen.iter().any(|name| name == interface))
}

/// The LAN's interfaces, that of `[gateway.dhcp]` or `[gateway.advertise]` first.
fn lent_first(gateway: &Gateway) -> impl Iterator<Item = &String> {
    let lent = gateway.dhcp.as_ref().map(|dhcp| &dhcp.interface);
    let advertised = gateway.advertise.as_ref().map(|section| &section.interface);
    lent.or(advertised).into_iter().chain(&gateway.lan)
}

fn text(
    file: &Path,
    gateway: &Gateway,
    interface: &str,
    own: Ipv4Net,
    routers: &[Ipv4Addr],
    announced: bool,
) -> String {
    let (network, address, mask) = (own.trunc(), own.addr(), own.netmask());
    let dhcp = gateway.dhcp.as_ref();
    let resolvers = Resolvers::of(gateway, address);
    let dns = resolvers.by_hand();
    let router = match routers.first() {
        Some(router) => format!("the router ({router})"),
        None => "the router".to_owned(),
    };
    let range = match dhcp {
        Some(dhcp) => dhcp.range.get_ref().to_string(),
        None => suggested(own, routers).unwrap_or_else(|| "FIRST-LAST".to_owned()),
    };
    format!(
        "Devices of {interface}'s network {network} use this machine, {address}, as their gateway in one of three ways.

1. One device, by hand. In its network settings choose \"static\" or \"manual\":
     address      its own as before, or a free one of {network}
     mask         {mask}
     gateway      {address}
     DNS          {dns}

2. All devices, by {router}. In its DHCP settings, if it has these:
     gateway      {address}    (also called default router, option 3)
     DNS          {dns}
   Devices follow when they connect anew.

3. All devices, by this machine. Switch the DHCP server of {router} off, and write into
   {file} (or name the range in `cygnet gateway setup`)
     [gateway.dhcp]
     range = \"{range}\"{lent}
   then `cygnet check`, `cygnet reload`; `cygnet dhcp leases` shows who came.

{ipv6}",
        file = file.display(),
        lent = resolvers.lent(),
        ipv6 = ipv6(file, gateway, &router, announced),
    )
}

/// What becomes of devices' IPv6. `announced`: another router advertises itself in the LAN.
fn ipv6(file: &Path, gateway: &Gateway, router: &str, announced: bool) -> String {
    let advertised = match &gateway.dhcp {
        Some(dhcp) => dhcp.router_advertisements,
        None => gateway.advertise.is_some(),
    };
    if !announced {
        return match advertised {
            true => "IPv6: this machine is advertised to all devices as their router, so it gets their IPv6; no other router is seen to
advertise itself in the LAN."
                .to_owned(),
            false => "IPv6: no router is seen to advertise itself in the LAN, so devices have no way past this machine by it. Should there be
one some day, `cygnet doctor` says so, and what to do."
                .to_owned(),
        };
    }
    match (&gateway.dhcp, &gateway.advertise) {
        (Some(dhcp), _) if !dhcp.router_advertisements => format!(
            "IPv6: this machine is not advertised as a router (`router_advertisements = false`), so devices SEND IT TO THE ROUTER
THAT ADVERTISES ITSELF, PAST THIS MACHINE AND THE TUNNEL. Take that line out, or switch IPv6 off in {router}."
        ),
        (Some(_), _) | (None, Some(_)) => format!(
            "IPv6: this machine is advertised to all devices as the router to prefer, so it gets their IPv6. Devices that heed
no preference, and all while this machine is off, use another one, PAST THIS MACHINE, as long as that advertises
itself: switch IPv6 off in {router} to end that."
        ),
        (None, None) => format!(
            "IPv6: in the first two ways devices GO ON SENDING IT TO THE ROUTER THAT ADVERTISES ITSELF, PAST THIS MACHINE AND THE
TUNNEL. One of these ends that:
  switch IPv6 off in {router}, or on each device: then there is none;
  let this machine be advertised as the router to prefer, to all devices: write into
  {file} (or answer y in `cygnet gateway setup`)
     [gateway.advertise]
  then `cygnet check`, `cygnet reload`. Devices that heed no preference, and all while this machine is off, use the
  other one all the same. In the third way this is so without that section.",
            file = file.display(),
        ),
    }
}

/// Whom devices are to ask for names.
enum Resolvers {
    /// As `[gateway.dhcp]` says.
    Named(Vec<IpAddr>),
    /// This machine: it answers.
    This(Ipv4Addr),
    /// Nobody is named, and this machine does not answer.
    Unnamed,
}

impl Resolvers {
    fn of(gateway: &Gateway, own: Ipv4Addr) -> Self {
        let named = gateway.dhcp.as_ref().and_then(|dhcp| dhcp.dns.clone());
        match (named, &gateway.dns) {
            (Some(named), _) => Self::Named(named),
            (None, Some(_)) => Self::This(own),
            (None, None) => Self::Unnamed,
        }
    }

    /// What is entered by hand.
    fn by_hand(&self) -> String {
        let some = || format!("{SOME_RESOLVER} (one on the LAN would be asked past the tunnel)");
        match self {
            Self::Named(named) => {
                let named = named.iter().filter(|a| a.is_ipv4());
                let named: Vec<String> = named.map(IpAddr::to_string).collect();
                match named.is_empty() {
                    true => some(),
                    false => named.join(", "),
                }
            }
            Self::This(own) => format!("{own}    (this machine answers, through the tunnel)"),
            Self::Unnamed => some(),
        }
    }

    /// What stands below `range`, where devices would be told something else without it.
    fn lent(&self) -> String {
        let named: Vec<String> = match self {
            Self::This(_) => return String::new(),
            Self::Named(named) => named.iter().map(|a| format!("\"{a}\"")).collect(),
            Self::Unnamed => vec![format!("\"{SOME_RESOLVER}\"")],
        };
        format!("\n     dns = [{}]", named.join(", "))
    }
}

/// A range for a LAN of this kind, if there is room.
pub(crate) fn suggested(own: Ipv4Net, routers: &[Ipv4Addr]) -> Option<String> {
    let (first, last) = (own.network().to_bits(), own.broadcast().to_bits());
    let size = u64::from(last - first) + 1;
    let taken = |begin: u32, end: u32| {
        let mut all = routers.iter().copied().chain([own.addr()]);
        all.any(|address| (begin..=end).contains(&address.to_bits()))
    };
    // Of a usual LAN; of a small one the second half, or the first.
    let half = u32::try_from(size / 2).unwrap_or(u32::MAX / 2);
    let candidates = [
        (100, 199),
        (200, 249),
        (10, 99),
        (half, half.saturating_mul(2).saturating_sub(2)),
        (1, half.saturating_sub(1)),
    ];
    let fits = candidates.into_iter().find_map(|(begin, end)| {
        let (begin, end) = (first.checked_add(begin)?, first.checked_add(end)?);
        (begin <= end && end < last && !taken(begin, end)).then_some((begin, end))
    });
    fits.map(|(begin, end)| {
        format!(
            "{}-{}",
            Ipv4Addr::from_bits(begin),
            Ipv4Addr::from_bits(end)
        )
    })
}

#[cfg(test)]
mod tests {
    use cygnet_config::Config;

    use super::*;

    const FILE: &str = "/etc/cygnet/cygnet.toml";

    fn shown(lines: &str, own: Ipv4Net, routers: &[Ipv4Addr]) -> String {
        text(Path::new(FILE), &gateway(lines), "eth0", own, routers, true)
    }

    fn gateway(lines: &str) -> Gateway {
        let text = format!(
            "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
             [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n{lines}"
        );
        let config = Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap();
        config.gateway.unwrap()
    }

    #[test]
    fn it_shows_the_addresses_of_this_lan() {
        let own = "192.168.7.2/24".parse().unwrap();
        let router = [Ipv4Addr::new(192, 168, 7, 1)];
        let guide = shown("", own, &router);
        for part in [
            "eth0's network 192.168.7.0/24 use this machine, 192.168.7.2,",
            "mask         255.255.255.0",
            "gateway      192.168.7.2",
            "by the router (192.168.7.1).",
            "DNS          9.9.9.9 (",
            "off, and write into\n   /etc/cygnet/cygnet.toml (or name the range in `cygnet gateway setup`)\n     [gateway.dhcp]",
            "range = \"192.168.7.100-192.168.7.199\"",
            "write into\n  /etc/cygnet/cygnet.toml (or answer y in `cygnet gateway setup`)\n     [gateway.advertise]",
        ] {
            assert!(guide.contains(part), "{part}:\n{guide}");
        }
        let lines = "[gateway.dhcp]\nrange = \"192.168.7.20-192.168.7.30\"\ndns = [\"10.0.0.53\", \"2620:fe::fe\"]\n";
        let guide = shown(lines, own, &[]);
        assert!(
            guide.contains("range = \"192.168.7.20-192.168.7.30\"\n     dns = [\"10.0.0.53\", \"2620:fe::fe\"]\n"),
            "{guide}"
        );
        assert!(guide.contains("DNS          10.0.0.53\n"), "{guide}");
    }

    #[test]
    fn where_ipv6_goes_is_told() {
        let own = "192.168.7.2/24".parse().unwrap();
        let router = [Ipv4Addr::new(192, 168, 7, 1)];
        let guide = |lines| shown(lines, own, &router);
        let range = "[gateway.dhcp]\nrange = \"192.168.7.20-192.168.7.30\"\n";
        let off = format!("{range}router_advertisements = false\n");
        for (lines, remedy) in [("", "[gateway.advertise]"), (&off, "Take that line out")] {
            let past = guide(lines);
            assert!(
                past.contains("PAST THIS MACHINE AND THE\nTUNNEL")
                    || past.contains("PAST THIS MACHINE AND THE TUNNEL"),
                "{past}"
            );
            assert!(past.contains(remedy), "{past}");
            assert!(
                past.contains("switch IPv6 off in the router (192.168.7.1)"),
                "{past}"
            );
        }
        for lines in ["[gateway.advertise]\n", range] {
            let preferred = guide(lines);
            assert!(
                preferred.contains("advertised to all devices as the router to prefer"),
                "{preferred}"
            );
            assert!(!preferred.contains("AND THE"), "{preferred}");
        }
    }

    #[test]
    fn where_no_router_advertises_itself_nothing_goes_past_this_machine() {
        let own = "192.168.7.2/24".parse().unwrap();
        let range = "[gateway.dhcp]\nrange = \"192.168.7.20-192.168.7.30\"\n";
        let off = format!("{range}router_advertisements = false\n");
        for (lines, told) in [
            ("", "`cygnet doctor` says so"),
            (&off, "`cygnet doctor` says so"),
            ("[gateway.advertise]\n", "so it gets their IPv6"),
            (range, "so it gets their IPv6"),
        ] {
            let guide = text(Path::new(FILE), &gateway(lines), "eth0", own, &[], false);
            assert!(guide.contains(told), "{guide}");
            assert!(!guide.contains("PAST THIS MACHINE"), "{guide}");
        }
    }

    #[test]
    fn this_machine_is_named_as_resolver_where_it_answers() {
        let own = "192.168.7.2/24".parse().unwrap();
        let guide = |lines| shown(lines, own, &[]);
        let answering = guide("[gateway.dns]\n");
        assert_eq!(answering.matches("DNS          192.168.7.2 ").count(), 2);
        assert!(
            !answering.contains("9.9.9.9") && !answering.contains("dns = "),
            "{answering}"
        );
        // Without a word devices would be told to ask a machine that does not answer.
        let range = "[gateway.dhcp]\nrange = \"192.168.7.20-192.168.7.30\"\n";
        for lines in ["", range] {
            let silent = guide(lines);
            assert!(silent.contains("\n     dns = [\"9.9.9.9\"]\n"), "{silent}");
            assert!(!silent.contains("DNS          192.168.7.2"), "{silent}");
        }
    }

    #[test]
    fn what_is_suggested_is_free() {
        let suggested = |own: &str, routers: &[&str]| {
            let routers: Vec<Ipv4Addr> = routers.iter().map(|r| r.parse().unwrap()).collect();
            suggested(own.parse().unwrap(), &routers)
        };
        for (own, routers, expected) in [
            (
                "10.0.0.2/24",
                &["10.0.0.1"][..],
                Some("10.0.0.100-10.0.0.199"),
            ),
            ("10.0.0.2/16", &[], Some("10.0.0.100-10.0.0.199")),
            (
                "10.0.0.150/24",
                &["10.0.0.201"],
                Some("10.0.0.10-10.0.0.99"),
            ),
            ("10.0.0.2/26", &["10.0.0.1"], Some("10.0.0.32-10.0.0.62")),
            ("10.0.0.40/26", &["10.0.0.41"], Some("10.0.0.1-10.0.0.31")),
            ("10.0.0.2/31", &[], None),
        ] {
            assert_eq!(suggested(own, routers).as_deref(), expected);
        }
    }
}
