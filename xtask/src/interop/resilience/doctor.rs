//! `cygnet doctor`: on a healthy gateway and server nothing is wrong; each fault that is planted is named; with `--mask`
//! no address, name or secret of the lab is in what it says.

use super::super::Scenario;
use super::super::pair::Pair;
use super::super::plan::{Plan, Role};
use super::checkup::{BEYOND, Check, Doctor, web};
use super::home::{
    Home, QUICK, SOON, TUNNEL, forwarding_world, gateway_setup, guard, server_setup, wait_for_state,
};
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::pki::{Authority, KeyKind, Request, Validity};
use crate::lab::world::{ROUTER, SERVER, WEB};
use crate::lab::{Context, Lab, Result, nat, wait_for};
use crate::{ensure, project};
use std::fs;
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "doctor-healthy",
            "`cygnet doctor` finds nothing wrong with a healthy gateway and its server, and masks all it is to mask",
            healthy,
        ),
        Scenario::new(
            "doctor-devices",
            "devices that go direct, by configuration and by command, are told and no fault; a policy that nobody knows is",
            devices,
        ),
        Scenario::new(
            "doctor-client",
            "of a client, names and IPv6 that go past its tunnel are named",
            client,
        ),
        Scenario::new(
            "doctor-site",
            "it finds nothing wrong with a site whose other end is strongSwan, which answers all it asks",
            site,
        ),
        Scenario::new(
            "doctor-path",
            "blocked ports and narrow links, with and without ICMP, are named",
            path,
        ),
        Scenario::new(
            "doctor-machine",
            "redirects, a leak of DNS, another IPv6 router, no AES instructions, a firewall, no guard are named",
            machine,
        ),
        Scenario::new(
            "doctor-clock",
            "a wrong clock is named, with and without another to compare it with",
            clock,
        ),
        Scenario::new(
            "doctor-certificate",
            "an expired certificate is named, and that the program does not run",
            expired,
        ),
    ]
}

fn healthy(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let web = web();
    let web = web.as_str();
    let gateway = Doctor::new(&home.gateway, BEYOND, "exec")?;
    let report = gateway.report(&["--url", web])?;
    report.is_healthy("the gateway")?;
    ensure!(!report.masked, "it is masked unasked");
    report.good("server", "UDP 500: it answers")?;
    report.good("server", "UDP 4500: it answers")?;
    report.good("mtu", "1438 bytes fit: datagrams of 1500 arrive")?;
    report.good(
        "egress",
        &format!("sees {SERVER} through the tunnel, and 203.0.113.2 around it"),
    )?;
    report.good("clock", &format!("{WEB} agrees"))?;
    report.good("guard", "both layers are in place")?;
    report.good("tunnel", "up with vpn.lab")?;
    report.good("devices", "all are tunnelled")?;
    let server = Doctor::new(&home.server, BEYOND, "exec")?;
    let of_server = server.report(&["--url", web])?;
    of_server.is_healthy("the server")?;
    of_server.good("tunnel", "up with box.lab")?;

    let plain = gateway.run(&["--url", web])?.stdout;
    ensure!(
        plain.contains(SERVER) && plain.contains("ok    server"),
        "{plain}"
    );
    let masked = gateway.report(&["--mask", "--url", web])?;
    ensure!(masked.masked, "it does not say that it is masked");
    ensure!(
        masked.checks.len() == report.checks.len(),
        "masked, there are {} checks, and {} else",
        masked.checks.len(),
        report.checks.len()
    );
    for options in [
        &["--mask", "--url", web][..],
        &["--mask", "--url", web, "--json"],
    ] {
        let masked = gateway.run(options)?;
        ensure!(masked.status.code() == Some(0), "{}", masked.stderr);
        hides(&masked.stdout, "public-ipv4-1")?;
    }
    // What went wrong is masked as well.
    home.gateway.down("home")?;
    let masked = gateway.run(&["--mask", "--url", web])?;
    ensure!(masked.status.code() == Some(1), "{}", masked.stdout);
    hides(&masked.stdout, "public-ipv4-1")?;
    Ok(format!(
        "{} checks of the gateway are good",
        report.checks.len()
    ))
}

