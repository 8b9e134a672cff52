//! What an import becomes: a section of `cygnet.toml`, and the files it names.

use std::fmt::Write;
use std::time::Duration;

use cygnet_pki::authority::to_pem;
use toml_writer::{ToTomlValue, TomlStringBuilder};
use zeroize::Zeroizing;

use super::draft::names_of;
use super::imported::{Credentials, Imported, printable};
use crate::site::{Proof, Site};

const PSK_FILE: &str = "shared.psk";
const CERTIFICATE_FILE: &str = "client.crt";
const KEY_FILE: &str = "client.key";
const CA_FILE: &str = "ca.crt";

/// A file beside `cygnet.toml`.
pub struct File {
    /// Its name without its folder.
    pub name: &'static str,
    /// What it holds.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Text for `cygnet.toml`, and what it refers to.
pub struct Section {
    /// `[tunnel.NAME]` with its keys.
    pub text: String,
    /// The files it names, all in one folder.
    pub files: Vec<File>,
}

impl Imported {
    /// The tunnel as a section called `name`, whose files are in `folder`.
    pub fn section(&self, name: &str, folder: &str) -> Section {
        let mut text = format!("[tunnel.{name}]\n");
        let mut files = Vec::new();
        let mut key = |key: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        match self.remote.as_slice() {
            [one] => key("remote", quoted(one)),
            several => key("remote", list(several)),
        }
        if let Some(port) = self.remote_port {
            key("remote_port", port.to_string());
        }
        if let Some(identity) = &self.remote_identity {
            key("remote_identity", quoted(identity));
        }
        if let Some(identity) = &self.identity {
            key("identity", quoted(identity));
        }
        let mut file = |name: &'static str, bytes: Zeroizing<Vec<u8>>| {
            files.push(File { name, bytes });
            quoted(&format!("{folder}/{name}"))
        };
        match &self.credentials {
            Credentials::Certificate {
                chain,
                key: own,
                ca,
                ..
            } => {
                key("certificate", file(CERTIFICATE_FILE, pem(chain)));
                let own = Zeroizing::new(to_pem("PRIVATE KEY", own).into_bytes());
                key("key", file(KEY_FILE, own));
                key("ca", file(CA_FILE, pem(ca)));
            }
            Credentials::PreShared(secret) => {
                let mut hex = Zeroizing::new(String::with_capacity(secret.len() * 2 + 3));
                hex.push_str("0x");
                for byte in secret.iter() {
                    let _ = write!(hex, "{byte:02x}");
                }
                hex.push('\n');
                let bytes = Zeroizing::new(hex.as_bytes().to_vec());
                key("psk", file(PSK_FILE, bytes));
            }
            Credentials::User { name, password, ca } => {
                key("user", quoted(name));
                let mut line = Zeroizing::new(password.as_bytes().to_vec());
                line.push(b'\n');
                key("password", file("password", line));
                key("ca", file(CA_FILE, pem(ca)));
            }
        }
        if self.virtual_address {
            key("virtual_address", "true".to_owned());
        }
        if !self.local_networks.is_empty() {
            key("local_networks", list(&self.local_networks));
        }
        if !self.local_map.is_empty() {
            key("local_map", list(&self.local_map));
        }
        if !self.networks.is_empty() {
            key("remote_networks", list(&self.networks));
        } else if !self.virtual_address {
            key("remote_networks", list(&["0.0.0.0/0", "::/0"]));
        }
        if self.on_demand && self.remote != ["any"] {
            key("start", quoted("traffic"));
        }
        if !self.ike.is_empty() {
            key("ike", list(&self.ike));
        }
        if !self.esp.is_empty() {
            key("esp", list(&self.esp));
        }
        key("ike_lifetime", span(self.ike_lifetime));
        key("child_lifetime", span(self.child_lifetime));
        if let Some(mtu) = self.mtu {
            key("mtu", mtu.to_string());
        }
        Section { text, files }
    }

    /// Our networks, and what the other end calls them.
    fn own_side(&self) -> String {
        let maps = self
            .local_map
            .iter()
            .map(Some)
            .chain(std::iter::repeat(None));
        let sides = self
            .local_networks
            .iter()
            .zip(maps)
            .map(|(own, shown)| match shown {
                Some(shown) if shown != own => format!("{own}, there known as {shown}"),
                _ => own.to_string(),
            });
        sides.collect::<Vec<_>>().join("; ")
    }

