//! What the box itself sends: what a gateway needs leaves, and the rest takes the tunnel or is refused at once.

use super::super::Scenario;
use super::super::recovery::asker::Asker;
use super::home::{
    GATEWAY6, Home, QUICK, SERVER6, SOON, WEB6, gateway_setup, guard, reaches_web, seen_by,
    start_behind,
};
use crate::lab::cygnet::Cygnet;
use crate::lab::link::counter;
use crate::lab::world::{HOME_PUBLIC, SERVER, WEB};
use crate::lab::{Lab, Namespace, Process, Result, interrupt, wait_for};
use crate::{ensure, project};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "guard-own-traffic",
            "the box itself: NTP, DNS and answers leave, the rest takes the tunnel or is refused at once; with \"all\" it leaves",
            own_traffic,
        ),
        Scenario::new(
            "guard-own-resolver",
            "a resolver of the box itself asks through the tunnel while it is up, and in clear while it is down, from one port; its TLS connection of before is reset",
            own_resolver,
        ),
        Scenario::new(
            "guard-own-resolver-late",
            "the same where answers come after what was asked in clear is forgotten",
            late_resolver,
        ),
        Scenario::new(
            "guard-own-resolver-changed",
            "resolv.conf names the box itself, and a host outside again: what is asked from one port all the time goes where it belongs",
            resolver_changed,
        ),
    ]
}

/// The box's resolvers, at the web host.
const RESOLVERS: [&str; 2] = ["198.51.100.53", "2001:db8:80::53"];

/// What the server lends.
const LENT: [&str; 2] = ["10.99.0.2", "fd99::2"];

/// How long who is asked for names thinks.
const THINKS: Duration = Duration::from_millis(200);
const THINKS_LONG: Duration = Duration::from_millis(2500);

/// From a change to just before what was in clear until then is ended: the change is seen after 0.2 s, and answers are
/// waited for 2 s.
const SETTLING: Duration = Duration::from_millis(2100);

/// Counts what is sent to it, and says so.
const SINK: &str = "import socket\n\
    listener = socket.create_server(('::', 8081), family=socket.AF_INET6, dualstack_ipv6=True)\n\
    while True:\n\
    \x20   caller, _ = listener.accept()\n\
    \x20   count = 0\n\
    \x20   while taken := caller.recv(65536): count += len(taken)\n\
    \x20   caller.sendall(str(count).encode())\n\
    \x20   caller.close()\n";

/// Sends it much, and tells what it says.
const POUR: &str = "import socket, sys\n\
    to = socket.create_connection((sys.argv[1], 8081), timeout=20)\n\
    to.sendall(bytes(300000))\n\
    to.shutdown(socket.SHUT_WR)\n\
    print(to.recv(64).decode())\n";

/// Says on and on what takes no answer, until it is reset.
const DOT: &str = "import socket, sys, time\n\
    to = socket.create_connection((sys.argv[1], 853), timeout=20)\n\
    print('begun', flush=True)\n\
    try:\n\
    \x20   while True: to.sendall(b'?'); time.sleep(.05)\n\
    except ConnectionResetError: print('reset', flush=True)\n";

/// Takes it.
const DOT_SINK: &str = "import socket, threading\n\
    listener = socket.create_server(('::', 853), family=socket.AF_INET6, dualstack_ipv6=True)\n\
    def take(one):\n\
    \x20   while one.recv(65536): pass\n\
    while True: threading.Thread(target=take, args=(listener.accept()[0],), daemon=True).start()\n";

