//! Hooks: what a Cygnet tells one is what strongSwan tells its updown script of the same tunnel at the other end; one
//! that hangs or fails harms nothing; strongSwan's own script of iptables rules does its work.

use super::super::Scenario;
use super::super::pair::{Pair, SOON};
use super::super::plan::{ChildPlan, INTERFACE, Inner, NET, OFFICE, Plan, Role, SERVER};
use super::addresses::server_setup;
use super::{eap, mobike};
use crate::ensure;
use crate::lab::offices::{Nat, Offices};
use crate::lab::pki::KeyKind;
use crate::lab::traffic::ping_until_answered;
use crate::lab::{Failure, Lab, Result, wait_for};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for role in Role::BOTH {
        all.push(Scenario::new(
            format!("hook-as-strongswan-{}", role.name()),
            "two pairs of networks: both ends' scripts are told the same, each from its side",
            move |lab| networks(lab, role),
        ));
    }
    all.push(Scenario::new(
        "hook-as-strongswan-client",
        "virtual addresses and resolvers of a strongSwan server, as its script knows them",
        client,
    ));
    all.push(Scenario::new(
        "hook-as-strongswan-server",
        "a Cygnet server's hook is told of a strongSwan client what that tells its own script",
        server,
    ));
    all.push(Scenario::new(
        "hook-as-strongswan-server-eap",
        "the same of one that logs in by EAP: who it said it was, and who it is",
        server_eap,
    ));
    all.push(Scenario::new(
        "hook-moves",
        "another outer address: the hook is told that the old is down and the new is up",
        moves,
    ));
    all.push(Scenario::new(
        "hook-hangs",
        "a hook that never ends is ended, and nothing waits for it meanwhile",
        hangs,
    ));
    all.push(Scenario::new(
        "hook-fails",
        "a hook that fails is in the log with what it said, and the tunnel carries",
        fails,
    ));
    all.push(Scenario::new(
        "hook-killed",
        "SIGKILL to Cygnet: what its hook was told is undone by the next run, then told anew",
        killed,
    ));
    all.push(Scenario::new(
        "hook-stock-iptables",
        "strongSwan's own _updown opens a closed firewall for the tunnel, and closes it again",
        stock,
    ));
    all
}

/// A script that writes down what it is told.
struct Recorder {
    script: PathBuf,
    file: PathBuf,
}

/// What a script was told once.
type Told = BTreeMap<String, String>;

impl Recorder {
    fn new(lab: &Lab, name: &str) -> Result<Self> {
        let file = lab.subdirectory("hooks")?.join(format!("{name}.told"));
        let body = format!(
            "{{ env | grep -E '^(PLUTO|CYGNET)_' | sort; echo --; }} >> '{}'",
            file.display()
        );
        let script = lab.script(name, &body)?;
        Ok(Self { script, file })
    }

    fn line(&self) -> String {
        format!("hook = \"{}\"", self.script.display())
    }

    /// All it was told so far, as far as it is written.
    fn told(&self) -> Vec<Told> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.split_inclusive("--\n");
        let whole = whole.filter_map(|block| block.strip_suffix("--\n"));
        let variables = |block: &str| {
            let pairs = block.lines().filter_map(|line| line.split_once('='));
            pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
        };
        whole.map(variables).collect()
    }

    /// Waits until it was told so many times, and looks that it is not told more.
    fn wait(&self, times: usize, pair: &Pair) -> Result<Vec<Told>> {
        let what = format!("{} is told {times} times", self.script.display());
        wait_for(&what, SOON, || {
            Ok((self.told().len() >= times).then_some(()))
        })
        .map_err(|failure| pair.with_log(Failure::new(format!("{failure}: {:?}", self.told()))))?;
        crate::lab::interrupt::pause(Duration::from_millis(300))?;
        let told = self.told();
        ensure!(told.len() == times, "more than {times} runs: {told:?}");
        Ok(told)
    }
}

