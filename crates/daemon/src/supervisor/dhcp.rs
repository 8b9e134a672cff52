//! `[gateway.dhcp]` and `[gateway.advertise]` as the supervisor holds them: what to lend and to advertise is worked out
//! from the file and the machine, a process without privileges does it, and what it lent is kept in the state directory.
//!
//! Nothing here ends the program: it is done when that is possible, and `status` says why not.

mod file;
mod guide;
mod look;
mod process;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cygnet_dhcp::{Record, Standing};
use cygnet_gateway::Mac;
use tokio::sync::{Mutex, mpsc};

use super::{Done, Supervisor};
use crate::api::{AdvertiseStatus, DhcpLease, DhcpState, DhcpStatus};
use crate::dhcp::{FromDhcp, Lends, Setup, State};
pub(crate) use guide::{guide, suggested};
pub(crate) use look::check;
use look::{Kind, Leg, Lent};
pub(super) use look::{Section, Wanted};
pub(super) use process::DhcpEvent;
use process::{END_PATIENCE, Process};

/// How often the machine is looked at: its address may be another, the interface may be there now.
const LOOK_EACH: Duration = Duration::from_secs(15);
/// Wait before the process is started again, at first and at most.
const RESTART_FIRST: Duration = Duration::from_secs(1);
const RESTART_MOST: Duration = Duration::from_secs(60);
/// A process that lived this long did not fail at once.
const RESTART_FORGIVEN: Duration = Duration::from_secs(60);
/// Leases are written at most this often: state may be on a flash card.
pub(super) const WRITE_EACH: Duration = Duration::from_secs(10);

/// All that is known of it.
pub(super) struct Dhcp {
    path: PathBuf,
    /// What was lent, as of `taken`.
    records: Vec<Record>,
    taken: Instant,
    running: Option<Running>,
    /// Why nothing runs: the warning.
    trouble: Option<String>,
    /// When the machine is looked at next; `None`: that is being done.
    look_at: Option<Instant>,
    restart_wait: Duration,
    generation: u64,
    /// Leases changed since they were written.
    changed: bool,
    written: Option<Instant>,
    /// Held while they are written.
    writing: Arc<Mutex<()>>,
}

struct Running {
    wanted: Wanted,
    process: Process,
    started: Instant,
    state: State,
    /// It was told to end. It has the ports until it is gone.
    ending: bool,
}

impl Running {
    /// What is not the same concerns nobody who was lent an address.
    fn follow(&mut self, wanted: Wanted) {
        if wanted.router != self.wanted.router {
            let dns = wanted.router.iter().flat_map(|router| &router.dns);
            self.process.advertise(dns.copied().collect());
        }
        self.wanted = wanted;
    }
}

impl Dhcp {
    /// With the leases of an earlier run. `date`: seconds since 1970, if known.
    pub(super) fn read(state_dir: &str, date: Option<i64>) -> Self {
        let path = Path::new(state_dir).join("dhcp-leases.json");
        let records = file::read(&path, date);
        Self {
            path,
            records,
            taken: Instant::now(),
            running: None,
            trouble: None,
            look_at: Some(Instant::now()),
            restart_wait: RESTART_FIRST,
            generation: 0,
            changed: false,
            written: None,
            writing: Arc::default(),
        }
    }

    /// Leases as of now, those that are over included.
    fn records(&self) -> impl Iterator<Item = Record> {
        let elapsed = self.taken.elapsed().as_secs();
        self.records.iter().map(move |record| Record {
            remaining_s: record.remaining_s.saturating_sub(elapsed),
            ..record.clone()
        })
    }

    /// The configuration may be another: it is looked at at once.
    pub(super) fn look_again(&mut self) {
        if self.look_at.is_some() {
            self.look_at = Some(Instant::now());
        }
        self.restart_wait = RESTART_FIRST;
    }

    /// Takes what the process says, as far as it can be so: it may have been taken over.
    fn take(&mut self, message: FromDhcp) {
        let Some(running) = &mut self.running else {
            return;
        };
        match message {
            FromDhcp::State(mut state) => {
                state.others.truncate(OTHERS_MAX);
                if state.standing != running.state.standing {
                    tell(&running.wanted, &state);
                }
                running.state = state;
            }
            FromDhcp::Leases(mut records) => {
                records.truncate(file::RECORDS_MAX);
                records.retain(Record::is_plausible);
                records.shrink_to_fit();
                self.records = records;
                self.taken = Instant::now();
                self.changed = true;
            }
        }
    }

