//! What systemd asks of the program: units it understands, READY, WATCHDOG, STOPPING, and the
//! rights that the unit leaves.

use super::super::Scenario;
use super::super::dhcp;
use super::super::dhcp::client::Client;
use super::home::{Home, QUICK, SOON, gateway_setup, start_prepared, wait_for_state};
use crate::lab::world::GATEWAY;
use crate::lab::{Context, Exec, Failure, Lab, Result, wait_for};
use crate::{ensure, project};
use std::fs;
use std::os::unix::net::UnixDatagram;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "systemd-units",
            "`systemd-analyze verify` has nothing to say about the units",
            units,
        ),
        Scenario::new(
            "systemd-enabled",
            "`systemctl enable` links the guard where it is started before the network, and cygnet behind it",
            enabled,
        ),
        Scenario::new(
            "systemd-notify",
            "READY=1, WATCHDOG=1 and STOPPING=1 arrive on NOTIFY_SOCKET",
            notify,
        ),
        Scenario::new(
            "systemd-capabilities",
            "the unit's capability bounding set suffices for everything: DNS, DHCP and a hook of another user, too",
            capabilities,
        ),
    ]
}

/// A device that asks for a name is answered: there is no resolver behind it, and it says so.
fn answers_for_names(home: &Home) -> Result<()> {
    let at = format!("@{GATEWAY}");
    let mut said = String::new();
    wait_for("a device that asks for a name is answered", SOON, || {
        let dig = ["dig", "+time=2", "+tries=1", &at, "www.test.example"];
        said = home.world.phone.finish(dig)?.stdout;
        Ok(said.contains("status: ").then_some(()))
    })
    .map_err(|failure| failure.while_doing(said))
}

const UNITS: [&str; 2] = ["cygnet.service", "cygnet-guard.service"];

fn unit(name: &str) -> Result<String> {
    let path = project::root().join("packaging/systemd").join(name);
    fs::read_to_string(&path).context(path.display())
}

fn units(lab: &mut Lab) -> Result<String> {
    let directory = lab.subdirectory("units")?;
    let program = project::cygnet();
    let mut paths = Vec::new();
    for name in UNITS {
        let path = directory.join(name);
        // The program need not be installed for this.
        let text = unit(name)?.replace("/usr/local/bin/cygnet", &program.to_string_lossy());
        fs::write(&path, text)?;
        paths.push(path.to_string_lossy().into_owned());
    }
    let argv = ["systemd-analyze", "verify", "--man=no"]
        .map(str::to_owned)
        .into_iter()
        .chain(paths);
    let finished = Exec::new(argv).finish()?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    // It also looks at everything of this machine that the units refer to.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("cygnet"))
        .collect();
    ensure!(
        ours.is_empty() && finished.success(),
        "systemd-analyze ended with {:?}: {said}",
        finished.status
    );
    Ok(format!("{} units", UNITS.len()))
}

/// In a root of its own, as an image is made: nothing of this machine is looked at or changed.
fn enabled(lab: &mut Lab) -> Result<String> {
    let root = lab.subdirectory("root")?;
    let etc = root.join("etc/systemd/system");
    fs::create_dir_all(&etc)?;
    for name in UNITS {
        fs::write(etc.join(name), unit(name)?)?;
    }
    let argv = [
        "systemctl".to_owned(),
        format!("--root={}", root.display()),
        "enable".to_owned(),
    ];
    Exec::new(argv.into_iter().chain(UNITS.map(str::to_owned))).run()?;
    for link in [
        "sysinit.target.wants/cygnet-guard.service",
        "multi-user.target.wants/cygnet.service",
    ] {
        let path = etc.join(link);
        let name = link.split('/').next_back().unwrap_or_default();
        let to = fs::read_link(&path).context(path.display())?;
        ensure!(
            to.file_name().is_some_and(|to| to == name),
            "{link} leads to {}",
            to.display()
        );
    }
    // What is started in sysinit.target is before what brings the network up by this alone.
    for (name, key, wanted) in [
        ("cygnet-guard.service", "Before=", "network-pre.target"),
        ("cygnet-guard.service", "Wants=", "network-pre.target"),
        ("cygnet.service", "After=", "cygnet-guard.service"),
    ] {
        let text = unit(name)?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(key));
        ensure!(
            lines.any(|line| line.split_whitespace().any(|word| word == wanted)),
            "{name} has no {key}{wanted}"
        );
    }
    Ok("guard in sysinit.target before network-pre.target, cygnet behind it".to_owned())
}

