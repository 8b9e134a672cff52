//! swanctl.conf as types; `Display` writes the file.

use std::fmt;

/// A whole swanctl.conf.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `connections`
    pub connections: Vec<Connection>,
    /// `pools`
    pub pools: Vec<Pool>,
    /// `secrets`; private keys are found by themselves.
    pub secrets: Vec<Secret>,
}

impl Config {
    /// A configuration of one connection.
    pub fn of(connection: Connection) -> Self {
        Self {
            connections: vec![connection],
            ..Self::default()
        }
    }

    /// Adds a connection.
    #[must_use]
    pub fn connection(mut self, connection: Connection) -> Self {
        self.connections.push(connection);
        self
    }

    /// Adds a pool of virtual addresses.
    #[must_use]
    pub fn pool(mut self, name: &str, addresses: &str) -> Self {
        self.pools.push(Pool {
            name: name.to_owned(),
            addresses: addresses.to_owned(),
            dns: Vec::new(),
        });
        self
    }

    /// Adds a shared secret for these identities.
    #[must_use]
    pub fn secret(mut self, ids: &[&str], secret: &str) -> Self {
        self.secrets.push(Secret {
            section: "ike",
            ids: owned(ids),
            secret: secret.to_owned(),
        });
        self
    }

    /// Adds a user name and password for EAP.
    #[must_use]
    pub fn eap_user(mut self, name: &str, password: &str) -> Self {
        self.secrets.push(Secret {
            section: "eap",
            ids: owned(&[name]),
            secret: password.to_owned(),
        });
        self
    }
}

/// One connection. An empty text or list leaves the setting out, so strongSwan's default holds.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// `local_addrs`
    pub local_addresses: Vec<String>,
    /// `remote_addrs`
    pub remote_addresses: Vec<String>,
    /// `proposals`
    pub proposals: Vec<String>,
    /// `vips`: addresses to ask for.
    pub virtual_addresses: Vec<String>,
    /// `pools`: where addresses for the peer come from.
    pub pools: Vec<String>,
    /// How this end proves itself.
    pub local: Auth,
    /// How the peer has to prove itself.
    pub remote: Auth,
    /// `children`
    pub children: Vec<Child>,
    /// Any other setting: `("rekey_time", "30s")`, `("dpd_delay", "2s")`, `("encap", "yes")`.
    pub settings: Vec<(String, String)>,
}

impl Connection {
    /// A connection between two addresses (the remote may be `%any`), MOBIKE off.
    pub fn new(name: &str, local: &str, remote: &str) -> Self {
        Self {
            name: name.to_owned(),
            local_addresses: owned(&[local]),
            remote_addresses: owned(&[remote]),
            settings: vec![("mobike".to_owned(), "no".to_owned())],
            ..Self::default()
        }
    }

    /// Adds a proposal.
    #[must_use]
    pub fn proposal(mut self, proposal: &str) -> Self {
        self.proposals.push(proposal.to_owned());
        self
    }

    /// How this end proves itself.
    #[must_use]
    pub fn local(mut self, auth: Auth) -> Self {
        self.local = auth;
        self
    }

    /// How the peer has to prove itself.
    #[must_use]
    pub fn remote(mut self, auth: Auth) -> Self {
        self.remote = auth;
        self
    }

    /// Asks for a virtual address; `0.0.0.0` and `::` mean any.
    #[must_use]
    pub fn virtual_address(mut self, address: &str) -> Self {
        self.virtual_addresses.push(address.to_owned());
        self
    }

    /// Gives the peer addresses of a pool.
    #[must_use]
    pub fn pool(mut self, name: &str) -> Self {
        self.pools.push(name.to_owned());
        self
    }

    /// Adds a child.
    #[must_use]
    pub fn child(mut self, child: Child) -> Self {
        self.children.push(child);
        self
    }

    /// Any other setting of the connection; the last one given holds.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        put(&mut self.settings, key, value);
        self
    }
}