/// Fails if anything of the lab's is in the text, or nothing is in it; secrets may be in none at all.
fn hides(text: &str, says: &str) -> Result<()> {
    ensure!(text.contains(says), "`{says}` is not in it:\n{text}");
    let addresses = [
        "192.168.1.",
        "203.0.113.",
        "192.0.2.",
        "198.51.100.",
        "10.99.0.",
        "9.9.9.9",
        "fd00:",
        "fd99:",
        "2001:db8",
    ];
    let names = ["vpn.lab", "box.lab", "correct horse"];
    for one in addresses.iter().chain(&names) {
        ensure!(!text.contains(one), "`{one}` is in it:\n{text}");
    }
    Ok(())
}

fn devices(lab: &mut Lab) -> Result<String> {
    let direct = "direct = [\"192.168.1.77\"]\ndirect_networks = [\"198.18.0.0/24\"]\n";
    let home = Home::start(lab, &gateway_setup(QUICK, direct))?;
    let doctor = Doctor::new(&home.gateway, BEYOND, "exec")?;
    let (laptop, phone) = ("192.168.1.20", "192.168.1.21");
    let set = |device: &str, policy: &str| home.gateway.command(&["device", "set", device, policy]);
    set(laptop, "direct")?;
    set(phone, "blocked")?;
    let report = doctor.report(&["--url", &web()])?;
    report.is_healthy("with devices of all kinds")?;
    let told = report.good(
        "devices",
        "named are direct 2, blocked 1; all others are tunnelled; one network is reached past the tunnel",
    )?;
    report.good("guard", "or not at all, but for what is to go direct")?;
    // Orders that cannot be read.
    let orders = home.gateway.directory().join("state/devices.json");
    ensure!(orders.is_file(), "{} is not there", orders.display());
    fs::write(&orders, "{")?;
    let unknown = doctor.report(&[])?;
    let problem = unknown.names(
        "orders that cannot be read",
        "devices",
        "so no device goes direct",
    )?;
    Ok(format!("{told}; {problem}"))
}

fn client(lab: &mut Lab) -> Result<String> {
    let world = forwarding_world(lab)?;
    let _server = Cygnet::start(lab, &world.server, &server_setup())?;
    let setup = |more: &str| {
        Setup::new(format!(
            "[tunnel.{TUNNEL}]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"box.lab\"
psk = \"psk\"
virtual_address = true
{QUICK}{more}"
        ))
        .file("psk", "correct horse battery staple\n")
    };
    let mut cygnet = Cygnet::start(lab, &world.gateway, &setup(""))?;
    wait_for_state(&cygnet, TUNNEL, "up")?;
    let web = web();
    let report = Doctor::new(&cygnet, BEYOND, "exec")?.report(&["--url", &web])?;
    report.is_healthy("a client")?;
    report.good("dns", BEYOND)?;
    report.good("ipv6", "this machine's IPv6 leaves by cyg-home")?;
    let near = Doctor::new(&cygnet, ROUTER, "exec")?.report(&[])?;
    let names = near.names(
        "the router as resolver",
        "dns",
        &format!("asks {ROUTER} by eth0: its queries go past the tunnel"),
    )?;
    cygnet.write(&setup("remote_networks = [\"0.0.0.0/0\"]\n"))?;
    cygnet.restart()?;
    wait_for_state(&cygnet, TUNNEL, "up")?;
    let report = Doctor::new(&cygnet, BEYOND, "exec")?.report(&[])?;
    let ipv6 = report.names("IPv6 beside the tunnel", "ipv6", "leaves by eth0, past")?;
    Ok(format!("{names}; {ipv6}"))
}

fn site(lab: &mut Lab) -> Result<String> {
    let pair = Pair::connected(lab, Plan::shared_key(Role::Initiator))?;
    // The office's own host tells the time.
    let near = pair.near();
    let listen = format!("{}:80", near.host4);
    let host = project::own_command(&["webhost", "--listen", &listen]);
    let _host = near.host.spawn_exec(host)?;
    wait_for("the office's web host listens", SOON, || {
        Ok(near.host.listens_tcp(80)?.then_some(()))
    })?;
    let url = format!("http://{}/", near.host4);
    let report = Doctor::new(&pair.cygnet, BEYOND, "exec")?.report(&["--url", &url])?;
    report.is_healthy("a site")?;
    let says: Vec<&str> = report.checks.iter().map(|it| &*it.says).collect();
    for expected in [
        "UDP 500: it answers",
        "UDP 4500: it answers",
        "packets of up to 1438 bytes fit: datagrams of 1500 arrive",
        "packets are forwarded",
    ] {
        ensure!(
            says.contains(&expected),
            "nothing says \"{expected}\": {says:#?}"
        );
    }
    // It left nothing in the way of the tunnel.
    pair.carry()
}

