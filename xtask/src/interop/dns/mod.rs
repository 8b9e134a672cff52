//! The gateway answers the LAN's questions for names: through the tunnel, and by no other way.
//!
//! The demo's world; the far resolver is a dnsmasq on the web host's machine, which logs who asks, and the home's own
//! one on the router. TLS before the far one is socat's (OpenSSL): no package of Debian that serves DNS over TLS comes
//! without a service that takes port 53 of the machine it is installed on.

mod direct_domains;
mod firewall;
mod policies;
mod strangers;

use super::Scenario;
use super::resilience::home::{Home, SOON, gateway_setup, server_setup, wait_for_state};
use crate::ensure;
use crate::lab::cygnet::Cygnet;
use crate::lab::pki::{Authority, KeyKind, Request};
use crate::lab::world::{GATEWAY, ROUTER, SERVER, WEB};
use crate::lab::{Lab, Namespace, Process, Result, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::{Duration, Instant};

/// A resolver of the world that is not there: only who turns the question can answer.
const NINES: &str = "9.9.9.9";
const NINES6: &str = "2620:fe::fe";
const HOST: &str = "www.test.example";

pub(super) fn all() -> Vec<Scenario> {
    let mut all = policies::scenarios();
    all.extend(direct_domains::scenarios());
    all.extend(strangers::scenarios());
    all.extend(firewall::scenarios());
    all.extend([
        Scenario::new(
            "dns-through-the-tunnel",
            "devices ask the box, or anybody, by UDP and TCP, IPv4 and IPv6: the lease's resolver answers, asked by the server",
            through_the_tunnel,
        ),
        Scenario::new(
            "dns-split",
            "a domain of the home's own resolver, and names of the LAN, are asked there; all else is not",
            split,
        ),
        Scenario::new(
            "dns-block-list",
            "names on a block list lead nowhere, and a changed list is heeded within seconds",
            block_list,
        ),
        Scenario::new(
            "dns-while-down",
            "tunnel down: SERVFAIL within a second whomever one asks, and no packet of it leaves the home",
            while_down,
        ),
        Scenario::new(
            "dns-over-tls",
            "the far resolver by TLS, judged by its name and authority; devices' own DNS over TLS refused by choice",
            over_tls,
        ),
        Scenario::new(
            "dns-process-killed",
            "SIGKILL of the process that answers: there is another within a second or two, and nothing leaves meanwhile",
            process_killed,
        ),
        Scenario::new(
            "dns-port-taken",
            "another program has port 53: refused with the command that shows it, and nothing is changed",
            port_taken,
        ),
    ]);
    all
}

/// A dnsmasq that knows these names and asks nobody.
pub(super) struct Dnsmasq {
    process: Process,
}

impl Dnsmasq {
    pub(super) fn start(host: &Namespace, addresses: &[&str], records: &[&str]) -> Result<Self> {
        let mut argv = vec![
            "dnsmasq".to_owned(),
            "--keep-in-foreground".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--pid-file=".to_owned(),
            "--user=root".to_owned(),
            "--no-resolv".to_owned(),
            "--no-hosts".to_owned(),
            "--cache-size=0".to_owned(),
            "--bind-interfaces".to_owned(),
            "--log-queries".to_owned(),
            "--log-facility=-".to_owned(),
        ];
        argv.extend(
            addresses
                .iter()
                .map(|address| format!("--listen-address={address}")),
        );
        argv.extend(records.iter().map(|record| format!("--{record}")));
        let mut process = host.spawn(argv)?;
        let at = addresses.first().copied().unwrap_or_default();
        wait_for("dnsmasq answers", SOON, || {
            ensure!(
                process.is_running(),
                "dnsmasq ended: {}",
                process.last_words()
            );
            Ok((dig(host, at, "no-such.test.example", &[])?.status != "none").then_some(()))
        })?;
        Ok(Self { process })
    }

    /// Who asked for that name, as the log has it.
    fn asked_for(&self, name: &str) -> Vec<String> {
        let log = self.process.log();
        let lines = log.lines().filter(|line| {
            line.contains("query[") && line.to_lowercase().contains(&format!(" {name} from "))
        });
        lines
            .filter_map(|line| Some(line.split_once(" from ")?.1.trim().to_owned()))
            .collect()
    }
}

/// The far resolver.
fn far_resolver(home: &Home) -> Result<Dnsmasq> {
    let letters = "x".repeat(200);
    let long = format!(
        "txt-record=long.test.example{}",
        format!(",{letters}").repeat(8)
    );
    let records = [
        "local=/test.example/",
        "host-record=www.test.example,198.51.100.80,2001:db8:80::80,60",
        "host-record=other.test.example,198.51.100.81,60",
        "host-record=ads.test.example,198.51.100.82,60",
        "host-record=git.corp.example,203.0.113.99,60",
        &long,
    ];
    Dnsmasq::start(&home.world.web, &[WEB], &records)
}

/// The home's own one.
fn near_resolver(home: &Home) -> Result<Dnsmasq> {
    let records = [
        "local=/corp.example/",
        "local=/lan/",
        "host-record=git.corp.example,10.7.7.7,60",
        "host-record=printer.lan,192.168.1.21,60",
    ];
    Dnsmasq::start(&home.world.router, &[ROUTER], &records)
}

/// What `dig` says.
#[derive(Debug)]
struct Said {
    /// `NOERROR`, `SERVFAIL`; `none` where nobody answered.
    status: String,
    /// Data of the records.
    records: Vec<String>,
    /// After which it came, if any did.
    after: Option<Duration>,
}

fn dig(host: &Namespace, at: &str, name: &str, more: &[&str]) -> Result<Said> {
    let at = format!("@{at}");
    let mut argv = vec![
        "dig",
        "+time=2",
        "+tries=1",
        "+noall",
        "+comments",
        "+answer",
        "+stats",
        &at,
        name,
    ];
    argv.extend(more);
    let said = host.finish(argv)?.stdout;
    // The time until the answer came, without that of a program that starts.
    let after = said.split_once(";; Query time: ").map(|(_, rest)| rest);
    let after = after.and_then(|rest| rest.split(' ').next()?.parse().ok());
    let status = said
        .split_once("status: ")
        .and_then(|(_, rest)| rest.split(',').next())
        .unwrap_or("none");
    let records = said
        .lines()
        .filter(|line| !line.starts_with(';') && !line.trim().is_empty())
        .filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned));
    Ok(Said {
        status: status.to_owned(),
        records: records.collect(),
        after: after.map(Duration::from_millis),
    })
}

