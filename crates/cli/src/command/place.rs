//! What the commands of a server have in common: where it is, the real clock and randomness, and a daemon to tell.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use cygnet_config::{Config, RUN_DIR, SERVER, STATE_DIR};
use cygnet_crypto::SystemRandom;
use cygnet_daemon::NOT_BEFORE;
use cygnet_server::profile::Terms;
use cygnet_server::{Circumstances, Configuration, Error, Place, Result, Server};
use hyper::Method;
use serde_json::Value;

use crate::args::server::Where;
use crate::client;

/// What `cygnet run` reads where nothing else is said.
const USUAL: &str = "/etc/cygnet/cygnet.toml";

/// One command at work.
pub(super) struct Context {
    pub(super) place: Place,
    socket: PathBuf,
    now: i64,
    random: SystemRandom,
}

impl Context {
    pub(super) fn new(place: &Where) -> Result<Self> {
        cygnet_daemon::keep_keys_in_memory();
        let (state_dir, run_dir) = Configuration::read(&place.config)?.directories()?;
        let or =
            |written: Option<PathBuf>, default: &str| written.unwrap_or_else(|| default.into());
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(0));
        if now < NOT_BEFORE {
            return Err(Error::Refused(
                "this machine's clock is not set, and certificates hold dates: set it first (timedatectl)".into(),
            ));
        }
        Ok(Self {
            place: Place {
                config: place.config.clone(),
                state_dir: or(place.state_dir.clone().or(state_dir), STATE_DIR),
            },
            socket: place
                .socket
                .clone()
                .unwrap_or_else(|| or(run_dir, RUN_DIR).join("control.sock")),
            now,
            random: SystemRandom,
        })
    }

    pub(super) fn now(&self) -> i64 {
        self.now
    }

    pub(super) fn random(&mut self) -> &mut SystemRandom {
        &mut self.random
    }

    /// Time and randomness.
    pub(super) fn with(&mut self) -> Circumstances<'_> {
        Circumstances {
            now: self.now,
            random: &mut self.random,
        }
    }

    /// The server, if there is one. What an earlier command did not come to tell the running daemon, or it refused,
    /// is told now: somebody who was removed may be connected still.
    pub(super) fn find(&mut self) -> Result<Option<Server>> {
        let place = self.place.clone();
        let Some((mut server, flaw)) = Server::open(&place, &mut self.with(), &check)? else {
            return Ok(None);
        };
        if let Some(flaw) = flaw {
            eprintln!("cygnet: warning: {flaw}");
        } else if !server.is_confirmed()?
            && let ReloadOutcome::Failed(told) = self.reload(&mut server)
        {
            eprintln!(
                "cygnet: warning: the running cygnet has not taken up an earlier change: {told}"
            );
        }
        Ok(Some(server))
    }

    /// The server.
    pub(super) fn open(&mut self) -> Result<Server> {
        self.find()?.ok_or_else(|| {
            Error::Refused(format!(
                "there is no server here (nothing in {}): set one up with `cygnet server init --address NAME`",
                self.place.state_dir.display()
            ))
        })
    }

    /// Lets the running daemon read what was published. One that does not run reads it when it starts.
    pub(super) fn reload(&self, server: &mut Server) -> ReloadOutcome {
        match self.reload_daemon() {
            // One that was told and is not noted is told again, which does no harm.
            ReloadOutcome::Done => match server.confirm() {
                Ok(()) => ReloadOutcome::Done,
                Err(error) => ReloadOutcome::Failed(error.to_string()),
            },
            other => other,
        }
    }

    /// The same where no server is left.
    pub(super) fn reload_daemon(&self) -> ReloadOutcome {
        match UnixStream::connect(&self.socket).map(drop) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                ReloadOutcome::NotRunning
            }
            _ if self.runs_elsewhere() => ReloadOutcome::NotRunning,
            _ => match client::call(&self.socket, Method::POST, "/v1/reload", None) {
                Ok(_) => ReloadOutcome::Done,
                Err(told) => ReloadOutcome::Failed(told),
            },
        }
    }

    /// Whether what runs has another configuration than the one that is spoken of here.
    fn runs_elsewhere(&self) -> bool {
        let told = client::call(&self.socket, Method::GET, "/v1/status", None);
        // Not what is fit for a terminal: letters of a path would be others there.
        let status = told
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok());
        // Who does not tell is asked to read his, and says what is the matter.
        status.is_some_and(|status: Value| {
            let config = status.get("config").and_then(Value::as_str);
            config.is_some_and(|config| whole(Path::new(config)) != whole(&self.place.config))
        })
    }

    /// What the configuration says about clients, for their files.
    pub(super) fn terms(&self) -> Result<Terms> {
        let path = &self.place.config;
        let base = path.parent().unwrap_or(Path::new("."));
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::Refused(format!("cannot read {}: {error}", path.display())))?;
        let mut read = |name: &str| {
            let path = base.join(name);
            std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let config = Config::parse(&path.display().to_string(), &text, &mut read)
            .map_err(|error| Error::Refused(error.to_string()))?;
        let connection = config
            .policy
            .connections
            .iter()
            .find(|it| it.name == SERVER);
        let (Some(connection), Some(network)) = (connection, &config.server) else {
            return Err(Error::Refused(format!(
                "{} has no [server] section; `cygnet server init` with the same values writes it again",
                path.display()
            )));
        };
        let everything = network.networks.iter().any(|it| it.prefix_len() == 0);
        let child = connection.children.first();
        let pool = connection.pool.as_ref().and_then(|it| config.pools.get(it));
        Ok(Terms {
            networks: if everything {
                Vec::new()
            } else {
                network.networks.clone()
            },
            dns: pool.map(|it| it.dns.clone()).unwrap_or_default(),
            domains: pool.map(|it| it.domains.clone()).unwrap_or_default(),
            ike: connection
                .ike_proposals
                .iter()
                .map(ToString::to_string)
                .collect(),
            esp: child
                .iter()
                .flat_map(|it| it.esp_proposals.iter().map(ToString::to_string))
                .collect(),
            ike_lifetime: connection.lifetime.time,
            child_lifetime: child.map_or(Duration::from_secs(3600), |it| it.lifetime.time),
        })
    }
}

