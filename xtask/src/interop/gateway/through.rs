//! Devices and destinations that were given another tunnel than the gateway's: in that one or nowhere.

use super::super::Scenario;
use super::super::resilience::home::{
    GATEWAY6, Home, QUICK, SERVER6, SOON, WEB6, check, gateway_setup, guard, reaches_web, seen_by,
};
use super::super::resilience::restless::Restless;
use super::changes::ordered;
use super::{another_device, blocked, direct, told};
use crate::ensure;
use crate::lab::cygnet::Setup;
use crate::lab::link::counter;
use crate::lab::process::last_lines;
use crate::lab::strongswan::{self, Auth, Child, Config, Connection, StrongSwan};
use crate::lab::world::{HOME_PUBLIC, SERVER, WEB};
use crate::lab::{End, Failure, Lab, Namespace, Result, nat, wait_for, wire};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// The other server, a strongSwan that lends IPv4 alone.
pub(super) const OTHER: &str = "192.0.2.34";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gateway-through-device",
            "two devices through two tunnels at once, Cygnet's and strongSwan's; each down, flushed, crashed: in its own or nowhere",
            devices,
        ),
        Scenario::new(
            "gateway-through-network",
            "a destination that was given a tunnel is reached by it or not at all, by tunnelled and by direct devices",
            network,
        ),
        Scenario::new(
            "gateway-through-change",
            "`cygnet device set … --through` is true of running connections within a second, is kept, and is forgotten",
            change,
        ),
        Scenario::new(
            "gateway-tunnel-changed",
            "a reload, or a restart, by which the gateway has another tunnel: running connections go on by that one, and are answered",
            changed,
        ),
    ]
}

/// The gateway, with a second tunnel to `remote`, which proves to be `identity`.
fn setup(remote: &str, identity: &str, section: &str) -> Setup {
    let work = format!(
        "[tunnel.work]\nremote = \"{remote}\"\nremote_identity = \"{identity}\"\nidentity = \"work.lab\"\n\
         psk = \"psk\"\nvirtual_address = true\n{QUICK}"
    );
    gateway_setup(QUICK, &format!("{section}{work}"))
}

/// Where the other server is.
pub(super) fn elsewhere(lab: &Lab, home: &mut Home) -> Result<Namespace> {
    let host = lab.router("other")?;
    let internet = &home.world.internet;
    wire(
        &End::new(internet, "other", &["192.0.2.33/30"]),
        &End::new(&host, "eth0", &["192.0.2.34/30"]),
    )?;
    host.default_route("192.0.2.33")?;
    nat::masquerade(&host, "eth0")?;
    home.world.provider.add_ends(&[], &[OTHER])?;
    Ok(host)
}

/// The other server, running.
fn other(lab: &Lab, home: &mut Home) -> Result<StrongSwan> {
    let host = elsewhere(lab, home)?;
    let connection = Connection::new("clients", OTHER, "%any")
        .local(Auth::shared_key("other.lab"))
        .remote(Auth::shared_key("work.lab"))
        .pool("pool")
        .child(Child::new("net", &["0.0.0.0/0"], &[]));
    let setup = strongswan::Setup {
        config: Config::of(connection)
            .pool("pool", "10.77.0.0/24")
            .secret(&["other.lab", "work.lab"], "correct horse battery staple"),
        ..strongswan::Setup::default()
    };
    StrongSwan::start(lab, &host, &setup)
}

/// Waits until the web host sees `device` as this one over IPv4.
fn online_as(home: &Home, device: &Namespace, seen_as: &str) -> Result<()> {
    let mut last = String::new();
    let what = format!("{} is seen as {seen_as}", device.name());
    wait_for(&what, SOON, || {
        last = seen_by(device, WEB)?;
        Ok(last.ends_with(seen_as).then_some(()))
    })
    .map_err(|failure| {
        let said = last_lines(&home.gateway.log(), 20);
        failure.while_doing(format!("the web host sees {last}; last words:\n{said}\n"))
    })
}

