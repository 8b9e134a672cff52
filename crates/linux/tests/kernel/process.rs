//! A child of this same binary gives up its privileges.

use std::os::fd::AsFd;
use std::time::Duration;

use cygnet_linux::Channel;
use cygnet_linux::process::{Identity, Process, confine, inherited_channel};
use rustix::process::Signal;

use crate::world::root;

/// The child's `main`: in any other run there is no channel, and nothing to do.
#[test]
fn confined_child() {
    let Ok(channel) = inherited_channel() else {
        return;
    };
    let mut buf = [0; 64];
    let (n, fds) = channel.recv(&mut buf).unwrap();
    assert_eq!((&buf[..n], fds.len()), (&b"start"[..], 1));
    confine(Identity {
        uid: 64_999,
        gid: 64_998,
    })
    .unwrap();
    let status =
        std::fs::read_to_string("/proc/thread-self/status").unwrap_or_else(|e| e.to_string());
    let limits =
        std::fs::read_to_string("/proc/thread-self/limits").unwrap_or_else(|e| e.to_string());
    let tun = match std::fs::File::open("/etc/shadow") {
        Ok(_) => "shadow readable",
        Err(_) => "shadow unreadable",
    };
    channel
        .send(
            format!("{status}{limits}{tun}\n").as_bytes(),
            &[fds[0].as_fd()],
        )
        .unwrap();
    // Until the parent kills us.
    let _ = channel.recv(&mut buf);
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_child_keeps_its_channel_and_nothing_else() {
    if !root() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let args = [
        "--exact",
        "process::confined_child",
        "--nocapture",
        "--test-threads=1",
    ];
    let mut child = Process::spawn_self(&args, &theirs).unwrap();
    drop(theirs);
    let file = std::fs::File::open("/dev/null").unwrap();
    ours.send(b"start", &[file.as_fd()]).unwrap();
    let mut buf = vec![0; 65_536];
    let (n, fds) = ours.recv(&mut buf).unwrap();
    let text = String::from_utf8_lossy(&buf[..n]);
    let line = |key: &str| {
        let line = text
            .lines()
            .find(|l| l.starts_with(key))
            .unwrap_or_default();
        line[key.len().min(line.len())..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("Uid:"), "64999 64999 64999 64999", "{text}");
    assert_eq!(line("Gid:"), "64998 64998 64998 64998");
    assert_eq!(line("Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Max core file size"), "0 0 bytes");
    assert!(text.contains("shadow unreadable"));
    assert_eq!(fds.len(), 1, "descriptors travel back as well");
    assert!(child.try_wait().unwrap().is_none());
    child.signal(Signal::KILL).unwrap();
    let status = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(5), child.exited())
            .await
            .unwrap()
            .unwrap()
    });
    assert!(!status.success());
}

#[test]
fn root_is_no_identity_to_be_confined_to() {
    assert!(confine(Identity { uid: 0, gid: 1 }).is_err());
}
