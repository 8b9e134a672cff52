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
