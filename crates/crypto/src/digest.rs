//! Plain hashes: NAT detection, certificate authorities by key hash, digests of stored messages.

use std::net::IpAddr;

use aws_lc_rs::digest;

/// SHA-1 over the concatenated `parts`. For NAT detection and CERTREQ only, where RFC 7296 asks for it; never for signatures.
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    fixed(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts)
}

/// SHA2-256 over the concatenated `parts`.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    fixed(&digest::SHA256, parts)
}

/// The data of a NAT_DETECTION_*_IP notification, RFC 7296 §2.23: SHA-1(SPIi | SPIr | address | port).
pub fn nat_detection_hash(spi_i: [u8; 8], spi_r: [u8; 8], addr: IpAddr, port: u16) -> [u8; 20] {
    let port = port.to_be_bytes();
    match addr {
        IpAddr::V4(v4) => sha1(&[&spi_i, &spi_r, &v4.octets(), &port]),
        IpAddr::V6(v6) => sha1(&[&spi_i, &spi_r, &v6.octets(), &port]),
    }
}

fn fixed<const N: usize>(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> [u8; N] {
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; N];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    #[test]
    fn sha1_of_fips_180_4_example() {
        let expected = hex("a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(sha1(&[b"abc"]).to_vec(), expected);
        assert_eq!(sha1(&[b"a", b"", b"bc"]).to_vec(), expected);
    }

    #[test]
    fn sha256_of_fips_180_4_example() {
        let expected = hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256(&[b"ab", b"c"]).to_vec(), expected);
    }

    /// Computed with Python's hashlib.
    #[test]
    fn nat_detection_covers_spis_address_and_port_in_network_order() {
        let (i, r) = ([1; 8], [2; 8]);
        let v4 = nat_detection_hash(i, r, "192.0.2.1".parse().unwrap(), 500);
        assert_eq!(v4.to_vec(), hex("3ca7080caf618c11fe64bf2eb2d9795ba76b573d"));
        let v6 = nat_detection_hash(i, r, "2001:db8::1".parse().unwrap(), 4500);
        assert_eq!(v6.to_vec(), hex("252e224e9669b45987ec5b0c78f78077dcd943d7"));
    }
}
