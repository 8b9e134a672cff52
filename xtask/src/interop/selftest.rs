//! strongSwan against strongSwan: shows that the lab itself proves what it says it proves.

use super::Scenario;
use crate::ensure;
use crate::lab::offices::{Nat, Offices};
use crate::lab::pki::{Authority, KeyKind, Request};
use crate::lab::strongswan::{Auth, Child, Config, Connection, Setup, StrongSwan};
use crate::lab::traffic::{UdpFlow, ping, ping_all};
use crate::lab::world::{HOME_PUBLIC, World};
use crate::lab::{Lab, Result, wait_for};
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "lab-certificates",
            "strongSwan to strongSwan: certificates, two subnets, only the tunnel carries",
            certificates,
        ),
        Scenario::new(
            "lab-nat-both-psk",
            "strongSwan to strongSwan: routers with NAT before both, shared key",
            nat_both,
        ),
        Scenario::new(
            "lab-ipv6-rekey-loss-free",
            "strongSwan to strongSwan: IPv6 outside, a child rekey under UDP traffic",
            ipv6_rekey,
        ),
        Scenario::new(
            "lab-revoked",
            "strongSwan to strongSwan: a revoked certificate is refused",
            revoked,
        ),
        Scenario::new(
            "lab-demo-sees-leaks",
            "the demo's world: what goes past the tunnel is counted before the router's NAT and behind it",
            world_sees_leaks,
        ),
    ]
}

const PROPOSAL: &str = "aes128gcm16-prfsha256-x25519";
const ESP_PROPOSAL: &str = "aes128gcm16";

fn certificates(lab: &mut Lab) -> Result<String> {
    let mut offices = Offices::build(lab, Nat::None)?;
    offices.block_all_but_tunnel()?;
    let (a, b) = (&offices.a, &offices.b);
    let root = Authority::root(KeyKind::EcP384, "lab root")?;
    let below = root.intermediate(KeyKind::Rsa2048, "lab below")?;
    let peer = |own: &str, other: &str, from: &str, to: &str, local: &[&str], remote: &[&str]| {
        let name = format!("{own}.lab");
        let credential = below.issue(&Request::new(KeyKind::Ed25519, own).name(&name))?;
        let connection = Connection::new("net", from, to)
            .proposal(PROPOSAL)
            .local(Auth::certificate(own, &name))
            .remote(Auth::public_key(&format!("{other}.lab")))
            .child(Child::new("lan", local, remote).proposal(ESP_PROPOSAL));
        Ok::<_, crate::lab::Failure>(Setup {
            config: Config::of(connection),
            credentials: vec![(own.to_owned(), credential)],
            authorities: vec![root.certificate.clone()],
            ..Setup::default()
        })
    };
    let (lans_a, lans_b) = ([a.lan4, a.second_lan4], [b.lan4, b.second_lan4]);
    let gwa = peer("gwa", "gwb", a.outer4, b.outer4, &lans_a, &lans_b)?;
    let gwb = peer("gwb", "gwa", b.outer4, a.outer4, &lans_b, &lans_a)?;
    let gwb = StrongSwan::start(lab, &b.gateway, &gwb)?;
    let gwa = StrongSwan::start(lab, &a.gateway, &gwa)?;

    ensure!(
        ping(&a.host, b.host4, 1)?.received == 0,
        "packets passed without a tunnel"
    );
    let blocked = offices.counters()?;
    ensure!(
        blocked.leaked > 0 && blocked.tunnel == 0,
        "without a tunnel: {blocked:?}"
    );
    offices.reset_counters()?;

    gwa.initiate("lan")?;
    ping_all(&a.host, b.host4, 3)?;
    ping_all(&b.second_host, a.second_host4, 3)?;
    let (at_a, at_b) = (gwa.child("lan")?, gwb.child("lan")?);
    ensure!(
        at_a.packets_out == 6 && at_a.packets_in == 6,
        "gwa counts {at_a:?}"
    );
    ensure!(
        at_b.packets_out == 6 && at_b.packets_in == 6,
        "gwb counts {at_b:?}"
    );
    let passed = offices.counters()?;
    ensure!(
        passed.leaked == 0 && passed.tunnel >= 12,
        "on the link: {passed:?}"
    );
    Ok(format!(
        "6 packets each way in the SA, {} on the link, none else",
        passed.tunnel
    ))
}

fn nat_both(lab: &mut Lab) -> Result<String> {
    let mut offices = Offices::build(lab, Nat::BeforeBoth)?;
    offices.block_all_but_tunnel()?;
    let (a, b) = (&offices.a, &offices.b);
    let initiator = Connection::new("net", a.outer4, b.public4)
        .proposal(PROPOSAL)
        .local(Auth::shared_key("a@lab"))
        .remote(Auth::shared_key("b@lab"))
        .child(Child::new("lan", &[a.lan4], &[b.lan4]).proposal(ESP_PROPOSAL));
    let responder = Connection::new("net", b.outer4, "%any")
        .proposal(PROPOSAL)
        .local(Auth::shared_key("b@lab"))
        .remote(Auth::shared_key("a@lab"))
        .child(Child::new("lan", &[b.lan4], &[a.lan4]).proposal(ESP_PROPOSAL));
    let setup = |connection| Setup {
        config: Config::of(connection).secret(&["a@lab", "b@lab"], "a long shared secret"),
        ..Setup::default()
    };
    let _gwb = StrongSwan::start(lab, &b.gateway, &setup(responder))?;
    let gwa = StrongSwan::start(lab, &a.gateway, &setup(initiator))?;
    gwa.initiate("lan")?;
    ping_all(&a.host, b.host4, 3)?;
    let sas = gwa.sas()?;
    ensure!(
        sas.len() == 1 && sas[0].remote_port == 4500,
        "one IKE SA on port 4500, not {sas:?}"
    );
    ensure!(
        sas[0].facts.contains_key("nat-remote"),
        "gwa sees no NAT before its peer: {sas:?}"
    );
    let passed = offices.counters()?;
    ensure!(passed.leaked == 0, "on the links: {passed:?}");
    Ok("NAT seen on both sides, nothing but UDP 500/4500 on three links".to_owned())
}

