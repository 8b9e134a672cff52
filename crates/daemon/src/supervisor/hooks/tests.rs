use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::environment::tests::{carried, selector};
use super::*;

/// A directory of its own with a hook in it that writes what it is told to the file `told`, and then does `more`.
struct Place {
    directory: PathBuf,
}

impl Place {
    fn new(name: &str, more: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("cygnet-hook-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let place = Self { directory };
        let told = place.directory.join("told");
        let text = format!(
            "#!/bin/sh\necho \"$PLUTO_VERB $PLUTO_CONNECTION $PLUTO_PEER_CLIENT $*\" >> {}\n{more}\n",
            told.display()
        );
        // Written by another process: what this one has open for writing, if only in a child that another test is
        // about to start, cannot be run.
        std::fs::write(place.directory.join("text"), text).unwrap();
        let copied = std::process::Command::new("cp")
            .args([place.directory.join("text"), place.hook()])
            .status();
        assert!(copied.unwrap().success());
        place.mode("hook", 0o755);
        place.mode("", 0o755);
        place
    }

    fn hook(&self) -> PathBuf {
        self.directory.join("hook")
    }

    fn mode(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.directory.join(name), mode).unwrap();
    }

    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("told")).unwrap_or_default();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    fn config(&self, lines: &str) -> Config {
        let hook = self.hook();
        let text = format!(
            "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\nhook = [\"{}\", \"a b\"]\n{lines}\n",
            hook.display()
        );
        Config::parse("test", &text, &mut |_| Ok(Vec::new())).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Makes all runs that are due, and those that are due then.
fn run_all(hooks: &mut Hooks) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        loop {
            let due = hooks.due();
            if due.is_empty() {
                break;
            }
            for run in due {
                run.make().await;
                hooks.ran(&run.tunnel);
            }
        }
    });
}

#[test]
fn a_hook_is_told_of_up_and_down() {
    let place = Place::new("told", "");
    let config = place.config("");
    check(&config).unwrap();
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    // Nobody knows of these.
    let mut other = carried();
    other.connection = "other".to_owned();
    hooks.note(&config, 2, Some(&other));
    other.connection = "home".to_owned();
    other.children[0].name = "other".to_owned();
    hooks.note(&config, 3, Some(&other));
    run_all(&mut hooks);
    assert_eq!(place.told(), ["up-client home 0.0.0.0/0 a b"]);
    hooks.note(&config, 1, None);
    run_all(&mut hooks);
    assert_eq!(place.told()[1..], ["down-client home 0.0.0.0/0 a b"]);
}

#[test]
fn each_pair_of_selectors_is_told_of_and_no_pair_of_two_families_or_protocols() {
    let place = Place::new("pairs", "");
    let config = place.config("");
    let any = (0, u16::MAX);
    let mut carried = carried();
    carried.children[0].local = vec![
        selector("10.99.0.2", "10.99.0.2", 0, any),
        selector("fd99::2", "fd99::2", 0, any),
        selector("10.99.0.3", "10.99.0.3", 6, any),
    ];
    carried.children[0].remote = vec![
        selector("10.1.0.0", "10.1.0.255", 17, any),
        selector("10.2.0.0", "10.2.0.255", 0, any),
        selector("fd00::", "fd00::ffff", 0, any),
    ];
    let pairs = pairs_of(&config, &carried, (1, 1), 100);
    let told: Vec<String> = pairs
        .iter()
        .map(|(key, _)| format!("{} {}", key.local.first, key.remote.first))
        .collect();
    let expected = [
        "10.99.0.2 10.1.0.0",
        "10.99.0.2 10.2.0.0",
        "fd99::2 fd00::",
        "10.99.0.3 10.2.0.0",
    ];
    assert_eq!(told, expected);
    // New keys: for a while there are two Child SAs of the same.
    carried.children.push(carried.children[0].clone());
    assert_eq!(pairs_of(&config, &carried, (1, 1), 100), pairs);
    assert_eq!(pairs_of(&config, &carried, (1, 1), 3), pairs[..3]);
}

