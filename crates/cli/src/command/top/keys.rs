//! Keys, and what each means.

use std::io;
use std::thread;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::{self, Receiver};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// To end, or to close the help where it is open.
    Quit,
    /// To end, whatever is shown.
    Interrupt,
    /// To stop until the shell continues it.
    Suspend,
    Next,
    Previous,
    Devices,
    History,
    Pause,
    /// Look more often.
    Faster,
    /// Look less often.
    Slower,
    Help,
}

impl Action {
    pub(super) fn of(key: KeyEvent) -> Option<Self> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Self::Interrupt),
                KeyCode::Char('z') => Some(Self::Suspend),
                _ => None,
            };
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Self::Quit),
            KeyCode::Tab | KeyCode::Down | KeyCode::Right => Some(Self::Next),
            KeyCode::BackTab | KeyCode::Up | KeyCode::Left => Some(Self::Previous),
            KeyCode::Char('d') => Some(Self::Devices),
            KeyCode::Char('h') => Some(Self::History),
            KeyCode::Char('p') => Some(Self::Pause),
            KeyCode::Char('-') => Some(Self::Faster),
            KeyCode::Char('+' | '=') => Some(Self::Slower),
            KeyCode::Char('?') => Some(Self::Help),
            _ => None,
        }
    }
}

/// Each key with what it does, for the help.
pub(super) const HELP: [(&str, &str); 8] = [
    ("q, Esc, Ctrl-C", "quit"),
    ("Tab, arrows", "another tunnel, or device"),
    ("d", "devices, and back"),
    ("h", "what happened to the tunnel, and back"),
    ("p", "pause, and go on"),
    ("+ -", "longer, shorter interval"),
    ("Ctrl-Z", "suspend; `fg` continues"),
    ("?", "this help; any key but Ctrl-C closes it"),
];

/// Reads keys, and changes of the terminal's size, until nobody wants them any more or the terminal is gone. On a
/// thread, since a reader waits for the rest of a key's sequence that may never come.
pub(super) fn read() -> io::Result<Receiver<Event>> {
    let (sender, receiver) = mpsc::channel(16);
    let reader = move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(reader)?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_quit_do_and_others_with_control_do_nothing() {
        let plain = |code| Action::of(KeyEvent::new(code, KeyModifiers::NONE));
        let control = |c| Action::of(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(plain(code), Some(Action::Quit));
        }
        assert_eq!(control('c'), Some(Action::Interrupt));
        assert_eq!(control('z'), Some(Action::Suspend));
        assert_eq!(control('d'), None);
        assert_eq!(plain(KeyCode::Char('x')), None);
        let released = KeyEvent {
            kind: KeyEventKind::Release,
            ..KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)
        };
        assert_eq!(Action::of(released), None);
    }
}
