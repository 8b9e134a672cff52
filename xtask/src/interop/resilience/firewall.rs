//! Strict reverse-path filters, and firewalls of other programs that drop what is forwarded: what
//! is in the way is named, with the rule that lets it through, and that rule suffices.

use super::super::Scenario;
use super::home::{Home, QUICK, SOON, gateway_setup, reaches_web, server_setup, wait_for_state};
use super::restless::Restless;
use crate::lab::cygnet::Cygnet;
use crate::lab::{Context, Lab, Namespace, Result, nat, wait_for};
use crate::{bail, ensure};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "rp-filter",
            "strict reverse-path filters on gateway and server, before and after the start",
            reverse_path,
        ),
        Scenario::new(
            "foreign-firewall-forward",
            "a foreign forward hook drops: named with its rule; the rule suffices",
            |lab| foreign(lab, nat::foreign_firewall, "inet foreign", "forward"),
        ),
        Scenario::new(
            "foreign-firewall-docker",
            "Docker's forward policy drops: the rule goes into DOCKER-USER and suffices",
            |lab| foreign(lab, docker, "ip filter", "FORWARD"),
        ),
        Scenario::new(
            "foreign-firewall-legacy",
            "the forward policy of the old iptables, which nft does not show, drops: named with its rule",
            |lab| foreign(lab, legacy, "ip filter (iptables-legacy)", "FORWARD"),
        ),
        Scenario::new(
            "foreign-firewall-input",
            "a foreign input hook on the server drops UDP 500/4500: named with its rule",
            input,
        ),
        Scenario::new(
            "foreign-firewall-answers",
            "a foreign input hook on the gateway drops what the server answers: named with its rule; the rule suffices",
            answers,
        ),
    ]
}

/// What many machines have: nothing comes in but answers, ssh and ping.
pub(in crate::interop) const USUAL: &str = "table inet foreign {
chain input {
type filter hook input priority 0; policy drop;
ct state established,related accept
iif \"lo\" accept
tcp dport 22 accept
icmp type echo-request accept
}
}
";

/// What Docker leaves in the kernel, as far as it matters; IPv6 is not its business.
fn docker(host: &Namespace) -> Result<()> {
    host.nft(
        "table ip filter {
chain DOCKER-USER {
counter return
}
chain DOCKER-ISOLATION-STAGE-1 {
iifname \"docker0\" oifname != \"docker0\" counter drop
counter return
}
chain FORWARD {
type filter hook forward priority 0; policy drop;
counter jump DOCKER-USER
counter jump DOCKER-ISOLATION-STAGE-1
oifname \"docker0\" ct state established,related counter accept
iifname \"docker0\" oifname != \"docker0\" counter accept
}
}
",
    )
}

fn legacy(host: &Namespace) -> Result<()> {
    host.exec(["iptables-legacy", "-P", "FORWARD", "DROP"])
        .map(drop)
}

fn reverse_path(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    home.server.stop()?;
    for host in [&home.world.gateway, &home.world.server] {
        host.filter_reverse_path()?;
    }
    home.server.restart()?;
    home.gateway.restart()?;
    home.online(&home.world.laptop)?;
    // An operator sets it again while both run.
    for host in [&home.world.gateway, &home.world.server] {
        for interface in ["all", "default", "eth0"] {
            host.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "1")?;
        }
    }
    home.world.provider.reset()?;
    let laptop = Restless::start(&home.world.laptop)?;
    laptop.flows()?;
    home.nothing_leaked("with strict filters")?;
    Ok(format!("{} pages through strict filters", laptop.pages()))
}

fn foreign(
    lab: &mut Lab,
    firewall: fn(&Namespace) -> Result<()>,
    table: &str,
    chain: &str,
) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    for host in [&home.world.gateway, &home.world.server] {
        firewall(host)?;
    }
    home.server.stop()?;
    home.server.restart()?;
    home.gateway.restart()?;
    wait_for_state(&home.gateway, "home", "up")?;
    let only_ipv6 = table.starts_with("ip ");
    if !only_ipv6 {
        ensure!(
            !reaches_web(&home.world.laptop)?,
            "the foreign firewall drops nothing: this proves nothing"
        );
    }
    let mut offered = 0;
    for cygnet in [&home.gateway, &home.server] {
        let rules = rules(cygnet, table, chain)?;
        offered += rules.len();
        for rule in rules {
            cygnet
                .namespace()
                .shell(&rule)
                .context("a rule that was offered")?;
        }
    }
    home.world.provider.reset()?;
    home.online(&home.world.laptop)?;
    home.nothing_leaked("beside a foreign firewall")?;
    for cygnet in [&home.gateway, &home.server] {
        wait_for("the warning goes away", SOON, || {
            Ok(cygnet.status()?.warnings.is_empty().then_some(()))
        })?;
    }
    Ok(format!("{offered} rules were offered and suffice"))
}

fn input(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    home.server.stop()?;
    home.world.server.nft(
        "table inet foreign {\nchain input {\ntype filter hook input priority 0; policy drop;\n\
         ct state established,related accept\niifname \"lo\" accept\nicmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n}\n}\n",
    )?;
    home.server = Cygnet::start(lab, &home.world.server, &server_setup())?;
    let rules = rules(&home.server, "inet foreign", "input")?;
    home.gateway.restart()?;
    for rule in &rules {
        home.world
            .server
            .shell(rule)
            .context("a rule that was offered")?;
    }
    home.online(&home.world.laptop)?;
    Ok(format!("{} rules were offered and suffice", rules.len()))
}

fn answers(lab: &mut Lab) -> Result<String> {
    let mut home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    home.world.gateway.nft(
        "table inet foreign {\nchain input {\ntype filter hook input priority 0; policy drop;\niifname \"lo\" accept\n\
         icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n}\n}\n",
    )?;
    home.gateway.restart()?;
    let rules = rules(&home.gateway, "inet foreign", "input")?;
    ensure!(
        !reaches_web(&home.world.laptop)?,
        "the foreign firewall drops nothing: this proves nothing"
    );
    for rule in &rules {
        let offered = home.world.gateway.shell(rule);
        offered.context("a rule that was offered")?;
    }
    home.online(&home.world.laptop)?;
    wait_for("the warning goes away", SOON, || {
        Ok(home.gateway.status()?.warnings.is_empty().then_some(()))
    })?;
    Ok(format!("{} rules were offered and suffice", rules.len()))
}

/// The commands that a warning about this chain offers, between backquotes.
pub(in crate::interop) fn rules(cygnet: &Cygnet, table: &str, chain: &str) -> Result<Vec<String>> {
    let names =
        |warning: &&String| warning.contains(table) && warning.contains(&format!("chain {chain}"));
    let found = wait_for("a warning about the foreign chain", SOON, || {
        let warnings = cygnet.status()?.warnings;
        Ok(warnings.iter().find(names).cloned())
    })?;
    let rules: Vec<String> = found
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let is_rule = |rule: &String| {
        ["nft insert rule ", "iptables-legacy -I "]
            .iter()
            .any(|it| rule.starts_with(it))
    };
    if rules.is_empty() || !rules.iter().all(is_rule) {
        bail!("the warning offers no rules between backquotes: {found}");
    }
    Ok(rules)
}
