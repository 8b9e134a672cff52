//! Addresses are lent, kept, given back, and remembered.

use super::client::Client;
use super::{
    GATEWAY, Lan, SOON, by_the_box, is_lent, lease_of, serving, setup, status, wait_for_state,
};
use crate::ensure;
use crate::interop::Scenario;
use crate::interop::confined::{expect_unprivileged, process_named};
use crate::lab::cygnet::Cygnet;
use crate::lab::{Failure, Lab, Result, wait_for};
use std::fs;
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "dhcp-dhclient",
            "isc-dhcp-client is lent an address with the box as router and resolver, and the same again",
            dhclient,
        ),
        Scenario::new(
            "dhcp-udhcpc",
            "busybox's udhcpc likewise; what it releases is free; an address that it asks for it gets",
            udhcpc,
        ),
        Scenario::new("dhcp-networkd", "systemd-networkd likewise", networkd),
        Scenario::new(
            "dhcp-reservation",
            "a device with a reservation gets its address, and nobody else does",
            reservation,
        ),
        Scenario::new(
            "dhcp-restart",
            "after an ordinary end, and after SIGKILL, leases are as before: nobody is lent what another has",
            restart,
        ),
        Scenario::new(
            "dhcp-file-damaged",
            "a file of leases that is cut off, endless, a link or no file at all is told and counts for nothing",
            damaged,
        ),
        Scenario::new(
            "dhcp-process-killed",
            "the process that lends is killed: it is started again with all leases",
            process_killed,
        ),
        Scenario::new(
            "dhcp-flood",
            "nonsense, and strangers that take every address that is free: devices keep what they have, and nothing ends",
            flood,
        ),
        Scenario::new(
            "dhcp-mistakes",
            "`cygnet check` names the line of a range that does not fit; `gateway guide` shows the LAN's addresses",
            mistakes,
        ),
    ]
}

fn dhclient(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let cygnet = serving(lab, &lan, "")?;
    let (laptop, phone) = (Client::on(lab, &lan.laptop)?, Client::on(lab, &lan.phone)?);
    let (first, lease) = laptop.dhclient("send host-name \"laptop\";\n")?;
    by_the_box(&lease)?;
    let (_second, other) = phone.dhclient("")?;
    by_the_box(&other)?;
    ensure!(
        other.address != lease.address,
        "both have {}",
        lease.address
    );
    is_lent(&cygnet, &lan.laptop, &lease.address)?;
    is_lent(&cygnet, &lan.phone, &other.address)?;
    let listed = cygnet.command(&["dhcp", "leases"])?;
    ensure!(
        listed
            .lines()
            .any(|line| line.contains(&lease.address) && line.contains("laptop")),
        "{listed}"
    );
    // As after a reboot, with what it remembers and without.
    drop(first);
    let (again, remembered) = laptop.dhclient("")?;
    drop(again);
    laptop.forget();
    let (_again, anew) = laptop.dhclient("")?;
    ensure!(
        remembered.address == lease.address && anew.address == lease.address,
        "{lease:?}, then {remembered:?} and {anew:?}"
    );
    // They can talk to the box, and to each other.
    for to in [GATEWAY, &other.address] {
        lan.laptop.exec(["ping", "-c", "1", "-W", "2", to])?;
    }
    Ok(format!("{} and {}", lease.address, other.address))
}

fn udhcpc(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let cygnet = serving(lab, &lan, "dns = [\"9.9.9.9\"]")?;
    let laptop = Client::on(lab, &lan.laptop)?;
    let lease = laptop.udhcpc(&[])?;
    ensure!(
        lease.router == GATEWAY && lease.dns == "9.9.9.9",
        "{lease:?}"
    );
    is_lent(&cygnet, &lan.laptop, &lease.address)?;
    // Nobody had it: what another device had is not lent while there are others.
    let free = ["192.168.1.177", "192.168.1.178"]
        .into_iter()
        .find(|free| *free != lease.address)
        .unwrap_or_default();
    let wished = laptop.udhcpc_and_release(&["-r", free])?;
    ensure!(
        wished.address == lease.address,
        "it had {lease:?}, then {wished:?}"
    );
    wait_for("the address is free", SOON, || {
        Ok(lease_of(&cygnet, &lan.laptop)?.is_none().then_some(()))
    })?;
    let phone = Client::on(lab, &lan.phone)?;
    let phones = phone.udhcpc(&["-r", free])?;
    ensure!(phones.address == free, "{phones:?}");
    Ok(format!("{}, {}", lease.address, phones.address))
}

fn networkd(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let cygnet = serving(lab, &lan, "")?;
    let laptop = Client::on(lab, &lan.laptop)?;
    let (_networkd, lease) = laptop.networkd()?;
    by_the_box(&lease)?;
    is_lent(&cygnet, &lan.laptop, &lease.address)?;
    lan.laptop.exec(["ping", "-c", "1", "-W", "2", GATEWAY])?;
    Ok(lease.address)
}

