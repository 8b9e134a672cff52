//! Installs what the lab runs, from Debian, and only what is missing.

use crate::lab::{Exec, Failure, Result, chrony};
use std::time::Duration;

/// Everything that the demo, the tests and the interop scenarios run.
const PACKAGES: &[&str] = &[
    "age",
    "bind9-dnsutils",
    "busybox-static",
    "charon-cmd",
    "charon-systemd",
    "conntrack",
    "curl",
    // The program alone, without its service.
    "dnsmasq-base",
    "ethtool",
    "faketime",
    "iperf3",
    "iproute2",
    "iptables",
    "iputils-ping",
    "isc-dhcp-client",
    // What chrony needs, which is unpacked and not installed, and nobody else here.
    "libedit2",
    "libseccomp2",
    "libcharon-extauth-plugins",
    "libcharon-extra-plugins",
    "libstrongswan-extra-plugins",
    "libstrongswan-standard-plugins",
    "ndisc6",
    "nftables",
    "openssl",
    "procps",
    "python3",
    "radvd",
    "socat",
    "strongswan-charon",
    "strongswan-pki",
    "strongswan-starter",
    "strongswan-swanctl",
    // systemd-analyze; it does not make the machine boot by it.
    "systemd",
    "tcpdump",
    "user-mode-linux",
    "util-linux",
];

/// What tests under CI run beyond that: it takes over the network devices of the machine it is installed on, which is
/// no matter on one that is thrown away. Elsewhere those tests say that they did not check.
const PACKAGES_OF_CI: &[&str] = &["network-manager"];

/// What the bench runs beyond that.
const PACKAGES_OF_THE_BENCH: &[&str] = &[
    "gcc",
    "libc6-dev",
    "openvpn",
    "wireguard-go",
    "wireguard-tools",
];

/// Downloads take a while on a slow line.
const PATIENCE: Duration = Duration::from_secs(900);

/// Installs what is missing. Says what it does, and nothing when there is nothing to do.
pub fn ensure() -> Result<()> {
    match std::env::var_os("CI") {
        Some(_) => ensure_installed(&[PACKAGES, PACKAGES_OF_CI].concat())?,
        None => ensure_installed(PACKAGES)?,
    }
    chrony::unpack()
}

/// The same, with what the bench runs.
pub fn ensure_with_bench() -> Result<()> {
    ensure_installed(&[PACKAGES, PACKAGES_OF_THE_BENCH].concat())
}

fn ensure_installed(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(format!(
            "these packages are missing, and only root can install them: {}\n\
             run `sudo apt-get install {}`, or run this as root",
            missing.join(", "),
            missing.join(" ")
        )));
    }
    eprintln!("installing {}", missing.join(", "));
    apt(&["update"]).map_err(|failure| {
        failure.while_doing("cannot read the lists of packages; is this machine online?")
    })?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    let still = self::missing(packages)?;
    if still.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "apt-get ended well, yet these are missing: {}",
        still.join(", ")
    )))
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut argv = vec!["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"];
    argv.extend_from_slice(arguments);
    Exec::new(argv)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .patience(PATIENCE)
        .run()
        .map(drop)
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut argv = vec![
        "dpkg-query",
        "--show",
        "--showformat",
        "${Package} ${db:Status-Status}\n",
    ];
    argv.extend(packages);
    let finished = Exec::new(argv).finish().map_err(|failure| {
        failure.while_doing("this needs Debian or a system made from it (dpkg, apt-get)")
    })?;
    Ok(not_installed(packages, &finished.stdout))
}

/// Which of the packages the answer of `dpkg-query` does not call installed.
fn not_installed<'a>(packages: &[&'a str], answer: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    packages
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts() {
        let all: String = PACKAGES
            .iter()
            .map(|package| format!("{package} installed\n"))
            .collect();
        assert!(not_installed(PACKAGES, &all).is_empty());
        let removed = all.replace("curl installed", "curl config-files");
        assert_eq!(not_installed(PACKAGES, &removed), ["curl"]);
        assert_eq!(not_installed(PACKAGES, ""), PACKAGES);
    }
}