    /// Ends the process; another one is started, if that is wanted, when it is gone.
    fn stop(&mut self, farewell: bool) {
        if let Some(running) = self.running.as_mut().filter(|running| !running.ending) {
            running.ending = true;
            running.process.end(farewell);
        }
    }

    /// Obeys what a look at the machine found.
    fn obey(
        &mut self,
        wanted: Result<Option<Wanted>, (Kind, String)>,
        user: (u32, u32),
        events: &mpsc::Sender<DhcpEvent>,
    ) {
        let now = Instant::now();
        self.look_at = Some(now + LOOK_EACH);
        let wanted = match wanted {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                self.trouble = None;
                self.stop(true);
                return;
            }
            Err((kind, why)) => {
                let trouble = kind.hindered(&why);
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}");
                }
                self.trouble = Some(trouble);
                self.stop(false);
                return;
            }
        };
        if let Some(running) = &mut self.running {
            if running.wanted.is_another_process(&wanted) {
                self.stop(false);
            } else if running.wanted != wanted && !running.ending {
                running.follow(wanted);
            }
            return;
        }
        self.generation += 1;
        let lends = wanted.lent.as_ref().map(|lent| Lends {
            settings: lent.settings.clone(),
            kept: self.records().collect(),
        });
        let setup = Setup {
            lends,
            router: wanted.router.clone(),
        };
        match Process::spawn(
            self.generation,
            user,
            &wanted.interface,
            setup,
            events.clone(),
        ) {
            Ok(process) => {
                self.trouble = None;
                self.running = Some(Running {
                    wanted,
                    process,
                    started: now,
                    state: State {
                        standing: Standing::Looking,
                        others: Vec::new(),
                        full: false,
                    },
                    ending: false,
                });
            }
            Err(why) => {
                let trouble = wanted.kind.hindered(&why);
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!("{trouble}");
                }
                self.trouble = Some(trouble);
                self.try_later(now);
            }
        }
    }

    fn try_later(&mut self, now: Instant) {
        self.look_at = Some(now + self.restart_wait);
        self.restart_wait = (self.restart_wait * 2).min(RESTART_MOST);
    }

    fn gone(&mut self, how: &str) {
        let now = Instant::now();
        if let Some(running) = self.running.take() {
            if running.ending {
                self.look_again();
                return;
            }
            if now.duration_since(running.started) > RESTART_FORGIVEN {
                self.restart_wait = RESTART_FIRST;
            }
            let why = format!("the process for it ended ({how})");
            let trouble = running.wanted.kind.hindered(&why);
            tracing::error!("{trouble}");
            self.trouble = Some(trouble);
            self.try_later(now);
        }
    }

    /// What is to be written now, if anything is.
    fn due(&mut self, date: Option<i64>, at_the_end: bool) -> Option<(PathBuf, Vec<u8>)> {
        let now = Instant::now();
        let lately = |written: Instant| now.duration_since(written) < WRITE_EACH;
        if !self.changed || !at_the_end && self.written.is_some_and(lately) {
            return None;
        }
        self.changed = false;
        self.written = Some(now);
        let records: Vec<Record> = self.records().collect();
        Some((self.path.clone(), file::emit(&records, date)?))
    }

    /// What hinders, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        if let Some(trouble) = &self.trouble {
            return vec![trouble.clone()];
        }
        let Some(running) = self.running.as_ref().filter(|running| !running.ending) else {
            return Vec::new();
        };
        let (wanted, state) = (&running.wanted, &running.state);
        let mut warnings = Vec::new();
        if state.standing == Standing::Silent {
            warnings.push(silent(wanted, &state.others));
        }
        if let Some(lent) = wanted.lent.as_ref().filter(|lent| lent.borrowed) {
            warnings.push(format!(
                "[gateway.dhcp] {} on {} was lent to this machine by another DHCP server, and goes when that is switched off: \
                 give this machine the address for good",
                lent.settings.server, wanted.interface
            ));
        }
        if wanted.no_ipv6 {
            warnings.push(format!(
                "[gateway.dhcp] {0} has no IPv6, so this machine is not advertised as a router: where the router advertises \
                 itself, IPv6 of devices goes past this machine; switch IPv6 off in the router, or on here \
                 (`sysctl net.ipv6.conf.{0}.disable_ipv6=0`); `router_advertisements = false` if the LAN has none",
                wanted.interface
            ));
        }
        if state.full
            && let Some(Lent { range, .. }) = &wanted.lent
        {
            warnings.push(format!(
                "[gateway.dhcp] a device found no address: all of {range} are lent; give it a wider `range`"
            ));
        }
        warnings
    }

    /// For `status`, where the box is advertised alone.
    pub(super) fn advertised(&self, interface: &str) -> AdvertiseStatus {
        let running = self.running.as_ref().filter(|running| !running.ending);
        AdvertiseStatus {
            interface: interface.to_owned(),
            advertising: running.is_some_and(|running| running.wanted.router.is_some()),
        }
    }

    /// For `status`, where addresses are to be lent.
    pub(super) fn status(&self) -> DhcpStatus {
        let running = self.running.as_ref();
        let lent = running.and_then(|running| running.wanted.lent.as_ref());
        let settings = lent.map(|lent| &lent.settings);
        let leases = self.records().map(|record| DhcpLease {
            address: record.address,
            mac: record.mac.to_string(),
            name: record.name.clone(),
            reserved: settings.is_some_and(|s| s.reservations.contains_key(&record.mac)),
            expires_in_s: record.remaining_s,
        });
        DhcpStatus {
            state: match running.map(|running| running.state.standing) {
                None if self.trouble.is_some() => DhcpState::Stopped,
                None | Some(Standing::Looking) => DhcpState::Looking,
                Some(Standing::Alone) => DhcpState::Serving,
                Some(Standing::Silent) => DhcpState::Silent,
            },
            interface: running.map(|running| running.wanted.interface.clone()),
            server: settings.map(|settings| settings.server),
            range: lent.map(|lent| lent.range.clone()),
            others: running.map_or_else(Vec::new, |running| running.state.others.clone()),
            router_advertisements: running.is_some_and(|r| r.wanted.router.is_some()),
            leases: leases.filter(|lease| lease.expires_in_s > 0).collect(),
        }
    }

    /// What devices call themselves.
    pub(super) fn names(&self) -> BTreeMap<Mac, String> {
        let named = self.records.iter();
        named
            .filter_map(|record| Some((record.mac, record.name.clone()?)))
            .collect()
    }
}

