//! Domains that go direct: by the addresses that the resolver behind the tunnel gives for their names, and nothing else.
//!
//! The web host has many addresses, and says as whom it sees a device.

use super::super::Scenario;
use super::super::gateway::another_device;
use super::super::resilience::home::{
    GATEWAY6, Home, SERVER6, SOON, gateway_setup, guard, reaches_web, seen_by, wait_for_state,
};
use super::{Dnsmasq, HOST, dig, expect, start, take_down};
use crate::ensure;
use crate::lab::world::{GATEWAY, HOME_PUBLIC, ROUTER, SERVER, WEB};
use crate::lab::{Lab, Namespace, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "dns-direct-domain",
            "a listed domain goes direct from its first packet on, and by its new addresses; other names do not, aliases of its own neither",
            follows,
        ),
        Scenario::new(
            "dns-direct-domain-lasting",
            "what goes direct by its name survives a flush and a reload; what is listed no more, or was put there by others, does not",
            lasting,
        ),
        Scenario::new(
            "dns-direct-domain-whose-word",
            "no answer from outside the tunnel lets anything out, and no device that is blocked goes anywhere",
            whose_word,
        ),
    ]
}

/// The web host's further addresses: 198.51.100.N and 2001:db8:80::N.
const NUMBERS: std::ops::RangeInclusive<u8> = 81..=99;

fn v4(number: u8) -> String {
    format!("198.51.100.{number}")
}

fn v6(number: u8) -> String {
    format!("2001:db8:80::{number}")
}

/// Everything, running, with these lines in `[gateway]` and in `[gateway.dns]`.
fn home(lab: &Lab, gateway: &str, dns: &str) -> Result<Home> {
    let home = start(lab, "", &[])?;
    for number in NUMBERS {
        let web = &home.world.web;
        web.ip(&format!("addr add {}/24 dev eth0", v4(number)))?;
        web.ip(&format!("addr add {}/64 dev eth0 nodad", v6(number)))?;
    }
    configure(&home, gateway, dns)?;
    Ok(home)
}

fn configure(home: &Home, gateway: &str, dns: &str) -> Result<()> {
    let section = format!("{gateway}[gateway.dns]\n{dns}");
    home.gateway.write(&gateway_setup("", &section))?;
    home.gateway.reload()?;
    wait_for_state(&home.gateway, "home", "up")
}

const LISTED: &str = "direct_domains = [\"tv.test.example\"]\n";

/// What left the home in clear, by the home router, and to which addresses it may; what left by the server to these.
struct Watch<'a> {
    home: &'a Home,
}

impl<'a> Watch<'a> {
    fn start(home: &'a Home, direct: &[u8]) -> Result<Self> {
        let list = |one: fn(u8) -> String, more: &[&str]| {
            let direct = direct.iter().map(|number| one(*number));
            let all: Vec<String> = direct.chain(more.iter().map(|a| (*a).to_owned())).collect();
            all.join(", ")
        };
        let clear = format!(
            "table inet seen\ndelete table inet seen\ntable inet seen {{\n\
             counter found {{ }}\n\
             chain forward {{\ntype filter hook forward priority -200;\n\
             oifname \"wan\" ip daddr != {{ {} }} counter name found\n\
             oifname \"wan\" ip6 daddr != {{ {} }} counter name found\n}}\n}}\n",
            list(v4, &[SERVER]),
            list(v6, &[SERVER6]),
        );
        let tunnelled = format!(
            "table inet seen\ndelete table inet seen\ntable inet seen {{\n\
             counter found {{ }}\n\
             chain forward {{\ntype filter hook forward priority -200;\n\
             ip daddr {{ {} }} counter name found\n\
             ip6 daddr {{ {} }} counter name found\n}}\n}}\n",
            list(v4, &[]),
            list(v6, &[]),
        );
        let watch = Self { home };
        for (host, rules) in [(&home.world.router, clear), (&home.world.server, tunnelled)] {
            host.nft(&rules)?;
        }
        Ok(watch)
    }