fn own_traffic(lab: &mut Lab) -> Result<String> {
    let home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let (box_, web) = (&home.world.gateway, &home.world.web);
    let [v4, v6] = RESOLVERS;
    web.ip(&format!("addr add {v4}/24 dev eth0"))?;
    // It answers from the one that was asked: a preferred address would be taken for all answers.
    web.ip(&format!("addr add {v6}/64 dev eth0 nodad preferred_lft 0"))?;
    web.nft(
        "table inet seen {\ncounter ntp { }\ncounter dns { }\ncounter other { }\nchain in {\n\
         type filter hook prerouting priority -300;\nudp dport 123 counter name ntp\n\
         ip daddr 198.51.100.53 udp dport 53 counter name dns\n\
         ip6 daddr 2001:db8:80::53 udp dport 53 counter name dns\n\
         ip daddr 198.51.100.80 udp dport { 9, 53 } counter name other\n\
         ip6 daddr 2001:db8:80::80 udp dport { 9, 53 } counter name other\n}\n}\n",
    )?;
    let arrived = |what: &str| {
        let list = ["nft", "-j", "list", "counters", "table", "inet", "seen"];
        counter(&web.exec(list)?, what)
    };

    // Before cygnet runs, by the guard alone.
    ensure!(reaches_web(box_)?, "without the guard the box is offline");
    home.web_is_done()?;
    guard(&home.gateway, "on")?;
    home.world.provider.reset()?;
    refused(box_, &[9])?;
    home.nothing_leaked("from the box itself, by `cygnet gateway on`")?;
    guard(&home.gateway, "off")?;
    ensure!(
        reaches_web(box_)?,
        "after `cygnet gateway off` the box is offline"
    );

    let mut running = start_asking(lab, &home.gateway, &RESOLVERS)?;
    home.online(&home.world.laptop)?;
    home.world.provider.reset()?;
    let before = arrived("other")?;
    for (host, seen_as) in [(WEB, SERVER), (WEB6, SERVER6)] {
        let seen = seen_by(box_, host)?;
        ensure!(
            seen.ends_with(seen_as),
            "the box asks {host}, and the web host sees {seen}"
        );
        say(box_, host, 9)?;
    }
    // More than one segment each way: the socket does not know the tunnel's MTU.
    let _sink = web.spawn(["python3", "-c", SINK])?;
    wait_for("somebody counts", SOON, || {
        Ok(web.listens_tcp(8081)?.then_some(()))
    })?;
    for host in [WEB, WEB6] {
        let counted = box_.exec(["python3", "-c", POUR, host])?;
        ensure!(counted.trim() == "300000", "{host} counted {counted}");
        let url = match host.contains(':') {
            true => format!("http://[{host}]/bytes/300000"),
            false => format!("http://{host}/bytes/300000"),
        };
        let got = box_.exec([
            "curl",
            "-sS",
            "-g",
            "--fail",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            &url,
        ])?;
        ensure!(got == "300000", "{url}: {got}");
    }
    wait_for("what the box sent comes out of the tunnel", SOON, || {
        Ok((arrived("other")? >= before + 2).then_some(()))
    })?;
    home.nothing_leaked("from the box itself, with the tunnel up")?;

    home.gateway.down("home")?;
    let before = arrived("other")?;
    refused(box_, &[9, 53])?;
    home.nothing_leaked("from the box itself, with the tunnel down")?;
    ensure!(arrived("other")? == before, "something arrived");
    // What it needs.
    for host in [WEB, WEB6] {
        say(box_, host, 123)?;
    }
    for resolver in RESOLVERS {
        say(box_, resolver, 53)?;
    }
    wait_for("NTP and DNS arrive", SOON, || {
        Ok((arrived("ntp")? >= 2 && arrived("dns")? >= 2).then_some(()))
    })?;
    ensure!(
        arrived("other")? == before,
        "a question for somebody else left"
    );
    // Who calls is answered.
    web.exec(["ping", "-n", "-c1", "-W2", GATEWAY6])?;
    let _page = box_.spawn_exec(project::own_command(&["webhost", "--listen", "[::]:8080"]))?;
    let url = format!("http://[{GATEWAY6}]:8080/");
    wait_for("the box answers who calls", SOON, || {
        let asked = web.finish(["curl", "-sS", "-g", "--fail", "--max-time", "1", &url])?;
        Ok(asked.success().then_some(()))
    })?;
    // The LAN is not outside.
    box_.exec(["ping", "-n", "-c1", "-W2", "192.168.1.20"])?;

    home.gateway.up("home")?;
    // A flow that never ends, from one port: whichever way it begins, it goes where the box is told to go.
    let asker = Asker::start(box_, web)?;
    let (clear, inside) = seen_as()?;
    asker.answered_since(Instant::now(), inside, SOON)?;
    // Before its translation.
    home.world.router.nft(&format!(
        "table inet seen {{\ncounter asked {{ }}\ncounter lent {{ }}\nchain in {{\n\
         type filter hook prerouting priority -300;\nudp dport 7 counter name asked\n\
         ip saddr {} counter name lent\nip6 saddr {} counter name lent\n}}\n}}\n",
        LENT[0], LENT[1]
    ))?;
    for (lines, seen) in [
        ("own_traffic = \"all\"\n", clear),
        ("", inside),
        (
            "direct_networks = [\"198.51.100.0/24\", \"2001:db8:80::/48\"]\n",
            clear,
        ),
        ("", inside),
    ] {
        home.gateway.write(&gateway_setup(QUICK, lines))?;
        home.gateway.reload()?;
        asker
            .answered_since(Instant::now(), seen, SOON)
            .map_err(|failure| failure.while_doing(format!("after `{}`", lines.trim())))?;
    }
    let list = ["nft", "-j", "list", "counters", "table", "inet", "seen"];
    let seen = home.world.router.exec(list)?;
    let (asked, lent) = (counter(&seen, "asked")?, counter(&seen, "lent")?);
    ensure!(
        asked > 0 && lent == 0,
        "the router saw {asked} questions of the box, and {lent} packets from an address of the tunnel"
    );
    drop(asker);
    ensure!(running.stop(), "cygnet did not end");
    home.world.provider.reset()?;
    refused(box_, &[9, 53])?;
    home.nothing_leaked("from the box itself, after the end")?;
    Ok("through the tunnel, or refused at once".to_owned())
}

fn own_resolver(lab: &mut Lab) -> Result<String> {
    resolver_asks(lab, THINKS)
}

fn late_resolver(lab: &mut Lab) -> Result<String> {
    resolver_asks(lab, THINKS_LONG)
}

