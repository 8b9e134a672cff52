//! What `cygnet server` and `cygnet user` refuse, and that nothing has changed then.

mod host;

use std::fs;
use std::process::Stdio;

use host::{Host, INIT};
use rustix::fs::{FlockOperation, flock};

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let host = Host::new("nonsense");
    for (line, expected) in [
        (
            "server init --address no-such-host.invalid",
            "does not resolve",
        ),
        (
            "server init --address vpn.example.org/24 --no-resolve-check",
            "neither a host name nor an address",
        ),
        (
            "server init --address 203.0.113.5 --pool 127.0.0.0/24",
            "is not private",
        ),
        (
            "server init --address 203.0.113.5 --pool 10.1.0.0/16,10.1.2.0/24",
            "overlap",
        ),
        (
            "server init --address 203.0.113.5 --pool 10.1.0.0/31",
            "too small",
        ),
        (
            "server init --address 203.0.113.5 --uplink no-such-if0",
            "no-such-if0",
        ),
        (
            "server init --address 203.0.113.5 --address 203.0.113.5",
            "given twice",
        ),
        (
            "server init --address 203.0.113.5 --key dsa",
            "p256, p384 or rsa3072",
        ),
        (
            "server init --address 203.0.113.5 --pool 10.99.0.0",
            "write 10.99.0.0/24",
        ),
        (
            "server init --address 127.0.0.1",
            "no address that a client",
        ),
        (
            "server init --address localhost",
            "no address that a client",
        ),
        ("server init --address fe80::1", "no address that a client"),
        ("user list", "there is no server here"),
        ("server renew", "there is no server here"),
    ] {
        let told = host.refused(line);
        assert!(told.contains(expected), "{line}: {told}");
        assert!(
            host.files("").is_empty() && !host.path("etc").exists(),
            "{line}"
        );
    }
    // A pool this machine reaches already: one of its own addresses' networks.
    let own = host.other("ip -j -4 address");
    let own: serde_json::Value = serde_json::from_str(&own).expect("JSON of ip");
    for address in own
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|link| link["addr_info"].as_array())
        .flatten()
    {
        let local = address["local"].as_str().expect("an address");
        if local
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|it| it.is_private())
        {
            let told = host.refused(&format!(
                "server init --address 203.0.113.5 --pool {local}/32"
            ));
            assert!(told.contains("too small"), "{told}");
            let network = local
                .rsplit_once('.')
                .map(|(net, _)| format!("{net}.0/24"))
                .expect("dots");
            let told = host.refused(&format!(
                "server init --address 203.0.113.5 --pool {network}"
            ));
            assert!(
                told.contains("which this machine reaches already"),
                "{told}"
            );
        }
    }

    // Another's section, and others' files in our places.
    fs::create_dir_all(host.path("etc/server")).expect("made");
    host.write("etc/cygnet.toml", "[server]\npsk = \"x\"\npools = []\n");
    assert!(host.refused(INIT).contains("did not write"));
    host.write("etc/cygnet.toml", "[daemon\n");
    let told = host.refused(INIT);
    let check = format!(
        "`cygnet check --config {}`",
        host.path("etc/cygnet.toml").display()
    );
    assert!(
        told.contains("cannot be read") && told.contains(&check),
        "{told}"
    );
    host.write("etc/cygnet.toml", "[tunnel.a]\nremote = \"b\"\n");
    assert!(host.refused(INIT).contains("stays as it was"));
    assert!(!host.path("state").exists() && host.files("etc/server").is_empty());
    host.write("etc/cygnet.toml", "");
    host.write("etc/server/server.key", "mine");
    assert!(host.refused(INIT).contains("move it away first"));
    assert_eq!(host.text("etc/server/server.key"), "mine");
    fs::remove_file(host.path("etc/server/server.key")).expect("removed");
    fs::create_dir(host.path("state")).expect("made");
    host.write(
        "state/server.sqlite",
        &"no database, but long enough to be looked at ".repeat(50),
    );
    let output = host.command(INIT).output().expect("cygnet starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("this is no database of cygnet"), "{told}");
    fs::remove_file(host.path("state/server.sqlite")).expect("removed");

    host.cygnet(INIT);
    let before = [host.files("etc"), host.files("state")];
    for (line, expected) in [
        ("user add a/b", "is no name"),
        ("user add ..", "is no name"),
        ("user add Alice", "is no name"),
        ("user add alice --devices a,a", "a is named twice"),
        ("user add alice --devices a/b", "is no name"),
        ("user add alice --devices password", "cannot be named"),
        ("user add alice --valid 11y", "from 1d to 10y"),
        ("user add alice --valid soon", "from 1d to 10y"),
        ("user add alice --to /dev/null", "no directory"),
        ("user remove alice", "there is no user alice"),
        ("user renew alice", "there is no user alice"),
        ("user resume alice", "there is no user alice"),
        (
            "user add alice --to /sys/kernel",
            "cannot write to /sys/kernel",
        ),
        // Of what `cygnet run` starts nothing is proposed.
        ("fetch-clr", "unrecognized subcommand"),
    ] {
        let told = host.refused(line);
        assert!(told.contains(expected), "{line}: {told}");
        assert!(!told.contains("fetch-crl"), "{line}: {told}");
    }
    assert!(before == [host.files("etc"), host.files("state")]);
}

