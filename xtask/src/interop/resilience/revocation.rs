//! Certificates that are revoked while their holders are in.

use super::super::Scenario;
use super::home::{QUICK, SOON, forwarding_world, wait_for_state};
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::pki::{Authority, Credential, KeyKind, Request};
use crate::lab::world::SERVER;
use crate::lab::{Lab, Result, wait_for};
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "reload-crl",
        "a CRL that revokes one of two clients, then `cygnet reload`: that one is out within a second",
        revoked_while_in,
    )]
}

fn server(authority: &Authority, own: &Credential, list: &str) -> Setup {
    Setup::new(
        "[server]
identity = \"vpn.lab\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
crl = \"list.crl\"
pools = [\"10.99.0.0/24\"]
",
    )
    .credential("own", own)
    .file("ca.crt", authority.certificate.clone())
    .file("list.crl", list)
}

/// Both clients are one machine: two tunnels with a certificate each.
fn clients(authority: &Authority, credentials: [&Credential; 2]) -> Setup {
    let mut setup = Setup::default().file("ca.crt", authority.certificate.clone());
    for (name, credential) in ["alice", "bob"].into_iter().zip(credentials) {
        setup.config.push_str(&format!(
            "[tunnel.{name}]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"{name}@lab\"
certificate = \"{name}.crt\"
key = \"{name}.key\"
ca = \"ca.crt\"
virtual_address = true
remote_networks = [\"10.99.0.0/24\"]
{QUICK}
"
        ));
        setup = setup.credential(name, credential);
    }
    setup
}

fn revoked_while_in(lab: &mut Lab) -> Result<String> {
    let authority = Authority::root(KeyKind::EcP256, "lab root")?;
    let issue =
        |name: &str, san: &str| authority.issue(&Request::new(KeyKind::EcP256, name).name(san));
    let own = issue("vpn.lab", "vpn.lab")?;
    let (alice, bob) = (issue("alice", "alice@lab")?, issue("bob", "bob@lab")?);
    let world = forwarding_world(lab)?;
    let nobody = authority.revocation_list(&[])?;
    let setup = server(&authority, &own, &nobody);
    let server_ = Cygnet::start(lab, &world.server, &setup)?;
    let client = Cygnet::start(lab, &world.gateway, &clients(&authority, [&alice, &bob]))?;
    for name in ["alice", "bob"] {
        wait_for_state(&client, name, "up")?;
    }
    let peers = || -> Result<Vec<(String, String)>> {
        let sas = server_.connection("server")?.ike_sas;
        let mut peers: Vec<_> = sas
            .into_iter()
            .map(|sa| (sa.peer.unwrap_or_default(), sa.initiator_spi))
            .collect();
        peers.sort();
        Ok(peers)
    };
    let before = peers()?;
    ensure!(before.len() == 2, "the server has {before:?}");

    server_.reload()?;
    ensure!(peers()? == before, "the same list again changes something");

    server_.write(&server(
        &authority,
        &own,
        &authority.revocation_list(&[&alice])?,
    ))?;
    server_.reload()?;
    let begun = std::time::Instant::now();
    let left = wait_for("the server has one client", Duration::from_secs(1), || {
        let peers = peers()?;
        Ok((peers.len() == 1).then_some(peers))
    })?;
    let elapsed = begun.elapsed();
    ensure!(
        left.as_slice() == before.get(1..).unwrap_or_default(),
        "left is {left:?} of {before:?}"
    );
    let line = server_.wait_for_log("down: certificate", SOON)?;
    ensure!(
        line.contains("alice"),
        "the line does not name the certificate: {line}"
    );
    // It calls again, and is not let in.
    wait_for("alice is refused", SOON, || {
        let reason = client.connection("alice")?.reason.unwrap_or_default();
        Ok(reason.contains("AUTHENTICATION_FAILED").then_some(()))
    })?;
    ensure!(peers()? == left, "bob was touched, or alice is back");
    Ok(format!("out after {:.2} s: {line}", elapsed.as_secs_f32()))
}