/// What an end proves itself by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proof {
    /// A certificate or key; `auth = pubkey`.
    #[default]
    PublicKey,
    /// A shared secret; `auth = psk`.
    SharedKey,
    /// Any other value of `auth`: `ecdsa-sha384`, `rsa-2048-sha256`, `eap-mschapv2`.
    Other(String),
}

/// A `local` or `remote` section.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// `auth`
    pub proof: Proof,
    /// `id`
    pub id: Option<String>,
    /// `certs`: the name in [`super::Setup::credentials`].
    pub certificate: Option<String>,
    /// Any other setting: `("revocation", "strict")`.
    pub settings: Vec<(String, String)>,
}

impl Auth {
    /// By a certificate of one's own.
    pub fn certificate(name: &str, id: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            certificate: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// By some certificate of a trusted authority with this identity (`%any` allows all).
    pub fn public_key(id: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            ..Self::default()
        }
    }

    /// By a shared secret.
    pub fn shared_key(id: &str) -> Self {
        Self {
            proof: Proof::SharedKey,
            id: Some(id.to_owned()),
            ..Self::default()
        }
    }

    /// By another value of `auth`.
    #[must_use]
    pub fn by(mut self, auth: &str) -> Self {
        self.proof = Proof::Other(auth.to_owned());
        self
    }

    /// Any other setting of the section.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        put(&mut self.settings, key, value);
        self
    }
}

/// A child of a connection.
#[derive(Debug, Clone, Default)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// `local_ts`; empty means dynamic.
    pub local: Vec<String>,
    /// `remote_ts`; empty means dynamic.
    pub remote: Vec<String>,
    /// `esp_proposals`
    pub proposals: Vec<String>,
    /// Any other setting: `("start_action", "trap")`, `("rekey_time", "10s")`, `("dpd_action", "restart")`.
    pub settings: Vec<(String, String)>,
}

impl Child {
    /// A child with these selectors; empty ones mean the address of that end.
    pub fn new(name: &str, local: &[&str], remote: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            local: owned(local),
            remote: owned(remote),
            ..Self::default()
        }
    }

    /// Adds a proposal.
    #[must_use]
    pub fn proposal(mut self, proposal: &str) -> Self {
        self.proposals.push(proposal.to_owned());
        self
    }

    /// Any other setting of the child.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        put(&mut self.settings, key, value);
        self
    }
}

/// A pool of virtual addresses.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `addrs`: a network or a range.
    pub addresses: String,
    /// `dns`
    pub dns: Vec<String>,
}

/// A shared secret or password.
#[derive(Debug, Clone)]
pub struct Secret {
    section: &'static str,
    ids: Vec<String>,
    secret: String,
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn put(settings: &mut Vec<(String, String)>, key: &str, value: &str) {
    settings.retain(|(known, _)| known != key);
    settings.push((key.to_owned(), value.to_owned()));
}

/// Writes the indented lines of the file.
struct Writer<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    depth: usize,
}

impl Writer<'_, '_> {
    fn section(&mut self, name: &str, body: impl FnOnce(&mut Self) -> fmt::Result) -> fmt::Result {
        self.line(&format!("{name} {{"))?;
        self.depth += 1;
        body(self)?;
        self.depth -= 1;
        self.line("}")
    }

    fn line(&mut self, line: &str) -> fmt::Result {
        writeln!(self.out, "{:width$}{line}", "", width = self.depth * 2)
    }

    fn setting(&mut self, key: &str, value: &str) -> fmt::Result {
        // Quoted, since a value may be a DN or hold what the format uses itself.
        self.line(&format!(
            "{key} = \"{}\"",
            value.replace('\\', "\\\\").replace('"', "\\\"")
        ))
    }

    fn list(&mut self, key: &str, values: &[String]) -> fmt::Result {
        if values.is_empty() {
            return Ok(());
        }
        // Unquoted: quotes would make it one value.
        self.line(&format!("{key} = {}", values.join(", ")))
    }

