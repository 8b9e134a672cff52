//! `cygnet user …`

use std::path::Path;
use std::process::ExitCode;

use cygnet_pki::csr::PublicKey;
use cygnet_profile::Profile;
use cygnet_server::profile::{Terms, check_writable};
use cygnet_server::time::{day, validity};
use cygnet_server::user::{Device, PASSWORD, VALIDITY};
use cygnet_server::{Error, Name, NewUser, OnDemand, Renewal, Result, Server, password};
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
    check_writable(&options.to.to)?;
    let is_new = server.add_user(&new, &mut context.with(), &check)?;
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
    let code = context.reload(&mut server).told();
    // Of a user who was there, only what is new.
    let wanted = |it: &Profile| is_new || devices.iter().any(|device| device.as_str() == it.device);
    hand_out(&server, name, None, &terms, wanted, &options.to.to).map_err(Error::after_change)?;
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
        let mut has: Vec<String> = user
            .devices
            .iter()
            .map(|device| format!("{}{}", device.name, remark(device, context.now())))
            .collect();
        has.extend(user.password.then(|| PASSWORD.to_owned()));
        let suspended = if user.suspended.is_some() {
            " (suspended)"
        } else {
            ""
        };
        println!("{}{suspended}: {}", user.name, has.join(", "));
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
    println!("Nothing of {name} is let in until `cygnet user resume {name}`.");
    Ok(context.reload(&mut server).told())
}

fn resume(options: &One) -> Result<ExitCode> {
    let name = &options.name;
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    server.resume(name, &mut context.with(), &check)?;
    println!("{name} is let in again.");
    Ok(context.reload(&mut server).told())
}

fn remove(options: &Remove) -> Result<ExitCode> {
    let (name, device) = (&options.whose.name, options.whose.device.as_ref());
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    server.remove_user(name, device, &mut context.with(), &check)?;
    match device {
        Some(device) => println!("{name}'s {device} is removed and its certificate revoked."),
        None => {
            println!("{name} is removed and every certificate revoked; the name may be used again.")
        }
    }
    Ok(context.reload(&mut server).told())
}

fn renew(options: &Renew) -> Result<ExitCode> {
    let (name, device) = (&options.whose.name, options.whose.device.as_ref());
    let mut context = Context::new(&options.place)?;
    let key = signing_request(options.csr.as_deref())?;
    let renewal = Renewal {
        key: key.as_ref(),
        validity: seconds(options.valid.as_deref())?,
        revoke_old: options.revoke_old,
    };
    let mut server = context.open()?;
    let terms = context.terms()?;
    check_writable(&options.to.to)?;
    server.renew_user(name, device, &renewal, &mut context.with(), &check)?;
    println!(
        "{name} has new certificates. {}",
        match options.revoke_old {
            true => "The old ones are revoked.",
            false => "The old ones work until their end, or until --revoke-old.",
        }
    );
    let code = context.reload(&mut server).told();
    let wanted = |it: &Profile| it.device != PASSWORD;
    hand_out(&server, name, device, &terms, wanted, &options.to.to).map_err(Error::after_change)?;
    Ok(code)
}

fn rename(options: &Rename) -> Result<ExitCode> {
    let (name, new) = (&options.name, &options.new);
    let mut context = Context::new(&options.place)?;
    let mut server = context.open()?;
    server.rename_user(name, new, &mut context.with(), &check)?;
    println!("{name} is {new} now. Devices need nothing new.");
    if server.user(new)?.password {
        println!("Whoever logs in by name and password logs in as {new} from now on.");
    }
    Ok(context.reload(&mut server).told())
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
    match nt_hash {
        Some(_) => println!("{name} logs in by the new password from now on."),
        None => println!("{name} can no longer log in by password."),
    }
    Ok(context.reload(&mut server).told())
}

fn export(options: &Export) -> Result<ExitCode> {
    let (name, device) = (&options.whose.name, options.whose.device.as_ref());
    let to = &options.to.to;
    let mut context = Context::new(&options.place)?;
    let on_demand = on_demand(&options.demand)?;
    let mut server = context.open()?;
    let terms = context.terms()?;
    check_writable(to)?;
    if let Some(on_demand) = &on_demand {
        server.set_on_demand(name, device, on_demand)?;
    }
    let done = hand_out(&server, name, device, &terms, |_| true, to);
    match on_demand {
        Some(_) => done.map_err(Error::after_change)?,
        None => done?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the files of those that are wanted, and says where they are and what to do with them.
fn hand_out(
    server: &Server,
    name: &Name,
    device: Option<&Name>,
    terms: &Terms,
    wanted: impl Fn(&Profile) -> bool,
    to: &Path,
) -> Result<()> {
    let mut profiles = server.profiles(name, device, terms)?;
    profiles.retain(wanted);
    let exported = server.export(&profiles, to)?;
    println!();
    for device in &exported {
        println!("{}", to.join(&device.folder).display());
        if let Some(password) = &device.p12_password {
            println!("  import password: {}", password.as_str());
        }
    }
    println!("README.html in each folder says which file is for which system.");
    if exported.iter().any(|device| device.p12_password.is_some()) {
        println!(
            "Bring a folder to its device by a way that others do not read: the key in it opens the VPN. \
             Then delete it here; `cygnet user export` writes it again."
        );
    }
    Ok(())
}

fn new_password(input: &PasswordInput) -> Result<Option<Zeroizing<[u8; 16]>>> {
    let typed = match (&input.password_file, input.password) {
        (Some(path), _) => secret::of_file(path)?,
        (None, true) => secret::new("password")?,
        (None, false) => return Ok(None),
    };
    password::check_password(&typed)?;
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
