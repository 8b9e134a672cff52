//! Which packets a tunnel takes: several subnets, several children, narrowing, traps.

use super::super::Scenario;
use super::super::pair::{Pair, SOON, Way};
use super::super::plan::{ChildPlan, NET, OFFICE, Plan, Role};
use crate::ensure;
use crate::lab::traffic::{ping, ping_until_answered};
use crate::lab::{Lab, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for role in Role::BOTH {
        let mut add = |name: &str, about: &str, play: fn(&Lab, Role) -> Result<String>| {
            let name = format!("{name}-{}", role.name());
            all.push(Scenario::new(name, about, move |lab| play(lab, role)));
        };
        add(
            "two-subnets-one-child",
            "two offices with two subnets each, all in one child",
            one_child,
        );
        add(
            "two-subnets-two-children",
            "two offices with two subnets each, a child for each pair",
            two_children,
        );
        add(
            "narrowing-by-strongswan",
            "Cygnet has wider networks than strongSwan: what both have is used",
            |lab, role| narrowing(lab, role, true),
        );
        add(
            "narrowing-by-cygnet",
            "strongSwan has wider networks than Cygnet: what both have is used",
            |lab, role| narrowing(lab, role, false),
        );
        add(
            "narrowing-to-protocol",
            "strongSwan takes ICMP alone: nothing else is sent or accepted",
            one_protocol,
        );
    }
    all.push(Scenario::new(
        "trap-initiator",
        "packets bring the tunnel up",
        trap,
    ));
    all.push(Scenario::new(
        "trap-again-initiator",
        "after strongSwan has taken it down, the next packet brings the tunnel up again",
        trap_again,
    ));
    all
}

const WITHIN_A: [&str; 2] = ["10.1.0.0/24", "10.1.1.0/24"];
const WITHIN_B: [&str; 2] = ["10.2.0.0/24", "10.2.1.0/24"];

/// The networks of Cygnet's office and of strongSwan's.
pub(super) fn subnets(role: Role) -> ([&'static str; 2], [&'static str; 2]) {
    match role {
        Role::Initiator => (WITHIN_A, WITHIN_B),
        Role::Responder => (WITHIN_B, WITHIN_A),
    }
}

fn second_way(pair: &Pair) -> Way {
    let (near, far) = (pair.near(), pair.far());
    Way::new(
        (&near.second_host, near.second_host4),
        (&far.second_host, far.second_host4),
    )
}

fn crossed_way(pair: &Pair) -> Way {
    let (near, far) = (pair.near(), pair.far());
    Way::new(
        (&near.host, near.host4),
        (&far.second_host, far.second_host4),
    )
}

fn one_child(lab: &Lab, role: Role) -> Result<String> {
    let (cygnet, swan) = subnets(role);
    let mut plan = Plan::shared_key(role);
    plan.children = vec![ChildPlan::agreed(NET, &cygnet, &swan)];
    let pair = Pair::connected(lab, plan)?;
    let child = pair.wait_for_child(NET)?;
    ensure!(
        child.local == cygnet && child.remote == swan,
        "the child is for {:?} === {:?}",
        child.local,
        child.remote
    );
    let mut ways = pair.ways();
    ways.extend([second_way(&pair), crossed_way(&pair)]);
    pair.carry_on(&ways)
}

fn two_children(lab: &Lab, role: Role) -> Result<String> {
    let (cygnet, swan) = subnets(role);
    let mut plan = Plan::shared_key(role);
    plan.children = vec![
        ChildPlan::agreed("first", &cygnet[..1], &swan[..1]),
        ChildPlan::agreed("second", &cygnet[1..], &swan[1..]),
    ];
    let pair = Pair::connected(lab, plan)?;
    let mut ways = pair.ways();
    ways.push(second_way(&pair));
    let told = pair.carry_on(&ways)?;
    for name in ["first", "second"] {
        let child = pair.wait_for_child(name)?;
        ensure!(
            child.packets_in == 6 && child.packets_out == 6,
            "the packets did not keep to their children: {child:?}"
        );
    }
    // What belongs to none of them goes nowhere.
    let crossed = crossed_way(&pair);
    let report = ping(&crossed.near, &crossed.far_address, 1)?;
    ensure!(
        report.received == 0 && pair.offices.counters()?.leaked == 0,
        "a packet between the subnets of two children: {report:?}, {:?}",
        pair.offices.counters()?
    );
    Ok(told)
}

