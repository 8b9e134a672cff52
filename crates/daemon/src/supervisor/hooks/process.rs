//! One run of a hook: a program of the operator's, in a process group of its own, for a limited time, with what it
//! says in the log.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::pairs::Telling;

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long the end of one that has got SIGKILL is waited for: whom the kernel does not let go, it does not.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How long what a hook has said is waited for when it has ended: it may have left somebody who holds its output.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Lines of a run that are logged.
const LINES_MAX: usize = 64;
/// Octets of each.
const LINE_MAX: usize = 400;
/// Octets of a run that are read at once as they come.
const OCTETS_MAX: usize = 64 << 10;
/// Between two reads of what is not logged.
const PACE: Duration = Duration::from_millis(50);

/// A hook, and whom it runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    /// Its path.
    pub(super) file: String,
    pub(super) arguments: Vec<String>,
    /// `None`: root.
    pub(super) user: Option<(u32, u32)>,
    /// How long a run may take.
    pub(super) timeout: Duration,
}

impl Program {
    /// Whether this is who was told, however patient we were.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.file, &self.arguments, self.user) == (&other.file, &other.arguments, other.user)
    }
}

/// Tells a hook what happened, and waits for its end.
pub(super) async fn tell(tunnel: &str, telling: &Telling) {
    let verb = telling.verb;
    tracing::debug!(
        "{tunnel}: hook {}: told of {}",
        telling.program().file,
        verb.name()
    );
    let ended = match Run::start(telling) {
        Ok(run) => run.finish(tunnel, telling.program().timeout).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        let program = &telling.program().file;
        tracing::warn!(
            "{tunnel}: the hook {program} ({}) {error}; nothing else depends on it",
            verb.name()
        );
    }
}

struct Run {
    child: Child,
    /// Until its first process is waited for, whose number it has.
    group: Option<Pid>,
    output: Receiver,
}

impl Run {
    fn start(telling: &Telling) -> Result<Self, String> {
        let program = telling.program();
        let file = trusted(&program.file)?;
        if let Some(user) = program.user {
            usable(&program.file, &file, user)?;
        }
        let failed = |e: std::io::Error| format!("cannot be run: {e}");
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut command = Command::new(&file);
        command
            .args(&program.arguments)
            .env_clear()
            .envs(telling.environment())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer);
        if let Some((uid, gid)) = program.user {
            command.uid(uid).gid(gid);
        }
        let output = Receiver::from_owned_fd(reader.into()).map_err(failed)?;
        let child = command.spawn().map_err(failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self {
            child,
            group,
            output,
        })
    }

    async fn finish(mut self, tunnel: &str, timeout: Duration) -> Result<(), String> {
        let mut said = Output::default();
        let mut log = |line: &str| tracing::info!("{tunnel}: hook: {line}");
        let limit = tokio::time::sleep(timeout);
        tokio::pin!(limit);
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break Some(status),
                () = &mut limit => break None,
                () = said.read(&mut self.output, &mut log) => {}
            }
        };
        let Some(status) = status else {
            // It is waited for behind both: its number stays its own until then.
            let spoke = !said.ended;
            self.signal(Signal::TERM);
            let grace = tokio::time::sleep(GRACE);
            tokio::pin!(grace);
            // When nobody is left who could say something, it has followed.
            while !(spoke && said.ended) {
                tokio::select! {
                    () = &mut grace => break,
                    () = said.read(&mut self.output, &mut log) => {}
                }
            }
            self.signal(Signal::KILL);
            let ended = tokio::time::timeout(LAST_WAIT, self.child.wait()).await;
            self.group = None;
            said.end(&mut log);
            let what = match ended {
                Ok(_) => "was ended",
                Err(_) => "cannot be ended",
            };
            return Err(format!(
                "did not end within {:.1} s, and {what}: see what it waits for, or give it more time with hook_timeout",
                timeout.as_secs_f32()
            ));
        };
        self.group = None;
        let _ = tokio::time::timeout(LAST_WORDS, said.read_all(&mut self.output, &mut log)).await;
        said.end(&mut log);
        let status = status.map_err(|e| format!("cannot be waited for: {e}"))?;
        judge(status)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, signal);
            // Or have left its group for another one.
            if rustix::process::getpgid(Some(group)).is_ok_and(|now| now != group) {
                let _ = rustix::process::kill_process(group, signal);
            }
        }
    }
}

impl Drop for Run {
    /// Nobody waits for it any more: the program ends.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn judge(status: ExitStatus) -> Result<(), String> {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("failed with exit code {code}")),
        (None, signal) => Err(format!(
            "was ended by signal {}",
            signal.unwrap_or_default()
        )),
    }
}

/// What a hook says: a line of the log each, within bounds.
#[derive(Default)]
struct Output {
    line: Vec<u8>,
    lines: usize,
    octets: usize,
    /// It has closed its output.
    ended: bool,
}

