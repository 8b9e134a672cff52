//! The clients: isc-dhcp-client, busybox and systemd-networkd, each of which takes what it is lent as on a machine, but
//! leaves this machine's own files alone.

use super::{Lab, Namespace, Result, SOON, wait_for};
use crate::lab::{Exec, Failure, Process};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::interop) struct Lease {
    pub(in crate::interop) address: String,
    pub(super) router: String,
    pub(super) dns: String,
    pub(super) server: String,
}

impl Lease {
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.split_whitespace().map(str::to_owned);
        Some(Self {
            address: words.next()?,
            router: words.next()?,
            dns: words.next()?,
            server: words.next()?,
        })
    }
}

/// Takes what dhclient (by its variables) or udhcpc (by its own) hands over, and writes it down.
const SCRIPT: &str = r#"#!/bin/sh
case "${reason:-$1}" in
BOUND | RENEW | REBIND | REBOOT | bound | renew) ;;
EXPIRE | FAIL | RELEASE | STOP | deconfig | nak)
    ip -4 addr flush dev eth0 scope global
    exit 0 ;;
*) exit 0 ;;
esac
address=${new_ip_address:-$ip}
router=${new_routers:-$router}
ip -4 addr flush dev eth0 scope global
ip addr add "$address/24" dev eth0
ip route replace default via "$router"
dns=${new_domain_name_servers:-$dns}
echo "$address $router ${dns:--} ${new_dhcp_server_identifier:-$serverid}" > "@OUT@.new"
mv "@OUT@.new" "@OUT@"
"#;

/// A host's client; what it remembers is its own.
pub(in crate::interop) struct Client {
    host: Namespace,
    directory: PathBuf,
}

impl Client {
    pub(in crate::interop) fn on(lab: &Lab, host: &Namespace) -> Result<Self> {
        let directory = lab.subdirectory(&format!("dhcp-{}", host.name()))?;
        let client = Self {
            host: host.clone(),
            directory,
        };
        let out = client.path("lease").to_string_lossy().into_owned();
        let script = client.path("script");
        fs::write(&script, SCRIPT.replace("@OUT@", &out))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(client)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Forgets what it was told, in the script's file and dhclient's own.
    pub(super) fn forget(&self) {
        for name in ["lease", "leases"] {
            // It may not have been told anything yet.
            let _ = fs::remove_file(self.path(name));
        }
    }

    fn told(&self, what: &str) -> Result<Lease> {
        wait_for(
            &format!("{} has a lease ({what})", self.host.name()),
            SOON,
            || Ok(Lease::read(&self.path("lease"))),
        )
    }

    /// dhclient, which runs as long as what is given lives. `config`: lines of its dhclient.conf.
    pub(super) fn dhclient(&self, config: &str) -> Result<(Process, Lease)> {
        fs::write(self.path("conf"), config)?;
        // It wants it to be there.
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("leases"))?;
        let _ = fs::remove_file(self.path("lease"));
        let argv = [
            "dhclient".to_owned(),
            "-4".to_owned(),
            "-d".to_owned(),
            "-cf".to_owned(),
            self.text("conf"),
            "-lf".to_owned(),
            self.text("leases"),
            "-pf".to_owned(),
            self.text("pid"),
            "-sf".to_owned(),
            self.text("script"),
            "eth0".to_owned(),
        ];
        let process = self.host.spawn(argv)?;
        let told = self.told("dhclient");
        let lease = told.map_err(|failure| {
            Failure::new(format!("{failure}; dhclient says:\n{}", process.log()))
        })?;
        Ok((process, lease))
    }

    /// udhcpc, until it has a lease; `more` are arguments.
    pub(in crate::interop) fn udhcpc(&self, more: &[&str]) -> Result<Lease> {
        let _ = fs::remove_file(self.path("lease"));
        let script = self.text("script");
        let mut argv = vec!["busybox", "udhcpc", "-f", "-q", "-n", "-t", "3", "-T", "2"];
        argv.extend(["-i", "eth0", "-s", &script]);
        argv.extend(more);
        let finished = self.host.finish(argv)?;
        let lease = Lease::read(&self.path("lease")).filter(|_| finished.success());
        lease.ok_or_else(|| {
            let said = format!("{}{}", finished.stdout, finished.stderr);
            Failure::new(format!("{} was lent nothing: {said}", self.host.name()))
        })
    }

