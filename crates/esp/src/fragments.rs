//! Which ports the later fragments of a packet have (RFC 4301 §7.2, "stateful fragment checking").

use std::net::IpAddr;

use cygnet_wire::ip::{IpPacket, Version};

use crate::flow::{Flow, Ports};

/// Remembers the first fragments seen lately, a fixed number of them, so that later ones can be
/// matched against selectors that name a protocol or ports. One table a worker and direction.
///
/// It has no clock: the caller calls [`Self::tick`] now and then, and an entry lives for one to two
/// ticks. Fifteen seconds a tick is RFC 791's own reassembly timeout.
pub struct FragmentTable {
    sets: Box<[[Entry; WAYS]]>,
    /// 0 is the mark of an entry never used.
    tick: u32,
}

const SETS: usize = 64;
const WAYS: usize = 4;

#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    protocol: u8,
    ports: Ports,
    tick: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// RFC 791 identifies a datagram by its protocol too, RFC 8200 does not.
    protocol: Option<u8>,
}

impl FragmentTable {
    /// An empty table. It takes no memory before there is something to remember.
    pub fn new() -> Self {
        Self {
            sets: Box::default(),
            tick: 2,
        }
    }

    fn make_room(&mut self) {
        let unspecified = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let empty = Entry {
            key: Key {
                src: unspecified,
                dst: unspecified,
                id: 0,
                protocol: None,
            },
            protocol: 0,
            ports: Ports::Opaque,
            tick: 0,
        };
        self.sets = vec![[empty; WAYS]; SETS].into_boxed_slice();
    }

    /// Time passed: what was seen before the last tick is forgotten.
    pub fn tick(&mut self) {
        self.tick = self.tick.checked_add(1).unwrap_or(2);
    }

    /// The flow a packet belongs to. First fragments are remembered; for later ones protocol and ports
    /// are those of their first, and `None` says that it has not been seen.
    pub fn resolve(&mut self, packet: &IpPacket, flow: Flow) -> Option<Flow> {
        let Some(fragment) = packet.fragment else {
            return Some(flow);
        };
        let key = Key {
            src: packet.src,
            dst: packet.dst,
            id: fragment.id,
            protocol: (packet.version == Version::V4).then_some(packet.protocol),
        };
        if self.sets.is_empty() && fragment.offset == 0 {
            self.make_room();
        }
        let tick = self.tick;
        let set = self.sets.get_mut(key.hash() % SETS)?;
        let fresh = |entry: &Entry| entry.tick != 0 && tick.wrapping_sub(entry.tick) <= 1;
        if fragment.offset != 0 {
            let first = set.iter().find(|entry| fresh(entry) && entry.key == key)?;
            return Some(Flow {
                protocol: first.protocol,
                ports: first.ports,
                ..flow
            });
        }
        let place = set
            .iter()
            .position(|entry| entry.key == key)
            .unwrap_or(WAYS - 1);
        if let Some(older) = set.get_mut(..=place) {
            // Newest first, so that the oldest is what falls out.
            older.rotate_right(1);
        }
        if let Some(newest) = set.first_mut() {
            *newest = Entry {
                key,
                protocol: flow.protocol,
                ports: flow.ports,
                tick,
            };
        }
        Some(flow)
    }
}

impl Default for FragmentTable {
    fn default() -> Self {
        Self::new()
    }
}

impl Key {
    fn hash(&self) -> usize {
        let fold = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => u64::from(addr.to_bits()),
            IpAddr::V6(addr) => (addr.to_bits() >> 64) as u64 ^ addr.to_bits() as u64,
        };
        // Collisions cost a remembered fragment, nothing more, so a multiplication suffices.
        let mixed = (fold(self.src) ^ fold(self.dst).rotate_left(17) ^ u64::from(self.id) << 24)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 48) as usize
    }
}

#[cfg(test)]
mod tests {
    use cygnet_wire::ip::Fragment;

    use super::*;
    use crate::testing;

    fn piece(id: u32, offset: u16) -> IpPacket {
        let packet = IpPacket::parse(&testing::udp_v4(b"x")).unwrap();
        IpPacket {
            fragment: Some(Fragment {
                id,
                offset,
                more: true,
            }),
            ..packet
        }
    }

    fn flow(packet: &IpPacket, ports: Ports) -> Flow {
        Flow {
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol,
            ports,
        }
    }

    #[test]
    fn a_flood_of_first_fragments_takes_no_more_memory() {
        let mut table = FragmentTable::new();
        for id in 0..10_000 {
            let first = piece(id, 0);
            let ports = Ports::Pair {
                src: id as u16,
                dst: 443,
            };
            assert_eq!(
                table.resolve(&first, flow(&first, ports)),
                Some(flow(&first, ports))
            );
            let later = piece(id, 1400);
            let resolved = table.resolve(&later, flow(&later, Ports::Opaque));
            assert_eq!(resolved, Some(flow(&first, ports)));
        }
        let known = (0..10_000)
            .filter(|id| {
                let later = piece(*id, 1400);
                table.resolve(&later, flow(&later, Ports::Opaque)).is_some()
            })
            .count();
        assert!(known <= SETS * WAYS && known > SETS, "{known} remembered");
    }

    #[test]
    fn a_newer_datagram_of_the_same_identification_replaces_the_older() {
        let mut table = FragmentTable::new();
        for src in [1, 2] {
            let first = piece(7, 0);
            table.resolve(&first, flow(&first, Ports::Pair { src, dst: 9 }));
        }
        let later = piece(7, 8);
        let resolved = table.resolve(&later, flow(&later, Ports::Opaque)).unwrap();
        assert_eq!(resolved.ports, Ports::Pair { src: 2, dst: 9 });
    }
}