    /// Nothing but the direct addresses was sent to in clear, and these by no tunnel.
    fn all_is_as_it_should(&self, when: &str) -> Result<()> {
        let count = |host: &Namespace| -> Result<String> {
            let listed = host.exec(["nft", "list", "counter", "inet", "seen", "found"])?;
            let packets = listed.split("packets ").nth(1).unwrap_or_default();
            Ok(packets.split(' ').next().unwrap_or_default().to_owned())
        };
        let world = &self.home.world;
        let (clear, tunnelled) = (count(&world.router)?, count(&world.server)?);
        ensure!(
            clear == "0" && tunnelled == "0",
            "{when}: {clear} packets to other addresses left in clear, {tunnelled} to direct ones through the tunnel"
        );
        Ok(())
    }
}

/// The far resolver, with these names; each asked for anew after a second.
fn resolver(home: &Home, names: &[(&str, u8)], aliases: &[(&str, &str)]) -> Result<Dnsmasq> {
    let hosts = names
        .iter()
        .map(|(name, number)| format!("host-record={name},{},{},1", v4(*number), v6(*number)));
    let aliases = aliases
        .iter()
        .map(|(alias, name)| format!("cname={alias},{name},1"));
    let records: Vec<String> = ["local=/test.example/".to_owned()]
        .into_iter()
        .chain(hosts)
        .chain(aliases)
        .collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    Dnsmasq::start(&home.world.web, &[WEB], &records)
}

/// Asks for both addresses of a name, as a program does before it connects.
fn ask(device: &Namespace, name: &str, number: u8) -> Result<()> {
    expect_last(device, name, "A", &v4(number))?;
    expect_last(device, name, "AAAA", &v6(number))
}

