//! `cygnet import`: the files of another VPN's server become a tunnel, and with `--gateway` this machine's way out.

pub(super) mod commit;
mod patience;
pub(super) mod sections;
mod surroundings;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cygnet_config::{Config, STATE_DIR, default_interface};
use cygnet_daemon::NOT_BEFORE;
use cygnet_pki::UnixTime;
use cygnet_profile::read::{self, Credentials, Imported, Note, Options, Section};
use cygnet_server::{Configuration, Error, store};

use super::server::network::{around, check_interface, lans};
use crate::args::Import;
use sections::Sections;
use surroundings::Disk;

/// Where the units look.
const USUAL_CONFIG: &str = "/etc/cygnet/cygnet.toml";
const USUAL_SOCKET: &str = "/run/cygnet/control.sock";
/// What opening the files may take of a processor's time; those that are usual take well below a second.
const COMPUTING_MAX: Duration = Duration::from_secs(20);

pub(super) fn import(options: &Import) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => super::refuse(&message.replace('\n', "\ncygnet: ")),
    }
}

fn run(options: &Import) -> Result<(), String> {
    cygnet_daemon::keep_keys_in_memory();
    let mut disk = Disk::new(&options.files, options.password_file.as_deref())?;
    let files = disk.given(&options.files)?;
    let wanted = Options {
        connection: options.connection.clone(),
        remote: options.remote.clone(),
        now: now(),
    };
    let imported = patience::within(COMPUTING_MAX, give_up, || {
        read::import(&files, &mut disk, &wanted)
    })
    .map_err(|error| disk.explain(&error))?;
    show(options, &imported);

    let config = &options.file.config;
    let _lock = lock(config)?;
    let sections = Sections::read(config)?;
    tell_of_networks_elsewhere(&imported, &sections);
    let name = options.name.as_ref().unwrap_or(&imported.name);
    check_name(name)?;
    let replaced = sections.tunnel(name, options.replace)?;
    let folder = free_folder(config, name);
    let mut section = imported.section(name, &folder);
    if let Some(interface) = sections.own_interface(name) {
        let default = default_interface(name);
        println!("  interface  {interface}: {default} is another tunnel's");
    }
    section.text = sections.with_own_interface(name, section.text);
    sections.check_is_alone(name, &section.text, &|path| {
        content(config, &folder, &section, path).ok()
    })?;
    let mut text = sections.with_tunnel(name, &section.text);
    if options.gateway {
        let lan = match options.lan.as_slice() {
            [] => vec![guess_lan(&sections)?],
            named => named.to_vec(),
        };
        for interface in &lan {
            check_interface(interface).map_err(|error| format!("--lan: {error}"))?;
        }
        text = Sections::of(text).with_gateway(name, &lan, options.replace)?;
    }
    validate(config, &text, &folder, &section)?;
    if options.dry_run {
        println!("\nThis would be written to {}:\n", config.display());
        println!("{}", Sections::of(text).written(name, options.gateway));
        let files: Vec<&str> = section.files.iter().map(|it| it.name).collect();
        println!(
            "and to {}: {}. Nothing was written.",
            config.with_file_name(&folder).display(),
            files.join(", ")
        );
        return Ok(());
    }
    commit::commit(config, &sections, &text, &folder, &section.files)?;
    if let Some(old) = replaced.and_then(|old| old.folder) {
        commit::remove_folder(&config.with_file_name(old));
    }
    println!(
        "\nWritten: [tunnel.{name}] in {}; {} in {}",
        config.display(),
        match imported.credentials {
            Credentials::Certificate { .. } => "certificate and key",
            Credentials::PreShared(_) => "the shared secret",
            Credentials::User { .. } => "password and authority",
        },
        config.with_file_name(&folder).display(),
    );
    println!("\nTo go online:");
    what_next(config, options.gateway);
    // What leads to another office's networks alone would take the LAN's internet away.
    if imported.virtual_address && !options.gateway {
        println!("For a whole LAN: `sudo cygnet gateway setup`");
    }
    println!(
        "{}",
        way_back(config, name, imported.virtual_address, options.gateway)
    );
    Ok(())
}

