//! PKCS#12 (RFC 7292): a certificate with its key and those above it in one encrypted file, `.p12` or `.pfx`.

mod read;

pub use read::{Contents, Pkcs12Error, read};
