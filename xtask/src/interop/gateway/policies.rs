//! Devices of every policy at once, over the box's one leg.

use super::super::Scenario;
use super::super::resilience::home::{
    GATEWAY6, Home, QUICK, SERVER6, SOON, TUNNEL, WEB6, check, gateway_setup, guard, seen_by,
    wait_for_state,
};
use super::super::resilience::restless::Restless;
use super::{another_device, blocked, direct, told};
use crate::ensure;
use crate::lab::world::{HOME_PUBLIC, SERVER, WEB};
use crate::lab::{Lab, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gateway-policies",
            "a tunnelled, a direct and a blocked device at once, over IPv4 and IPv6, each by its MAC address",
            at_once,
        ),
        Scenario::new(
            "gateway-default-direct",
            "where all go direct but one, that one is tunnelled; where all are blocked but one, that one is online",
            defaults,
        ),
        Scenario::new(
            "gateway-new-address",
            "a device that takes other addresses of both families keeps the policy of its MAC address",
            new_address,
        ),
        Scenario::new(
            "gateway-direct-networks",
            "networks that go direct are reached around the tunnel, whether it is up or not; nothing else is",
            direct_networks,
        ),
        Scenario::new(
            "gateway-other-tunnels",
            "a direct device enters no other tunnel of the box, and reaches a site by its tunnel or not at all, also without cygnet",
            other_tunnels,
        ),
        Scenario::new(
            "gateway-mistakes",
            "a device in two policies, a bad MAC address, a name that no device has: refused, with the line",
            mistakes,
        ),
    ]
}

fn at_once(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let of_phone = phone.mac()?;
    let policies = format!(
        "direct = \"handy\"\nblocked = [\"{}\"]\n[gateway.devices]\nhandy = \"{of_phone}\"\n",
        tv.mac()?
    );
    home.gateway.write(&gateway_setup(QUICK, &policies))?;
    home.gateway.restart()?;
    home.online(&laptop)?;
    direct(&phone)?;
    blocked(&tv)?;
    // The router sees the direct device as the box: both halves of its connections come by here.
    home.world.router.nft(
        "table inet seen {\ncounter unmasked { }\nchain in {\ntype filter hook prerouting priority -300;\n\
         ip saddr 192.168.1.21 ip daddr 198.51.100.0/24 counter name unmasked\n\
         ip6 saddr fd00:192:168:1::21 ip6 daddr 2001:db8:80::/64 counter name unmasked\n}\n}\n",
    )?;
    direct(&phone)?;
    let list = ["nft", "-j", "list", "counters", "table", "inet", "seen"];
    let unmasked = crate::lab::link::counter(&home.world.router.exec(list)?, "unmasked")?;
    ensure!(unmasked == 0, "{unmasked} packets past the translation");
    let listed = told(&home, &of_phone)?;
    ensure!(
        listed.name.as_deref() == Some("handy")
            && listed.policy == "direct"
            && listed.from == "configuration"
            && ["192.168.1.21", "fd00:192:168:1::21"]
                .iter()
                .all(|a| listed.addresses.contains(&(*a).to_owned())),
        "{listed:?}"
    );
    // All three at once, and then those alone that nothing may leave of in clear.
    let busy = [
        Restless::start(&laptop)?,
        Restless::start(&tv)?,
        Restless::start(&phone)?,
    ];
    busy[0].flows()?;
    busy[2].flows()?;
    let [laptop, tv, phone] = busy;
    drop(phone);
    wait_for("the direct device's last packets are gone", SOON, || {
        home.world.provider.reset()?;
        laptop.tries_on()?;
        Ok((home.leaked()? == 0).then_some(()))
    })?;
    home.world.provider.reset()?;
    laptop.flows()?;
    tv.tries_on()?;
    home.nothing_leaked("of a tunnelled and a blocked device")?;
    ensure!(
        tv.pages() == 0,
        "the blocked device got {} pages",
        tv.pages()
    );
    home.gateway.down("home")?;
    laptop.tries_on()?;
    tv.tries_on()?;
    home.nothing_leaked("while the tunnel is down")?;
    direct(&home.world.phone)?;
    Ok(format!(
        "{} datagrams of the tunnelled, {} of the blocked one, none in clear",
        laptop.datagrams(),
        tv.datagrams()
    ))
}

fn defaults(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let (laptop, phone) = (home.world.laptop.clone(), home.world.phone.clone());
    let policies = format!("default = \"direct\"\ntunnelled = \"{}\"\n", laptop.mac()?);
    home.gateway.write(&gateway_setup(QUICK, &policies))?;
    home.gateway.restart()?;
    home.online(&laptop)?;
    direct(&phone)?;
    home.world.provider.reset()?;
    let busy = Restless::start(&laptop)?;
    busy.flows()?;
    home.gateway.down("home")?;
    busy.tries_on()?;
    home.nothing_leaked("of the one that is tunnelled")?;
    drop(busy);
    home.gateway.up("home")?;
    let policies = format!("default = \"blocked\"\ntunnelled = \"{}\"\n", laptop.mac()?);
    home.gateway.write(&gateway_setup(QUICK, &policies))?;
    home.gateway.reload()?;
    blocked(&phone)?;
    home.online(&laptop)?;
    Ok("one tunnelled among direct ones, and one among blocked ones".to_owned())
}