fn narrowing(lab: &Lab, role: Role, cygnet_is_wide: bool) -> Result<String> {
    let (cygnet, swan) = subnets(role);
    let narrow = ChildPlan::agreed(NET, &cygnet[..1], &swan[..1]);
    let wide = |network: &str| network.replace(".0.0/24", ".0.0/16");
    let mut plan = Plan::shared_key(role);
    let mut child = narrow.clone();
    let side = if cygnet_is_wide {
        &mut child.cygnet
    } else {
        &mut child.swan
    };
    for networks in [&mut side.0, &mut side.1] {
        *networks = networks.iter().map(|network| wide(network)).collect();
    }
    plan.children = vec![child];
    let pair = Pair::connected(lab, plan)?;
    let child = pair.wait_for_child(NET)?;
    ensure!(
        child.local == narrow.cygnet.0 && child.remote == narrow.cygnet.1,
        "narrowed to {:?} === {:?}",
        child.local,
        child.remote
    );
    let told = pair.carry()?;
    let beside = second_way(&pair);
    let before = pair.wait_for_child(NET)?.packets_out;
    for (from, to) in [
        (&beside.near, &beside.far_address),
        (&beside.far, &beside.near_address),
    ] {
        let report = ping(from, to, 1)?;
        ensure!(report.received == 0, "a packet beside the selectors passed");
    }
    let after = pair.wait_for_child(NET)?.packets_out;
    ensure!(
        before == after,
        "packets beside the selectors were sent: {before} before, {after} after"
    );
    if cygnet_is_wide {
        // Cygnet owns all of its remote networks: what the child does not take goes nowhere.
        let near = &pair.near().second_host;
        pair.offices.reset_counters()?;
        ping(near, &beside.far_address, 1)?;
        let passed = pair.offices.counters()?;
        ensure!(passed.leaked == 0, "in clear on the link: {passed:?}");
    }
    Ok(told)
}

fn one_protocol(lab: &Lab, role: Role) -> Result<String> {
    let (cygnet, swan) = subnets(role);
    let mut plan = Plan::shared_key(role);
    let mut child = ChildPlan::agreed(NET, &cygnet[..1], &swan[..1]);
    for networks in [&mut child.swan.0, &mut child.swan.1] {
        for network in networks.iter_mut() {
            network.push_str("[icmp]");
        }
    }
    plan.children = vec![child];
    let pair = Pair::connected(lab, plan)?;
    let told = pair.carry()?;
    let before = pair.wait_for_child(NET)?;
    let (near, far) = (pair.near(), pair.far());
    let send = "import socket,sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 9))";
    near.host.exec(["python3", "-c", send, far.host4])?;
    // An answered ping after it shows that the datagram would have been counted by now.
    near.host.exec(["ping", "-n", "-c1", "-W5", far.host4])?;
    let after = pair.wait_for_child(NET)?;
    ensure!(
        after.packets_out == before.packets_out + 1,
        "a UDP datagram and a ping: {} packets sent",
        after.packets_out - before.packets_out
    );
    ensure!(pair.offices.counters()?.leaked == 0, "the datagram leaked");
    Ok(told)
}

fn trap(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Initiator).cygnet_line("start = \"traffic\"");
    let pair = Pair::start(lab, plan)?;
    let state = pair.cygnet.connection(OFFICE)?.state;
    ensure!(
        state == "idle" && pair.swan.sas()?.is_empty(),
        "before the first packet the connection is {state}"
    );
    let (near, far) = (pair.near(), pair.far());
    ping_until_answered(&near.host, far.host4, SOON).map_err(|failure| pair.with_log(failure))?;
    pair.wait_for_child(NET)?;
    pair.carry()
}

fn trap_again(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Initiator).cygnet_line("start = \"traffic\"");
    let pair = Pair::start(lab, plan)?;
    let (near, far) = (pair.near(), pair.far());
    for round in ["child", "IKE SA"] {
        ping_until_answered(&near.host, far.host4, SOON)
            .map_err(|failure| pair.with_log(failure))?;
        pair.wait_for_child(NET)?;
        pair.carry()?;
        if round == "child" {
            pair.swan.terminate_child(NET)?;
        } else {
            pair.swan.terminate(OFFICE)?;
        }
        wait_for("the child is gone", SOON, || {
            Ok(pair.children(NET)?.is_empty().then_some(()))
        })?;
        // It waits for traffic, nothing comes back by itself.
        let state = pair.cygnet.connection(OFFICE)?.state;
        ensure!(
            pair.swan.installed_children(NET)?.is_empty(),
            "after the {round} was taken down it came back without traffic, state {state}"
        );
    }
    ping_until_answered(&near.host, far.host4, SOON).map_err(|failure| pair.with_log(failure))?;
    pair.wait_for_child(NET)?;
    pair.carry()
}
