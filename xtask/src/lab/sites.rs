//! Two offices joined by `cygnet site add`: both ends run from the very files that it writes.

use super::cygnet::{Cygnet, Setup};
use super::offices::{Nat, Office, Offices};
use super::strongswan::StrongSwan;
use super::{Failure, Lab, Result};
use crate::ensure;
use std::fs;
use std::path::{Path, PathBuf};

/// What the tunnel is called.
pub(crate) const BRANCH: &str = "branch";
/// Where both offices have the same network, what the first one's host is called by in the other.
pub(crate) const SHOWN_A: &str = "10.201.1.10";
/// Likewise, the other one's host in the first.
pub(crate) const SHOWN_B: &str = "10.202.1.10";

/// Which networks the two offices have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Networks {
    /// Each its own.
    Own,
    /// Both 192.168.1.0/24, to the last host: each knows the other's by the network that was offered.
    Same,
}

/// Two Cygnets, running, that prove themselves as `--auth` says; the second one imported what the first one wrote.
pub(crate) fn two_cygnets(
    lab: &Lab,
    networks: Networks,
    auth: &str,
    daemon: &str,
) -> Result<(Offices, Cygnet, Cygnet)> {
    let (offices, mut a) = first(lab, networks, daemon)?;
    let mut b = unconfigured(lab, &offices.b, daemon)?;
    import(&b, &add_to(lab, &a, &offices, networks, &["--auth", auth])?)?;
    a.restart()?;
    b.restart()?;
    Ok((offices, a, b))
}

/// Cygnet and strongSwan, running, that prove themselves as `--auth` says.
pub(crate) fn with_strongswan(
    lab: &Lab,
    networks: Networks,
    auth: &str,
    daemon: &str,
) -> Result<(Offices, Cygnet, StrongSwan)> {
    let (offices, mut a) = first(lab, networks, daemon)?;
    let folder = add_to(
        lab,
        &a,
        &offices,
        networks,
        &["--auth", auth, "--for", "swanctl"],
    )?;
    if networks == Networks::Same {
        let rules = folder.join(format!("{BRANCH}.nft"));
        let gateway = &offices.b.gateway;
        gateway.exec(["nft", "-f", &rules.to_string_lossy()])?;
        // Its ESP in user space goes by a route, for which it looks for an address of its own in what it negotiates. The
        // kernel's needs none.
        gateway.ip("address add 10.202.1.1/32 dev lo")?;
    }
    let swan = swan(lab, &offices.b, &folder)?;
    a.restart()?;
    Ok((offices, a, swan))
}

/// The offices, and the Cygnet at which `site add` is to be typed.
fn first(lab: &Lab, networks: Networks, daemon: &str) -> Result<(Offices, Cygnet)> {
    let mut offices = Offices::build(lab, Nat::None)?;
    if networks == Networks::Same {
        same_network(&mut offices)?;
    }
    let a = unconfigured(lab, &offices.a, daemon)?;
    Ok((offices, a))
}

/// A Cygnet that is not configured yet, but for these lines of `[daemon]`.
pub(crate) fn unconfigured(lab: &Lab, office: &Office, daemon: &str) -> Result<Cygnet> {
    let mut setup = Setup::new("");
    setup.daemon.push_str(daemon);
    Cygnet::prepare(lab, &office.gateway, &setup)
}

/// `cygnet site add` at an office; the folder for the other one.
pub(crate) fn add(lab: &Lab, at: &Cygnet, options: &[&str]) -> Result<PathBuf> {
    let out = lab.directory().join("other-end");
    let shown = out.to_string_lossy();
    let mut line = vec!["site", "add", BRANCH, "--out", &*shown];
    line.extend(options);
    said(at, &line)?;
    Ok(out)
}

