//! What can be typed behind `cygnet gateway`.

use clap::{Args, Subcommand, ValueEnum};

use super::ConfigFile;

#[derive(Debug, Subcommand)]
pub(crate) enum Gateway {
    /// Make this machine the gateway of its LAN: asks, shows what it will change, and takes all of it back unless it
    /// is confirmed in time
    ///
    /// Whatever is not given is asked; Enter takes what stands in brackets. Until `Go on?` is answered with yes
    /// nothing is changed. When everything is in place it is looked at, and you are asked whether to keep it: without
    /// a yes within a minute all is as before, also where the terminal was lost by the change. `cygnet gateway off`
    /// takes back what was kept.
    ///
    /// Exit codes: 0 kept (or, with --dry-run, shown); 1 taken back, or something of it failed; 2 bad input or
    /// refused, and nothing was changed.
    Setup(Box<Setup>),
    /// Put the fail-closed rules in place (the unit before network-pre.target does this)
    On(ConfigFile),
    /// Take back what `gateway setup` did; without it, remove the fail-closed rules: devices of the LAN may pass in
    /// clear from now on
    ///
    /// The guard is off afterwards in any case. A [gateway] that was written by hand stays, which is told.
    ///
    /// Exit codes: 0 done; 1 something could not be taken back, which is told; 2 refused, and nothing was changed.
    Off(Off),
    /// How devices come to use this machine as their gateway: each way, with this LAN's addresses
    Guide(ConfigFile),
}

#[derive(Debug, Args)]
pub(crate) struct Off {
    /// Remove the rules, and leave the rest as `gateway setup` made it
    #[arg(long)]
    pub(crate) guard_only: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// The tunnel that the LAN leaves by
    #[arg(long, value_name = "NAME")]
    pub(crate) tunnel: Option<String>,
    /// Interface of the LAN; may be given several times
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) lan: Vec<String>,
    /// Devices that go through the tunnel: `all`, `none`, or a list (MAC addresses, addresses, networks, names)
    #[arg(long, value_name = "LIST")]
    pub(crate) devices: Option<String>,
    /// Devices that go beside the tunnel: a list by commas, or `none`; an address counts for itself alone (that family),
    /// a MAC address for all of the device
    #[arg(long, value_name = "LIST")]
    pub(crate) direct: Option<String>,
    /// Devices that have no internet at all: a list, or `none`
    #[arg(long, value_name = "LIST")]
    pub(crate) blocked: Option<String>,
    /// Answer the devices' questions for names, through the tunnel ([gateway.dns])
    #[arg(long, value_name = "YES|NO")]
    pub(crate) dns: Option<YesNo>,
    /// Lend addresses to the LAN ([gateway.dhcp]): a range such as 192.168.1.100-192.168.1.199, or `no`
    #[arg(long, value_name = "RANGE")]
    pub(crate) dhcp: Option<String>,
    /// Without --dhcp: advertise this machine to the LAN as the IPv6 router to prefer ([gateway.advertise])
    #[arg(long, value_name = "YES|NO")]
    pub(crate) advertise: Option<YesNo>,
    /// Ask nothing: what is not given is as it stands in brackets, and it is kept if all is well, else taken back
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Show what would be changed, and change nothing; with --yes nothing is asked
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long a confirmation is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub(crate) within: u64,
    /// Keep what a setup that waits for it has changed: from another terminal, where that one is lost
    #[arg(long, conflicts_with_all = ["yes", "dry_run", "tunnel", "lan", "devices", "direct", "blocked", "dns", "dhcp", "advertise"])]
    pub(crate) confirm: bool,
    /// Take it back now, from another terminal
    #[arg(long, conflicts_with_all = ["confirm", "yes", "dry_run", "tunnel", "lan", "devices", "direct", "blocked", "dns", "dhcp", "advertise"])]
    pub(crate) take_back: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum YesNo {
    Yes,
    No,
}
