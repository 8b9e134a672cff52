//! Whether a NAT stands between the two (RFC 7296 §2.23), seen and claimed.

use std::net::{IpAddr, Ipv4Addr};

use cygnet_crypto::digest::nat_detection_hash;
use cygnet_wire::header::Spi;
use cygnet_wire::notify::{NotifyPayload, NotifyType};

use crate::io::Path;

/// Where IKE and ESP go once a NAT is between the two (RFC 3948).
pub const NATT_PORT: u16 = 4500;

/// What is known about NATs on the way to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// The peer knows NAT detection at all; without it there is no UDP encapsulation.
    pub supported: bool,
    /// The peer sees us under another address or port: a NAT before us.
    pub local: bool,
    /// We see the peer under another address or port than it has: a NAT before it, or its claim.
    pub remote: bool,
    /// We claimed one, so that ESP travels in UDP.
    pub claimed: bool,
}

impl Nat {
    /// Compares what the peer sent with what we see.
    ///
    /// `spi_i` and `spi_r` are those of the header that carried the notifications, `path` the one
    /// it came by. `claimed` is whether our own NAT_DETECTION_SOURCE_IP was falsified.
    pub fn observe<'p>(
        notifies: impl IntoIterator<Item = &'p NotifyPayload<'p>>,
        spi_i: Spi,
        spi_r: Spi,
        path: &Path,
        claimed: bool,
    ) -> Self {
        let hash =
            |addr: IpAddr, port| nat_detection_hash(spi_i.to_bytes(), spi_r.to_bytes(), addr, port);
        let peer = hash(path.remote.ip(), path.remote.port());
        let own = hash(path.local.ip(), path.local.port());
        let (mut sources, mut source_matches) = (0, false);
        let (mut destinations, mut destination_matches) = (0, false);
        for notify in notifies {
            match notify.ty {
                // A host of several addresses sends several; one that matches suffices.
                NotifyType::NAT_DETECTION_SOURCE_IP => {
                    sources += 1;
                    source_matches |= notify.data.as_ref() == peer;
                }
                NotifyType::NAT_DETECTION_DESTINATION_IP => {
                    destinations += 1;
                    destination_matches |= notify.data.as_ref() == own;
                }
                _ => {}
            }
        }
        let supported = sources > 0 && destinations > 0;
        Self {
            supported,
            local: supported && !destination_matches,
            remote: supported && !source_matches,
            claimed,
        }
    }

    /// Whether IKE moves to [`NATT_PORT`] and ESP travels in UDP.
    pub fn encapsulates(&self) -> bool {
        self.supported && (self.local || self.remote || self.claimed)
    }

    /// Why ESP would travel without UDP, and what to do about it; `None`: it travels in UDP.
    pub fn why_bare(&self) -> Option<&'static str> {
        if self.encapsulates() {
            return None;
        }
        Some(match self.supported {
            false => {
                "the peer does no NAT traversal (it sent no NAT_DETECTION notifications), and ESP \
                 travels in UDP here: enable NAT traversal (RFC 7296 §2.23) at the peer"
            }
            true => {
                "no NAT is on the way and none is claimed, so the peer would send ESP without UDP, \
                 which is not done here: remove `force_udp = false`"
            }
        })
    }

    /// Whether our own NAT mapping has to be kept alive (RFC 3948 §4): only a real one.
    pub fn needs_keepalives(&self) -> bool {
        self.local
    }
}

/// NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP of a message of ours.
///
/// To claim a NAT, the source alone is falsified: what is said about the peer stays true, and its
/// own observation is not disturbed.
pub fn notifies(spi_i: Spi, spi_r: Spi, path: &Path, claim: bool) -> [NotifyPayload<'static>; 2] {
    let hash =
        |addr: IpAddr, port| nat_detection_hash(spi_i.to_bytes(), spi_r.to_bytes(), addr, port);
    let source = if claim {
        // No packet has this source.
        hash(Ipv4Addr::UNSPECIFIED.into(), 0)
    } else {
        hash(path.local.ip(), path.local.port())
    };
    let destination = hash(path.remote.ip(), path.remote.port());
    [
        NotifyPayload::with_data(NotifyType::NAT_DETECTION_SOURCE_IP, source.to_vec()),
        NotifyPayload::with_data(
            NotifyType::NAT_DETECTION_DESTINATION_IP,
            destination.to_vec(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Transport;

    const SPI_I: Spi = Spi(0x1122_3344_5566_7788);
    const SPI_R: Spi = Spi(0x99aa_bbcc_ddee_ff00);

    fn path(local: &str, remote: &str) -> Path {
        Path {
            transport: Transport::Udp,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            interface: 0,
        }
    }

    /// What is seen at `here` of what was sent on `there`.
    fn seen(there: &Path, here: &Path, peer_claims: bool, we_claim: bool) -> Nat {
        let notifies = notifies(SPI_I, SPI_R, there, peer_claims);
        Nat::observe(&notifies, SPI_I, SPI_R, here, we_claim)
    }

    /// Computed with Python's hashlib: sha1(SPIi | SPIr | 192.0.2.1 | 500) and the same of
    /// 0.0.0.0 and port 0.
    #[test]
    fn hashes_are_those_of_the_rfc_and_a_claim_falsifies_the_source_alone() {
        let path = path("192.0.2.1:500", "192.0.2.1:500");
        let hex = |n: &NotifyPayload<'_>| -> String {
            n.data.iter().map(|b| format!("{b:02x}")).collect()
        };
        let true_hash = "c31e70110fc425fd1cdd03aa08eef6ef77e1d848";
        let false_hash = "48684d162b441001dac25daab6f185f8f39dd172";
        let [source, destination] = notifies(SPI_I, SPI_R, &path, false);
        assert_eq!(source.ty, NotifyType::NAT_DETECTION_SOURCE_IP);
        assert_eq!(destination.ty, NotifyType::NAT_DETECTION_DESTINATION_IP);
        assert_eq!(
            (hex(&source), hex(&destination)),
            (true_hash.into(), true_hash.into())
        );
        let [source, destination] = notifies(SPI_I, SPI_R, &path, true);
        assert_eq!(
            (hex(&source), hex(&destination)),
            (false_hash.into(), true_hash.into())
        );
    }

    #[test]
    fn without_nat_esp_needs_no_udp() {
        let nat = seen(
            &path("192.0.2.1:500", "198.51.100.1:500"),
            &path("198.51.100.1:500", "192.0.2.1:500"),
            false,
            false,
        );
        assert!(nat.supported && !nat.local && !nat.remote);
        assert!(!nat.encapsulates() && !nat.needs_keepalives());
        assert!(nat.why_bare().unwrap().contains("force_udp"));
    }

    #[test]
    fn a_nat_is_seen_on_the_side_it_is_on() {
        // The client at 10.0.0.2 comes out of 203.0.113.9:1024.
        let client = path("10.0.0.2:500", "198.51.100.1:500");
        let server = path("198.51.100.1:500", "203.0.113.9:1024");
        let at_server = seen(&client, &server, false, false);
        assert!(at_server.remote && !at_server.local && at_server.encapsulates());
        assert!(!at_server.needs_keepalives());
        let at_client = seen(&server, &client, false, false);
        assert!(at_client.local && !at_client.remote && at_client.encapsulates());
        assert!(at_client.needs_keepalives());
    }

    #[test]
    fn a_changed_port_alone_is_a_nat() {
        let nat = seen(
            &path("192.0.2.1:500", "198.51.100.1:500"),
            &path("198.51.100.1:500", "192.0.2.1:1025"),
            false,
            false,
        );
        assert!(nat.remote && !nat.local);
    }

    #[test]
    fn a_claim_encapsulates_and_is_not_taken_for_an_observation() {
        let one = path("192.0.2.1:500", "[2001:db8::1]:500");
        let one = Path {
            remote: "198.51.100.1:500".parse().unwrap(),
            ..one
        };
        let other = path("198.51.100.1:500", "192.0.2.1:500");
        // The peer claims: for us it is before a NAT.
        let nat = seen(&one, &other, true, false);
        assert!(nat.remote && !nat.local && nat.encapsulates());
        // We claim: nothing is observed, and ESP travels in UDP all the same.
        let nat = seen(&one, &other, false, true);
        assert!(!nat.remote && !nat.local && nat.claimed && nat.encapsulates());
        assert!(!nat.needs_keepalives());
    }

    #[test]
    fn one_of_several_sources_suffices() {
        let here = path("198.51.100.1:500", "192.0.2.1:500");
        let there = path("192.0.2.1:500", "198.51.100.1:500");
        let [_, destination] = notifies(SPI_I, SPI_R, &there, false);
        let [right, _] = notifies(SPI_I, SPI_R, &there, false);
        let [wrong, _] = notifies(
            SPI_I,
            SPI_R,
            &path("10.9.9.9:500", "198.51.100.1:500"),
            false,
        );
        let all = [wrong, right, destination];
        assert!(!Nat::observe(&all, SPI_I, SPI_R, &here, false).remote);
    }

    #[test]
    fn a_peer_that_sends_none_cannot_be_encapsulated() {
        let here = path("198.51.100.1:500", "192.0.2.1:500");
        let nat = Nat::observe(&[], SPI_I, SPI_R, &here, true);
        assert!(!nat.supported && !nat.encapsulates());
        assert!(nat.why_bare().unwrap().contains("NAT_DETECTION"));
    }
}
