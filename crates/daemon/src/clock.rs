//! Whether the date can be believed, and which one counts while the machine's cannot.
//!
//! A board without a battery begins in 1970, or when its image was made, or, with `fake-hwclock`, when it
//! was last switched off. Judged by such a date, good certificates are refused as "not yet valid", and
//! revoked ones are not known to be. So a date that cannot be right counts as unknown, and whoever needs
//! one waits: until the clock is set, or until time servers agree (decision 33). What these say sets no clock, counts
//! only while nobody keeps the machine's own right, and is never before what is known otherwise.

mod last_known;
mod not_set;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cygnet_config::Config;
use cygnet_ike::time::UtcTime;
use cygnet_pki::{SignedCrl, TrustAnchors, load};

use last_known::KEEP_EACH;
pub(crate) use last_known::LastKnown;
pub use not_set::is_about_clock;
pub(crate) use not_set::{NotSet, day, span};

/// 2025-01-01T00:00:00Z: before this program existed.
pub const NOT_BEFORE: i64 = 1_735_689_600;
/// The clock of whoever signs may be ahead by so many seconds: zones are mixed up.
const AHEAD: i64 = 86_400;
/// A clock that differs by less from what time servers say, in milliseconds, is as good as they are.
const ALIKE: u64 = 30_000;

/// What the machine says, for [`Clock`]; tests say something else.
#[derive(Clone, Copy)]
struct Source {
    /// Milliseconds since 1970.
    millis: fn() -> i64,
    /// Whether somebody keeps the clock right.
    synchronised: fn() -> bool,
    /// Time since boot.
    boot: fn() -> Duration,
}

const MACHINE: Source = Source {
    millis: || match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    },
    synchronised: cygnet_linux::clock::is_synchronised,
    boot: cygnet_linux::clock::boottime,
};

/// The machine's date, and that of time servers.
pub(crate) struct Clock {
    source: Source,
    /// Since when our newest certificate is valid.
    certificate: Option<i64>,
    /// The latest date that an authority of ours has signed: it is over. Never falls.
    signed: Option<i64>,
    /// What the date was when it was last known before this run: a machine's clock stands still only while it is off.
    last_known: Option<i64>,
    /// What is kept of this run, too: time servers say nothing earlier.
    kept: Option<i64>,
    servers: Option<Agreed>,
    /// Time servers are still waited for.
    doubted: bool,
}

/// Whose date counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Nobodys,
    Machines,
    Servers,
}

/// A date that time servers agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// What it was when this machine started, in milliseconds since 1970.
    pub(crate) at_boot: i64,
    /// Who says so.
    pub(crate) servers: Vec<String>,
}

/// What the engine is told: the date when this machine started, in milliseconds since 1970. Both read the time since
/// then.
pub(crate) type Told = Result<i64, NotSet>;

impl Clock {
    /// With what the configuration and an earlier run tell about the date.
    pub(crate) fn new(config: &Config, last_known: Option<i64>) -> Self {
        let mut clock = Self::of(MACHINE, None, last_known);
        clock.configure(config);
        clock
    }

    fn of(source: Source, certificate: Option<i64>, last_known: Option<i64>) -> Self {
        Self {
            source,
            certificate,
            signed: None,
            last_known,
            kept: last_known,
            servers: None,
            doubted: false,
        }
    }