/// What became of the daemon.
pub(super) enum ReloadOutcome {
    Done,
    NotRunning,
    Failed(String),
}

impl ReloadOutcome {
    /// Tells a person; whether the command was done. `config` is what it has to run with.
    pub(super) fn told(self, config: &Path) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::NotRunning => {
                println!(
                    "cygnet does not run here; it takes this up when it starts{}.",
                    by(config)
                );
                ExitCode::SUCCESS
            }
            Self::Failed(told) => super::fail(&format!(
                "the change is made, but the running cygnet did not take all of it up: {told}; \
                 the next command tries again"
            )),
        }
    }
}

/// How it is started, where it has to be told its configuration.
pub(super) fn by(config: &Path) -> String {
    match config == Path::new(USUAL) {
        true => String::new(),
        false => format!(": `cygnet run --config {}`", config.display()),
    }
}

/// Judges a configuration as `cygnet check` does.
pub(super) fn check(path: &Path) -> std::result::Result<(), String> {
    cygnet_daemon::check(path)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// The exit code of an error, which is told.
pub(super) fn failed(error: &Error) -> ExitCode {
    match error.is_refusal() {
        true => super::refuse(&error.to_string()),
        false => super::fail(&error.to_string()),
    }
}

/// The path of a file, by whatever way its folder was named. There may be no file any more.
fn whole(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().and_then(|it| it.canonicalize().ok());
    match folder.zip(path.file_name()) {
        Some((folder, name)) => folder.join(name),
        None => path,
    }
}