/// Tells all there is to tell, to nobody; what was told, by the peer's port.
fn tell_all(hooks: &mut Hooks) -> Vec<(Verb, String, String)> {
    let mut told = Vec::new();
    loop {
        let due = hooks.due();
        if due.is_empty() {
            return told;
        }
        for run in due {
            let value = |name: &str| {
                let found = run.telling.environment().find(|(known, _)| *known == name);
                found.map(|(_, value)| value).unwrap_or_default()
            };
            told.push((
                run.telling.verb,
                value("PLUTO_PEER_ID"),
                value("PLUTO_PEER_PORT"),
            ));
            hooks.ran(&run.tunnel);
        }
    }
}

fn server() -> Config {
    let text = "[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\nhook = \"/bin/true\"\n";
    Config::parse("test", text, &mut |_| Ok(Vec::new())).unwrap()
}

/// A client of that server.
fn client(name: &str, address: &str) -> Carried {
    let mut client = carried();
    client.connection = SERVER.to_owned();
    client.remote_identity = name.to_owned();
    let any = (0, u16::MAX);
    client.children[0].name = "clients".to_owned();
    client.children[0].local = vec![selector("0.0.0.0", "255.255.255.255", 0, any)];
    client.children[0].remote = vec![selector(address, address, 0, any)];
    client
}

#[test]
fn a_client_that_asks_for_a_thousand_networks_keeps_the_hook_for_none() {
    let place = Place::new("greedy", "");
    let config = server();
    let mut hooks = Hooks::new(&config, &place.directory);
    let mut greedy = client("greedy", "10.99.0.2");
    let ports = || (1..=128).map(|port| (port, port));
    let child = &mut greedy.children[0];
    child.local = ports()
        .map(|ports| selector("10.0.0.0", "10.0.0.255", 17, ports))
        .collect();
    child.remote = ports()
        .map(|ports| selector("10.99.0.2", "10.99.0.2", 17, ports))
        .collect();
    // By as many IKE SAs as one identity may have.
    for ike_sa in 1..=64 {
        for child in &mut greedy.children {
            let first: IpAddr = format!("10.0.{ike_sa}.0").parse().unwrap();
            child.local.iter_mut().for_each(|side| side.first = first);
            child.local.iter_mut().for_each(|side| side.last = first);
        }
        hooks.note(&config, ike_sa, Some(&greedy));
    }
    hooks.note(&config, 100, Some(&client("alice", "10.99.0.3")));
    let told = tell_all(&mut hooks);
    let of = |name: &str| told.iter().filter(|(_, peer, _)| peer == name).count();
    assert_eq!((of("greedy"), of("alice")), (SHARE, 1));
    // One of them alone.
    let mut hooks = Hooks::new(&config, &place.directory);
    tell_all(&mut hooks);
    hooks.note(&config, 1, Some(&greedy));
    assert_eq!(tell_all(&mut hooks).len(), CLIENT_MAX);
}

