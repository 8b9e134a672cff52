//! MOBIKE (RFC 4555): whoever calls changes its network, and the tunnel is the same.

use super::super::Scenario;
use super::super::pair::{Pair, SOON, Way, same};
use super::super::plan::{ChildPlan, Inner, NET, OFFICE, Plan, Role, SERVER};
use super::addresses::server_setup;
use crate::ensure;
use crate::lab::offices::{Nat, Office, Offices};
use crate::lab::pki::KeyKind;
use crate::lab::traffic::ping_until_answered;
use crate::lab::{Failure, Lab, Namespace, Result, wait_for};
use std::time::{Duration, Instant};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for role in Role::BOTH {
        let who = match role {
            Role::Initiator => "Cygnet moves at a strongSwan server",
            Role::Responder => "strongSwan moves at a Cygnet server",
        };
        all.push(Scenario::new(
            format!("mobike-move-{}", role.name()),
            format!("{who}: another address, twice, and back"),
            move |lab| moves(lab, role, &["192.0.2.71", "192.0.2.72", "192.0.2.1"]),
        ));
        all.push(Scenario::new(
            format!("mobike-family-{}", role.name()),
            format!("{who}: from IPv4 to IPv6 and back"),
            move |lab| moves(lab, role, &["2001:db8::71", "192.0.2.73"]),
        ));
        all.push(Scenario::new(
            format!("mobike-rekey-{}", role.name()),
            format!("{who} while the IKE SA is rekeyed"),
            move |lab| rekeyed(lab, role),
        ));
    }
    all.push(Scenario::new(
        "mobike-off-initiator",
        "strongSwan does no MOBIKE: Cygnet moves, and calls again by itself",
        unwilling,
    ));
    all
}

/// Who moves gets an address of this pool.
const POOL: &str = "10.77.0.0/24";
/// Where who moves may be, beside where it is at first.
const PLACES: [&str; 4] = ["192.0.2.71", "192.0.2.72", "192.0.2.73", "2001:db8::71"];
/// Between a move and the first answer through the tunnel.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The two ends, up: who calls has a virtual address, and is in office `a`. Cygnet's tunnel has these lines, too.
pub(super) fn pair(lab: &Lab, role: Role, mobike: &str, lines: &[&str]) -> Result<Pair> {
    let mut plan = Plan::certificates(role, KeyKind::EcP256)?.swan_set("mobike", mobike);
    for line in lines {
        plan = plan.cygnet_line(line);
    }
    let mut offices = Offices::build(lab, Nat::None)?;
    for link in &mut offices.links {
        link.add_ends(&PLACES, &[])?;
    }
    offices.block_all_but_tunnel()?;
    let behind = Inner::V4.networks(&offices.b);
    let server = (behind.clone(), Vec::new());
    let client = (Vec::new(), behind);
    let (cygnet, swan) = match role {
        Role::Initiator => (client, server),
        Role::Responder => (server, client),
    };
    let name = NET.to_owned();
    plan.children = vec![ChildPlan { name, cygnet, swan }];
    let setup = match role {
        Role::Initiator => {
            plan = plan.cygnet_line("virtual_address = true");
            plan.swan_pools = vec![("pool", POOL)];
            plan.cygnet_setup(&offices)
        }
        Role::Responder => {
            plan.connection = SERVER;
            plan = plan.swan_set("vips", "0.0.0.0");
            server_setup(&plan, &[POOL], "")
        }
    };
    let mut swan_setup = plan.swan_setup(&offices);
    for connection in &mut swan_setup.config.connections {
        // Who moves has none of its own.
        connection.local_addresses = vec!["%any".to_owned()];
    }
    // charon passes over a message whose ID it is at work on, be it a response to a request of its own: Cygnet's
    // update and charon's rekey that it leads to may have the same. It asks again after four seconds by default.
    swan_setup
        .settings
        .push("retransmit_timeout = 1.0".to_owned());
    let pair = Pair::start_as(lab, plan, offices, &setup, &swan_setup)?;
    pair.connect()?;
    Ok(pair)
}

/// From who moves, with its virtual address, to the host behind the other.
pub(super) struct Road {
    mover: Namespace,
    virtual_address: String,
    host: Namespace,
    host_address: &'static str,
}

impl Road {
    pub(super) fn of(pair: &Pair) -> Result<Self> {
        let (a, b): (&Office, &Office) = (&pair.offices.a, &pair.offices.b);
        let (own, _) = pair.ike_sa()?;
        let lent = own.virtual_addresses.first().cloned();
        Ok(Self {
            mover: a.gateway.clone(),
            virtual_address: lent.ok_or_else(|| Failure::new("no virtual address"))?,
            host: b.host.clone(),
            host_address: b.host4,
        })
    }

    /// The way as a pair counts it: Cygnet's end first.
    fn way(&self, role: Role) -> Way {
        let mover = (&self.mover, self.virtual_address.as_str());
        let host = (&self.host, self.host_address);
        match role {
            Role::Initiator => Way::new(mover, host),
            Role::Responder => Way::new(host, mover),
        }
    }

    /// Takes all outer addresses away and gives it this one.
    fn leave_for(&self, pair: &Pair, address: &str) -> Result<()> {
        let length = if address.contains(':') { 64 } else { 24 };
        // The link-local address stays, or there is no IPv6 at all.
        self.mover.shell(&format!(
            "ip -4 addr flush dev wan; ip -6 addr flush dev wan scope global; \
             ip addr add {address}/{length} dev wan nodad"
        ))?;
        let (peer4, peer6) = (pair.offices.b.outer4, pair.offices.b.outer6);
        let via = if length == 64 { peer6 } else { peer4 };
        self.mover.default_route(via)
    }

