//! Routers that translate addresses, and both families outside and inside.

use super::super::Scenario;
use super::super::pair::{Pair, SOON};
use super::super::plan::{INTERFACE, Inner, OFFICE, Plan, Role};
use crate::ensure;
use crate::lab::nat::forget_mappings;
use crate::lab::offices::{Nat, Offices};
use crate::lab::traffic::ping_until_answered;
use crate::lab::{Lab, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for role in Role::BOTH {
        for (place, nat) in [
            ("initiator", Nat::BeforeA),
            ("responder", Nat::BeforeB),
            ("both", Nat::BeforeBoth),
        ] {
            let name = format!("nat-before-{place}-{}", role.name());
            let about = format!("NAT before {place}");
            all.push(Scenario::new(name, about, move |lab| {
                translated(lab, role, nat)
            }));
        }
        for (outer, outer6) in [("4", false), ("6", true)] {
            for (word, inner) in [("4", Inner::V4), ("6", Inner::V6), ("46", Inner::Both)] {
                if !outer6 && inner == Inner::V4 {
                    continue;
                }
                let name = format!("inner{word}-in-outer{outer}-{}", role.name());
                let about = format!("IPv{outer} outside; inside, IPv4 and IPv6 as the digits say");
                all.push(Scenario::new(name, about, move |lab| {
                    families(lab, role, outer6, inner)
                }));
            }
        }
        let name = format!("large-packets-{}", role.name());
        all.push(Scenario::new(
            name,
            "packets larger than the tunnel's MTU, with and without DF, and TCP",
            move |lab| large_packets(lab, role),
        ));
    }
    all.push(Scenario::new(
        "narrow-path-initiator",
        "a link of MTU 1400 behind a router on the way: TCP and datagrams of any size",
        narrow,
    ));
    all.push(Scenario::new(
        "nat-rebinding-of-strongswan",
        "the router before strongSwan forgets its mapping: Cygnet follows",
        |lab| rebinding(lab, Role::Responder),
    ));
    all.push(Scenario::new(
        "nat-rebinding-of-cygnet",
        "the router before Cygnet forgets its mapping: the tunnel goes on",
        |lab| rebinding(lab, Role::Initiator),
    ));
    all
}

fn translated(lab: &Lab, role: Role, nat: Nat) -> Result<String> {
    let mut plan = Plan::shared_key(role);
    plan.nat = nat;
    let pair = Pair::connected(lab, plan)?;
    let (own, theirs) = pair.ike_sa()?;
    let a = matches!(nat, Nat::BeforeA | Nat::BeforeBoth);
    let b = matches!(nat, Nat::BeforeB | Nat::BeforeBoth);
    let (before_cygnet, before_swan) = match role {
        Role::Initiator => (a, b),
        Role::Responder => (b, a),
    };
    // strongSwan claims a NAT as well: its ESP in user space needs UDP too.
    ensure!(
        own.nat_local == before_cygnet && own.nat_remote,
        "cygnet sees a NAT before itself: {}, before its peer: {}",
        own.nat_local,
        own.nat_remote
    );
    // Cygnet claims a NAT so that ESP travels in UDP: the peer sees one before it in any case.
    ensure!(
        theirs.facts.contains_key("nat-remote") && theirs.remote_port == 4500,
        "strongSwan has {:?}, port {}",
        theirs.facts,
        theirs.remote_port
    );
    ensure!(
        theirs.facts.contains_key("nat-local") == before_swan,
        "strongSwan sees of a NAT before itself: {:?}",
        theirs.facts
    );
    pair.carry()
}

fn families(lab: &Lab, role: Role, outer6: bool, inner: Inner) -> Result<String> {
    let mut plan = Plan::shared_key(role);
    plan.outer6 = outer6;
    plan.inner = inner;
    let pair = Pair::connected(lab, plan)?;
    pair.carry()
}

