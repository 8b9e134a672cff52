//! A changed configuration, by `cygnet reload` and by SIGHUP: what did not change is not touched.

use super::super::Scenario;
use super::home::{QUICK, SOON, forwarding_world, server_setup, signal, wait_for_state};
use super::state::State;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::world::{SERVER, World};
use crate::lab::{Failure, Lab, Result, wait_for};
use rustix::process::Signal;
use std::collections::BTreeSet;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "reload-command",
            "`cygnet reload`: one tunnel kept, one removed, one added, one changed; a broken file changes nothing",
            |lab| play(lab, By::Command),
        ),
        Scenario::new("reload-sighup", "the same by SIGHUP", |lab| {
            play(lab, By::Signal)
        }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Command,
    Signal,
}

/// A client with these tunnels: name, and more lines.
fn client(tunnels: &[(&str, &str)]) -> Setup {
    let mut config = String::new();
    for (number, (name, lines)) in tunnels.iter().enumerate() {
        config.push_str(&format!(
            "[tunnel.{name}]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"{name}.lab\"
psk = \"psk\"
virtual_address = true
remote_networks = [\"10.50.{number}.0/24\"]
{QUICK}{lines}
"
        ));
    }
    Setup::new(config).file("psk", "correct horse battery staple\n")
}

struct Ends {
    world: World,
    server: Cygnet,
    client: Cygnet,
}

impl Ends {
    /// The SPIs of a tunnel's IKE SA and of its child, which is up.
    fn spis(&self, name: &str) -> Result<Vec<String>> {
        let sas = self.client.connection(name)?.ike_sas;
        Ok(sas
            .iter()
            .flat_map(|sa| {
                let children = sa.children.iter().map(|child| child.spi_in.clone());
                [sa.initiator_spi.clone(), sa.responder_spi.clone()]
                    .into_iter()
                    .chain(children)
            })
            .collect())
    }

    /// Who is connected, as the server sees it.
    fn at_server(&self) -> Result<BTreeSet<String>> {
        let sas = self.server.connection("server")?.ike_sas;
        Ok(sas.into_iter().filter_map(|sa| sa.peer).collect())
    }

    fn wait_for_peers(&self, peers: &[&str]) -> Result<()> {
        let wanted: BTreeSet<String> = peers.iter().map(|&peer| peer.to_owned()).collect();
        let mut seen = BTreeSet::new();
        wait_for(&format!("the server has {peers:?}"), SOON, || {
            seen = self.at_server()?;
            Ok((seen == wanted).then_some(()))
        })
        .map_err(|failure| Failure::new(format!("{failure}; it has {seen:?}")))
    }

    fn reload(&self, by: By) -> Result<()> {
        match by {
            By::Command => self.client.reload(),
            By::Signal => {
                let count = |text: &str| self.client.log().matches(text).count();
                let before = count("configuration read again");
                signal(&self.client, Signal::HUP)?;
                wait_for("the configuration is read again", SOON, || {
                    Ok((count("configuration read again") > before).then_some(()))
                })
            }
        }
    }

    fn refused(&self, by: By) -> Result<String> {
        match by {
            By::Command => {
                let finished = self.client.control(&["reload"])?;
                ensure!(
                    finished.status.code() == Some(2),
                    "a broken configuration: reload ended with {:?}",
                    finished.status
                );
                Ok(finished.stderr.trim().to_owned())
            }
            By::Signal => {
                signal(&self.client, Signal::HUP)?;
                self.client.wait_for_log("reload refused", SOON)
            }
        }
    }
}

fn play(lab: &mut Lab, by: By) -> Result<String> {
    let world = forwarding_world(lab)?;
    let server = Cygnet::start(lab, &world.server, &server_setup())?;
    let first = client(&[("kept", ""), ("removed", ""), ("changed", "")]);
    let client_ = Cygnet::start(lab, &world.gateway, &first)?;
    let ends = Ends {
        world,
        server,
        client: client_,
    };
    for name in ["kept", "removed", "changed"] {
        wait_for_state(&ends.client, name, "up")?;
    }
    ends.wait_for_peers(&["kept.lab", "removed.lab", "changed.lab"])?;
    let kept = ends.spis("kept")?;
    ensure!(kept.len() == 3, "expected an IKE SA and a child: {kept:?}");
    let changed = ends.spis("changed")?;
    let before = State::of(&ends.world.gateway)?;
    ensure!(
        before.has("route", "10.50.1.0/24") && before.has("addr", "cyg-removed"),
        "the tunnel to be removed has no route or no address"
    );

    // The same text again touches nothing.
    ends.reload(by)?;
    before.expect_same(
        &State::of(&ends.world.gateway)?,
        "after a reload without a change",
    )?;
    ensure!(
        ends.spis("kept")? == kept && ends.spis("changed")? == changed,
        "a reload without a change has replaced SAs"
    );

    // Broken: nothing changes.
    let mut broken = client(&[("kept", ""), ("broken", "colour = \"blue\"\n")]);
    ends.client.write(&broken)?;
    let told = ends.refused(by)?;
    ensure!(
        told.contains("colour") && told.contains("cygnet.toml:"),
        "the refusal does not say where: {told}"
    );
    before.expect_same(&State::of(&ends.world.gateway)?, "after a refused reload")?;
    ensure!(
        ends.spis("kept")? == kept,
        "a refused reload has touched SAs"
    );
    // A change that only a restart can apply.
    broken = first.clone();
    broken.daemon = "ike_port = 501\n".to_owned();
    ends.client.write(&broken)?;
    if by == By::Command {
        let told = ends.refused(by)?;
        ensure!(told.contains("restart"), "expected `restart` in: {told}");
        before.expect_same(&State::of(&ends.world.gateway)?, "after a refused reload")?;
    }

    // `removed` goes, `added` comes, `changed` gets other networks (its number changes, too).
    ends.client.write(&client(&[
        ("kept", ""),
        ("changed", "child_lifetime = \"30m\"\n"),
        ("added", ""),
    ]))?;
    ends.reload(by)?;
    ends.wait_for_peers(&["kept.lab", "changed.lab", "added.lab"])?;
    wait_for_state(&ends.client, "added", "up")?;
    wait_for_state(&ends.client, "changed", "up")?;
    ensure!(
        ends.spis("kept")? == kept,
        "the tunnel that did not change has other SAs: {kept:?} became {:?}",
        ends.spis("kept")?
    );
    ensure!(
        ends.client.connection("removed").is_err(),
        "the removed tunnel is still in the status"
    );
    let state = wait_for("the removed TUN is gone", SOON, || {
        let state = State::of(&ends.world.gateway)?;
        let gone = !state.has("addr", "cyg-removed")
            && !state.has("route", "cyg-removed")
            && !state.has("nft", "cyg-removed")
            && !state.has("sysctl", "cyg-removed");
        Ok(gone.then_some(state))
    })?;
    ensure!(
        state.has("route", "10.50.2.0/24 dev cyg-added")
            && state.has("route", "10.50.1.0/24 dev cyg-changed")
            && state.has("route", "10.50.0.0/24 dev cyg-kept"),
        "routes of the changed configuration are missing: {}",
        before.difference(&state)
    );
    ensure!(
        ends.world
            .gateway
            .finish(["ip", "link", "show", "cyg-removed"])?
            .status
            .code()
            == Some(1),
        "the removed tunnel's interface is still there"
    );
    // Back to where it began: the same lines, whatever happened between.
    ends.client.write(&first)?;
    ends.reload(by)?;
    ends.wait_for_peers(&["kept.lab", "removed.lab", "changed.lab"])?;
    ensure!(
        ends.spis("kept")? == kept,
        "the second reload has touched SAs"
    );
    Ok(format!("SPIs of the kept tunnel stay {}", kept.join(" ")))
}
