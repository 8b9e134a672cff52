//! Devices of every policy ask the box.
//!
//! The home's own resolver and the far one call one name differently, so that an answer tells who was asked.

use super::super::Scenario;
use super::super::gateway::another_device;
use super::super::resilience::home::{GATEWAY6, Home, SOON, gateway_setup, wait_for_state};
use super::{Dnsmasq, NINES, NINES6, dig, expect, start, take_down};
use crate::ensure;
use crate::lab::world::{GATEWAY, HOME_PUBLIC, ROUTER, SERVER, WEB};
use crate::lab::{Lab, Namespace, Result, wait_for};
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "dns-policies",
            "a tunnelled, a direct and a blocked device ask the box and others at once: each as its policy says, up and down",
            at_once,
        ),
        Scenario::new(
            "dns-policy-changes",
            "a device that goes direct no more is asked for outside no more, from one question to the next",
            changes,
        ),
        Scenario::new(
            "dns-on-failure",
            "tunnelled devices that are let out while the tunnel is down are answered beside it, and through it when it is back",
            on_failure,
        ),
    ]
}

const FAR: &str = "198.51.100.82";
const NEAR: &str = "10.7.7.7";
/// Where the box answers devices that go direct.
const DIRECT_PORT: u16 = 985;
/// They are let out some 15 s after the tunnel is down.
const LET_OUT: Duration = Duration::from_secs(60);

/// One at the home router and one at the web host, which call every name below `test.example` their way.
fn resolvers(home: &Home) -> Result<(Dnsmasq, Dnsmasq)> {
    let everything = |address: &str| format!("address=/test.example/{address}");
    let far = Dnsmasq::start(&home.world.web, &[WEB], &[&everything(FAR)])?;
    let near = Dnsmasq::start(&home.world.router, &[ROUTER], &[&everything(NEAR)])?;
    Ok((far, near))
}

fn section(policies: &str) -> String {
    format!("{policies}[gateway.dns]\ndirect_resolvers = \"{ROUTER}\"\n")
}

/// Nobody answers `device` about that name, by UDP and by TCP.
fn unanswered(device: &Namespace, at: &str, name: &str, more: &[&str]) -> Result<()> {
    for protocol in ["+notcp", "+tcp"] {
        let options: Vec<&str> = ["A", protocol].iter().chain(more).copied().collect();
        let said = dig(device, at, name, &options)?;
        ensure!(
            said.status == "none" && said.records.is_empty(),
            "{} is answered at {at} {protocol}: {said:?}",
            device.name()
        );
    }
    Ok(())
}

fn at_once(lab: &mut Lab) -> Result<String> {
    let home = start(lab, "", &[])?;
    let (far, near) = resolvers(&home)?;
    let tv = another_device(lab, &home)?;
    let (laptop, phone) = (&home.world.laptop, &home.world.phone);
    let policies = format!(
        "direct = \"{}\"\nblocked = \"{}\"\n",
        phone.mac()?,
        tv.mac()?
    );
    home.gateway
        .write(&gateway_setup("", &section(&policies)))?;
    home.gateway.reload()?;
    let mut asked = 0;
    for (n, more) in [["A", "+notcp"], ["A", "+tcp"]].iter().enumerate() {
        for at in [GATEWAY, GATEWAY6] {
            let name = |who: &str| format!("{who}{n}.test.example");
            expect(phone, at, &name("phone"), more, &[NEAR])?;
            expect(laptop, at, &name("laptop"), more, &[FAR])?;
            asked += 2;
        }
        for at in [NINES, NINES6] {
            expect(laptop, at, &format!("any{n}.test.example"), more, &[FAR])?;
            asked += 1;
        }
    }
    // The same name, kept for both.
    expect(phone, GATEWAY, "both.test.example", &["A"], &[NEAR])?;
    expect(laptop, GATEWAY, "both.test.example", &["A"], &[FAR])?;
    expect(phone, GATEWAY, "both.test.example", &["A"], &[NEAR])?;
    for name in ["laptop0.test.example", "any0.test.example"] {
        let heard = near.asked_for(name);
        ensure!(heard.is_empty(), "{heard:?} asked the home for {name}");
        let heard = far.asked_for(name);
        ensure!(
            !heard.is_empty() && heard.iter().all(|from| from == SERVER),
            "{heard:?} asked for {name}"
        );
    }
    let heard = far.asked_for("phone0.test.example");
    ensure!(heard.is_empty(), "{heard:?} asked far for the phone's name");
    // Whom else it asks it reaches as with all it sends.
    expect(phone, WEB, "outside.test.example", &["A"], &[FAR])?;
    let heard = far.asked_for("outside.test.example");
    ensure!(
        heard.iter().all(|from| from == HOME_PUBLIC),
        "{heard:?} asked for the direct device"
    );
    home.world.provider.reset()?;
    for at in [GATEWAY, GATEWAY6, NINES] {
        unanswered(&tv, at, "tv.test.example", &[])?;
    }
    unanswered(
        &tv,
        GATEWAY,
        "tv.test.example",
        &["-p", &DIRECT_PORT.to_string()],
    )?;
    unanswered(
        laptop,
        GATEWAY,
        "sly.test.example",
        &["-p", &DIRECT_PORT.to_string()],
    )?;
    expect(laptop, NINES, "more.test.example", &["A"], &[FAR])?;
    home.nothing_leaked("of a tunnelled and a blocked device")?;
    for name in ["tv.test.example", "sly.test.example"] {
        for resolver in [&far, &near] {
            let heard = resolver.asked_for(name);
            ensure!(heard.is_empty(), "{heard:?} asked for {name}");
        }
    }
    take_down(&home)?;
    let said = dig(laptop, GATEWAY, "laptop0.test.example", &["A"])?;
    ensure!(said.status == "SERVFAIL", "with the tunnel down: {said:?}");
    unanswered(&tv, GATEWAY, "tv.test.example", &[])?;
    home.nothing_leaked("with the tunnel down")?;
    expect(phone, GATEWAY, "down.test.example", &["A"], &[NEAR])?;
    Ok(format!("{asked} questions, each where its device may ask"))
}

