//! `cygnet speedtest`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap::builder::RangedU64ValueParser;
use cygnet_speedtest::{SECONDS, SECONDS_MAX, SECONDS_MIN, STREAMS, STREAMS_MAX};

use super::Socket;

#[derive(Debug, ClapArgs)]
pub(crate) struct Speedtest {
    /// Through which tunnel; may be left out where one is up
    pub(crate) tunnel: Option<String>,
    /// Download this large file instead of asking the server's own endpoint; http:// alone
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Upload there, by POST; without it an upload is measured at a Cygnet server's endpoint alone
    #[arg(long, value_name = "URL", requires = "url")]
    pub(crate) upload_url: Option<String>,
    /// Measure AROUND the tunnel as well, in clear: download this large file by the machine's own line
    #[arg(long, value_name = "URL")]
    pub(crate) direct_url: Option<String>,
    /// Upload there around the tunnel, in clear
    #[arg(long, value_name = "URL", requires = "direct_url")]
    pub(crate) direct_upload_url: Option<String>,
    /// Seconds of each direction that are counted, after two that are not
    #[arg(long, value_name = "SECONDS", default_value_t = SECONDS,
          value_parser = RangedU64ValueParser::<u16>::new().range(u64::from(SECONDS_MIN)..=u64::from(SECONDS_MAX)))]
    pub(crate) seconds: u16,
    /// TCP connections of each direction
    #[arg(long, value_name = "N", default_value_t = STREAMS,
          value_parser = RangedU64ValueParser::<u8>::new().range(1..=u64::from(STREAMS_MAX)))]
    pub(crate) streams: u8,
    /// Write a plot of the speed over time there
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// As JSON, one object (docs/speedtest.md)
    #[arg(long)]
    pub(crate) json: bool,
    /// Show earlier runs and measure nothing
    #[arg(
        long,
        conflicts_with_all = ["tunnel", "url", "direct_url", "svg", "seconds", "streams"]
    )]
    pub(crate) history: bool,
    #[command(flatten)]
    pub(crate) socket: Socket,
}
