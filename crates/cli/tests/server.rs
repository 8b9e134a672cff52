//! `cygnet server` and `cygnet user` as a person types them; what they issue is judged by openssl.

mod host;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use host::{Host, INIT};

#[test]
fn a_server_in_one_command() {
    let host = Host::new("init");
    fs::create_dir(host.path("etc")).expect("made");
    let mine = "# mine\n[daemon]\nlog = \"debug\" # loud\n";
    host.write("etc/cygnet.toml", mine);
    let told = host.cygnet(&format!("{INIT} --address 2001:db8::5 --dns 10.213.7.1"));
    assert!(told.contains("clients call 203.0.113.5"), "{told}");
    assert!(
        told.contains("open UDP 500 and 4500") && told.contains("cygnet user add alice"),
        "{told}"
    );

    let text = host.text("etc/cygnet.toml");
    assert!(text.starts_with(mine), "{text}");
    assert!(
        text.contains("pools = [\"10.213.7.0/24\", \"fd12:3456:789a::/112\"]"),
        "{text}"
    );
    for secret in [
        "etc/server",
        "etc/server/server.key",
        "etc/server/passwords",
        "state",
        "state/server.sqlite",
    ] {
        let mode = fs::metadata(host.path(secret))
            .expect(secret)
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{secret}");
    }
    let (good, told) = host.verify("etc/server/server.crt", "sslserver");
    assert!(good, "{told}");
    let shown = host.other("openssl x509 -in etc/server/server.crt -noout -text");
    assert!(
        shown.contains(
            "IP Address:203.0.113.5, DNS:203.0.113.5, IP Address:2001:DB8:0:0:0:0:0:5, DNS:2001:db8::5"
        ),
        "{shown}"
    );
    // As Windows and Apple's devices look: for a host name, and for one that lasts 825 days at most.
    let names = host.other("openssl x509 -in etc/server/server.crt -noout -checkhost 203.0.113.5");
    assert!(names.contains("does match"), "{names}");
    let dates =
        host.other("openssl x509 -in etc/server/server.crt -noout -dates -dateopt iso_8601");
    assert!(days_between(&dates) <= 825.0, "{dates}");
    assert!(
        shown.contains("Public-Key: (256 bit)") && shown.contains("CN = 203.0.113.5"),
        "{shown}"
    );
    let ca = host.other("openssl x509 -in etc/server/ca.crt -noout -text");
    assert!(ca.contains("CA:TRUE, pathlen:0"), "{ca}");
    assert!(
        ca.contains(
            "TLS Web Server Authentication, TLS Web Client Authentication, ipsec Internet Key Exchange"
        ),
        "{ca}"
    );
    // strongSwan's plugin, too, knows what the authority is limited to.
    let told = host.other("pki --verify --cacert etc/server/ca.crt --in etc/server/server.crt");
    assert!(told.contains("certificate trusted"), "{told}");

    // Once more: nothing changes. With other values: refused, and told what differs.
    let before = [host.files("etc"), host.files("state")];
    let told = host.cygnet(&format!("{INIT} --address 2001:db8::5"));
    assert!(told.contains("nothing was changed"), "{told}");
    let told = host.refused("server init --address 203.0.113.6 --pool 10.213.8.0/24 --key p384");
    for difference in [
        "it has 203.0.113.5, 2001:db8::5",
        "server set-address",
        "10.213.8.0/24",
        "p384",
    ] {
        assert!(told.contains(difference), "{told}");
    }
    assert!(before == [host.files("etc"), host.files("state")]);

    // Its certificate is renewed, its key stays.
    let key = host.text("etc/server/server.key");
    host.cygnet("server renew");
    assert_eq!(host.text("etc/server/server.key"), key);
    assert_ne!(
        host.other("openssl x509 -in etc/server/server.crt -noout -text"),
        shown
    );
    assert!(host.verify("etc/server/server.crt", "sslserver").0);

    // What was published and is lost comes back with any command, as does the section with init.
    fs::remove_file(host.path("etc/server/ca.crl")).expect("removed");
    host.cygnet("user list");
    assert!(host.verify("etc/server/server.crt", "sslserver").0);
    host.write("etc/cygnet.toml", mine);
    let told = host.cygnet("server show");
    assert!(told.contains("has no [server] section"), "{told}");
    host.cygnet(&format!("{INIT} --address 2001:db8::5"));
    assert_eq!(host.text("etc/cygnet.toml"), text);

    host.refused("server uninstall");
    host.cygnet("server uninstall --yes");
    assert_eq!(host.text("etc/cygnet.toml"), mine);
    assert!(!host.path("etc/server").exists() && !host.path("state").exists());
    assert!(
        host.refused("user list")
            .contains("there is no server here")
    );
}

