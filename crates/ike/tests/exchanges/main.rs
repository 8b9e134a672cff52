//! Two endpoints talk to each other, and one to whoever the test plays. One program, as each would link the same again.

mod admission;
mod answers;
mod common;
mod eap;
mod examination;
mod hostile;
mod initial;
mod keep;
mod life;
mod local_change;
mod mobike;
mod mtu;
mod peers;
mod refused;
mod rekey;
mod returning;
mod scripted;
mod servers;
mod silence;
