//! A real strongSwan on a host of the lab.
//!
//! One `charon` with ESP in user space (kernel-libipsec, so no kernel IPsec is needed), in a mount
//! namespace of its own where `/etc/swanctl` is its directory and `/run` is private. It is driven by
//! `swanctl` over its own vici socket and stopped by its own process id.

mod charon_cmd;
mod config;
mod sas;
mod starter;

pub use charon_cmd::CharonCmd;
pub use config::{Auth, Child, Config, Connection, Pool, Proof, Secret};
pub use sas::{ChildSa, IkeSa};
pub use starter::Starter;

use super::Lab;
use super::failure::{Context, Failure, Result};
use super::namespace::Namespace;
use super::pki::Credential;
use super::process::{Exec, Finished, Process, last_lines, wait_for};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CHARON: &str = "/usr/lib/ipsec/charon";

/// What swanctl looks into, and complains about when it is missing.
const DIRECTORIES: [&str; 13] = [
    "bliss", "ecdsa", "pkcs12", "pkcs8", "private", "pubkey", "rsa", "x509", "x509aa", "x509ac",
    "x509ca", "x509crl", "x509ocsp",
];

/// kernel-libipsec has to come before kernel-netlink, so that it wins the IPsec side.
pub(crate) const PLUGINS: &str = "random nonce aes aesni sha1 sha2 md5 mgf1 hmac kdf gcm ccm ctr cmac xcbc chapoly drbg \
    curve25519 gmp openssl pem pkcs1 pkcs7 pkcs8 pkcs12 pubkey x509 revocation constraints fips-prf \
    kernel-libipsec kernel-netlink socket-default vici updown resolve attr eap-identity eap-md5 eap-mschapv2 \
    eap-tls eap-ttls eap-gtc counters";

/// What a strongSwan is to know: written into its directory before it starts.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// swanctl.conf.
    pub config: Config,
    /// Its own certificates with their keys, under the names that `certs = NAME.crt` uses.
    pub credentials: Vec<(String, Credential)>,
    /// Authorities it trusts, PEM.
    pub authorities: Vec<String>,
    /// Revocation lists, PEM.
    pub revocation_lists: Vec<String>,
    /// Lines inside the `charon { }` section of strongswan.conf: `retransmit_tries = 2`.
    pub settings: Vec<String>,
}

/// A strongSwan; stopped when dropped.
#[derive(Debug)]
pub struct StrongSwan {
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    charon: Option<Process>,
}

impl StrongSwan {
    /// Starts a strongSwan on `namespace` and loads its configuration.
    pub fn start(lab: &Lab, namespace: &Namespace, setup: &Setup) -> Result<Self> {
        let mut peer = Self::prepare(lab, namespace)?;
        peer.write(setup)?;
        peer.restart()?;
        Ok(peer)
    }

    /// Starts a strongSwan whose `/etc/swanctl` is a copy of `folder`: swanctl.conf and the folders beside it.
    pub fn start_with_files(lab: &Lab, namespace: &Namespace, folder: &Path) -> Result<Self> {
        let mut peer = Self::prepare(lab, namespace)?;
        peer.write(&Setup::default())?;
        let from = folder.join(".").to_string_lossy().into_owned();
        Exec::new(["cp", "-r", &from, &peer.directory.to_string_lossy()]).run()?;
        peer.restart()?;
        Ok(peer)
    }

    fn prepare(lab: &Lab, namespace: &Namespace) -> Result<Self> {
        let name = format!("strongswan-{}", namespace.name());
        Ok(Self {
            directory: lab.subdirectory(&name)?,
            name,
            namespace: namespace.clone(),
            charon: None,
        })
    }

    /// Writes another configuration and loads it, without a restart.
    pub fn reconfigure(&self, config: &Config) -> Result<()> {
        fs::write(self.directory.join("swanctl.conf"), config.to_string())?;
        self.load_all()
    }

    /// Starts charon again after [`StrongSwan::stop`] or [`StrongSwan::kill`].
    pub fn restart(&mut self) -> Result<()> {
        self.start_charon()?;
        self.load_all()
    }

    /// Stops charon as its init script would; SAs are deleted towards the peers.
    pub fn stop(&mut self) {
        self.charon = None;
    }