    /// The certificates and lists of a (new) configuration.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.certificate = newest_certificate(config);
        self.witness(newest_signed(config));
    }

    /// An authority of ours has signed at that time: what is earlier is not the date, and whoever said so is not believed
    /// when that time has come either.
    pub(crate) fn witness(&mut self, signed: Option<i64>) {
        self.signed = self.signed.max(signed);
        if self.by_servers_millis().is_none() {
            self.servers = None;
        }
    }

    /// Whether a clock that nobody keeps right has to wait for time servers.
    pub(crate) fn doubt(&mut self, doubted: bool) {
        self.doubted = doubted;
    }

    /// The machine's date, if it can be right.
    pub(crate) fn machine(&self) -> Result<UtcTime, NotSet> {
        self.judge(self.says())
    }

    /// The same if somebody keeps it right.
    pub(crate) fn is_kept_right(&self) -> bool {
        (self.source.synchronised)() && self.machine().is_ok()
    }

    fn judge(&self, says: i64) -> Result<UtcTime, NotSet> {
        if says < NOT_BEFORE {
            return Err(NotSet::Program { says });
        }
        if let Some(since) = self.certificate.filter(|since| says < *since) {
            return Err(NotSet::Certificate { says, since });
        }
        let signed = |signed: &i64| says < signed.saturating_sub(AHEAD);
        if let Some(signed) = self.signed.filter(signed) {
            return Err(NotSet::Signed { says, signed });
        }
        match self.last_known.filter(|last| says < *last) {
            Some(last) if !(self.source.synchronised)() => Err(NotSet::LastKnown { says, last }),
            _ => Ok(UtcTime(says)),
        }
    }

    /// The date: the machine's if somebody keeps it right, else that of time servers, else the machine's if it can be
    /// right.
    pub(crate) fn date(&self) -> Result<UtcTime, NotSet> {
        let (millis, _) = self.settle()?;
        Ok(UtcTime(millis.div_euclid(1000)))
    }

    /// The same for the engine.
    pub(crate) fn told(&self) -> Told {
        let (millis, _) = self.settle()?;
        Ok(millis.saturating_sub(self.since_boot()))
    }

    pub(crate) fn whose(&self) -> Whose {
        self.settle().map_or(Whose::Nobodys, |(_, whose)| whose)
    }

    /// The date in milliseconds, and whose it is.
    fn settle(&self) -> Result<(i64, Whose), NotSet> {
        let machine = (self.source.millis)();
        let says = machine.div_euclid(1000);
        match (self.judge(says), self.by_servers_millis()) {
            (Ok(_), _) if (self.source.synchronised)() => Ok((machine, Whose::Machines)),
            (Ok(_), Some(servers)) if machine.abs_diff(servers) < ALIKE => {
                Ok((machine, Whose::Machines))
            }
            (_, Some(servers)) => Ok((servers, Whose::Servers)),
            (Ok(_), None) if self.doubted => Err(NotSet::Doubted { says }),
            (Ok(_), None) => Ok((machine, Whose::Machines)),
            (Err(not_set), None) => Err(not_set),
        }
    }

    /// The date of time servers, if it can be right.
    fn by_servers_millis(&self) -> Option<i64> {
        let at_boot = self.servers.as_ref()?.at_boot;
        let millis = at_boot.saturating_add(self.since_boot());
        (millis.div_euclid(1000) >= self.earliest()).then_some(millis)
    }

    /// No date of time servers before this one is right.
    pub(crate) fn earliest(&self) -> i64 {
        let signed = self.signed.map(|signed| signed.saturating_sub(AHEAD));
        // A clock that agrees with them may be a little ahead, and is kept.
        let kept = self.kept.map(|kept| kept.saturating_sub(KEEP_EACH));
        let known = self.certificate.into_iter().chain(signed).chain(kept);
        known.chain(self.last_known).fold(NOT_BEFORE, i64::max)
    }

    /// Another date is kept as the last one known.
    pub(crate) fn remember(&mut self, kept: Option<i64>) {
        self.kept = kept;
        // One that was wrong, and given up.
        self.last_known = self.last_known.min(kept);
    }

    /// Takes what time servers agree on.
    pub(crate) fn believe(&mut self, agreed: Agreed) {
        self.servers = Some(agreed);
    }

    /// Somebody keeps the machine's clock right: what time servers said before is not to count when nobody does any more.
    pub(crate) fn forget_servers(&mut self) {
        self.servers = None;
    }

    /// Time servers whose date counts, and by how many seconds the machine's clock is behind, or ahead if negative.
    pub(crate) fn by_servers(&self) -> Option<(&[String], i64)> {
        let Ok((millis, Whose::Servers)) = self.settle() else {
            return None;
        };
        let behind = millis.div_euclid(1000).saturating_sub(self.says());
        Some((&self.servers.as_ref()?.servers, behind))
    }

    /// What the machine's clock says, in seconds since 1970.
    fn says(&self) -> i64 {
        (self.source.millis)().div_euclid(1000)
    }

    /// In milliseconds.
    fn since_boot(&self) -> i64 {
        i64::try_from((self.source.boot)().as_millis()).unwrap_or(i64::MAX)
    }
}

