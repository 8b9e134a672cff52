//! Virtual addresses: Cygnet as the client of a strongSwan server, and as the server of its clients.

use super::super::Scenario;
use super::super::pair::{Pair, Way};
use super::super::plan::{
    ChildPlan, INTERFACE, Inner, NET, Plan, Role, SERVER, credential_lines, with_files,
};
use crate::ensure;
use crate::lab::cygnet::Setup;
use crate::lab::offices::{Nat, Offices};
use crate::lab::pki::KeyKind;
use crate::lab::strongswan::StrongSwan;
use crate::lab::{Failure, Lab, Result};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (word, inner) in [("4", Inner::V4), ("6", Inner::V6), ("46", Inner::Both)] {
        all.push(Scenario::new(
            format!("virtual-address{word}-initiator"),
            "Cygnet asks a strongSwan server for addresses of these families",
            move |lab| client(lab, inner, Ask::Any),
        ));
        all.push(Scenario::new(
            format!("virtual-address{word}-responder"),
            "Cygnet as a server lends addresses of these families to a strongSwan client",
            move |lab| server(lab, inner, Nat::None, None),
        ));
    }
    all.push(Scenario::new(
        "virtual-address-wished-responder",
        "strongSwan wishes for a certain address, and Cygnet lends it",
        |lab| server(lab, Inner::V4, Nat::None, Some("10.77.0.77")),
    ));
    all.push(Scenario::new(
        "virtual-address-wished-initiator",
        "Cygnet wishes for a certain address, and takes the other one that strongSwan lends",
        |lab| client(lab, Inner::V4, Ask::Wish),
    ));
    all.push(Scenario::new(
        "virtual-address-everything-initiator",
        "all of Cygnet's own traffic goes through the tunnel, but the tunnel itself",
        |lab| client(lab, Inner::V4, Ask::Everything),
    ));
    all.push(Scenario::new(
        "virtual-address-nat-responder",
        "a strongSwan client behind a router calls a Cygnet server",
        |lab| server(lab, Inner::V4, Nat::BeforeA, None),
    ));
    all.push(Scenario::new(
        "shared-identity-responder",
        "two strongSwan clients behind one router with one certificate, `unique = false`",
        |lab| shared_identity(lab),
    ));
    all
}

const POOL4: &str = "10.77.0.0/24";
const POOL6: &str = "fd77::/112";
/// Resolvers that go with the addresses, one for each family.
const RESOLVERS: [&str; 2] = ["10.77.0.53", "fd77::53"];

/// The resolvers for the families of these addresses, sorted.
fn resolvers_for(addresses: &[String]) -> Vec<&'static str> {
    let of = |colon: bool| addresses.iter().any(|a| a.contains(':') == colon);
    let known = RESOLVERS.iter().filter(|r| of(r.contains(':')));
    known.copied().collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Any,
    Wish,
    Everything,
}

