//! Where somebody is, as far as it counts: whoever has one address of IPv6 has those around it, too.

use std::net::IpAddr;

/// A source, of the size that its bounds are for.
pub(crate) type Network = (bool, u64);

/// An IPv4 address, or the first `bits` of one of IPv6, 64 at most.
pub(crate) fn network(source: IpAddr, bits: u32) -> Network {
    match source.to_canonical() {
        IpAddr::V4(v4) => (false, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => {
            let beyond = 128 - bits.clamp(1, 64);
            let prefix = u64::try_from(v6.to_bits() >> beyond).unwrap_or_default();
            (true, prefix)
        }
    }
}