/// Other servers that are named.
const OTHERS_MAX: usize = 8;

fn silent(wanted: &Wanted, others: &[Ipv4Addr]) -> String {
    let others: Vec<String> = others.iter().map(Ipv4Addr::to_string).collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(", {}", others.join(" and ")),
    };
    format!(
        "[gateway.dhcp] another DHCP server answers on {}{others}: cygnet is silent, and devices that it serves go \
         past this machine; switch it off (in the router), then cygnet lends addresses within some minutes",
        wanted.interface
    )
}

fn tell(wanted: &Wanted, state: &State) {
    match state.standing {
        Standing::Looking => {}
        Standing::Alone => tracing::info!(
            "DHCP on {}: no other server answers, lending {}",
            wanted.interface,
            wanted.lent.as_ref().map_or("", |lent| &lent.range)
        ),
        Standing::Silent => tracing::warn!("{}", silent(wanted, &state.others)),
    }
}

impl Supervisor {
    /// Looks at the machine, and writes leases, when that is due.
    pub(super) fn watch_dhcp(&mut self) {
        if self.ending {
            return;
        }
        self.write_dhcp_leases();
        if self.dhcp.look_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let gateway = self.loaded.config.gateway.as_ref();
        let Some(section) = gateway.and_then(Section::of) else {
            self.dhcp_wanted(Ok(None));
            return;
        };
        self.dhcp.look_at = None;
        let bundle = &self.loaded.bundle;
        let (name, text) = (bundle.name.clone(), bundle.text.clone());
        let done = self.done.clone();
        tokio::task::spawn_local(async move {
            let wanted = look::look(&section, &name, &text).await;
            let _ = done.send(Done::Dhcp(Box::new((section, wanted))));
        });
    }

    /// A look that was made for `section` is over.
    pub(super) fn dhcp_looked(&mut self, section: &Section, wanted: Result<Wanted, String>) {
        let gateway = self.loaded.config.gateway.as_ref();
        if gateway.and_then(Section::of).as_ref() == Some(section) {
            self.dhcp_wanted(wanted.map(Some).map_err(|why| (section.kind(), why)));
        } else {
            // A reload came between.
            self.dhcp.look_at = Some(Instant::now());
        }
    }

    fn dhcp_wanted(&mut self, wanted: Result<Option<Wanted>, (Kind, String)>) {
        if !self.ending {
            self.dhcp.obey(wanted, self.user, &self.dhcp_events);
        }
    }

