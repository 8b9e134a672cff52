//! The loop: keys, signals and answers in, frames out. One thing is asked for at a time, and nothing is waited for that
//! a key would have to wait for.

use std::future::{Future, pending};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use hyper::Method;
use ratatui::crossterm::event::Event;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::keys::{self, Action};
use super::model::{Answer, Model, Page};
use super::screen::Screen;
use super::view::{self, Look};
use super::{DEVICES, STATUS};
use crate::args::top::Top;
use crate::client;

/// A cygnet that says nothing for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns when somebody quits; a sentence where the terminal does not do.
pub(super) fn watch(options: &Top, look: &Look) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime
        .block_on(show(options, look))
        .map_err(|e| format!("cannot use the terminal: {e}"))
}

async fn show(options: &Top, look: &Look) -> io::Result<()> {
    let mut signals = Signals::listen()?;
    let mut screen = Screen::open()?;
    let mut keys = keys::read()?;
    let mut model = Model::new(options.interval);
    let mut asked: Option<Pin<Box<dyn Future<Output = Answer>>>> = None;
    let mut next = Instant::now();
    loop {
        screen.draw(|area, buffer| view::draw(&model, look, area, buffer))?;
        tokio::select! {
            biased;
            told = signals.next() => match told {
                Told::End => return Ok(()),
                Told::Continue => screen.renew()?,
            },
            event = keys.recv() => {
                let Some(event) = event else {
                    return Err(io::Error::other("it gives no more keys"));
                };
                // A size that changed is seen as the next frame is drawn.
                let Event::Key(key) = event else {
                    continue;
                };
                match Action::of(key) {
                    Some(action) if model.is_ended_by(action) => return Ok(()),
                    Some(Action::Suspend) => screen.suspend()?,
                    Some(action) => {
                        model.handle_action(action);
                        next = next.min(Instant::now() + wait(action, model.interval));
                    }
                    None => model.help = false,
                }
            }
            answer = answered(&mut asked) => {
                asked = None;
                model.handle_answer(std::time::Instant::now(), answer);
                next = Instant::now() + model.interval;
            }
            () = sleep_until(next), if asked.is_none() && !model.paused => {
                let socket = options.socket.socket.clone();
                asked = Some(Box::pin(ask(socket, model.page == Page::Devices)));
            }
        }
    }
}

/// How long the next look may be off, once this was asked for.
fn wait(action: Action, interval: Duration) -> Duration {
    match action {
        // What is shown next is not known yet, or old.
        Action::Devices | Action::Pause => Duration::ZERO,
        _ => interval,
    }
}

async fn answered(asked: &mut Option<Pin<Box<dyn Future<Output = Answer>>>>) -> Answer {
    match asked {
        Some(answer) => answer.await,
        None => pending().await,
    }
}

async fn ask(socket: PathBuf, devices: bool) -> Answer {
    let get = async |path: &str| {
        let answer = client::ask(&socket, Method::GET, path, None);
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
            Err(format!(
                "{} gives no answer; see journalctl -u cygnet",
                socket.display()
            ))
        })
    };
    Answer {
        status: get(STATUS).await,
        devices: match devices {
            true => Some(get(DEVICES).await),
            false => None,
        },
    }
}

/// What this process is told from outside.
enum Told {
    End,
    Continue,
}

struct Signals {
    end: [Signal; 4],
    cont: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            end: [
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
                signal(SignalKind::terminate())?,
            ],
            cont: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }

    async fn next(&mut self) -> Told {
        let [hangup, interrupt, quit, terminate] = &mut self.end;
        tokio::select! {
            _ = hangup.recv() => Told::End,
            _ = interrupt.recv() => Told::End,
            _ = quit.recv() => Told::End,
            _ = terminate.recv() => Told::End,
            _ = self.cont.recv() => Told::Continue,
        }
    }
}
