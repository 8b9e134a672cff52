//! Commands that are run to their end, and processes that live until they are dropped.
//!
//! Every child runs in a process group of its own, so that Ctrl-C in the terminal reaches only this
//! program, and dies with this program even when it is killed (`setpriv --pdeathsig`).

use super::failure::{Context, Failure, Result};
use super::interrupt;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may run when nothing else was said.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process may take to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// What a command that ended has left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// Whether it ended with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// A command to be run to its end or kept as a [`Process`].
#[derive(Debug, Clone)]
pub struct Exec {
    prefix: Vec<String>,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<String>,
    patience: Duration,
}

impl Exec {
    /// A command on the host: the program and its arguments.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            prefix: Vec::new(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            stdin: None,
            patience: PATIENCE,
        }
    }

    /// A line for `sh`.
    pub fn shell(line: &str) -> Self {
        Self::new(["sh", "-ec", line])
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// Runs through another command, such as `ip netns exec NS`.
    #[must_use]
    pub(super) fn through(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref().to_string_lossy().into_owned();
        self.env.push((name.to_owned(), value));
        self
    }

    /// What the command reads; nothing otherwise.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// How long the command may take; it is killed then.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs the command to its end; gives what it printed. Fails, with its stderr, when it does not
    /// end with 0.
    pub fn run(self) -> Result<String> {
        let line = self.line();
        let finished = self.finish()?;
        if finished.success() {
            return Ok(finished.stdout);
        }
        let how = match (finished.status.code(), finished.status.signal()) {
            (Some(code), _) => format!("ended with {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended oddly".to_owned(),
        };
        let mut said = finished.stderr.trim().to_owned();
        if said.is_empty() {
            said = finished.stdout.trim().to_owned();
        }
        Err(Failure::new(format!("`{line}` {how}: {said}")))
    }

    /// Runs the command to its end, whatever its status.
    pub fn finish(self) -> Result<Finished> {
        interrupt::check()?;
        let line = self.line();
        let mut command = self.command();
        command
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context(format!("cannot run `{line}`"))?;
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        if let (Some(text), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            // A command that does not read its input says itself why.
            let _ = pipe.write_all(text.as_bytes());
        }
        let status = wait_until(&mut child, Instant::now() + self.patience)?;
        let timed_out = status.is_none();
        let status = match status {
            Some(status) => status,
            None => {
                let _ = child.kill();
                child.wait()?
            }
        };
        let stdout = stdout.join().unwrap_or_default();
        let stderr = stderr.join().unwrap_or_default();
        interrupt::check()?;
        if timed_out {
            return Err(Failure::new(format!(
                "`{line}` did not end within {:?}: {}",
                self.patience,
                stderr.trim()
            )));
        }
        Ok(Finished {
            status,
            stdout,
            stderr,
        })
    }

    /// Runs the command to its end while it writes to this program's own output. Fails when it does not
    /// end with 0.
    pub fn show(self) -> Result<()> {
        interrupt::check()?;
        let line = self.line();
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .spawn()
            .context(format!("cannot run `{line}`"))?;
        match wait_until(&mut child, Instant::now() + self.patience)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(Failure::new(format!("`{line}` failed: {status}"))),
            None => {
                // It may have something to clean up.
                if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                    let _ = kill_process(pid, Signal::TERM);
                }
                let deadline = Instant::now() + GRACE;
                while child.try_wait()?.is_none() && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(10));
                }
                let _ = child.kill();
                child.wait()?;
                interrupt::check()?;
                Err(Failure::new(format!(
                    "`{line}` did not end within {:?}",
                    self.patience
                )))
            }
        }
    }

    /// Starts the command and keeps it until the [`Process`] is dropped. Its output goes to `log`.
    pub fn spawn(self, name: &str, log: &Path) -> Result<Process> {
        interrupt::check()?;
        let line = self.line();
        let output = File::create(log).context(format!("cannot write {}", log.display()))?;
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command.spawn().context(format!("cannot run `{line}`"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        })
    }

    /// Starts the command on a terminal, which becomes that of a session of its own, and keeps it until the [`Process`]
    /// is dropped. There is no log: what it prints is on the terminal.
    pub(super) fn spawn_on(self, name: &str, terminal: &OwnedFd) -> Result<Process> {
        interrupt::check()?;
        let line = self.line();
        // Under nohup(1) this program ignores SIGHUP, and who inherits that is not hung up.
        let mut words = ["env", "--default-signal=HUP"]
            .into_iter()
            .chain(["setpriv", "--pdeathsig", "KILL", "--", "setsid", "--ctty"])
            .map(str::to_owned)
            .chain(self.prefix)
            .chain(self.argv);
        // In the process group of this program, so that setsid(1) has no need to fork; its session is its own.
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).envs(self.env);
        let side = || terminal.try_clone().map(Stdio::from);
        command.stdin(side()?).stdout(side()?).stderr(side()?);
        let child = command.spawn().context(format!("cannot run `{line}`"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log: PathBuf::from("/dev/null"),
            ended: None,
        })
    }

    fn command(&self) -> Command {
        let guard = ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned);
        let mut words = guard.iter().chain(&self.prefix).chain(&self.argv);
        let mut command = Command::new(words.next().map_or("", String::as_str));
        command
            .args(words)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .process_group(0);
        command
    }

    /// The command as a person would type it.
    fn line(&self) -> String {
        let words = self.prefix.iter().chain(&self.argv);
        words.cloned().collect::<Vec<_>>().join(" ")
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The status, or nothing when the deadline passed first or Ctrl-C was pressed.
fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline || interrupt::check().is_err() {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// A process of the lab; ended when dropped: SIGTERM, then SIGKILL after five seconds.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds what it printed.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Waits for its end; fails when that takes too long.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        match wait_until(&mut self.child, Instant::now() + patience)? {
            Some(status) => {
                self.ended = Some(status);
                Ok(status)
            }
            None => {
                interrupt::check()?;
                Err(Failure::new(format!(
                    "{} did not end within {patience:?}",
                    self.name
                )))
            }
        }
    }

    /// Sends a signal to this process alone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Err(Failure::new(format!("{} has ended already", self.name)));
        }
        // Not yet waited for, so the id cannot belong to anyone else.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Ends it gently, by force when it does not follow; true when gently was enough.
    pub fn stop(&mut self) -> bool {
        if !self.is_running() {
            return true;
        }
        let _ = self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while self.is_running() {
            if Instant::now() > deadline {
                self.kill();
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait() {
            self.ended = Some(status);
        }
    }

    /// The last lines it printed, for an error message.
    pub fn last_words(&self) -> String {
        last_lines(&self.log(), 12)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last `count` lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// Tries until `attempt` gives something, every 20 ms; fails with `what` when patience ends.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        interrupt::check()?;
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("{what}: not within {patience:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_shows_its_stderr() {
        let told = Exec::shell("echo fine; echo not fine >&2; exit 3")
            .run()
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("ended with 3") && told.contains("not fine"),
            "{told}"
        );
    }

    #[test]
    fn stdin_reaches_the_command() {
        assert_eq!(Exec::new(["cat"]).stdin("hello").run().unwrap(), "hello");
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let started = Instant::now();
        let slow = Exec::new(["sleep", "60"]).patience(Duration::from_millis(50));
        assert!(slow.run().unwrap_err().to_string().contains("did not end"));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let log = std::env::temp_dir().join(format!("xtask-process-{}", std::process::id()));
        let mut process = Exec::new(["sleep", "60"]).spawn("sleeper", &log).unwrap();
        assert!(process.is_running());
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        std::fs::remove_file(log).unwrap();
    }
}
