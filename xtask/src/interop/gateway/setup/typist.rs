//! A person at a terminal: a real one (socat's pseudo-terminal, of a session of its own), at which a command runs.

use super::machine::Machine;
use crate::lab::{Context, Failure, Result, wait_for};
use crate::project;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than anything takes that is waited for: a tunnel has half a minute to come up.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the shell of the terminal says behind the command.
const ENDED: &str = "ended with ";

/// Ctrl-C and Ctrl-D.
pub(super) const CTRL_C: &str = "\x03";
pub(super) const CTRL_D: &str = "\x04";

/// Somebody who runs one `cygnet gateway setup`.
pub(super) struct Typist {
    terminal: Child,
    keyboard: Option<ChildStdin>,
    screen: Arc<Mutex<Vec<u8>>>,
    /// How much of the screen was looked at.
    read: usize,
}

impl Typist {
    /// Types the command on the box.
    pub(super) fn start(machine: &Machine, flags: &[&str]) -> Result<Self> {
        let script = machine.lab.join("typed");
        let program = project::cygnet();
        // The shell is there to tell how the command ended, also after Ctrl-C.
        let text = format!(
            "#!/bin/sh\ntrap : INT\nPATH={}\n{} gateway setup --config {} {}\necho \"{ENDED}$?\"\n",
            machine.path,
            program.display(),
            machine.cygnet.config_path().display(),
            flags.join(" ")
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
        let mut terminal = Command::new("ip")
            .args(["netns", "exec", machine.cygnet.namespace().full_name()])
            .args(["setpriv", "--pdeathsig", "KILL", "--", "socat", "-"])
            .arg(format!("EXEC:{},pty,setsid,ctty,stderr", script.display()))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("socat")?;
        let keyboard = terminal.stdin.take();
        let screen = Arc::new(Mutex::new(Vec::new()));
        if let Some(mut output) = terminal.stdout.take() {
            let screen = Arc::clone(&screen);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut buffer) {
                    if let Ok(mut screen) = screen.lock() {
                        screen.extend_from_slice(&buffer[..length]);
                    }
                }
            });
        }
        Ok(Self {
            terminal,
            keyboard,
            screen,
            read: 0,
        })
    }

    /// Everything that stood on the screen.
    pub(super) fn screen(&self) -> String {
        let bytes = self.screen.lock().map(|it| it.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Waits until this stands behind what was read; gives what stood before it.
    pub(super) fn reads(&mut self, text: &str) -> Result<String> {
        let mut found = None;
        wait_for(&format!("\"{text}\" on the screen"), PATIENCE, || {
            let screen = self.screen();
            let unread = screen.get(self.read..).unwrap_or_default();
            found = unread.find(text).map(|at| (at, unread[..at].to_owned()));
            Ok(found.as_ref().map(|_| ()))
        })
        .map_err(|failure| Failure::new(format!("{failure}; on the screen:\n{}", self.screen())))?;
        let (at, before) = found.unwrap_or_default();
        self.read += at + text.len();
        Ok(before)
    }

    /// Types, without Enter.
    pub(super) fn types(&mut self, keys: &str) -> Result<()> {
        let keyboard = self
            .keyboard
            .as_mut()
            .ok_or_else(|| Failure::new("the keyboard is gone"))?;
        keyboard.write_all(keys.as_bytes())?;
        Ok(keyboard.flush()?)
    }

    /// Waits for a question, and answers with a line.
    pub(super) fn answers(&mut self, question: &str, line: &str) -> Result<()> {
        self.reads(question)?;
        self.reads("]: ")?;
        self.types(&format!("{line}\n"))
    }

    /// Takes whatever stands in brackets, up to the plan; gives that.
    pub(super) fn takes_defaults(&mut self) -> Result<String> {
        for question in [
            "Through which tunnel?",
            "Which interface is the LAN's?",
            "Which devices go through the tunnel",
            "Which of them go beside it",
            "Which have no internet at all",
            "Answer the devices' questions",
            "Lend addresses to the LAN",
            "Advertise this machine as IPv6 router",
        ] {
            self.answers(question, "")?;
        }
        self.reads("Go on? [n]: ")
    }

    /// Waits for the end of the command: its exit code.
    pub(super) fn ends(&mut self) -> Result<i32> {
        self.reads(ENDED)?;
        let rest = self.reads("\n")?;
        rest.trim()
            .parse()
            .map_err(|_| Failure::new(format!("it ended with {rest}")))
    }

    /// The terminal is gone: a window that is closed, a connection that is cut.
    pub(super) fn hangs_up(&mut self) -> Result<()> {
        self.terminal.kill()?;
        self.terminal.wait()?;
        Ok(())
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        let _ = self.hangs_up();
    }
}
