//! One module a command; each returns what the process exits with.

mod ask;
mod check;
mod connection;
mod device;
mod dhcp;
mod doctor;
mod gateway;
mod import;
mod made;
mod place;
mod read;
mod reload;
mod secret;
mod server;
mod site;
mod speedtest;
mod status;
mod systemd;
mod top;
mod user;

use std::process::ExitCode;

use crate::args::{Args, Command, Helper};

/// It did not work out.
const FAILED: u8 = 1;
/// Bad input or refused; nothing was changed.
const REFUSED: u8 = 2;

pub(crate) fn dispatch(args: Args) -> ExitCode {
    match args.command {
        Command::Run(file) => {
            gateway::setup::after_reboot(&file.config);
            ExitCode::from(cygnet_daemon::run(&file.config))
        }
        Command::Check(file) => check::check(&file),
        Command::Up(which) => connection::up(&which),
        Command::Down(which) => connection::down(&which),
        Command::Status(options) => status::status(&options),
        Command::Top(options) => top::top(&options),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Reload(socket) => reload::reload(&socket.socket),
        Command::Speedtest(options) => speedtest::speedtest(&options),
        Command::Gateway(what) => gateway::gateway(&what),
        Command::Device(what) => device::device(&what),
        Command::Dhcp(what) => dhcp::dhcp(&what),
        Command::Server(what) => server::server(&what),
        Command::User(what) => user::user(&what),
        Command::Site(what) => site::site(&what),
        Command::Import(options) => import::import(&options),
    }
}

/// What `run` started.
pub(crate) fn help(helper: Helper) -> ExitCode {
    ExitCode::from(match helper {
        Helper::Engine => cygnet_daemon::engine(),
        Helper::Resolve { name } => cygnet_daemon::resolve(&name),
        Helper::FetchCrl { url } => cygnet_daemon::fetch_crl(&url),
        Helper::AskTime { servers } => cygnet_daemon::ask_time(&servers),
        Helper::SpeedtestEndpoint { place } => cygnet_daemon::speedtest::endpoint(&place),
        Helper::SpeedtestMeasure { interface } => cygnet_daemon::speedtest::measure(&interface),
        Helper::ProbeIke { errand } => cygnet_doctor::probe_ike(&errand),
        Helper::ProbeWeb { errand } => cygnet_doctor::probe_web(&errand),
        Helper::ServeDns => cygnet_daemon::serve_dns(),
        Helper::ServeDhcp => cygnet_daemon::serve_dhcp(),
        Helper::LookForDhcp { mac } => cygnet_daemon::look_for_dhcp(&mac),
        Helper::WatchGatewaySetup { config, setup, id } => {
            gateway::setup::watch::watch(&config, setup, &id)
        }
    })
}

/// One line on standard error, then the exit code.
fn refuse(message: &str) -> ExitCode {
    eprintln!("cygnet: {message}");
    ExitCode::from(REFUSED)
}

/// One line on standard error, then the exit code.
fn fail(message: &str) -> ExitCode {
    eprintln!("cygnet: {message}");
    ExitCode::from(FAILED)
}