/// Fails if the web host sees `device` at an address.
fn unseen(device: &Namespace, address: &str, when: &str) -> Result<()> {
    let seen = seen_by(device, address)?;
    let some = [SERVER, OTHER, HOME_PUBLIC, SERVER6, GATEWAY6];
    ensure!(
        !some.iter().any(|end| seen.ends_with(end)),
        "{when}: {} is seen as {seen}",
        device.name()
    );
    Ok(())
}

/// Holds the supervisor, so that it mends nothing, while that is done.
fn while_held(home: &Home, done: impl FnOnce() -> Result<()>) -> Result<()> {
    let pid = home.gateway.pid();
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pid = pid.ok_or_else(|| Failure::new("cygnet does not run"))?;
    kill_process(pid, Signal::STOP)?;
    wait_for("every thread stands still", SOON, || {
        Ok(stands_still(pid)?.then_some(()))
    })?;
    let result = done();
    kill_process(pid, Signal::CONT)?;
    result?;
    // Both layers: what is tried next takes another one away.
    wait_for("the guard is whole again", SOON, || {
        Ok((home.gateway.whole_status()?["guard"] == "on").then_some(()))
    })
}

/// Whether each of its threads is stopped: one that was about to do something may do it after the signal was sent.
fn stands_still(pid: Pid) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if !state.starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes the rules by which the LAN is routed: the guard's, and the plan's own.
const WITHOUT_RULES: &str = "for f in -4 -6; do for p in 100 101 102 103 170 171 172 173; do \
    while ip $f rule del pref $p 2>/dev/null; do :; done; done; done";

fn devices(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let _other = other(lab, &mut home)?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let of_laptop = laptop.mac()?;
    let section = format!(
        "direct = \"{}\"\n[gateway.devices]\nnotebook = \"{of_laptop}\"\n[gateway.through.work]\ndevices = \"notebook\"\n",
        tv.mac()?
    );
    home.gateway.write(&setup(OTHER, "other.lab", &section))?;
    // By the guard alone, before anything is up.
    guard(&home.gateway, "on")?;
    unseen(&laptop, WEB, "before cygnet runs")?;
    home.gateway.restart()?;
    home.online(&phone)?;
    online_as(&home, &laptop, OTHER)?;
    direct(&tv)?;
    unseen(&laptop, WEB6, "its server lends no IPv6")?;
    let listed = told(&home, &of_laptop)?;
    ensure!(
        listed.policy == "tunnelled" && listed.through.as_deref() == Some("work"),
        "{listed:?}"
    );

    home.world.provider.reset()?;
    let busy = Restless::start(&laptop)?;
    busy.tries_on()?;
    home.gateway.down("work")?;
    busy.tries_on()?;
    ensure!(!reaches_web(&laptop)?, "online while its tunnel is down");
    home.online(&phone)?;
    home.gateway.up("work")?;
    online_as(&home, &laptop, OTHER)?;
    home.gateway.down("home")?;
    busy.tries_on()?;
    ensure!(!reaches_web(&phone)?, "online while the gateway's is down");
    online_as(&home, &laptop, OTHER)?;
    home.gateway.up("home")?;
    home.online(&phone)?;
    home.nothing_leaked("while one tunnel or the other was down")?;

    let box_ = home.world.gateway.clone();
    while_held(&home, || {
        box_.shell("nft flush ruleset")?;
        for device in [&laptop, &phone] {
            ensure!(
                !reaches_web(device)?,
                "{} is online without marks",
                device.name()
            );
        }
        busy.tries_on()?;
        home.nothing_leaked("after `nft flush ruleset`")
    })?;
    online_as(&home, &laptop, OTHER)?;
    home.online(&phone)?;
    while_held(&home, || {
        box_.shell(WITHOUT_RULES)?;
        for device in [&laptop, &phone] {
            ensure!(
                !reaches_web(device)?,
                "{} is online without rules",
                device.name()
            );
        }
        busy.tries_on()?;
        home.nothing_leaked("after all rules were deleted")
    })?;
    online_as(&home, &laptop, OTHER)?;
    home.online(&phone)?;
    home.gateway.kill_supervisor()?;
    busy.tries_on()?;
    ensure!(!reaches_web(&laptop)?, "online after SIGKILL");
    guard(&home.gateway, "on")?;
    busy.tries_on()?;
    home.nothing_leaked("after SIGKILL, and by the guard alone")?;
    home.gateway.restart()?;
    online_as(&home, &laptop, OTHER)?;
    home.gateway.kill_engine()?;
    online_as(&home, &laptop, OTHER)?;
    home.online(&phone)?;
    home.nothing_leaked("after a crash of the engine")?;
    Ok(format!(
        "{} datagrams of the device that has a tunnel of its own, none in clear",
        busy.datagrams()
    ))
}

