//! `cygnet user …`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cygnet_server::Name;

use super::server::Where;

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Let a person in: a certificate for each device, or a password; writes the files for each
    Add(Add),
    /// All users
    List(List),
    /// One user, with devices and certificates
    Show(Show),
    /// Let nothing of a user in, until `resume`
    Suspend(One),
    /// Let a suspended user in again, with the files they have
    Resume(One),
    /// Remove a user, or a lost device, for good; whoever is connected by it is cut off
    Remove(Remove),
    /// New certificates, and the files for them; the old ones go on working until their end
    Renew(Renew),
    /// Give a user another name; devices need nothing new
    Rename(Rename),
    /// Set the password for logins by name and password, or remove it
    Password(Password),
    /// Write the files for a user's devices once more
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name: a-z, 0-9 and -; one that is there gets further devices
    pub(crate) name: Name,
    /// Devices, such as iphone,laptop; each gets a certificate and a folder of files
    /// [default: one named device, or none with a password]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) devices: Vec<Name>,
    #[command(flatten)]
    pub(crate) password: PasswordInput,
    /// How long the certificates are valid: 90d, 26w, 2y [default: 823d]
    #[arg(long, value_name = "TIME")]
    pub(crate) valid: Option<String>,
    /// A signing request (PKCS#10) of the one device, whose private key never leaves it
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) demand: Demand,
    #[command(flatten)]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// When iPhone, iPad and Mac connect by themselves.
#[derive(Debug, Args)]
pub(crate) struct Demand {
    /// Where iPhone, iPad and Mac connect by themselves: wifi,cellular; never: by hand
    #[arg(long, value_name = "WHERE", value_enum, value_delimiter = ',')]
    pub(crate) on_demand: Vec<Network>,
    /// A Wi-Fi network where they do not; several times for several
    #[arg(long = "trusted-ssid", value_name = "NAME", requires = "on_demand")]
    pub(crate) trusted_ssids: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// On Wi-Fi
    Wifi,
    /// On mobile networks
    Cellular,
    /// Nowhere: by hand
    Never,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct PasswordInput {
    /// Ask for a password, for devices that log in by name and password
    #[arg(long)]
    pub(crate) password: bool,
    /// The password is the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct To {
    /// Where files are written, as NAME/DEVICE/…
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// As JSON, one array
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Who
    pub(crate) name: Name,
    /// As JSON, one object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Who
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// A user's devices, or one of them.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// Who
    pub(crate) name: Name,
    /// Only this device
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Renew {
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Shut the old certificates out at once: the devices are offline until they have the new files
    #[arg(long)]
    pub(crate) revoke_old: bool,
    /// Make nothing new: end all certificates but the newest, once the devices have the files of the last renewal
    #[arg(long, conflicts_with_all = ["revoke_old", "valid", "csr", "to"])]
    pub(crate) end_old: bool,
    /// How long the new certificates are valid: 90d, 26w, 2y [default: 823d]
    #[arg(long, value_name = "TIME")]
    pub(crate) valid: Option<String>,
    /// A signing request (PKCS#10) of the device, whose private key never leaves it
    #[arg(long, value_name = "FILE", requires = "device")]
    pub(crate) csr: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// Who
    pub(crate) name: Name,
    /// The new name
    pub(crate) new: Name,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Password {
    /// Who
    pub(crate) name: Name,
    /// The password is the first line of this file, not asked for
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// No more login by password
    #[arg(long, conflicts_with = "password_file")]
    pub(crate) remove: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) demand: Demand,
    #[command(flatten)]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) place: Where,
}