/// What one end is told, said from the other's side.
fn from_the_other_side(told: &Told) -> Told {
    let other = |name: &str| {
        let Some(rest) = name.strip_prefix("PLUTO_") else {
            return name.to_owned();
        };
        match (rest.strip_prefix("MY_"), rest.strip_prefix("PEER_")) {
            _ if rest == "ME" => "PLUTO_PEER".to_owned(),
            _ if rest == "PEER" => "PLUTO_ME".to_owned(),
            (Some(rest), _) => format!("PLUTO_PEER_{rest}"),
            (_, Some(rest)) => format!("PLUTO_MY_{rest}"),
            _ => name.to_owned(),
        }
    };
    let swapped = told.iter().map(|(n, value)| (other(n), value.clone()));
    swapped.collect()
}

/// Each end has its own: its interface, its numbers, its name for the connection; only a client is told of resolvers,
/// and what Cygnet adds.
fn comparable(told: &Told) -> Told {
    let own = |name: &str| {
        let exactly = [
            "PLUTO_INTERFACE",
            "PLUTO_REQID",
            "PLUTO_UNIQUEID",
            "PLUTO_CONNECTION",
            "PLUTO_HOST_ACCESS",
            // Of whoever logs in at this end alone.
            "PLUTO_XAUTH_ID",
        ];
        exactly.contains(&name) || name.starts_with("CYGNET_") || name.starts_with("PLUTO_DNS")
    };
    let all = told.iter().filter(|(name, _)| !own(name));
    all.map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// Asserts that for each run of one script there is one of the other that was told the same.
fn compare(ours: &[Told], theirs: &[Told]) -> Result<()> {
    ensure!(ours.len() == theirs.len(), "{ours:?}\n{theirs:?}");
    let mut left: Vec<Told> = theirs.iter().map(from_the_other_side).collect();
    for own in ours {
        let own = comparable(own);
        let same = left.iter().position(|told| comparable(told) == own);
        let Some(at) = same else {
            return Err(Failure::new(format!(
                "no run of strongSwan's script was told\n {own:?}, but, from the other side,\n {left:?}"
            )));
        };
        left.remove(at);
    }
    Ok(())
}

fn value<'a>(told: &'a Told, name: &str) -> &'a str {
    told.get(name).map_or("", String::as_str)
}

fn verbs(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| value(told, "PLUTO_VERB")).collect()
}

/// Up, compared, down, compared; `times` runs each.
fn up_and_down(
    pair: &Pair,
    ours: &Recorder,
    theirs: &Recorder,
    times: usize,
) -> Result<(Vec<Told>, Vec<Told>)> {
    let up = (ours.wait(times, pair)?, theirs.wait(times, pair)?);
    compare(&up.0, &up.1)?;
    ensure!(
        verbs(&up.0)
            .iter()
            .all(|verb| verb.starts_with("up-client")),
        "{:?}",
        verbs(&up.0)
    );
    pair.cygnet.down(pair.plan.connection)?;
    let all = (ours.wait(2 * times, pair)?, theirs.wait(2 * times, pair)?);
    compare(&all.0, &all.1)?;
    let down = all.0.get(times..).unwrap_or_default();
    for (up, down) in up.0.iter().zip(down) {
        let mut expected = up.clone();
        let verb = value(up, "PLUTO_VERB").replace("up-", "down-");
        expected.insert("PLUTO_VERB".to_owned(), verb);
        ensure!(*down == expected, "up {up:?}, then down {down:?}");
    }
    Ok(all)
}

fn networks(lab: &Lab, role: Role) -> Result<String> {
    let (ours, theirs) = (
        Recorder::new(lab, "cygnet")?,
        Recorder::new(lab, "strongswan")?,
    );
    let mut plan = Plan::certificates(role, KeyKind::EcP256)?
        .cygnet_line(&ours.line())
        .swan_child("updown", &theirs.script.to_string_lossy());
    plan.inner = Inner::Both;
    let pair = Pair::connected(lab, plan)?;
    let (own, other) = up_and_down(&pair, &ours, &theirs, 2)?;
    for told in &own {
        let names = [
            "PLUTO_CONNECTION",
            "PLUTO_INTERFACE",
            "CYGNET_TUNNEL",
            "CYGNET_CHILD",
        ];
        let named = names.map(|name| value(told, name));
        ensure!(named == [OFFICE, INTERFACE, OFFICE, NET], "{named:?}");
    }
    let mut families = verbs(&own);
    families.sort_unstable();
    let expected = ["down-client", "down-client-v6", "up-client", "up-client-v6"];
    ensure!(families == expected, "{families:?}");
    // New keys are no news.
    pair.connect()?;
    ours.wait(6, &pair)?;
    pair.cygnet.request(OFFICE, "rekey", Some(NET))?;
    pair.cygnet.wait_for_log("keys renewed", SOON)?;
    let before = pair.ike_sa()?.0;
    pair.cygnet.request(OFFICE, "rekey", None)?;
    pair.wait_for_new_ike_sa(&before)?;
    ours.wait(6, &pair)?;
    let variables = other.first().map_or(0, BTreeMap::len);
    Ok(format!(
        "{} runs, {variables} variables of strongSwan's",
        own.len()
    ))
}