fn reservation(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let laptops = lan.laptop.mac()?;
    let line = format!("reservations = {{ \"{laptops}\" = \"192.168.1.10\" }}");
    let cygnet = serving(lab, &lan, &line)?;
    let (laptop, phone) = (Client::on(lab, &lan.laptop)?, Client::on(lab, &lan.phone)?);
    let other = phone.udhcpc(&["-r", "192.168.1.10"])?;
    by_the_box(&other)?;
    let lease = laptop.udhcpc(&["-r", "192.168.1.150"])?;
    ensure!(lease.address == "192.168.1.10", "{lease:?}");
    is_lent(&cygnet, &lan.laptop, "192.168.1.10")?;
    let dhcp = status(&cygnet)?;
    let reserved = dhcp["leases"].as_array().into_iter().flatten();
    let reserved = reserved.filter(|lease| lease["reserved"] == true).count();
    ensure!(reserved == 1, "{dhcp}");
    Ok(lease.address)
}

/// Both have addresses that they asked for, so that nothing but memory tells whose they are.
fn both_lent(lab: &Lab, lan: &Lan, cygnet: &Cygnet) -> Result<(Client, Client)> {
    let (laptop, phone) = (Client::on(lab, &lan.laptop)?, Client::on(lab, &lan.phone)?);
    for (client, host, address) in [
        (&laptop, &lan.laptop, "192.168.1.150"),
        (&phone, &lan.phone, "192.168.1.151"),
    ] {
        let lease = client.udhcpc(&["-r", address])?;
        ensure!(lease.address == address, "{lease:?}");
        is_lent(cygnet, host, address)?;
    }
    Ok((laptop, phone))
}

fn still_theirs(lan: &Lan, cygnet: &Cygnet, laptop: &Client, phone: &Client) -> Result<()> {
    is_lent(cygnet, &lan.laptop, "192.168.1.150")?;
    is_lent(cygnet, &lan.phone, "192.168.1.151")?;
    // Each asks for the other's.
    let lease = laptop.udhcpc(&["-r", "192.168.1.151"])?;
    ensure!(lease.address == "192.168.1.150", "{lease:?}");
    let lease = phone.udhcpc(&["-r", "192.168.1.150"])?;
    ensure!(lease.address == "192.168.1.151", "{lease:?}");
    Ok(())
}

fn restart(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let mut cygnet = serving(lab, &lan, "")?;
    let file = cygnet.directory().join("state/dhcp-leases.json");
    let written = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut both = ["192.168.1.150", "192.168.1.151"].iter();
        both.all(|address| text.contains(address))
    };
    // An ordinary end, right after they were lent.
    let (laptop, phone) = (Client::on(lab, &lan.laptop)?, Client::on(lab, &lan.phone)?);
    laptop.udhcpc(&["-r", "192.168.1.150"])?;
    phone.udhcpc(&["-r", "192.168.1.151"])?;
    cygnet.stop()?;
    ensure!(
        written(),
        "{}",
        fs::read_to_string(&file).unwrap_or_default()
    );
    cygnet.restart()?;
    wait_for_state(&cygnet, "serving")?;
    fs::remove_file(&file)?;
    still_theirs(&lan, &cygnet, &laptop, &phone)?;
    // A crash: what is lent is written now and then.
    wait_for("the leases are written", Duration::from_secs(30), || {
        Ok(written().then_some(()))
    })?;
    cygnet.kill_supervisor()?;
    cygnet.restart()?;
    wait_for_state(&cygnet, "serving")?;
    still_theirs(&lan, &cygnet, &laptop, &phone)?;
    Ok("both have what they had".to_owned())
}

fn damaged(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let mut cygnet = serving(lab, &lan, "")?;
    let (laptop, _) = both_lent(lab, &lan, &cygnet)?;
    let file = cygnet.directory().join("state/dhcp-leases.json");
    let told = |cygnet: &Cygnet| -> Vec<String> {
        let log = cygnet.log();
        let lines = log.lines().filter(|l| l.contains("dhcp-leases.json: "));
        lines.map(str::to_owned).collect()
    };
    let not_ours = "somebody else may have written it";
    for (damage, why) in [
        (
            "printf '{\"version\":1,\"date\":null,\"leases\":[{\"address\":' > \"$1\"",
            "holds no leases",
        ),
        ("head -c 20000000 /dev/zero > \"$1\"", "20000000 octets"),
        ("rm \"$1\"; ln -s /etc/shadow \"$1\"", not_ours),
        ("rm \"$1\"; mkfifo \"$1\"", not_ours),
    ] {
        cygnet.stop()?;
        let before = told(&cygnet).len();
        let path = file.to_string_lossy();
        lan.gateway.exec(["sh", "-ec", damage, "sh", &*path])?;
        cygnet.restart()?;
        wait_for_state(&cygnet, "serving")?;
        let lines = told(&cygnet);
        let line = lines.get(before).map_or("", String::as_str);
        ensure!(
            lines.len() == before + 1 && line.contains(why),
            "{damage}: {lines:?}"
        );
        // Forgotten, but a device that says what it has keeps it.
        let lease = laptop.udhcpc(&["-r", "192.168.1.150"])?;
        ensure!(lease.address == "192.168.1.150", "{lease:?}");
        is_lent(&cygnet, &lan.laptop, "192.168.1.150")?;
    }
    Ok("each is told, and addresses are lent".to_owned())
}

