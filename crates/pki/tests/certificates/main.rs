//! Certificates and lists that openssl makes, and its verdict beside ours. One program, as each would link the same again.

mod agreement;
mod authority;
mod bytes;
mod chains;
mod crl;
mod csr;
mod load;
mod names;
mod openssl;
mod pkcs12;
mod rights;