/// From notBefore to notAfter, as openssl shows them in ISO 8601.
fn days_between(dates: &str) -> f64 {
    let seconds = |name: &str| {
        let line = dates.lines().find_map(|line| line.strip_prefix(name));
        let date = line.unwrap_or_else(|| panic!("no {name} in {dates}"));
        let output = std::process::Command::new("date")
            .args(["-u", "-d", date, "+%s"])
            .output()
            .expect("date");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse::<f64>().expect("seconds")
    };
    (seconds("notAfter=") - seconds("notBefore=")) / 86400.0
}

#[test]
fn other_kinds_of_keys() {
    for (kind, shown) in [("p384", "(384 bit)"), ("rsa3072", "(3072 bit)")] {
        let host = Host::new(kind);
        let told = host.cygnet(&format!("{INIT} --key {kind}"));
        assert_eq!(told.contains("Windows will not connect"), kind == "rsa3072");
        host.cygnet("user add alice");
        assert_eq!(
            host.path("alice/device/windows").exists(),
            kind != "rsa3072"
        );
        for (file, purpose) in [
            ("etc/server/server.crt", "sslserver"),
            ("alice/device/swanctl/x509/alice.device.crt", "sslclient"),
        ] {
            assert!(host.verify(file, purpose).0, "{kind} {file}");
            let text = host.other(&format!("openssl x509 -in {file} -noout -text"));
            assert!(text.contains(shown), "{text}");
        }
    }
}