const POOLS: [(&str, &str); 2] = [("pool4", "10.77.0.0/24"), ("pool6", "fd77::/112")];
const RESOLVERS: [&str; 2] = ["10.77.0.53", "fd77::53"];

fn client(lab: &mut Lab) -> Result<String> {
    let (ours, theirs) = (
        Recorder::new(lab, "cygnet")?,
        Recorder::new(lab, "strongswan")?,
    );
    let mut plan = Plan::certificates(Role::Initiator, KeyKind::EcP256)?
        .cygnet_line("virtual_address = true")
        .cygnet_line(&ours.line())
        .swan_child("updown", &theirs.script.to_string_lossy());
    plan.inner = Inner::Both;
    plan.swan_pools = POOLS.to_vec();
    let mut offices = Offices::build(lab, Nat::None)?;
    let behind = plan.inner.networks(&offices.b);
    plan.children = vec![ChildPlan {
        name: NET.to_owned(),
        cygnet: (Vec::new(), behind.clone()),
        swan: (behind, Vec::new()),
    }];
    let setup = plan.cygnet_setup(&offices);
    let mut swan_setup = plan.swan_setup(&offices);
    for (pool, resolver) in swan_setup.config.pools.iter_mut().zip(RESOLVERS) {
        pool.dns = vec![resolver.to_owned()];
    }
    offices.block_all_but_tunnel()?;
    let pair = Pair::start_as(lab, plan, offices, &setup, &swan_setup)?;
    pair.connect()?;
    let (own, _) = up_and_down(&pair, &ours, &theirs, 2)?;
    let lent = own.first().map(|told| {
        let names = [
            "PLUTO_MY_SOURCEIP4_1",
            "PLUTO_MY_SOURCEIP6_1",
            "PLUTO_DNS4_1",
            "PLUTO_DNS6_1",
        ];
        names.map(|name| value(told, name).to_owned())
    });
    let expected = ["10.77.0.1", "fd77::1", RESOLVERS[0], RESOLVERS[1]];
    let lent = lent.unwrap_or_default();
    ensure!(lent == expected, "{lent:?}");
    Ok(lent.join(" "))
}

fn server(lab: &mut Lab) -> Result<String> {
    let (ours, theirs) = (
        Recorder::new(lab, "cygnet")?,
        Recorder::new(lab, "strongswan")?,
    );
    let mut plan = Plan::certificates(Role::Responder, KeyKind::EcP256)?
        .swan_set("vips", "0.0.0.0")
        .swan_child("updown", &theirs.script.to_string_lossy());
    plan.connection = SERVER;
    let mut offices = Offices::build(lab, Nat::None)?;
    offices.block_all_but_tunnel()?;
    let behind = Inner::V4.networks(&offices.b);
    plan.children = vec![ChildPlan {
        name: NET.to_owned(),
        cygnet: (behind.clone(), Vec::new()),
        swan: (Vec::new(), behind),
    }];
    let setup = server_setup(&plan, &[POOLS[0].1], &ours.line());
    let pair = Pair::start_with(lab, plan, offices, &setup)?;
    pair.connect()?;
    let (own, _) = up_and_down(&pair, &ours, &theirs, 1)?;
    let told = own.first().cloned().unwrap_or_default();
    let names = [
        "PLUTO_CONNECTION",
        "PLUTO_PEER_SOURCEIP",
        "PLUTO_PEER_CLIENT",
        "PLUTO_HOST_ACCESS",
    ];
    let named = names.map(|name| value(&told, name));
    ensure!(
        named == [SERVER, "10.77.0.2", "10.77.0.2/32", "1"],
        "{named:?}"
    );
    Ok(named.join(" "))
}

