//! Bad input: exit code 2, one line that names what is wrong and what to do, and nothing changed.

use super::super::Scenario;
use super::crash::expect_guard;
use super::home::{BOX, Home, QUICK, behind, check, gateway_setup, guard, server_setup};
use super::state::State;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::pki::{Authority, Credential, KeyKind, Request};
use crate::lab::world::SERVER;
use crate::lab::{
    Context, Exec, Failure, Finished, Lab, Namespace, Result, join, on_host, wait_for,
};
use crate::{bail, ensure};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::Duration;

/// A mistake in a file: how it is made, and what the line has to contain.
type Spoil = fn(&Box_) -> Result<()>;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mistakes: [(&str, &str, Spoil, &[&str]); 19] = [
        (
            "key-missing",
            "the private key is not there",
            |at| Ok(fs::remove_file(at.path("own.key"))?),
            &["own.key", "No such file", "check the name"],
        ),
        (
            "key-unreadable",
            "the private key is no key",
            |at| at.write("own.key", "this is not a key\n", 0o600),
            &["own.key", "expected a private key", "found"],
        ),
        (
            "key-is-a-directory",
            "the private key is a directory",
            |at| {
                fs::remove_file(at.path("own.key"))?;
                Ok(fs::create_dir(at.path("own.key"))?)
            },
            &["own.key", "expected a regular file"],
        ),
        (
            "key-world-readable",
            "others may read the private key",
            |at| at.mode("own.key", 0o644),
            &["own.key", "chmod 600"],
        ),
        (
            "key-of-another",
            "the certificate does not match its key",
            |at| at.write("own.key", &other()?.key, 0o600),
            &["own.key", "own.crt"],
        ),
        (
            "certificate-missing",
            "the certificate is not there",
            |at| Ok(fs::remove_file(at.path("own.crt"))?),
            &["own.crt", "check the name"],
        ),
        (
            "certificate-unreadable",
            "the certificate is a key",
            |at| at.write("own.crt", &other()?.key, 0o600),
            &["own.crt", "expected"],
        ),
        (
            "identity-not-in-certificate",
            "the identity is not in the certificate",
            |at| at.replace("identity = \"box.lab\"", "identity = \"other.lab\""),
            &["cygnet.toml:", "other.lab", "box.lab"],
        ),
        (
            "unknown-key",
            "the configuration has a key that does not exist",
            |at| at.replace("virtual_address", "virtual_adress"),
            &[
                "cygnet.toml:",
                "virtual_adress",
                "expected",
                "virtual_address",
            ],
        ),
        (
            "unknown-section",
            "the configuration has a section that does not exist",
            |at| at.replace("[gateway]", "[gatewya]"),
            &["cygnet.toml:", "gatewya", "expected", "gateway"],
        ),
        (
            "wrong-type",
            "a number where a text is expected",
            |at| at.replace("lan = \"eth0\"", "lan = 7"),
            &["cygnet.toml:", "expected", "string"],
        ),
        (
            "wrong-value",
            "a duration that is none",
            |at| {
                at.replace(
                    "virtual_address = true",
                    "virtual_address = true\nliveness = \"soon\"",
                )
            },
            &["cygnet.toml:", "soon", "expected"],
        ),
        (
            "no-toml",
            "a configuration that is no TOML",
            |at| at.replace("[gateway]", "[gateway"),
            &["cygnet.toml:", "expected"],
        ),
        (
            "no-tunnel",
            "the gateway names a tunnel that does not exist",
            |at| at.replace("tunnel = \"home\"", "tunnel = \"hoem\""),
            &["cygnet.toml:", "hoem", "expected one of: home"],
        ),
        (
            "two-tunnels-one-network",
            "two tunnels claim one network",
            |at| {
                let site = |name: &str, remote: &str| {
                    format!(
                        "[tunnel.{name}]\nremote = \"{remote}\"\npsk = \"psk\"\nremote_networks = [\"10.2.0.0/24\"]\n"
                    )
                };
                at.write("psk", "a good long secret\n", 0o600)?;
                let both = [site("branch", "192.0.2.77"), site("office", "192.0.2.78")].concat();
                at.replace("[gateway]", &format!("{both}[gateway]"))
            },
            &[
                "cygnet.toml:",
                "`10.2.0.0/24` is the other side of tunnel `branch` already",
                "standby_for",
            ],
        ),
        (
            "config-missing",
            "the configuration is not there",
            |at| Ok(fs::remove_file(at.path("cygnet.toml"))?),
            &["cygnet.toml", "No such file", "--config"],
        ),
        (
            "psk-short",
            "the pre-shared key is too short",
            |at| {
                at.write("psk", "secret\n", 0o600)?;
                at.use_psk()
            },
            &["psk", "6 bytes", "expected 8 or more", "openssl rand"],
        ),
        (
            "psk-world-readable",
            "others may read the pre-shared key",
            |at| {
                at.write("psk", "a good long secret\n", 0o604)?;
                at.use_psk()
            },
            &["psk", "chmod 600"],
        ),
        (
            "engine-user",
            "the engine's user does not exist",
            |at| at.replace("[daemon]", "[daemon]\nengine_user = \"nobodyy\""),
            &["engine_user", "nobodyy", "useradd"],
        ),
    ];
    let mut all: Vec<Scenario> = mistakes
        .into_iter()
        .map(|(name, about, spoil, words)| {
            Scenario::new(
                format!("bad-{name}"),
                format!("{about}: one line, exit code 2, nothing changed"),
                move |lab| in_a_file(lab, spoil, words),
            )
        })
        .collect();
    all.extend([
        Scenario::new(
            "bad-two-mistakes",
            "two mistakes in the configuration: a line each, with line and column",
            two_mistakes,
        ),
        Scenario::new(
            "bad-no-tun",
            "/dev/net/tun is missing: one line, nothing changed",
            no_tun,
        ),
        Scenario::new(
            "bad-no-capability",
            "run as nobody: one line, nothing changed",
            no_capability,
        ),
        Scenario::new(
            "bad-no-nft",
            "nft is not installed: one line, nothing changed",
            no_nft,
        ),
        Scenario::new(
            "bad-port-in-use",
            "UDP 500 is taken: one line, nothing changed",
            port_in_use,
        ),
        Scenario::new(
            "bad-second-instance",
            "a second instance: one line, and the first is not disturbed",
            second_instance,
        ),
        Scenario::new(
            "bad-journal",
            "the journal of a run before is no journal: one line, nothing changed",
            journal,
        ),
        Scenario::new(
            "bad-tun-name",
            "the TUN's name is taken: one line, nothing changed",
            tun_name,
        ),
        Scenario::new(
            "bad-lan-interface",
            "`lan` names an interface that is not there yet: closed, with a warning",
            lan_interface,
        ),
        Scenario::new(
            "bad-lan-interface-by-reload",
            "a running gateway is reloaded to a `lan` that is not there: refused, the guard and all else as before",
            lan_interface_by_reload,
        ),
    ]);
    all
}