/// Both ends, with that section `[gateway.dns]`, the tunnel up. The server hands out the far resolver.
fn start(lab: &Lab, keys: &str, files: &[(&str, &str)]) -> Result<Home> {
    let mut setup = gateway_setup("", &format!("[gateway.dns]\n{keys}"));
    for (name, text) in files {
        setup = setup.file(name, *text);
    }
    let mut home = Home::prepare(lab, &setup)?;
    let mut server = server_setup();
    server.config.push_str(&format!("dns = [\"{WEB}\"]\n"));
    home.server.write(&server)?;
    home.server.restart()?;
    home.gateway.restart()?;
    wait_for_state(&home.gateway, "home", "up")?;
    home.world.provider.reset()?;
    Ok(home)
}

/// Waits until a name has these addresses at a resolver.
pub(super) fn expect(
    host: &Namespace,
    at: &str,
    name: &str,
    more: &[&str],
    addresses: &[&str],
) -> Result<()> {
    let mut last = String::new();
    let what = format!("{name} is {addresses:?} at {at} {more:?}");
    wait_for(&what, SOON, || {
        let said = dig(host, at, name, more)?;
        last = format!("{said:?}");
        let mut records = said.records;
        records.sort();
        Ok((records == addresses).then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("the last answer was {last}; ")))
}

fn dns_status(cygnet: &Cygnet) -> Result<serde_json::Value> {
    Ok(cygnet.whole_status()?["dns"].clone())
}

/// Takes the tunnel down, and waits until who answers devices knows.
fn take_down(home: &Home) -> Result<()> {
    home.gateway.down("home")?;
    wait_for("nobody is asked any more", SOON, || {
        let reason = dns_status(&home.gateway)?["reason"].clone();
        Ok((reason == "tunnel home is down").then_some(()))
    })?;
    home.world.provider.reset()
}

fn through_the_tunnel(lab: &mut Lab) -> Result<String> {
    let mut home = start(lab, "", &[])?;
    let far = far_resolver(&home)?;
    let (laptop, phone) = (&home.world.laptop.clone(), &home.world.phone.clone());
    expect(laptop, GATEWAY, HOST, &["A"], &[WEB])?;
    expect(laptop, GATEWAY, HOST, &["AAAA"], &["2001:db8:80::80"])?;
    expect(phone, GATEWAY, HOST, &["A", "+tcp"], &[WEB])?;
    expect(phone, NINES, HOST, &["A"], &[WEB])?;
    expect(
        phone,
        NINES,
        "other.test.example",
        &["A", "+tcp"],
        &["198.51.100.81"],
    )?;
    expect(laptop, NINES6, HOST, &["A"], &[WEB])?;
    expect(laptop, NINES6, HOST, &["A", "+tcp"], &[WEB])?;
    // Longer than a datagram: the box gets it by TCP, and so does the device.
    let long = dig(laptop, GATEWAY, "long.test.example", &["TXT", "+ignore"])?;
    ensure!(
        long.records.is_empty(),
        "a long answer came by UDP: {long:?}"
    );
    let long = dig(laptop, GATEWAY, "long.test.example", &["TXT"])?;
    ensure!(long.records.len() == 1, "no long answer: {long:?}");
    let missing = dig(laptop, GATEWAY, "missing.test.example", &["A"])?;
    ensure!(
        missing.status == "NXDOMAIN",
        "a name that is not there: {missing:?}"
    );
    let whole = dig(laptop, GATEWAY, "test.example", &["AXFR"])?;
    ensure!(whole.records.is_empty(), "a zone was handed out: {whole:?}");
    home.nothing_leaked("while devices asked")?;
    let asked = far.asked_for(HOST);
    ensure!(
        !asked.is_empty() && asked.iter().all(|from| from == SERVER),
        "{HOST} was asked for by {asked:?}, not by the server"
    );
    // The reports of the process come every second.
    let hits = wait_for("`status` counts questions", SOON, || {
        let dns = dns_status(&home.gateway)?;
        let (queries, hits) = (dns["queries"].as_u64(), dns["cache_hits"].as_u64());
        Ok((queries >= Some(9)).then_some(hits.unwrap_or_default()))
    })?;
    ensure!(hits > 0, "nothing came from the cache");
    let text = home.gateway.command(&["status"])?;
    ensure!(text.contains("dns: answers at 192.168.1.2"), "{text}");
    // A resolver that is written down, where the server hands out none.
    home.server.write(&server_setup())?;
    home.server.reload()?;
    let keys = format!("[gateway.dns]\nresolvers = [\"{WEB}\"]\ncache = 0\n");
    home.gateway.write(&gateway_setup("", &keys))?;
    home.gateway.restart()?;
    wait_for_state(&home.gateway, "home", "up")?;
    let heard = far.asked_for("other.test.example").len();
    expect(
        laptop,
        GATEWAY,
        "other.test.example",
        &["A"],
        &["198.51.100.81"],
    )?;
    let asked_then = far.asked_for("other.test.example").split_off(heard);
    ensure!(
        !asked_then.is_empty() && asked_then.iter().all(|from| from == SERVER),
        "by the configured resolver: asked by {asked_then:?}"
    );
    home.nothing_leaked("by the configured resolver")?;
    Ok(format!(
        "asked {} times by the server, {hits} answers from the cache",
        asked.len()
    ))
}

fn split(lab: &mut Lab) -> Result<String> {
    let keys = format!(
        "direct = [\"corp.example\"]\ndirect_resolvers = [\"{ROUTER}\"]\nlan_domains = [\"lan\"]\n"
    );
    let home = start(lab, &keys, &[])?;
    let (far, near) = (far_resolver(&home)?, near_resolver(&home)?);
    let laptop = &home.world.laptop;
    expect(laptop, GATEWAY, "git.corp.example", &["A"], &["10.7.7.7"])?;
    expect(laptop, NINES, "git.corp.example", &["A"], &["10.7.7.7"])?;
    expect(laptop, GATEWAY, "printer.lan", &["A"], &["192.168.1.21"])?;
    expect(laptop, GATEWAY, HOST, &["A"], &[WEB])?;
    ensure!(
        near.asked_for(HOST).is_empty(),
        "the home's resolver heard of {HOST}"
    );
    // What a device makes of a name that it could not find is no name of the LAN.
    let searched = dig(laptop, GATEWAY, "www3.test.example.lan", &["A"])?;
    ensure!(
        searched.status == "NXDOMAIN" && near.asked_for("www3.test.example.lan").is_empty(),
        "the home's resolver was asked for a name of the world: {searched:?}"
    );
    for name in ["git.corp.example", "printer.lan"] {
        ensure!(
            far.asked_for(name).is_empty(),
            "the far resolver heard of {name}"
        );
    }
    let asked = near.asked_for("git.corp.example");
    ensure!(
        !asked.is_empty() && asked.iter().all(|from| from == GATEWAY),
        "git.corp.example was asked for by {asked:?}"
    );
    home.nothing_leaked("while devices asked")?;
    // While the tunnel is down the home's own names are there still.
    take_down(&home)?;
    let inside = dig(laptop, GATEWAY, "www2.test.example", &["A"])?;
    ensure!(
        inside.status == "SERVFAIL",
        "with the tunnel down: {inside:?}"
    );
    let own = dig(laptop, GATEWAY, "git.corp.example", &["A"])?;
    ensure!(own.records == ["10.7.7.7"], "with the tunnel down: {own:?}");
    home.nothing_leaked("with the tunnel down")?;
    Ok("each name is asked where it belongs".to_owned())
}

fn block_list(lab: &mut Lab) -> Result<String> {
    let list = "# a list\n0.0.0.0 ads.test.example\n";
    let home = start(lab, "block = \"ads.hosts\"\n", &[("ads.hosts", list)])?;
    let _far = far_resolver(&home)?;
    let laptop = &home.world.laptop;
    expect(laptop, GATEWAY, "ads.test.example", &["A"], &["0.0.0.0"])?;
    expect(laptop, NINES, "ads.test.example", &["AAAA"], &["::"])?;
    expect(laptop, GATEWAY, HOST, &["A"], &[WEB])?;
    // As downloads replace it: another file under the same name.
    let path = home.gateway.directory().join("ads.hosts");
    let fresh = home.gateway.directory().join("ads.hosts.new");
    let mut text = String::from("0.0.0.0 other.test.example\n");
    for n in 0..200_000 {
        text.push_str(&format!("0.0.0.0 host-{n}.ads.example\n"));
    }
    fs::write(&fresh, text)?;
    fs::rename(&fresh, &path)?;
    let begun = Instant::now();
    expect(laptop, GATEWAY, "other.test.example", &["A"], &["0.0.0.0"])?;
    let after = begun.elapsed();
    expect(
        laptop,
        GATEWAY,
        "ads.test.example",
        &["A"],
        &["198.51.100.82"],
    )?;
    let names = wait_for("`status` counts the names", SOON, || {
        let names = dns_status(&home.gateway)?["blocked_names"].as_u64();
        Ok(names.filter(|names| *names == 200_001))
    })?;
    // Gone, it is held, and told of.
    fs::remove_file(&path)?;
    home.gateway.wait_for_warning("ads.hosts", SOON)?;
    expect(laptop, GATEWAY, "other.test.example", &["A"], &["0.0.0.0"])?;
    home.nothing_leaked("while devices asked")?;
    Ok(format!(
        "{names} names, heeded after {:.1} s",
        after.as_secs_f32()
    ))
}

fn while_down(lab: &mut Lab) -> Result<String> {
    let home = start(lab, "", &[])?;
    let far = far_resolver(&home)?;
    let (laptop, phone) = (&home.world.laptop, &home.world.phone);
    expect(laptop, GATEWAY, HOST, &["A"], &[WEB])?;
    take_down(&home)?;
    let heard = far.asked_for(HOST).len();
    let mut slowest = Duration::ZERO;
    for (at, more) in [
        (GATEWAY, ["A", "+notcp"]),
        (GATEWAY, ["A", "+tcp"]),
        (NINES, ["A", "+notcp"]),
        (NINES, ["A", "+tcp"]),
        (NINES6, ["AAAA", "+notcp"]),
        (WEB, ["A", "+notcp"]),
    ] {
        for device in [laptop, phone] {
            let said = dig(device, at, HOST, &more)?;
            ensure!(said.status == "SERVFAIL", "at {at} {more:?}: {said:?}");
            let after = said.after.unwrap_or(Duration::MAX);
            ensure!(after < Duration::from_secs(1), "at {at} {more:?}: {said:?}");
            slowest = slowest.max(after);
        }
    }
    home.nothing_leaked("with the tunnel down")?;
    ensure!(
        far.asked_for(HOST).len() == heard,
        "the far resolver was asked"
    );
    home.gateway.up("home")?;
    expect(laptop, NINES, HOST, &["A"], &[WEB])?;
    home.nothing_leaked("around `up`")?;
    Ok(format!("SERVFAIL after {} ms at most", slowest.as_millis()))
}

fn over_tls(lab: &mut Lab) -> Result<String> {
    let authority = Authority::root(KeyKind::EcP256, "dns root")?;
    let credential = authority.issue(&Request::new(KeyKind::EcP256, "dns.lab").name("dns.lab"))?;
    let keys = |name: &str, more: &str| {
        format!("resolvers = [\"{WEB}\"]\ntls = \"{name}\"\nca = \"dns.crt\"\n{more}")
    };
    let ca = [("dns.crt", authority.certificate.as_str())];
    let home = start(lab, &keys("dns.lab", ""), &ca)?;
    let far = far_resolver(&home)?;
    let directory = lab.subdirectory("dns-over-tls")?;
    let (chain, key) = (directory.join("chain.pem"), directory.join("key.pem"));
    fs::write(&chain, credential.chain())?;
    fs::write(&key, &credential.key)?;
    let listen = format!(
        "OPENSSL-LISTEN:853,bind={WEB},reuseaddr,fork,verify=0,cert={},key={}",
        chain.display(),
        key.display()
    );
    let forward = format!("TCP:{WEB}:53");
    let _tls = home.world.web.spawn(["socat", &listen, &forward])?;
    let laptop = &home.world.laptop;
    expect(laptop, GATEWAY, HOST, &["A"], &[WEB])?;
    expect(laptop, NINES, HOST, &["A", "+tcp"], &[WEB])?;
    let asked = far.asked_for(HOST);
    ensure!(
        !asked.is_empty() && asked.iter().all(|from| from == WEB),
        "{HOST} was asked for by {asked:?}, not through TLS"
    );
    // Devices' own goes through the tunnel as anything else does.
    let connect = "import socket; socket.create_connection(('198.51.100.80', 853), 3)";
    laptop.exec(["python3", "-c", connect])?;
    home.nothing_leaked("with TLS")?;

    let setup = |name: &str, more: &str| {
        let section = format!("[gateway.dns]\n{}", keys(name, more));
        gateway_setup("", &section).file("dns.crt", authority.certificate.clone())
    };
    home.gateway
        .write(&setup("other.lab", "dot = \"refuse\"\n"))?;
    home.gateway.reload()?;
    wait_for("a resolver with another name is not believed", SOON, || {
        let said = dig(laptop, GATEWAY, "other.test.example", &["A"])?;
        Ok((said.status == "SERVFAIL").then_some(()))
    })?;
    ensure!(
        far.asked_for("other.test.example").is_empty(),
        "who could not prove its name was asked all the same"
    );
    let refused = laptop.finish(["python3", "-c", connect])?;
    ensure!(
        refused.stderr.contains("ConnectionRefusedError"),
        "DNS over TLS of a device: {}",
        refused.stderr
    );
    home.gateway.write(&setup("dns.lab", ""))?;
    home.gateway.reload()?;
    expect(
        laptop,
        GATEWAY,
        "other.test.example",
        &["A"],
        &["198.51.100.81"],
    )?;
    home.nothing_leaked("around reloads")?;
    Ok(format!("asked {} times, all by TLS", asked.len()))
}

fn process_killed(lab: &mut Lab) -> Result<String> {
    let home = start(lab, "", &[])?;
    let _far = far_resolver(&home)?;
    let laptop = &home.world.laptop;
    expect(laptop, GATEWAY, HOST, &["A"], &[WEB])?;
    let process = |home: &Home| -> Result<Option<i32>> {
        let pid = dns_status(&home.gateway)?["process"].as_i64();
        Ok(pid.and_then(|pid| i32::try_from(pid).ok()))
    };
    let first = process(&home)?;
    let pid = first.and_then(Pid::from_raw);
    ensure!(pid.is_some(), "`status` knows no process");
    if let Some(pid) = pid {
        kill_process(pid, Signal::KILL)?;
    }
    let begun = Instant::now();
    expect(laptop, NINES, HOST, &["A"], &[WEB])?;
    let after = begun.elapsed();
    ensure!(process(&home)? != first, "it is the same process");
    home.nothing_leaked("around the crash")?;
    Ok(format!("answered again after {:.2} s", after.as_secs_f32()))
}

fn port_taken(lab: &mut Lab) -> Result<String> {
    let setup = gateway_setup("", "[gateway.dns]\n");
    let home = Home::prepare(lab, &setup)?;
    let records = ["host-record=www.test.example,192.0.2.1,60"];
    let other = Dnsmasq::start(&home.world.gateway, &[GATEWAY], &records)?;
    let ended = home.gateway.run_to_its_end()?;
    ensure!(
        ended.status.code() == Some(2) && ended.stderr.contains("ss -lnptu"),
        "it says {:?}: {}",
        ended.status.code(),
        ended.stderr
    );
    let tables = home.world.gateway.exec(["nft", "list", "tables"])?;
    ensure!(
        !tables.contains("cygnet"),
        "something was changed: {tables}"
    );
    drop(other);
    Ok(ended.stderr.trim().to_owned())
}
