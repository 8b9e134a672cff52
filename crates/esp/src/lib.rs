//! ESP in tunnel mode (RFC 4303, RFC 4301) as pure functions on buffers.

mod batch;
mod coalesce;
mod flow;
mod fragments;
mod open;
mod overhead;
mod policy;
mod replay;
mod sa;
mod seal;
mod segment;
mod selectors;
#[cfg(test)]
mod testing;
pub mod toobig;
mod tos;

pub use batch::{NoRoom, Outer, SendBatch, Slot};
pub use coalesce::{JoinConfig, Joined, Joiner};
pub use flow::{Flow, Ports};
pub use fragments::FragmentTable;
pub use open::{DropReason, Inner, Opened};
pub use overhead::{Encapsulation, Overhead};
pub use policy::{Action, Outlet, Policy, PolicyId, Spd, Verdict};
pub use replay::{Refused, ReplayWindow};
pub use sa::{Exhausted, InboundSa, Lifetime, LimitReached, OutboundSa, Reserved};
pub use seal::{SealError, Sealed, seal_segments};
pub use segment::{SegmentError, Segments};
pub use selectors::Selectors;
pub use tos::{DfPolicy, DscpPolicy, Ecn, outer_tos};
