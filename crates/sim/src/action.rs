//! What is done to the nodes while the network misbehaves.

use std::time::Duration;

use cygnet_ike::io::Command;

use crate::dice::Dice;
use crate::scenario::{CONNECTION, Scenario};

/// Something an operator, the data path or fate does to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    RekeyChild(usize),
    RekeyIke,
    Reauthenticate,
    SoftLimit(usize),
    HardLimit(usize),
    Down,
    Up,
    DownChild(usize),
    UpChild(usize),
    /// The same policy again, as a reload without changes.
    Reload,
    /// A policy that differs a little: the connection ends and comes back.
    Change,
    /// Seals nothing for a while.
    Silence(Duration),
    /// Forgets everything.
    Reboot,
    /// Takes everything down, then starts anew.
    Restart,
}

/// At whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    One,
    /// Both at the same moment.
    Both,
    /// The other one while the messages of the first are under way.
    Crossing(Duration),
}

impl Action {
    pub(crate) fn draw(dice: &mut Dice, scenario: &Scenario) -> Self {
        let child = dice.below(scenario.children as u64) as usize;
        let roll = dice.below(100);
        match roll {
            0..28 => Action::RekeyChild(child),
            28..48 => Action::RekeyIke,
            48..54 => Action::Reauthenticate,
            54..64 => Action::SoftLimit(child),
            64..70 => Action::Silence(dice.millis(1000, 25_000)),
            70..74 => Action::Reload,
            _ if scenario.calm => Action::RekeyChild(child),
            74..77 => Action::Down,
            77..83 => Action::Up,
            83..90 => Action::DownChild(child),
            90..96 => Action::UpChild(child),
            96 => Action::HardLimit(child),
            97 => Action::Change,
            98 if scenario.reboots => Action::Reboot,
            99 if scenario.reboots => Action::Restart,
            _ => Action::Up,
        }
    }

    /// The command that this is, if it is one.
    pub(crate) fn command(self) -> Option<Command> {
        let connection = CONNECTION.to_owned();
        let name = |child: usize| format!("child{child}");
        Some(match self {
            Action::RekeyChild(child) => Command::RekeyChild {
                connection,
                child: name(child),
            },
            Action::RekeyIke => Command::RekeyIke { connection },
            Action::Reauthenticate => Command::Reauthenticate { connection },
            Action::Down => Command::Down {
                connection,
                child: None,
            },
            Action::Up => Command::Up {
                connection,
                child: None,
            },
            Action::DownChild(child) => Command::Down {
                connection,
                child: Some(name(child)),
            },
            Action::UpChild(child) => Command::Up {
                connection,
                child: Some(name(child)),
            },
            Action::SoftLimit(_)
            | Action::HardLimit(_)
            | Action::Reload
            | Action::Change
            | Action::Silence(_)
            | Action::Reboot => return None,
            Action::Restart => Command::Shutdown,
        })
    }
}

impl Target {
    /// Collisions are what is looked for, so they are frequent.
    pub(crate) fn draw(dice: &mut Dice, scenario: &Scenario) -> Self {
        match dice.below(100) {
            0..35 => Target::Both,
            35..55 => Target::Crossing(dice.millis(0, 2 * scenario.delay.1 + 20)),
            _ => Target::One,
        }
    }
}