    fn settings(&mut self, settings: &[(String, String)]) -> fmt::Result {
        settings
            .iter()
            .try_for_each(|(key, value)| self.setting(key, value))
    }

    fn auth(&mut self, name: &str, auth: &Auth) -> fmt::Result {
        self.section(name, |w| {
            w.setting(
                "auth",
                match &auth.proof {
                    Proof::PublicKey => "pubkey",
                    Proof::SharedKey => "psk",
                    Proof::Other(text) => text,
                },
            )?;
            if let Some(id) = &auth.id {
                w.setting("id", id)?;
            }
            if let Some(name) = &auth.certificate {
                w.setting("certs", &format!("{name}.crt"))?;
            }
            w.settings(&auth.settings)
        })
    }

    fn connection(&mut self, connection: &Connection) -> fmt::Result {
        self.section(&connection.name, |w| {
            w.setting("version", "2")?;
            w.list("local_addrs", &connection.local_addresses)?;
            w.list("remote_addrs", &connection.remote_addresses)?;
            w.list("proposals", &connection.proposals)?;
            w.list("vips", &connection.virtual_addresses)?;
            w.list("pools", &connection.pools)?;
            w.settings(&connection.settings)?;
            w.auth("local", &connection.local)?;
            w.auth("remote", &connection.remote)?;
            w.section("children", |w| {
                connection
                    .children
                    .iter()
                    .try_for_each(|child| w.child(child))
            })
        })
    }

    fn child(&mut self, child: &Child) -> fmt::Result {
        self.section(&child.name, |w| {
            w.list("local_ts", &child.local)?;
            w.list("remote_ts", &child.remote)?;
            w.list("esp_proposals", &child.proposals)?;
            w.settings(&child.settings)
        })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = Writer { out: f, depth: 0 };
        writer.section("connections", |w| {
            self.connections
                .iter()
                .try_for_each(|connection| w.connection(connection))
        })?;
        writer.section("pools", |w| {
            self.pools.iter().try_for_each(|pool| {
                w.section(&pool.name, |w| {
                    w.setting("addrs", &pool.addresses)?;
                    w.list("dns", &pool.dns)
                })
            })
        })?;
        writer.section("secrets", |w| {
            self.secrets
                .iter()
                .enumerate()
                .try_for_each(|(number, secret)| {
                    w.section(&format!("{}-{number}", secret.section), |w| {
                        for (index, id) in secret.ids.iter().enumerate() {
                            w.setting(&format!("id-{index}"), id)?;
                        }
                        w.setting("secret", &secret.secret)
                    })
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_written_as_swanctl_reads_it() {
        let config = Config::of(
            Connection::new("net", "192.0.2.1", "%any")
                .proposal("aes128-sha256-x25519")
                .local(Auth::certificate("gw", "C=XX, CN=\"gw\""))
                .remote(Auth::shared_key("peer@lab"))
                .child(
                    Child::new("lan", &["10.1.0.0/24", "fd00:1::/64"], &[])
                        .set("start_action", "trap"),
                )
                .set("mobike", "yes"),
        )
        .secret(&["peer@lab"], "se cret")
        .pool("vpool", "10.77.0.0/24");
        let expected = "\
connections {
  net {
    version = \"2\"
    local_addrs = 192.0.2.1
    remote_addrs = %any
    proposals = aes128-sha256-x25519
    mobike = \"yes\"
    local {
      auth = \"pubkey\"
      id = \"C=XX, CN=\\\"gw\\\"\"
      certs = \"gw.crt\"
    }
    remote {
      auth = \"psk\"
      id = \"peer@lab\"
    }
    children {
      lan {
        local_ts = 10.1.0.0/24, fd00:1::/64
        start_action = \"trap\"
      }
    }
  }
}
pools {
  vpool {
    addrs = \"10.77.0.0/24\"
  }
}
secrets {
  ike-0 {
    id-0 = \"peer@lab\"
    secret = \"se cret\"
  }
}
";
        assert_eq!(config.to_string(), expected);
    }
}