/// The last of the records, behind aliases.
fn expect_last(device: &Namespace, name: &str, kind: &str, address: &str) -> Result<()> {
    let mut last = String::new();
    wait_for(&format!("{name} is {address}"), SOON, || {
        let said = dig(device, GATEWAY, name, &[kind])?;
        last = format!("{said:?}");
        Ok((said.records.last().map(String::as_str) == Some(address)).then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("the last answer was {last}; ")))
}

/// At once, without a second try: the first packet goes the right way.
fn is_direct(device: &Namespace, number: u8) -> Result<()> {
    let seen = [seen_by(device, &v4(number))?, seen_by(device, &v6(number))?];
    ensure!(
        seen[0].ends_with(HOME_PUBLIC) && seen[1] == GATEWAY6,
        "{} is seen as {seen:?} at {number}, not direct",
        device.name()
    );
    Ok(())
}

fn is_tunnelled(device: &Namespace, number: u8) -> Result<()> {
    let seen = [seen_by(device, &v4(number))?, seen_by(device, &v6(number))?];
    ensure!(
        seen[0].ends_with(SERVER) && seen[1] == SERVER6,
        "{} is seen as {seen:?} at {number}, not through the tunnel",
        device.name()
    );
    Ok(())
}

/// How many addresses of that domain go direct, as `status` has it.
fn held(home: &Home, domain: &str) -> Result<u64> {
    let status: serde_json::Value =
        serde_json::from_str(&home.gateway.command(&["status", "--json"])?)?;
    let domains = status["direct_domains"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = domains.iter().find(|listed| listed["domain"] == domain);
    Ok(found
        .and_then(|listed| listed["count"].as_u64())
        .unwrap_or_default())
}

fn follows(lab: &mut Lab) -> Result<String> {
    let home = home(lab, LISTED, "")?;
    let (laptop, phone) = (&home.world.laptop, &home.world.phone);
    let aliases = [
        // A name that is not listed, by way of one that is; and one that is, by way of one that is not.
        ("sly.test.example", "deep.tv.test.example"),
        ("cdn.tv.test.example", "edge.test.example"),
    ];
    let names = |tv: u8| {
        [
            (HOST, 80),
            ("tv.test.example", tv),
            ("deep.tv.test.example", 84),
            ("edge.test.example", 85),
            ("other.test.example", 86),
        ]
    };
    let far = resolver(&home, &names(81), &aliases)?;
    let watch = Watch::start(&home, &[81, 82, 85])?;
    ask(laptop, "tv.test.example", 81)?;
    is_direct(laptop, 81)?;
    // Whoever sends there: the phone has not asked.
    is_direct(phone, 81)?;
    for (name, number) in [
        (HOST, 80),
        ("other.test.example", 86),
        ("sly.test.example", 84),
    ] {
        ask(laptop, name, number)?;
        is_tunnelled(laptop, number)?;
    }
    ask(laptop, "cdn.tv.test.example", 85)?;
    is_direct(laptop, 85)?;
    let asked = far.asked_for("tv.test.example");
    ensure!(
        !asked.is_empty() && asked.iter().all(|from| from == SERVER),
        "tv.test.example was asked for by {asked:?}, not by the server"
    );
    // The name moves.
    drop(far);
    let _far = resolver(&home, &names(82), &aliases)?;
    ask(phone, "tv.test.example", 82)?;
    is_direct(phone, 82)?;
    is_direct(laptop, 82)?;
    let addresses = held(&home, "tv.test.example")?;
    ensure!(
        addresses == 6,
        "`status` counts {addresses} addresses, of two families of three hosts"
    );
    watch.all_is_as_it_should("while the tunnel is up")?;
    let text = home.gateway.command(&["status"])?;
    ensure!(
        text.contains("past the tunnel: tv.test.example (6 addresses)"),
        "{text}"
    );
    take_down(&home)?;
    is_direct(laptop, 82)?;
    ensure!(
        !reaches_web(laptop)?,
        "the web host is reached with the tunnel down"
    );
    watch.all_is_as_it_should("with the tunnel down")?;
    Ok(format!(
        "{addresses} addresses let out, each before its first packet"
    ))
}

fn lasting(lab: &mut Lab) -> Result<String> {
    let both = "direct_domains = [\"tv.test.example\", \"game.test.example\"]\n";
    let mut home = home(lab, both, "")?;
    let laptop = home.world.laptop.clone();
    let names = [
        ("a.tv.test.example", 81),
        ("a.game.test.example", 82),
        (HOST, 80),
    ];
    let _far = resolver(&home, &names, &[])?;
    ask(&laptop, "a.tv.test.example", 81)?;
    ask(&laptop, "a.game.test.example", 82)?;
    is_direct(&laptop, 81)?;
    is_direct(&laptop, 82)?;
    {
        Watch::start(&home, &[81, 82])?;
        let box_ = &home.world.gateway;
        box_.exec(["nft", "flush", "ruleset"])?;
        let set = ["nft", "list", "set", "inet", "cygnet_guard", "direct4"];
        wait_for("the guard is put back with what goes direct", SOON, || {
            let listed = box_.finish(set)?;
            let there = [81, 82].iter().all(|n| listed.stdout.contains(&v4(*n)));
            Ok((listed.success() && there).then_some(()))
        })?;
        wait_for("the plan is put back", SOON, || {
            let listed = box_.finish(["nft", "list", "set", "inet", "cygnet", "direct4"])?;
            Ok(listed.stdout.contains(&v4(81)).then_some(()))
        })?;
        wait_for("what goes direct does", SOON, || {
            let seen = seen_by(&laptop, &v4(81))?;
            Ok(seen.ends_with(HOME_PUBLIC).then_some(()))
        })?;
        is_direct(&laptop, 82)?;
        // An address that somebody else put there lets nobody out.
        let stranger = v4(90);
        box_.shell(&format!(
            "nft add element inet cygnet_guard direct4 {{ {stranger} }}"
        ))?;
        wait_for("what somebody else put there is gone", SOON, || {
            let listed = box_.exec(set)?;
            Ok((!listed.contains(&stranger) && listed.contains(&v4(81))).then_some(()))
        })?;
        is_tunnelled(&laptop, 90)?;
        let router = &home.world.router;
        let seen = router.exec(["nft", "list", "counter", "inet", "seen", "found"])?;
        ensure!(
            seen.contains("packets 0 "),
            "other addresses were sent to in clear: {seen}"
        );
    }
    configure(&home, LISTED, "")?;
    is_direct(&laptop, 81)?;
    is_tunnelled(&laptop, 82)?;
    ensure!(
        held(&home, "tv.test.example")? == 2,
        "`status` has forgotten"
    );
    // A section that cannot be obeyed changes nothing.
    let section = "direct_domains = [\"tv.test.example\"]\n";
    home.gateway.write(&gateway_setup("", section))?;
    let refused = home.gateway.configured(&["check"])?;
    ensure!(
        refused.status.code() == Some(2) && refused.stderr.contains("without [gateway.dns]"),
        "it says {}",
        refused.stderr
    );
    is_direct(&laptop, 81)?;
    // After a start nothing is known, and nothing goes direct until a name is asked for.
    home.gateway
        .write(&gateway_setup("", &format!("{LISTED}[gateway.dns]\n")))?;
    home.gateway.restart()?;
    home.online(&laptop)?;
    is_tunnelled(&laptop, 81)?;
    ask(&laptop, "a.tv.test.example", 81)?;
    is_direct(&laptop, 81)?;
    // The guard by itself: nothing there either.
    guard(&home.gateway, "on")?;
    wait_for("the running program puts its addresses back", SOON, || {
        Ok(seen_by(&laptop, &v4(81))?
            .ends_with(HOME_PUBLIC)
            .then_some(()))
    })?;
    home.gateway.stop()?;
    guard(&home.gateway, "on")?;
    ensure!(
        !seen_by(&laptop, &v4(81))?.ends_with(HOME_PUBLIC),
        "the guard by itself lets out what nobody asked for"
    );
    Ok("flushed, reloaded, restarted and left alone".to_owned())
}

fn whose_word(lab: &mut Lab) -> Result<String> {
    let home = home(lab, "", "")?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (&home.world.laptop, &home.world.phone);
    let policies = format!(
        "direct = \"{}\"\nblocked = \"{}\"\n",
        phone.mac()?,
        tv.mac()?
    );
    let resolvers = format!("direct_resolvers = \"{ROUTER}\"\n");
    configure(&home, &format!("{policies}{LISTED}"), &resolvers)?;
    let names = [("a.tv.test.example", 81), ("b.tv.test.example", 82)];
    let far = resolver(&home, &names, &[])?;
    // Whoever is between here and there says what he likes to questions in clear.
    let forged = format!("host-record=a.tv.test.example,{},{},1", v4(90), v6(90));
    let private = format!("host-record=b.tv.test.example,{GATEWAY},{GATEWAY6},1");
    let near = Dnsmasq::start(&home.world.router, &[ROUTER], &[&forged, &private])?;
    let watch = Watch::start(&home, &[81])?;
    ask(phone, "a.tv.test.example", 90)?;
    is_tunnelled(laptop, 90)?;
    ensure!(
        held(&home, "tv.test.example")? == 0,
        "an answer from outside let something out"
    );
    ask(laptop, "a.tv.test.example", 81)?;
    is_direct(laptop, 81)?;
    for address in [v4(81), v6(81)] {
        let seen = seen_by(&tv, &address)?;
        ensure!(
            seen.contains("curl"),
            "the blocked device is seen as {seen}"
        );
    }
    let asked = near.asked_for("a.tv.test.example");
    let of_far = far.asked_for("a.tv.test.example");
    ensure!(
        !asked.is_empty() && !of_far.is_empty() && of_far.iter().all(|from| from == SERVER),
        "the near resolver was asked by {asked:?}, the far one by {of_far:?}"
    );
    watch.all_is_as_it_should("by the word of the far resolver")?;
    // Who wants it otherwise says so of the domain in both places; what is of the LAN goes direct by nobody's word.
    let outside = format!("{resolvers}direct = \"tv.test.example\"\n");
    configure(&home, LISTED, &outside)?;
    ask(laptop, "a.tv.test.example", 90)?;
    is_direct(laptop, 90)?;
    let before = held(&home, "tv.test.example")?;
    expect(laptop, GATEWAY, "b.tv.test.example", &["A"], &[GATEWAY])?;
    let after = held(&home, "tv.test.example")?;
    ensure!(
        before == after,
        "{after} addresses go direct after {before}: one is the box's"
    );
    Ok("let out by the resolver behind the tunnel, and by no other unless it is said".to_owned())
}