    /// udhcpc, which is told to give back what it was lent.
    pub(super) fn udhcpc_and_release(&self, more: &[&str]) -> Result<Lease> {
        let _ = fs::remove_file(self.path("lease"));
        let script = self.text("script");
        let mut argv = vec!["busybox", "udhcpc", "-f", "-i", "eth0", "-s", &script];
        argv.extend(more);
        let mut process = self.host.spawn(argv)?;
        let lease = self.told("udhcpc")?;
        process.signal(Signal::USR2)?;
        wait_for("udhcpc gives it back", SOON, || {
            Ok(process.log().contains("released state").then_some(()))
        })?;
        Ok(lease)
    }

    /// systemd-networkd, which runs as long as what is given lives; what it wrote down once it has set the address.
    pub(super) fn networkd(&self) -> Result<(Process, Lease)> {
        let process = self.spawn_networkd("DHCP=ipv4\nIPv6AcceptRA=no\n")?;
        let leases = self.path("netif/leases");
        let lease = wait_for("networkd has a lease", SOON, || {
            let Some(lease) = written_by_networkd(&leases)? else {
                return Ok(None);
            };
            let set = self.host.ip("-4 -o addr show dev eth0 scope global")?;
            let way = self.host.ip("-4 route show default")?;
            let obeyed = set.contains(&format!("inet {}/24", lease.address))
                && way.contains(&format!("via {} ", lease.router));
            Ok(obeyed.then_some(lease))
        });
        let lease = lease.map_err(|failure| {
            Failure::new(format!("{failure}; networkd says:\n{}", process.log()))
        })?;
        Ok((process, lease))
    }

    /// The same for IPv6: it takes router advertisements itself, instead of the kernel. And what it wrote down of its
    /// links.
    pub(super) fn networkd_ipv6(&self) -> Result<(Process, impl Fn() -> Result<String>)> {
        let process =
            self.spawn_networkd("DHCP=no\nIPv6AcceptRA=yes\n[IPv6AcceptRA]\nDHCPv6Client=no\n")?;
        let links = self.path("netif/links");
        wait_for("networkd has the interface", SOON, || {
            let takes = self
                .host
                .exec(["sysctl", "-n", "net.ipv6.conf.eth0.accept_ra"])?;
            Ok((takes.trim() == "0").then_some(()))
        })
        .map_err(|failure| Failure::new(format!("{failure}; networkd says:\n{}", process.log())))?;
        Ok((process, move || {
            let mut text = String::new();
            for file in fs::read_dir(&links)? {
                // It replaces the file.
                text.push_str(&fs::read_to_string(file?.path()).unwrap_or_default());
            }
            Ok(text)
        }))
    }

    /// It is given a /run of its own, and a /sys that cannot be written to: that is how it knows that no udev is there.
    fn spawn_networkd(&self, network: &str) -> Result<Process> {
        fs::write(
            self.path("eth0.network"),
            format!("[Match]\nName=eth0\n[Network]\n{network}"),
        )?;
        fs::create_dir_all(self.path("netif/leases"))?;
        let (network, netif) = (self.text("eth0.network"), self.text("netif"));
        let line = format!(
            "mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/network /run/systemd/netif
cp {network} /run/systemd/network/eth0.network
mount --bind {netif} /run/systemd/netif
mkdir -p /run/systemd/netif/links /run/systemd/netif/lldp
chmod -R a+rX /run/systemd
chown -R systemd-network: /run/systemd/netif
mount -o remount,ro /sys
exec /lib/systemd/systemd-networkd"
        );
        let command = Exec::new(["unshare", "--mount", "--propagation", "private"])
            .arg("sh")
            .arg("-ec")
            .arg(line)
            .env("SYSTEMD_LOG_LEVEL", "debug")
            .env("SYSTEMD_LOG_TARGET", "console");
        self.host.spawn_exec(command)
    }
}

/// What it was told, in the one file that it keeps of that.
fn written_by_networkd(leases: &Path) -> Result<Option<Lease>> {
    let Some(file) = fs::read_dir(leases)?.next() else {
        return Ok(None);
    };
    // It replaces the file.
    let text = fs::read_to_string(file?.path()).unwrap_or_default();
    let value = |name: &str| {
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
        values.next().map(str::to_owned)
    };
    let lease = || {
        Some(Lease {
            address: value("ADDRESS=")?,
            router: value("ROUTER=")?,
            dns: value("DNS=")?,
            server: value("SERVER_ADDRESS=")?,
        })
    };
    Ok(lease())
}
