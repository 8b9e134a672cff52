//! strongSwan in each of its forms.

use super::super::Scenario;
use crate::ensure;
use crate::lab::own_server::OwnServer;
use crate::lab::strongswan::{CharonCmd, PLUGINS, Starter, StrongSwan};
use crate::lab::world::SERVER;
use crate::lab::{Exec, Lab, Result};
use std::fs;
use std::path::Path;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "device-swanctl",
            "a strongSwan whose /etc/swanctl is the folder that `cygnet user add` wrote",
            swanctl,
        ),
        Scenario::new(
            "device-ipsec",
            "strongSwan's older starter, whose /etc/ipsec.conf and /etc/ipsec.d are what was handed out",
            ipsec,
        ),
        Scenario::new(
            "device-password",
            "the same, for a user with a password: EAP-MSCHAPv2, the password written into the file",
            password,
        ),
        Scenario::new(
            "device-p12",
            "charon-cmd with the .p12 file and its password",
            p12,
        ),
    ]
}

fn swanctl(lab: &mut Lab) -> Result<String> {
    let server = OwnServer::set_up(lab)?;
    server.add("alice", "laptop")?;
    let folder = server.folder("alice", "laptop").join("swanctl");
    let swan = StrongSwan::start_with_files(lab, &server.world.laptop, &folder)?;
    server.online(&server.world.laptop)?;
    let child = swan.child("alice-laptop")?;
    ensure!(
        swan.log()
            .lines()
            .all(|line| !line.contains("skipped") && !line.contains("not recognized")),
        "strongSwan did not take everything of the file:\n{}",
        swan.log()
    );
    Ok(format!(
        "SPI {}, {}",
        child.spi_in,
        server.connected()?.join(", ")
    ))
}

fn ipsec(lab: &mut Lab) -> Result<String> {
    let server = OwnServer::set_up(lab)?;
    server.add("alice", "laptop")?;
    let mut starter = Starter::prepare(lab, &server.world.laptop)?;
    let folder = server.folder("alice", "laptop").join("ipsec");
    let to = starter.directory();
    for name in ["ipsec.conf", "ipsec.secrets"] {
        fs::copy(folder.join(name), to.join(name))?;
    }
    for name in ["cacerts", "certs", "private"] {
        let (from, to) = (folder.join(name), to.join("ipsec.d"));
        Exec::new(["cp", "-r", &from.to_string_lossy(), &to.to_string_lossy()]).run()?;
    }
    let plugins = format!("{PLUGINS} stroke");
    starter.start(&plugins, "", "added configuration 'alice-laptop'")?;
    server.online(&server.world.laptop)?;
    // Both are lenient: what they do not understand they leave out.
    for (whose, text, words) in [
        (
            "starter",
            starter.said(),
            ["parsing error", "unknown", "ignored"],
        ),
        (
            "charon",
            starter.log(),
            ["skipped", "not recognized", "failed"],
        ),
    ] {
        for word in words {
            ensure!(!text.contains(word), "{whose} said \"{word}\":\n{text}");
        }
    }
    Ok(server.connected()?.join(", "))
}

fn password(lab: &mut Lab) -> Result<String> {
    let server = OwnServer::set_up(lab)?;
    server.add_with_password("bob", "correct horse battery staple")?;
    let folder = server.folder("bob", "password").join("swanctl");
    let file = folder.join("swanctl.conf");
    let text = fs::read_to_string(&file)?;
    let filled = text.replace("write your password here", "correct horse battery staple");
    ensure!(filled != text, "no place for the password in:\n{text}");
    fs::write(&file, filled)?;
    let _swan = StrongSwan::start_with_files(lab, &server.world.laptop, &folder)?;
    server.online(&server.world.laptop)?;
    let connected = server.connected()?;
    ensure!(connected == ["bob"], "connected are {connected:?}");
    Ok("online as bob".to_owned())
}

fn p12(lab: &mut Lab) -> Result<String> {
    let server = OwnServer::set_up(lab)?;
    let said = server.add("alice", "laptop")?;
    let password = OwnServer::p12_password(&said)?;
    let folder = server.folder("alice", "laptop");
    let file = folder.join("alice.laptop.p12");
    let identity = identity_of(&folder.join("swanctl/x509/alice.laptop.crt"))?;
    let authority = folder.join("swanctl/x509ca/alice.laptop-ca.crt");
    let _charon = CharonCmd::new(SERVER, &identity)
        .p12(&file, &password)
        .authority(&authority)
        .start(lab, &server.world.laptop)?;
    server.online(&server.world.laptop)
}

/// The e-mail address in a certificate: who a device says it is.
fn identity_of(certificate: &Path) -> Result<String> {
    let file = certificate.to_string_lossy();
    let said = Exec::new(["openssl", "x509", "-in", &*file, "-noout", "-email"]).run()?;
    Ok(said.trim().to_owned())
}