fn new_address(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let phone = home.world.phone.clone();
    let policies = format!("direct = \"{}\"\n", phone.mac()?);
    home.gateway.write(&gateway_setup(QUICK, &policies))?;
    home.gateway.restart()?;
    direct(&phone)?;
    for (old, new, via) in [
        ("192.168.1.21/24", "192.168.1.99/24", "192.168.1.2"),
        (
            "fd00:192:168:1::21/64",
            "fd00:192:168:1:1234:5678:9abc:def0/64",
            "fd00:192:168:1::2",
        ),
    ] {
        phone.ip(&format!("addr del {old} dev eth0"))?;
        phone.ip(&format!("addr add {new} dev eth0"))?;
        phone.default_route(via)?;
    }
    direct(&phone)?;
    // Who takes the address that the direct device had is no direct device.
    let laptop = home.world.laptop.clone();
    laptop.ip("addr add 192.168.1.21/24 dev eth0")?;
    let box_ = &home.world.gateway;
    box_.ip("neigh flush dev eth0 to 192.168.1.21")?;
    let seen = || -> Result<String> {
        let from = [
            "curl",
            "-sS",
            "--interface",
            "192.168.1.21",
            "--max-time",
            "2",
        ];
        let url = format!("http://{WEB}/");
        let finished = laptop.finish(from.into_iter().chain([url.as_str()]))?;
        Ok(finished.stdout.trim().to_owned())
    };
    let mut last = String::new();
    wait_for(
        "the heir of an address is online through the tunnel",
        SOON,
        || {
            last = seen()?;
            Ok(last.ends_with(SERVER).then_some(()))
        },
    )
    .map_err(|failure| failure.while_doing(format!("the web host sees {last}\n")))?;
    Ok("direct with new addresses; its old one, elsewhere, is tunnelled".to_owned())
}

fn direct_networks(lab: &mut Lab) -> Result<String> {
    let networks = "direct_networks = [\"198.51.100.0/24\", \"198.51.100.64/26\"]\n";
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, networks))?;
    // Behind the home's router, as a modem's page: nobody on the internet has it.
    let modem = "10.20.0.1";
    home.world
        .router
        .ip(&format!("addr add {modem}/24 dev lo"))?;
    home.gateway.restart()?;
    wait_for_state(&home.gateway, TUNNEL, "up")?;
    let reached = |home: &Home| -> Result<bool> {
        let argv = ["ping", "-n", "-c3", "-i0.2", "-W1", modem];
        Ok(home.world.laptop.finish(argv)?.success())
    };
    ensure!(!reached(&home)?, "{modem} is reached without the key");
    let with_modem = networks.replace("[", "[\"10.20.0.0/24\", ");
    home.gateway.write(&gateway_setup(QUICK, &with_modem))?;
    home.gateway.reload()?;
    ensure!(reached(&home)?, "{modem} is not reached with the key");
    let laptop = &home.world.laptop;
    let mut last = [String::new(), String::new()];
    wait_for("one network goes direct, the rest not", SOON, || {
        last = [seen_by(laptop, WEB)?, seen_by(laptop, WEB6)?];
        Ok((last[0].ends_with(HOME_PUBLIC) && last[1] == SERVER6).then_some(()))
    })
    .map_err(|failure| failure.while_doing(format!("the web host sees {last:?}\n")))?;
    home.gateway.down("home")?;
    let seen = [seen_by(laptop, WEB)?, seen_by(laptop, WEB6)?];
    ensure!(
        seen[0].ends_with(HOME_PUBLIC) && seen[1] != SERVER6 && seen[1] != GATEWAY6,
        "with the tunnel down the web host sees {seen:?}"
    );
    home.count_anew()?;
    for elsewhere in ["192.0.2.17", WEB6] {
        let told = laptop.finish(["ping", "-n", "-c3", "-i0.2", "-W1", elsewhere])?;
        ensure!(!told.success(), "{elsewhere} answers with the tunnel down");
    }
    home.nothing_leaked("to what is no direct network")?;
    Ok("one network in clear, the rest in the tunnel".to_owned())
}

