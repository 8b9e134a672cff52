//! A change takes effect on running connections within a second.

use super::super::Scenario;
use super::super::resilience::home::{Home, QUICK, SOON, WEB6, gateway_setup};
use super::super::resilience::restless::Restless;
use super::super::resilience::talker::Talker;
use super::{direct, told};
use crate::ensure;
use crate::lab::link::counter;
use crate::lab::world::WEB;
use crate::lab::{Failure, Lab, Namespace, Result, interrupt, wait_for};
use std::time::{Duration, Instant};

/// What is asked of a change, from before the command that orders it.
pub(super) const AT_ONCE: Duration = Duration::from_secs(1);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gateway-change",
            "`cygnet device set` is true of running connections within a second: direct, tunnelled, blocked and back",
            change,
        ),
        Scenario::new(
            "gateway-change-by-reload",
            "another policy in the configuration is true of running connections when `cygnet reload` is done",
            by_reload,
        ),
        Scenario::new(
            "gateway-change-destination",
            "`direct_networks` added and taken out by `cygnet reload` are true of running connections within a second",
            destination,
        ),
        Scenario::new(
            "gateway-change-refused",
            "who is not known, and what is no policy, is refused and changes nothing",
            refused,
        ),
    ]
}

/// Gives the order, and returns when it is to be true: a second after it was given, or when it has been carried out, where
/// a busy machine takes longer for that alone.
pub(super) fn ordered(home: &Home, order: &[&str]) -> Result<String> {
    let begun = Instant::now();
    let said = home.gateway.command(order)?;
    interrupt::pause(AT_ONCE.saturating_sub(begun.elapsed()))?;
    Ok(said)
}

/// Counts what a host of the internet goes on sending to `device`.
fn count_answers(device: &Namespace) -> Result<()> {
    device.nft(
        "table inet answers {\ncounter got { }\nchain in {\ntype filter hook input priority 0;\n\
         ip saddr 198.51.100.80 udp sport 7 counter name got\n\
         ip6 saddr 2001:db8:80::80 udp sport 7 counter name got\n}\n}\n",
    )
}

fn answers(device: &Namespace) -> Result<u64> {
    let list = ["nft", "-j", "list", "counters", "table", "inet", "answers"];
    counter(&device.exec(list)?, "got")
}

/// Nothing of a flow from outside reaches the device any more.
fn silent(device: &Namespace, when: &str) -> Result<()> {
    let before = answers(device)?;
    interrupt::pause(Duration::from_millis(500))?;
    let after = answers(device)?;
    ensure!(before == after, "{when}: {} more came", after - before);
    Ok(())
}

fn change(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let phone = home.world.phone.clone();
    home.online(&phone)?;
    let of_phone = phone.mac()?;
    count_answers(&phone)?;
    // One that was asked once, and one that asks all the time from the same ports.
    let first = Talker::start(&home.world.web, &phone, WEB)?;
    let busy = Restless::start(&phone)?;
    busy.flows()?;
    wait_for("the talker is heard", SOON, || {
        Ok((answers(&phone)? > 10).then_some(()))
    })?;

    let said = ordered(&home, &["device", "set", "192.168.1.21", "direct"])?;
    ensure!(
        said.contains(&of_phone) && said.contains("is direct") && said.contains("ended"),
        "an address stands for the device: {said}"
    );
    silent(&phone, "a connection of the tunnel's after `direct`")?;
    busy.flows()?;
    direct(&phone)?;
    let listed = told(&home, &of_phone)?;
    ensure!(
        listed.policy == "direct" && listed.from == "command",
        "{listed:?}"
    );

    ordered(&home, &["device", "set", &of_phone, "tunnelled"])?;
    home.count_anew()?;
    busy.flows()?;
    busy.tries_on()?;
    home.nothing_leaked("a second after `tunnelled`, of connections that had been direct")?;
    home.online(&phone)?;

    let second = Talker::start(&home.world.web, &phone, WEB6)?;
    let before = answers(&phone)?;
    wait_for("the second talker is heard", SOON, || {
        Ok((answers(&phone)? > before + 10).then_some(()))
    })?;
    ordered(&home, &["device", "set", &of_phone, "blocked"])?;
    silent(&phone, "a connection of the tunnel's after `blocked`")?;
    let pages = busy.pages();
    busy.tries_on()?;
    ensure!(
        busy.pages() == pages,
        "{} pages a second after `blocked`",
        busy.pages() - pages
    );
    home.nothing_leaked("a second after `blocked`")?;

    let begun = Instant::now();
    home.gateway
        .command(&["device", "set", &of_phone, "direct"])?;
    wait_for("the device is online again", SOON, || {
        Ok((busy.pages() > pages).then_some(()))
    })?;
    let back = begun.elapsed();
    ordered(&home, &["device", "forget", &of_phone])?;
    home.count_anew()?;
    busy.flows()?;
    home.nothing_leaked("a second after `forget`")?;
    let listed = told(&home, &of_phone)?;
    ensure!(
        listed.policy == "tunnelled" && listed.from == "default",
        "{listed:?}"
    );
    Ok(format!(
        "{} datagrams in two flows, {} to the device; from blocked to the first page {back:.2?}",
        busy.datagrams(),
        first.sent() + second.sent()
    ))
}