/// A box with a good configuration with certificates, to be spoiled.
struct Box_ {
    host: Namespace,
    cygnet: Cygnet,
}

fn authority() -> Result<Authority> {
    Authority::root(KeyKind::EcP256, "lab root")
}

fn other() -> Result<Credential> {
    authority()?.issue(&Request::new(KeyKind::EcP256, "box").name("box.lab"))
}

impl Box_ {
    /// Whether the configuration, wrong as it may be, is TOML that names the LAN's interface.
    fn names_what_to_guard(&self) -> Result<bool> {
        let text = fs::read_to_string(self.cygnet.config_path()).unwrap_or_default();
        let Ok(table) = text.parse::<toml::Table>() else {
            return Ok(false);
        };
        let lan = table.get("gateway").and_then(|gateway| gateway.get("lan"));
        Ok(lan.is_some_and(|lan| lan.as_str() == Some("eth0")))
    }

    fn good(lab: &Lab) -> Result<Self> {
        let host = lab.host("box")?;
        // An interface for `lan` without the rest of the world.
        host.ip("link add eth0 type veth peer name far")?;
        host.ip(&format!("addr add {BOX}/24 dev eth0"))?;
        host.ip("link set eth0 up")?;
        host.ip("link set far up")?;
        let root = authority()?;
        let own = root.issue(&Request::new(KeyKind::EcP256, "box").name("box.lab"))?;
        let setup = Setup::new(format!(
            "[tunnel.home]
remote = \"{SERVER}\"
remote_identity = \"vpn.lab\"
identity = \"box.lab\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
virtual_address = true

[gateway]
tunnel = \"home\"
lan = \"eth0\"
"
        ))
        .credential("own", &own)
        .file("ca.crt", root.certificate.clone());
        let cygnet = Cygnet::prepare(lab, &host, &setup)?;
        let good = check(&cygnet)?;
        ensure!(
            good.success(),
            "the good configuration is refused: {}{}",
            good.stdout,
            good.stderr
        );
        Ok(Self { host, cygnet })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.cygnet.directory().join(name)
    }