fn client(lab: &Lab, inner: Inner, ask: Ask) -> Result<String> {
    let mut plan = Plan::certificates(Role::Initiator, KeyKind::EcP256)?;
    plan.inner = inner;
    let pools = [("pool4", POOL4), ("pool6", POOL6)];
    plan.swan_pools = match inner {
        Inner::V4 => vec![pools[0]],
        Inner::V6 => vec![pools[1]],
        Inner::Both => pools.to_vec(),
    };
    plan = plan.cygnet_line(match ask {
        Ask::Wish => "virtual_address = [\"10.77.0.77\"]",
        _ => "virtual_address = true",
    });
    let offices = Offices::build(lab, Nat::None)?;
    let behind = inner.networks(&offices.b);
    let everything = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    plan.children = vec![ChildPlan {
        name: NET.to_owned(),
        cygnet: match ask {
            Ask::Everything => (Vec::new(), Vec::new()),
            _ => (Vec::new(), behind.clone()),
        },
        swan: match ask {
            Ask::Everything => (everything, Vec::new()),
            _ => (behind, Vec::new()),
        },
    }];
    let setup = plan.cygnet_setup(&offices);
    let mut swan_setup = plan.swan_setup(&offices);
    for pool in &mut swan_setup.config.pools {
        let same = |r: &&&str| r.contains(':') == pool.addresses.contains(':');
        pool.dns = RESOLVERS
            .iter()
            .filter(same)
            .map(|r| (*r).to_owned())
            .collect();
    }
    let mut offices = offices;
    offices.block_all_but_tunnel()?;
    let pair = Pair::start_as(lab, plan, offices, &setup, &swan_setup)?;
    pair.connect()?;
    let (own, theirs) = pair.ike_sa()?;
    let mut named = own.dns.clone();
    named.sort();
    ensure!(
        named == resolvers_for(&own.virtual_addresses),
        "strongSwan named other resolvers than {named:?}"
    );
    let told = pair.cygnet.command(&["status"])?;
    ensure!(
        named
            .iter()
            .all(|resolver| told.contains(resolver.as_str())),
        "`cygnet status` does not show {named:?}: {told}"
    );
    let (mut lent, mut had) = (theirs.virtual_addresses, own.virtual_addresses);
    lent.sort();
    had.sort();
    let wanted = if inner == Inner::Both { 2 } else { 1 };
    ensure!(
        lent == had && had.len() == wanted,
        "strongSwan lent {lent:?}, cygnet has {had:?}"
    );
    let addresses = pair
        .cygnet
        .namespace()
        .ip(&format!("-o addr show dev {INTERFACE}"))?;
    ensure!(
        had.iter()
            .all(|address| addresses.contains(address.as_str())),
        "{had:?} is not on the interface: {addresses}"
    );
    let ways = ways(&pair, &had)?;
    let told = pair.carry_on(&ways)?;
    if ask == Ask::Everything {
        // The rest of the world, behind strongSwan.
        let far = pair.far().gateway.clone();
        far.ip("addr add 203.0.113.1/32 dev lo")?;
        let near = (&pair.near().gateway, had[0].as_str());
        pair.carry_on(&[Way::new(near, (&far, "203.0.113.1"))])?;
    }
    Ok(format!("{had:?}, {told}"))
}

fn server(lab: &Lab, inner: Inner, nat: Nat, wish: Option<&str>) -> Result<String> {
    let mut plan = Plan::certificates(Role::Responder, KeyKind::EcP256)?;
    plan.inner = inner;
    plan.nat = nat;
    plan.connection = SERVER;
    let pools: &[&str] = match inner {
        Inner::V4 => &[POOL4],
        Inner::V6 => &[POOL6],
        Inner::Both => &[POOL4, POOL6],
    };
    for pool in pools {
        let any = if pool.contains(':') { "::" } else { "0.0.0.0" };
        plan = plan.swan_set("vips", wish.unwrap_or(any));
    }
    let mut offices = Offices::build(lab, nat)?;
    offices.block_all_but_tunnel()?;
    // The server is in office b.
    let behind = inner.networks(&offices.b);
    plan.children = vec![ChildPlan {
        name: NET.to_owned(),
        cygnet: (behind.clone(), Vec::new()),
        swan: (Vec::new(), behind),
    }];
    let setup = server_setup(&plan, pools, "");
    let pair = Pair::start_with(lab, plan, offices, &setup)?;
    pair.swan
        .initiate(NET)
        .map_err(|failure| pair.with_log(failure))?;
    pair.wait_for_child(NET)?;
    let (own, theirs) = pair.ike_sa()?;
    let (mut lent, mut had) = (own.virtual_addresses, theirs.virtual_addresses);
    lent.sort();
    had.sort();
    ensure!(
        lent == had && had.len() == pools.len(),
        "cygnet lent {lent:?}, strongSwan has {had:?}"
    );
    let mut named = pair.swan.resolvers();
    named.sort();
    ensure!(
        named == RESOLVERS,
        "strongSwan was given the resolvers {named:?}"
    );
    if let Some(wish) = wish {
        ensure!(had == [wish], "wished for {wish}, lent {had:?}");
    }
    let far = pair.far().gateway.clone();
    let near = pair.near();
    let ways: Vec<Way> = had
        .iter()
        .map(|address| {
            let own = if address.contains(':') {
                near.host6
            } else {
                near.host4
            };
            Way::new((&near.host, own), (&far, address))
        })
        .collect();
    let told = pair.carry_on(&ways)?;
    Ok(format!("{had:?}, {told}"))
}

