//! Processor and kernel: what they have, and what is done without.

use super::path;
use crate::facts::Facts;
use crate::report::Check;

pub(super) fn cpu(facts: &Facts) -> Vec<Check> {
    let name = "cpu";
    let up = path::suites(facts);
    let is_up = |name: &String| up.iter().any(|(up, _)| up == name);
    // A tunnel that is down is judged by what it offers first.
    let others = facts.tunnels.iter().filter(|t| !is_up(&t.name));
    let others = others.map(|t| (t.name.as_str(), t.offers.as_str()));
    let suites: Vec<(&str, &str)> = up.iter().copied().chain(others).collect();
    let told: Vec<String> = suites
        .iter()
        .map(|(of, suite)| format!("{of} {suite}"))
        .collect();
    if facts.machine.aes {
        let used = match told.is_empty() {
            true => String::new(),
            false => format!(": {}", told.join(", ")),
        };
        return vec![Check::good(
            name,
            format!("the processor has instructions for AES{used}"),
        )];
    }
    let slow = |(_, suite): &&(&str, &str)| suite.starts_with("aes");
    let checks: Vec<Check> = suites
        .iter()
        .filter(slow)
        .map(|(of, suite)| {
            Check::wrong(
                name,
                format!("the processor has no instructions for AES, and {suite} is used, which is slow here"),
                "put chacha20poly1305 first in `esp` of the end that calls, and allow it at the other",
            )
            .of(*of)
        })
        .collect();
    match checks.is_empty() {
        false => checks,
        true => vec![Check::good(
            name,
            format!(
                "the processor has no instructions for AES, and does without: {}",
                match told.is_empty() {
                    true => "chacha20poly1305 is offered first".to_owned(),
                    false => told.join(", "),
                }
            ),
        )],
    }
}

pub(super) fn kernel(facts: &Facts) -> Vec<Check> {
    let name = "kernel";
    let machine = &facts.machine;
    let release = &machine.release;
    let mut checks = Vec::new();
    if !machine.tun {
        checks.push(Check::wrong(
            name,
            "there is no /dev/net/tun",
            "`modprobe tun`, or in a container pass --device /dev/net/tun",
        ));
    }
    for (has, what, since) in [
        (
            machine.offloads.segmentation,
            "segmentation (UDP_SEGMENT)",
            "4.18",
        ),
        (machine.offloads.receive, "receive offload (UDP_GRO)", "5.0"),
    ] {
        if !has {
            checks.push(Check::wrong(
                name,
                format!(
                    "Linux {release} has no UDP {what}: datagrams go one by one, which is slower"
                ),
                format!("a kernel from {since} on has it"),
            ));
        }
    }
    if checks.is_empty() {
        checks.push(Check::good(
            name,
            format!("Linux {release} has TUN and the offloads of UDP"),
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect, found};
    use super::*;

    #[test]
    fn aes_without_instructions_for_it_is_slow() {
        expect(
            |f| f.machine.aes = false,
            "Wrong cpu home: the processor has no instructions for AES, and aes256gcm16-esn is used",
            &["chacha20poly1305 first in `esp`"],
        );
        let chacha = |f: &mut Facts| {
            f.machine.aes = false;
            let engine = f.status.as_mut().unwrap().engine.as_mut().unwrap();
            engine.connections[0].ike_sas[0].children[0].suite = "chacha20poly1305".into();
        };
        assert!(found(chacha).is_empty());
        let offered = found(|f| {
            f.machine.aes = false;
            f.status = Err("it does not run".into());
        });
        let told = offered
            .iter()
            .find(|told| told.starts_with("Wrong cpu home"));
        assert!(
            told.unwrap().contains("aes256gcm16 is used"),
            "{offered:#?}"
        );
    }

    #[test]
    fn a_kernel_that_lacks_something() {
        expect(
            |f| f.machine.offloads.segmentation = false,
            "Wrong kernel : Linux 6.1.0-18-amd64 has no UDP segmentation",
            &["from 4.18 on"],
        );
        expect(
            |f| f.machine.offloads.receive = false,
            "Wrong kernel : ",
            &["UDP_GRO", "from 5.0 on"],
        );
        expect(
            |f| f.machine.tun = false,
            "Wrong kernel : ",
            &["`modprobe tun`"],
        );
    }
}
