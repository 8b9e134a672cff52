//! `kill -9` at two hundred random moments: each change happened or did not, and the next command finds all in order.
//! And at some moments of `server init`, which the next one goes on with.

mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use host::{Host, INIT};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rusqlite::types::Value::Integer;
use serde_json::Value;

const KILLS: usize = 200;

/// Device to serial numbers, oldest first.
type Devices = BTreeMap<String, Vec<String>>;
/// What `user list` shows: user to devices.
type Users = BTreeMap<String, Devices>;

#[derive(Debug)]
enum Change {
    Add(String),
    Remove(String),
    RemoveDevice(String, String),
    Renew(String),
}

impl Change {
    fn draw(random: &mut ChaCha8Rng, users: &Users) -> Self {
        let mut below = |end: usize| (random.next_u32() as usize) % end.max(1);
        let name = format!("user{}", below(4));
        let Some(devices) = users.get(&name) else {
            return Self::Add(name);
        };
        let device = devices.keys().nth(below(devices.len())).cloned();
        match (below(4), device) {
            (0 | 1, Some(_)) => Self::Renew(name),
            (2, Some(device)) => Self::RemoveDevice(name, device),
            _ => Self::Remove(name),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Add(name) => format!("user add {name} --devices phone,laptop --to out"),
            Self::Remove(name) => format!("user remove {name}"),
            Self::RemoveDevice(name, device) => format!("user remove {name} --device {device}"),
            Self::Renew(name) => format!("user renew {name} --to out"),
        }
    }

    /// Whether `after` is `before` with this change; what it brought has serial numbers that were never `seen`.
    fn happened(&self, before: &Users, after: &Users, seen: &BTreeSet<String>) -> bool {
        let mut expected = before.clone();
        match self {
            Self::Add(name) => {
                let Some(devices) = after.get(name) else {
                    return false;
                };
                let new = devices.values().flatten();
                let all_new = new.clone().all(|serial| !seen.contains(serial));
                if !all_new || new.count() != 2 || devices.len() != 2 {
                    return false;
                }
                expected.insert(name.clone(), devices.clone());
            }
            Self::Remove(name) => drop(expected.remove(name)),
            Self::RemoveDevice(name, device) => {
                expected.entry(name.clone()).or_default().remove(device);
            }
            Self::Renew(name) => {
                for (device, serials) in expected.entry(name.clone()).or_default() {
                    let new = after
                        .get(name)
                        .and_then(|it| it.get(device))
                        .and_then(|it| it.last());
                    match new {
                        Some(new) if !seen.contains(new) => serials.push(new.clone()),
                        _ => return false,
                    }
                }
            }
        }
        expected == *after
    }
}

fn users(host: &Host) -> Users {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let device = |device: Value| {
        let serials = list(&device["certificates"])
            .iter()
            .map(|it| text(&it["serial"]))
            .collect();
        (text(&device["name"]), serials)
    };
    list(&host.json("user list --json"))
        .into_iter()
        .map(|user| {
            (
                text(&user["name"]),
                list(&user["devices"]).into_iter().map(device).collect(),
            )
        })
        .collect()
}

/// The daemon's files show just these users: whoever is in is listed, whoever was in is revoked.
fn published(host: &Host, users: &Users, seen: &BTreeSet<String>) {
    let valid: BTreeSet<&String> = users
        .values()
        .flat_map(|it| it.values().flatten())
        .collect();
    let devices: Value = serde_json::from_str(&host.text("etc/server/devices.json")).expect("JSON");
    let listed = devices["devices"].as_array().expect("a list");
    assert_eq!(listed.len(), valid.len());
    for device in listed {
        assert!(
            valid.contains(&device["serial"].as_str().expect("text").to_owned()),
            "{device}"
        );
    }
    let crl = host
        .other("openssl crl -in etc/server/ca.crl -noout -text")
        .to_lowercase();
    for serial in seen {
        assert_eq!(
            crl.contains(serial),
            !valid.contains(serial),
            "{serial}\n{crl}"
        );
    }
}