impl Output {
    /// What comes next; never returns when nothing more comes.
    async fn read(&mut self, from: &mut Receiver, log: &mut impl FnMut(&str)) {
        if self.ended {
            return std::future::pending().await;
        }
        if self.is_over() {
            // It waits for us, not we for it.
            tokio::time::sleep(PACE).await;
        }
        let mut bytes = [0; 4096];
        match from.read(&mut bytes).await {
            Ok(0) | Err(_) => self.ended = true,
            Ok(count) => self.take(bytes.get(..count).unwrap_or_default(), log),
        }
    }

    async fn read_all(&mut self, from: &mut Receiver, log: &mut impl FnMut(&str)) {
        while !self.ended && !self.is_over() {
            self.read(from, log).await;
        }
    }

    /// It says more than anybody wants to know.
    fn is_over(&self) -> bool {
        self.lines > LINES_MAX || self.octets > OCTETS_MAX
    }

    fn take(&mut self, bytes: &[u8], log: &mut impl FnMut(&str)) {
        self.octets = self.octets.saturating_add(bytes.len());
        for byte in bytes {
            match byte {
                b'\n' => self.end(log),
                // One more, to know that it is cut.
                byte if self.line.len() <= LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
    }

    /// The line is whole.
    fn end(&mut self, log: &mut impl FnMut(&str)) {
        let mut line = std::mem::take(&mut self.line);
        if line.is_empty() || self.lines > LINES_MAX {
            return;
        }
        self.lines += 1;
        if self.lines > LINES_MAX {
            log("(it says more, which is left out)");
            return;
        }
        let cut = line.len() > LINE_MAX;
        line.truncate(LINE_MAX);
        let mut text = visible(&String::from_utf8_lossy(&line));
        if cut {
            text.push('…');
        }
        log(&text);
    }
}

/// Text that steers no terminal.
pub(in crate::supervisor) fn visible(text: &str) -> String {
    let replaced = |c: char| match c {
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.trim_end().chars().map(replaced).collect()
}

/// The file behind the path, which only root, or whoever runs this, can have written.
pub(super) fn trusted(program: &str) -> Result<PathBuf, String> {
    let path = Path::new(program);
    let file = std::fs::canonicalize(path)
        .map_err(|e| format!("cannot be found: {e}; check the path in `hook`"))?;
    let look = |place: &Path| {
        let metadata = std::fs::metadata(place);
        metadata.map_err(|e| format!("cannot be looked at: {e}"))
    };
    let metadata = look(&file)?;
    if !metadata.is_file() {
        return Err("is no file: expected a program or a script".to_owned());
    }
    if metadata.mode() & 0o111 == 0 {
        return Err(format!(
            "has mode {:03o}: nobody may run it; `chmod 755 {}`",
            metadata.mode() & 0o777,
            file.display()
        ));
    }
    for place in file.ancestors().chain(path.ancestors()) {
        only_ours(place, &look(place)?)?;
    }
    Ok(file)
}

/// Whoever may write it, or puts another one in its place, would be root.
fn only_ours(place: &Path, metadata: &Metadata) -> Result<(), String> {
    let shown = place.display();
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(format!(
            "is not run: {shown} belongs to user {}; expected root: `chown root {shown}`",
            metadata.uid()
        ));
    }
    // In a directory such as /tmp nobody replaces what is another's.
    let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    if metadata.mode() & 0o022 != 0 && !sticky {
        return Err(format!(
            "is not run: {shown} has mode {:03o}, so that others may write there; `chmod go-w {shown}`",
            metadata.mode() & 0o777
        ));
    }
    Ok(())
}

/// Whether this user, who is not root, can run the file that the path leads to.
pub(super) fn usable(path: &str, file: &Path, user: (u32, u32)) -> Result<(), String> {
    let above = |place: &Path| {
        let all = place.ancestors().skip(1).map(Path::to_owned);
        all.collect::<Vec<_>>()
    };
    for place in above(Path::new(path)).into_iter().chain(above(file)) {
        if !may(user, &place, 0o1)? {
            return Err(format!(
                "cannot be run by hook_user: it may not pass {0}; put the file elsewhere, such as \
                 /usr/local/lib/cygnet, or `chmod a+x {0}`",
                place.display()
            ));
        }
    }
    // A script is read by its shell, which is that user as well.
    let mut begin = [0; 2];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut begin));
    let is_script = read.is_ok() && begin == *b"#!";
    if !may(user, file, if is_script { 0o5 } else { 0o1 })? {
        return Err(format!(
            "cannot be run by hook_user: it may not {} {1}; `chmod a+rx {1}`",
            if is_script { "read and run" } else { "run" },
            file.display()
        ));
    }
    Ok(())
}

/// Whether a user has these permissions; where an access control list says more than the mode, it is believed to.
fn may((uid, gid): (u32, u32), place: &Path, wanted: u32) -> Result<bool, String> {
    let metadata = std::fs::metadata(place).map_err(|e| format!("cannot be looked at: {e}"))?;
    let shift = match (metadata.uid() == uid, metadata.gid() == gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    let listed = rustix::fs::getxattr(place, "system.posix_acl_access", &mut [0_u8; 0]);
    Ok((metadata.mode() >> shift) & wanted == wanted || listed.is_ok())
}
