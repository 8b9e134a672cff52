//! The engine's process as the supervisor holds it: started, talked to, watched, killed.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::companion::{self, Companion};
use super::{Done, ENDED, Supervisor};
use crate::ipc::{Changed, Channel, MESSAGE_MAX, Setup, ToEngine, ToSupervisor};

/// Wait before it is started again, at first and at most.
pub(super) const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_MOST: Duration = Duration::from_secs(10);
/// The same of one that was ready: the LAN is offline until the next one is. What ends each of them ends one a second.
const RESTART_MOST_READY: Duration = Duration::from_secs(1);
/// One that lived this long did not fail at once.
const RESTART_FORGIVEN: Duration = Duration::from_secs(60);

/// What an engine does. The generation tells one engine from the one before.
pub(super) enum EngineEvent {
    /// It says something.
    Message {
        generation: u64,
        message: ToSupervisor,
    },
    /// It has ended, and this is how.
    Gone { generation: u64, how: String },
}

/// A running engine.
pub(super) struct Engine {
    process: Companion,
    pub(super) started: Instant,
    pub(super) last_heard: Instant,
    ready: bool,
}

impl Engine {
    /// Starts one and sets it up.
    pub(super) fn spawn(
        generation: u64,
        user: (u32, u32),
        setup: Setup,
        fds: &[OwnedFd],
        events: Sender<EngineEvent>,
    ) -> Result<Self, String> {
        let failed = |e: io::Error| format!("cannot start the engine: {e}");
        let process = Companion::spawn("engine", user, true, move |channel, child| {
            listen(generation, channel, child, &events);
        })
        .map_err(failed)?;
        let now = Instant::now();
        let engine = Self {
            process,
            started: now,
            last_heard: now,
            ready: false,
        };
        if let Err(error) = engine.send(&ToEngine::Setup(Box::new(setup)), fds) {
            engine.kill();
            return Err(failed(error));
        }
        Ok(engine)
    }

