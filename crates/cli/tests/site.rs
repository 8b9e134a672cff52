//! `cygnet site add` as a person runs it, on a machine with a LAN and a public address: a network namespace of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};

/// Whether a namespace can be made; outside CI its lack only skips a test.
#[allow(
    clippy::print_stderr,
    reason = "the person who runs the test has to see this"
)]
fn root() -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        let message = "this test needs root: it makes a network namespace (sudo -E cargo test)";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("skipped: {message}");
    }
    is_root
}

/// Its directory, removed when dropped, and its own address in its LAN; outside it is 203.0.113.5.
struct Machine(PathBuf, &'static str);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WRITTEN: &str = "# mine\n[daemon]\nlog = \"debug\" # loud\n";

impl Machine {
    fn new(name: &str) -> Self {
        Self::with_lan(name, "192.168.1.1/24")
    }

    fn with_lan(name: &str, lan: &'static str) -> Self {
        let name = format!("cygnet-site-{name}-{}", std::process::id());
        let place = Self(std::env::temp_dir().join(name), lan);
        fs::create_dir_all(place.0.join("etc")).expect("a directory");
        fs::write(place.0.join("etc/cygnet.toml"), WRITTEN).expect("written");
        place
    }

    fn run(&self, line: &str) -> Output {
        let script = format!(
            "ip link add lan type veth peer name wan
             ip address add {lan} dev lan; ip address add 203.0.113.5/24 dev wan
             ip link set lo up; ip link set lan up; ip link set wan up; ip route add default via 203.0.113.1
             exec {} {line} --config etc/cygnet.toml",
            env!("CARGO_BIN_EXE_cygnet"),
            lan = self.1
        );
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-ec", &script])
            .current_dir(&self.0);
        command.output().expect("unshare runs")
    }

    /// What is printed; it has to succeed.
    fn done(&self, line: &str) -> String {
        let output = self.run(line);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{line}: {told}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What is complained about; nothing may be changed by it.
    fn refused(&self, line: &str) -> String {
        let before = self.files();
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(self.files(), before, "{line} changed something");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Every file and folder below, with its mode and content.
    fn files(&self) -> BTreeSet<(String, u32, Vec<u8>)> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
                let name = path
                    .strip_prefix(&self.0)
                    .expect("below")
                    .display()
                    .to_string();
                let content = match path.is_dir() {
                    true => Vec::new(),
                    false => fs::read(&path).expect("read"),
                };
                found.insert((name, mode, content));
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }
}

const BRANCH: &str = "--remote 198.51.100.7 --local-net 192.168.1.0/24";

#[test]
fn both_ends_are_made_and_know_the_same_secret() {
    if !root() {
        return;
    }
    let main = Machine::new("both");
    let told = main.done(&format!(
        "site add branch {BRANCH} --remote-net 10.2.0.0/24"
    ));
    assert!(told.contains("sudo cygnet import branch.cygnet"), "{told}");
    let text = main.read("etc/cygnet.toml");
    let section = text
        .strip_prefix(WRITTEN)
        .expect("what was there stays as it was");
    assert_eq!(
        section,
        "\n# [tunnel.branch] was written by `cygnet site add`; `cygnet site remove branch` takes it out, down to the end mark\n\
         [tunnel.branch]\nremote = \"198.51.100.7\"\nremote_identity = \"198.51.100.7\"\nidentity = \"203.0.113.5\"\n\
         psk = \"branch/shared.psk\"\nlocal_networks = [\"192.168.1.0/24\"]\nremote_networks = [\"10.2.0.0/24\"]\n\
         # end of [tunnel.branch]\n"
    );
    let files = main.files();
    for (name, mode) in [
        ("etc/branch", 0o700),
        ("etc/branch/shared.psk", 0o600),
        ("branch-other-end", 0o700),
        ("branch-other-end/branch.cygnet", 0o600),
    ] {
        assert!(
            files.iter().any(|it| it.0 == name && it.1 == mode),
            "{name}"
        );
    }
    let secret = main.read("etc/branch/shared.psk");
    assert_eq!(secret.trim_end().len(), 64);
    assert!(!told.contains(secret.trim_end()), "it is not printed");

    let other = Machine::with_lan("other", "172.30.9.1/24");
    fs::copy(
        main.0.join("branch-other-end/branch.cygnet"),
        other.0.join("branch.cygnet"),
    )
    .expect("copied");
    let output = other.run("import branch.cygnet");
    let told = String::from_utf8_lossy(&output.stdout);
    // Through a tunnel to another office alone a LAN has no internet.
    assert!(
        !told.contains("gateway setup") && told.contains("`sudo cygnet site remove branch"),
        "{told}"
    );
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{warned}");
    // That machine is no office with such a network.
    assert!(
        warned.contains("no interface of this machine is in 10.2.0.0/24"),
        "{warned}"
    );
    let text = other.read("etc/cygnet.toml");
    for line in [
        "remote = \"203.0.113.5\"\n",
        "identity = \"198.51.100.7\"\n",
        "local_networks = [\"10.2.0.0/24\"]\n",
        "remote_networks = [\"192.168.1.0/24\"]\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let hex: String = secret
        .trim_end()
        .bytes()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(other.read("etc/branch/shared.psk"), format!("0x{hex}\n"));
}

#[test]
fn offices_with_the_same_network_are_offered_others_which_do() {
    if !root() {
        return;
    }
    let main = Machine::new("same");
    let add = format!("site add branch {BRANCH} --remote-net 192.168.1.0/24 --for swanctl");
    let told = main.refused(&add);
    let offered = "--local-map 10.201.1.0/24 --remote-map 10.202.1.0/24";
    assert!(told.contains(offered), "{told}");
    let done = main.done(&format!("{add} {offered} --on-demand"));
    assert!(done.contains("branch.nft: nft -f branch.nft"), "{done}");
    let text = main.read("etc/cygnet.toml");
    for line in [
        "local_networks = [\"192.168.1.0/24\"]\nlocal_map = [\"10.201.1.0/24\"]\n",
        "remote_networks = [\"10.202.1.0/24\"]\nstart = \"traffic\"\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let swanctl = main.read("branch-other-end/branch.conf");
    assert!(
        swanctl.contains("local_ts = 10.202.1.0/24\n                remote_ts = 10.201.1.0/24\n"),
        "{swanctl}"
    );
    assert!(swanctl.contains(main.read("etc/branch/shared.psk").trim_end()));

    // A third office, with the same again: what is taken is not offered.
    let third = main.refused("site add third --remote 198.51.100.8 --local-net 192.168.1.0/24 --remote-net 192.168.1.0/24");
    assert!(
        third.contains("--local-map 10.201.1.0/24 --remote-map 10.203.1.0/24"),
        "{third}"
    );
    let claimed = main.refused(&format!(
        "site add third --remote 198.51.100.8 --local-net 192.168.1.0/24 --remote-net 192.168.1.0/24 {offered}"
    ));
    assert!(
        claimed.contains("the tunnel branch leads to 10.202.1.0/24 already"),
        "{claimed}"
    );
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    if !root() {
        return;
    }
    let main = Machine::new("refused");
    main.done(&format!(
        "site add taken {BRANCH} --remote-net 10.9.0.0/24 --for routeros"
    ));
    assert!(
        main.read("etc/cygnet.toml")
            .contains("ike = [\"aes256-sha256-ecp384\"]\n")
    );
    for (line, expected) in [
        (
            format!("taken {BRANCH} --remote-net 10.2.0.0/24"),
            "there is a tunnel taken in etc/cygnet.toml already",
        ),
        (
            "b --remote 198.51.100.7 --local-net 192.168.7.0/24 --remote-net 10.2.0.0/24".into(),
            "no interface of this machine is in 192.168.7.0/24, and no route leads there; it is in 192.168.1.0/24, 203.0.113.0/24",
        ),
        (
            format!("b {BRANCH} --remote-net 10.2.0.1/24"),
            "did you mean 10.2.0.0/24?",
        ),
        (
            format!("b {BRANCH} --remote-net 10.2.0.0"),
            "write 10.2.0.0/24, or 10.2.0.0/32 for one host",
        ),
        (
            format!("b {BRANCH} --remote-net 0.0.0.0/0"),
            "that is everything",
        ),
        (
            format!("b {BRANCH} --remote-net 10.2.0.0/24 --local-map 10.5.0.0/16"),
            "such as `10.5.0.0/24`",
        ),
        (
            "b --remote any --address any --local-net 192.168.1.0/24 --remote-net 10.2.0.0/24"
                .into(),
            "neither office could call the other",
        ),
        (
            format!("b {BRANCH} --remote-net 10.2.0.0/24,10.3.0.0/24 --for libreswan"),
            "negotiates one network of each side at a time",
        ),
        (
            format!("b/c {BRANCH} --remote-net 10.2.0.0/24"),
            "no name for a tunnel",
        ),
        (
            format!("server {BRANCH} --remote-net 10.2.0.0/24"),
            "a tunnel cannot be called `server`",
        ),
        (
            format!("b {BRANCH} --remote-net 10.2.0.0/24 --out etc"),
            "etc is there already",
        ),
        (
            "b --remote 127.0.0.1 --local-net 192.168.1.0/24 --remote-net 10.2.0.0/24".into(),
            "no address that a client could call",
        ),
    ] {
        let told = main.refused(&format!("site add {line}"));
        assert!(told.contains(expected), "{line}: {told}");
    }
}

#[test]
fn what_was_added_is_removed_and_nothing_else() {
    if !root() {
        return;
    }
    let main = Machine::new("remove");
    let before = main.files();
    main.done(&format!(
        "site add branch {BRANCH} --remote-net 10.2.0.0/24 --out handed"
    ));
    let told = main.refused("site remove branch");
    assert!(
        told.contains("without a terminal to ask at, give --yes"),
        "{told}"
    );
    let told = main.refused("site remove other --yes");
    assert!(told.contains("there is no tunnel other"), "{told}");
    let told = main.done("site remove branch --yes");
    assert!(told.contains("sudo cygnet site remove branch"), "{told}");
    fs::remove_dir_all(main.0.join("handed")).expect("handed over");
    assert_eq!(main.files(), before);

    let by_hand =
        format!("{WRITTEN}[tunnel.a]\nremote = \"198.51.100.7\"\npsk = \"a/shared.psk\"\n");
    fs::create_dir(main.0.join("etc/a")).expect("a folder");
    let psk = main.0.join("etc/a/shared.psk");
    fs::write(&psk, "a secret of both ends\n").expect("written");
    fs::set_permissions(&psk, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(main.0.join("etc/cygnet.toml"), &by_hand).expect("written");
    let told = main.refused("site remove a --yes");
    assert!(told.contains("written by hand"), "{told}");
}

#[test]
fn an_end_that_was_imported_is_removed_as_well() {
    if !root() {
        return;
    }
    let main = Machine::new("imported");
    main.done(&format!(
        "site add branch {BRANCH} --remote-net 10.2.0.0/24"
    ));
    let other = Machine::with_lan("imported-there", "10.2.0.1/24");
    let before = other.files();
    let bundle = other.0.join("branch.cygnet");
    fs::copy(main.0.join("branch-other-end/branch.cygnet"), &bundle).expect("copied");
    other.done("import branch.cygnet");
    other.done("site remove branch --yes");
    fs::remove_file(bundle).expect("removed");
    assert_eq!(other.files(), before);
}
