//! Faults that `cygnet doctor` has to name although nothing was set up to make that easy: with default settings, with the
//! fault at the other end, in what the data path counts, and in what changes while the tunnel is up.

use super::super::Scenario;
use super::checkup::{BEYOND, Doctor, Report, web};
use super::home::{Home, QUICK, SOON, TUNNEL, forwarding_world, gateway_setup, wait_for_state};
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::pki::{Authority, KeyKind, Request, Validity};
use crate::lab::world::{SERVER, WEB};
use crate::lab::{Failure, Lab, Result, wait_for};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "doctor-mtu-by-default",
            "a link that becomes narrow under a tunnel that searches: its MTU is told, before it was found and after",
            narrow,
        ),
        Scenario::new(
            "doctor-egress",
            "a server that lets nothing through to the web host: nothing comes back through the tunnel",
            no_egress,
        ),
        Scenario::new(
            "doctor-replay",
            "ESP that was captured and is sent again is dropped, and named",
            replay,
        ),
        Scenario::new(
            "doctor-certificate-ends",
            "a certificate that ends while its tunnel is up ends that, and is named",
            ends,
        ),
        Scenario::new(
            "doctor-lan",
            "an interface of the LAN that has no address, is down, or is gone is named, each by one line",
            second_leg,
        ),
    ]
}

fn second_leg(lab: &mut Lab) -> Result<String> {
    let mut setup = gateway_setup(QUICK, "");
    setup.config = setup
        .config
        .replace("lan = \"eth0\"", "lan = [\"eth0\", \"lan9\"]");
    let mut home = Home::prepare(lab, &setup)?;
    let host = home.world.gateway.clone();
    host.shell(
        "ip link add lan9 type veth peer name lan9p; ip link set lan9p up; ip addr add 10.9.0.1/24 dev lan9; \
         ip link set lan9 up",
    )?;
    home.gateway.restart()?;
    home.online(&home.world.laptop)?;
    let doctor = Doctor::new(&home.gateway, BEYOND, "exec")?;
    let report = doctor.report(&["--url", &web()])?;
    report.is_healthy("with both legs")?;
    report.good("lan", "it is up, with 10.9.0.1/24")?;
    let mut told = Vec::new();
    for (fault, plant, says) in [
        (
            "no address",
            "ip addr flush dev lan9",
            "lan9: it has no address",
        ),
        ("down", "ip link set lan9 down", "lan9: it is down"),
        ("gone", "ip link del lan9", "there is no such interface"),
    ] {
        host.shell(plant)?;
        if fault == "gone" {
            wait_for("the program warns of it", SOON, || {
                let warnings = home.gateway.status()?.warnings;
                let warns = |warning: &String| warning.contains("no such interface");
                Ok(warnings.iter().any(warns).then_some(()))
            })?;
        }
        let report = doctor.report(&[])?;
        told.push(report.names(fault, "lan", says)?);
        let twice = report.bad().iter().any(|it| it.name == "warnings");
        ensure!(!twice, "{fault}: told twice: {:#?}", report.bad());
    }
    Ok(told.join("; "))
}

/// What is said of the MTU, good or wrong.
fn of_mtu(report: &Report) -> Result<&str> {
    let mut of = report.checks.iter().filter(|check| check.name == "mtu");
    let told = of.find(|check| check.says.contains("1400"));
    told.map(|check| &*check.says).ok_or_else(|| {
        Failure::new(format!(
            "nothing says 1400 of the MTU: {:#?}",
            report.checks
        ))
    })
}

fn narrow(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let doctor = Doctor::new(&home.gateway, BEYOND, "exec")?;
    home.world.router.ip("link set wan mtu 1400")?;
    let at_once = doctor.report(&[])?;
    let at_once = of_mtu(&at_once)?;
    // What is sent finds out.
    let url = format!("http://{WEB}/bytes/1000000");
    let curl = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "20",
        "-o",
        "/dev/null",
        &url,
    ];
    home.world.laptop.exec(curl)?;
    let mut seen = None;
    wait_for("the path's MTU is found", FOUND, || {
        let children = home.gateway.children(TUNNEL)?;
        seen = children.iter().find_map(|child| child.path_mtu);
        Ok((seen == Some(1400)).then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("it is {seen:?}: ")))?;
    let report = doctor.report(&["--url", &web()])?;
    let then = report.good("mtu", "datagrams of 1400 arrive")?;
    report.is_healthy("with the MTU found")?;
    Ok(format!("at once: {at_once}; then: {then}"))
}

/// How long the search may take.
const FOUND: Duration = Duration::from_secs(60);

fn no_egress(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let doctor = Doctor::new(&home.gateway, BEYOND, "exec")?;
    let url = web();
    let with_url = || doctor.report(&["--url", &url]);
    with_url()?.is_healthy("before the server drops anything")?;
    let server = home.server.namespace();
    server.nft(&format!(
        "table inet fault {{\nchain forward {{\ntype filter hook forward priority 0; policy accept;\n\
         ip daddr {WEB} drop\n}}\n}}\n"
    ))?;
    let told = with_url()?.names(
        "the server drops what is for the web host",
        "egress",
        "through the tunnel a web host does not answer",
    )?;
    server.nft("delete table inet fault\n")?;
    with_url()?.is_healthy("with the rule gone")?;
    Ok(told)
}

