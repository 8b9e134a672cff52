//! What befalls the box and the server, drawn from the seed.

use super::ends::Broken;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::fmt;
use std::time::Duration;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// SIGKILL of the engine; it is started again by itself.
    KillEngine,
    /// SIGKILL of the supervisor; it is started again after a while, as systemd does.
    KillSupervisor,
    /// Of both.
    KillBoth,
    /// SIGTERM, and started again.
    Terminate,
    /// `cygnet down`, `cygnet up`.
    DownUp,
    /// `cygnet reload` with a configuration that changed.
    Reload,
    /// New keys for the Child SA.
    Rekey,
    /// Power off and on: a kernel without rules that forwards, then the guard, then a network, then cygnet.
    Reboot,
    /// Another address of the box itself, IPv4 and IPv6.
    ChangeAddress,
    /// SIGKILL of the server, which is started again after a while.
    KillServer,
    /// A broken configuration: reloaded, and started with.
    BreakConfiguration(Broken),
    /// A foreign `nft flush ruleset`.
    FlushRuleset,
    /// Started with a clock that its own certificate contradicts, which is then set.
    WrongClock,
}

impl Event {
    /// One of each. How the configuration is broken is drawn apart.
    const ALL: [Self; 13] = [
        Self::KillEngine,
        Self::KillSupervisor,
        Self::KillBoth,
        Self::Terminate,
        Self::DownUp,
        Self::Reload,
        Self::Rekey,
        Self::Reboot,
        Self::ChangeAddress,
        Self::KillServer,
        Self::BreakConfiguration(Broken::Unreadable),
        Self::FlushRuleset,
        Self::WrongClock,
    ];

    /// Whether a box without a guard is open meanwhile, for sure. One that was told to be down is not: what it set for
    /// the tunnel lets nothing out as it is either. Nor is one that was killed, where some devices are blocked: the rules
    /// by which what has no mark is unreachable outlive it. `policies`: there are such devices.
    fn opens(self, policies: bool) -> bool {
        match self {
            Self::DownUp => false,
            Self::KillSupervisor | Self::KillBoth => !policies,
            other => other.lasts(),
        }
    }

    /// Whether something is down for a while.
    fn lasts(self) -> bool {
        match self {
            Self::KillSupervisor
            | Self::KillBoth
            | Self::Terminate
            | Self::DownUp
            | Self::Reboot
            | Self::BreakConfiguration(_)
            | Self::WrongClock => true,
            Self::KillEngine
            | Self::Reload
            | Self::Rekey
            | Self::ChangeAddress
            | Self::KillServer
            | Self::FlushRuleset => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillEngine => "SIGKILL of the engine",
            Self::KillSupervisor => "SIGKILL of the supervisor",
            Self::KillBoth => "SIGKILL of both",
            Self::Terminate => "SIGTERM",
            Self::DownUp => "down and up",
            Self::Reload => "reload",
            Self::Rekey => "rekey",
            Self::Reboot => "reboot",
            Self::ChangeAddress => "another address",
            Self::KillServer => "SIGKILL of the server",
            Self::BreakConfiguration(how) => return write!(f, "configuration with {}", how.name()),
            Self::FlushRuleset => "nft flush ruleset",
            Self::WrongClock => "wrong clock",
        })
    }
}

/// An event of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) event: Event,
    /// How long what is down stays down.
    pub(super) lasts: Duration,
    /// Somebody flushes nftables meanwhile.
    pub(super) flush: bool,
    /// How long nothing happens afterwards.
    pub(super) pause: Duration,
}

impl Step {
    /// Whether somebody flushes nftables.
    pub(super) fn flushes(&self) -> bool {
        self.flush || self.event == Event::FlushRuleset
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flush = if self.flush {
            " + nft flush ruleset"
        } else {
            ""
        };
        write!(f, "{}{flush}", self.event)
    }
}

/// Events in a round.
const EVENTS: usize = 3;
/// How often nftables is flushed while something is down.
const FLUSHES_PERCENT: u64 = 25;

/// The events of each round. They are dealt from a shuffled deck that holds each once, and then from the next: so
/// all have come after five rounds, and each about as often as any other. In each round one at least leaves a box
/// without a guard open. `policies`: in which rounds there are devices with other policies, too.
pub(super) fn deal(seed: u64, rounds: u32, policies: fn(u32) -> bool) -> Vec<Vec<Step>> {
    let mut dice = Dice::new(seed);
    let mut deck = Vec::new();
    let mut hands = Vec::new();
    for number in 1..=rounds {
        let mut hand: Vec<Event> = (0..EVENTS).map(|_| dice.next_of(&mut deck)).collect();
        while !hand.iter().any(|event| event.opens(policies(number))) {
            hand.push(dice.next_of(&mut deck));
        }
        hands.push(hand.into_iter().map(|event| dice.step(event)).collect());
    }
    hands
}

/// Randomness that repeats.
struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From zero up to, without, `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn next_of(&mut self, deck: &mut Vec<Event>) -> Event {
        if deck.is_empty() {
            deck.extend(Event::ALL);
        }
        let at = self.below(deck.len() as u64) as usize;
        deck.swap_remove(at)
    }

    fn step(&mut self, event: Event) -> Step {
        let event = match event {
            Event::BreakConfiguration(_) => {
                let how = self.below(Broken::ALL.len() as u64) as usize;
                Event::BreakConfiguration(Broken::ALL[how])
            }
            other => other,
        };
        Step {
            event,
            lasts: self.millis(150, 600),
            flush: event.lasts() && self.below(100) < FLUSHES_PERCENT,
            pause: self.millis(50, 500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run() {
        let deal = |seed, rounds| deal(seed, rounds, |_| false);
        assert_eq!(deal(7, 20), deal(7, 20));
        assert_ne!(deal(7, 20), deal(8, 20));
        // Of a longer run the rounds are the same.
        assert_eq!(deal(7, 20)[..5], deal(7, 5)[..]);
    }

    #[test]
    fn each_event_comes_and_each_round_opens_what_has_no_guard() {
        for seed in 0..50 {
            let hands = deal(seed, 5, |number| number > 3);
            for event in Event::ALL {
                let same = |step: &Step| {
                    std::mem::discriminant(&step.event) == std::mem::discriminant(&event)
                };
                assert!(hands.iter().flatten().any(same), "{event} with seed {seed}");
            }
            for (number, hand) in (1..).zip(hands) {
                let mut opening = hand.iter().filter(|step| step.event.opens(number > 3));
                assert!(opening.next().is_some(), "seed {seed}");
                assert!(hand.len() >= EVENTS);
            }
        }
    }
}
