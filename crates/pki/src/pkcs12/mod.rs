//! PKCS#12 (RFC 7292): a certificate with its key and those above it in one encrypted file, `.p12` or `.pfx`.

mod read;
mod work;
mod write;

pub use read::{Opened, Pkcs12Error, read};
pub use write::{Contents, Encryption, WriteError, write};