fn resolver_asks(lab: &mut Lab, thinks: Duration) -> Result<String> {
    let home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let (box_, web) = (&home.world.gateway, &home.world.web);
    let mut running = start_asking(lab, &home.gateway, &["127.0.0.1"])?;
    home.online(&home.world.laptop)?;
    let asker = Asker::start_at(box_, web, 53, thinks)?;
    let _sink = web.spawn(["python3", "-c", DOT_SINK])?;
    wait_for("somebody takes TCP", SOON, || {
        Ok(web.listens_tcp(853)?.then_some(()))
    })?;
    let mut by_tls = Vec::new();
    let (clear, inside) = seen_as()?;
    for order in ["", "down", "up", "down"] {
        match order {
            "up" => home.gateway.up("home")?,
            "down" => home.gateway.down("home")?,
            _ => {}
        }
        let seen = if order == "down" { clear } else { inside };
        asker
            .answered_since(Instant::now(), seen, SOON)
            .map_err(|failure| failure.while_doing(format!("after `{order}`")))?;
        if order == "down" && by_tls.is_empty() {
            for host in [WEB, WEB6] {
                by_tls.push(box_.spawn(["python3", "-c", DOT, host])?);
            }
            all_say(&by_tls, "begun")?;
        } else if order == "up" {
            all_say(&by_tls, "reset")?;
        }
    }
    drop(asker);
    ensure!(running.stop(), "cygnet did not end");
    Ok("there and back".to_owned())
}

fn resolver_changed(lab: &mut Lab) -> Result<String> {
    let home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let (box_, web) = (&home.world.gateway, &home.world.web);
    let outside = [WEB, WEB6];
    let mut running = start_asking(lab, &home.gateway, &outside)?;
    home.online(&home.world.laptop)?;
    let asker = Asker::start_at(box_, web, 53, THINKS)?;
    let (clear, inside) = seen_as()?;
    let (here, there): (&[&str], &[&str]) = (&["127.0.0.1"], &outside);
    let named = [(there, clear), (here, inside), (there, clear)];
    for ((named, seen), last) in named.into_iter().zip(1..) {
        // What an earlier change ends in clear is ended just as this one is seen, with answers under way.
        box_.ip(&format!("addr add 198.18.0.{last}/32 dev lo"))?;
        interrupt::pause(SETTLING)?;
        name_resolvers(lab, named)?;
        asker
            .answered_since(Instant::now(), seen, SOON)
            .map_err(|failure| failure.while_doing(format!("with {named:?}")))?;
    }
    drop(asker);
    ensure!(running.stop(), "cygnet did not end");
    Ok("there and back".to_owned())
}

/// Waits until each of these has said it.
fn all_say(programs: &[Process], word: &str) -> Result<()> {
    for program in programs {
        wait_for(&format!("a program says `{word}`"), SOON, || {
            Ok(program.log().contains(word).then_some(()))
        })?;
    }
    Ok(())
}

/// As whom the web host sees the box: in clear, and by the tunnel.
fn seen_as() -> Result<([IpAddr; 2], [IpAddr; 2])> {
    Ok((
        [HOME_PUBLIC.parse()?, GATEWAY6.parse()?],
        [SERVER.parse()?, SERVER6.parse()?],
    ))
}

/// Starts cygnet on a box that asks these for names.
fn start_asking(lab: &Lab, gateway: &Cygnet, resolvers: &[&str]) -> Result<Process> {
    let file = name_resolvers(lab, resolvers)?;
    let mount = format!(
        "mount --bind {} /etc/resolv.conf; exec \"$@\"",
        file.display()
    );
    start_behind(&mount, gateway)
}

/// Writes whom that box asks for names.
fn name_resolvers(lab: &Lab, resolvers: &[&str]) -> Result<PathBuf> {
    let file = lab.directory().join("resolv.conf");
    let named = resolvers.iter();
    let named: String = named.map(|one| format!("nameserver {one}\n")).collect();
    std::fs::write(&file, named)?;
    Ok(file)
}

/// Fails unless TCP is refused at once and UDP to these ports is not taken, over both families.
fn refused(box_: &Namespace, ports: &[u16]) -> Result<()> {
    for url in [format!("http://{WEB}/"), format!("http://[{WEB6}]/")] {
        let asked = box_.finish(["curl", "-sS", "-g", "--max-time", "20", &url])?;
        // 7: refused; 28 would be "no answer".
        ensure!(
            asked.status.code() == Some(7),
            "the box asks for {url}: {:?}, {}",
            asked.status.code(),
            asked.stderr.trim()
        );
    }
    for host in [WEB, WEB6] {
        for port in ports {
            let said = say(box_, host, *port);
            ensure!(said.is_err(), "a datagram to {host} {port} was taken");
        }
    }
    Ok(())
}

fn say(box_: &Namespace, host: &str, port: u16) -> Result<()> {
    let program = "import socket, sys\n\
        to = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]\n\
        socket.socket(to[0], socket.SOCK_DGRAM).sendto(b'x', to[4])";
    box_.exec(["python3", "-c", program, host, &port.to_string()])
        .map(drop)
}
