//! Another DHCP server is there already, or comes later.

use super::client::Client;
use super::{LOOKED, Lan, ROUTER, SOON, by_the_box, serving, setup, status, wait_for_state};
use crate::ensure;
use crate::interop::Scenario;
use crate::lab::cygnet::Cygnet;
use crate::lab::{Lab, Namespace, Process, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "dhcp-beside-dnsmasq",
            "beside a real dnsmasq nothing is lent, and `status` names it",
            beside,
        ),
        Scenario::new(
            "dhcp-server-appears",
            "a dnsmasq that comes later silences it as soon as a device takes its offer",
            appears,
        ),
        Scenario::new(
            "dhcp-server-here",
            "another server on the box itself has the port: `status` says so, and it lends once the port is free",
            here,
        ),
    ]
}

/// A real dnsmasq on this interface of a home's router, that lends other addresses than the box would.
pub(in crate::interop) fn dnsmasq(host: &Namespace, interface: &str) -> Result<Process> {
    dnsmasq_with(host, interface, &[])
}

/// The same, with more options.
pub(super) fn dnsmasq_with(host: &Namespace, interface: &str, more: &[&str]) -> Result<Process> {
    let interface = format!("--interface={interface}");
    let mut argv = vec![
        "dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        "--log-dhcp",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--port=0",
        "--user=root",
        "--leasefile-ro",
        "--dhcp-authoritative",
        // Else an address is tried for three seconds before it is offered.
        "--no-ping",
        &interface,
        "--dhcp-range=192.168.1.20,192.168.1.29,1h",
    ];
    argv.extend(more);
    let process = host.spawn(argv)?;
    wait_for("dnsmasq listens", SOON, || {
        Ok(host.listens_udp(67)?.then_some(()))
    })?;
    Ok(process)
}

fn of_dnsmasq(address: &str) -> bool {
    (20..30).any(|last| address == format!("192.168.1.{last}"))
}

fn beside(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let _dnsmasq = dnsmasq(&lan.router, "eth0")?;
    let cygnet = Cygnet::start(lab, &lan.gateway, &setup(""))?;
    wait_for_state(&cygnet, "silent")?;
    let warning = cygnet.wait_for_warning("another DHCP server answers on eth0", LOOKED)?;
    ensure!(warning.contains(ROUTER), "{warning}");
    let laptop = Client::on(lab, &lan.laptop)?;
    let lease = laptop.udhcpc(&[])?;
    ensure!(
        of_dnsmasq(&lease.address) && lease.server == ROUTER,
        "{lease:?}"
    );
    let dhcp = status(&cygnet)?;
    ensure!(
        dhcp["leases"].as_array().is_some_and(Vec::is_empty),
        "{dhcp}"
    );
    let listed = cygnet.control(&["dhcp", "leases"])?;
    ensure!(
        listed.stderr.contains("another DHCP server"),
        "{}",
        listed.stderr
    );
    Ok(warning)
}

fn appears(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let cygnet = serving(lab, &lan, "")?;
    let (laptop, phone) = (Client::on(lab, &lan.laptop)?, Client::on(lab, &lan.phone)?);
    by_the_box(&laptop.udhcpc(&[])?)?;
    let _dnsmasq = dnsmasq(&lan.router, "eth0")?;
    // It takes the other's offer, and everybody hears that.
    let (_dhclient, lease) = phone.dhclient("reject 192.168.1.2;\n")?;
    ensure!(of_dnsmasq(&lease.address), "{lease:?}");
    wait_for("it falls silent", LOOKED + LOOKED, || {
        Ok((status(&cygnet)?["state"] == "silent").then_some(()))
    })?;
    cygnet.wait_for_log("another DHCP server answers", SOON)?;
    // A device that was lent an address by the box gets none by it any more.
    let renewed = laptop.udhcpc(&[])?;
    ensure!(of_dnsmasq(&renewed.address), "{renewed:?}");
    Ok(format!("{} by dnsmasq", lease.address))
}

fn here(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let mut other = dnsmasq(&lan.gateway, "eth0")?;
    let cygnet = Cygnet::start(lab, &lan.gateway, &setup(""))?;
    let warning = cygnet.wait_for_warning("UDP port 67 is in use", SOON)?;
    other.stop();
    wait_for("it lends", LOOKED + LOOKED + LOOKED, || {
        Ok((status(&cygnet)?["state"] == "serving").then_some(()))
    })?;
    Ok(warning)
}
