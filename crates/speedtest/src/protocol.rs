//! What a server's endpoint speaks: HTTP/1.1 on its addresses inside the tunnel (docs/speedtest.md).

use serde::{Deserialize, Serialize};

use crate::CpuTimes;

/// TCP port of the endpoint: "cy" in ASCII.
pub const PORT: u16 = 0x6379;

/// `GET` or `HEAD`: nothing, at once.
pub const PING: &str = "/v1/ping";
/// `GET /v1/down?seconds=N`: octets that cannot be compressed, for so long.
pub const DOWN: &str = "/v1/down";
/// `POST`: swallows the body, and says how long it was.
pub const UP: &str = "/v1/up";
/// `GET`: a [`Load`] as JSON.
pub const LOAD: &str = "/v1/load";

/// Seconds of a direction that are counted where nothing else is asked for.
pub const SECONDS: u16 = 10;
/// See [`SECONDS`].
pub const SECONDS_MIN: u16 = 3;
/// See [`SECONDS`].
pub const SECONDS_MAX: u16 = 60;
/// TCP connections of a direction where nothing else is asked for: one alone is often held back by its own window, or by a
/// single lost packet.
pub const STREAMS: u8 = 4;
/// How many there may be.
pub const STREAMS_MAX: u8 = 8;

/// What the server has to do at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Its processors.
    pub cpu: CpuTimes,
    /// Connections to the endpoint, of everybody.
    pub connections: usize,
}