fn path(lab: &mut Lab) -> Result<String> {
    // Else the tunnel finds by itself what the path carries, and nothing is wrong.
    let blind = format!("{QUICK}search_mtu = false\n");
    let home = Home::start(lab, &gateway_setup(&blind, ""))?;
    let doctor = Doctor::new(&home.gateway, BEYOND, "exec")?;
    let router = &home.world.router;
    let rule = |rule: &str| {
        router.nft(&format!(
            "table inet fault\ndelete table inet fault\ntable inet fault {{\nchain forward {{\n\
             type filter hook forward priority 0; policy accept;\n{rule}\n}}\n}}\n"
        ))
    };
    let mut told = Vec::new();
    for port in ["500", "4500"] {
        rule(&format!("udp dport {port} drop"))?;
        let fault = format!("UDP {port} is blocked");
        let report = doctor.report(&[])?;
        let says = format!("UDP {port}: no answer; it is blocked");
        told.push(report.names(&fault, "server", &says)?);
        let other = if port == "500" { "4500" } else { "500" };
        let answers = format!("UDP {other}: it answers");
        ensure!(
            report.checks.iter().any(|it| it.says == answers),
            "{fault}: {:#?}",
            report.bad()
        );
    }
    rule(&format!("ip daddr {SERVER} meta length > 1400 drop"))?;
    home.online(&home.world.laptop)?;
    let narrow = "datagrams of up to 1400 bytes arrive and no larger";
    let report = doctor.report(&[])?;
    told.push(report.names("large datagrams get lost", "mtu", narrow)?);
    report.names(
        "large datagrams get lost",
        "mtu",
        "`mtu = 1338` in [tunnel.home]",
    )?;
    rule("")?;
    let report = doctor.report(&["--url", &web()])?;
    report.is_healthy("with nothing in the way")?;
    router.ip("link set wan mtu 1400")?;
    let report = doctor.report(&[])?;
    told.push(report.names("a narrow link", "mtu", narrow)?);
    Ok(told.join("; "))
}

fn machine(lab: &mut Lab) -> Result<String> {
    let aes = format!("{QUICK}esp = [\"aes128gcm16\"]\n");
    let home = Home::start(lab, &gateway_setup(&aes, ""))?;
    let plain = || Doctor::new(&home.gateway, BEYOND, "exec");
    plain()?
        .report(&["--url", &web()])?
        .is_healthy("before anything is planted")?;
    let mut told = Vec::new();

    let in_the_lan = Doctor::new(&home.gateway, ROUTER, "exec")?;
    let says = format!("told to ask {ROUTER}, which is in the LAN");
    told.push(
        in_the_lan
            .report(&[])?
            .names("the router as resolver", "dns", &says)?,
    );

    // A processor of which the kernel says less.
    let cpuinfo = home.gateway.directory().join("cpuinfo");
    let less = format!(
        "sed -E 's/ (aes|pclmulqdq|pmull)\\>//g' /proc/cpuinfo > {0}; mount --bind {0} /proc/cpuinfo; exec",
        cpuinfo.display()
    );
    let slow = Doctor::new(&home.gateway, BEYOND, &less)?;
    let says = "no instructions for AES, and aes128gcm16";
    told.push(
        slow.report(&[])?
            .names("no AES instructions", "cpu", says)?,
    );

    // Each fault, what takes it back, and how it is named.
    let of = |path: &str, value: &str| format!("sysctl -qw {}={value}", path.replace('/', "."));
    let sent = "net/ipv4/conf/eth0/send_redirects";
    let forwarding = "net/ipv6/conf/eth0/forwarding";
    let route = "ip -6 route $1 default via fe80::1 dev eth0 proto ra metric 2048";
    let route = |what: &str| route.replace("$1", what);
    for (fault, plant, mend, check, says) in [
        (
            "redirects are on",
            of(sent, "1"),
            of(sent, "0"),
            "redirects",
            "ICMP redirects are on",
        ),
        (
            "another IPv6 router",
            route("add"),
            route("del"),
            "ipv6",
            "a router announces IPv6",
        ),
        (
            "forwarding is off",
            of(forwarding, "0"),
            of(forwarding, "1"),
            "forwarding",
            "net/ipv6/conf/eth0/forwarding = 0",
        ),
    ] {
        let host = home.gateway.namespace();
        host.shell(&plant).context(fault)?;
        let report = plain()?.report(&[]);
        host.shell(&mend).context(fault)?;
        told.push(report?.names(fault, check, says)?);
    }
    nat::foreign_firewall(home.gateway.namespace())?;
    let report = plain()?.report(&[])?;
    told.push(report.names(
        "a foreign firewall",
        "firewall",
        "`nft insert rule inet foreign",
    )?);
    home.gateway
        .namespace()
        .nft("delete table inet foreign\n")?;
    healthy_again(&home, &plain()?)?;

    guard(&home.gateway, "off")?;
    let report = plain()?.report(&[])?;
    told.push(report.names("the guard is off", "guard", "`cygnet gateway on`")?);
    guard(&home.gateway, "on")?;
    healthy_again(&home, &plain()?)?;
    Ok(told.join("; "))
}

