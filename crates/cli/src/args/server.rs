//! `cygnet server …`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cygnet_server::{Address, Key};
use ipnet::IpNet;

/// Where the server is; the same for all its commands.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The configuration; what the daemon reads is written beside it
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "/etc/cygnet/cygnet.toml"
    )]
    pub(crate) config: PathBuf,
    /// Where users, keys and certificates are kept [default: `state_dir` of the configuration, or
    /// /var/lib/cygnet]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Control socket of the running cygnet [default: in `run_dir` of the configuration, or
    /// /run/cygnet/control.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Server {
    /// Make this machine a VPN server: authority, certificate, addresses for clients, configuration
    Init(Init),
    /// Show what is set up
    Show(Show),
    /// Give the server a new certificate; clients need nothing new
    Renew {
        #[command(flatten)]
        place: Where,
    },
    /// Change what clients call the server; says whose files have to be handed out again
    SetAddress(SetAddress),
    /// Write everything to one file that only a passphrase opens
    Backup(Backup),
    /// Set the server up from a backup, on this machine or another
    Restore(Restore),
    /// Remove the server: users, keys, certificates, configuration
    Uninstall(Uninstall),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// What clients call: a host name or an address; several times for several, the first is the
    /// server's identity
    #[arg(long = "address", value_name = "NAME|ADDRESS", required = true)]
    pub(crate) addresses: Vec<Address>,
    /// Addresses lent to clients, private and unused here: 10.99.0.0/24, fd99::/112; several times
    /// for IPv4 and IPv6 [default: free ones are found]
    #[arg(long = "pool", value_name = "NETWORK", value_delimiter = ',', value_parser = pool)]
    pub(crate) pools: Vec<IpNet>,
    /// Resolvers handed to clients [default: 9.9.9.9, 149.112.112.112]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) dns: Vec<IpAddr>,
    /// Interface by which clients' traffic leaves [default: that of the default route]
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) uplink: Option<String>,
    /// Kind of all keys: p256, p384, or rsa3072 for iPhones that are set up by hand, which shuts
    /// Windows out [default: p256]
    #[arg(long, value_name = "KIND")]
    pub(crate) key: Option<Key>,
    /// Let systemd start it now and at every boot
    #[arg(long)]
    pub(crate) enable: bool,
    /// Take host names that do not resolve (yet)
    #[arg(long)]
    pub(crate) no_resolve_check: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// A network; an address alone is told how it would be one.
fn pool(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|error| match text.parse::<IpAddr>() {
        Ok(address) => {
            let length = if address.is_ipv4() { 24 } else { 112 };
            format!("an address without the length of its network: write {address}/{length}")
        }
        Err(_) => format!("{error}; expected one such as 10.99.0.0/24 or fd99::/112"),
    })
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// As JSON, one object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct SetAddress {
    /// A host name or an address; several times for several. They replace those it has. The first is
    /// the server's identity: what it says it is, and what newly written files of clients call
    #[arg(long = "address", value_name = "NAME|ADDRESS", required = true)]
    pub(crate) addresses: Vec<Address>,
    /// Keep those it has, and add these behind them
    #[arg(long)]
    pub(crate) add: bool,
    /// Take host names that do not resolve (yet)
    #[arg(long)]
    pub(crate) no_resolve_check: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// What opens a backup.
#[derive(Debug, Args)]
pub(crate) struct Passphrase {
    /// The passphrase is the first line of this file, not asked for
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where to, in place of an earlier backup if one is there; `age --decrypt` opens it as well
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// What `cygnet server backup` wrote
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}
