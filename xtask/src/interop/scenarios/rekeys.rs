//! New keys under traffic: not one packet may be lost, whoever begins.

use super::super::Scenario;
use super::super::flow::Tally;
use super::super::pair::{Pair, SOON, same};
use super::super::plan::{NET, OFFICE, Plan, Role};
use crate::ensure;
use crate::lab::{Lab, Result, wait_for};
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for role in Role::BOTH {
        for (who, by) in [
            ("cygnet", By::Cygnet),
            ("strongswan", By::StrongSwan),
            ("both", By::Both),
        ] {
            for (what, esp) in [
                ("child", "aes128gcm16"),
                ("child-pfs", "aes128gcm16-x25519"),
            ] {
                let name = format!("rekey-{what}-by-{who}-{}", role.name());
                let about = format!("{who} gives a child new keys under 10 Mbit/s of UDP each way");
                all.push(Scenario::new(name, about, move |lab| {
                    rekey_child(lab, role, by, esp)
                }));
            }
            let name = format!("rekey-ike-by-{who}-{}", role.name());
            let about = format!("{who} gives the IKE SA new keys under 10 Mbit/s of UDP each way");
            all.push(Scenario::new(name, about, move |lab| {
                rekey_ike(lab, role, by)
            }));
        }
        for (word, line) in [
            ("seconds", "child_lifetime = \"1s\""),
            ("packets", "child_packets = 1500"),
            ("bytes", "child_bytes = \"1500kB\""),
        ] {
            let name = format!("lifetime-{word}-{}", role.name());
            let about = format!("{line}: several generations of keys under traffic");
            all.push(Scenario::new(name, about, move |lab| {
                lifetimes(lab, role, line)
            }));
        }
        all.push(Scenario::new(
            format!("lifetime-both-{}", role.name()),
            "both ends rekey child and IKE SA every second or two, as it comes, under traffic",
            move |lab| restless(lab, role),
        ));
    }
    all.push(Scenario::new(
        "reauth-by-cygnet-initiator",
        "Cygnet proves itself anew, make before break, under traffic",
        |lab| reauthentication(lab, By::Cygnet),
    ));
    all.push(Scenario::new(
        "reauth-by-lifetime-initiator",
        "the same when its time has come, several times",
        reauthentication_by_lifetime,
    ));
    all.push(Scenario::new(
        "reauth-by-strongswan-responder",
        "strongSwan proves itself anew, make before break, under traffic",
        |lab| reauthentication(lab, By::StrongSwan),
    ));
    all.push(Scenario::new(
        "reauth-break-before-make-responder",
        "strongSwan takes its tunnel down to prove itself anew: it comes back",
        broken_reauthentication,
    ));
    all
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Cygnet,
    StrongSwan,
    Both,
}

/// Does it at one end, or at both at the same time.
fn begin(
    by: By,
    cygnet: impl Fn() -> Result<()> + Send,
    swan: impl Fn() -> Result<()> + Sync,
) -> Result<()> {
    match by {
        By::Cygnet => cygnet(),
        By::StrongSwan => swan(),
        By::Both => std::thread::scope(|scope| {
            let theirs = scope.spawn(&swan);
            let own = cygnet();
            own.and(theirs.join().unwrap_or(Ok(())))
        }),
    }
}

fn rekey_child(lab: &Lab, role: Role, by: By, esp: &str) -> Result<String> {
    let plan = Plan::shared_key(role).suite("aes128gcm16-prfsha256-x25519", esp);
    let pair = Pair::connected(lab, plan)?;
    let old = pair.wait_for_child(NET)?;
    let told = pair.loss_free(|| {
        let old = pair.wait_for_child(NET)?;
        begin(
            by,
            || pair.cygnet.request(OFFICE, "rekey", Some(NET)),
            || pair.swan.rekey_child(NET),
        )?;
        wait_for("the child has new keys", SOON, || {
            Ok((pair.wait_for_child(NET)?.spi_in != old.spi_in).then_some(()))
        })
    })?;
    let new = pair.wait_for_child(NET)?;
    pair.ike_sa()?;
    pair.carry()?;
    Ok(format!("{} became {}; {told}", old.spi_in, new.spi_in))
}

