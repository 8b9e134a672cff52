//! `cygnet gateway on|off|guide|setup`

pub(super) mod setup;

use std::path::Path;
use std::process::ExitCode;

use crate::args::gateway::{Gateway, Off};

pub(super) fn gateway(what: &Gateway) -> ExitCode {
    match what {
        Gateway::Setup(options) => setup::setup(options),
        Gateway::On(file) => on(&file.config),
        Gateway::Off(options) => off(options),
        Gateway::Guide(file) => match cygnet_daemon::guide(&file.config) {
            Ok(guide) => {
                println!("{guide}");
                ExitCode::SUCCESS
            }
            Err(error) => super::refuse(&error.to_string()),
        },
    }
}

fn on(config: &Path) -> ExitCode {
    // At a boot that ended a trial: the guard is that of before, or there is none to put in place.
    if let Some(setup::Boot::WithoutGuard) = setup::after_reboot(config) {
        println!("there was no guard before: none is put in place");
        return ExitCode::SUCCESS;
    }
    match cygnet_daemon::guard_on(config) {
        Ok(done) => {
            for line in done.warnings.iter().flat_map(|warning| warning.lines()) {
                eprintln!("cygnet: {line}");
            }
            println!("{}", done.message);
            match done.as_configured {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(super::FAILED),
            }
        }
        Err(error) => super::refuse(&error.to_string()),
    }
}

fn off(options: &Off) -> ExitCode {
    let config = &options.file.config;
    let code = match options.guard_only {
        true => None,
        false => setup::off(config),
    };
    // Of a file that cannot be read whoever takes a setup back has said so.
    let by_setup = code.is_some();
    let code = code.unwrap_or_else(|| guard_off(config));
    let is_off = setup::guard_is_there() == Ok(false);
    // Nothing is said of what was not done.
    let is_done = is_off && (options.guard_only || !setup::is_set_up(config));
    if let Some(told) = still_a_gateway(config, by_setup).filter(|_| is_done) {
        println!("{told}");
    }
    code
}

fn guard_off(config: &Path) -> ExitCode {
    let was_there = setup::guard_is_there() != Ok(false);
    match cygnet_daemon::guard_off(config) {
        Ok(_) if !was_there && setup::gateway_of(config).0.is_none() => {
            println!("the guard is off: there was none, and this machine is no gateway");
            ExitCode::SUCCESS
        }
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => super::refuse(&error.to_string()),
    }
}

/// What `gateway off` leaves: a section by which the LAN is served, and the guard comes back.
fn still_a_gateway(config: &Path, only_readable: bool) -> Option<String> {
    let (gateway, whole) = setup::gateway_of(config);
    let gateway = gateway.filter(|_| whole || !only_readable)?;
    Some(still_in(config, gateway.guard, setup::is_set_up(config)))
}

fn still_in(config: &Path, guard: bool, is_set_up: bool) -> String {
    let goes_on = match guard {
        true => "and puts the guard back when it starts or reads that again",
        false => "without a guard",
    };
    let remedy = match is_set_up {
        true => "`cygnet gateway off` without --guard-only takes back what `gateway setup` wrote",
        false => {
            "to be no gateway any more, take [gateway] and its parts out of that file, then `sudo cygnet reload`"
        }
    };
    format!(
        "[gateway] is still in {}: by it cygnet serves the LAN, {goes_on}; {remedy}",
        config.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_in_the_configuration_is_told_with_the_way_out() {
        let path = std::env::temp_dir().join(format!("cygnet-off-{}.toml", std::process::id()));
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            still_a_gateway(&path, true)
        };
        let state = format!("[daemon]\nstate_dir = \"{}.d\"\n", path.display());
        let tunnel = told(&format!("{state}[tunnel.home]\nremote = \"a\"\n"));
        let gateway = format!("{state}[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n");
        let guarded = told(&gateway).unwrap();
        let open = told(&format!("{gateway}guard = false\n")).unwrap();
        let broken = told(&format!("{gateway}[[[\n"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!((tunnel, broken), (None, None));
        assert!(guarded.contains("puts the guard back when"), "{guarded}");
        assert!(guarded.contains("take [gateway] and its parts out"));
        assert!(open.contains("without a guard"), "{open}");
        assert!(still_in(&path, true, true).contains("without --guard-only"));
    }
}