    pub(super) fn send(&self, message: &ToEngine, fds: &[OwnedFd]) -> io::Result<()> {
        self.process.send(message, fds)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn kill(&self) {
        self.process.kill();
    }
}

/// A thread of its own: the messages of one engine, then its end.
fn listen(generation: u64, channel: &Channel, child: Child, events: &Sender<EngineEvent>) {
    let understood = loop {
        match channel.receive_bare::<ToSupervisor>(MESSAGE_MAX) {
            Ok(Some(message)) => {
                let event = EngineEvent::Message {
                    generation,
                    message,
                };
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let how = companion::end(child, understood);
    let _ = events.blocking_send(EngineEvent::Gone { generation, how });
}

/// How long the next engine waits after one that ended, where `wait` was to be waited, and the one after that.
fn waits(wait: Duration, ready: bool) -> (Duration, Duration) {
    let most = match ready {
        true => RESTART_MOST_READY,
        false => RESTART_MOST,
    };
    let wait = wait.min(most);
    (wait, (2 * wait).min(most))
}

impl Supervisor {
    pub(super) fn start_engine(&mut self) -> Result<(), String> {
        self.generation += 1;
        let handed = self.network.hand_over()?;
        self.told = self.clock.told();
        let setup = Setup {
            bundle: self.loaded.bundle.clone(),
            sockets: handed.sockets,
            tuns: handed.tuns,
            date: self.told,
        };
        let engine = Engine::spawn(
            self.generation,
            self.user,
            setup,
            &handed.fds,
            self.engine_events.clone(),
        )?;
        self.engine = Some(engine);
        Ok(())
    }

    /// Sends to the engine; `false` if there is none, or none any more.
    pub(super) fn tell(&mut self, message: &ToEngine) -> bool {
        self.tell_with(message, &[])
    }

    pub(super) fn tell_with(&mut self, message: &ToEngine, fds: &[OwnedFd]) -> bool {
        let Some(engine) = &self.engine else {
            return false;
        };
        if let Err(error) = engine.send(message, fds) {
            // Its end is noticed by the reader as well, which starts it again.
            tracing::warn!("the engine does not listen ({error}): ending it");
            engine.kill();
            return false;
        }
        true
    }

    /// Returns `true` when the program is to end.
    pub(super) fn engine_event(&mut self, event: EngineEvent) -> bool {
        match event {
            EngineEvent::Message {
                generation,
                message,
            } if generation == self.generation => return self.message(message),
            EngineEvent::Gone { generation, how } if generation == self.generation => {
                let ready = self.engine.take().is_some_and(|engine| engine.ready);
                if self.ending {
                    return true;
                }
                self.engine_gone(&how, ready);
            }
            // Of an engine that is not the present one.
            EngineEvent::Message { .. } | EngineEvent::Gone { .. } => {}
        }
        false
    }

    fn engine_gone(&mut self, how: &str, ready: bool) {
        self.restarts = self.restarts.saturating_add(1);
        self.leases.release_all();
        self.questions = 0;
        let (wait, next) = waits(self.restart_wait, ready);
        self.restart_wait = next;
        tracing::error!(
            "the engine ended ({how}): starting it again in {:.1} s",
            wait.as_secs_f32()
        );
        self.network.engine_gone();
        let why = format!("the engine ended ({how})");
        self.history.all_down(&why, self.clock.date().ok());
        self.keep_history();
        self.hooks.all_down();
        self.run_hooks();
        for (_, reply) in std::mem::take(&mut self.waiting_status) {
            self.network.report(self.status(None), reply);
        }
        self.restart_in(wait);
    }

    pub(super) fn restart_in(&self, wait: Duration) {
        let (done, generation) = (self.done.clone(), self.generation);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(wait).await;
            let _ = done.send(Done::Restart { generation });
        });
    }

    fn message(&mut self, message: ToSupervisor) -> bool {
        match message {
            ToSupervisor::Ready => {
                if let Some(engine) = &mut self.engine {
                    engine.ready = true;
                }
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
                tracing::info!("ready");
            }
            ToSupervisor::Ask { id, ask } => self.ask(id, ask),
            ToSupervisor::ReleaseLease { ike_sa } => self.leases.release(ike_sa),
            message @ (ToSupervisor::SetVirtual { .. } | ToSupervisor::Reach { .. }) => {
                self.network.tell(message);
            }
            ToSupervisor::Status { request, status } => {
                if let Some(reply) = self.waiting_status.remove(&request) {
                    self.network.report(self.status(Some(status)), reply);
                }
            }
            ToSupervisor::Heartbeat => {
                if let Some(engine) = &mut self.engine {
                    engine.last_heard = Instant::now();
                    if engine.last_heard.duration_since(engine.started) > RESTART_FORGIVEN {
                        self.restart_wait = RESTART_FIRST;
                    }
                }
            }
            ToSupervisor::Drained => return self.ending,
            ToSupervisor::Carried { ike_sa, carried } => {
                let config = &self.loaded.config;
                self.hooks.note(config, ike_sa, carried.as_deref());
                self.run_hooks();
            }
            ToSupervisor::Changed { connection, change } => {
                let change = match change {
                    Changed::Down { .. } if self.ending => Changed::Down {
                        why: ENDED.to_owned(),
                    },
                    Changed::Failed { .. } if self.ending => return false,
                    change => change,
                };
                self.history
                    .note(&connection, change, self.clock.date().ok());
                self.keep_history();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is waited after engines that ended one after the other, in milliseconds.
    fn waited(ready: &[bool]) -> Vec<u128> {
        let mut next = RESTART_FIRST;
        let all = ready.iter().map(|ready| {
            let wait;
            (wait, next) = waits(next, *ready);
            wait.as_millis()
        });
        all.collect()
    }

    #[test]
    fn an_engine_that_was_ready_is_started_again_within_a_second() {
        let expected = [100, 200, 400, 800, 1000, 1000, 1000, 1000];
        assert_eq!(waited(&[true; 8]), expected);
    }

    #[test]
    fn one_that_never_gets_ready_waits_for_up_to_ten() {
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(waited(&[false; 9]), expected);
    }

    #[test]
    fn ends_of_ready_ones_cost_one_that_is_not_ready_a_second() {
        let ready = [true, true, true, true, true, true, false, false, true];
        let expected = [100, 200, 400, 800, 1000, 1000, 1000, 2000, 1000];
        assert_eq!(waited(&ready), expected);
    }
}
