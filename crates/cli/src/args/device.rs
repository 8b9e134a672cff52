//! `cygnet device …`

use clap::{Args, Subcommand};

use super::{Listing, Socket};

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Which devices were seen or are named, and where each may go
    List(Listing),
    /// Say where a device may go; at once, for its running connections too, and after a restart
    Set(Set),
    /// Forget what `set` said of a device: the configuration counts again
    Forget(Forget),
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name in the configuration, its MAC address, or one of its addresses (which stands for the MAC address
    /// if the device was seen); or a network. Where devices may go that is no device of the LAN, `direct_networks` in
    /// [gateway] says
    pub(crate) device: String,
    /// Into the tunnel or nowhere; in clear; nowhere
    #[arg(value_parser = ["tunnelled", "direct", "blocked"])]
    pub(crate) policy: String,
    /// With `tunnelled`: by this tunnel instead of the gateway's; the configuration has a section
    /// [gateway.through.TUNNEL]
    #[arg(long, value_name = "TUNNEL")]
    pub(crate) through: Option<String>,
    #[command(flatten)]
    pub(crate) socket: Socket,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// As in `set`
    pub(crate) device: String,
    #[command(flatten)]
    pub(crate) socket: Socket,
}