fn by_reload(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let phone = home.world.phone.clone();
    let setup = |policy: &str| -> Result<_> {
        Ok(gateway_setup(
            QUICK,
            &format!("{policy} = \"{}\"\n", phone.mac()?),
        ))
    };
    home.gateway.write(&setup("direct")?)?;
    home.gateway.restart()?;
    direct(&phone)?;
    home.online(&home.world.laptop)?;
    let busy = Restless::start(&phone)?;
    busy.flows()?;
    home.gateway.write(&setup("tunnelled")?)?;
    ordered(&home, &["reload"])?;
    home.count_anew()?;
    busy.flows()?;
    busy.tries_on()?;
    home.nothing_leaked("after the reload, of connections that had been direct")?;
    // While nobody runs the configuration changes; connections of before keep to it as well.
    home.gateway.write(&setup("direct")?)?;
    home.gateway.reload()?;
    direct(&phone)?;
    home.gateway.kill_supervisor()?;
    home.gateway.write(&setup("tunnelled")?)?;
    home.gateway.restart()?;
    home.online(&home.world.laptop)?;
    home.count_anew()?;
    busy.flows()?;
    home.nothing_leaked("after a start with another policy")?;
    Ok(format!("{} datagrams in two flows", busy.datagrams()))
}

fn destination(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let laptop = home.world.laptop.clone();
    let busy = Restless::start(&laptop)?;
    busy.flows()?;
    home.nothing_leaked("before")?;
    let networks = "direct_networks = [\"198.51.100.0/24\", \"2001:db8:80::/64\"]\n";
    for round in 1..=2 {
        home.gateway.write(&gateway_setup(QUICK, networks))?;
        ordered(&home, &["reload"])?;
        let before = home.leaked()?;
        busy.tries_on()?;
        ensure!(
            home.leaked()? > before,
            "round {round}: what is under way does not go direct a second after"
        );
        direct(&laptop)?;
        home.gateway.write(&gateway_setup(QUICK, ""))?;
        ordered(&home, &["reload"])?;
        home.count_anew()?;
        busy.tries_on()?;
        home.nothing_leaked("a second after the networks were taken out")?;
        home.online(&laptop)?;
        busy.flows()?;
        home.nothing_leaked("and later")?;
    }
    Ok(format!(
        "{} datagrams in two flows, there and back twice",
        busy.datagrams()
    ))
}

fn refused(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let devices = || home.gateway.command(&["device", "list", "--json"]);
    let state = home.state()?;
    for (order, told) in [
        (vec!["device", "set", "tv", "direct"], "`tv` is no device"),
        (
            vec!["device", "set", "01:00:5e:00:00:01", "direct"],
            "of no device",
        ),
        (
            vec!["device", "set", "0.0.0.0/0", "direct"],
            "is every device",
        ),
        (
            vec!["device", "set", "8.8.8.8", "direct"],
            "in no network of the LAN (",
        ),
        (
            vec!["device", "set", "192.168.1.2", "blocked"],
            "is this machine itself",
        ),
        (
            vec!["device", "set", "192.168.1.1", "direct"],
            "is the router",
        ),
        (
            vec!["device", "set", "192.168.1.21", "open"],
            "possible values",
        ),
        (
            vec!["device", "forget", "02:00:00:00:00:99"],
            "nothing to forget",
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
    ensure!(
        !devices()?.contains("command"),
        "something was taken up: {}",
        devices()?
    );
    state.expect_same(&home.state()?, "after orders that were refused")?;
    // Without a gateway there are no devices.
    let none = home.server.control(&["device", "list"])?;
    if none.success()
        || !none
            .stderr
            .contains("no gateway, so it has no devices: `cygnet gateway setup`")
    {
        return Err(Failure::new(format!("a server lists devices: {none:?}")));
    }
    Ok("eight orders refused".to_owned())
}
