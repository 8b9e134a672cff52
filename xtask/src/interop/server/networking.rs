//! What the clients of a server reach, and what not.

use super::super::Scenario;
use super::super::resilience::home::{SERVER6, WEB6, seen_by, wait_for_state};
use super::{SECRET, SOON, device, world};
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::world::{SERVER, WEB, World};
use crate::lab::{Lab, Namespace, Process, Result, wait_for};
use crate::{ensure, project};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "server-networking",
        "two strongSwan clients online over IPv4 and IPv6, apart from each other, clamped, and kept from \
         private networks and file sharing towards the provider, unless the configuration says otherwise",
        networking,
    )]
}

/// Private addresses at the provider's, in no network of the server.
const NEIGHBOURS: [&str; 2] = ["10.66.0.1", "fd66::1"];
/// Far from what strongSwan's own interface would lead to (1400).
const MTU: u32 = 1300;

fn setup(lines: &str) -> Setup {
    Setup::new(format!(
        "[server]
identity = \"vpn.lab\"
psk = \"psk\"
pools = [\"10.99.0.0/24\", \"fd99::/112\"]
dns = [\"10.99.0.1\"]
domains = [\"corp.example\", \"lab.example\"]
mtu = {MTU}
{lines}"
    ))
    .file("psk", format!("{SECRET}\n"))
}

fn networking(lab: &mut Lab) -> Result<String> {
    let world = world(lab)?;
    let _file_server = furnish(&world)?;
    let server = Cygnet::start(lab, &world.server, &setup(""))?;
    let (laptop, phone) = (&world.laptop, &world.phone);
    let (swan, _) = device(lab, laptop, "192.168.1.20")?;
    let (_second, addresses) = device(lab, phone, "192.168.1.21")?;
    ensure!(addresses.len() == 2, "the phone was lent {addresses:?}");

    for (host, seen_as) in [(WEB, SERVER), (WEB6, SERVER6)] {
        wait_for("the laptop is seen as the server", SOON, || {
            Ok((seen_by(laptop, host)? == seen_as).then_some(()))
        })?;
    }
    clamped(&world)?;
    told_what_they_ask_for(lab, &world, &swan.log())?;

    let others: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let check = |what: &str, open: [bool; 3]| -> Result<()> {
        let seen = [
            reached(laptop, &others)?,
            reached(laptop, &NEIGHBOURS)?,
            shares_files(laptop)?,
        ];
        let expected = open.map(|open| [open; 2]);
        ensure!(
            seen == expected,
            "{what}: the other client, the provider's private networks, file sharing (IPv4, IPv6): {seen:?}, \
             expected {expected:?}"
        );
        Ok(())
    };
    check("by default", [false, false, false])?;
    for (lines, open) in [
        ("client_to_client = true\n", [true, false, false]),
        ("block_private = false\n", [false, true, true]),
        // Named, and so are those behind it; the rest of the internet is not.
        (
            "networks = [\"0.0.0.0/0\", \"::/0\", \"10.66.0.0/24\", \"fd66::/64\"]\n",
            [false, true, false],
        ),
    ] {
        server.write(&setup(lines))?;
        server.reload()?;
        if lines.starts_with("networks") {
            wait_for("the SA of before ends", SOON, || {
                Ok(swan.sas()?.is_empty().then_some(()))
            })?;
            swan.initiate(super::NET)?;
        }
        check(lines.trim(), open)?;
    }
    Ok(
        "online as the server over IPv4 and IPv6; each wall stands by default and opens by its key"
            .to_owned(),
    )
}

/// Hosts at the provider's, and somebody on the internet who shares files.
fn furnish(world: &World) -> Result<Process> {
    let provider = &world.server_router;
    for (address, length) in NEIGHBOURS.into_iter().zip([32, 128]) {
        provider.ip(&format!("addr add {address}/{length} dev lo"))?;
    }
    let command = project::own_command(&["webhost", "--listen", "[::]:445"]);
    let process = world.web.spawn_exec(command)?;
    wait_for("somebody shares files", SOON, || {
        Ok(world.web.listens_tcp(445)?.then_some(()))
    })?;
    for url in [
        format!("http://{WEB}:445/"),
        format!("http://[{WEB6}]:445/"),
    ] {
        world
            .server
            .exec(["curl", "-sSg", "--fail", "--max-time", "5", &url])?;
    }
    Ok(process)
}

/// Whether each of these is there for `from`.
fn reached(from: &Namespace, addresses: &[&str]) -> Result<Vec<bool>> {
    let ping = |address: &&str| {
        let ping = [
            "ping", "-n", "-q", "-c", "2", "-i", "0.3", "-W", "1", address,
        ];
        Ok(from.finish(ping)?.success())
    };
    addresses.iter().map(ping).collect()
}

/// Whether `from` gets at the shared files over each family.
fn shares_files(from: &Namespace) -> Result<Vec<bool>> {
    let fetch = |host: String| {
        let url = format!("http://{host}:445/");
        let command = ["curl", "-s", "-g", "--fail", "--max-time", "1", &url];
        Ok(from.finish(command)?.success())
    };
    [WEB.to_owned(), format!("[{WEB6}]")]
        .into_iter()
        .map(fetch)
        .collect()
}

/// Both ends of a TCP connection hear of segments that fit into the tunnel, over each family.
fn clamped(world: &World) -> Result<()> {
    let (v4, v6) = (MTU - 40, MTU - 60);
    let watch = |host: &Namespace, chain: &str, flags: &str| {
        host.nft(&format!(
            "table inet clamp {{\nchain input {{\ntype filter hook input priority 0;\n{chain}\
             meta nfproto ipv4 tcp flags & (syn | ack) == {flags} tcp option maxseg size {v4} counter\n\
             meta nfproto ipv6 tcp flags & (syn | ack) == {flags} tcp option maxseg size {v6} counter\n\
             tcp flags & (syn | ack) == {flags} tcp option maxseg size > {v4} counter comment \"too large\"\n}}\n}}\n"
        ))
    };
    watch(&world.web, "tcp dport != 80 accept\n", "syn")?;
    watch(&world.laptop, "tcp sport != 80 accept\n", "(syn | ack)")?;
    for host in [WEB, WEB6] {
        let seen = seen_by(&world.laptop, host)?;
        ensure!([SERVER, SERVER6].contains(&seen.as_str()), "{host}: {seen}");
    }
    for host in [&world.web, &world.laptop] {
        let listed = host.exec(["nft", "list", "table", "inet", "clamp"])?;
        let counts: Vec<bool> = (listed.lines())
            .filter(|line| line.contains("counter"))
            .map(|line| !line.contains("packets 0 "))
            .collect();
        ensure!(
            counts == [true, true, false],
            "{}: segments of {v4} and {v6}, and of more: {listed}",
            host.name()
        );
        host.exec(["nft", "delete", "table", "inet", "clamp"])?;
    }
    Ok(())
}

/// Cygnet asks which names are asked inside, and is told; strongSwan does not ask, and is not.
fn told_what_they_ask_for(lab: &Lab, world: &World, swan: &str) -> Result<()> {
    let client = Setup::new(format!(
        "[tunnel.home]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"box.lab\"
psk = \"psk\"
virtual_address = true
remote_networks = [\"10.99.0.0/24\"]
"
    ))
    .file("psk", format!("{SECRET}\n"));
    let client = Cygnet::start(lab, &world.gateway, &client)?;
    wait_for_state(&client, "home", "up")?;
    let told = client.command(&["status"])?;
    ensure!(
        told.contains("dns     10.99.0.1 for corp.example, lab.example"),
        "`cygnet status` says {told}"
    );
    let reply = swan.lines().find_map(|line| {
        let (_, attributes) = line.split_once("CPRP(")?;
        attributes.split(')').next()
    });
    ensure!(
        reply == Some("ADDR ADDR6 DNS"),
        "strongSwan was told {reply:?}"
    );
    Ok(())
}
