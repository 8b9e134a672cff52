//! What may befall a box, and how soon it is promised to be back.

use std::fmt;
use std::time::Duration;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// SIGKILL of the engine.
    EngineKilled,
    /// SIGKILL of the supervisor; started again as systemd does.
    SupervisorKilled,
    /// Power off without a word and on again: a kernel that knows nothing, then the guard, then a network, then cygnet.
    PowerCut,
    /// The same, and cygnet was told to end.
    Reboot,
    /// The box's clock is behind the date of its own certificate, until it is set.
    NoClock,
    /// All of its processes stand still for a while, and time goes on.
    Lid,
    /// The box's cable.
    BoxCable,
    /// The cable of the home's router.
    ProviderCable,
    /// Another address of the box itself.
    NewLease,
    /// Another address of the home.
    ProviderAddress,
    /// SIGKILL of the server, which is started again at once and has forgotten everybody.
    ServerRestart,
    /// A server that is gone for longer than its clients take to notice.
    ServerGone,
    /// The same for more than ten minutes.
    ServerGoneLong,
    /// The same for an hour.
    ServerGoneHour,
    /// The server's name leads to another address.
    NameMoved,
}

impl Event {
    pub(super) const ALL: [Self; 15] = [
        Self::EngineKilled,
        Self::SupervisorKilled,
        Self::PowerCut,
        Self::Reboot,
        Self::NoClock,
        Self::Lid,
        Self::BoxCable,
        Self::ProviderCable,
        Self::NewLease,
        Self::ProviderAddress,
        Self::ServerRestart,
        Self::ServerGone,
        Self::ServerGoneLong,
        Self::ServerGoneHour,
        Self::NameMoved,
    ];

    /// How it is called on the command line and in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::EngineKilled => "engine-killed",
            Self::SupervisorKilled => "supervisor-killed",
            Self::PowerCut => "power-cut",
            Self::Reboot => "reboot",
            Self::NoClock => "no-clock",
            Self::Lid => "lid",
            Self::BoxCable => "box-cable",
            Self::ProviderCable => "provider-cable",
            Self::NewLease => "new-lease",
            Self::ProviderAddress => "provider-address",
            Self::ServerRestart => "server-restart",
            Self::ServerGone => "server-gone",
            Self::ServerGoneLong => "server-gone-long",
            Self::ServerGoneHour => "server-gone-hour",
            Self::NameMoved => "name-moved",
        }
    }

    /// From when nothing hinders the tunnel any more to the first answer, at most.
    pub(super) fn promised(self) -> Duration {
        Duration::from_secs(match self {
            Self::EngineKilled | Self::SupervisorKilled => 2,
            Self::ServerGoneLong | Self::ServerGoneHour => 32,
            _ => 5,
        })
    }

    /// Whether it takes more than ten minutes.
    pub(super) fn is_long(self) -> bool {
        matches!(self, Self::ServerGoneLong | Self::ServerGoneHour)
    }

    /// Whether it is over within seconds: a server that is gone has to be missed first.
    pub(super) fn is_quick(self) -> bool {
        !self.is_long() && !matches!(self, Self::ServerGone | Self::NameMoved)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EngineKilled => "SIGKILL of the engine",
            Self::SupervisorKilled => "SIGKILL of the supervisor, started again",
            Self::PowerCut => "power cut",
            Self::Reboot => "reboot",
            Self::NoClock => "no clock at boot, until it is set",
            Self::Lid => "asleep for 15 s",
            Self::BoxCable => "the box's cable out and in",
            Self::ProviderCable => "the provider's cable out and in",
            Self::NewLease => "another address of the box",
            Self::ProviderAddress => "another address from the provider",
            Self::ServerRestart => "the server restarts",
            Self::ServerGone => "the server is gone until it is missed",
            Self::ServerGoneLong => "the server is gone for eleven minutes",
            Self::ServerGoneHour => "the server is gone for an hour",
            Self::NameMoved => "the server's name leads elsewhere",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_unique() {
        let mut names = Event::ALL.map(Event::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        let plain = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        assert!(names.iter().all(plain), "{names:?}");
    }
}