fn other_tunnels(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let (box_, phone) = (home.world.gateway.clone(), home.world.phone.clone());
    let policies = format!("own_traffic = \"all\"\ndirect = \"{}\"\n", phone.mac()?);
    // One to the web host, for the box alone; and a branch that has IPv6 of the same network, and is down.
    let tunnels = format!(
        "[tunnel.work]\nremote = \"{SERVER}\"\nremote_identity = \"vpn.lab\"\nidentity = \"work.lab\"\n\
         psk = \"psk\"\nvirtual_address = true\nremote_networks = [\"198.51.100.0/24\"]\n\
         [tunnel.branch]\nremote = \"192.0.2.99\"\npsk = \"psk\"\nstart = \"manual\"\n\
         local_networks = [\"fd00:192:168:1::/64\"]\nremote_networks = [\"2001:db8:80::/64\"]\n"
    );
    home.gateway
        .write(&gateway_setup(QUICK, &format!("{policies}{tunnels}")))?;
    home.gateway.restart()?;
    let as_promised = |when: &str, work: bool| -> Result<()> {
        let mut last = [String::new(), String::new(), String::new()];
        wait_for("the box and the device have their ways", SOON, || {
            last = [
                seen_by(&box_, WEB)?,
                seen_by(&phone, WEB)?,
                seen_by(&phone, WEB6)?,
            ];
            let as_server = last[0].ends_with(SERVER);
            Ok((as_server == work && last[1].ends_with(HOME_PUBLIC)).then_some(()))
        })
        .map_err(|failure| failure.while_doing(format!("{when} the web host sees {last:?}\n")))?;
        ensure!(
            !last[2].ends_with(GATEWAY6),
            "{when} the branch's network is reached past its tunnel"
        );
        Ok(())
    };
    as_promised("while the other tunnel is up", true)?;
    home.gateway.down("work")?;
    as_promised("while the other tunnel is down", false)?;
    home.gateway.stop()?;
    as_promised("after a stop", false)?;
    guard(&home.gateway, "off")?;
    guard(&home.gateway, "on")?;
    as_promised("by the guard alone", false)?;
    // Nothing but the guard was in the way.
    guard(&home.gateway, "off")?;
    let seen = seen_by(&phone, WEB6)?;
    ensure!(seen.ends_with("fd00:192:168:1::21"), "without it: {seen}");
    Ok("with the other tunnel up and down, stopped, and by the guard alone".to_owned())
}

fn mistakes(lab: &mut Lab) -> Result<String> {
    let good = gateway_setup(QUICK, "");
    let mut home = Home::prepare(lab, &good)?;
    let mut seen = 0;
    for (section, told) in [
        (
            "direct = \"tv\"\nblocked = \"aa:bb:cc:dd:ee:02\"\n[gateway.devices]\ntv = \"aa:bb:cc:dd:ee:02\"\n",
            "`aa:bb:cc:dd:ee:02` is in `blocked`, and in `direct` already",
        ),
        (
            "blocked = \"aa:bb:cc:dd:ee:0g\"\n",
            "expected a MAC address",
        ),
        ("blocked = \"radio\"\n", "no device is called `radio`"),
    ] {
        let setup = gateway_setup(QUICK, section);
        home.gateway.write(&setup)?;
        let before = home.state()?;
        let finished = check(&home.gateway)?;
        let text = std::fs::read_to_string(home.gateway.config_path())?;
        let line = text.lines().position(|line| line.starts_with("blocked"));
        let line = format!("cygnet.toml:{}:11: ", line.unwrap_or_default() + 1);
        ensure!(
            finished.status.code() == Some(2)
                && finished.stderr.contains(told)
                && finished.stderr.contains(&line),
            "{section}: {:?}, {}",
            finished.status.code(),
            finished.stderr
        );
        let run = home.gateway.run_to_its_end()?;
        ensure!(run.status.code() == Some(2), "it runs with {section}");
        before.expect_same(&home.state()?, &format!("after a run with {section}"))?;
        // A gateway that runs goes on as it was.
        home.gateway.write(&good)?;
        home.gateway.restart()?;
        home.online(&home.world.laptop)?;
        let devices = || home.gateway.command(&["device", "list", "--json"]);
        let policies = || -> Result<Vec<_>> {
            let devices = super::listed(&home)?.devices.into_iter();
            Ok(devices.map(|it| (it.device, it.policy, it.from)).collect())
        };
        let (running, before) = (home.state()?, policies()?);
        home.world.provider.reset()?;
        home.gateway.write(&setup)?;
        let refused = home.gateway.control(&["reload"])?;
        ensure!(
            !refused.success() && refused.stderr.contains(told),
            "a reload to {section} says {}{}",
            refused.stdout,
            refused.stderr
        );
        running.expect_same(&home.state()?, &format!("after a reload to {section}"))?;
        // One more may have been seen meanwhile, such as the router.
        let now = policies()?;
        let is_alike = |(_, policy, from): &(_, _, _)| {
            let mut all = before.iter();
            all.any(|(_, other, by)| (other, by) == (policy, from))
        };
        ensure!(
            before.iter().all(|it| now.contains(it)) && now.iter().all(is_alike),
            "devices after {section}: {}",
            devices()?
        );
        home.online(&home.world.laptop)?;
        home.nothing_leaked(&format!("after a reload to {section}"))?;
        home.gateway.stop()?;
        guard(&home.gateway, "off")?;
        seen += 1;
    }
    Ok(format!("{seen} refused, each with its line"))
}