#[test]
fn a_device_is_let_in_and_shut_out_alone() {
    let host = Host::new("users");
    host.cygnet(INIT);
    let id = host.json("server show --json")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let told = host.cygnet("user add alice --devices iphone,laptop");
    let run = format!(
        "`cygnet run --config {}`",
        host.path("etc/cygnet.toml").display()
    );
    assert!(told.contains(&run), "{told}");
    let fetch = format!("scp -r root@203.0.113.5:{} .", host.path("alice").display());
    assert!(
        told.contains(&fetch) && told.contains("Note the import password"),
        "{told}"
    );
    let (phone, laptop) = (
        "alice/iphone/swanctl/x509/alice.iphone.crt",
        "alice/laptop/swanctl/x509/alice.laptop.crt",
    );
    for file in [phone, laptop] {
        let (good, told) = host.verify(file, "sslclient");
        assert!(good, "{told}");
    }
    let shown = host.other(&format!("openssl x509 -in {phone} -noout -text"));
    assert!(
        shown.contains(&format!("email:alice.iphone@{id}.cygnet.internal")),
        "{shown}"
    );
    assert_eq!(
        host.other(&format!("openssl x509 -in {phone} -noout -pubkey")),
        host.other("openssl pkey -in alice/iphone/swanctl/private/alice.iphone.key -pubout")
    );
    let listed = host.json("user list --json");
    assert_eq!(listed[0]["devices"][0]["name"], "iphone");
    let published = || {
        serde_json::from_str::<serde_json::Value>(&host.text("etc/server/devices.json"))
            .expect("JSON")
    };
    let serial = listed[0]["devices"][0]["certificates"][0]["serial"]
        .as_str()
        .expect("hex")
        .to_owned();
    assert_eq!(published()["devices"][0]["serial"], serial.as_str());
    assert!(
        host.other(&format!("openssl x509 -in {phone} -noout -serial"))
            .to_lowercase()
            .contains(&serial)
    );

    // On hold, and back.
    host.cygnet("user suspend alice");
    assert!(
        host.verify(phone, "sslclient")
            .1
            .contains("certificate revoked")
    );
    let crl = host.other("openssl crl -in etc/server/ca.crl -noout -text");
    assert!(crl.contains("Certificate Hold"), "{crl}");
    assert_eq!(published()["devices"].as_array().map(Vec::len), Some(0));
    assert!(
        host.refused("user suspend alice")
            .contains("suspended already")
    );
    host.cygnet("user resume alice");
    assert!(host.verify(phone, "sslclient").0);

    // Renewed: old and new overlap; then the old is shut out.
    fs::copy(host.path(phone), host.path("old.crt")).expect("copied");
    host.cygnet("user renew alice --device iphone --valid 90d");
    assert!(host.verify(phone, "sslclient").0 && host.verify("old.crt", "sslclient").0);
    assert_eq!(published()["devices"].as_array().map(Vec::len), Some(3));
    let told = host.cygnet("user renew alice --device iphone --end-old");
    assert!(told.contains("alice's iphone"), "{told}");
    assert!(host.verify(phone, "sslclient").0 && !host.verify("old.crt", "sslclient").0);
    for line in [
        "user renew alice --end-old",
        "user renew alice --device laptop --end-old",
    ] {
        assert!(host.refused(line).contains("nothing to end"), "{line}");
    }
    // Or at once, with the new one.
    fs::copy(host.path(phone), host.path("old.crt")).expect("copied");
    assert!(
        host.cygnet("user renew alice --device iphone --revoke-old")
            .contains("revoked")
    );
    assert!(host.verify(phone, "sslclient").0 && !host.verify("old.crt", "sslclient").0);

    // The lost phone alone; then a name is used again.
    host.cygnet("user remove alice --device iphone");
    assert!(!host.verify(phone, "sslclient").0 && host.verify(laptop, "sslclient").0);
    host.cygnet("user add alice --devices iphone");
    assert!(host.verify(phone, "sslclient").0);
    assert!(
        host.refused("user add alice")
            .contains("there is a user alice already")
    );
    assert!(
        host.refused("user add alice --devices laptop")
            .contains("has a device laptop already")
    );

    // Another name: nothing changes for devices, and the new alice gets an identity of her own.
    host.cygnet("user rename alice bob");
    assert!(host.verify(laptop, "sslclient").0);
    host.cygnet("user add alice --devices laptop --to new");
    let other = host.json("user show alice --json");
    assert_eq!(
        other["devices"][0]["identity"],
        format!("alice.laptop-2@{id}.cygnet.internal")
    );
    host.cygnet("user remove bob");
    assert!(!host.verify(laptop, "sslclient").0);
    assert!(
        host.verify(
            "new/alice/laptop/swanctl/x509/alice.laptop.crt",
            "sslclient"
        )
        .0
    );
    assert!(
        host.refused("user show bob")
            .contains("there is no user bob")
    );

    // Written again, the same.
    let (before, names) = (host.files("new/alice/laptop/swanctl"), host.names("new"));
    host.cygnet("user export alice --to new");
    assert!(before == host.files("new/alice/laptop/swanctl") && names == host.names("new"));
}

