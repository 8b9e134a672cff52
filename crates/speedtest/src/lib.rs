//! A speed test as data: what was sampled becomes figures, what limits them, a plot and a history.
//!
//! No socket, no file, no clock: times, counts and texts of `/proc` are arguments, so every figure can be had again from
//! what was sampled. `cygnet-daemon` measures, in an unprivileged process at each end; `cygnet speedtest` shows.

mod cpu;
mod history;
mod latency;
mod limit;
mod meter;
mod plot;
mod protocol;
mod run;
mod table;

pub use cpu::{CpuTimes, CpuUse, ThreadTimes};
pub use history::{RUNS_MAX, append, read};
pub use latency::Latency;
pub use limit::{Cores, Limit};
pub use meter::{Meter, Point, TICK, WARM_UP};
pub use plot::svg;
pub use protocol::{
    DOWN, LOAD, Load, PING, PORT, SECONDS, SECONDS_MAX, SECONDS_MIN, STREAMS, STREAMS_MAX, UP,
};
pub use run::{Direction, Path, Run, Way};
pub use table::{list, table};

/// To so many digits behind the point: figures are for people and for JSON.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
