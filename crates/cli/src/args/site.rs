//! `cygnet site …`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cygnet_profile::write::Gateway;
use cygnet_server::Address;
use ipnet::IpNet;

use super::ConfigFile;

#[derive(Debug, Subcommand)]
pub(crate) enum Site {
    /// Make both ends of a tunnel to another office: this one's, and files to hand over to the other
    ///
    /// Where both offices have the same network, give each another one by which the other office knows it: --local-map and
    /// --remote-map. Without them the error proposes some that are free.
    Add(Add),
    /// Take out what `add` wrote here, or an import of its file: the tunnel and its secret
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// What the tunnel is called, at both ends
    pub(crate) name: String,
    /// The other office's host name or address; `any`: it cannot be called, and calls this one
    #[arg(long, value_name = "NAME|ADDRESS|any", value_parser = callable)]
    pub(crate) remote: Callable,
    /// Networks of this office, such as 10.1.0.0/24; several times for several
    #[arg(long = "local-net", value_name = "NETWORK", value_delimiter = ',', required = true, value_parser = network)]
    pub(crate) local: Vec<IpNet>,
    /// Networks of the other office, as they are there
    #[arg(long = "remote-net", value_name = "NETWORK", value_delimiter = ',', required = true, value_parser = network)]
    pub(crate) remote_nets: Vec<IpNet>,
    /// By which networks the other office knows --local-net, one for each, of the same length
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    pub(crate) local_map: Vec<IpNet>,
    /// By which networks this office knows --remote-net, likewise
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    pub(crate) remote_map: Vec<IpNet>,
    /// This office's own host name or address, which the other one calls; `any`: it cannot be called [default: the address
    /// that leads to the other one, if it is a public one]
    #[arg(long, value_name = "NAME|ADDRESS|any", value_parser = callable)]
    pub(crate) address: Option<Callable>,
    /// What the other office runs, and its files are for
    #[arg(long = "for", value_name = "PROGRAM", value_enum, default_value_t = Program::Cygnet)]
    pub(crate) program: Program,
    /// How both ends prove themselves. Certificates are of a small authority that is made for these two alone
    #[arg(long, value_enum, default_value_t = Auth::Psk)]
    pub(crate) auth: Auth,
    /// Up when somebody wants to reach the other office, instead of always
    #[arg(long)]
    pub(crate) on_demand: bool,
    /// A new folder for the other office's files [default: NAME-other-end]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The tunnel
    pub(crate) name: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

/// How two offices prove themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// By a secret both know
    Psk,
    /// By a certificate each
    Certificates,
}

/// What the other office runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    Cygnet,
    /// strongSwan
    Swanctl,
    Libreswan,
    /// MikroTik's RouterOS 7
    Routeros,
}

impl From<Program> for Gateway {
    fn from(program: Program) -> Self {
        match program {
            Program::Cygnet => Self::Cygnet,
            Program::Swanctl => Self::Swanctl,
            Program::Libreswan => Self::Libreswan,
            Program::Routeros => Self::Routeros,
        }
    }
}

/// Where an end is called, if it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Callable {
    At(Address),
    Not,
}

fn callable(text: &str) -> Result<Callable, String> {
    if text == "any" {
        return Ok(Callable::Not);
    }
    let address: Address = text
        .parse()
        .map_err(|e: cygnet_server::Error| e.to_string())?;
    address.check_callable().map_err(|e| e.to_string())?;
    Ok(Callable::At(address))
}

/// A network; what is none of it is told how it would be one.
fn network(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|error| match text.parse::<IpAddr>() {
        Ok(address) => {
            let length = if address.is_ipv4() { 24 } else { 64 };
            let whole = IpNet::new(address, length).map_or(text.to_owned(), |net| net.trunc().to_string());
            format!("an address without the length of its network: write {whole}, or {address}/{} for one host", IpNet::from(address).prefix_len())
        }
        Err(_) => format!("{error}; expected one such as 10.1.0.0/24 or fd00:1::/64"),
    })?;
    match net.prefix_len() {
        0 => Err(
            "that is everything; an office has networks of its own, such as 10.1.0.0/24".to_owned(),
        ),
        _ if net.addr() != net.network() => Err(format!(
            "bits are set behind its prefix; did you mean {}?",
            net.trunc()
        )),
        _ => Ok(net),
    }
}
