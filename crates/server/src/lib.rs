//! A VPN server of one's own: its authority, its users and their devices.
//!
//! Run by root from the command line, never by a daemon: the authority's key is touched here alone. What the daemon
//! needs is published as files it reads on a reload: certificates, the revocation list, hashes of passwords, and the
//! list of devices, each replaced whole.