fn network(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let _other = other(lab, &mut home)?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let policies = format!(
        "direct = \"{}\"\nblocked = \"{}\"\n",
        tv.mac()?,
        laptop.mac()?
    );
    let section = format!("{policies}[gateway.through.work]\nnetworks = [\"198.51.100.0/24\"]\n");
    home.gateway.write(&setup(OTHER, "other.lab", &section))?;
    home.gateway.restart()?;
    let as_given = |home: &Home, online: bool, when: &str| -> Result<()> {
        let as_given = || {
            for device in [&phone, &tv] {
                match online {
                    true => online_as(home, device, OTHER)?,
                    false => unseen(device, WEB, "while its tunnel is down")?,
                }
            }
            blocked(&laptop)
        };
        as_given().map_err(|failure| failure.while_doing(when))
    };
    as_given(&home, true, "at first")?;
    // What is not in it goes as before.
    ensure!(seen_by(&phone, WEB6)? == SERVER6, "the phone's IPv6");
    ensure!(seen_by(&tv, WEB6)? == GATEWAY6, "the direct device's IPv6");
    let box_ = home.world.gateway.clone();
    online_as(&home, &box_, OTHER)?;
    ensure!(seen_by(&box_, WEB6)? == SERVER6, "the box's own IPv6");
    home.gateway.down("work")?;
    home.world.provider.reset()?;
    as_given(&home, false, "with its tunnel down")?;
    unseen(&box_, WEB, "while its tunnel is down")?;
    ensure!(seen_by(&phone, WEB6)? == SERVER6, "the phone's IPv6, then");
    home.nothing_leaked("while the destination's tunnel is down")?;
    home.gateway.up("work")?;
    as_given(&home, true, "up again")?;
    home.world.provider.reset()?;
    while_held(&home, || {
        box_.shell("nft flush ruleset")?;
        as_given(&home, false, "flushed")?;
        home.nothing_leaked("after `nft flush ruleset`")
    })?;
    as_given(&home, true, "after the flush")?;
    while_held(&home, || {
        box_.shell(WITHOUT_RULES)?;
        as_given(&home, false, "without rules")?;
        home.nothing_leaked("after all rules were deleted")
    })?;
    as_given(&home, true, "after the rules were deleted")?;
    let closed = |home: &Home, when: &str| -> Result<()> {
        for device in [&phone, &tv] {
            unseen(device, WEB, when)?;
        }
        home.nothing_leaked(when)
    };
    home.gateway.kill_supervisor()?;
    closed(&home, "after SIGKILL")?;
    home.gateway.restart()?;
    as_given(&home, true, "after the next start")?;
    home.gateway.stop()?;
    home.world.provider.reset()?;
    closed(&home, "after a stop")?;
    guard(&home.gateway, "off")?;
    guard(&home.gateway, "on")?;
    closed(&home, "by the guard alone")?;
    ensure!(
        seen_by(&tv, WEB6)? == GATEWAY6,
        "by the guard alone the direct device's IPv6"
    );
    // Nothing but the guard was in the way.
    guard(&home.gateway, "off")?;
    let seen = seen_by(&tv, WEB)?;
    ensure!(seen.ends_with(HOME_PUBLIC), "without it: {seen}");
    Ok("up, down, flushed, crashed and by the guard alone".to_owned())
}