/// Datagrams that are sent again.
const AGAIN: u64 = 50;

/// Takes ESP of the server's on its way to the home, and sends all of it once more.
const REPLAY: &str = r"
import socket, sys
count, server = int(sys.argv[1]), socket.inet_aton(sys.argv[2])
ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
ears.bind(('far', 3))
ears.settimeout(30)
print('listens', flush=True)
heard = []
while len(heard) < count:
    frame, (_, _, kind, _, _) = ears.recvfrom(65535)
    if kind == socket.PACKET_OUTGOING or frame[12:14] != b'\x08\0' or frame[23] != 17 or frame[26:30] != server:
        continue
    udp = 14 + (frame[14] & 15) * 4
    port, length = (int.from_bytes(frame[udp + n:udp + n + 2], 'big') for n in (0, 4))
    # Neither IKE nor a keepalive nor a batch.
    if port != 4500 or not any(frame[udp + 8:udp + 12]) or length < 40 or len(frame) > 1514:
        continue
    # The checksum was left to the interface, and none is as good (RFC 768).
    heard.append(frame[:udp + 6] + b'\0\0' + frame[udp + 8:])
mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
mouth.bind(('near', 0))
for frame in heard:
    mouth.send(frame)
print('sent', len(heard), flush=True)
";

fn replay(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let doctor = Doctor::new(&home.gateway, BEYOND, "exec")?;
    let url = web();
    let before = doctor.report(&["--url", &url])?;
    before.is_healthy("before anything is sent again")?;
    let count = AGAIN.to_string();
    let between = home.world.provider.namespace();
    let mut recorder = between.spawn(["python3", "-c", REPLAY, &count, SERVER])?;
    wait_for("somebody listens on the way", SOON, || {
        Ok(recorder.log().contains("listens").then_some(()))
    })?;
    let _pings = home
        .world
        .laptop
        .spawn(["ping", "-n", "-q", "-i0.05", WEB])?;
    let sent = recorder.wait(Duration::from_secs(60))?;
    ensure!(sent.success(), "it was not sent again: {}", recorder.log());
    wait_for("all of it is dropped", SOON, || {
        let dropped = home.gateway.drops_by("esp-replayed")?;
        Ok((dropped == AGAIN).then_some(()))
    })
    .map_err(|failure| {
        let status = home.gateway.status().map(|status| status.engine);
        failure.while_doing(format!("{status:?}\n"))
    })?;
    let says = format!("{AGAIN} packets had come before");
    let report = doctor.report(&["--url", &url])?;
    let told = report.names("ESP is sent again", "drops", &says)?;
    ensure!(report.wrong == 1, "and else: {:#?}", report.bad());
    Ok(told)
}

/// Seconds for which the certificate is good: enough to connect on a busy machine.
const LIVES: i64 = 60;

fn ends(lab: &mut Lab) -> Result<String> {
    let now = || -> Result<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map(|now| now.as_secs()).unwrap_or_default();
        Ok(i64::try_from(seconds)?)
    };
    let authority = Authority::root(KeyKind::EcP256, "lab root")?;
    let issue = |name: &str, validity| {
        let request = Request::new(KeyKind::EcP256, name).name(name);
        authority.issue(&request.validity(validity))
    };
    let server = Setup::new(
        "[server]
identity = \"vpn.lab\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
pools = [\"10.99.0.0/24\", \"fd99::/112\"]
",
    )
    .credential("own", &issue("vpn.lab", Validity::Now)?)
    .file("ca.crt", authority.certificate.clone());
    let world = forwarding_world(lab)?;
    let _server = Cygnet::start(lab, &world.server, &server)?;
    let mut setup = gateway_setup(QUICK, "");
    setup.config = setup.config.replace(
        "psk = \"psk\"\n",
        "certificate = \"own.crt\"\nkey = \"own.key\"\nca = \"ca.crt\"\n",
    );
    let until = now()? + LIVES;
    let setup = setup
        .credential("own", &issue("box.lab", Validity::Until(until))?)
        .file("ca.crt", authority.certificate.clone());
    let gateway = Cygnet::start(lab, &world.gateway, &setup)?;
    wait_for_state(&gateway, TUNNEL, "up")?;
    let doctor = Doctor::new(&gateway, BEYOND, "exec")?;
    let before = doctor.report(&[])?;
    ensure!(
        !before
            .checks
            .iter()
            .any(|check| check.says.contains("expired")),
        "before it ends: {:#?}",
        before.bad()
    );
    wait_for("the certificate ends", Duration::from_secs(90), || {
        Ok((now()? > until).then_some(()))
    })?;
    // No SA outlives the certificate that it was made with, and none is made anew.
    gateway.wait_for_log("AUTHENTICATION_FAILED", SOON)?;
    let report = doctor.report(&[])?;
    report.names("it expired", "certificates", "CN=box.lab) expired on")
}