    fn mode(&self, name: &str, mode: u32) -> Result<()> {
        Ok(fs::set_permissions(
            self.path(name),
            fs::Permissions::from_mode(mode),
        )?)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        fs::write(self.path(name), text).context(name)?;
        self.mode(name, mode)
    }

    fn replace(&self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.path("cygnet.toml"))?;
        ensure!(text.contains(from), "the configuration has no `{from}`");
        Ok(fs::write(
            self.path("cygnet.toml"),
            text.replacen(from, to, 1),
        )?)
    }

    /// A pre-shared key in place of the certificate.
    fn use_psk(&self) -> Result<()> {
        self.replace(
            "certificate = \"own.crt\"\nkey = \"own.key\"\nca = \"ca.crt\"\n",
            "psk = \"psk\"\n",
        )
    }

    /// Runs and expects a refusal that changes nothing.
    fn refused(&self, run: Exec, words: &[&str]) -> Result<String> {
        let before = State::of(&self.host)?;
        let finished = self
            .host
            .place(run.patience(Duration::from_secs(10)))
            .finish()?;
        let line = one_line(&finished, words)?;
        before.expect_same(&State::of(&self.host)?, &format!("after \"{line}\""))?;
        let left: Vec<_> = fs::read_dir(self.path("run"))
            .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
            .unwrap_or_default();
        ensure!(
            left.is_empty(),
            "{left:?} was left in run_dir after \"{line}\""
        );
        Ok(line)
    }
}

/// The one line on stderr of a refusal.
fn one_line(finished: &Finished, words: &[&str]) -> Result<String> {
    let said = finished.stderr.trim_end();
    ensure!(
        finished.status.code() == Some(2),
        "ended with {:?} instead of 2: {said}",
        finished.status
    );
    ensure!(finished.stdout.is_empty(), "it printed {}", finished.stdout);
    ensure!(
        said.lines().count() == 1,
        "expected one line on stderr, got:\n{said}"
    );
    for word in words {
        ensure!(said.contains(word), "expected `{word}` in: {said}");
    }
    Ok(said.strip_prefix("cygnet: ").unwrap_or(said).to_owned())
}

fn in_a_file(lab: &mut Lab, spoil: Spoil, words: &[&str]) -> Result<String> {
    let at = Box_::good(lab)?;
    spoil(&at)?;
    let line = at.refused(behind("exec \"$@\"", &at.cygnet), words)?;
    // The engine's user is known to this machine alone: `check` may be run on another.
    if !words.contains(&"engine_user") {
        one_line(&check(&at.cygnet)?, words).context("cygnet check")?;
    }
    // The guard closes nevertheless, where it is known what to guard; else nothing changes.
    let before = State::of(&at.host)?;
    match guard(&at.cygnet, "on") {
        Ok(_) => expect_guard(&State::of(&at.host)?, "with a mistake elsewhere")?,
        Err(failure) => {
            let known = at.names_what_to_guard()?;
            ensure!(!known, "the LAN is known, and there is no guard: {failure}");
            before.expect_same(&State::of(&at.host)?, "after a refused `cygnet gateway on`")?;
        }
    }
    Ok(line)
}

