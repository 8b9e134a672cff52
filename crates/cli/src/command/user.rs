//! `cygnet user …`

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use cygnet_pki::csr::PublicKey;
use cygnet_profile::Profile;
use cygnet_server::profile::{Exported, Terms, check_writable};
use cygnet_server::time::{day, validity};
use cygnet_server::user::{Device, PASSWORD, VALIDITY};
use cygnet_server::{Address, Error, Name, NewUser, OnDemand, Renewal, Result, Server, password};
use serde::Serialize;
use zeroize::Zeroizing;

use super::place::{self, Context, check};
use super::read::read;
use super::secret;
use super::server::soon;
use crate::args::user::{
    Add, Demand, Export, List, Network, One, Password, PasswordInput, Remove, Rename, Renew, Show,
    User,
};

/// No signing request is longer.
const REQUEST_MAX: u64 = 64 << 10;

/// The device of a user for whom none is named.
const DEVICE: &str = "device";

pub(super) fn user(what: &User) -> ExitCode {
    let done = match what {
        User::Add(options) => add(options),
        User::List(options) => list(options),
        User::Show(options) => show(options),
        User::Suspend(options) => suspend(options),
        User::Resume(options) => resume(options),
        User::Remove(options) => remove(options),
        User::Renew(options) => renew(options),
        User::Rename(options) => rename(options),
        User::Password(options) => set_password(options),
        User::Export(options) => export(options),
    };
    done.unwrap_or_else(|error| place::failed(&error))
}

