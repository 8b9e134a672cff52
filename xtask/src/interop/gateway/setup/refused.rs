//! What cannot be set up, or is not wished, changes nothing.

use super::super::super::Scenario;
use super::machine::Machine;
use super::typist::{CTRL_C, CTRL_D, Typist};
use crate::ensure;
use crate::lab::{Lab, Result};
use std::fs;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "setup-refused",
            "bad flags, no tunnel, a broken file: a sentence, exit code 2, and nothing is changed",
            refused,
        ),
        Scenario::new(
            "setup-declined",
            "no, Ctrl-C, the end of input and --dry-run change nothing",
            declined,
        ),
    ]
}

fn refused(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    let cases: [(&[&str], &str); 8] = [
        (&["--lan", "eth9"], "--lan: there is no interface `eth9`"),
        (&["--tunnel", "work"], "--tunnel: there is no tunnel `work`"),
        (&["--devices", "tv"], "--devices: `tv` is no device"),
        (
            &["--direct", "192.168.1.9", "--blocked", "192.168.1.9"],
            "192.168.1.9 cannot be two things at once",
        ),
        (&["--dhcp", "perhaps"], "--dhcp: expected no, or a range"),
        (&["--dhcp", "10.9.9.1-10.9.9.2"], "so nothing was changed"),
        (&["--confirm"], "no setup waits for a confirmation"),
        (&["--take-back"], "there is nothing to take back"),
    ];
    for (flags, words) in cases {
        let mut arguments = vec!["setup"];
        arguments.extend(flags);
        if !flags
            .iter()
            .any(|flag| ["--confirm", "--take-back"].contains(flag))
        {
            arguments.push("--yes");
        }
        machine.expect(&arguments, 2, words)?;
        machine.is_as_before(&format!("after {flags:?}"))?;
    }
    let path = machine.cygnet.config_path();
    let good = fs::read_to_string(&path)?;
    let (daemon, _) = good.split_once("# The way out.").unwrap_or_default();
    for (text, words) in [
        (daemon.to_owned(), "there is no tunnel in"),
        (good.replace("psk = ", "pks = "), "mend it first"),
        (format!("{good}\n[[["), "mend it first"),
        (
            format!("# One line.\npsk = home\n{good}"),
            ".toml:2:7: text must stand between quotation marks",
        ),
    ] {
        fs::write(&path, &text)?;
        machine.expect(&["setup", "--yes"], 2, words)?;
        ensure!(fs::read_to_string(&path)? == text, "the file was changed");
    }
    fs::write(&path, good)?;
    machine.is_as_before("after all of it")?;
    Ok("twelve of them".to_owned())
}

fn declined(lab: &mut Lab) -> Result<String> {
    let machine = Machine::new(lab)?;
    for (answer, what) in [
        ("n\n", "a no"),
        ("\n", "Enter"),
        (CTRL_D, "the end of input"),
    ] {
        let mut typist = Typist::start(&machine, &[])?;
        typist.takes_defaults()?;
        typist.types(answer)?;
        typist.reads("nothing was changed")?;
        let code = typist.ends()?;
        ensure!(code == 2, "after {what} it ended with {code}");
        machine.is_as_before(what)?;
    }
    let mut typist = Typist::start(&machine, &[])?;
    typist.answers("Through which tunnel?", "")?;
    typist.reads("Which interface is the LAN's?")?;
    typist.types(CTRL_C)?;
    let code = typist.ends()?;
    ensure!(code == 130, "after Ctrl-C it ended with {code}");
    machine.is_as_before("Ctrl-C")?;
    let said = machine.gateway(&["setup", "--dry-run", "--tunnel", "home", "--lan", "eth0"])?;
    ensure!(
        said.status.code() == Some(2),
        "questions that nobody answers ended with {:?}",
        said.status.code()
    );
    let flags = [
        "setup",
        "--dry-run",
        "--tunnel",
        "home",
        "--lan",
        "eth0",
        "--devices",
        "all",
        "--direct",
        "none",
        "--blocked",
        "none",
        "--dns",
        "yes",
        "--dhcp",
        "no",
        "--advertise",
        "yes",
    ];
    let said = machine.expect(&flags, 0, "Nothing was changed.")?;
    for part in ["+ [gateway.dns]", "+ [gateway.advertise]"] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    machine.is_as_before("--dry-run")?;
    Ok("as before, six times".to_owned())
}