/// The process that lends.
fn helper(lan: &Lan) -> Result<u32> {
    let found = process_named(&lan.gateway, "serve-dhcp")?;
    found.ok_or_else(|| Failure::new("no process lends addresses"))
}

fn process_killed(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let cygnet = serving(lab, &lan, "")?;
    let (laptop, phone) = both_lent(lab, &lan, &cygnet)?;
    let first = helper(&lan)?;
    expect_unprivileged(first)?;
    lan.gateway.exec(["kill", "-KILL", &first.to_string()])?;
    wait_for("it is started again", SOON, || {
        Ok(helper(&lan).ok().filter(|pid| *pid != first))
    })?;
    wait_for_state(&cygnet, "serving")?;
    still_theirs(&lan, &cygnet, &laptop, &phone)?;
    Ok("started again".to_owned())
}

/// Datagrams to the box: nonsense as fast as it goes, then DISCOVERs and REQUESTs with 600 hardware addresses, no
/// faster than they are read.
const FLOOD: &str = r#"
import random, socket, time
random.seed(1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
to = ("192.168.1.2", 67)
for n in range(3000):
    s.sendto(random.randbytes(random.randrange(0, 600)), to)
time.sleep(1)
for n in range(600):
    time.sleep(0.006)
    mac = bytes([2, 9, 9, 9, n >> 8, n & 255])
    head = bytes([1, 1, 6, 0]) + n.to_bytes(4, "big") + bytes([0, 0, 0x80, 0]) + bytes(16)
    head += mac + bytes(10 + 192) + bytes([99, 130, 83, 99])
    for kind in (1, 3):
        wish = bytes([50, 4, 192, 168, 1, 100 + n % 100])
        s.sendto(head + bytes([53, 1, kind]) + wish + random.randbytes(8) + bytes([255]), to)
        s.sendto(head + bytes([53, 1, kind]) + wish + bytes([255]), to)
"#;

fn flood(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let cygnet = serving(lab, &lan, "")?;
    let (laptop, phone) = both_lent(lab, &lan, &cygnet)?;
    let first = helper(&lan)?;
    lan.router.exec(["python3", "-c", FLOOD])?;
    still_theirs(&lan, &cygnet, &laptop, &phone)?;
    ensure!(helper(&lan)? == first, "the process that lends ended");
    let dhcp = status(&cygnet)?;
    let lent = dhcp["leases"].as_array().map_or(0, Vec::len);
    ensure!((50..=100).contains(&lent), "{lent} are lent");
    cygnet.wait_for_warning("a device found no address", SOON)?;
    Ok(format!("{lent} of 100 are lent"))
}

fn mistakes(lab: &mut Lab) -> Result<String> {
    let lan = Lan::build(lab)?;
    let cygnet = Cygnet::prepare(lab, &lan.gateway, &setup(""))?;
    let good = cygnet.configured(&["check"])?;
    ensure!(good.success(), "{}", good.stderr);
    let guide = cygnet.configured(&["gateway", "guide"])?;
    for part in [
        "gateway      192.168.1.2",
        "the router (192.168.1.1)",
        "192.168.1.100-192.168.1.199",
    ] {
        ensure!(
            guide.stdout.contains(part),
            "{part}: {}{}",
            guide.stdout,
            guide.stderr
        );
    }
    let mut said = Vec::new();
    for (range, expected) in [
        ("192.168.1.2-192.168.1.9", "this machine's own"),
        (
            "192.168.2.5-192.168.2.9",
            "outside of eth0's network 192.168.1.0/24",
        ),
        ("192.168.1.250-192.168.1.255", "192.168.1.255"),
    ] {
        let mut wrong = setup("");
        wrong.config = wrong.config.replace("192.168.1.100-192.168.1.199", range);
        cygnet.write(&wrong)?;
        let checked = cygnet.configured(&["check"])?;
        let told = format!("{}{}", checked.stdout, checked.stderr);
        let line = fs::read_to_string(cygnet.config_path())?;
        let line = line
            .lines()
            .position(|line| line.starts_with("range"))
            .unwrap_or_default()
            + 1;
        ensure!(
            !checked.success() && told.contains(expected) && told.contains(&format!(":{line}:")),
            "{range}: {told}"
        );
        said.push(told);
    }
    Ok(format!("{} mistakes", said.len()))
}
