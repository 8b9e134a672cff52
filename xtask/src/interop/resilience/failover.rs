//! A list of servers: Cygnet is the first, strongSwan with addresses of its own the second.

use super::super::Scenario;
use super::home::{Home, QUICK, SOON, TUNNEL, reaches_web, seen_by, server_setup, wait_for_state};
use super::restless::Restless;
use crate::lab::cygnet::Setup;
use crate::lab::process::last_lines;
use crate::lab::strongswan::{self, Auth, Child, Config, Connection, StrongSwan};
use crate::lab::world::{SERVER, WEB};
use crate::lab::{End, Lab, Namespace, Result, nat, wait_for, wire};
use crate::{bail, ensure};
use std::time::Duration;

/// The second server.
const SPARE: &str = "192.0.2.34";
/// Its key, and that of the first.
const KEY: &str = "correct horse battery staple";
/// The first is asked after half a minute at the earliest, and after some minutes if it was asked in vain before.
const RETURN: Duration = Duration::from_secs(240);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "failover-first-is-dead",
            "the first server is dead at the start: the second serves, and the tunnel goes back without a gap",
            first_is_dead,
        ),
        Scenario::new(
            "failover-first-dies",
            "the first server dies while the tunnel is up: the second takes over, nothing leaves in clear",
            first_dies,
        ),
        Scenario::new(
            "failover-refused",
            "the first server refuses the log-in: the second serves; where both refuse, both are told",
            refused,
        ),
    ]
}