fn two_mistakes(lab: &mut Lab) -> Result<String> {
    let at = Box_::good(lab)?;
    at.replace(
        "virtual_address = true",
        "virtual_address = true\nliveness = \"soon\"\nmtu = 70",
    )?;
    let finished = at.cygnet.run_to_its_end()?;
    let lines: Vec<&str> = finished.stderr.lines().collect();
    ensure!(
        finished.status.code() == Some(2) && lines.len() == 2,
        "expected two lines and exit code 2: {:?}\n{}",
        finished.status,
        finished.stderr
    );
    for (line, word) in lines.iter().zip(["liveness", "mtu"]) {
        let text = fs::read_to_string(at.cygnet.config_path())?;
        let number = text
            .lines()
            .position(|line| line.starts_with(word))
            .map(|index| format!("cygnet.toml:{}:", index + 1))
            .ok_or_else(|| Failure::new("the mistake is not there"))?;
        ensure!(line.contains(&number), "expected `{number}` in: {line}");
    }
    Ok(lines.join(" | "))
}

fn no_tun(lab: &mut Lab) -> Result<String> {
    let at = Box_::good(lab)?;
    let hidden = behind("mount -t tmpfs tmpfs /dev/net; exec \"$@\"", &at.cygnet);
    at.refused(hidden, &["/dev/net/tun is missing", "modprobe tun"])
}

fn no_nft(lab: &mut Lab) -> Result<String> {
    let at = Box_::good(lab)?;
    let hidden = behind("PATH=/nowhere; export PATH; exec \"$@\"", &at.cygnet);
    at.refused(hidden, &["nft", "apt install nftables"])
}

fn no_capability(lab: &mut Lab) -> Result<String> {
    let at = Box_::good(lab)?;
    // Its own files, so that nothing but the lack of rights is in the way.
    at.host.exec([
        "chown",
        "-R",
        "nobody",
        &at.cygnet.directory().to_string_lossy(),
    ])?;
    let nobody = "exec setpriv --reuid nobody --regid nogroup --clear-groups -- \"$@\"";
    let port = at.refused(behind(nobody, &at.cygnet), &["run as root", "CAP_NET_"])?;
    // Even where everybody may use port 500, and without IPv6.
    at.host.sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
    let device = at.refused(
        behind(nobody, &at.cygnet),
        &["run as root", "CAP_NET_ADMIN"],
    )?;
    Ok(format!("{port} | {device}"))
}

fn port_in_use(lab: &mut Lab) -> Result<String> {
    let at = Box_::good(lab)?;
    let mut told = Vec::new();
    for address in ["0.0.0.0:500", "[::]:4500"] {
        let (bound, is_bound) = mpsc::channel();
        let (free, is_free) = mpsc::channel::<()>();
        let taken = on_host(&at.host, move || {
            let _socket = UdpSocket::bind(address)?;
            let _ = bound.send(());
            let _ = is_free.recv();
            Ok(())
        });
        let outcome = is_bound
            .recv()
            .map_err(Failure::from)
            .and_then(|()| at.refused(behind("exec \"$@\"", &at.cygnet), &["in use", "ss -ulpn"]));
        drop(free);
        join(taken)?;
        told.push(outcome?);
    }
    Ok(told.join(" | "))
}

fn second_instance(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let before = home.state()?;
    let sas = |home: &Home| -> Result<String> {
        Ok(format!(
            "{:?}",
            home.gateway
                .connection("home")?
                .ike_sas
                .first()
                .map(|sa| sa.initiator_spi.clone())
        ))
    };
    let spi = sas(&home)?;
    let same = one_line(
        &home.gateway.run_to_its_end()?,
        &["another cygnet", "stop it"],
    )?;
    // With a run_dir of its own it meets the port.
    let elsewhere = home.gateway.directory().join("elsewhere.toml");
    let text = fs::read_to_string(home.gateway.config_path())?;
    fs::write(&elsewhere, text.replacen("/run\"", "/run2\"", 1))?;
    let program = crate::project::cygnet();
    let other = home.world.gateway.finish([
        &*program.to_string_lossy(),
        "run",
        "--config",
        &elsewhere.to_string_lossy(),
    ])?;
    let port = one_line(&other, &["in use"])?;
    before.expect_same(&home.state()?, "after a second instance")?;
    ensure!(
        home.gateway.socket().exists(),
        "the second instance has removed the first one's socket"
    );
    ensure!(sas(&home)? == spi, "the first instance was disturbed");
    home.online(&home.world.laptop)?;
    Ok(format!("{same} | {port}"))
}