#[test]
fn a_run_writes_of_itself_alone() {
    let place = Place::new("lines", "");
    let config = server();
    let mut hooks = Hooks::new(&config, &place.directory);
    for ike_sa in 1..=200_u8 {
        let address = format!("10.99.0.{ike_sa}");
        let client = client(&format!("client{ike_sa}"), &address);
        hooks.note(&config, ike_sa.into(), Some(&client));
    }
    assert_eq!(tell_all(&mut hooks).len(), 200);
    let journal = place.directory.join("hooks.jsonl");
    let whole = std::fs::metadata(&journal).unwrap();
    hooks.note(&config, 7, None);
    assert_eq!(tell_all(&mut hooks).len(), 1);
    let added = std::fs::metadata(&journal).unwrap();
    assert_eq!(added.ino(), whole.ino(), "it was written anew");
    assert!(added.len() > whole.len() && added.len() < whole.len() + 100);
    // It stays in bounds however often the same comes and goes.
    for _ in 0..500 {
        hooks.note(&config, 7, Some(&client("client7", "10.99.0.7")));
        hooks.note(&config, 8, None);
        tell_all(&mut hooks);
        hooks.note(&config, 7, None);
        hooks.note(&config, 8, Some(&client("client8", "10.99.0.8")));
        tell_all(&mut hooks);
    }
    let lines = std::fs::read_to_string(&journal).unwrap().lines().count();
    assert!(lines < 1000, "{lines}");
    // Killed in the middle of a line.
    let mut text = std::fs::read(&journal).unwrap();
    text.extend(b"{\"told\":[\"server\",{\"key\"");
    std::fs::write(&journal, text).unwrap();
    let mut hooks = Hooks::new(&config, &place.directory);
    let told = tell_all(&mut hooks);
    assert_eq!(told.len(), 199);
    assert!(told.iter().all(|(verb, ..)| *verb == Verb::Down));
    assert!(!journal.exists());
}

#[test]
fn what_was_told_is_undone_by_the_next_run_of_the_program() {
    let place = Place::new("journal", "");
    let config = place.config("");
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    run_all(&mut hooks);
    // It is killed here.
    let mut hooks = Hooks::new(&config, &place.directory);
    run_all(&mut hooks);
    assert_eq!(place.told()[1..], ["down-client home 0.0.0.0/0 a b"]);
    let mut hooks = Hooks::new(&config, &place.directory);
    run_all(&mut hooks);
    assert_eq!(place.told().len(), 2);
    std::fs::write(place.directory.join("hooks.jsonl"), "nonsense\n").unwrap();
    assert!(Hooks::new(&config, &place.directory).due().is_empty());
}

#[test]
fn a_hook_that_is_no_more_is_told_that_all_is_down() {
    let place = Place::new("gone", "");
    let config = place.config("");
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    run_all(&mut hooks);
    let none = Config::parse("test", "", &mut |_| Ok(Vec::new())).unwrap();
    hooks.configure(&none);
    run_all(&mut hooks);
    assert_eq!(place.told()[1..], ["down-client home 0.0.0.0/0 a b"]);
    assert!(hooks.tunnels.is_empty());
}