/// A server with these pools.
pub(super) fn server_setup(plan: &Plan, pools: &[&str], line: &str) -> Setup {
    let quoted: Vec<String> = pools.iter().map(|pool| format!("\"{pool}\"")).collect();
    let mut lines = vec![
        "[server]".to_owned(),
        format!("identity = \"{}\"", plan.cygnet.identity),
        format!("pools = [{}]", quoted.join(", ")),
        format!("dns = [\"{}\", \"{}\"]", RESOLVERS[0], RESOLVERS[1]),
        format!("ike = [\"{}\"]", plan.cygnet.ike[0]),
        format!("esp = [\"{}\"]", plan.cygnet.esp[0]),
        line.to_owned(),
    ];
    lines.extend(credential_lines(&plan.cygnet));
    with_files(Setup::new(lines.join("\n")), &plan.cygnet)
}

/// Both say INITIAL_CONTACT, and neither is to end the other's tunnel or to take its address.
fn shared_identity(lab: &Lab) -> Result<String> {
    let mut plan = Plan::certificates(Role::Responder, KeyKind::EcP256)?;
    plan.nat = Nat::BeforeA;
    plan.connection = SERVER;
    plan = plan.swan_set("vips", "0.0.0.0");
    let offices = Offices::build(lab, plan.nat)?;
    let behind = Inner::V4.networks(&offices.b);
    plan.children = vec![ChildPlan {
        name: NET.to_owned(),
        cygnet: (behind.clone(), Vec::new()),
        swan: (Vec::new(), behind),
    }];
    // The second device is behind the first, and both are behind the router.
    if let Some(router) = &offices.nat_a {
        let (network, via) = (offices.a.lan4, offices.a.outer4);
        router.ip(&format!("route add {network} via {via}"))?;
    }
    let second_host = offices.a.host.clone();
    let mut second_setup = plan.swan_setup(&offices);
    for connection in &mut second_setup.config.connections {
        connection.local_addresses = vec![offices.a.host4.to_owned()];
    }
    let setup = server_setup(&plan, &[POOL4], "unique = false");
    let pair = Pair::start_with(lab, plan, offices, &setup)?;
    let lent = |swan: &StrongSwan| -> Result<String> {
        swan.initiate(NET)
            .map_err(|failure| pair.with_log(failure))?;
        let mut sas = swan.sas()?;
        let addresses = sas.pop().map(|sa| sa.virtual_addresses).unwrap_or_default();
        ensure!(addresses.len() == 1, "strongSwan was lent {addresses:?}");
        Ok(addresses.concat())
    };
    let first = lent(&pair.swan)?;
    let device = StrongSwan::start(lab, &second_host, &second_setup)?;
    let second = lent(&device)?;
    ensure!(first != second, "both devices have {first}");
    // Nobody else has these addresses: an answer has come through the tunnel of that device.
    let both = || -> Result<()> {
        let up = pair.cygnet.connection(SERVER)?.ike_sas.len();
        ensure!(up == 2, "{up} IKE SAs");
        for address in [&first, &second] {
            let ping = ["ping", "-n", "-c", "2", "-W", "2", address.as_str()];
            pair.near().host.exec(ping).map_err(|f| pair.with_log(f))?;
        }
        Ok(())
    };
    both()?;
    drop(device);
    let device = StrongSwan::start(lab, &second_host, &second_setup)?;
    let again = lent(&device)?;
    ensure!(again == second, "{second} before, {again} after a restart");
    both()?;
    Ok(format!(
        "{first} and {second}, the latter again after a restart"
    ))
}

/// From Cygnet's virtual addresses to the host behind strongSwan.
fn ways(pair: &Pair, addresses: &[String]) -> Result<Vec<Way>> {
    let (near, far) = (&pair.near().gateway, pair.far());
    let ways: Vec<Way> = addresses
        .iter()
        .map(|address| {
            let other = if address.contains(':') {
                far.host6
            } else {
                far.host4
            };
            Way::new((near, address), (&far.host, other))
        })
        .collect();
    if ways.is_empty() {
        return Err(Failure::new("no virtual address"));
    }
    Ok(ways)
}
