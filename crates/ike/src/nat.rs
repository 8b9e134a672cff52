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
