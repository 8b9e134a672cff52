//! The engine's process as the supervisor holds it: started, talked to, watched, killed.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::Instant;

use tokio::sync::mpsc::Sender;

use super::companion::{self, Companion};
use crate::ipc::{Channel, MESSAGE_MAX, Setup, ToEngine, ToSupervisor};

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