/// The gateway, with both servers.
fn setup() -> Setup {
    Setup::new(format!(
        "[tunnel.{TUNNEL}]
remote = [
  {{ address = \"{SERVER}\", identity = \"vpn.lab\" }},
  {{ address = \"{SPARE}\", identity = \"spare.lab\" }},
]
identity = \"box.lab\"
psk = \"psk\"
virtual_address = true
{QUICK}
[gateway]
tunnel = \"{TUNNEL}\"
lan = \"eth0\"
"
    ))
    .file("psk", format!("{KEY}\n"))
}

/// The second server, running, with this key.
fn spare(lab: &Lab, home: &mut Home, key: &str) -> Result<StrongSwan> {
    let host = lab.router("spare")?;
    let internet = &home.world.internet;
    wire(
        &End::new(internet, "spare", &["192.0.2.33/30"]),
        &End::new(&host, "eth0", &["192.0.2.34/30"]),
    )?;
    host.default_route("192.0.2.33")?;
    nat::masquerade(&host, "eth0")?;
    home.world.provider.add_ends(&[], &[SPARE])?;
    let connection = Connection::new("clients", SPARE, "%any")
        .local(Auth::shared_key("spare.lab"))
        .remote(Auth::shared_key("box.lab"))
        .pool("pool")
        .child(Child::new("net", &["0.0.0.0/0"], &[]));
    let setup = strongswan::Setup {
        config: Config::of(connection)
            .pool("pool", "10.77.0.0/24")
            .secret(&["spare.lab", "box.lab"], key),
        ..strongswan::Setup::default()
    };
    StrongSwan::start(lab, &host, &setup)
}

/// Waits until the web host sees `device` as this server.
fn online_by(home: &Home, device: &Namespace, server: &str, patience: Duration) -> Result<()> {
    let mut last = String::new();
    wait_for(&format!("online by {server}"), patience, || {
        last = seen_by(device, WEB)?;
        Ok(last.ends_with(server).then_some(()))
    })
    .map_err(|failure| {
        let said = last_lines(&home.gateway.log(), 20);
        failure.while_doing(format!("the web host sees {last}; last words:\n{said}\n"))
    })
}

/// Waits until the history ends with this.
fn told(home: &Home, what: &str, text: &str) -> Result<()> {
    let mut last = Vec::new();
    wait_for(&format!("it is told: {what}: {text}"), SOON, || {
        last = home.gateway.status()?.history_of(TUNNEL);
        let is = last
            .last()
            .is_some_and(|change| change.what == what && change.text.contains(text));
        Ok(is.then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("{last:?}\n")))
}

fn first_is_dead(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &setup())?;
    let _spare = spare(lab, &mut home, KEY)?;
    home.server.stop()?;
    home.gateway.restart()?;
    let laptop = home.world.laptop.clone();
    online_by(&home, &laptop, SPARE, SOON)?;
    told(&home, "up", &format!("second server ({SPARE})"))?;
    home.world.provider.reset()?;
    home.server.restart()?;
    let sent = laptop.spawn(["ping", "-n", "-q", "-i", "0.1", WEB])?;
    online_by(&home, &laptop, SERVER, RETURN)?;
    drop(sent);
    told(&home, "moved", &format!("first server ({SERVER})"))?;
    let changes = home.gateway.status()?.history_of(TUNNEL);
    ensure!(
        changes.iter().all(|change| change.what != "down"),
        "it was down on its way back: {changes:?}"
    );
    home.online(&laptop)?;
    home.nothing_leaked("on the way back")?;
    Ok("by the second server, and back by the first without being down".to_owned())
}

fn first_dies(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &setup())?;
    let _spare = spare(lab, &mut home, KEY)?;
    home.gateway.restart()?;
    let laptop = home.world.laptop.clone();
    home.online(&laptop)?;
    told(&home, "up", &format!("first server ({SERVER})"))?;
    let busy = Restless::start(&laptop)?;
    busy.flows()?;
    home.world.provider.reset()?;
    home.server.kill_supervisor()?;
    online_by(&home, &laptop, SPARE, SOON)?;
    busy.tries_on()?;
    told(&home, "up", &format!("second server ({SPARE})"))?;
    home.nothing_leaked("from one server to the other")?;
    as_a_person_reads_it(&home)
}

/// `cygnet status --history` tells why it was down and what came then, each with its time.
fn as_a_person_reads_it(home: &Home) -> Result<String> {
    let text = home.gateway.command(&["status", "--history"])?;
    let why = format!("no answer from {SERVER} for ");
    let then = format!("second server ({SPARE})");
    let down = told_when(&text, "down ", &why);
    let up = told_when(&text, "up again ", &then);
    let (Some(down), Some(up)) = (down, up) else {
        bail!("`cygnet status --history` says\n{text}");
    };
    let (_, silent) = down.split_once(&why).unwrap_or_default();
    let seconds = silent.strip_suffix(" s");
    ensure!(
        seconds.is_some_and(|number| number.parse::<u32>().is_ok()),
        "for how long? {down}"
    );
    Ok(format!("{down}; {up}"))
}

/// The line of the history that begins with this and a time, and tells that.
fn told_when(text: &str, what: &str, words: &str) -> Option<String> {
    let is_time = |word: &str| {
        let parts: Vec<&str> = word.split(':').collect();
        let two = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        parts.len() == 3 && parts.iter().all(two)
    };
    let mut lines = text.lines().filter_map(|line| {
        let (when, told) = line.trim().strip_prefix(what)?.split_once(": ")?;
        let when = when.split(' ').any(is_time);
        (when && told.contains(words)).then(|| line.trim().to_owned())
    });
    lines.next()
}

fn refused(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &setup())?;
    let stranger = server_setup().file("psk", "another key\n");
    home.server.write(&stranger)?;
    home.server.restart()?;
    let mut spare = spare(lab, &mut home, KEY)?;
    home.gateway.restart()?;
    let laptop = home.world.laptop.clone();
    online_by(&home, &laptop, SPARE, SOON)?;
    home.gateway.wait_for_log(&format!("{SERVER}: "), SOON)?;
    home.world.provider.reset()?;
    spare.stop();
    wait_for_state(&home.gateway, TUNNEL, "waiting")?;
    let mut reason = None;
    wait_for("both servers' reasons are told", SOON, || {
        reason = home.gateway.connection(TUNNEL)?.reason;
        let both = |reason: &String| {
            [SERVER, SPARE]
                .iter()
                .all(|server| reason.contains(&format!("{server}: ")))
        };
        Ok(reason.as_ref().filter(|reason| both(reason)).map(|_| ()))
    })
    .map_err(|failure| failure.while_doing(format!("{reason:?}\n")))?;
    ensure!(
        !reaches_web(&laptop)?,
        "the laptop is online without a tunnel"
    );
    home.nothing_leaked("while neither serves")?;
    Ok(reason.unwrap_or_default())
}
