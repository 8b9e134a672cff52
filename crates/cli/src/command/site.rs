//! `cygnet site`: both ends of a tunnel between two offices.

mod certificates;
mod networks;
mod output;
mod remove;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

use cygnet_crypto::{Random, SystemRandom};
use cygnet_pki::authority::KeyKind;
use cygnet_profile::site::{End, Network, Proof, Site};
use cygnet_profile::write;
use cygnet_server::Address;
use zeroize::Zeroizing;

use super::import::sections::Sections;
use super::import::{check_name, commit, free_folder, lock, now, validate, what_next};
use crate::args::site::{Add, Auth, Callable, Program, Site as Command};
use output::hand_over;

pub(super) fn site(command: &Command) -> ExitCode {
    let done = match command {
        Command::Add(options) => add(options),
        Command::Remove(options) => remove::remove(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => super::refuse(&message.replace('\n', "\ncygnet: ")),
    }
}

fn add(options: &Add) -> Result<(), String> {
    cygnet_daemon::keep_keys_in_memory();
    let name = &options.name;
    check_name(name)?;
    let config = &options.file.config;
    let _lock = lock(config)?;
    let sections = Sections::read(config)?;
    if sections.has_tunnel(name) {
        return Err(format!(
            "there is a tunnel {name} in {} already: give this one another name, or take that one out (`cygnet site remove {name}`)",
            config.display()
        ));
    }
    let (local, remote) = networks::judge(options, &sections)?;
    let here = end(address(options)?, "here", name, local);
    let there = end(called(&options.remote), "there", name, remote);
    let site = Site {
        name: name.clone(),
        proof: proof(options, &here, &there)?,
        here,
        there,
        on_demand: options.on_demand,
        ike: write::Gateway::from(options.program).ike(),
    };
    if site.here.address.is_none() && site.there.address.is_none() {
        return Err("neither office could call the other: one of --remote and --address has to be a name or an address".into());
    }
    let folder = free_folder(config, name);
    let mut section = site.section(&folder);
    section.text = sections.with_own_interface(name, section.text);
    let text = sections.with_site(name, &section.text);
    validate(config, &text, &folder, &section)?;
    let files = write::site_files(&site.mirrored(), options.program.into());
    let files = files.map_err(|error| error.to_string())?;
    let out = options.out.clone();
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{name}-other-end")));
    let handed_over = hand_over(&out, &files)?;
    commit::commit(config, &sections, &text, &folder, &section.files)?;
    handed_over.keep();

    println!(
        "This office: [tunnel.{name}] in {}; {} in {}",
        config.display(),
        match site.proof {
            Proof::PreShared(_) => "the shared secret",
            Proof::Certificates(_) => "its certificate and key",
        },
        config.with_file_name(&folder).display()
    );
    println!("The other office: {}", out.display());
    for step in steps(options.program, &files) {
        println!("  {step}");
    }
    match &site.proof {
        Proof::PreShared(_) => println!(
            "Whoever has these files can pass for either office: hand them over by a safe way (scp), then delete them here."
        ),
        Proof::Certificates(pair) => {
            if files.iter().any(|file| file.path.ends_with(".p12")) {
                println!(
                    "The password of the .p12 file, which stands nowhere else: {}",
                    **pair.p12_password
                );
            }
            println!(
                "Whoever has these files can pass for the other office: hand them over by a safe way (scp), then delete them \
                 here.\nThe certificates are good for {} years; before they end `status` says so, and the tunnel is made anew: \
                 `cygnet site remove`, then `add`.",
                certificates::VALID_YEARS
            );
        }
    }
    if site.here.address.is_some() {
        println!(
            "The other office calls this one: let UDP 500 and 4500 in where a firewall or a router is before it."
        );
    }
    println!("Here, next:");
    what_next(config, false);
    Ok(())
}

fn proof(options: &Add, here: &End, there: &End) -> Result<Proof, String> {
    if options.auth == Auth::Psk {
        return Ok(Proof::PreShared(secret()));
    }
    let Some(now) = now() else {
        return Err(
            "this machine's clock is not set, and certificates are good from a date on: set it first, or leave --auth out"
                .into(),
        );
    };
    let kind = match options.program {
        // Its digital signatures are by RSA.
        Program::Routeros => KeyKind::Rsa3072,
        Program::Cygnet | Program::Swanctl | Program::Libreswan => KeyKind::EcdsaP256,
    };
    let pair = certificates::make(&options.name, here, there, kind, now, &mut SystemRandom)?;
    Ok(Proof::Certificates(pair))
}

/// As text that every program takes as it is.
fn secret() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    SystemRandom.fill(&mut *bytes);
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}

