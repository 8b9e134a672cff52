//! The engine's process: started from this same binary, watched, and without privileges.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, getppid, pidfd_open,
    pidfd_send_signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set};

use crate::{Channel, Error, Result};

/// Where a child finds its [`Channel`]: the first descriptor after stderr.
pub const CHANNEL_FD: RawFd = 3;

/// A child process, held by a descriptor so that its number cannot be mistaken for another's.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    /// Starts this binary again with `args`, `channel` being its descriptor [`CHANNEL_FD`].
    /// stdout and stderr are inherited, stdin is /dev/null.
    ///
    /// # Errors
    /// Of `fork(2)` and `execve(2)`.
    pub fn spawn_self<A: AsRef<OsStr>>(args: &[A], channel: &Channel) -> Result<Self> {
        // The running file even where the one on disk was replaced by an upgrade.
        Self::spawn(OsStr::new("/proc/self/exe"), args, channel)
    }

    /// Starts a program, see [`Process::spawn_self`].
    ///
    /// # Errors
    /// Of `fork(2)` and `execve(2)`.
    pub fn spawn<A: AsRef<OsStr>>(program: &OsStr, args: &[A], channel: &Channel) -> Result<Self> {
        let fd = channel.as_fd().as_raw_fd();
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        // SAFETY: between fork and exec only dup2 and fcntl are called, which are
        // async-signal-safe and allocate nothing; `fd` stays open, `channel` is borrowed.
        unsafe {
            command.pre_exec(move || {
                if fd == CHANNEL_FD {
                    // dup2 onto itself would leave close-on-exec set.
                    let flags = libc::fcntl(fd, libc::F_GETFD);
                    if flags < 0 || libc::fcntl(fd, libc::F_SETFD, flags & !libc::FD_CLOEXEC) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                } else if libc::dup2(fd, CHANNEL_FD) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let mut child = command
            .spawn()
            .map_err(|e| Error::io(format!("start {}", program.display()), e))?;
        let pidfd = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK));
        match pidfd {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(e) => {
                // A child nobody can watch is a child nobody restarts.
                let _ = child.kill();
                let _ = child.wait();
                Err(Error::io("watch a child (pidfd_open, Linux 5.3)", e))
            }
        }
    }

    /// Process id, for people.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable once the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal, to this process and no other.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Its end, if it has come.
    ///
    /// # Errors
    /// Of `waitpid(2)`.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Of `waitpid(2)`.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Waits for its end without keeping the runtime.
    ///
    /// # Errors
    /// Of `epoll_ctl(2)` and `waitpid(2)`.
    pub async fn exited(&mut self) -> io::Result<ExitStatus> {
        let watch = crate::watch(self.pidfd.try_clone()?, tokio::io::Interest::READABLE)?;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            watch.readable().await?.clear_ready();
        }
    }
}

/// The channel a parent left at [`CHANNEL_FD`], close-on-exec from here on. Call it first thing in
/// the child's `main`, before anything else could open a descriptor of that number; it answers
/// once.
///
/// # Errors
/// [`Error::Io`] when that descriptor is no such socket: the command was run by hand.
pub fn inherited_channel() -> Result<Channel> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `kind`, and refuses a number that is no
    // open socket.
    let r = unsafe {
        libc::getsockopt(
            CHANNEL_FD,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut len,
        )
    };
    if r < 0 || kind != libc::SOCK_SEQPACKET || TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Error::Io {
            what: "find the supervisor's socket at descriptor 3: only `cygnet run` starts this"
                .to_owned(),
            source: io::Error::from_raw_os_error(libc::EBADF),
        });
    }
    // SAFETY: the descriptor is open, of the one kind that nothing but `spawn` leaves there, and
    // by the flag this is its only owner.
    let fd = unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
        .map_err(|e| Error::io("take over the supervisor's socket", e))?;
    Ok(Channel::from_fd(fd))
}

/// The identity a child takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id, not 0.
    pub uid: u32,
    /// Group id, not 0.
    pub gid: u32,
}

/// Gives up every privilege of this process for good: supplementary groups, user and group ids,
/// every capability, the bounding set, gaining any by `execve`, core dumps, being traced by its
/// own user; and asks to be killed when the parent ends.
///
/// Call it before threads are started: glibc changes ids in all threads, but capabilities and
/// no_new_privs belong to one.
///
/// # Errors
/// The step that failed. The process must then end: it may have kept part of its privileges.
pub fn confine(identity: Identity) -> Result<()> {
    if identity.uid == 0 || identity.gid == 0 {
        return Err(Error::Io {
            what: "confine a process as root: give it a user of its own".to_owned(),
            source: io::ErrorKind::InvalidInput.into(),
        });
    }
    let step = |what: &str, r: rustix::io::Result<()>| {
        r.map_err(|e| Error::io(format!("confine this process: {what}"), e))
    };
    let parent = getppid();
    // Needs CAP_SETPCAP, so before the ids. Numbers the kernel does not know are EINVAL.
    for number in 0..64u32 {
        // SAFETY: PR_CAPBSET_DROP takes its arguments by value.
        let r = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        if r < 0 {
            let e = io::Error::last_os_error();
            if e.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(Error::io("confine this process: the bounding set", e));
        }
    }
    // SAFETY: no pointer is read for an empty list.
    let r = unsafe { libc::setgroups(0, std::ptr::null()) };
    checked("supplementary groups", r)?;
    // SAFETY: three ids by value; glibc carries the change to every thread.
    let r = unsafe { libc::setresgid(identity.gid, identity.gid, identity.gid) };
    checked("group id", r)?;
    // SAFETY: as above.
    let r = unsafe { libc::setresuid(identity.uid, identity.uid, identity.uid) };
    checked("user id", r)?;
    step("ambient capabilities", clear_ambient_capability_set())?;
    step(
        "capabilities",
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            },
        ),
    )?;
    step("no_new_privs", rustix::thread::set_no_new_privs(true))?;
    step(
        "core dumps",
        setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(0),
                maximum: Some(0),
            },
        ),
    )?;
    // The change of ids reset both of these.
    step(
        "dumpable",
        set_dumpable_behavior(DumpableBehavior::NotDumpable),
    )?;
    step(
        "death signal",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    if getppid() != parent {
        return Err(Error::Io {
            what: "stay: the parent process ended meanwhile".to_owned(),
            source: io::Error::from_raw_os_error(libc::ESRCH),
        });
    }
    Ok(())
}

fn checked(what: &str, r: libc::c_int) -> Result<()> {
    if r < 0 {
        return Err(Error::io(
            format!("confine this process: {what}"),
            io::Error::last_os_error(),
        ));
    }
    Ok(())
}

/// No core dumps and no tracing by other processes of the same user, for a process that holds
/// keys and keeps its privileges.
///
/// # Errors
/// Of `setrlimit(2)` and `prctl(2)`.
pub fn protect_memory() -> Result<()> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(|e| Error::io("switch core dumps off", e))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| Error::io("make this process's memory private", e))
}
