//! What the runs did, so that one can see that they did something.

use std::fmt;
use std::ops::AddAssign;

/// Counts of one run, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Simulated seconds.
    pub seconds: u64,
    /// IKE messages and fragments sent.
    pub messages: u64,
    /// Packets sealed.
    pub sealed: u64,
    /// Packets opened.
    pub opened: u64,
    /// IKE SAs that came up, at either end.
    pub ike_ups: u64,
    /// Child SAs that came up, at either end.
    pub child_ups: u64,
    /// Commands and other things done to nodes.
    pub actions: u64,
    /// Times a node was at another address.
    pub moves: u64,
    /// Times a node counted the other for dead, or lost its memory.
    pub deaths: u64,
    /// Moments at which a node would have sealed for a peer that had counted it for dead.
    pub excused_deaths: u64,
    /// Moments at which a responder would have sealed on a first Child SA whose initiator had
    /// not heard its response yet.
    pub excused_early: u64,
    /// Moments at which a slow data path would have sealed on what it was told to stop sending on.
    pub excused_late: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, more: Self) {
        self.runs += more.runs;
        self.seconds += more.seconds;
        self.messages += more.messages;
        self.sealed += more.sealed;
        self.opened += more.opened;
        self.ike_ups += more.ike_ups;
        self.child_ups += more.child_ups;
        self.actions += more.actions;
        self.moves += more.moves;
        self.deaths += more.deaths;
        self.excused_deaths += more.excused_deaths;
        self.excused_early += more.excused_early;
        self.excused_late += more.excused_late;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs, {:.1} simulated hours: {} actions, {} IKE messages, {} packets sealed, {} opened",
            self.runs,
            self.seconds as f64 / 3600.0,
            self.actions,
            self.messages,
            self.sealed,
            self.opened
        )?;
        write!(
            f,
            "{} IKE SAs and {} Child SAs came up; {} times an address changed, {} times a peer counted for \
             dead or restarted; \
             excused moments: {} after that, {} of a responder ahead of its first response, \
             {} of a slow data path",
            self.ike_ups,
            self.child_ups,
            self.moves,
            self.deaths,
            self.excused_deaths,
            self.excused_early,
            self.excused_late
        )
    }
}
