//! Cygnet lends addresses on a LAN, and advertises itself as its router: Debian's own clients ask, and other servers are
//! there as well.
//!
//! ```text
//!  laptop ──┐
//!  phone  ──┤ switch
//!  gateway ─┤ 192.168.1.2, fd00:192:168:1::2
//!  router ──┘ 192.168.1.1, fd00:192:168:1::1
//! ```

pub(super) mod beside;
pub(super) mod client;
mod ipv6;
mod lending;
mod online;

use super::Scenario;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::{End, Failure, Lab, Namespace, Result, Switch, wait_for};
use serde_json::Value;
use std::time::Duration;

/// The box.
const GATEWAY: &str = "192.168.1.2";
/// The home router.
const ROUTER: &str = "192.168.1.1";
/// Longer than a look for other servers takes.
const LOOKED: Duration = Duration::from_secs(25);
/// How long anything may take that happens by itself.
const SOON: Duration = Duration::from_secs(15);

pub(super) fn all() -> Vec<Scenario> {
    let mut all = lending::scenarios();
    all.extend(beside::scenarios());
    all.extend(ipv6::scenarios());
    all.extend(online::scenarios());
    all
}

/// A LAN of which nobody has an address but the box and the router.
struct Lan {
    laptop: Namespace,
    phone: Namespace,
    gateway: Namespace,
    router: Namespace,
    _switch: Switch,
}

impl Lan {
    fn build(lab: &Lab) -> Result<Self> {
        let switch = Switch::on(lab.host("switch")?)?;
        let lan = Self {
            laptop: lab.host("laptop")?,
            phone: lab.host("phone")?,
            gateway: lab.router("gateway")?,
            router: lab.router("router")?,
            _switch: switch.clone(),
        };
        let fixed = [
            (&lan.gateway, ["192.168.1.2/24", "fd00:192:168:1::2/64"]),
            (&lan.router, ["192.168.1.1/24", "fd00:192:168:1::1/64"]),
        ];
        for (host, addresses) in fixed {
            switch.plug(&End::new(host, "eth0", &addresses))?;
        }
        for host in [&lan.laptop, &lan.phone] {
            switch.plug(&End::new(host, "eth0", &[]))?;
        }
        lan.gateway.default_route(ROUTER)?;
        Ok(lan)
    }
}

/// The gateway with these lines in its section of DHCP.
fn setup(dhcp: &str) -> Setup {
    Setup::new(format!(
        "[tunnel.home]
remote = \"192.0.2.18\"
identity = \"box.lab\"
psk = \"psk\"
virtual_address = true
start = \"manual\"

[gateway]
tunnel = \"home\"
lan = \"eth0\"

[gateway.dhcp]
range = \"192.168.1.100-192.168.1.199\"
{dhcp}
"
    ))
    .file("psk", "correct horse battery staple\n")
}

/// The gateway without DHCP: `gateway` are more of its sections, `advertise` lines of that one.
fn advertised(gateway: &str, advertise: &str) -> Setup {
    let mut setup = setup("");
    let section = setup.config.find("[gateway.dhcp]").unwrap_or_default();
    setup.config.truncate(section);
    setup
        .config
        .push_str(&format!("{gateway}\n[gateway.advertise]\n{advertise}\n"));
    setup
}

/// Starts it and waits until it lends.
fn serving(lab: &Lab, lan: &Lan, dhcp: &str) -> Result<Cygnet> {
    let cygnet = Cygnet::start(lab, &lan.gateway, &setup(dhcp))?;
    wait_for_state(&cygnet, "serving")?;
    Ok(cygnet)
}

/// What `status` says of DHCP.
fn status(cygnet: &Cygnet) -> Result<Value> {
    Ok(cygnet.whole_status()?["dhcp"].clone())
}

pub(super) fn wait_for_state(cygnet: &Cygnet, state: &str) -> Result<()> {
    let mut seen = Value::Null;
    wait_for(&format!("DHCP is {state}"), LOOKED, || {
        seen = status(cygnet)?;
        Ok((seen["state"] == state).then_some(()))
    })
    .map_err(|failure| {
        Failure::new(format!(
            "{failure}, it is {seen}; its log:\n{}",
            cygnet.log()
        ))
    })
}

/// The address that a host has by its MAC address, as Cygnet knows it.
fn lease_of(cygnet: &Cygnet, host: &Namespace) -> Result<Option<String>> {
    let mac = host.mac()?;
    let dhcp = status(cygnet)?;
    let leases = dhcp["leases"].as_array().cloned().unwrap_or_default();
    let lease = leases.iter().find(|lease| lease["mac"] == mac.as_str());
    Ok(lease.and_then(|lease| lease["address"].as_str().map(str::to_owned)))
}

/// Waits until Cygnet knows that the host has this address.
fn is_lent(cygnet: &Cygnet, host: &Namespace, address: &str) -> Result<()> {
    let what = format!("{} is known to have {address}", host.name());
    wait_for(&what, SOON, || {
        Ok((lease_of(cygnet, host)?.as_deref() == Some(address)).then_some(()))
    })
}

/// Whether the address is one of the range.
fn in_range(address: &str) -> bool {
    let last = address.strip_prefix("192.168.1.");
    last.and_then(|last| last.parse::<u8>().ok())
        .is_some_and(|last| (100..=199).contains(&last))
}

/// Fails unless a client was told the box as router and resolver, and an address of the range.
pub(in crate::interop) fn by_the_box(lease: &client::Lease) -> Result<()> {
    ensure!(in_range(&lease.address), "{lease:?}");
    ensure!(
        lease.router == GATEWAY && lease.dns == GATEWAY && lease.server == GATEWAY,
        "{lease:?}"
    );
    Ok(())
}