    /// Ends charon at once, without a word to its peers.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(charon) = &mut self.charon {
            charon.signal(Signal::KILL)?;
            charon.wait(Duration::from_secs(5))?;
        }
        self.charon = None;
        Ok(())
    }

    /// The process id of charon, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.charon.as_ref().map(Process::pid)
    }

    /// Lets its UDP sockets hold this many octets, as an operator does with `net.core.rmem_default`: it
    /// asks for no more than what is usual, some ninety packets, and a network namespace cannot change
    /// that.
    pub fn widen_sockets(&self, octets: usize) -> Result<()> {
        let pid = self.pid().ok_or_else(|| Failure::new("charon is down"))?;
        let process = Pid::from_raw(pid.cast_signed()).ok_or_else(|| Failure::new("no such id"))?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let mut widened = 0;
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let Ok(number) = entry?.file_name().to_string_lossy().parse() else {
                continue;
            };
            let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else {
                // Closed meanwhile.
                continue;
            };
            let Ok(family) = sockopt::socket_domain(&socket) else {
                continue;
            };
            let of_ip = [AddressFamily::INET, AddressFamily::INET6].contains(&family);
            if of_ip && sockopt::socket_type(&socket)? == SocketType::DGRAM {
                sockopt::set_socket_recv_buffer_size_force(&socket, octets)?;
                widened += 1;
            }
        }
        match widened {
            0 => Err(Failure::new(format!("{} has no UDP socket", self.name))),
            _ => Ok(()),
        }
    }

    /// The host it runs on.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// `swanctl --load-all`.
    pub fn load_all(&self) -> Result<()> {
        // charon makes the socket a moment before it listens on it.
        let finished = wait_for("charon listens", Duration::from_secs(5), || {
            let finished = self.swanctl(&["--load-all"])?;
            let deaf = finished.stderr.contains("Connection refused");
            Ok((!deaf).then_some(finished))
        })?;
        // It ends with 0 although single secrets or certificates failed.
        let broken = finished.stderr.lines().find(|line| line.contains("failed"));
        if let Some(line) = broken {
            return Err(Failure::new(format!(
                "{}: swanctl --load-all: {line}",
                self.name
            )));
        }
        self.expect(finished, "--load-all")
    }

    /// Brings up a child of any connection; fails with strongSwan's own words.
    pub fn initiate(&self, child: &str) -> Result<()> {
        self.command(&["--initiate", "--child", child, "--timeout", "20"])
    }

    /// Tries to bring up a child, and fails unless the peer refuses it: charon logs `said` then.
    pub fn is_refused(&self, child: &str, said: &str) -> Result<()> {
        let before = self.log().len();
        if self.initiate(child).is_ok() {
            return Err(Failure::new(format!("{}: {child} is let in", self.name)));
        }
        wait_for(
            &format!("{} is told {said}", self.name),
            Duration::from_secs(2),
            || {
                let log = self.log();
                let new = log.get(before..).unwrap_or_default();
                Ok(new.contains(said).then_some(()))
            },
        )
    }

    /// Takes down a child SA.
    pub fn terminate_child(&self, child: &str) -> Result<()> {
        self.command(&["--terminate", "--child", child, "--timeout", "10"])
    }

    /// Takes down an IKE SA with all its children.
    pub fn terminate(&self, connection: &str) -> Result<()> {
        self.command(&["--terminate", "--ike", connection, "--timeout", "10"])
    }

    /// Starts the rekeying of a child SA.
    pub fn rekey_child(&self, child: &str) -> Result<()> {
        self.command(&["--rekey", "--child", child])
    }

    /// Waits until every installed child SA of this name is another than `before`, an inbound SPI.
    pub fn wait_for_new_child(&self, child: &str, before: &str, patience: Duration) -> Result<()> {
        wait_for("new ESP keys", patience, || {
            let now = self.installed_children(child)?;
            let new = !now.is_empty() && now.iter().all(|child| child.spi_in != before);
            Ok(new.then_some(()))
        })
    }

    /// Starts the rekeying of an IKE SA.
    pub fn rekey(&self, connection: &str) -> Result<()> {
        self.command(&["--rekey", "--ike", connection])
    }

    /// Starts the reauthentication of an IKE SA.
    pub fn reauthenticate(&self, connection: &str) -> Result<()> {
        self.command(&["--rekey", "--ike", connection, "--reauth"])
    }

    /// All IKE SAs with their children, as charon counts them now.
    pub fn sas(&self) -> Result<Vec<IkeSa>> {
        let finished = self.swanctl(&["--list-sas", "--pretty"])?;
        let text = finished.stdout.clone();
        self.expect(finished, "--list-sas")?;
        Ok(sas::parse(&text))
    }

    /// The child SAs of this name that are installed, newest last.
    pub fn installed_children(&self, child: &str) -> Result<Vec<ChildSa>> {
        let all = self.sas()?.into_iter().flat_map(|sa| sa.children);
        let mut of_name: Vec<ChildSa> = all
            .filter(|sa| sa.name == child && sa.state == "INSTALLED")
            .collect();
        of_name.sort_by_key(|sa| sa.unique_id);
        Ok(of_name)
    }

    /// The one installed child SA of this name; fails when there are none or several.
    pub fn child(&self, child: &str) -> Result<ChildSa> {
        let mut found = self.installed_children(child)?;
        match (found.pop(), found.len()) {
            (Some(sa), 0) => Ok(sa),
            (None, _) => Err(Failure::new(format!(
                "{}: no child SA {child} is installed",
                self.name
            ))),
            (Some(_), others) => Err(Failure::new(format!(
                "{}: expected one child SA {child}, found {}",
                self.name,
                others + 1
            ))),
        }
    }

    /// What `swanctl` prints for any other command.
    pub fn swanctl_output(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.swanctl(arguments)?;
        let text = finished.stdout.clone();
        self.expect(finished, &arguments.join(" "))?;
        Ok(text)
    }

    /// Everything charon has logged, over restarts.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Where that log is.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("charon.log")
    }

    /// Waits until a line of the log contains `text`; gives that line.
    pub fn wait_for_log(&self, text: &str, patience: Duration) -> Result<String> {
        wait_for(&format!("{} logs \"{text}\"", self.name), patience, || {
            Ok(self
                .log()
                .lines()
                .rev()
                .find(|line| line.contains(text))
                .map(str::to_owned))
        })
        .map_err(|failure| {
            Failure::new(format!(
                "{failure}; its last words:\n{}",
                last_lines(&self.log(), 15)
            ))
        })
    }

    /// The resolvers it was given as a client.
    pub fn resolvers(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("resolv.conf")).unwrap_or_default();
        let named = text.lines().filter_map(|l| l.strip_prefix("nameserver "));
        named
            .filter_map(|rest| rest.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    fn write(&self, setup: &Setup) -> Result<()> {
        for part in DIRECTORIES {
            fs::create_dir_all(self.directory.join(part))?;
        }
        for (name, credential) in &setup.credentials {
            self.write_file(&format!("x509/{name}.crt"), &credential.certificate)?;
            self.write_file(&format!("private/{name}.key"), &credential.key)?;
            for (number, certificate) in credential.intermediates.iter().enumerate() {
                self.write_file(&format!("x509ca/{name}-above{number}.crt"), certificate)?;
            }
        }
        for (number, authority) in setup.authorities.iter().enumerate() {
            self.write_file(&format!("x509ca/ca{number}.crt"), authority)?;
        }
        for (number, list) in setup.revocation_lists.iter().enumerate() {
            self.write_file(&format!("x509crl/crl{number}.crl"), list)?;
        }
        self.write_file("swanctl.conf", &setup.config.to_string())?;
        self.write_file("strongswan.conf", &self.daemon_config(&setup.settings))
    }

    fn write_file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, text).context(format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    fn daemon_config(&self, settings: &[String]) -> String {
        let directory = self.directory.display();
        let settings = settings.join("\n  ");
        format!(
            "charon {{
  load_modular = no
  load = {PLUGINS}
  filelog {{
    log {{
      path = {directory}/charon.log
      time_format = %H:%M:%S
      append = yes
      ike_name = yes
      flush_line = yes
      default = 1
    }}
  }}
  syslog {{ daemon {{ default = -1 }} }}
  plugins {{
    vici {{ socket = unix://{directory}/charon.vici }}
    # ESP of its own must not be routed into the tunnel again
    kernel-netlink {{ fwmark = !0x42 }}
    socket-default {{ fwmark = 0x42 }}
    kernel-libipsec {{ allow_peer_ts = yes }}
    # not the machine's own
    resolve {{ file = {directory}/resolv.conf }}
  }}
  {settings}
}}
swanctl {{
  load = random openssl pem pkcs1 pkcs8 pkcs12 x509 pubkey
}}
"
        )
    }

    fn start_charon(&mut self) -> Result<()> {
        let socket = self.directory.join("charon.vici");
        let _ = fs::remove_file(&socket);
        // All of it is one process: ip, unshare and the shell exec what comes next.
        let script = "mount -t tmpfs -o mode=755 tmpfs /run
            mkdir -p /etc/swanctl
            mount --bind \"$1\" /etc/swanctl
            exec \"$2\"";
        let command = Exec::new([
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "charon",
        ])
        .arg(self.directory.to_string_lossy())
        .arg(CHARON)
        .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"))
        .env("SWANCTL_DIR", "/etc/swanctl");
        self.namespace.forward_packets()?;
        let mut charon = self.namespace.spawn_exec(command)?;
        wait_for("charon answers", Duration::from_secs(10), || {
            if !charon.is_running() {
                return Err(Failure::new(format!(
                    "charon ended: {}",
                    charon.last_words()
                )));
            }
            // The file is there before anybody listens.
            Ok(UnixStream::connect(&socket).is_ok().then_some(()))
        })
        .map_err(|failure| failure.while_doing(format!("starting {}", self.name)))?;
        self.charon = Some(charon);
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Result<()> {
        let finished = self.swanctl(arguments)?;
        self.expect(finished, &arguments.join(" "))
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<Finished> {
        let socket = format!("unix://{}/charon.vici", self.directory.display());
        let mut argv = vec!["swanctl"];
        argv.extend_from_slice(arguments);
        argv.extend_from_slice(&["--uri", &socket]);
        Exec::new(argv)
            .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"))
            .env("SWANCTL_DIR", &self.directory)
            .finish()
    }

    fn expect(&self, finished: Finished, what: &str) -> Result<()> {
        if finished.success() {
            return Ok(());
        }
        let said = last_lines(&format!("{}{}", finished.stdout, finished.stderr), 12);
        Err(Failure::new(format!(
            "{}: swanctl {what} failed:\n{said}",
            self.name
        )))
    }
}

/// Whether this machine has what [`StrongSwan`] runs.
pub fn is_installed() -> bool {
    Path::new(CHARON).exists()
}
