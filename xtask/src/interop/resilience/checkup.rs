//! What `cygnet doctor` says of an end of the lab.

use crate::lab::cygnet::Cygnet;
use crate::lab::world::WEB;
use crate::lab::{Context, Exec, Failure, Finished, Result};
use crate::{ensure, project};
use serde::Deserialize;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// Long enough for servers that keep silent.
const PATIENCE: Duration = Duration::from_secs(90);
/// A resolver beyond the tunnel.
pub(in crate::interop) const BEYOND: &str = "9.9.9.9";

/// A machine that was booted by systemd, whose units start the program with its configuration.
const SYSTEMCTL: &str = r#"#!/bin/sh
case "$1" in
    is-system-running) echo running ;;
    cat) echo "ExecStart=@CYGNET@ run --config @CONFIG@" ;;
    is-enabled) ;;
    *) exit 1 ;;
esac
"#;

/// What `cygnet doctor --json` says, as far as scenarios look at it.
#[derive(Debug, Deserialize)]
pub(in crate::interop) struct Report {
    pub(in crate::interop) masked: bool,
    pub(in crate::interop) wrong: usize,
    pub(in crate::interop) checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
pub(in crate::interop) struct Check {
    pub(in crate::interop) name: String,
    subject: Option<String>,
    pub(in crate::interop) state: String,
    pub(in crate::interop) says: String,
    remedy: Option<String>,
}

impl Report {
    /// Fails unless this check is wrong and says so, with a remedy.
    pub(in crate::interop) fn names(&self, fault: &str, check: &str, says: &str) -> Result<String> {
        let of_check = |it: &&Check| it.name == check && it.state == "wrong";
        let named = self.checks.iter().filter(of_check);
        let named = named.map(|it| {
            let subject = it.subject.as_deref().unwrap_or_default();
            let remedy = it.remedy.as_deref().unwrap_or_default();
            format!("{subject}: {} -> {remedy}", it.says)
        });
        let mut named = named.filter(|line| line.contains(says) && !line.ends_with("-> "));
        named.next().ok_or_else(|| {
            Failure::new(format!(
                "{fault}: no check `{check}` is wrong and says \"{says}\": {:#?}",
                self.bad()
            ))
        })
    }

    /// Fails unless this check is good and says so; what it says.
    pub(in crate::interop) fn good(&self, check: &str, says: &str) -> Result<&str> {
        let mut of_check = self.checks.iter().filter(|it| it.name == check);
        let good = of_check.find(|it| it.state == "good" && it.says.contains(says));
        good.map(|it| &*it.says).ok_or_else(|| {
            Failure::new(format!(
                "no check `{check}` is good and says \"{says}\": {:#?}",
                self.checks
            ))
        })
    }

    /// What is not good.
    pub(in crate::interop) fn bad(&self) -> Vec<&Check> {
        let bad = self.checks.iter().filter(|it| it.state != "good");
        bad.collect()
    }

    /// Fails unless all is good: nothing is wrong, and nothing unknown.
    pub(in crate::interop) fn is_healthy(&self, when: &str) -> Result<()> {
        let bad = self.bad();
        ensure!(bad.is_empty(), "{when}: {bad:#?}");
        Ok(())
    }
}

/// A check-up of one end, in surroundings that a scenario chooses.
pub(in crate::interop) struct Doctor<'a> {
    cygnet: &'a Cygnet,
    /// A line of shell that ends in `"$@"`.
    behind: String,
}

impl<'a> Doctor<'a> {
    /// With a resolver of this address; `before` goes before the program, such as another mount. systemd starts the
    /// program at boot.
    pub(in crate::interop) fn new(
        cygnet: &'a Cygnet,
        resolver: &str,
        before: &str,
    ) -> Result<Self> {
        let bin = beside(cygnet)?.join("bin");
        fs::create_dir_all(&bin)?;
        let text = SYSTEMCTL
            .replace("@CYGNET@", &project::cygnet().to_string_lossy())
            .replace("@CONFIG@", &cygnet.config_path().to_string_lossy());
        let systemctl = bin.join("systemctl");
        fs::write(&systemctl, text)?;
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:$PATH", bin.display());
        Self::with_path(cygnet, resolver, before, &path)
    }

    /// With another `PATH`.
    pub(in crate::interop) fn with_path(
        cygnet: &'a Cygnet,
        resolver: &str,
        before: &str,
        path: &str,
    ) -> Result<Self> {
        let resolvers = beside(cygnet)?.join("resolv.conf");
        fs::write(&resolvers, format!("nameserver {resolver}\n"))?;
        // Where it is a link to a file that is not there, nothing can be mounted on it.
        let mount = format!("mount --bind {} /etc/resolv.conf", resolvers.display());
        Ok(Self {
            cygnet,
            behind: format!("{mount}; export PATH={path}; {before} \"$@\""),
        })
    }

    pub(in crate::interop) fn run(&self, options: &[&str]) -> Result<Finished> {
        let (program, config) = (project::cygnet(), self.cygnet.config_path());
        let mut command = Exec::new(["sh", "-ec", &self.behind, "sh"])
            .arg(program.to_string_lossy())
            .arg("doctor")
            .arg("--config")
            .arg(config.to_string_lossy())
            .patience(PATIENCE);
        for option in options {
            command = command.arg(*option);
        }
        self.cygnet.namespace().place(command).finish()
    }

    /// The report, which agrees with the exit code.
    pub(in crate::interop) fn report(&self, options: &[&str]) -> Result<Report> {
        let finished = self.run(&[&["--json"][..], options].concat())?;
        let (said, complained) = (&finished.stdout, finished.stderr.trim());
        let report: Report =
            serde_json::from_str(said).context(format!("it said {said}{complained}"))?;
        let expected = i32::from(report.wrong > 0);
        ensure!(
            finished.status.code() == Some(expected),
            "{} wrong, and it ended with {}",
            report.wrong,
            finished.status
        );
        Ok(report)
    }
}

/// Files for it, outside of what is compared of the program's own.
fn beside(cygnet: &Cygnet) -> Result<PathBuf> {
    let name = format!("doctor-{}", cygnet.namespace().name());
    let directory = cygnet.directory().with_file_name(name);
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// A web host that says what time it is, and whom it sees.
pub(in crate::interop) fn web() -> String {
    format!("http://{WEB}/")
}
