//! Trouble, and its end: what is done to the nodes at random, and how they come to rest.

use cygnet_ike::io::{Command, DataEvent};
use cygnet_ike::time::Instant;

use super::{Node, Occurrence, World};
use crate::action::{Action, Target};
use crate::scenario::{CONNECTION, Side};

impl World {
    pub(super) fn act(&mut self) -> Result<(), String> {
        if self.quiet_since.is_some() {
            return Ok(());
        }
        let wait = self.dice.millis(200, 7000);
        self.after(wait, Occurrence::Act);
        let side = self.dice.pick(&Side::BOTH).unwrap_or(Side::A);
        // Several things at one end at once now and then.
        let count = if self.dice.chance(15) { 3 } else { 1 };
        for _ in 0..count {
            let action = Action::draw(&mut self.dice, &self.scenario);
            // Two of a kind collide in one way, two of different kinds in others.
            let other = if self.dice.chance(60) && action != Action::Reboot {
                action
            } else {
                Action::draw(&mut self.dice, &self.scenario)
            };
            match Target::draw(&mut self.dice, &self.scenario) {
                Target::One => {}
                Target::Both => self.perform(side.other(), other)?,
                Target::Crossing(wait) => {
                    self.after(wait, Occurrence::ActOn(side.other(), other));
                }
            }
            self.perform(side, action)?;
        }
        Ok(())
    }

    pub(super) fn perform(&mut self, side: Side, action: Action) -> Result<(), String> {
        self.stats.actions += 1;
        self.journal
            .line(self.now, || format!("{side}: {action:?}"));
        if let Some(command) = action.command() {
            let downed = &mut self.node_mut(side).downed;
            match action {
                Action::Down => _ = downed.insert(None),
                Action::Up => _ = downed.remove(&None),
                Action::DownChild(child) => _ = downed.insert(Some(child)),
                Action::UpChild(child) => _ = downed.remove(&Some(child)),
                _ => {}
            }
            return self.input(side, |endpoint, now| endpoint.handle_command(now, command));
        }
        let sender = |child: usize| {
            let sender = self.node(side).datapath.sender(&format!("child{child}"));
            sender.map(|sender| sender.params.id)
        };
        match action {
            Action::SoftLimit(child) => match sender(child) {
                Some(child) => self.data(side, DataEvent::SoftLimit { child }),
                None => Ok(()),
            },
            Action::HardLimit(child) => match sender(child) {
                Some(child) => self.data(side, DataEvent::HardLimit { child }),
                None => Ok(()),
            },
            Action::Silence(lasting) => {
                self.node_mut(side).silent_until = self.now + lasting;
                Ok(())
            }
            Action::Reload | Action::Change => {
                let node = self.node_mut(side);
                node.revision += u64::from(action == Action::Change);
                let revision = node.revision;
                let policy = self.scenario.policy(side, revision);
                self.input(side, |endpoint, now| endpoint.handle_policy(now, policy))
            }
            Action::Reboot => self.reboot(side),
            _ => Ok(()),
        }
    }

    pub(super) fn reboot(&mut self, side: Side) -> Result<(), String> {
        let (seed, scenario) = (self.seed, self.scenario.clone());
        let node = self.node_mut(side);
        let mut abandoned = std::mem::take(&mut node.abandoned);
        abandoned.extend(node.datapath.inbound.keys());
        abandoned.extend(node.datapath.reserved_spis());
        *node = Node::new(seed, node.life + 1, &scenario, side);
        node.abandoned = abandoned;
        self.stats.deaths += 1;
        let policy = scenario.policy(side, 0);
        self.input(side, |endpoint, now| endpoint.handle_policy(now, policy))
    }

    /// A is elsewhere, and notices it at once or a little later.
    pub(super) fn relocate(&mut self) {
        let lost = self.network.address(Side::A);
        self.moves += 1;
        let address = self.scenario.place(self.moves);
        self.journal
            .line(self.now, || format!("A is at {address} from now on"));
        self.network.relocate(address, self.moves);
        self.stats.moves += 1;
        let wait = self.dice.millis(0, 700);
        let life = self.node(Side::A).life;
        self.after(wait, Occurrence::Notice(life, lost));
    }

    /// The end begins: nothing is lost, and what was taken down is to come up again.
    pub(super) fn behave(&mut self) -> Result<(), String> {
        self.journal
            .line(self.now, || "nothing is lost from now on".to_owned());
        self.network.behave();
        // Once more, so that the other has to follow without another rekey.
        self.network.rebind();
        self.quiet_since = Some(self.now);
        for side in Side::BOTH {
            let node = self.node_mut(side);
            node.silent_until = Instant::default();
            node.delivered.clear();
            for child in std::mem::take(&mut node.downed) {
                let command = Command::Up {
                    connection: CONNECTION.to_owned(),
                    child: child.map(|child| format!("child{child}")),
                };
                self.journal
                    .line(self.now, || format!("{side}: {command:?}"));
                self.input(side, |endpoint, now| endpoint.handle_command(now, command))?;
            }
        }
        Ok(())
    }
}
