//! `cygnet import` as a person runs it: on files that openssl made, into a directory of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};

const CONF: &str = "conn algovpn-203.0.113.5
    rekey=no
    keyexchange=ikev2
    ike=aes128gcm16-prfsha512-ecp256!
    right=203.0.113.5
    rightsubnet=0.0.0.0/0
    leftsourceip=%config
    leftcert=alice.crt
    auto=add
";

/// What Algo handed out, and a place for the configuration; removed when dropped.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("cygnet-import-{name}-{}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        fs::create_dir(&place.0).expect("a directory");
        place.shell(
            "key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1; }
             key ca.key; key alice.key
             openssl req -x509 -new -key ca.key -subj /CN=203.0.113.5 -days 99 -out cacert.pem
             openssl req -new -key alice.key -subj /CN=alice -out req
             openssl x509 -req -in req -CA cacert.pem -CAkey ca.key -set_serial 2 -days 99 -out alice.crt
             openssl pkcs12 -export -in alice.crt -inkey alice.key -certfile cacert.pem -out alice.p12 -passout pass:secret
             rm ca.key req",
        );
        place.write("alice.conf", CONF);
        place.write("right", "secret\n");
        place.write("wrong", "guess\n");
        place
    }

    fn shell(&self, line: &str) {
        let mut command = Command::new("sh");
        let output = command.args(["-ec", line]).current_dir(&self.0).output();
        let output = output.expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn mode(&self, name: &str) -> u32 {
        let metadata = fs::metadata(self.0.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        metadata.permissions().mode() & 0o777
    }

    /// What is in a directory, sorted.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(directory));
        let entries = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .map(|it| it.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cygnet"));
        command
            .args(arguments)
            .args(["--config", "etc/cygnet.toml"])
            .current_dir(&self.0);
        command.output().expect("cygnet runs")
    }

    /// Ends with 0; gives what it printed.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends with 2; gives what it complained about.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[test]
fn an_import_ends_in_a_configuration_that_the_daemon_takes() {
    let place = Place::new("good");
    let line = [
        "import",
        "alice.conf",
        "--name",
        "home",
        "--gateway",
        "--lan",
    ];
    let absent = [&line[..], &["no-such0"]].concat();
    let told = place.refused(&absent);
    assert!(
        told.contains("--lan") && told.contains("no-such0"),
        "{told}"
    );
    let line = [&line[..], &["lo"]].concat();
    let dry = place.done(&[&line[..], &["--dry-run"]].concat());
    for part in [
        "[tunnel.home]",
        "[gateway]\ntunnel = \"home\"\nlan = \"lo\"\n",
        "client.key",
    ] {
        assert!(dry.contains(part), "{part} is missing in\n{dry}");
    }
    assert!(place.names("etc").is_empty());
    let told = place.done(&line);
    for part in [
        "CN=alice",
        "alice.conf:2: rekey=no",
        "cygnet run",
        "cygnet status",
        "To take it back: `sudo cygnet gateway off --config etc/cygnet.toml`",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(!told.contains("For a whole LAN"), "{told}");
    assert_eq!(place.names("etc"), ["cygnet.toml", "home"]);
    assert_eq!(
        place.names("etc/home"),
        ["ca.crt", "client.crt", "client.key"]
    );
    assert_eq!(place.mode("etc/home"), 0o700);
    assert_eq!(place.mode("etc/home/client.key"), 0o600);
    let text = place.read("etc/cygnet.toml");
    assert!(
        text.contains("[tunnel.home]") && text.contains("lan = \"lo\""),
        "{text}"
    );
    let checked = place.done(&["check"]);
    assert!(checked.contains("gateway for lo through home"), "{checked}");
}

#[test]
fn what_was_there_stays_and_only_an_import_is_replaced() {
    let place = Place::new("replace");
    fs::create_dir(place.0.join("etc")).expect("made");
    let before = "# mine\n[daemon]\nlog = \"debug\" # as I like it\n";
    place.write("etc/cygnet.toml", before);
    fs::set_permissions(
        place.0.join("etc/cygnet.toml"),
        fs::Permissions::from_mode(0o640),
    )
    .expect("set");
    let dry = place.done(&["import", "alice.conf", "--name", "home", "--dry-run"]);
    assert!(dry.contains("Nothing was written"), "{dry}");
    assert_eq!(place.names("etc"), ["cygnet.toml"]);
    assert_eq!(place.read("etc/cygnet.toml"), before);

    let told = place.done(&["import", "alice.conf", "--name", "home"]);
    for part in [
        "For a whole LAN: `sudo cygnet gateway setup`",
        "To take it back: remove what stands between the two marks of [tunnel.home] in etc/cygnet.toml",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(place.read("etc/cygnet.toml").starts_with(before));
    assert_eq!(place.mode("etc/cygnet.toml"), 0o640);
    let once = place.read("etc/cygnet.toml");
    let told = place.refused(&["import", "alice.conf", "--name", "home"]);
    assert!(told.contains("--replace"), "{told}");
    // One device by two names: the server would end the one for the other.
    let told = place.refused(&["import", "alice.conf", "--name", "again"]);
    assert!(told.contains("`--name home --replace`"), "{told}");
    assert_eq!(place.read("etc/cygnet.toml"), once);

    place.done(&[
        "import",
        "alice.p12",
        "--password-file",
        "right",
        "--name",
        "home",
        "--replace",
    ]);
    let text = place.read("etc/cygnet.toml");
    assert!(
        text.starts_with(before) && !text.contains("prfsha512"),
        "{text}"
    );
    // The keys of before are gone, those of now are in a folder of their own.
    assert_eq!(place.names("etc"), ["cygnet.toml", "home-2"]);
    place.done(&["check"]);
}

#[test]
fn an_import_waits_for_a_command_that_changes_the_server() {
    let place = Place::new("locked");
    for directory in ["etc", "state"] {
        fs::create_dir(place.0.join(directory)).expect("made");
    }
    let state = place.0.join("state");
    let text = format!("[daemon]\nstate_dir = \"{}\"\n", state.display());
    place.write("etc/cygnet.toml", &text);
    let directory = fs::File::open(&state).expect("opened");
    flock(&directory, FlockOperation::LockExclusive).expect("locked");
    let told = place.refused(&["import", "alice.conf", "--name", "home"]);
    assert!(told.contains("another cygnet command"), "{told}");
    assert_eq!(place.read("etc/cygnet.toml"), text);
    drop(directory);
    place.done(&["import", "alice.conf", "--name", "home"]);
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let place = Place::new("fails");
    let told = place.refused(&["import", "alice.p12", "--password-file", "wrong"]);
    assert!(told.contains("alice.p12: the password is wrong"), "{told}");
    let told = place.refused(&["import", "alice.p12"]);
    assert!(
        told.contains("opened by a password, which is needed here")
            && told.contains("cygnet user export NAME")
            && told.contains("--password-file"),
        "{told}"
    );
    assert!(!told.contains("wrong"), "{told}");
    let bytes = fs::read(place.0.join("alice.p12")).expect("there");
    fs::write(
        place.0.join("half.cygnet"),
        &br#"{"cygnet": 1, "name":"#[..],
    )
    .expect("written");
    fs::write(place.0.join("half.p12"), &bytes[..bytes.len() / 2]).expect("written");
    fs::write(
        place.0.join("half.mobileconfig"),
        "<?xml version=\"1.0\"?><plist><dict>",
    )
    .expect("written");
    for half in ["half.cygnet", "half.p12", "half.mobileconfig"] {
        let told = place.refused(&["import", half, "--password-file", "right"]);
        assert!(told.contains("was it copied completely?"), "{told}");
    }
    let told = place.refused(&["import", "alice.conf", "--name", "../up"]);
    assert!(told.contains("is no name"), "{told}");
    let told = place.refused(&["import", "alice.conf", "--name", "server"]);
    assert!(told.contains("cannot be called `server`"), "{told}");
    let told = place.refused(&["import", "absent.conf"]);
    assert!(told.contains("absent.conf"), "{told}");
    assert!(place.names("etc").is_empty());

    // What it would join is not good for another reason, which only the whole shows.
    fs::create_dir(place.0.join("etc")).expect("made");
    let other = "[tunnel.a]\nremote = \"192.0.2.1\"\npsk = \"a.psk\"\nvirtual_address = true\n";
    place.write("etc/cygnet.toml", other);
    let told = place.refused(&["import", "alice.conf", "--name", "home"]);
    assert!(
        told.contains("so nothing was changed") && told.contains("a.psk"),
        "{told}"
    );
    assert_eq!(place.names("etc"), ["cygnet.toml"]);
    assert_eq!(place.read("etc/cygnet.toml"), other);

    place.write(
        "etc/cygnet.toml",
        "[gateway]\ntunnel = \"x\"\nlan = \"eth0\"\n[tunnel.x]\n",
    );
    let told = place.refused(&["import", "alice.conf", "--gateway", "--lan", "lo"]);
    assert!(told.contains("there is a [gateway] already"), "{told}");
    place.write("etc/cygnet.toml", "[tunnel\n");
    let told = place.refused(&["import", "alice.conf"]);
    assert!(told.contains("mend it first"), "{told}");
    assert_eq!(place.names("etc"), ["cygnet.toml"]);
}

#[test]
fn where_there_is_no_gateway_its_setup_is_named() {
    let place = Place::new("no-gateway");
    place.done(&["import", "alice.conf", "--name", "home"]);
    for command in [["gateway", "guide"], ["gateway", "on"]] {
        let told = place.refused(&command);
        assert!(told.contains("`cygnet gateway setup`"), "{told}");
    }
}

#[test]
fn two_tunnels_as_one_device_are_warned_of() {
    let place = Place::new("twice");
    place.done(&["import", "alice.conf", "--name", "home"]);
    assert_eq!(place.run(&["check"]).stderr, b"");
    let text = place.read("etc/cygnet.toml");
    let (_, section) = text.split_once("\n[tunnel.home]\n").expect("imported");
    place.write(
        "etc/cygnet.toml",
        &format!("{text}\n[tunnel.second]\n{section}"),
    );
    let output = place.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.starts_with("cygnet: warning: ") && said.contains("home") && said.contains("second"),
        "{said}"
    );
}