#[test]
fn what_is_refused_after_the_change_is_told_as_such() {
    let host = Host::new("unfinished");
    host.cygnet(INIT);
    // Where others can write no keys go. Of alice's own folder that is seen before anything is changed.
    fs::create_dir_all(host.path("alice/phone")).expect("made");
    let mode = |folder, mode| {
        fs::set_permissions(host.path(folder), fs::Permissions::from_mode(mode)).expect("ours");
    };
    mode("alice", 0o770);
    let told = host.refused("user add alice --devices phone");
    assert!(told.contains("files with keys cannot go into"), "{told}");
    assert!(!host.cygnet("user list").contains("alice"));
    mode("alice", 0o700);
    // Of what is in it when the files are written, and by then alice is let in.
    mode("alice/phone", 0o770);
    for line in [
        "user add alice --devices phone",
        "user renew alice",
        "user export alice --on-demand wifi",
    ] {
        let output = host.command(line).output().expect("cygnet starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line}: {told}");
        assert!(
            told.contains("the change is made, but files with keys cannot go into"),
            "{line}: {told}"
        );
        assert!(
            told.contains("`cygnet user export alice` writes the files"),
            "{line}: {told}"
        );
    }
    assert!(host.cygnet("user list").contains("alice: phone"));
    // Without a change it is a refusal.
    let told = host.refused("user export alice");
    assert!(told.contains("cygnet: files with keys"), "{told}");
    mode("alice/phone", 0o700);
    host.cygnet("user export alice");
    assert!(
        host.text("alice/phone/alice.phone.mobileconfig")
            .contains("OnDemandRules")
    );
}

#[test]
fn apple_s_devices_connect_by_themselves_where_it_is_said() {
    let host = Host::new("on-demand");
    host.cygnet(INIT);
    host.cygnet("user add alice --devices phone --on-demand wifi,cellular --trusted-ssid Home --trusted-ssid Lab");
    let profile = |path: &str| host.text(path);
    let phone = "alice/phone/alice.phone.mobileconfig";
    let text = profile(phone);
    for part in [
        "<key>OnDemandRules</key>",
        "<string>Home</string>",
        "<string>Lab</string>",
    ] {
        assert!(text.contains(part), "{part}");
    }
    // Kept for the next files, whoever asks for them, until it is said otherwise.
    host.cygnet("user renew alice");
    assert!(profile(phone).contains("<string>Home</string>"));
    host.cygnet("user add alice --devices laptop");
    assert!(!profile("alice/laptop/alice.laptop.mobileconfig").contains("OnDemandRules"));
    host.cygnet("user export alice --device phone --on-demand never");
    assert!(!profile(phone).contains("OnDemandRules"));
    // What no profile can carry is refused before it is kept.
    let mut blank = host.command("user export alice --on-demand wifi");
    let blank = blank.args(["--trusted-ssid", " "]);
    let output = blank.output().expect("cygnet starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("not spaces alone"), "{told}");
    host.cygnet("user export alice");
    for (words, told) in [
        ("--on-demand never,wifi", "stands alone"),
        ("--trusted-ssid Home", "--on-demand"),
        ("--device none --on-demand wifi", "no such device"),
    ] {
        let line = format!("user export alice {words}");
        assert!(host.refused(&line).contains(told), "{line}");
    }
}

/// A running cygnet as far as `reload` sees one: by which configuration it runs, and what it answers, once each.
fn daemon(host: &Host, answers: &'static [&'static str]) -> std::thread::JoinHandle<()> {
    daemon_of(host, &host.path("etc/cygnet.toml"), answers)
}

fn daemon_of(
    host: &Host,
    config: &Path,
    answers: &'static [&'static str],
) -> std::thread::JoinHandle<()> {
    use std::io::{Read, Write};
    let path = host.path("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let status = serde_json::json!({
        "version": "0", "config": config, "processes": { "supervisor": 1, "engine": null }, "uptime_s": 1,
        "engine_restarts": 0, "guard": "not-configured", "warnings": [], "engine": null, "leases": [],
    });
    let status = status.to_string();
    let length = status.len();
    let status = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{status}");
    std::thread::spawn(move || {
        for answer in answers {
            // One connection asks whether somebody is there, one by which configuration, and then comes the request.
            loop {
                let (mut stream, _) = listener.accept().expect("asked");
                let mut request = [0; 4096];
                let length = stream.read(&mut request).expect("a request");
                if request.starts_with(b"GET /v1/status ") {
                    stream.write_all(status.as_bytes()).expect("answered");
                } else if length > 0 {
                    assert!(request.starts_with(b"POST /v1/reload "));
                    stream.write_all(answer.as_bytes()).expect("answered");
                    break;
                }
            }
        }
        fs::remove_file(path).expect("there");
    })
}

