//! The process that answers devices: started where `[gateway.dns]` says so, told what changes, started again when it
//! ends.

mod lists;
mod process;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cygnet_config::Config;
use tokio::sync::oneshot;

use super::companion::sentence;
use super::network::dns::Around;
use super::{Done, Supervisor};
use crate::api::DnsStatus;
use crate::dns::messages::{Counters, LetOut, NoWay, Report, Tls, ToResolver, Ways};
use lists::Lists;
use process::Process;

pub(crate) use lists::check;

/// Wait before it is started again, at first and at most.
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_MOST: Duration = Duration::from_secs(10);
/// One that lived this long did not fail at once.
const RESTART_FORGIVEN: Duration = Duration::from_secs(60);
/// What it says is wrong: so many sentences.
const TROUBLES_MAX: usize = 8;

/// What concerns that process.
pub(super) enum Event {
    /// The network around it changed; `None`: nobody is to be answered.
    Around(Option<Around>),
    /// A process has ended, and this is how.
    Gone { generation: u64, how: String },
    /// Time to start it again.
    Restart { generation: u64 },
    /// It is about to answer names that go direct; it waits until they do.
    LetOut {
        generation: u64,
        asked: Vec<LetOut>,
        done: oneshot::Sender<bool>,
    },
}

/// What the supervisor's loop holds of it.
pub(super) struct Dns {
    around: Option<Around>,
    process: Option<Process>,
    generation: u64,
    restarts: u32,
    restart_wait: Duration,
    lists: Lists,
    /// Of the processes before: counters go on.
    before: Counters,
    /// What was wrong when it was last looked.
    told: Vec<String>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            around: None,
            process: None,
            generation: 0,
            restarts: 0,
            restart_wait: RESTART_FIRST,
            lists: Lists::default(),
            before: Counters::default(),
            told: Vec::new(),
        }
    }
}

impl Dns {
    /// What it says, as far as it may be believed: it talks to strangers.
    fn report(&self) -> Report {
        let mut report = self
            .process
            .as_ref()
            .map(Process::report)
            .unwrap_or_default();
        report.troubles.truncate(TROUBLES_MAX);
        for trouble in &mut report.troubles {
            *trouble = sentence(trouble);
        }
        report.counters = sum(self.before, report.counters);
        report
    }

    /// A sentence for each thing that is wrong.
    fn troubles(&self) -> Vec<String> {
        let Some(around) = &self.around else {
            return Vec::new();
        };
        let process = self.process.is_none().then(|| {
            "devices that ask for names get no answer: the process that answers is being started".to_owned()
        });
        // That the tunnel is down is told with the tunnel.
        let resolver = around.tunnel.as_ref().err();
        let resolver = resolver.filter(|why| matches!(why, NoWay::Other(_)));
        let resolver = resolver.map(NoWay::to_string);
        let all = process.into_iter().chain(resolver);
        all.chain(self.lists.troubles())
            .chain(self.report().troubles)
            .map(|trouble| format!("[gateway.dns] {trouble}"))
            .collect()
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        if let Some(process) = self.process.take() {
            self.before = sum(self.before, process.report().counters);
            process.kill();
        }
        // What is still heard of it is of one that is not the present one.
        self.generation += 1;
    }
}

fn sum(a: Counters, b: Counters) -> Counters {
    Counters {
        queries: a.queries.saturating_add(b.queries),
        cache_hits: a.cache_hits.saturating_add(b.cache_hits),
        blocked: a.blocked.saturating_add(b.blocked),
        direct: a.direct.saturating_add(b.direct),
        failures: a.failures.saturating_add(b.failures),
        dropped: a.dropped.saturating_add(b.dropped),
    }
}

/// Whom to ask, by the configuration and what is around.
fn ways(config: &Config, around: &Around) -> Option<Ways> {
    let dns = config.gateway.as_ref()?.dns.as_ref()?;
    Some(Ways {
        tunnel: around.tunnel.clone(),
        tls: dns.tls.as_ref().map(|tls| Tls {
            name: tls.name.clone(),
            authorities: tls.authorities.clone(),
        }),
        direct: dns.direct.clone(),
        direct_resolvers: dns.direct_resolvers.clone(),
        direct_domains: config.gateway.as_ref()?.devices.direct_domains.clone(),
        lan_domains: dns.lan_domains.clone(),
        cache: dns.cache,
    })
}

impl Supervisor {
    pub(super) fn dns_event(&mut self, event: Event) {
        match event {
            Event::Around(around) => self.dns_around(around),
            Event::Gone { generation, how } if generation == self.dns.generation => {
                self.dns_gone(&how);
            }
            Event::Restart { generation } if generation == self.dns.generation => {
                if self.dns.process.is_none() && self.dns.around.is_some() && !self.ending {
                    self.start_dns();
                }
            }
            Event::LetOut {
                generation,
                asked,
                done,
            } if generation == self.dns.generation => self.network.let_out(asked, done),
            Event::Gone { .. } | Event::Restart { .. } | Event::LetOut { .. } => {}
        }
    }