/// How what was written is taken back.
fn way_back(config: &Path, name: &str, virtual_address: bool, gateway: bool) -> String {
    let shown = config.display();
    let elsewhere = match config == Path::new(USUAL_CONFIG) {
        true => String::new(),
        false => format!(" --config {shown}"),
    };
    match (virtual_address, gateway) {
        (false, false) => {
            format!("To take it back: `sudo cygnet site remove {name}{elsewhere}`")
        }
        (_, false) => format!(
            "To take it back: remove what stands between the two marks of [tunnel.{name}] in {shown}, then `sudo cygnet reload`"
        ),
        (_, true) => format!(
            "To take it back: `sudo cygnet gateway off{elsewhere}`, remove what stands between the two marks of [gateway] and \
             of [tunnel.{name}] in {shown}, then `sudo cygnet reload`"
        ),
    }
}

/// Nothing is written yet. A key derivation that has begun cannot be stopped otherwise.
fn give_up() {
    let _ = super::refuse(&format!(
        "opening the files took more than {} s of computing, so it was given up: a .p12 in them asks for more key derivations \
         than anybody needs; export it anew, or have it sent by somebody you trust",
        COMPUTING_MAX.as_secs()
    ));
    std::process::exit(i32::from(super::REFUSED));
}

/// Nothing where the clock was never set.
pub(super) fn now() -> Option<UnixTime> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let is_set = i64::try_from(now.as_secs()).is_ok_and(|it| it >= NOT_BEFORE);
    is_set.then(|| UnixTime::since_unix_epoch(now))
}