#[test]
fn what_runs_by_another_configuration_is_not_told() {
    let host = Host::new("elsewhere");
    host.cygnet(INIT);
    host.cygnet("user add alice --devices phone,laptop");
    // Never asked to read anything: that would be taken for the word of the one that is meant.
    let running = daemon_of(&host, Path::new("/etc/cygnet/other.toml"), &["unasked"]);
    host.cygnet("user remove alice --device phone");
    assert!(!running.is_finished(), "the wrong one was told");
    fs::remove_file(host.path("control.sock")).expect("there");
    // Nor counts the change as told: the one that is meant hears of it.
    let meant = daemon(&host, &["HTTP/1.1 204 No Content\r\n\r\n"]);
    host.cygnet("user list");
    meant.join().expect("was told");
}

#[test]
fn what_cannot_be_printed_is_done_all_the_same() {
    const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    let host = Host::new("unprinted");
    host.cygnet(INIT);
    let full = || {
        fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("Linux")
    };
    let gone = || std::io::pipe().expect("a pipe").1;

    // To a full disk: the files are there, and the running daemon was told.
    let mut command = host.command("user add alice --devices phone,laptop");
    let output = command.stdout(full()).output().expect("starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("could be written: No space left"), "{told}");
    assert!(host.path("alice/laptop/README.html").exists());
    let running = daemon(&host, &[DONE, DONE]);
    host.cygnet("user list");
    let mut command = host.command("user remove alice --device phone");
    let output = command.stdout(full()).stderr(full()).output();
    assert_eq!(output.expect("starts").status.code(), Some(1));
    running.join().expect("was told of the phone");

    // Whoever reads stops early: that is no failure.
    let running = daemon(&host, &[DONE]);
    for line in ["user remove alice", "user list", "server show"] {
        let output = host.command(line).stdout(gone()).output().expect("starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), told.as_str()),
            (Some(0), ""),
            "{line}"
        );
    }
    running.join().expect("was told of alice");
}

#[test]
fn what_the_running_daemon_has_not_taken_up_is_told_again() {
    const REFUSED: &str =
        "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 17\r\n\r\n{\"error\": \"busy\"}";
    const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    let host = Host::new("confirmed");
    host.cygnet(INIT);
    host.cygnet("user add alice --devices phone");
    // Started meanwhile: told by whatever comes next. Then it refuses what is done.
    let running = daemon(&host, &[DONE, REFUSED]);
    host.cygnet("user list");
    host.cygnet("user list");
    let output = host.command("user remove alice").output().expect("starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("busy") && told.contains("the next command tries again"),
        "{told}"
    );
    running.join().expect("was asked twice");
    let running = daemon(&host, &[DONE]);
    host.cygnet("user list");
    running.join().expect("was asked once more");
    let output = host.command("user list").output().expect("starts");
    assert!(output.status.success());
}

#[test]
fn who_runs_on_without_a_server_is_named_first() {
    const REFUSED: &str =
        "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 17\r\n\r\n{\"error\": \"gone\"}";
    const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    let host = Host::new("runs-on");
    // Where there is no systemd that is said, and the server is set up all the same.
    if !Path::new("/run/systemd/system").is_dir() {
        let output = host.command(&format!("{INIT} --enable")).output();
        let output = output.expect("starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("there is no systemd here"), "{told}");
    } else {
        host.cygnet(INIT);
    }
    let running = daemon(&host, &[DONE, REFUSED]);
    let output = host.command("server uninstall --yes").output();
    let output = output.expect("starts");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("cygnet still runs here"), "{told}");
    assert!(
        told.contains("gone") && !host.path("state").exists(),
        "{told}"
    );
    running.join().expect("was told twice");
}

#[test]
fn a_key_that_never_leaves_its_device() {
    let host = Host::new("csr");
    host.cygnet(INIT);
    let make = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x";
    host.other(&format!("{make} -keyout own.key -out own.csr"));
    host.cygnet("user add carol --devices box --csr own.csr");
    assert!(
        host.verify("carol/box/swanctl/x509/carol.box.crt", "sslclient")
            .0
    );
    assert!(
        !host
            .path("carol/box/swanctl/private/carol.box.key")
            .exists()
    );
    assert_eq!(
        host.other("openssl x509 -in carol/box/swanctl/x509/carol.box.crt -noout -pubkey"),
        host.other("openssl pkey -in own.key -pubout")
    );
    assert!(
        host.refused("user renew carol")
            .contains("was not made here")
    );
    host.cygnet("user renew carol --device box --csr own.csr");
    assert!(
        host.refused("user add dora --devices a,b --csr own.csr")
            .contains("one device")
    );
    assert!(
        host.refused("user add dora --csr own.key")
            .contains("signing request")
    );
    host.write("long.csr", &"x".repeat(65_537));
    for (file, told) in [
        ("long.csr", "at most 65536 bytes"),
        ("/dev/zero", "regular file"),
    ] {
        assert!(
            host.refused(&format!("user add dora --csr {file}"))
                .contains(told)
        );
    }
}

#[test]
fn passwords_are_published_as_mschapv2_needs_them() {
    let host = Host::new("passwords");
    host.cygnet(INIT);
    host.secret("password", "clientPass\n");
    host.write("open", "clientPass\n");
    host.other("chmod 644 open");
    assert!(
        host.refused("user add dave --password-file open")
            .contains("run `chmod 600")
    );
    host.other("mkfifo -m 600 fifo");
    assert!(
        host.refused("user add dave --password-file fifo")
            .contains("expected a regular file")
    );
    host.cygnet("user add dave --password-file password");
    // The hash of RFC 2759 §9.2.
    assert!(
        host.text("etc/server/passwords")
            .contains("\ndave:44ebba8d5312b8d611474411f56989ae\n")
    );
    assert!(host.path("dave/password").is_dir());
    host.cygnet("user suspend dave");
    assert!(!host.text("etc/server/passwords").contains("dave"));
    host.cygnet("user resume dave");
    host.cygnet("user rename dave eve");
    let told = host.cygnet("user list");
    assert!(told.contains("logs in by password"), "{told}");
    assert!(
        host.text("etc/server/passwords")
            .contains("\neve:44ebba8d5312b8d611474411f56989ae\n")
    );
    host.secret("password", "another one");
    host.cygnet("user password eve --password-file password");
    let text = host.text("etc/server/passwords");
    assert!(
        text.contains("\neve:") && !text.contains("44ebba8d"),
        "{text}"
    );
    host.cygnet("user password eve --remove");
    assert!(!host.text("etc/server/passwords").contains("eve"));
    host.secret("password", "short\n");
    assert!(
        host.refused("user add frank --password-file password")
            .contains("password: the password has 5 characters: expected 8 to 256")
    );
    let told = host.refused("user add frank --password");
    assert!(
        told.contains("ask for the password") && told.contains("--password-file FILE"),
        "{told}"
    );
    assert!(
        host.refused("user show frank")
            .contains("there is no user frank")
    );
}

#[test]
fn another_address_says_who_needs_new_files() {
    let host = Host::new("address");
    host.cygnet(INIT);
    host.cygnet("user add alice --devices phone");
    let told = host.cygnet("server set-address --add --address 198.51.100.7");
    assert!(
        told.contains("All files that were handed out go on working"),
        "{told}"
    );
    let told = host.cygnet("server set-address --address 198.51.100.7");
    assert!(told.contains("alice/phone"), "{told}");
    assert!(
        host.text("etc/cygnet.toml")
            .contains("identity = \"198.51.100.7\"")
    );
    let check = format!("check --config {}", host.path("etc/cygnet.toml").display());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cygnet"))
        .args(check.split(' '))
        .output()
        .expect("cygnet starts");
    assert!(output.status.success(), "{output:?}");
    assert!(
        host.verify("alice/phone/swanctl/x509/alice.phone.crt", "sslclient")
            .0
    );
    host.cygnet("user export alice");
    host.cygnet("user add bob --devices phone");
    let told = host.cygnet("server set-address --address 198.51.100.7 --address 198.51.100.8");
    assert!(
        told.contains("All files that were handed out go on working"),
        "{told}"
    );
    assert!(
        host.cygnet("server set-address --add --address 198.51.100.8")
            .contains("nothing was changed")
    );
}

#[test]
fn a_backup_comes_back_elsewhere_and_age_opens_it() {
    let (here, there) = (Host::new("backup"), Host::new("restore"));
    here.cygnet(INIT);
    here.cygnet("user add alice --devices phone");
    // What a person added to our section comes along.
    let text = here
        .text("etc/cygnet.toml")
        .replace("[server]\n", "[server]\nunique = false # ours\n");
    here.write("etc/cygnet.toml", &text);
    here.secret("passphrase", "correct horse battery\n");
    let file = there.path("backup.age");
    here.cygnet(&format!(
        "server backup {} --passphrase-file passphrase",
        file.display()
    ));
    assert_eq!(
        fs::metadata(&file).expect("there").permissions().mode() & 0o077,
        0
    );

    there.secret("passphrase", "wrong horse battery\n");
    assert!(
        there
            .refused("server restore backup.age --passphrase-file passphrase")
            .contains("passphrase is not the right one")
    );
    assert!(!there.path("state").exists() && !there.path("etc").exists());
    there.secret("passphrase", "correct horse battery\n");
    assert!(
        there
            .refused("server restore passphrase --passphrase-file passphrase")
            .contains("no backup of cygnet")
    );
    there.cygnet("server restore backup.age --passphrase-file passphrase");
    assert_eq!(there.text("etc/cygnet.toml"), text);
    assert_eq!(
        there.json("user list --json"),
        here.json("user list --json")
    );
    assert_eq!(
        there.text("etc/server/server.key"),
        here.text("etc/server/server.key")
    );
    there.other(&format!("cp -r {} .", here.path("alice").display()));
    assert!(
        there
            .verify("alice/phone/swanctl/x509/alice.phone.crt", "sslclient")
            .0
    );
    assert!(
        there
            .refused("server restore backup.age --passphrase-file passphrase")
            .contains("there is a server here already")
    );
    here.refused("server backup x --passphrase-file etc/server/devices.json");
    // Over an earlier backup, and over nothing else.
    here.cygnet("server backup copy.age --passphrase-file passphrase");
    here.cygnet("server backup copy.age --passphrase-file passphrase");
    here.other("mkfifo pipe");
    for other in ["passphrase", "etc", "pipe"] {
        let told = here.refused(&format!(
            "server backup {other} --passphrase-file passphrase"
        ));
        assert!(told.contains("is there, and is no"), "{told}");
    }

    // Without cygnet: age asks at a terminal, which script(1) makes.
    let mut age = std::process::Command::new("script")
        .args([
            "-qec",
            "age --decrypt --output opened.sqlite backup.age",
            "/dev/null",
        ])
        .current_dir(there.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("script and age: `cargo xtask test` installs them");
    std::io::Write::write_all(
        &mut age.stdin.take().expect("piped"),
        b"correct horse battery\n",
    )
    .expect("typed");
    assert!(age.wait().expect("ended").success());
    let opened = rusqlite::Connection::open(there.path("opened.sqlite")).expect("SQLite");
    let user: String = opened
        .query_row("SELECT name FROM user", [], |row| row.get(0))
        .expect("a user");
    assert_eq!(user, "alice");
}
