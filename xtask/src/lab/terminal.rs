//! A pseudo-terminal: a program on it, somebody who types, and a screen that shows what a person would see.

use super::failure::{Failure, Result};
use super::process::{Exec, Process, wait_for};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Columns and lines.
type Size = (u16, u16);

/// A terminal. Who is on it is hung up when it is dropped, as if its window were closed.
pub struct Terminal {
    /// The person's side; whoever is on it is hung up once nobody has it.
    master: Arc<File>,
    /// The programs' side: its modes are read there, and it outlives them.
    slave: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// An empty one.
    pub fn open(size: Size) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = open(name, flags, Mode::empty())?;
        let (columns, lines) = of_size(size)?;
        let terminal = Self {
            master: Arc::new(File::from(master)),
            slave,
            screen: Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0))),
        };
        terminal.set_window(size)?;
        let (master, screen) = (
            Arc::downgrade(&terminal.master),
            Arc::clone(&terminal.screen),
        );
        thread::spawn(move || follow(&master, &screen));
        Ok(terminal)
    }

    /// Starts a program in a session of its own, with this as its controlling terminal.
    pub fn start(&self, command: Exec, name: &str) -> Result<Process> {
        command.spawn_on(name, &self.slave)
    }

    /// Types.
    pub fn type_keys(&self, keys: &str) -> Result<()> {
        Ok((&*self.master).write_all(keys.as_bytes())?)
    }

    /// Makes the window larger or smaller.
    pub fn resize(&self, size: Size) -> Result<()> {
        let (columns, lines) = of_size(size)?;
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.set_size(lines, columns);
        drop(screen);
        self.set_window(size)
    }

    fn set_window(&self, (columns, lines): Size) -> Result<()> {
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.slave, size)?)
    }

    /// What it shows, a line each.
    pub fn text(&self) -> String {
        self.look(|screen| screen.contents())
    }

    /// Waits until a line of it holds all of these words; gives the line.
    pub fn wait_for_line(&self, words: &[&str], patience: Duration) -> Result<String> {
        self.wait_for_line_where(&format!("{words:?}"), patience, |line| {
            words.iter().all(|word| line.contains(word))
        })
    }

    /// Waits until a line of it is as wished; gives the line.
    pub fn wait_for_line_where(
        &self,
        what: &str,
        patience: Duration,
        wished: impl Fn(&str) -> bool,
    ) -> Result<String> {
        wait_for(&format!("the terminal shows {what}"), patience, || {
            let text = self.text();
            Ok(text.lines().find(|line| wished(line)).map(str::to_owned))
        })
        .map_err(|failure| Failure::new(format!("{failure}; it shows\n{}", self.text())))
    }

    /// Whether a program has taken the whole screen, or hidden the cursor.
    pub fn is_taken(&self) -> bool {
        self.look(|screen| screen.alternate_screen() || screen.hide_cursor())
    }

    /// How it treats what is typed and printed, in words that can be compared.
    pub fn modes(&self) -> Result<String> {
        let Termios {
            input_modes,
            output_modes,
            control_modes,
            local_modes,
            special_codes,
            ..
        } = tcgetattr(&self.slave)?;
        Ok(format!(
            "{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?} {special_codes:?}"
        ))
    }

    fn look<T>(&self, at: impl FnOnce(&vt100::Screen) -> T) -> T {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        at(screen.screen())
    }
}

/// Puts on the screen what comes, until the terminal is dropped: a reader that waited for long would keep it.
fn follow(master: &Weak<File>, screen: &Mutex<vt100::Parser>) {
    let mut bytes = [0; 4096];
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    while let Some(master) = master.upgrade() {
        let mut ready = [PollFd::new(&*master, PollFlags::IN)];
        if poll(&mut ready, Some(&patience)) != Ok(1) {
            continue;
        }
        let Ok(length) = (&*master).read(&mut bytes) else {
            return;
        };
        let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.process(bytes.get(..length).unwrap_or_default());
    }
}

fn of_size((columns, lines): Size) -> Result<(NonZeroU16, NonZeroU16)> {
    let both = NonZeroU16::new(columns).zip(NonZeroU16::new(lines));
    both.ok_or_else(|| Failure::new("a terminal has columns and lines"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_it_has_it_as_its_terminal_and_is_hung_up_with_it() {
        let terminal = Terminal::open((40, 10)).unwrap();
        let line = "stty size; read word; echo \"said $word\" >/dev/tty; sleep 600";
        let mut shell = terminal.start(Exec::shell(line), "shell").unwrap();
        let patience = Duration::from_secs(10);
        terminal.wait_for_line(&["10 40"], patience).unwrap();
        terminal.type_keys("hello\r").unwrap();
        terminal.wait_for_line(&["said hello"], patience).unwrap();
        assert!(shell.is_running() && !terminal.is_taken());
        drop(terminal);
        let ended = shell.wait(patience).unwrap();
        assert!(!ended.success(), "{ended}");
    }
}