    /// What was understood, in words: what it is about, and what it says.
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let is_site = !self.virtual_address && !self.local_networks.is_empty();
        let mut server = match self.remote.as_slice() {
            [one] if one == "any" => "whoever calls".to_owned(),
            several => several.join(", then "),
        };
        match self.remote_identity.as_deref() {
            Some("any") => server.push_str(", whoever the authority vouches for"),
            Some(other) if self.remote != [other] => {
                let _ = write!(server, ", which has to prove to be {other}");
            }
            _ => server.push_str(", which has to prove that"),
        }
        lines.push((if is_site { "other end" } else { "server" }, server));
        match &self.credentials {
            Credentials::Certificate { ca, subject, .. } => {
                let said = self.identity.as_ref().map_or(String::new(), |it| {
                    format!("; the name that is said is {it}")
                });
                lines.push((
                    "we are",
                    format!(
                        "{}, by certificate of {}{said}",
                        subject.name, subject.issuer
                    ),
                ));
                lines.push(("authority", names_of(ca).join(" and ")));
            }
            Credentials::PreShared(_) => {
                let name = self.identity.as_deref().unwrap_or("our address");
                lines.push(("we are", format!("{name}, by pre-shared key")));
            }
            Credentials::User { name, ca, .. } => {
                lines.push(("we are", format!("{name}, by password (EAP)")));
                lines.push(("authority", names_of(ca).join(" and ")));
            }
        }
        if is_site {
            lines.push(("our side", self.own_side()));
        }
        let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
        let reached = match networks.is_empty() {
            true => "everything".to_owned(),
            false => networks.join(", "),
        };
        let lent = match self.virtual_address {
            true => ", from an address that the server lends",
            false => "",
        };
        lines.push(("reached", format!("{reached}{lent}")));
        let proposals = |list: &[String]| match list.is_empty() {
            true => "Cygnet's own proposals".to_owned(),
            false => list.join(", "),
        };
        lines.push(("IKE", proposals(&self.ike)));
        lines.push(("ESP", proposals(&self.esp)));
        if !self.dns.is_empty() {
            let dns: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
            lines.push(("resolvers", dns.join(", ")));
        }
        for (_, line) in &mut lines {
            *line = printable(line);
        }
        lines
    }
}

impl Site {
    /// This end's section, whose files are in `folder`.
    pub fn section(&self, folder: &str) -> Section {
        let Self {
            name, here, there, ..
        } = self;
        let mut text = format!("[tunnel.{name}]\n");
        let mut key = |key: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        key("remote", quoted(there.called()));
        key("remote_identity", quoted(&there.identity));
        key("identity", quoted(&here.identity));
        let mut files = Vec::new();
        let mut file = |name: &'static str, bytes: Zeroizing<Vec<u8>>| {
            files.push(File { name, bytes });
            quoted(&format!("{folder}/{name}"))
        };
        match &self.proof {
            Proof::PreShared(psk) => {
                let mut line = Zeroizing::new(Vec::with_capacity(psk.len() + 1));
                line.extend_from_slice(psk.as_bytes());
                line.push(b'\n');
                key("psk", file(PSK_FILE, line));
            }
            Proof::Certificates(pair) => {
                let public = |text: String| Zeroizing::new(text.into_bytes());
                let own = &pair.here;
                let secret = Zeroizing::new(own.key_pem().as_bytes().to_vec());
                key(
                    "certificate",
                    file(CERTIFICATE_FILE, public(own.certificate_pem())),
                );
                key("key", file(KEY_FILE, secret));
                key("ca", file(CA_FILE, public(pair.authority_pem())));
            }
        }
        key("local_networks", list(&here.own()));
        if here.is_mapped() {
            key("local_map", list(&here.shown()));
        }
        key("remote_networks", list(&there.shown()));
        if self.on_demand && there.address.is_some() {
            key("start", quoted("traffic"));
        }
        if !self.ike.is_empty() {
            key("ike", list(&self.ike));
        }
        Section { text, files }
    }
}

fn pem(certificates: &[Vec<u8>]) -> Zeroizing<Vec<u8>> {
    let blocks = certificates.iter().map(|it| to_pem("CERTIFICATE", it));
    Zeroizing::new(blocks.collect::<String>().into_bytes())
}

/// A text as `cygnet.toml` holds it: on one line, whatever is in it. Of one over several lines each would be taken for one
/// of the file's own.
pub fn quoted(text: &str) -> String {
    let basic = TomlStringBuilder::new(text).as_basic();
    basic.to_toml_value()
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|it| quoted(&it.to_string())).collect();
    format!("[{}]", items.join(", "))
}

fn span(time: Duration) -> String {
    quoted(&match time.as_secs() {
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    })
}
