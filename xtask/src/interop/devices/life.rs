//! What becomes of a server and its users: a phone is lost, a month is not paid, the machine moves.

use super::super::Scenario;
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::own_server::{OwnServer, SOON};
use crate::lab::strongswan::StrongSwan;
use crate::lab::world::WEB;
use crate::lab::{Lab, Namespace, Result, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "device-lost",
            "a device is removed while it sends: gone within a second, for good; the user's other device stays",
            lost,
        ),
        Scenario::new(
            "device-suspended",
            "a user is suspended and resumed: out at once, in again with the same files",
            suspended,
        ),
        Scenario::new(
            "device-renewed",
            "certificates of server and device are renewed: who is connected stays so, the old files go on working, and the new ones do",
            renewed,
        ),
        Scenario::new(
            "server-restored",
            "the server is gone; a backup, restored, and its devices connect unchanged",
            restored,
        ),
    ]
}

/// One second for the SA, as the issue of a lost phone allows no more.
const AT_ONCE: Duration = Duration::from_secs(1);

fn join(lab: &Lab, server: &OwnServer, host: &Namespace, device: &str) -> Result<StrongSwan> {
    let folder = server.folder("alice", device).join("swanctl");
    let swan = StrongSwan::start_with_files(lab, host, &folder)?;
    server.online(host)?;
    Ok(swan)
}

/// Runs a command that cuts a device off; gives how long its SA lived on after the command had begun.
fn cut_off(server: &OwnServer, arguments: &[&str], left: usize) -> Result<Duration> {
    let begun = Instant::now();
    server.cygnet(arguments)?;
    wait_for("the IKE SA ends", SOON, || {
        Ok((server.connected()?.len() == left).then_some(()))
    })?;
    let lived = begun.elapsed();
    ensure!(lived < AT_ONCE, "the SA lived on for {lived:?}");
    Ok(lived)
}

fn lost(lab: &mut Lab) -> Result<String> {
    let mut server = OwnServer::set_up(lab)?;
    server.add("alice", "phone,laptop")?;
    let phone = join(lab, &server, &server.world.phone, "phone")?;
    let _laptop = join(lab, &server, &server.world.laptop, "laptop")?;
    let flood = ["ping", "-i", "0.05", WEB];
    let _traffic = server.world.phone.spawn(flood)?;
    let lived = cut_off(
        &server,
        &["user", "remove", "alice", "--device", "phone"],
        1,
    )?;
    // It tries again by itself, and is told nothing but that.
    phone.wait_for_log("AUTHENTICATION_FAILED", SOON)?;
    server.online(&server.world.laptop)?;
    server.cygnet.stop()?;
    let since = server.cygnet.log().len();
    server.cygnet.restart()?;
    server.online(&server.world.laptop)?;
    phone.is_refused("alice-phone", "AUTHENTICATION_FAILED")?;
    // Once, not each time: who is refused calls for days.
    let told = wait_for("the server says why", SOON, || {
        let log = server.cygnet.log();
        let new = log.get(since..).unwrap_or_default();
        Ok(new
            .lines()
            .find(|line| line.contains("was revoked by its issuer"))
            .map(str::to_owned))
    })?;
    // A name can be used again; the lost files stay worthless.
    server.add("alice", "phone")?;
    phone.is_refused("alice-phone", "AUTHENTICATION_FAILED")?;
    let connected = server.connected()?;
    ensure!(connected.len() == 1, "connected are {connected:?}");
    Ok(format!("gone after {lived:?}; {told}"))
}

fn suspended(lab: &mut Lab) -> Result<String> {
    let server = OwnServer::set_up(lab)?;
    server.add("alice", "phone")?;
    let phone = join(lab, &server, &server.world.phone, "phone")?;
    let lived = cut_off(&server, &["user", "suspend", "alice"], 0)?;
    phone.wait_for_log("AUTHENTICATION_FAILED", SOON)?;
    server.cygnet(&["user", "resume", "alice"])?;
    phone
        .initiate("alice-phone")
        .map_err(|failure| server.with_log(failure))?;
    server.online(&server.world.phone)?;
    Ok(format!("out after {lived:?}, in again"))
}

fn renewed(lab: &mut Lab) -> Result<String> {
    let server = OwnServer::set_up(lab)?;
    server.add("alice", "phone,laptop")?;
    let phone = join(lab, &server, &server.world.phone, "phone")?;
    let old = server.folder("alice", "laptop");
    let kept = lab.subdirectory("kept")?;
    crate::lab::Exec::new(["cp", "-r", &old.to_string_lossy(), &kept.to_string_lossy()]).run()?;
    let to = old
        .ancestors()
        .nth(2)
        .unwrap_or(&old)
        .to_string_lossy()
        .into_owned();
    server.cygnet(&["user", "renew", "alice", "--device", "laptop", "--to", &to])?;
    let own = server.cygnet.directory().join("server/server.crt");
    let own_before = fs::read(&own)?;
    let spis = |swan: &StrongSwan| -> Result<Vec<_>> {
        Ok(swan.sas()?.into_iter().map(|sa| sa.spis).collect())
    };
    let up = spis(&phone)?;
    let told = server.cygnet(&["server", "renew"])?;
    ensure!(!told.contains("does not run here"), "{told}");
    ensure!(
        fs::read(&own)? != own_before,
        "the server's certificate is the old one"
    );
    server.online(&server.world.phone)?;
    ensure!(
        up.len() == 1 && spis(&phone)? == up && !phone.log().contains("received DELETE"),
        "who was connected was thrown out"
    );
    drop(phone);
    let read = |folder: &std::path::Path| fs::read(folder.join("swanctl/x509/alice.laptop.crt"));
    ensure!(
        read(&old)? != read(&kept.join("laptop"))?,
        "the certificate is the old one"
    );
    let _new = join(lab, &server, &server.world.laptop, "laptop")?;
    let before =
        StrongSwan::start_with_files(lab, &server.world.phone, &kept.join("laptop/swanctl"))?;
    before.wait_for_log("IKE_SA alice-laptop[1] established", SOON)?;
    server.online(&server.world.phone)?;
    Ok("both certificates are let in".to_owned())
}

fn restored(lab: &mut Lab) -> Result<String> {
    let mut server = OwnServer::set_up(lab)?;
    server.add("alice", "laptop")?;
    let kept = lab.subdirectory("kept")?;
    let (file, phrase) = (kept.join("backup"), kept.join("phrase"));
    fs::write(&phrase, "a passphrase of several words\n")?;
    fs::set_permissions(&phrase, fs::Permissions::from_mode(0o600))?;
    let (file, phrase) = (file.to_string_lossy(), phrase.to_string_lossy());
    server.cygnet(&["server", "backup", &file, "--passphrase-file", &phrase])?;
    // One that runs is a server no more.
    server.cygnet(&["server", "uninstall", "--yes"])?;
    let status = server.cygnet.command(&["status"])?;
    ensure!(!status.contains("listening"), "{status}");
    server.cygnet.stop()?;
    for gone in ["server", "state/server.sqlite"] {
        let path = server.cygnet.directory().join(gone);
        ensure!(!path.exists(), "left behind: {}", path.display());
    }
    // Another machine: nothing of this one carries over but the backup.
    fs::remove_dir_all(server.cygnet.directory())?;
    server.cygnet = Cygnet::prepare(lab, &server.world.server, &Setup::new(""))?;
    server.cygnet(&["server", "restore", &file, "--passphrase-file", &phrase])?;
    server.cygnet.restart()?;
    let _laptop = join(lab, &server, &server.world.laptop, "laptop")?;
    Ok("online with the files of before".to_owned())
}