    /// The process said something, or ended.
    pub(super) fn dhcp_event(&mut self, event: DhcpEvent) {
        let present = self.dhcp.generation;
        match event {
            DhcpEvent::Message {
                generation,
                message,
            } if generation == present => self.dhcp.take(message),
            DhcpEvent::Gone { generation, how } if generation == present => self.dhcp.gone(&how),
            // Of one that was ended.
            DhcpEvent::Message { .. } | DhcpEvent::Gone { .. } => {}
        }
    }

    fn write_dhcp_leases(&mut self) {
        let date = self.kept_date();
        let Some((path, bytes)) = self.dhcp.due(date, false) else {
            return;
        };
        let writing = Arc::clone(&self.dhcp.writing);
        // Until it is on the disk: nothing else waits for that.
        tokio::task::spawn_local(super::crls::in_turn(writing, move || {
            file::write(&path, &bytes);
        }));
    }

    /// The date of what is kept: the machine's own. By a forged one leases would end with the program.
    fn kept_date(&self) -> Option<i64> {
        self.clock.machine().ok().map(|date| date.0)
    }

    /// At the end of the program: devices keep what they have.
    pub(super) async fn end_dhcp(&mut self, inbox: &mut mpsc::Receiver<DhcpEvent>) {
        self.dhcp.stop(false);
        let gone = async {
            while self.dhcp.running.is_some()
                && let Some(event) = inbox.recv().await
            {
                self.dhcp_event(event);
            }
        };
        // Killed by then, if it does not end by itself.
        let _ = tokio::time::timeout(2 * END_PATIENCE, gone).await;
        let date = self.kept_date();
        let _turn = self.dhcp.writing.clone().lock_owned().await;
        if let Some((path, bytes)) = self.dhcp.due(date, true) {
            file::write(&path, &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_written_now_and_then_and_at_the_end() {
        let mut dhcp = Dhcp::read("/nonexistent/cygnet", None);
        assert!(dhcp.due(None, true).is_none());
        dhcp.changed = true;
        let (path, bytes) = dhcp.due(None, false).unwrap();
        assert!(path.ends_with("dhcp-leases.json"));
        assert!(bytes.starts_with(b"{\"version\":1,"));
        dhcp.changed = true;
        assert!(dhcp.due(None, false).is_none());
        assert!(dhcp.due(None, true).is_some());
        assert!(dhcp.due(None, true).is_none());
    }

    #[test]
    fn why_nothing_is_lent_is_a_warning_and_a_state() {
        let mut dhcp = Dhcp::read("/nonexistent/cygnet", None);
        assert_eq!(dhcp.status().state, DhcpState::Looking);
        assert!(dhcp.warnings().is_empty());
        let (events, _inbox) = mpsc::channel(1);
        dhcp.obey(
            Err((Kind::Dhcp, "eth0 is not there".to_owned())),
            (65_534, 65_534),
            &events,
        );
        assert_eq!(dhcp.status().state, DhcpState::Stopped);
        let warnings = dhcp.warnings();
        assert_eq!(
            warnings,
            ["[gateway.dhcp] no addresses are lent: eth0 is not there"]
        );
        // The section is another, and then gone.
        let why = (Kind::Advertise, "eth0 has no IPv6".to_owned());
        dhcp.obey(Err(why), (65_534, 65_534), &events);
        let warnings = dhcp.warnings();
        assert!(
            warnings[0].starts_with("[gateway.advertise] this machine is not advertised"),
            "{warnings:?}"
        );
        assert!(warnings[0].ends_with("goes past this machine: eth0 has no IPv6"));
        assert!(!dhcp.advertised("eth0").advertising);
        dhcp.obey(Ok(None), (65_534, 65_534), &events);
        assert!(dhcp.warnings().is_empty());
    }

    #[test]
    fn what_is_remembered_runs_out() {
        let mut dhcp = Dhcp::read("/nonexistent/cygnet", None);
        dhcp.records.push(Record {
            address: Ipv4Addr::new(192, 168, 1, 100),
            mac: Mac::new([2, 0, 0, 0, 0, 9]).unwrap(),
            client: None,
            name: None,
            remaining_s: 60,
        });
        let remaining = |dhcp: &Dhcp| dhcp.records().map(|r| r.remaining_s).next();
        assert_eq!(remaining(&dhcp), Some(60));
        dhcp.taken = Instant::now().checked_sub(Duration::from_secs(59)).unwrap();
        assert!(remaining(&dhcp).is_some_and(|left| left <= 1));
    }
}
