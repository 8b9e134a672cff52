use std::os::unix::fs::{PermissionsExt, symlink};
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
    let pairs = pairs_of(&config, &carried, (1, 1));
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
    std::fs::write(place.directory.join("hooks.json"), "nonsense").unwrap();
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
    let config = place.config("hook_timeout = \"0.3s\"");
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    let begun = Instant::now();
    run_all(&mut hooks);
    assert!(begun.elapsed() < Duration::from_secs(8));
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
            begun.elapsed() < Duration::from_secs(20),
            "{child} lives on"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_leaves_a_program_behind_is_not_waited_for() {
    let place = Place::new("leaves", "sleep 3 & exit 0");
    let config = place.config("hook_timeout = \"60s\"");
    let mut hooks = Hooks::new(&config, &place.directory);
    hooks.note(&config, 1, Some(&carried()));
    let begun = Instant::now();
    run_all(&mut hooks);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(place.told().len(), 1);
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
        let config = place.config("hook_timeout = \"0.5s\"");
        let mut hooks = Hooks::new(&config, &place.directory);
        hooks.note(&config, 1, Some(&carried()));
        let begun = Instant::now();
        run_all(&mut hooks);
        assert!(begun.elapsed() < Duration::from_secs(8), "{more}");
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