fn ipv6_rekey(lab: &mut Lab) -> Result<String> {
    let mut offices = Offices::build(lab, Nat::None)?;
    offices.block_all_but_tunnel()?;
    let (a, b) = (&offices.a, &offices.b);
    let setup = |from: &str, to: &str, local: [&str; 2], remote: [&str; 2]| {
        let connection = Connection::new("net", from, to)
            .proposal(PROPOSAL)
            .local(Auth::shared_key(from))
            .remote(Auth::shared_key(to))
            .child(Child::new("lan", &local, &remote).proposal("aes128gcm16-x25519"))
            .set("encap", "yes");
        Setup {
            config: Config::of(connection).secret(&[from, to], "a long shared secret"),
            ..Setup::default()
        }
    };
    let gwb = setup(b.outer6, a.outer6, [b.lan4, b.lan6], [a.lan4, a.lan6]);
    let gwa = setup(a.outer6, b.outer6, [a.lan4, a.lan6], [b.lan4, b.lan6]);
    let _gwb = StrongSwan::start(lab, &b.gateway, &gwb)?;
    let gwa = StrongSwan::start(lab, &a.gateway, &gwa)?;
    gwa.initiate("lan")?;
    ping_all(&a.host, b.host6, 2)?;
    let old = gwa.child("lan")?;
    let flow = UdpFlow::start(&a.host, &b.host, b.host4, 10, 3)?;
    crate::lab::interrupt::pause(Duration::from_millis(1200))?;
    gwa.rekey_child("lan")?;
    let new = wait_for("the child is rekeyed", Duration::from_secs(5), || {
        let children = gwa.installed_children("lan")?;
        Ok(children
            .into_iter()
            .find(|child| child.spi_in != old.spi_in))
    })?;
    let report = flow.finish()?;
    let passed = offices.counters()?;
    ensure!(passed.leaked == 0, "on the link: {passed:?}");
    ensure!(
        report.sent > 1000,
        "only {} datagrams were sent",
        report.sent
    );
    Ok(format!(
        "SPI {} became {}, {} of {} datagrams lost",
        old.spi_in, new.spi_in, report.lost, report.sent
    ))
}

fn revoked(lab: &mut Lab) -> Result<String> {
    let offices = Offices::build(lab, Nat::None)?;
    let (a, b) = (&offices.a, &offices.b);
    let root = Authority::root(KeyKind::EcP256, "lab root")?;
    let good = root.issue(&Request::new(KeyKind::EcP256, "gwb").name("gwb.lab"))?;
    let bad = root.issue(&Request::new(KeyKind::EcP256, "gwa").name("gwa.lab"))?;
    let list = root.revocation_list(&[&bad])?;
    let setup = |own: &str, other: &str, credential, from: &str, to: &str| Setup {
        config: Config::of(
            Connection::new("net", from, to)
                .proposal(PROPOSAL)
                .local(Auth::certificate(own, &format!("{own}.lab")))
                .remote(Auth::public_key(&format!("{other}.lab")))
                .child(Child::new("lan", &[], &[]).proposal(ESP_PROPOSAL)),
        ),
        credentials: vec![(own.to_owned(), credential)],
        authorities: vec![root.certificate.clone()],
        revocation_lists: vec![list.clone()],
        ..Setup::default()
    };
    let gwb = StrongSwan::start(
        lab,
        &b.gateway,
        &setup("gwb", "gwa", good, b.outer4, a.outer4),
    )?;
    let gwa = StrongSwan::start(
        lab,
        &a.gateway,
        &setup("gwa", "gwb", bad, a.outer4, b.outer4),
    )?;
    let told = gwa.initiate("lan");
    ensure!(told.is_err(), "a revoked certificate was accepted");
    let line = gwb.wait_for_log("certificate was revoked", Duration::from_secs(2))?;
    ensure!(gwb.sas()?.is_empty(), "the responder keeps an SA");
    Ok(line.trim().to_owned())
}

fn world_sees_leaks(lab: &mut Lab) -> Result<String> {
    let world = World::build(lab)?;
    let watch = world.watch()?;
    ensure!(watch.counters()?.leaked == 0, "counted without traffic");
    let seen = world.seen_as(&world.laptop)?;
    ensure!(seen == HOME_PUBLIC, "the web host saw {seen}");
    let leaked = watch.counters()?.leaked;
    // A handshake, a question, an answer, the end: both directions.
    ensure!(
        leaked >= 8,
        "a whole HTTP exchange past the tunnel was {leaked} packets"
    );
    // A gateway that only forwards: one leg, no tunnel.
    world.gateway.forward_packets()?;
    world.route_through_gateway()?;
    let watch = world.watch()?;
    world.seen_as(&world.phone)?;
    let through = watch.counters()?.leaked;
    ensure!(
        through >= 8,
        "an HTTP exchange forwarded in clear was {through} packets"
    );
    Ok(format!(
        "{leaked} and {through} packets in clear were counted"
    ))
}
