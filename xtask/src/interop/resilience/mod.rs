//! Scenarios about what must hold when something goes wrong on our own side: crashes, a guard that
//! others meddle with, bad input, changed configurations, peers that vanish and come back.
//!
//! Cygnet is at both ends, in the demo's world; only what leaves the home's router is believed.

pub(super) mod checkup;
mod control;
mod crash;
mod doctor;
mod doctor_faults;
mod failover;
pub(super) mod firewall;
mod guard;
pub(super) mod home;
mod https;
mod mtu;
mod mtu_strongswan;
mod own_traffic;
mod recovery;
mod refusals;
mod reload;
pub(super) mod restless;
mod revocation;
pub(super) mod state;
mod systemd;
pub(super) mod talker;

use super::Scenario;

pub(super) fn all() -> Vec<Scenario> {
    let mut all = failover::scenarios();
    all.extend(crash::scenarios());
    all.extend(guard::scenarios());
    all.extend(own_traffic::scenarios());
    all.extend(mtu::scenarios());
    all.extend(mtu_strongswan::scenarios());
    all.extend(firewall::scenarios());
    all.extend(refusals::scenarios());
    all.extend(reload::scenarios());
    all.extend(revocation::scenarios());
    all.extend(control::scenarios());
    all.extend(recovery::scenarios());
    all.extend(systemd::scenarios());
    all.extend(doctor::scenarios());
    all.extend(doctor_faults::scenarios());
    all
}