/// One that cannot be called has a name that no other tunnel's end has.
fn end(address: Option<String>, which: &str, name: &str, networks: Vec<Network>) -> End {
    let unnamed = || {
        format!(
            "{}.{which}.cygnet.internal",
            name.to_ascii_lowercase().replace('_', "-")
        )
    };
    End {
        identity: address.clone().unwrap_or_else(unnamed),
        address,
        networks,
    }
}

fn called(end: &Callable) -> Option<String> {
    match end {
        Callable::At(address) => Some(address.to_string()),
        Callable::Not => None,
    }
}

/// By what the other office calls this one.
fn address(options: &Add) -> Result<Option<String>, String> {
    if let Some(given) = &options.address {
        return Ok(called(given));
    }
    let Some(source) = source_towards(&options.remote) else {
        return Err("which address does the other office call? Say it with --address (`any`: it cannot be called)".into());
    };
    let own = Address::Ip(source);
    let remote_is_private = match &options.remote {
        Callable::At(remote) => remote.is_private(),
        Callable::Not => false,
    };
    if own.is_private() && !remote_is_private {
        return Err(format!(
            "{source}, this machine's address, is a private one, which the other office cannot call: say with --address what it \
             calls (a router that forwards UDP 500 and 4500 to this machine), or --address any if only this office calls"
        ));
    }
    Ok(Some(own.to_string()))
}

/// The address that packets to the other office leave with; to the internet, where it cannot be called.
fn source_towards(remote: &Callable) -> Option<IpAddr> {
    let to: SocketAddr = match remote {
        Callable::At(Address::Ip(address)) => (*address, 500).into(),
        Callable::At(Address::Name(name)) => (name.as_str(), 500).to_socket_addrs().ok()?.next()?,
        // Nothing is sent there: it is the one address of the internet that everybody knows how to reach, or not.
        Callable::Not => (Ipv4Addr::new(192, 0, 2, 1), 500).into(),
    };
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Connecting a UDP socket looks the route up, and sends nothing.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What is done with the files at the other office.
fn steps(program: Program, files: &[write::File]) -> Vec<String> {
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let first = names.first().copied().unwrap_or_default();
    let p12 = names.iter().find(|name| name.ends_with(".p12"));
    let map = names.iter().find(|name| name.ends_with(".nft"));
    let map = map.map(|name| {
        format!("{name}: nft -f {name}, and at each start of the machine (it says how)")
    });
    let steps = match program {
        Program::Cygnet => vec![format!(
            "sudo cygnet import {first}    # there; it says how to go on"
        )],
        Program::Swanctl => {
            let folder = |name: &str| match name {
                _ if name.ends_with("-ca.crt") => Some("x509ca"),
                _ if name.ends_with(".crt") => Some("x509"),
                _ if name.ends_with(".key") => Some("private"),
                _ if name.ends_with(".conf") => Some("conf.d"),
                _ => None,
            };
            let files = names.iter().filter_map(|name| {
                let folder = folder(name)?;
                Some(format!("{name}: to /etc/swanctl/{folder}"))
            });
            let last = "then swanctl --load-all".to_owned();
            files.chain([last]).collect()
        }
        Program::Libreswan => match p12 {
            Some(p12) => vec![format!(
                "{first}: to /etc/ipsec.d, then ipsec import {p12}, then ipsec restart"
            )],
            None => vec![format!(
                "{}: to /etc/ipsec.d, then ipsec restart",
                names[..2.min(names.len())].join(", ")
            )],
        },
        Program::Routeros => match p12 {
            Some(p12) => vec![format!(
                "{p12}, {first}: upload both, then /certificate import file-name={p12}, then /import file-name={first}"
            )],
            None => vec![format!(
                "{first}: upload it, then /import file-name={first}"
            )],
        },
    };
    steps.into_iter().chain(map).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_of_256_bits_and_another_each_time() {
        let (one, other) = (secret(), secret());
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(*one, *other);
    }

    #[test]
    fn an_office_that_cannot_be_called_has_a_name_all_the_same() {
        let end = end(None, "there", "Branch_2", Vec::new());
        assert_eq!(end.identity, "branch-2.there.cygnet.internal");
    }
}