fn journal(lab: &mut Lab) -> Result<String> {
    let at = Box_::good(lab)?;
    let before = State::of(&at.host)?;
    fs::create_dir(at.path("run"))?;
    at.write("run/sysctl.journal", "net/ipv4/ip_forward is 1\n", 0o600)?;
    let words = ["sysctl.journal:1: not a journal entry", "delete the file"];
    let line = one_line(&at.cygnet.run_to_its_end()?, &words)?;
    before.expect_same(&State::of(&at.host)?, "after a broken journal")?;
    Ok(line)
}

fn tun_name(lab: &mut Lab) -> Result<String> {
    let at = Box_::good(lab)?;
    // An interface of another kind.
    at.host
        .ip("link add cyg-home type veth peer name cyg-far")?;
    let other = at.refused(
        behind("exec \"$@\"", &at.cygnet),
        &["cyg-home", "interface"],
    )?;
    at.host.ip("link del cyg-home")?;
    // A TUN that another program holds.
    let hold = "import fcntl, struct, time\nf = open('/dev/net/tun', 'r+b', buffering=0)\n\
        fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', b'cyg-home', 0x1001))\nprint('held', flush=True)\ntime.sleep(60)";
    let holder = at.host.spawn(["python3", "-c", hold])?;
    wait_for("the TUN is held", Duration::from_secs(5), || {
        Ok(holder.log().contains("held").then_some(()))
    })?;
    let held = at.refused(
        behind("exec \"$@\"", &at.cygnet),
        &["cyg-home", "in use", "stop that program"],
    )?;
    Ok(format!("{other} | {held}"))
}

/// A USB adapter that is plugged in later, or a name that was mistyped: the guard has to be in
/// place before the interface is, so this is no error; but it is told.
fn lan_interface(lab: &mut Lab) -> Result<String> {
    let world = super::home::forwarding_world(lab)?;
    let _server = Cygnet::start(lab, &world.server, &server_setup())?;
    let mut setup = gateway_setup(QUICK, "");
    setup.config = setup.config.replace("lan = \"eth0\"", "lan = \"eth9\"");
    let gateway = Cygnet::start(lab, &world.gateway, &setup)?;
    let warning = gateway.wait_for_warning("eth9", Duration::from_secs(5))?;
    if !(warning.contains("lan") && warning.contains("ip link")) {
        bail!("the warning does not say where and what to do: {warning}");
    }
    const NONE: &str = "lan = \"eth9\": there is no such interface";
    let checked = check(&gateway)?;
    ensure!(
        checked.success() && checked.stderr.contains(NONE),
        "`cygnet check` says {}{}",
        checked.stdout,
        checked.stderr
    );
    Ok(warning)
}

/// What is mistyped while the gateway runs does not leave the devices behind the right one open.
fn lan_interface_by_reload(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let mut setup = gateway_setup(QUICK, "default = \"direct\"\n");
    setup.config = setup.config.replace("lan = \"eth0\"", "lan = \"eth9\"");
    home.gateway.write(&setup)?;
    let before = home.state()?;
    home.world.provider.reset()?;
    let told = home.gateway.control(&["reload"])?;
    ensure!(
        !told.success() && told.stderr.contains("lan = \"eth9\""),
        "`cygnet reload` says {}{}",
        told.stdout,
        told.stderr
    );
    before.expect_same(&home.state()?, "after a reload to eth9")?;
    home.online(&home.world.laptop)?;
    home.nothing_leaked("after a reload to eth9")?;
    Ok(told.stderr.trim().to_owned())
}
