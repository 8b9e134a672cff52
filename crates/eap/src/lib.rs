//! EAP (RFC 3748) as pure state machines, server and peer: identity, MSCHAPv2 (RFC 2759), TLS (RFC 5216, RFC 9190).
//!
//! The IKE core carries EAP packets and knows nothing of methods; a conversation here turns each packet into the next,
//! until there is a master session key or a failure. What needs a secret (a password's hash, a private key) is asked
//! for, not held.