    /// The same; how long the tunnel carries nothing.
    pub(super) fn move_to(&self, pair: &Pair, address: &str) -> Result<Duration> {
        self.leave_for(pair, address)?;
        let begun = Instant::now();
        ping_until_answered(&self.host, &self.virtual_address, SOON)
            .map_err(|failure| pair.with_log(failure))?;
        Ok(begun.elapsed())
    }
}

/// SPIs of the IKE SA, the same at both ends.
fn spis(pair: &Pair) -> Result<[String; 2]> {
    let (own, _) = pair.ike_sa()?;
    Ok([own.initiator_spi, own.responder_spi])
}

/// strongSwan's ESP in user space cannot change the addresses of a Child SA, so that strongSwan rekeys it
/// after each move. Cygnet has no reason to.
fn cygnet_rekeys_nothing(pair: &Pair) -> Result<()> {
    pair.wait_for_child(NET)?;
    let log = pair.swan.log();
    let asked = log
        .lines()
        .find(|line| line.contains("parsed CREATE_CHILD_SA request"));
    ensure!(
        asked.is_none(),
        "Cygnet rekeys: {}",
        asked.unwrap_or_default()
    );
    Ok(())
}

/// Both ends have the tunnel at `address`.
fn is_at(pair: &Pair, role: Role, address: &str) -> Result<()> {
    let mut seen = String::new();
    wait_for("both ends know the new address", SOON, || {
        let (own, theirs) = pair.ike_sa()?;
        let (told, known) = match role {
            Role::Initiator => (own.local, theirs.remote_host),
            Role::Responder => (own.remote, theirs.local_host),
        };
        seen = format!("{told} and {known}");
        let host = told.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        Ok((host == address && known == address).then_some(()))
    })
    .map_err(|failure| pair.with_log(Failure::new(format!("{failure}: {seen}"))))
}

fn moves(lab: &Lab, role: Role, places: &[&str]) -> Result<String> {
    let pair = pair(lab, role, "yes", &[])?;
    let road = Road::of(&pair)?;
    let ways = [road.way(role)];
    pair.carry_on(&ways)?;
    let before = spis(&pair)?;
    let mut told = Vec::new();
    for place in places {
        let took = road.move_to(&pair, place)?;
        ensure!(took < AT_ONCE, "the first answer after {took:?} only");
        is_at(&pair, role, place)?;
        let after = spis(&pair)?;
        ensure!(
            before
                .iter()
                .zip(&after)
                .all(|(one, other)| same(one, other)),
            "the IKE SA is another one: {before:?}, then {after:?}"
        );
        cygnet_rekeys_nothing(&pair)?;
        pair.carry_on(&ways)?;
        told.push(format!("{:.2} s", took.as_secs_f32()));
    }
    let status = pair.cygnet.command(&["status"])?;
    ensure!(
        status.contains("may move"),
        "status does not say so: {status}"
    );
    Ok(format!(
        "the same tunnel, first answers after {}",
        told.join(", ")
    ))
}

/// New keys are asked for by the end that stays, and by the one that moves, just before it does.
fn rekeyed(lab: &Lab, role: Role) -> Result<String> {
    let pair = pair(lab, role, "yes", &[])?;
    let road = Road::of(&pair)?;
    let ways = [road.way(role)];
    let connection = pair.plan.connection;
    for (by_cygnet, place) in [(true, "192.0.2.71"), (false, "192.0.2.72")] {
        let before = pair.ike_sa()?.0;
        match by_cygnet {
            true => pair.cygnet.request(connection, "rekey", None)?,
            false => pair.swan.rekey(OFFICE)?,
        }
        road.move_to(&pair, place)?;
        is_at(&pair, role, place)?;
        pair.wait_for_new_ike_sa(&before)
            .map_err(|failure| pair.with_log(failure))?;
        pair.carry_on(&ways)?;
    }
    ensure!(calls(&pair)? == 1, "Cygnet or strongSwan has called again");
    Ok("new IKE keys and a new address at once, and no other call".to_owned())
}

/// How often one end has called the other.
fn calls(pair: &Pair) -> Result<usize> {
    let log = pair.swan.log();
    let calls = log
        .lines()
        .filter(|line| line.contains("IKE_SA_INIT request"));
    Ok(calls.count())
}

fn unwilling(lab: &mut Lab) -> Result<String> {
    let pair = pair(lab, Role::Initiator, "no", &[])?;
    let road = Road::of(&pair)?;
    let [before, _] = spis(&pair)?;
    road.leave_for(&pair, "192.0.2.71")?;
    let begun = Instant::now();
    let lent = wait_for("Cygnet calls from its new address", SOON, || {
        let up = pair.cygnet.connection(pair.plan.connection)?.ike_sas;
        let mut others = up.into_iter().filter(|sa| {
            sa.state == "up"
                && !same(&sa.initiator_spi, &before)
                && !sa.virtual_addresses.is_empty()
        });
        Ok(others.next().map(|sa| sa.virtual_addresses.concat()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    ping_until_answered(&road.host, &lent, SOON).map_err(|failure| pair.with_log(failure))?;
    let took = begun.elapsed();
    Ok(format!("another tunnel after {:.1} s", took.as_secs_f32()))
}
