//! What can be typed.

pub(crate) mod device;
pub(crate) mod gateway;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod speedtest;
pub(crate) mod top;
pub(crate) mod user;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// A complete IKEv2/IPsec VPN in one program: server, LAN gateway, site to site.
///
/// Exit codes: 0 done; 1 it did not work out (a tunnel that does not come up, say);
/// 2 bad input or refused, and nothing was changed.
#[derive(Debug, Parser)]
#[command(name = "cygnet", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run in the foreground until SIGTERM (systemd does this)
    Run(ConfigFile),
    /// Say whether a configuration is good, and if not, where and why
    Check(ConfigFile),
    /// Bring tunnels up and keep them up
    Up(Connection),
    /// Take tunnels down and call no more until `up`; a peer that calls by itself is answered
    Down(Connection),
    /// Show tunnels, addresses, counters, and why something is not up
    Status(Status),
    /// Watch tunnels: throughput, new keys, drops by reason, devices
    ///
    /// Keys: Tab and the arrows choose a tunnel, d shows devices, h what happened, p pauses, + and - change the
    /// interval, ? tells them all, q quits. docs/top.md says what is shown.
    Top(top::Top),
    /// Look for what is wrong, and say what to do
    ///
    /// Exit codes: 0 nothing is wrong; 1 something is; 2 it could not be looked at. What each line means is in
    /// docs/doctor.md.
    Doctor(Doctor),
    /// Read the configuration again; tunnels that did not change are not touched
    Reload(Socket),
    /// Measure down, up and latency through a tunnel, and say what the limit is
    ///
    /// Takes half a minute, and moves as much as the line carries. Against the endpoint of a Cygnet server that has
    /// `speedtest = true`, or any large file with --url.
    Speedtest(speedtest::Speedtest),
    /// This machine as the gateway of its LAN: setting up, taking back, and the rules that fail closed
    #[command(subcommand)]
    Gateway(gateway::Gateway),
    /// Devices of the LAN that this machine is the gateway of: which there are, and where each may go
    #[command(subcommand)]
    Device(device::Device),
    /// Addresses that this machine lends to the LAN ([gateway.dhcp])
    #[command(subcommand)]
    Dhcp(Dhcp),
    /// Your own VPN server on this machine
    #[command(subcommand)]
    Server(server::Server),
    /// People and devices that your server lets in
    #[command(subcommand)]
    User(user::User),
    /// Tunnels between two offices
    #[command(subcommand)]
    Site(site::Site),
    /// Write a tunnel from the files that another VPN's server handed out
    ///
    /// Reads Algo's files (2017 and today) and others': ipsec.conf with ipsec.secrets, swanctl.conf, .p12,
    /// .mobileconfig, .sswan, a Cygnet bundle (of `cygnet user` and `cygnet site`). What these name is looked for beside them.
    Import(Import),
}

/// What `run` starts, and nobody types: no command, so that none is proposed for a word that was mistyped.
#[derive(Debug, Parser)]
#[command(name = "cygnet")]
pub(crate) enum Helper {
    /// The unprivileged half of `run`
    Engine,
    /// Resolves one host name, unprivileged
    Resolve {
        /// The name
        name: String,
    },
    /// Fetches one revocation list, unprivileged
    FetchCrl {
        /// Where from
        url: String,
    },
    /// Asks time servers for the date, unprivileged
    AskTime {
        /// Their names, separated by spaces
        servers: String,
    },
    /// Serves a server's clients that measure their speed, unprivileged
    SpeedtestEndpoint {
        /// An interface, and the addresses to answer at
        place: String,
    },
    /// Measures speed, unprivileged
    SpeedtestMeasure {
        /// The interface that it goes by
        interface: String,
    },
    /// Asks a server by IKE for `doctor`, unprivileged
    ProbeIke {
        /// Whom, and what
        errand: String,
    },
    /// Asks a web host for `doctor`, unprivileged
    ProbeWeb {
        /// Whom, and what
        errand: String,
    },
    /// Answers devices that ask for names, unprivileged
    ServeDns,
    /// Lends addresses to the LAN, unprivileged
    ServeDhcp,
    /// Asks for `gateway setup` which DHCP servers answer, unprivileged
    LookForDhcp {
        /// The MAC address to ask with
        mac: String,
    },
    /// Takes `gateway setup` back unless it is confirmed in time
    WatchGatewaySetup {
        /// The configuration
        config: PathBuf,
        /// The process that sets up
        setup: i32,
        /// The trial
        id: String,
    },
}

impl Helper {
    /// If this process was started as one.
    pub(crate) fn asked_for() -> Option<Self> {
        let first = std::env::args_os().nth(1)?;
        Self::has_subcommand(first.to_str()?).then(Self::parse)
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigFile {
    /// The configuration
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "/etc/cygnet/cygnet.toml"
    )]
    pub(crate) config: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Socket {
    /// Control socket of the running cygnet
    #[arg(long, value_name = "PATH", default_value = "/run/cygnet/control.sock")]
    pub(crate) socket: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Connection {
    /// Which tunnel; all if left out
    pub(crate) name: Option<String>,
    /// Only this child of it
    #[arg(long, value_name = "NAME", requires = "name")]
    pub(crate) child: Option<String>,
    /// Stop watching after this many seconds (0: do not wait); the order stands all the same
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) socket: Socket,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Status {
    /// As JSON, one object (docs/api.md)
    #[arg(long)]
    pub(crate) json: bool,
    /// The last 20 changes of each tunnel, with when and why, instead of the last three
    #[arg(long, conflicts_with = "json")]
    pub(crate) history: bool,
    #[command(flatten)]
    pub(crate) socket: Socket,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Doctor {
    /// Compare what a web host sees of us through each tunnel and around it, and its clock with ours: an http://
    /// URL that is answered with the address it is asked from, such as http://ifconfig.me/ip
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Pseudonyms for addresses and names, fit for a forum
    #[arg(long)]
    pub(crate) mask: bool,
    /// As JSON, one object (docs/doctor.md)
    #[arg(long)]
    pub(crate) json: bool,
    /// Control socket of the running cygnet, if not the one that the configuration names
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Import {
    /// What was handed out for one person, all together
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// What to call the tunnel, instead of what the file calls it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Make this machine the LAN's gateway through the tunnel
    #[arg(long)]
    pub(crate) gateway: bool,
    /// Interface of the LAN, where there are several; may be given several times
    #[arg(long, value_name = "INTERFACE", requires = "gateway")]
    pub(crate) lan: Vec<String>,
    /// The server's name or address, where the files do not tell it
    #[arg(long, value_name = "HOST")]
    pub(crate) remote: Option<String>,
    /// Which connection of a file that has several
    #[arg(long, value_name = "NAME")]
    pub(crate) connection: Option<String>,
    /// A file (mode 600) with the password of the .p12, instead of being asked
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Replace a tunnel of that name, and a gateway, that an earlier import wrote
    #[arg(long)]
    pub(crate) replace: bool,
    /// Say what was understood, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dhcp {
    /// Which device has which address, and until when
    Leases(Listing),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Listing {
    /// As JSON, one object (docs/api.md)
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: Socket,
}