fn server_eap(lab: &mut Lab) -> Result<String> {
    let (ours, theirs) = (
        Recorder::new(lab, "cygnet")?,
        Recorder::new(lab, "strongswan")?,
    );
    let plan = eap::device(eap::USER, eap::PASSWORD)?
        .swan_child("updown", &theirs.script.to_string_lossy());
    let pair = eap::start(lab, plan, &[(eap::USER, eap::PASSWORD)], &ours.line())?;
    pair.connect()?;
    let (own, other) = up_and_down(&pair, &ours, &theirs, 1)?;
    let (Some(told), Some(theirs)) = (own.first(), other.first()) else {
        return Err(Failure::new("no run"));
    };
    let names = ["PLUTO_PEER_ID", "PLUTO_XAUTH_ID"].map(|name| value(told, name));
    ensure!(
        names == [value(theirs, "PLUTO_MY_ID"), eap::USER] && names[0] != names[1],
        "{names:?}, and strongSwan's script {theirs:?}"
    );
    Ok(names.join(" is "))
}

fn moves(lab: &mut Lab) -> Result<String> {
    let ours = Recorder::new(lab, "cygnet")?;
    let pair = mobike::pair(lab, Role::Initiator, "yes", &[&ours.line()])?;
    let road = mobike::Road::of(&pair)?;
    ours.wait(1, &pair)?;
    road.move_to(&pair, "192.0.2.71")?;
    let told = ours.wait(3, &pair)?;
    let seen: Vec<String> = told
        .iter()
        .map(|told| format!("{} {}", value(told, "PLUTO_VERB"), value(told, "PLUTO_ME")))
        .collect();
    let expected = [
        "up-client 192.0.2.1",
        "down-client 192.0.2.1",
        "up-client 192.0.2.71",
    ];
    ensure!(seen == expected, "{seen:?}");
    Ok(seen.join(", "))
}

fn hangs(lab: &mut Lab) -> Result<String> {
    let file = lab.subdirectory("hooks")?.join("pid");
    let body = format!(
        "trap '' TERM\necho $$ >> '{}'\nsleep 1000 &\nwhile :; do wait; sleep 1; done",
        file.display()
    );
    let hook = lab.script("hangs", &body)?;
    let plan = Plan::shared_key(Role::Initiator)
        .cygnet_line(&format!("hook = \"{}\"", hook.display()))
        .cygnet_line("hook_timeout = \"12s\"");
    let mut pair = Pair::connected(lab, plan)?;
    wait_for("the hook runs", SOON, || Ok(file.exists().then_some(())))?;
    pair.carry()?;
    let asked = Instant::now();
    pair.cygnet.status()?;
    let took = asked.elapsed();
    ensure!(took < Duration::from_secs(5), "`status` waits: {took:?}");
    // Whatever happens to the tunnel goes on as well.
    pair.cygnet.request(OFFICE, "rekey", Some(NET))?;
    pair.cygnet
        .wait_for_log("keys renewed", Duration::from_secs(5))?;
    let line = pair
        .cygnet
        .wait_for_log("did not end within 12.0 s", Duration::from_secs(30))?;
    let pids = fs::read_to_string(&file)?;
    for pid in pids.lines() {
        // The shell had the number of the group.
        let living = format!("ps -eo pgid=,stat=,pid= | awk '$1 == {pid} && $2 !~ /^Z/'");
        let left = crate::lab::Exec::shell(&living).run()?;
        ensure!(left.trim().is_empty(), "left of the hook: {left}");
    }
    pair.carry()?;
    // Its end would be told to the hook, which takes longer than the lab has patience.
    pair.cygnet.kill_supervisor()?;
    Ok(format!("status in {took:?}; {}", line.trim()))
}