fn rekey_ike(lab: &Lab, role: Role, by: By) -> Result<String> {
    let pair = Pair::connected(lab, Plan::shared_key(role))?;
    let child = pair.wait_for_child(NET)?;
    let told = pair.loss_free(|| {
        let old = pair.ike_sa()?.0;
        begin(
            by,
            || pair.cygnet.request(OFFICE, "rekey", None),
            || pair.swan.rekey(OFFICE),
        )?;
        pair.wait_for_new_ike_sa(&old)
    })?;
    let kept = pair.wait_for_child(NET)?;
    ensure!(
        kept.spi_in == child.spi_in,
        "the child should have stayed as it was: {} became {}",
        child.spi_in,
        kept.spi_in
    );
    pair.carry()?;
    // The new IKE SA can do what the old one could.
    pair.cygnet.request(OFFICE, "rekey", Some(NET))?;
    wait_for("the new IKE SA rekeys its child", SOON, || {
        Ok((pair.wait_for_child(NET)?.spi_in != kept.spi_in).then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    pair.carry()?;
    Ok(told)
}

fn lifetimes(lab: &Lab, role: Role, line: &str) -> Result<String> {
    let plan = Plan::shared_key(role).cygnet_line(line);
    let pair = Pair::connected(lab, plan)?;
    let mut seen = BTreeSet::new();
    let told = pair.loss_free(|| {
        seen.clear();
        wait_for("four generations of keys", Duration::from_secs(12), || {
            seen.extend(pair.children(NET)?.into_iter().map(|child| child.spi_in));
            Ok((seen.len() >= 4).then_some(()))
        })
        .map_err(|failure| pair.with_log(failure))
    })?;
    pair.ike_sa()?;
    Ok(format!("{} generations; {told}", seen.len()))
}

/// Collisions of every kind are bound to happen.
fn restless(lab: &Lab, role: Role) -> Result<String> {
    let plan = Plan::shared_key(role)
        .suite("aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519")
        .cygnet_line("child_lifetime = \"1s\"")
        .cygnet_line("ike_lifetime = \"1.7s\"")
        .swan_set("rekey_time", "2s")
        .swan_set("over_time", "1m")
        .swan_set("rand_time", "1s")
        .swan_child("rekey_time", "1s")
        .swan_child("life_time", "1m")
        .swan_child("rand_time", "0s");
    let pair = Pair::connected(lab, plan)?;
    let (mut children, mut parents) = (BTreeSet::new(), BTreeSet::new());
    let told = pair.loss_free(|| {
        children.clear();
        parents.clear();
        wait_for("five generations of both", Duration::from_secs(20), || {
            for sa in pair.cygnet.connection(OFFICE)?.ike_sas {
                children.extend(sa.children.into_iter().map(|child| child.spi_in));
                parents.insert((sa.initiator_spi, sa.responder_spi));
            }
            Ok((children.len() >= 5 && parents.len() >= 5).then_some(()))
        })
        .map_err(|failure| pair.with_log(failure))
    })?;
    Ok(format!(
        "{} generations of the child, {} of the IKE SA; {told}",
        children.len(),
        parents.len()
    ))
}

/// What strongSwan says of each datagram that it throws away because it has removed the Child SA, at
/// level 2 of `esp`.
const UNKNOWN: &str = "inbound ESP packet does not belong to an installed SA";

/// With the old IKE SA a strongSwan that begins removes its Child SA at once, and what another of its
/// threads still has to open is lost. Such a run is made again where its own log accounts for each
/// lost datagram, all of them went to it, and Cygnet dropped none.
fn peer_loses(pair: &Pair) -> Result<impl FnMut(&Tally) -> Result<bool>> {
    let count = |pair: &Pair| pair.swan.log().matches(UNKNOWN).count() as u64;
    let (mut thrown_away, mut drops) = (count(pair), pair.cygnet.drops()?);
    Ok(move |tally: &Tally| {
        let (now, dropped) = (count(pair), pair.cygnet.drops()?);
        let [to_peer, from_peer] = tally.lost;
        let accounted = now - thrown_away >= to_peer && from_peer == 0 && dropped == drops;
        (thrown_away, drops) = (now, dropped);
        Ok(accounted)
    })
}

fn reauthentication(lab: &Lab, by: By) -> Result<String> {
    let role = if by == By::Cygnet {
        Role::Initiator
    } else {
        Role::Responder
    };
    let plan = Plan::certificates(role, crate::lab::pki::KeyKind::EcP256)?
        .swan_daemon("make_before_break = yes")
        .swan_daemon("filelog { log { esp = 2 } }");
    let pair = Pair::connected(lab, plan)?;
    let mut excused = peer_loses(&pair)?;
    let told = pair.loss_free_but(
        || {
            let old = pair.ike_sa()?.0;
            begin(
                by,
                || pair.cygnet.request(OFFICE, "reauthenticate", None),
                || pair.swan.reauthenticate(OFFICE),
            )?;
            wait_for("another IKE SA took over", SOON, || {
                let new = pair.ike_sa()?.0;
                pair.wait_for_child(NET)?;
                Ok((!same(&new.initiator_spi, &old.initiator_spi)).then_some(()))
            })
        },
        |tally| Ok(by == By::StrongSwan && excused(tally)?),
    )?;
    pair.carry()?;
    Ok(told)
}

fn reauthentication_by_lifetime(lab: &mut Lab) -> Result<String> {
    let plan = Plan::certificates(Role::Initiator, crate::lab::pki::KeyKind::EcP256)?
        .cygnet_line("reauth = \"1s\"");
    let pair = Pair::connected(lab, plan)?;
    let mut seen = BTreeSet::new();
    let told = pair.loss_free(|| {
        seen.clear();
        wait_for("three IKE SAs one after the other", SOON, || {
            let all = pair.cygnet.connection(OFFICE)?.ike_sas;
            let up = all.into_iter().filter(|sa| sa.state == "up");
            seen.extend(up.map(|sa| sa.initiator_spi));
            Ok((seen.len() >= 3).then_some(()))
        })
        .map_err(|failure| pair.with_log(failure))
    })?;
    Ok(format!("{} IKE SAs; {told}", seen.len()))
}

fn broken_reauthentication(lab: &mut Lab) -> Result<String> {
    let plan = Plan::certificates(Role::Responder, crate::lab::pki::KeyKind::EcP256)?;
    let pair = Pair::connected(lab, plan)?;
    let old = pair.ike_sa()?.0;
    pair.carry()?;
    pair.swan.reauthenticate(OFFICE)?;
    wait_for("another IKE SA took over", SOON, || {
        let new = pair.ike_sa()?.0;
        Ok((!same(&new.initiator_spi, &old.initiator_spi)).then_some(()))
    })?;
    pair.wait_for_child(NET)?;
    pair.carry()
}