/// The running program looks from time to time, and takes back its warnings then.
fn healthy_again(home: &Home, doctor: &Doctor<'_>) -> Result<()> {
    wait_for("no more warnings", Duration::from_secs(15), || {
        Ok(home.gateway.status()?.warnings.is_empty().then_some(()))
    })?;
    let report = doctor.report(&["--url", &web()])?;
    report.is_healthy("with all taken back")
}

fn clock(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let web = web();
    let mut told = Vec::new();
    let fake = |offset: &str| {
        // Time that passes is not faked: somebody waits for it.
        let before = format!("export FAKETIME_DONT_FAKE_MONOTONIC=1; exec faketime -f '{offset}'");
        Doctor::new(&home.gateway, BEYOND, &before)
    };
    let report = fake("+400d")?.report(&["--url", &web])?;
    let ahead = format!("400 d 0 h ahead of that of {WEB}");
    told.push(report.names("a clock that is fast", "clock", &ahead)?);
    // So wrong that it is seen without asking anybody.
    let report = fake("-20y")?.report(&[])?;
    told.push(report.names("a clock of 20 years ago", "clock", "clock is not set")?);
    Ok(told.join("; "))
}

fn expired(lab: &mut Lab) -> Result<String> {
    let authority = Authority::root(KeyKind::EcP256, "lab root")?;
    let request = Request::new(KeyKind::EcP256, "box.lab").name("box.lab");
    let own = authority.issue(&request.validity(Validity::Expired))?;
    let setup = Setup::new(format!(
        "[tunnel.home]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
virtual_address = true
[gateway]
tunnel = \"home\"
lan = \"eth0\"
"
    ))
    .credential("own", &own)
    .file("ca.crt", authority.certificate.clone());
    let world = forwarding_world(lab)?;
    let cygnet = Cygnet::prepare(lab, &world.gateway, &setup)?;
    let doctor = Doctor::new(&cygnet, BEYOND, "exec")?;
    let report = doctor.report(&[])?;
    let expired = report.names("it expired", "certificates", "CN=box.lab) expired on")?;
    let stopped = report.names("it does not run", "program", "systemctl start cygnet")?;
    report.names("there is no guard", "guard", "it is off")?;
    // What the program sets is not missed while it does not run.
    for name in ["forwarding", "redirects", "drops"] {
        let unknown = |it: &Check| it.name == name && it.state == "unknown";
        ensure!(
            report.checks.iter().any(unknown),
            "{name}: {:#?}",
            report.checks
        );
    }
    let masked = doctor.run(&["--mask"])?;
    ensure!(
        masked.status.code() == Some(1),
        "masked, it ended with {}: {}",
        masked.status,
        masked.stderr
    );
    hides(&masked.stdout, "expired")?;
    Ok(format!("{expired}; {stopped}"))
}