fn add(options: &Add) -> Result<ExitCode> {
    let name = &options.name;
    let mut context = Context::new(&options.place)?;
    let nt_hash = new_password(&options.password)?;
    let devices = match options.devices.is_empty() && nt_hash.is_none() {
        true => vec![DEVICE.parse()?],
        false => options.devices.clone(),
    };
    let mut named = devices.iter().enumerate();
    if let Some((_, twice)) = named.find(|(at, name)| devices[..*at].contains(name)) {
        return Err(Error::Refused(format!("{twice} is named twice")));
    }
    if devices.is_empty() && options.valid.is_some() {
        return Err(Error::Refused(
            "--valid is for certificates; a password works until it is removed".into(),
        ));
    }
    let key = signing_request(options.csr.as_deref())?;
    let new = NewUser {
        name,
        devices: &devices,
        key: key.as_ref(),
        nt_hash: nt_hash.as_deref(),
        validity: seconds(options.valid.as_deref())?,
        on_demand: &on_demand(&options.demand)?.unwrap_or_default(),
    };
    let mut server = context.open()?;
    if options.devices.is_empty() && nt_hash.is_none() && server.has_user(name)? {
        return Err(Error::Refused(format!(
            "there is a user {name} already: name further devices with --devices, or give a password with \
             `cygnet user password {name}`"
        )));
    }
    let terms = context.terms()?;
    check_writable(&options.to.to, name)?;
    let is_new = server.add_user(&new, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    // Of a user who was there, only what is new.
    let wanted = |it: &Profile| is_new || devices.iter().any(|device| device.as_str() == it.device);
    let written = write_files(&server, name, None, &terms, wanted, &options.to.to);
    let list = devices
        .iter()
        .map(Name::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match (is_new, list.is_empty()) {
        (true, true) => println!("{name} may log in by name and password."),
        (true, false) => println!("{name} is added, with {list}."),
        (false, _) => println!("{name} has {list} now, too."),
    }
    let code = outcome.told(&context.place.config);
    let written = written.map_err(|error| not_written(error, name))?;
    hand_out(&server, name, &written, &options.to.to);
    Ok(code)
}

fn list(options: &List) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    let users = context.open()?.users()?;
    if options.json {
        println!("{}", json(&users));
        return Ok(ExitCode::SUCCESS);
    }
    if users.is_empty() {
        println!("No users yet: `cygnet user add NAME --devices iphone,laptop`.");
    }
    for user in &users {
        let has: Vec<String> = user
            .devices
            .iter()
            .map(|device| format!("{}{}", device.name, remark(device, context.now())))
            .collect();
        let password = match (user.password, has.is_empty()) {
            (true, true) => "logs in by password",
            (true, false) => "; logs in by password, too",
            (false, _) => "",
        };
        let suspended = if user.suspended.is_some() {
            " (suspended)"
        } else {
            ""
        };
        println!("{}{suspended}: {}{password}", user.name, has.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be said of a device's certificate in a list.
fn remark(device: &Device, now: i64) -> String {
    match device.certificates.last() {
        Some(certificate) => soon(certificate.not_after, now),
        None => " (revoked)".into(),
    }
}

fn show(options: &Show) -> Result<ExitCode> {
    let mut context = Context::new(&options.place)?;
    let user = context.open()?.user(&options.name)?;
    if options.json {
        println!("{}", json(&user));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", user.name);
    if let Some(since) = user.suspended {
        println!(
            "  suspended since {}; `cygnet user resume {}`",
            day(since),
            user.name
        );
    }
    if user.password {
        println!("  logs in by name and password");
    }
    for device in &user.devices {
        let remark = if device.key_made_here {
            ""
        } else {
            ", key made on the device"
        };
        println!("  {}: {}{remark}", device.name, device.identity);
        for certificate in &device.certificates {
            println!(
                "    certificate valid until {}{}, serial {}",
                day(certificate.not_after),
                soon(certificate.not_after, context.now()),
                certificate.serial
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn suspend(options: &One) -> Result<ExitCode> {
    let name = &options.name;
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    server.suspend(name, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    println!("Nothing of {name} is let in until `cygnet user resume {name}`.");
    Ok(outcome.told(&context.place.config))
}

fn resume(options: &One) -> Result<ExitCode> {
    let name = &options.name;
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    server.resume(name, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    println!("{name} is let in again.");
    Ok(outcome.told(&context.place.config))
}

fn remove(options: &Remove) -> Result<ExitCode> {
    let (name, device) = (&options.whose.name, options.whose.device.as_ref());
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    server.remove_user(name, device, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    match device {
        Some(device) => println!("{name}'s {device} is removed and its certificate revoked."),
        None => {
            println!("{name} is removed and every certificate revoked; the name may be used again.")
        }
    }
    Ok(outcome.told(&context.place.config))
}

fn renew(options: &Renew) -> Result<ExitCode> {
    let (name, device) = (&options.whose.name, options.whose.device.as_ref());
    if options.end_old {
        return end_old(options);
    }
    let mut context = Context::new(&options.place)?;
    let key = signing_request(options.csr.as_deref())?;
    let renewal = Renewal {
        key: key.as_ref(),
        validity: seconds(options.valid.as_deref())?,
        revoke_old: options.revoke_old,
    };
    let mut server = context.open()?;
    let terms = context.terms()?;
    check_writable(&options.to.to, name)?;
    server.renew_user(name, device, &renewal, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    let wanted = |it: &Profile| it.device != PASSWORD;
    let written = write_files(&server, name, device, &terms, wanted, &options.to.to);
    println!(
        "{name} has new certificates. {}",
        match options.revoke_old {
            true => "The old ones are revoked.".to_owned(),
            false => format!(
                "The old ones work until their end; to end them now, when the new files are in use: \
                 `cygnet user renew {name}{} --end-old`",
                device.map_or(String::new(), |it| format!(" --device {it}"))
            ),
        }
    );
    let code = outcome.told(&context.place.config);
    let written = written.map_err(|error| not_written(error, name))?;
    hand_out(&server, name, &written, &options.to.to);
    Ok(code)
}

/// Ends what an earlier renewal left to overlap.
fn end_old(options: &Renew) -> Result<ExitCode> {
    let (name, device) = (&options.whose.name, options.whose.device.as_ref());
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    let ended = server.end_old(name, device, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    println!(
        "Of {name}'s {} the newest certificate alone works from now on.",
        ended.join(", ")
    );
    Ok(outcome.told(&context.place.config))
}

fn rename(options: &Rename) -> Result<ExitCode> {
    let (name, new) = (&options.name, &options.new);
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    server.rename_user(name, new, &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    println!("{name} is {new} now. Devices need nothing new.");
    if server.user(new)?.password {
        println!("Whoever logs in by name and password logs in as {new} from now on.");
    }
    Ok(outcome.told(&context.place.config))
}

fn set_password(options: &Password) -> Result<ExitCode> {
    let name = &options.name;
    let mut context = Context::new(&options.place)?;
    let nt_hash = match options.remove {
        true => None,
        false => new_password(&PasswordInput {
            password: options.password_file.is_none(),
            password_file: options.password_file.clone(),
        })?,
    };
    let mut server = context.open()?;
    server.set_password(name, nt_hash.as_deref(), &mut context.with(), &check)?;
    let outcome = context.reload(&mut server);
    match nt_hash {
        Some(_) => println!("{name} logs in by the new password from now on."),
        None => println!("{name} can no longer log in by password."),
    }
    Ok(outcome.told(&context.place.config))
}

fn export(options: &Export) -> Result<ExitCode> {
    let (name, device) = (&options.whose.name, options.whose.device.as_ref());
    let to = &options.to.to;
    let mut context = Context::new(&options.place)?;
    let on_demand = on_demand(&options.demand)?;
    let mut server = context.open()?;
    let terms = context.terms()?;
    check_writable(to, name)?;
    if let Some(on_demand) = &on_demand {
        server.set_on_demand(name, device, on_demand)?;
    }
    let written = write_files(&server, name, device, &terms, |_| true, to);
    let written = match on_demand {
        Some(_) => written.map_err(|error| not_written(error, name))?,
        None => written?,
    };
    hand_out(&server, name, &written, to);
    Ok(ExitCode::SUCCESS)
}

/// Writes the files of those that are wanted.
fn write_files(
    server: &Server,
    name: &Name,
    device: Option<&Name>,
    terms: &Terms,
    wanted: impl Fn(&Profile) -> bool,
    to: &Path,
) -> Result<Vec<Exported>> {
    let mut profiles = server.profiles(name, device, terms)?;
    profiles.retain(wanted);
    server.export(&profiles, to)
}

/// Whoever is let in by now has files coming.
fn not_written(error: Error, name: &Name) -> Error {
    Error::Unfinished(format!(
        "{error}; when that is mended, `cygnet user export {name}` writes the files"
    ))
}

/// Says where the files are and what to do with them.
fn hand_out(server: &Server, name: &Name, exported: &[Exported], to: &Path) {
    println!();
    for device in exported {
        println!("{}", to.join(&device.folder).display());
        if let Some(password) = &device.p12_password {
            println!("  import password: {}", password.as_str());
        }
    }
    println!("README.html in each folder says which file is for which system.");
    let has_key = exported.iter().any(|device| device.p12_password.is_some());
    if has_key {
        println!("Note the import password: devices ask for it, and it is in none of the files.");
    }
    let address = server
        .settings()
        .ok()
        .and_then(|it| it.addresses.first().map(scp_host));
    if let Some(host) = address {
        let folder = to.join(name.as_str());
        println!(
            "To fetch them, on your own computer:\n  scp -r root@{host}:{} .",
            quoted(&std::path::absolute(&folder).unwrap_or(folder))
        );
    }
    if has_key {
        println!(
            "Then bring each folder to its device by a way that others do not read, such as AirDrop, a cable or a USB \
             stick: the key in it opens the VPN. Then delete it here; `cygnet user export {name}` writes it again."
        );
    }
}

/// As scp wants it: an address of IPv6 in brackets.
fn scp_host(address: &Address) -> String {
    match address {
        Address::Ip(IpAddr::V6(address)) => format!("[{address}]"),
        other => other.to_string(),
    }
}

/// As one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn new_password(input: &PasswordInput) -> Result<Option<Zeroizing<[u8; 16]>>> {
    let typed = match (&input.password_file, input.password) {
        (Some(path), _) => secret::of_file(path)?,
        (None, true) => secret::new("password", "--password-file", password::check_password)?,
        (None, false) => return Ok(None),
    };
    secret::judge(
        password::check_password(&typed),
        input.password_file.as_deref(),
    )?;
    Ok(Some(password::hash(&typed)))
}

fn signing_request(path: Option<&Path>) -> Result<Option<PublicKey>> {
    let Some(path) = path else { return Ok(None) };
    let (bytes, _) = read(path, REQUEST_MAX)?;
    Ok(Some(PublicKey::from_request(&bytes, path)?))
}

/// What was typed; `None` for nothing.
fn on_demand(typed: &Demand) -> Result<Option<OnDemand>> {
    let has = |network| typed.on_demand.contains(&network);
    if has(Network::Never) && (typed.on_demand.len() > 1 || !typed.trusted_ssids.is_empty()) {
        return Err(Error::Refused(
            "--on-demand never stands alone: expected it, or wifi and cellular".into(),
        ));
    }
    Ok((!typed.on_demand.is_empty()).then(|| OnDemand {
        cellular: has(Network::Cellular),
        wifi: has(Network::Wifi),
        trusted_ssids: typed.trusted_ssids.clone(),
    }))
}

fn seconds(valid: Option<&str>) -> Result<i64> {
    valid.map_or(Ok(VALIDITY), validity)
}

/// For scripts.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value)
        .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fetches_the_files_is_one_line_for_a_shell() {
        let host = |text: &str| scp_host(&text.parse().expect("an address"));
        assert_eq!(host("vpn.example.org"), "vpn.example.org");
        assert_eq!(host("2001:db8::5"), "[2001:db8::5]");
        assert_eq!(quoted(Path::new("/root/alice")), "/root/alice");
        assert_eq!(quoted(Path::new("/my files/it's")), "'/my files/it'\\''s'");
    }
}
