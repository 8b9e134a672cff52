//! The server: strongSwan run by its starter from `ipsec.conf`, in a mount namespace where `/etc/ipsec.*` are its own.

use super::super::failure::{Context, Failure, Result};
use super::super::process::{Exec, Process, last_lines, wait_for};
use super::super::{Lab, Namespace};
use super::{Deployment, Year, write};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const STARTER: &str = "/usr/lib/ipsec/starter";

/// What Algo enables, in strongSwan's own order, and ESP in user space, which has to come before kernel-netlink.
const PLUGINS: &str = "aes sha1 sha2 random nonce x509 revocation pubkey pkcs1 pkcs7 pkcs8 pkcs12 pgp pem openssl hmac \
    kdf gcm kernel-libipsec kernel-netlink socket-default stroke";

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    starter: Option<Process>,
}

impl Server {
    /// Starts it on `namespace`; returns when it waits for clients.
    pub fn start(lab: &Lab, namespace: &Namespace, deployment: &Deployment) -> Result<Self> {
        let mut server = Self {
            directory: lab.subdirectory("algo-server")?,
            starter: None,
        };
        server.write(deployment)?;
        namespace.forward_packets()?;
        namespace.nft(&rules(deployment.year))?;
        let script = "mount -t tmpfs -o mode=755 tmpfs /run
            for name in ipsec.conf ipsec.secrets ipsec.d strongswan.conf; do
                mount --bind \"$1/$name\" /etc/$name
            done
            exec \"$2\" --nofork --daemon charon";
        let command = Exec::new([
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "starter",
        ])
        .arg(server.directory.to_string_lossy())
        .arg(STARTER);
        let mut starter = namespace.spawn_exec(command)?;
        wait_for(
            "Algo's server has its connection",
            Duration::from_secs(15),
            || {
                crate::ensure!(
                    starter.is_running(),
                    "starter ended: {}",
                    starter.last_words()
                );
                Ok(server
                    .log()
                    .contains("added configuration 'ikev2-pubkey'")
                    .then_some(()))
            },
        )
        .map_err(|failure| {
            Failure::new(format!(
                "{failure}: {}\n{}",
                starter.last_words(),
                last_lines(&server.log(), 15)
            ))
        })?;
        server.starter = Some(starter);
        Ok(server)
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        self.starter = None;
    }

    /// The process id of the starter.
    pub fn pid(&self) -> Option<u32> {
        self.starter.as_ref().map(Process::pid)
    }

    /// What charon has logged.
    pub fn log(&self) -> String {
        fs::read(self.directory.join("charon.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn write(&self, deployment: &Deployment) -> Result<()> {
        let to = |name: &str| self.directory.join(name);
        for folder in [
            "cacerts",
            "certs",
            "private",
            "crls",
            "aacerts",
            "acerts",
            "ocspcerts",
        ] {
            let path = to("ipsec.d").join(folder);
            fs::create_dir_all(&path).context(format!("cannot create {}", path.display()))?;
        }
        let address = &deployment.address;
        for (from, name) in [
            ("cacert.pem".to_owned(), "ipsec.d/cacerts/ca.crt".to_owned()),
            (
                format!("certs/{address}.crt"),
                format!("ipsec.d/certs/{address}.crt"),
            ),
            (
                format!("private/{address}.key"),
                format!("ipsec.d/private/{address}.key"),
            ),
        ] {
            write(&to(&name), fs::read(deployment.pki.join(from))?)?;
        }
        write(&to("ipsec.secrets"), format!(": ECDSA {address}.key\n"))?;
        write(&to("ipsec.conf"), conf(deployment))?;
        write(&to("strongswan.conf"), self.daemon_config(deployment.year))
    }

    fn daemon_config(&self, year: Year) -> String {
        // Today's authority has constraints of kinds that strongSwan does not know.
        let relaxed = match year {
            Year::Y2017 => "",
            Year::Y2026 => "x509 { enforce_critical = no }",
        };
        format!(
            "charon {{
  load_modular = no
  load = {PLUGINS}
  close_ike_on_child_failure = yes
  half_open_timeout = 5
  inactivity_close_ike = yes
  keep_alive = 25s
  {relaxed}
  filelog {{
    log {{
      path = {}/charon.log
      default = 1
      flush_line = yes
    }}
  }}
  plugins {{
    # ESP of its own must not be routed into the tunnel again
    kernel-netlink {{ fwmark = !0x42 }}
    socket-default {{ fwmark = 0x42 }}
    kernel-libipsec {{ allow_peer_ts = yes }}
  }}
}}
",
            self.directory.display()
        )
    }
}

fn conf(deployment: &Deployment) -> String {
    let address = &deployment.address;
    let (ike, esp) = deployment.year.proposals();
    let (v4, v6) = deployment.year.pools();
    let lifetimes = match deployment.year {
        Year::Y2017 => "",
        Year::Y2026 => "    lifetime=3h\n    ikelifetime=12h\n",
    };
    format!(
        "config setup
    uniqueids=never

conn %default
    fragmentation=yes
    rekey=no
    dpdaction=clear
    keyexchange=ikev2
    compress=yes
    dpddelay=35s
{lifetimes}
    ike={ike}
    esp={esp}

    left=%any
    leftauth=pubkey
    leftid={address}
    leftcert={address}.crt
    leftsendcert=always
    leftsubnet=0.0.0.0/0,::/0

    right=%any
    rightauth=pubkey
    rightsourceip={v4},{v6}
    rightdns=1.1.1.1,1.0.0.1

conn ikev2-pubkey
    auto=add
"
    )
}

/// Addresses of clients are translated, and TCP is made to fit the tunnel.
fn rules(year: Year) -> String {
    let (v4, _) = year.pools();
    format!(
        "table inet vpn {{
chain forward {{
type filter hook forward priority 0;
iifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
oifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
}}
chain post {{
type nat hook postrouting priority 100;
ip saddr {v4} oifname \"eth0\" masquerade
}}
}}
"
    )
}