#[test]
fn a_hook_that_hangs_is_ended_with_all_it_has_started() {
    let place = Place::new(
        "hangs",
        "trap '' TERM; sleep 600 & echo $! > \"$0.child\"; wait; sleep 600",
    );
    let config = place.config("hook_timeout = \"5s\"");
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    let begun = Instant::now();
    run_all(&mut hooks);
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(place.told().len(), 1);
    let child = std::fs::read_to_string(place.directory.join("hook.child")).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
    // It may still have to be waited for by whoever inherits it.
    let is_alive = || {
        let stat = std::fs::read_to_string(&stat).unwrap_or_default();
        let state = stat.rsplit(") ").next();
        state.is_some_and(|state| state.starts_with(['S', 'R', 'D']))
    };
    while is_alive() {
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "{child} lives on"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_hook_that_leaves_its_group_is_ended_as_well() {
    let leaves =
        "exec perl -e '$SIG{TERM} = \"IGNORE\"; setpgrp(0, getpgrp(getppid())); sleep 600 while 1'";
    let place = Place::new("group", leaves);
    let config = place.config("hook_timeout = \"5s\"");
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    let begun = Instant::now();
    run_all(&mut hooks);
    let took = begun.elapsed();
    // Else it ended by itself.
    assert!(took >= Duration::from_secs(5), "{took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(!hooks.is_running());
}

#[test]
fn who_leaves_a_program_behind_is_not_waited_for() {
    let place = Place::new("leaves", "sleep 120 & echo $! > \"$0.child\"; exit 0");
    let config = place.config("hook_timeout = \"90s\"");
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    let begun = Instant::now();
    run_all(&mut hooks);
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(place.told().len(), 1);
    let child = std::fs::read_to_string(place.directory.join("hook.child")).unwrap();
    let ended = std::process::Command::new("kill")
        .arg(child.trim())
        .status();
    assert!(ended.unwrap().success(), "it lives on");
}

#[test]
fn a_hook_that_fails_or_talks_without_end_harms_nobody() {
    for more in [
        "exit 7",
        "kill -9 $$",
        "head -c 10000000 /dev/zero",
        "yes",
        "exec 1>&- 2>&-; sleep 0.1",
    ] {
        let place = Place::new("fails", more);
        let config = place.config("hook_timeout = \"5s\"");
        let mut hooks = Hooks::new(&config, &place.directory);
        hooks.note(&config, 1, Some(&carried()));
        let begun = Instant::now();
        run_all(&mut hooks);
        assert!(begun.elapsed() < Duration::from_secs(60), "{more}");
        hooks.all_down();
        run_all(&mut hooks);
        assert_eq!(place.told().len(), 2, "{more}");
    }
}

#[test]
fn a_hook_that_others_could_have_written_is_not_run() {
    let place = Place::new("others", "");
    let refused = |config: &Config| check(config).unwrap_err().to_string();
    let config = place.config("");
    check(&config).unwrap();
    place.mode("hook", 0o775);
    let told = refused(&config);
    assert!(
        told.contains("775") && told.contains("chmod go-w"),
        "{told}"
    );
    assert!(told.contains("[tunnel.home]"), "{told}");
    // Nor is it when that comes to pass later.
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    run_all(&mut hooks);
    assert!(place.told().is_empty());
    place.mode("hook", 0o644);
    assert!(refused(&config).contains("chmod 755"));
    place.mode("hook", 0o755);
    place.mode("", 0o777);
    assert!(refused(&config).contains("chmod go-w"));
    place.mode("", 0o700);
    // What a link leads to counts.
    std::fs::rename(place.hook(), place.directory.join("real")).unwrap();
    symlink(place.directory.join("real"), place.hook()).unwrap();
    check(&config).unwrap();
    place.mode("real", 0o757);
    assert!(refused(&config).contains("real"));
    std::fs::remove_file(place.hook()).unwrap();
    assert!(refused(&config).contains("cannot be found"));
    std::fs::create_dir(place.hook()).unwrap();
    assert!(refused(&config).contains("expected a program"));
}

#[test]
fn a_user_that_is_not_there_is_told() {
    let place = Place::new("user", "");
    let told = |user: &str| {
        let config = place.config(&format!("hook_user = \"{user}\""));
        check(&config).map_err(|error| error.to_string())
    };
    assert_eq!(told("nobody"), Ok(()));
    assert_eq!(told("root"), Ok(()));
    assert!(told("no-such-user-here").unwrap_err().contains("useradd"));
}

#[test]
fn a_file_that_the_user_cannot_reach_or_read_is_told_before_it_is_run() {
    let place = Place::new("reach", "");
    let config = place.config("hook_user = \"nobody\"");
    let refused = || check(&config).unwrap_err().to_string();
    check(&config).unwrap();
    place.mode("", 0o700);
    let (told, directory) = (refused(), place.directory.display().to_string());
    assert!(
        told.contains(&format!("may not pass {directory};")) && told.contains("/usr/local/lib"),
        "{told}"
    );
    // Root may.
    check(&place.config("")).unwrap();
    place.mode("", 0o711);
    check(&config).unwrap();
    for mode in [0o700, 0o711, 0o744] {
        place.mode("hook", mode);
        let told = refused();
        assert!(told.contains("may not read and run"), "{mode:o}: {told}");
    }
    place.mode("hook", 0o755);
    check(&config).unwrap();
    // Who runs it is told where the log says that it did not run.
    place.mode("", 0o700);
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    run_all(&mut hooks);
    assert!(place.told().is_empty());
}