fn fails(lab: &mut Lab) -> Result<String> {
    let hook = lab.script(
        "fails",
        "echo no such thing\necho \"$0 complains\" >&2\nexit 3",
    )?;
    let line = format!("hook = \"{}\"", hook.display());
    let pair = Pair::connected(lab, Plan::shared_key(Role::Initiator).cygnet_line(&line))?;
    for text in ["hook: no such thing", "complains"] {
        pair.cygnet.wait_for_log(text, SOON)?;
    }
    let told = pair.cygnet.wait_for_log("failed with exit code 3", SOON)?;
    pair.carry()?;
    // Others may write it now: it is not run any more, and the configuration is refused.
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777))?;
    pair.cygnet.down(OFFICE)?;
    pair.cygnet.wait_for_log("chmod go-w", SOON)?;
    pair.connect()?;
    pair.carry()?;
    let check = pair.cygnet.configured(&["check"])?;
    ensure!(
        check.status.code() == Some(2) && check.stderr.contains("chmod go-w"),
        "`cygnet check` says {check:?}"
    );
    Ok(told.trim().to_owned())
}

fn killed(lab: &mut Lab) -> Result<String> {
    let ours = Recorder::new(lab, "cygnet")?;
    let plan = Plan::shared_key(Role::Initiator)
        .cygnet_line("start = \"always\"")
        .cygnet_line(&ours.line());
    let mut pair = Pair::start(lab, plan)?;
    pair.wait_for_child(NET)?;
    ours.wait(1, &pair)?;
    pair.cygnet.kill_engine()?;
    ours.wait(3, &pair)?;
    pair.cygnet.kill_supervisor()?;
    pair.cygnet.restart()?;
    ours.wait(5, &pair)?;
    pair.cygnet.stop()?;
    let told = ours.wait(6, &pair)?;
    let (seen, mut expected) = (verbs(&told), Vec::new());
    for _ in 0..3 {
        expected.extend(["up-client", "down-client"]);
    }
    ensure!(seen == expected, "{seen:?}");
    Ok(seen.join(", "))
}

/// The rules of a host's iptables.
const RULES: &str = "iptables -S";

fn stock(lab: &mut Lab) -> Result<String> {
    // As docs/hooks.md has it: packets of the tunnel come from its interface, and no kernel IPsec knows them.
    let script = lab.subdirectory("hooks")?.join("updown");
    let made = crate::lab::Exec::shell(&format!(
        "sed 's/^\\([[:space:]]*IPSEC_POLICY[A-Z_]*\\)=.*/\\1=/' /usr/lib/ipsec/_updown > '{0}'; chmod 755 '{0}'",
        script.display()
    ));
    made.run()?;
    let hook = format!("hook = [\"{}\", \"iptables\"]", script.display());
    let plan = Plan::shared_key(Role::Initiator).cygnet_line(&hook);
    let pair = Pair::start(lab, plan)?;
    let gateway = pair.cygnet.namespace().clone();
    gateway.shell("iptables -P FORWARD DROP")?;
    let closed = gateway.shell(RULES)?;
    pair.connect()?;
    ping_until_answered(&pair.near().host, pair.far().host4, SOON)
        .map_err(|failure| pair.with_log(failure))?;
    let carried = pair.carry()?;
    let open = gateway.shell(RULES)?;
    let rules = open.lines().filter(|line| line.contains(INTERFACE)).count();
    ensure!(rules == 2, "{open}");
    pair.cygnet.down(OFFICE)?;
    wait_for("the rules are gone", SOON, || {
        Ok((gateway.shell(RULES)? == closed).then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    Ok(format!("{rules} rules; {carried}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice;

    #[test]
    fn what_one_end_is_told_is_the_other_way_round_at_the_other() {
        let told = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            owned.collect::<Told>()
        };
        let ours = told(&[
            ("PLUTO_ME", "a"),
            ("PLUTO_PEER", "b"),
            ("PLUTO_MY_ID", "c"),
            ("PLUTO_PEER_ID", "d"),
            ("PLUTO_INTERFACE", "tun"),
        ]);
        let mut theirs = told(&[
            ("PLUTO_ME", "b"),
            ("PLUTO_PEER", "a"),
            ("PLUTO_MY_ID", "d"),
            ("PLUTO_PEER_ID", "c"),
            ("PLUTO_INTERFACE", "eth0"),
        ]);
        assert!(compare(slice::from_ref(&ours), slice::from_ref(&theirs)).is_ok());
        theirs.insert("PLUTO_MY_PORT".to_owned(), "0".to_owned());
        assert!(compare(slice::from_ref(&ours), slice::from_ref(&theirs)).is_err());
        assert!(compare(slice::from_ref(&ours), &[]).is_err());
    }
}