fn changes(lab: &mut Lab) -> Result<String> {
    let home = start(lab, "", &[])?;
    let (far, near) = resolvers(&home)?;
    let phone = &home.world.phone;
    let of_phone = phone.mac()?;
    let policies = section(&format!("direct = \"{of_phone}\"\n"));
    home.gateway.write(&gateway_setup("", &policies))?;
    home.gateway.reload()?;
    expect(phone, GATEWAY, "first.test.example", &["A"], &[NEAR])?;
    // From one port, as a program does that keeps its socket: the kernel holds such questions for one connection.
    let from = ["A", "-b", "192.168.1.21#5300"];
    expect(phone, GATEWAY, "kept.test.example", &from, &[NEAR])?;
    let set = |policy: &str| {
        home.gateway
            .command(&["device", "set", &of_phone, policy])
            .map(drop)
    };
    set("tunnelled")?;
    for (n, more) in [&from[..], &["A"], &["A", "+tcp"]].iter().enumerate() {
        let name = format!("tunnelled{n}.test.example");
        expect(phone, GATEWAY, &name, more, &[FAR])?;
        let heard = near.asked_for(&name);
        ensure!(heard.is_empty(), "{heard:?} asked the home for {name}");
        let heard = far.asked_for(&name);
        ensure!(
            heard.iter().all(|from| from == SERVER),
            "{heard:?} asked for {name}"
        );
    }
    set("blocked")?;
    home.world.provider.reset()?;
    unanswered(phone, GATEWAY, "blocked.test.example", &[])?;
    unanswered(phone, NINES, "blocked.test.example", &[])?;
    home.nothing_leaked("of a blocked device")?;
    ensure!(
        near.asked_for("blocked.test.example").is_empty()
            && far.asked_for("blocked.test.example").is_empty(),
        "somebody was asked for a blocked device"
    );
    set("direct")?;
    expect(phone, GATEWAY, "again.test.example", &["A"], &[NEAR])?;
    // While nobody has a policy of its own, nobody is answered at the other port.
    home.gateway.command(&["device", "forget", &of_phone])?;
    home.gateway.write(&gateway_setup("", &section("")))?;
    home.gateway.reload()?;
    wait_for_state(&home.gateway, "home", "up")?;
    wait_for("the port of direct devices is closed", SOON, || {
        let box_ = &home.world.gateway;
        let held = box_.listens_udp(DIRECT_PORT)? || box_.listens_tcp(DIRECT_PORT)?;
        Ok((!held).then_some(()))
    })?;
    expect(phone, GATEWAY, "last.test.example", &["A"], &[FAR])?;
    Ok("asked as the policy of the moment says".to_owned())
}

fn on_failure(lab: &mut Lab) -> Result<String> {
    let home = start(lab, "", &[])?;
    let (far, near) = resolvers(&home)?;
    let laptop = &home.world.laptop;
    let policies = section("on_failure = \"direct\"\n");
    home.gateway.write(&gateway_setup("", &policies))?;
    home.gateway.reload()?;
    // From one port, which the kernel holds for one connection.
    let from = ["A", "-b", "192.168.1.20#5300"];
    expect(laptop, GATEWAY, "up.test.example", &from, &[FAR])?;
    unanswered(
        laptop,
        GATEWAY,
        "sly.test.example",
        &["-p", &DIRECT_PORT.to_string()],
    )?;
    take_down(&home)?;
    let said = dig(laptop, GATEWAY, "early.test.example", &["A"])?;
    ensure!(
        said.status == "SERVFAIL",
        "with the tunnel just down: {said:?}"
    );
    let let_out = |out: bool| {
        wait_for("tunnelled devices are let out, or no more", LET_OUT, || {
            let is = home.gateway.whole_status()?["let_out"] == true;
            Ok((is == out).then_some(()))
        })
    };
    let_out(true)?;
    for (n, more) in [&from[..], &["A", "+tcp"]].iter().enumerate() {
        expect(
            laptop,
            GATEWAY,
            &format!("out{n}.test.example"),
            more,
            &[NEAR],
        )?;
    }
    home.gateway.up("home")?;
    let_out(false)?;
    for (n, more) in [&from[..], &["A", "+tcp"]].iter().enumerate() {
        let name = format!("back{n}.test.example");
        expect(laptop, GATEWAY, &name, more, &[FAR])?;
        let heard = near.asked_for(&name);
        ensure!(heard.is_empty(), "{heard:?} asked the home for {name}");
    }
    for name in ["up.test.example", "sly.test.example", "early.test.example"] {
        let heard = near.asked_for(name);
        ensure!(heard.is_empty(), "{heard:?} asked the home for {name}");
    }
    let heard = far.asked_for("out0.test.example");
    ensure!(
        heard.is_empty(),
        "{heard:?} asked far while the tunnel was down"
    );
    Ok("through the tunnel, beside it, and through it".to_owned())
}
