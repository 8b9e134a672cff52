//! Running connections that belong elsewhere after a change, besides what is said of devices: they go on there.

use super::super::Scenario;
use super::super::resilience::home::{Home, QUICK, SOON, WEB6, gateway_setup, wait_for_state};
use super::through::{OTHER, elsewhere};
use crate::ensure;
use crate::lab::link::counter;
use crate::lab::process::last_lines;
use crate::lab::strongswan::{self, Auth, Child, Config, Connection, StrongSwan};
use crate::lab::world::{SERVER, WEB};
use crate::lab::{Lab, Namespace, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gateway-site-changed",
            "a tunnel between sites that a reload adds and removes takes over a ping that never ends, and gives it back; no other is ended, nor any when the gateway's tunnel comes back",
            site_changed,
        ),
        Scenario::new(
            "gateway-own-tunnel",
            "what the box itself sends through the gateway's tunnel goes on by a tunnel of the box's own when that comes up, and back",
            own_tunnel,
        ),
    ]
}

/// Counts what comes back to pings, out of each tunnel; and how often the one over IPv6 began.
const COUNTED: &str = "table inet counted {
counter laptop_home { }
counter laptop_branch { }
counter own_home { }
counter own_work { }
counter began { }
chain forward {
type filter hook forward priority 50;
iifname \"cyg-home\" ip daddr 192.168.1.20 icmp type echo-reply counter name laptop_home
iifname \"cyg-branch\" ip daddr 192.168.1.20 icmp type echo-reply counter name laptop_branch
icmpv6 type echo-request ct state new counter name began
}
chain input {
type filter hook input priority 50;
iifname \"cyg-home\" icmp type echo-reply counter name own_home
iifname \"cyg-work\" icmp type echo-reply counter name own_work
}
}
";

fn counted(box_: &Namespace, what: &str) -> Result<u64> {
    let list = ["nft", "-j", "list", "counters", "table", "inet", "counted"];
    counter(&box_.exec(list)?, what)
}

/// Waits until the ping is answered by that tunnel.
fn answered(home: &Home, by: &str) -> Result<()> {
    let box_ = &home.world.gateway;
    let before = counted(box_, by)?;
    wait_for(&format!("a ping is answered: {by}"), SOON, || {
        Ok((counted(box_, by)? > before + 5).then_some(()))
    })
    .map_err(|failure| {
        let tracked = box_.exec(["cat", "/proc/net/nf_conntrack"]);
        failure.while_doing(format!(
            "{}\n{}\n",
            last_lines(&home.gateway.log(), 12),
            tracked.unwrap_or_default()
        ))
    })
}

/// Another office, in which the web host is.
fn office(lab: &Lab, home: &mut Home) -> Result<StrongSwan> {
    let host = elsewhere(lab, home)?;
    // Without an address in the network strongSwan does not route it.
    host.ip("addr add 198.51.100.254/32 dev lo")?;
    let connection = Connection::new("office", OTHER, "%any")
        .local(Auth::shared_key("other.lab"))
        .remote(Auth::shared_key("branch.lab"))
        .child(Child::new("net", &["198.51.100.0/24"], &["192.168.1.0/24"]));
    let setup = strongswan::Setup {
        config: Config::of(connection)
            .secret(&["other.lab", "branch.lab"], "correct horse battery staple"),
        ..strongswan::Setup::default()
    };
    StrongSwan::start(lab, &host, &setup)
}

fn site_changed(lab: &mut Lab) -> Result<String> {
    let plain = gateway_setup(QUICK, "");
    let branch = format!(
        "[tunnel.branch]\nremote = \"{OTHER}\"\nremote_identity = \"other.lab\"\nidentity = \"branch.lab\"\npsk = \"psk\"\n\
         local_networks = [\"192.168.1.0/24\"]\nremote_networks = [\"198.51.100.0/24\"]\n{QUICK}"
    );
    let with_branch = gateway_setup(QUICK, &branch);
    let mut home = Home::prepare(lab, &plain)?;
    let _office = office(lab, &mut home)?;
    home.gateway.restart()?;
    let (box_, laptop) = (home.world.gateway.clone(), home.world.laptop.clone());
    home.online(&laptop)?;
    box_.nft(COUNTED)?;
    home.world.provider.reset()?;
    // Each is one connection from beginning to end.
    let ping = |host| laptop.spawn(["ping", "-n", "-q", "-i", "0.05", host]);
    let _pings = (ping(WEB)?, ping(WEB6)?);
    answered(&home, "laptop_home")?;
    let began = |times: u64, when: &str| -> Result<()> {
        let began = counted(&box_, "began")?;
        ensure!(began == times, "{when} the other ping began {began} times");
        Ok(())
    };
    began(1, "at first")?;
    // The server lends the same addresses again.
    home.gateway.down("home")?;
    wait_for_state(&home.gateway, "home", "down")?;
    home.gateway.up("home")?;
    answered(&home, "laptop_home")?;
    began(1, "after `down` and `up`")?;
    for (setup, by) in [
        (&with_branch, "laptop_branch"),
        (&plain, "laptop_home"),
        (&with_branch, "laptop_branch"),
    ] {
        home.gateway.write(setup)?;
        home.gateway.reload()?;
        answered(&home, by)?;
        began(1, &format!("answered as {by}"))?;
    }
    home.nothing_leaked("while a tunnel between sites came and went")?;
    Ok("there, back and there again, and no other connection was ended".to_owned())
}

fn own_tunnel(lab: &mut Lab) -> Result<String> {
    let work = format!(
        "[tunnel.work]\nremote = \"{SERVER}\"\nremote_identity = \"vpn.lab\"\nidentity = \"work.lab\"\npsk = \"psk\"\n\
         virtual_address = true\nremote_networks = [\"198.51.100.0/24\"]\nstart = \"manual\"\n{QUICK}"
    );
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, &work))?;
    home.gateway.restart()?;
    home.online(&home.world.laptop)?;
    let box_ = home.world.gateway.clone();
    box_.nft(COUNTED)?;
    home.world.provider.reset()?;
    // From one address: without that it would begin anew by itself.
    let _ping = box_.spawn(["ping", "-n", "-q", "-i", "0.05", "-I", "192.168.1.2", WEB])?;
    answered(&home, "own_home")?;
    for (order, by) in [("up", "own_work"), ("down", "own_home"), ("up", "own_work")] {
        match order {
            "up" => {
                home.gateway.up("work")?;
                wait_for_state(&home.gateway, "work", "up")?;
            }
            _ => home.gateway.down("work")?,
        }
        answered(&home, by).map_err(|failure| failure.while_doing(format!("after `{order}`")))?;
    }
    home.nothing_leaked("of the box itself while its own tunnel came and went")?;
    Ok("there, back and there again".to_owned())
}