/// Starts a command and kills it as soon as it is `time`, which is told how long it has run; how it ended.
fn kill(host: &Host, line: &str, time: impl Fn(Duration) -> bool) -> ExitStatus {
    let started = Instant::now();
    let mut child = host
        .command(line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cygnet starts");
    while !time(started.elapsed()) && child.try_wait().expect("waited for").is_none() {
        sleep(Duration::from_micros(100));
    }
    let _ = child.kill();
    child.wait().expect("ended")
}

#[test]
fn an_init_that_was_killed_is_gone_on_with() {
    let all = Host::new("kill-init");
    all.cygnet(INIT);
    let files = all.names("").len();
    let mut written = BTreeSet::new();
    for number in 0..30 {
        let host = Host::new(&format!("kill-init-{number}"));
        // By what it has written, not by time: moments fall all over it, however busy the machine is now.
        let most = number % files;
        kill(&host, INIT, |_| host.names("").len() >= most);
        written.insert(host.names("").len());
        host.cygnet(INIT);
        assert!(host.cygnet(INIT).contains("nothing was changed"));
        let (good, told) = host.verify("etc/server/server.crt", "sslserver");
        assert!(good, "{told}");
        assert!(
            host.text("etc/cygnet.toml")
                .contains("identity = \"203.0.113.5\"")
        );
        host.cygnet("user add alice --devices phone");
        assert!(
            host.verify("alice/phone/swanctl/x509/alice.phone.crt", "sslclient")
                .0
        );
    }
    assert!(
        written.len() > 2,
        "the moments were all early or all late: {written:?}"
    );
}

#[test]
fn killed_at_any_moment_a_change_is_made_or_not() {
    let host = Host::new("kill");
    host.cygnet(INIT);
    let mut random = ChaCha8Rng::seed_from_u64(0x6379_676e);
    // How long a command takes here and now, so that moments fall all over it.
    let started = Instant::now();
    host.cygnet("user add user0 --devices phone,laptop --to out");
    let mut longest = started.elapsed();
    let mut before = users(&host);
    let mut seen: BTreeSet<String> = before
        .values()
        .flat_map(|it| it.values().flatten().cloned())
        .collect();
    let (mut killed, mut made, mut undone) = (0, 0, 0);
    while killed < KILLS {
        let change = Change::draw(&mut random, &before);
        let moment = longest.mul_f64(f64::from(random.next_u32()) / f64::from(u32::MAX));
        let status = kill(&host, &change.line(), |elapsed| elapsed >= moment);
        if status.code().is_some() {
            assert!(status.success(), "{change:?}: {status}");
        } else {
            killed += 1;
        }
        let after = users(&host);
        if change.happened(&before, &after, &seen) {
            made += 1;
            longest = longest.mul_f64(0.95);
        } else {
            assert!(
                status.code().is_none(),
                "{change:?} is said to be done, but is not: {before:?} {after:?}"
            );
            assert_eq!(before, after, "{change:?} is half done");
            undone += 1;
            longest = longest.mul_f64(1.03);
        }
        seen.extend(after.values().flat_map(|it| it.values().flatten().cloned()));
        published(&host, &after, &seen);
        before = after;
    }
    assert!(
        made > 40 && undone > 40,
        "the moments were all early or all late: {made} made, {undone} not"
    );

    // And what the state says of itself.
    drop(users(&host));
    let state = rusqlite::Connection::open(host.path("state/server.sqlite")).expect("opens");
    let one = |sql: &str| -> rusqlite::types::Value {
        state.query_row(sql, [], |row| row.get(0)).expect(sql)
    };
    let (yes, none) = (Integer(1), Integer(0));
    assert_eq!(one("PRAGMA integrity_check"), "ok".to_owned().into());
    assert_eq!(one("SELECT count(*) FROM pragma_foreign_key_check"), none);
    // No serial was given twice, none is in a certificate without being noted.
    assert_eq!(
        one(
            "SELECT (SELECT count(*) FROM certificate) + (SELECT count(*) FROM server_certificate) + 1"
        ),
        one("SELECT count(*) FROM serial")
    );
    assert_eq!(
        one("SELECT count(*) = count(DISTINCT serial) FROM certificate"),
        yes
    );
    assert_eq!(one("SELECT generation = published FROM server"), yes);
    let left: Vec<_> = host
        .files("etc")
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|it| it == "new"))
        .collect();
    host.cygnet("user add last --devices phone --to out");
    assert!(left.len() <= 6, "{left:?}");
    assert!(
        host.files("etc")
            .iter()
            .all(|(path, _)| path.extension().is_none_or(|it| it != "new"))
    );
    assert!(
        host.verify("out/last/phone/swanctl/x509/last.phone.crt", "sslclient")
            .0
    );
}
