//! What arrives at the home router from the home, before anything is done to it: tcpdump at its interface.

use crate::ensure;
use crate::lab::{Context, Failure, Lab, Namespace, Process, Result, wait_for};
use pcap_file::pcap::PcapReader;
use std::fs::File;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is kept of a frame: all headers, and a mark in an error that quotes a packet.
const SNAP: &str = "256";
/// The kernel's ring, KiB: nothing may be lost, or "no leak" means little.
const RING: &str = "16384";
/// What was sent last arrives within this.
const SETTLE: Duration = Duration::from_millis(150);

/// A capture that runs.
pub(super) struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Returns when it listens.
    pub(super) fn start(lab: &Lab, router: &Namespace) -> Result<Self> {
        let file = lab.directory().join("home.pcap");
        let path = file.to_string_lossy();
        let mut tcpdump = router.spawn([
            "tcpdump",
            "-n",
            "-i",
            "lan",
            "-Q",
            "in",
            "-s",
            SNAP,
            "-B",
            RING,
            // Nothing waits for a block that fills up, and the file stays root's.
            "--immediate-mode",
            "-U",
            "-Z",
            "root",
            "-w",
            &path,
        ])?;
        wait_for("tcpdump listens", Duration::from_secs(5), || {
            ensure!(
                tcpdump.is_running(),
                "tcpdump ended: {}",
                tcpdump.last_words()
            );
            Ok(tcpdump.log().contains("listening on").then_some(()))
        })?;
        Ok(Self { tcpdump, file })
    }

    /// Ends it, and shows each frame with the moment of its arrival.
    pub(super) fn finish(mut self, mut each: impl FnMut(SystemTime, &[u8])) -> Result<()> {
        thread::sleep(SETTLE);
        ensure!(
            self.tcpdump.is_running() && self.tcpdump.stop(),
            "tcpdump ended by itself, or did not end: {}",
            self.tcpdump.last_words()
        );
        let said = self.tcpdump.log();
        let dropped = dropped(&said)
            .ok_or_else(|| Failure::new(format!("tcpdump does not say what it dropped: {said}")))?;
        ensure!(
            dropped == 0,
            "the capture lost {dropped} packets: it proves nothing"
        );
        let file = File::open(&self.file).context(self.file.display())?;
        let mut frames = PcapReader::new(file)?;
        // Raw, as the library else takes a frame that was cut short for a mistake.
        while let Some(frame) = frames.next_raw_packet() {
            let frame = frame?;
            let seconds = Duration::from_secs(frame.ts_sec.into());
            // tcpdump writes microseconds unless told otherwise.
            let at = UNIX_EPOCH + seconds + Duration::from_micros(frame.ts_frac.into());
            each(at, &frame.data);
        }
        Ok(())
    }
}

/// What tcpdump says in the end.
fn dropped(said: &str) -> Option<u64> {
    let line = said
        .lines()
        .find(|line| line.ends_with("dropped by kernel"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{End, wire};

    #[test]
    fn what_was_dropped_is_read() {
        let said = "tcpdump: listening on lan, link-type EN10MB (Ethernet), snapshot length 256 bytes\n\
                    12 packets captured\n14 packets received by filter\n3 packets dropped by kernel\n";
        assert_eq!(dropped(said), Some(3));
        assert_eq!(dropped("tcpdump: lan: no such device"), None);
    }

    #[test]
    fn only_what_arrives_is_captured() {
        let lab = Lab::new().unwrap();
        let (host, router) = (lab.host("host").unwrap(), lab.host("router").unwrap());
        wire(
            &End::new(&host, "eth0", &["192.168.1.20/24"]),
            &End::new(&router, "lan", &["192.168.1.1/24"]).mac([2, 0, 0, 0, 0, 1]),
        )
        .unwrap();
        let capture = Capture::start(&lab, &router).unwrap();
        let begun = SystemTime::now();
        host.exec(["ping", "-n", "-c3", "-i0.1", "-s1000", "192.168.1.1"])
            .unwrap();
        let (mut echoes, mut others) = (0, 0);
        capture
            .finish(|at, frame| {
                assert!(at + Duration::from_secs(1) > begun, "{at:?}");
                // IPv4, ICMP, an echo request to the router.
                let ipv4 = frame.get(12..14) == Some(&[8, 0][..]);
                if ipv4 && frame[23] == 1 && frame[34] == 8 && frame[..6] == [2, 0, 0, 0, 0, 1] {
                    echoes += 1;
                } else if ipv4 {
                    others += 1;
                }
            })
            .unwrap();
        assert_eq!((echoes, others), (3, 0));
    }
}