fn newest_certificate(config: &Config) -> Option<i64> {
    let connections = config.policy.connections.iter();
    let own = connections.filter_map(|connection| connection.local_auth.leaf());
    own.filter_map(|leaf| Some(cygnet_pki::validity(leaf).ok()?.not_before))
        .max()
}

/// The latest date for which an authority of this configuration stands: that it began itself, or made a list.
fn newest_signed(config: &Config) -> Option<i64> {
    let trusts = config.trusts.values();
    let signed = trusts.flat_map(|trust| {
        let authorities = trust.anchors.iter();
        let mut signed: Vec<i64> = authorities
            .filter_map(|authority| Some(cygnet_pki::validity(authority).ok()?.not_before))
            .collect();
        let mut anchors = TrustAnchors::new();
        for anchor in &trust.anchors {
            // Those of the configuration decode.
            let _ = anchors.add(anchor.clone());
        }
        let files = trust.crls.iter();
        let lists = files.flat_map(|file| load::crls(file, Path::new("CRL")).unwrap_or_default());
        signed.extend(lists.filter_map(|list| {
            let list = SignedCrl::verify(&list, &anchors).ok()?;
            Some(list.this_update())
        }));
        signed
    });
    signed.max()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// 2026-11-26.
    const TODAY: i64 = 1_795_651_200;

    fn told(
        says: fn() -> i64,
        synchronised: fn() -> bool,
        last: Option<i64>,
    ) -> Result<i64, NotSet> {
        let source = Source {
            millis: says,
            synchronised,
            boot: || Duration::ZERO,
        };
        let clock = Clock::of(source, Some(TODAY), last);
        clock.date().map(|date| date.0)
    }

    #[test]
    fn a_date_that_cannot_be_right_is_unknown() {
        let later = Some(TODAY + 86_400);
        for synchronised in [(|| true) as fn() -> bool, || false] {
            let says = 0;
            assert_eq!(
                told(|| 0, synchronised, None),
                Err(NotSet::Program { says })
            );
            let (says, since) = (TODAY - 1, TODAY);
            let unset = Err(NotSet::Certificate { says, since });
            assert_eq!(told(|| (TODAY - 1) * 1000, synchronised, later), unset);
            assert_eq!(told(|| TODAY * 1000, synchronised, Some(TODAY)), Ok(TODAY));
        }
        let unset = NotSet::LastKnown {
            says: TODAY,
            last: TODAY + 86_400,
        };
        assert_eq!(told(|| TODAY * 1000, || false, later), Err(unset));
        // Who keeps it right knows better than what it was when it was wrong.
        assert_eq!(told(|| TODAY * 1000, || true, later), Ok(TODAY));
        let sentence = unset.to_string();
        for part in ["2026-11-26", "2026-11-27", "not set", "timedatectl"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn it_goes_on_as_soon_as_the_clock_is_set() {
        static SECONDS: AtomicI64 = AtomicI64::new(0);
        let source = Source {
            millis: || SECONDS.load(Ordering::Relaxed) * 1000,
            synchronised: || false,
            boot: || Duration::ZERO,
        };
        let clock = Clock::of(source, Some(TODAY - 10), Some(TODAY));
        for (seconds, known) in [
            (0, false),
            (TODAY - 20, false),
            (TODAY - 5, false),
            (TODAY, true),
        ] {
            SECONDS.store(seconds, Ordering::Relaxed);
            assert_eq!(clock.date().is_ok(), known, "{seconds}");
        }
    }

    fn agreed(at_boot: i64) -> Agreed {
        Agreed {
            at_boot,
            servers: vec!["a.example".to_owned(), "b.example".to_owned()],
        }
    }

    #[test]
    fn time_servers_count_while_the_machine_cannot_be_right() {
        static SECONDS: AtomicI64 = AtomicI64::new(0);
        let source = Source {
            millis: || SECONDS.load(Ordering::Relaxed) * 1000,
            synchronised: || false,
            boot: || Duration::from_secs(100),
        };
        let mut clock = Clock::of(source, Some(TODAY - 10), None);
        assert_eq!(clock.told(), Err(NotSet::Program { says: 0 }));
        assert_eq!(clock.by_servers(), None);
        clock.believe(agreed(TODAY * 1000));
        assert_eq!(clock.date(), Ok(UtcTime(TODAY + 100)));
        assert_eq!(clock.told(), Ok(TODAY * 1000));
        let (servers, behind) = clock.by_servers().unwrap();
        assert_eq!((servers.len(), behind), (2, TODAY + 100));
        assert!(clock.machine().is_err());
        // A clock that nobody keeps right counts where it agrees with them, whatever it could be by itself.
        for (seconds, behind) in [
            (TODAY - 5, Some(105)),
            (TODAY + 70, Some(30)),
            (TODAY + 71, None),
            (TODAY + 129, None),
            (TODAY + 130, Some(-30)),
        ] {
            SECONDS.store(seconds, Ordering::Relaxed);
            let date = if behind.is_some() {
                TODAY + 100
            } else {
                seconds
            };
            assert!(clock.machine().is_ok());
            assert_eq!(clock.date(), Ok(UtcTime(date)));
            assert_eq!(clock.told(), Ok((date - 100) * 1000));
            assert_eq!(clock.by_servers().map(|(_, behind)| behind), behind);
        }
        // One that somebody keeps right does.
        clock.source.synchronised = || true;
        assert_eq!(
            (clock.whose(), clock.is_kept_right()),
            (Whose::Machines, true)
        );
        assert_eq!(clock.date(), Ok(UtcTime(TODAY + 130)));
        SECONDS.store(0, Ordering::Relaxed);
        assert_eq!(
            (clock.whose(), clock.is_kept_right()),
            (Whose::Servers, false)
        );
        clock.forget_servers();
        assert_eq!(clock.whose(), Whose::Nobodys);
    }

    #[test]
    fn a_clock_that_nobody_keeps_right_waits_for_time_servers() {
        let source = Source {
            millis: || TODAY * 1000,
            synchronised: || false,
            boot: || Duration::ZERO,
        };
        let mut clock = Clock::of(source, Some(TODAY - 10), Some(TODAY - 5));
        clock.doubt(true);
        let doubted = NotSet::Doubted { says: TODAY };
        assert_eq!(clock.date(), Err(doubted));
        assert_eq!(clock.machine(), Ok(UtcTime(TODAY)), "it can be right");
        let told = doubted.to_string();
        assert!(
            told.contains("2026-11-26: certificates wait for time servers"),
            "{told}"
        );
        clock.doubt(false);
        assert_eq!(clock.date(), Ok(UtcTime(TODAY)), "they stay silent");
        // Who is heard late is heard, too.
        clock.believe(agreed((TODAY + 86_400) * 1000));
        assert_eq!(clock.date(), Ok(UtcTime(TODAY + 86_400)));
        let source = Source {
            synchronised: || true,
            ..source
        };
        let mut clock = Clock::of(source, None, None);
        clock.doubt(true);
        assert_eq!(
            clock.date(),
            Ok(UtcTime(TODAY)),
            "time synchronisation keeps it right"
        );
    }

    #[test]
    fn no_date_is_before_what_an_authority_signed() {
        static SYNCHRONISED: AtomicI64 = AtomicI64::new(0);
        let source = Source {
            millis: || TODAY * 1000,
            synchronised: || SYNCHRONISED.load(Ordering::Relaxed) == 1,
            boot: || Duration::ZERO,
        };
        let mut clock = Clock::of(source, None, None);
        // The authority's own clock may be ahead by a day.
        clock.witness(Some(TODAY + AHEAD));
        assert_eq!(
            (clock.date(), clock.earliest()),
            (Ok(UtcTime(TODAY)), TODAY)
        );
        let signed = TODAY + AHEAD + 1;
        clock.witness(Some(signed));
        clock.witness(Some(TODAY));
        clock.witness(None);
        assert_eq!((clock.signed, clock.earliest()), (Some(signed), TODAY + 1));
        let unset = NotSet::Signed {
            says: TODAY,
            signed,
        };
        for synchronised in [0, 1] {
            SYNCHRONISED.store(synchronised, Ordering::Relaxed);
            assert_eq!(clock.date(), Err(unset));
            assert!(!clock.is_kept_right());
        }
        let told = unset.to_string();
        assert!(
            told.contains("it says 2026-11-26, and an authority in `ca` has signed on 2026-11-27"),
            "{told}"
        );
        // What is signed ends a date of time servers that is before it.
        let forged = signed + 100;
        clock.believe(agreed(forged * 1000));
        assert_eq!(clock.whose(), Whose::Servers);
        clock.witness(Some(forged + AHEAD + 1));
        assert_eq!((clock.whose(), &clock.servers), (Whose::Nobodys, &None));
    }

    #[test]
    fn the_configuration_tells_what_authorities_signed() {
        use cygnet_pki::UnixTime;
        use cygnet_pki::authority::{Authority, KeyKind, Validity};
        let at =
            |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(seconds.unsigned_abs()));
        let validity = Validity {
            not_before: at(TODAY - 1000),
            not_after: at(TODAY + 1_000_000),
        };
        let authority = || Authority::create("A", &[1], validity, KeyKind::default()).unwrap();
        let (ours, other) = (authority(), authority());
        let list = |of: &Authority| of.crl(&[], 1, at(TODAY + 50), at(TODAY + 86_400)).unwrap();
        for (list, signed) in [(list(&ours), TODAY + 50), (list(&other), TODAY - 1000)] {
            let text = "[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\n";
            let mut config = Config::parse("t", text, &mut |_| Err("no files".to_owned())).unwrap();
            let trust = cygnet_config::Trust {
                anchors: vec![ours.certificate_der().to_vec()],
                crls: vec![list],
                crl_urls: Vec::new(),
            };
            let id = cygnet_ike::policy::TrustId("ca".into());
            config.trusts.insert(id, trust);
            assert_eq!(newest_signed(&config), Some(signed));
        }
    }

    #[test]
    fn time_servers_are_not_believed_what_cannot_be_right() {
        let source = Source {
            millis: || 0,
            synchronised: || false,
            boot: || Duration::from_secs(100),
        };
        let (certificate, last) = (Some(TODAY - 1000), Some(TODAY));
        for (certificate, last, earliest) in [
            (certificate, last, TODAY),
            (certificate, None, TODAY - 1000),
            (None, last, TODAY),
            (None, None, NOT_BEFORE),
            (Some(5), Some(6), NOT_BEFORE),
        ] {
            let mut clock = Clock::of(source, certificate, last);
            assert_eq!(clock.earliest(), earliest);
            clock.believe(agreed((earliest - 100) * 1000 - 1));
            assert_eq!(clock.date(), Err(NotSet::Program { says: 0 }));
            assert_eq!(clock.by_servers(), None);
            clock.believe(agreed((earliest - 100) * 1000));
            assert_eq!(clock.date(), Ok(UtcTime(earliest)));
        }
    }

    #[test]
    fn what_is_known_in_this_run_bounds_time_servers_too() {
        let source = Source {
            millis: || TODAY * 1000,
            synchronised: || false,
            boot: || Duration::ZERO,
        };
        let mut clock = Clock::of(source, None, Some(TODAY - 1000));
        let later = TODAY + 10 * 86_400;
        clock.remember(Some(later));
        assert_eq!(clock.earliest(), later - KEEP_EACH);
        assert_eq!(clock.date(), Ok(UtcTime(TODAY)), "it was set back");
        clock.believe(agreed((later - KEEP_EACH) * 1000 - 1));
        assert_eq!(clock.whose(), Whose::Machines);
        clock.believe(agreed((later - KEEP_EACH) * 1000));
        assert_eq!(clock.whose(), Whose::Servers);
        // What was wrong in the run before, and is given up.
        let mut clock = Clock::of(source, None, Some(later));
        assert!(clock.date().is_err());
        clock.remember(Some(TODAY));
        assert_eq!(
            (clock.date(), clock.earliest()),
            (Ok(UtcTime(TODAY)), TODAY)
        );
        clock.remember(Some(later));
        assert_eq!(clock.last_known, Some(TODAY));
    }
}