    fn dns_around(&mut self, around: Option<Around>) {
        self.dns.around = around;
        if self.dns.around.is_none() {
            self.dns.end();
        } else if self.dns.process.is_some() {
            self.tell_dns_around();
        } else if !self.ending {
            self.start_dns();
        }
    }

    fn start_dns(&mut self) {
        self.dns.generation += 1;
        let started = Process::spawn(self.dns.generation, self.user, self.done.clone());
        match started {
            Ok(process) => {
                self.dns.process = Some(process);
                self.dns.lists.forget();
                self.tell_dns_around();
                self.tell_dns_lists();
            }
            Err(error) => self.dns_gone(&error),
        }
    }

    fn dns_gone(&mut self, how: &str) {
        let ended = self.dns.process.take();
        if let Some(process) = &ended {
            self.dns.before = sum(self.dns.before, process.report().counters);
            if process.started.elapsed() > RESTART_FORGIVEN {
                self.dns.restart_wait = RESTART_FIRST;
            }
        }
        if self.ending || self.dns.around.is_none() {
            return;
        }
        self.dns.restarts = self.dns.restarts.saturating_add(1);
        let wait = self.dns.restart_wait;
        self.dns.restart_wait = (wait * 2).min(RESTART_MOST);
        tracing::error!(
            "the process that answers devices ended ({how}): starting it again in {:.1} s",
            wait.as_secs_f32()
        );
        let (done, generation) = (self.done.clone(), self.dns.generation);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(wait).await;
            let _ = done.send(Done::Dns(Event::Restart { generation }));
        });
    }

    /// Where it answers, and whom it asks.
    fn tell_dns_around(&self) {
        let (Some(process), Some(around)) = (&self.dns.process, &self.dns.around) else {
            return;
        };
        // One that is behind the configuration is told anew as soon as the network's thread has read it.
        let Some(ways) = ways(&self.loaded.config, around) else {
            return;
        };
        let (mut places, mut fds) = (Vec::new(), Vec::new());
        for (place, sockets) in &around.places {
            let [Ok(udp), Ok(tcp)] = sockets.each_ref().map(std::os::fd::OwnedFd::try_clone) else {
                tracing::error!(
                    "cannot duplicate a descriptor: devices get no answer at {}",
                    place.address
                );
                continue;
            };
            places.push(*place);
            fds.extend([udp, tcp]);
        }
        let serve = ToResolver::Serve {
            places,
            clients: around.clients.clone(),
            ways: Box::new(ways),
        };
        process.tell(&serve, &fds);
    }

    /// The block lists, where one of them changed.
    fn tell_dns_lists(&mut self) {
        let dns = self.loaded.config.gateway.as_ref();
        let Some(dns) = dns.and_then(|gateway| gateway.dns.as_ref()) else {
            return;
        };
        let Some(process) = &self.dns.process else {
            return;
        };
        let base = self.path.parent().unwrap_or(Path::new("."));
        if let Some((names, fds)) = self.dns.lists.changed(base, &dns.block) {
            process.tell(&ToResolver::Block { names }, &fds);
        }
    }

    /// After a reload.
    pub(super) fn configure_dns(&mut self) {
        self.tell_dns_around();
        self.tell_dns_lists();
    }

    /// Every few seconds.
    pub(super) fn watch_dns(&mut self) {
        self.tell_dns_lists();
        let troubles = self.dns.troubles();
        for trouble in troubles
            .iter()
            .filter(|trouble| !self.dns.told.contains(trouble))
        {
            tracing::warn!("{trouble}");
        }
        self.dns.told = troubles;
    }

    pub(super) fn dns_warnings(&self) -> Vec<String> {
        self.dns.troubles()
    }

    /// `None` where nobody is answered.
    pub(super) fn dns_status(&self) -> Option<DnsStatus> {
        let around = self.dns.around.as_ref()?;
        let dns = self.loaded.config.gateway.as_ref()?.dns.as_ref()?;
        let Report {
            counters,
            blocked_names,
            ..
        } = self.dns.report();
        let resolvers: &[IpAddr] = match &around.tunnel {
            Ok(inside) => &inside.resolvers,
            Err(_) => &[],
        };
        Some(DnsStatus {
            addresses: around
                .places
                .iter()
                .filter(|(place, _)| !place.direct)
                .map(|(place, _)| place.address)
                .collect(),
            resolvers: resolvers.to_vec(),
            tls: dns.tls.as_ref().map(|tls| tls.name.clone()),
            reason: around.tunnel.as_ref().err().map(NoWay::to_string),
            process: self.dns.process.as_ref().map(Process::pid),
            restarts: self.dns.restarts,
            blocked_names,
            queries: counters.queries,
            cache_hits: counters.cache_hits,
            blocked: counters.blocked,
            direct: counters.direct,
            failures: counters.failures,
            dropped: counters.dropped,
        })
    }
}