fn notify(lab: &mut Lab) -> Result<String> {
    let home = Home::prepare(lab, &gateway_setup(QUICK, ""))?;
    let path = lab.directory().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let mut heard = Vec::new();
    let mut hear = |word: &str| {
        wait_for(&format!("{word} arrives"), SOON, || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
            }
            let found = heard
                .iter()
                .any(|said| said.lines().any(|line| line == word));
            Ok(found.then_some(()))
        })
        .map_err(|failure| Failure::new(format!("{failure}; heard {heard:?}")))
    };
    let command = super::home::behind("exec \"$@\"", &home.gateway)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "30000000");
    let mut process = start_prepared(command, &home.gateway)?;
    hear("READY=1")?;
    hear("WATCHDOG=1")?;
    home.gateway.reload()?;
    let gently = process.stop();
    hear("STOPPING=1")?;
    ensure!(gently, "it did not end by SIGTERM");
    Ok("READY, WATCHDOG and STOPPING".to_owned())
}

/// `setpriv` with the rights that the unit leaves, and no more.
fn capabilities(lab: &mut Lab) -> Result<String> {
    let text = unit("cygnet.service")?;
    let set = text
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .ok_or_else(|| Failure::new("the unit has no CapabilityBoundingSet"))?;
    let kept: Vec<String> = set
        .split_whitespace()
        .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let hook = lab.script("who", "echo \"the hook runs as $(id -un)\"")?;
    let tunnel = format!(
        "{QUICK}hook = \"{}\"\nhook_user = \"nobody\"\n",
        hook.display()
    );
    let gateway = "[gateway.dns]\n[gateway.dhcp]\nrange = \"192.168.1.100-192.168.1.199\"\n";
    let mut home = Home::prepare(lab, &gateway_setup(&tunnel, gateway))?;
    home.gateway.restart()?;
    home.gateway.stop()?;
    let line = format!(
        "exec setpriv --bounding-set=-all,{} --inh-caps=-all -- \"$@\"",
        kept.join(",")
    );
    let command = super::home::behind(&line, &home.gateway);
    let mut process = start_prepared(command, &home.gateway)?;
    wait_for_state(&home.gateway, "home", "up")
        .and_then(|()| home.online(&home.world.laptop))
        .map_err(|failure| failure.while_doing(process.log()))?;
    wait_for("the hook says who it is", SOON, || {
        Ok(process
            .log()
            .contains("the hook runs as nobody")
            .then_some(()))
    })
    .map_err(|failure| failure.while_doing(process.log()))?;
    answers_for_names(&home)?;
    dhcp::wait_for_state(&home.gateway, "serving")?;
    let lease = Client::on(lab, &home.world.phone)?.udhcpc(&[])?;
    dhcp::by_the_box(&lease)?;
    // It has to be able to end and restart an engine of another user.
    home.gateway.kill_engine()?;
    home.online(&home.world.laptop)?;
    let log = process.log();
    ensure!(process.stop(), "it did not end by SIGTERM");
    let complaint = log
        .lines()
        .find(|line| line.contains("not permitted") || line.contains("Permission denied"));
    ensure!(complaint.is_none(), "{}", complaint.unwrap_or_default());
    Ok(format!("{} capabilities", kept.len()))
}