/// Counts what of the laptop enters each tunnel.
fn count(box_: &Namespace) -> Result<()> {
    let rules: String = ["home", "work"]
        .map(|tunnel| {
            format!(
                "iifname \"eth0\" oifname \"cyg-{tunnel}\" ip saddr 192.168.1.20 counter name {tunnel}\n\
                 iifname \"eth0\" oifname \"cyg-{tunnel}\" ip6 saddr fd00:192:168:1::20 counter name {tunnel}\n"
            )
        })
        .concat();
    box_.nft(&format!(
        "table inet entered {{\ncounter home {{ }}\ncounter work {{ }}\nchain forward {{\n\
         type filter hook forward priority 50;\n{rules}}}\n}}\n"
    ))
}

/// While the device goes on, it enters this tunnel and not the other.
fn enters(home: &Home, busy: &Restless, one: &str, not: &str) -> Result<()> {
    let entered = |tunnel: &str| -> Result<u64> {
        let list = ["nft", "-j", "list", "counters", "table", "inet", "entered"];
        counter(&home.world.gateway.exec(list)?, tunnel)
    };
    let before = (entered(one)?, entered(not)?);
    busy.flows()?;
    busy.tries_on()?;
    let after = (entered(one)?, entered(not)?);
    ensure!(
        after.0 > before.0 + 100 && after.1 == before.1,
        "{one}: {} to {}, {not}: {} to {}",
        before.0,
        after.0,
        before.1,
        after.1
    );
    Ok(())
}

fn change(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let laptop = home.world.laptop.clone();
    let of_laptop = laptop.mac()?;
    // A second tunnel to the same server, which lends both families.
    let with = setup(SERVER, "vpn.lab", "[gateway.through.work]\n");
    home.gateway.write(&with)?;
    home.gateway.restart()?;
    home.online(&laptop)?;
    count(&home.world.gateway)?;
    home.world.provider.reset()?;
    let busy = Restless::start(&laptop)?;
    enters(&home, &busy, "home", "work")?;
    let set = |more: &[&'static str]| [&["device", "set", of_laptop.as_str()], more].concat();
    let said = ordered(&home, &set(&["tunnelled", "--through", "work"]))?;
    ensure!(
        said.contains("is tunnelled through work") && said.contains("ended"),
        "{said}"
    );
    enters(&home, &busy, "work", "home")?;
    let listed = told(&home, &of_laptop)?;
    ensure!(
        listed.through.as_deref() == Some("work") && listed.from == "command",
        "{listed:?}"
    );
    let state = home.state()?;
    for (order, told) in [
        (
            set(&["tunnelled", "--through", "wrok"]),
            "there is no tunnel `wrok`; devices may be given: work",
        ),
        (
            set(&["tunnelled", "--through", "home"]),
            "is the gateway's tunnel",
        ),
        (
            set(&["direct", "--through", "work"]),
            "goes through no tunnel",
        ),
    ] {
        let finished = home.gateway.control(&order)?;
        ensure!(
            finished.status.code() == Some(2) && finished.stderr.contains(told),
            "{order:?}: {:?}, {}",
            finished.status.code(),
            finished.stderr
        );
    }
    state.expect_same(&home.state()?, "after orders that were refused")?;
    home.gateway.restart()?;
    enters(&home, &busy, "work", "home")?;
    ordered(&home, &["device", "forget", &of_laptop])?;
    enters(&home, &busy, "home", "work")?;

    // By the configuration; and one that gives the tunnel to nobody, while a command still does.
    let section = format!("[gateway.through.work]\ndevices = \"{of_laptop}\"\n");
    home.gateway.write(&setup(SERVER, "vpn.lab", &section))?;
    home.gateway.reload()?;
    enters(&home, &busy, "work", "home")?;
    ordered(&home, &set(&["tunnelled", "--through", "work"]))?;
    home.gateway.write(&setup(SERVER, "vpn.lab", ""))?;
    home.gateway.reload()?;
    home.gateway.wait_for_warning("goes nowhere until", SOON)?;
    busy.tries_on()?;
    ensure!(
        !reaches_web(&laptop)?,
        "online by a tunnel that nobody is given"
    );
    home.gateway.write(&with)?;
    home.gateway.reload()?;
    enters(&home, &busy, "work", "home")?;
    home.nothing_leaked("of a device that was given one tunnel and another")?;
    let good = check(&home.gateway)?;
    ensure!(good.stdout.contains("some of it through work"), "{good:?}");
    Ok(format!(
        "{} datagrams, each in the tunnel of the moment",
        busy.datagrams()
    ))
}

/// Counts what comes back to the device's ping, which never stops and so is one connection, out of each tunnel.
const ANSWERS: &str = "table inet answered {
counter home4 { }
counter home6 { }
counter work4 { }
counter work6 { }
chain forward {
type filter hook forward priority 50;
iifname \"cyg-home\" ip daddr 192.168.1.20 icmp type echo-reply counter name home4
iifname \"cyg-home\" ip6 daddr fd00:192:168:1::20 icmpv6 type echo-reply counter name home6
iifname \"cyg-work\" ip daddr 192.168.1.20 icmp type echo-reply counter name work4
iifname \"cyg-work\" ip6 daddr fd00:192:168:1::20 icmpv6 type echo-reply counter name work6
}
}
";