/// Keeps the commands out that change a server: they write `cygnet.toml`, too. `None` where there is no server's state,
/// or it is not ours to touch: nobody who cannot open it changes a server there.
pub(super) fn lock(config: &Path) -> Result<Option<File>, String> {
    let directories = Configuration::read(config).and_then(|it| it.directories());
    // What is wrong with a configuration is told where it is read for itself.
    let written = directories.ok().and_then(|(state_dir, _)| state_dir);
    let state_dir = written.unwrap_or_else(|| PathBuf::from(STATE_DIR));
    match store::lock(&state_dir) {
        Ok(lock) => Ok(Some(lock)),
        Err(Error::File { doing: "open", .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What was understood, in plain words.
fn show(options: &Import, imported: &Imported) {
    let names: Vec<String> = (options.files.iter())
        .map(|it| it.display().to_string())
        .collect();
    println!("From {}:", names.join(", "));
    for (about, text) in imported.summary() {
        println!("  {about:<10} {text}");
    }
    let told = |heading: &str, wanted: fn(&Note) -> bool| {
        let mut notes = imported.notes.iter().filter(|it| wanted(it)).peekable();
        if notes.peek().is_some() {
            println!("{heading}");
        }
        for note in notes {
            println!("  {note}");
        }
    };
    told("Concluded:", |it| matches!(it, Note::Concluded(_)));
    told("Not as it is written there:", |it| {
        matches!(it, Note::NotObeyed(..))
    });
    told("Not taken over:", |it| matches!(it, Note::NotRead(..)));
    told("Beware:", |it| matches!(it, Note::Warning(_)));
}

/// An office's networks are here, or what comes for them is sent on to the internet.
fn tell_of_networks_elsewhere(imported: &Imported, sections: &Sections) {
    if let Ok(around) = around(&sections.interfaces())
        && let Err(told) = around.leads_to(&imported.local_networks)
    {
        eprintln!("cygnet: warning: {told}");
    }
}

/// It becomes a folder, too.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=32).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is no name for a tunnel: expected letters, digits, `-` and `_`, 32 at most"
    ))
}

/// A folder beside the configuration that is not there yet, so that what is in use is never written over.
pub(super) fn free_folder(config: &Path, name: &str) -> String {
    let numbered = (2..1000).map(|number| format!("{name}-{number}"));
    let mut all = std::iter::once(name.to_owned()).chain(numbered);
    let is_free = |it: &String| config.with_file_name(it).symlink_metadata().is_err();
    all.find(is_free).unwrap_or_else(|| name.to_owned())
}

/// What a file holds that the configuration names, or will name.
fn content(config: &Path, folder: &str, section: &Section, path: &str) -> io::Result<Vec<u8>> {
    let ours = path
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'));
    match section.files.iter().find(|it| Some(it.name) == ours) {
        Some(file) => Ok(file.bytes.to_vec()),
        None => std::fs::read(config.parent().unwrap_or(Path::new(".")).join(path)),
    }
}

/// Whether the daemon's own parser takes the whole of it, before anything is on the disk.
pub(super) fn validate(
    config: &Path,
    text: &str,
    folder: &str,
    section: &Section,
) -> Result<(), String> {
    let name = config.display().to_string();
    let parsed = Config::parse(&name, text, &mut |path| {
        content(config, folder, section, path)
            .map_err(|error| format!("cannot read {path}: {error}"))
    });
    let refused = |error| {
        format!(
            "with this tunnel the configuration would not be good, so nothing was changed:\n{error}"
        )
    };
    parsed.map(drop).map_err(refused)
}

/// The interface of the LAN, if there is no question which one it is.
fn guess_lan(sections: &Sections) -> Result<String, String> {
    let interfaces = lans(&sections.interfaces()).map_err(|error| error.to_string())?;
    match interfaces.as_slice() {
        [one] => {
            println!("  {:<10} {one}, the only network this machine has", "LAN");
            Ok(one.clone())
        }
        [] => Err(
            "this machine is in no network yet: say where its LAN is with --lan INTERFACE".into(),
        ),
        several => Err(format!(
            "which of its networks is the LAN? Say it with --lan, one of: {}",
            several.join(", ")
        )),
    }
}

/// `gateway`: for a LAN as well.
pub(super) fn what_next(config: &Path, gateway: bool) {
    if config != Path::new(USUAL_CONFIG) {
        println!("  sudo cygnet run --config {}", config.display());
    } else if std::os::unix::net::UnixStream::connect(USUAL_SOCKET).is_ok() {
        if gateway {
            println!("  sudo systemctl enable --now cygnet-guard && sudo cygnet reload");
        } else {
            println!("  sudo cygnet reload");
        }
    } else if gateway {
        println!("  sudo systemctl enable --now cygnet-guard cygnet");
    } else {
        println!("  sudo systemctl enable --now cygnet");
    }
    println!("  sudo cygnet status");
}

/// The folder a path lies in; the current one for a name alone.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    #[test]
    fn no_core_file_is_written_of_keys() {
        use rustix::process::{Resource, getrlimit};
        let arguments = ["cygnet", "import", "/absent/alice.p12"];
        let parsed = Args::try_parse_from(arguments);
        let Ok(Command::Import(options)) = parsed.map(|it| it.command) else {
            panic!("no import");
        };
        assert!(run(&options).is_err());
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }

    #[test]
    fn the_way_back_is_that_of_what_was_written() {
        let usual = Path::new(USUAL_CONFIG);
        let site = way_back(usual, "branch", false, false);
        assert!(site.ends_with("`sudo cygnet site remove branch`"), "{site}");
        let own = way_back(Path::new("here.toml"), "branch", false, false);
        assert!(
            own.ends_with("`sudo cygnet site remove branch --config here.toml`"),
            "{own}"
        );
        let server = way_back(usual, "home", true, false);
        assert!(
            server.ends_with(
                "the two marks of [tunnel.home] in /etc/cygnet/cygnet.toml, then `sudo cygnet reload`"
            ),
            "{server}"
        );
        let gateway = way_back(usual, "home", true, true);
        for part in [
            "`sudo cygnet gateway off`",
            "of [gateway] and of [tunnel.home]",
        ] {
            assert!(gateway.contains(part), "{part}: {gateway}");
        }
    }

    #[test]
    fn a_name_is_no_path() {
        for bad in ["", "../x", "a/b", "a.b", "ä", &"a".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("algovpn-203-0-113-5").is_ok());
    }
}