#[test]
fn one_command_at_a_time() {
    let host = Host::new("busy");
    host.cygnet(INIT);
    let directory = fs::File::open(host.path("state")).expect("opened");
    flock(&directory, FlockOperation::LockExclusive).expect("locked");
    let output = host
        .command("user add alice")
        .output()
        .expect("cygnet starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("another cygnet command is changing this server"),
        "{told}"
    );
    let waiting = host
        .command("user add alice")
        .stdout(Stdio::null())
        .spawn()
        .expect("cygnet starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(directory);
    assert!(waiting.wait_with_output().expect("ended").status.success());
}

/// On disks of every size up to one that suffices, in a mount namespace of its own.
#[test]
#[expect(clippy::print_stdout, reason = "it says that it was skipped, and why")]
fn a_full_disk_changes_nothing() {
    let host = Host::new("full");
    fs::create_dir(host.path("disk")).expect("made");
    let script = format!(
        r#"set -u
        cygnet() {{ {} "$@" --config disk/etc/cygnet.toml --state-dir disk/state --socket none; }}
        good=0
        for size in $(seq 4 12 220); do
            mount -t tmpfs -o size=${{size}}k tmpfs disk || exit 99
            if cygnet {INIT} >out 2>err; then
                good=$((good+1))
                # Whatever room is left: added as a whole, or not at all.
                if cygnet user add alice --devices a,b,c,d,e,f --to exported >>out 2>err; then
                    cygnet user list | grep -q 'alice: a, b, c, d, e, f' || {{ echo "half added at $size"; exit 1; }}
                    grep -q '"f"' disk/etc/server/devices.json || {{ echo "not published at $size"; exit 1; }}
                else
                    grep -qi 'full\|no space' err || {{ echo "told at $size:"; cat err; exit 1; }}
                    cygnet user list 2>&1 | grep -q alice && {{ echo "half there at $size"; cat err; exit 1; }}
                    cygnet user list 2>&1 | grep -q 'No users yet' || {{ echo "unreadable at $size"; exit 1; }}
                    echo refused-user
                fi
            else
                grep -qi 'full\|no space' err || {{ echo "told at $size:"; cat err; exit 1; }}
                [ -z "$(find disk -type f)" ] || {{ echo "left at $size:"; find disk; exit 1; }}
                echo refused-init
            fi
            umount disk
        done
        [ $good -gt 0 ] || {{ echo "no size sufficed"; cat err; exit 1; }}"#,
        env!("CARGO_BIN_EXE_cygnet")
    );
    host.write("script", &script);
    let (done, told) = host.try_other("unshare --user --map-root-user --mount sh script");
    if !done && (told.contains("unshare failed") || told.contains("permission denied")) {
        assert!(
            std::env::var_os("CI").is_none(),
            "this needs a mount namespace: {told}"
        );
        println!("skipped: no mount namespace here: {told}");
        return;
    }
    assert!(done, "{told}");
    assert!(
        told.contains("refused-init") && told.contains("refused-user"),
        "{told}"
    );
}