/// Waits until both pings are answered by this tunnel.
fn answered(home: &Home, tunnel: &str) -> Result<()> {
    let counted = || -> Result<[u64; 2]> {
        let list = ["nft", "-j", "list", "counters", "table", "inet", "answered"];
        let listed = home.world.gateway.exec(list)?;
        let of = |family| counter(&listed, &format!("{tunnel}{family}"));
        Ok([of(4)?, of(6)?])
    };
    let before = counted()?;
    let mut now = before;
    wait_for(&format!("pings are answered by {tunnel}"), SOON, || {
        now = counted()?;
        let more = now
            .iter()
            .zip(&before)
            .all(|(now, before)| *now > before + 10);
        Ok(more.then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("answers over IPv4 and IPv6: {now:?}\n")))
}

fn changed(lab: &mut Lab) -> Result<String> {
    let by = |tunnel: &str| {
        let other = if tunnel == "home" { "work" } else { "home" };
        let section = format!("own_traffic = \"needed\"\n[gateway.through.{other}]\n");
        let mut setup = setup(SERVER, "vpn.lab", &section);
        let chosen = format!("tunnel = \"{tunnel}\"\n");
        setup.config = setup.config.replace("tunnel = \"home\"\n", &chosen);
        setup
    };
    let mut home = Home::prepare(lab, &by("home"))?;
    home.gateway.restart()?;
    let laptop = home.world.laptop.clone();
    home.online(&laptop)?;
    home.world.gateway.nft(ANSWERS)?;
    home.world.provider.reset()?;
    let busy = Restless::start(&laptop)?;
    // The box's own is one connection, too.
    let own = home.world.gateway.spawn(["ping", "-n", "-i", "0.1", WEB])?;
    answered(&home, "home")?;
    let own_answered = |when: &str| -> Result<()> {
        let lines = || {
            own.log()
                .lines()
                .filter(|line| line.contains("icmp_seq"))
                .count()
        };
        let before = lines();
        wait_for(
            &format!("the box's own ping is answered {when}"),
            SOON,
            || Ok((lines() > before + 3).then_some(())),
        )
    };
    own_answered("at first")?;
    for tunnel in ["work", "home"] {
        home.gateway.write(&by(tunnel))?;
        home.gateway.reload()?;
        answered(&home, tunnel)?;
        own_answered("after a reload")?;
        busy.flows()?;
    }
    home.gateway.write(&by("work"))?;
    home.gateway.restart()?;
    answered(&home, "work")?;
    own_answered("after a restart")?;
    busy.flows()?;
    home.nothing_leaked("while the gateway's tunnel was another")?;
    Ok(format!(
        "{} datagrams of a device that never stopped",
        busy.datagrams()
    ))
}