/// What a command prints; it has to succeed.
pub(crate) fn said(at: &Cygnet, line: &[&str]) -> Result<String> {
    let finished = at.configured(line)?;
    ensure!(
        finished.success(),
        "cygnet {}: {}{}",
        line.join(" "),
        finished.stdout,
        finished.stderr
    );
    Ok(finished.stdout)
}

/// The other office takes what was handed over.
pub(crate) fn import(at: &Cygnet, folder: &Path) -> Result<()> {
    let file = folder.join(format!("{BRANCH}.cygnet"));
    said(at, &["import", &file.to_string_lossy()]).map(drop)
}

/// A strongSwan whose folders hold what was handed over.
fn swan(lab: &Lab, office: &Office, folder: &Path) -> Result<StrongSwan> {
    let etc = lab.subdirectory("etc-swanctl")?;
    fs::write(etc.join("swanctl.conf"), "include conf.d/*.conf\n")?;
    for (to, name) in [
        ("conf.d", format!("{BRANCH}.conf")),
        ("x509", format!("{BRANCH}.crt")),
        ("x509ca", format!("{BRANCH}-ca.crt")),
        ("private", format!("{BRANCH}.key")),
    ] {
        let (from, to) = (folder.join(&name), etc.join(to));
        // Without certificates there is one alone.
        if from.exists() {
            fs::create_dir(&to)?;
            fs::copy(from, to.join(&name))?;
        }
    }
    StrongSwan::start_with_files(lab, &office.gateway, &etc)
}

/// `cygnet site add` for the networks that there are, with these options as well.
fn add_to(
    lab: &Lab,
    a: &Cygnet,
    offices: &Offices,
    networks: Networks,
    options: &[&str],
) -> Result<PathBuf> {
    let options = [&between(offices)[..], options].concat();
    match networks {
        Networks::Own => add(lab, a, &options),
        Networks::Same => add_as_offered(lab, a, &options),
    }
}

/// Options of `site add`: which networks, and where the other office is.
pub(crate) fn between(offices: &Offices) -> [&'static str; 6] {
    [
        "--local-net",
        offices.a.lan4,
        "--remote-net",
        offices.b.lan4,
        "--remote",
        offices.b.public4,
    ]
}

/// Gives both offices the same network, gateways and hosts the same addresses.
fn same_network(offices: &mut Offices) -> Result<()> {
    for office in [&mut offices.a, &mut offices.b] {
        let (host, gateway) = (&office.host, &office.gateway);
        gateway.ip(&format!("address del {}/24 dev lan", office.inner4))?;
        host.ip(&format!("address del {}/24 dev eth0", office.host4))?;
        gateway.ip("address add 192.168.1.1/24 dev lan")?;
        host.ip("address add 192.168.1.10/24 dev eth0")?;
        host.default_route("192.168.1.1")?;
        (office.lan4, office.inner4, office.host4) =
            ("192.168.1.0/24", "192.168.1.1", "192.168.1.10");
    }
    Ok(())
}

/// Takes what is offered where both offices have the same network.
fn add_as_offered(lab: &Lab, a: &Cygnet, options: &[&str]) -> Result<PathBuf> {
    let refused = a.configured(&[&["site", "add", BRANCH][..], options].concat())?;
    ensure!(!refused.success(), "it was not refused: {}", refused.stdout);
    let words: Vec<&str> = refused.stderr.split_whitespace().collect();
    let offered = |option: &str| {
        let at = words.iter().position(|word| *word == option);
        at.and_then(|at| words.get(at + 1).copied())
            .ok_or_else(|| Failure::new(format!("{option} is not offered: {}", refused.stderr)))
    };
    let maps = [
        "--local-map",
        offered("--local-map")?,
        "--remote-map",
        offered("--remote-map")?,
    ];
    ensure!(
        maps == [
            "--local-map",
            "10.201.1.0/24",
            "--remote-map",
            "10.202.1.0/24"
        ],
        "offered: {maps:?}"
    );
    add(lab, a, &[options, &maps].concat())
}