fn rebinding(lab: &Lab, role: Role) -> Result<String> {
    let mut plan = Plan::shared_key(role)
        .cygnet_line("liveness = \"1s\"")
        .swan_set("dpd_delay", "1s");
    plan.nat = Nat::BeforeA;
    let mut pair = Pair::connected(lab, plan)?;
    pair.carry()?;
    let old = pair.ike_sa()?.0;
    // The router restarts while a ping from behind it is on its way again and again.
    if let Some(router) = &pair.offices.nat_a {
        forget_mappings(router, "out", 20_000)?;
    }
    ping_until_answered(&pair.offices.a.host, pair.offices.b.host4, SOON)
        .map_err(|failure| pair.with_log(failure))?;
    wait_for("both ends have the new port", SOON, || {
        let theirs = pair.swan.sas()?;
        let own = pair.cygnet.connection(OFFICE)?.ike_sas;
        let port = match role {
            Role::Responder => own.first().and_then(|sa| port_of(&sa.remote)),
            Role::Initiator => theirs.first().map(|sa| sa.remote_port),
        };
        Ok(port.is_some_and(|port| port >= 20_000).then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    let (new, _) = pair.ike_sa()?;
    ensure!(
        new.initiator_spi == old.initiator_spi,
        "another IKE SA took its place"
    );
    pair.offices.block_all_but_tunnel()?;
    pair.carry()
}

fn port_of(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok()
}

/// The router says that a packet is too big, and nothing on the way drops what it says.
fn narrow(lab: &mut Lab) -> Result<String> {
    let mut plan = Plan::shared_key(Role::Initiator);
    plan.nat = Nat::BeforeA;
    let offices = Offices::build(lab, plan.nat)?;
    if let Some(router) = &offices.nat_a {
        router.ip("link set out mtu 1400")?;
    }
    offices.b.gateway.ip("link set wan mtu 1400")?;
    let (setup, swan_setup) = (plan.cygnet_setup(&offices), plan.swan_setup(&offices));
    let pair = Pair::start_as(lab, plan, offices, &setup, &swan_setup)?;
    pair.connect()?;
    let (near, far) = (pair.near(), pair.far());
    let mut rates = Vec::new();
    for direction in [
        crate::lab::traffic::Direction::Upload,
        crate::lab::traffic::Direction::Download,
    ] {
        let rate = crate::lab::traffic::throughput(&near.host, &far.host, far.host4, 2, direction)?;
        let flows = rate > 5.0;
        ensure!(flows, "TCP {direction:?}: {rate} Mbit/s");
        rates.push(format!("{rate:.0}"));
    }
    for size in ["1000", "1372", "1800"] {
        near.host.exec([
            "ping", "-n", "-q", "-c1", "-W5", "-M", "dont", "-s", size, far.host4,
        ])?;
    }
    // The later fragments of strongSwan's own datagrams have no ports and look like leaks until here.
    let told = pair.carry()?;
    Ok(format!("TCP at {} Mbit/s; {told}", rates.join(" and ")))
}

fn large_packets(lab: &Lab, role: Role) -> Result<String> {
    let mut plan = Plan::shared_key(role);
    plan.inner = Inner::Both;
    let pair = Pair::connected(lab, plan)?;
    let (near, far) = (pair.near(), pair.far());
    let link = pair
        .cygnet
        .namespace()
        .ip(&format!("-o link show {INTERFACE}"))?;
    let mtu = link
        .split_whitespace()
        .skip_while(|&word| word != "mtu")
        .nth(1)
        .and_then(|word| word.parse::<u32>().ok());
    ensure!(
        mtu.is_some_and(|mtu| (1280..1500).contains(&mtu)),
        "the tunnel's interface is {link}"
    );
    // Without DF the gateway cuts; the answer comes back whole.
    near.host.exec([
        "ping", "-n", "-q", "-c1", "-W5", "-M", "dont", "-s", "1800", far.host4,
    ])?;
    // With DF, and for IPv6, the sender learns the size and keeps to it.
    for address in [far.host4, far.host6] {
        let refused = near.host.finish([
            "ping", "-n", "-q", "-c2", "-i0.2", "-W1", "-M", "do", "-s", "1440", address,
        ])?;
        let route = near.host.exec(["ip", "route", "get", address])?;
        ensure!(
            !refused.success() && route.contains("mtu"),
            "{address}: no \"too big\" came back: {}{route}",
            refused.stdout
        );
    }
    let mut rates = Vec::new();
    for address in [far.host4, far.host6] {
        for direction in [
            crate::lab::traffic::Direction::Upload,
            crate::lab::traffic::Direction::Download,
        ] {
            let rate =
                crate::lab::traffic::throughput(&near.host, &far.host, address, 1, direction)?;
            let flows = rate > 5.0;
            ensure!(flows, "TCP {direction:?} to {address}: {rate} Mbit/s");
            rates.push(format!("{rate:.0}"));
        }
    }
    ensure!(pair.offices.counters()?.leaked == 0, "packets leaked");
    Ok(format!("TCP at {} Mbit/s", rates.join(", ")))
}
