//! Hosts in network namespaces, joined by wires, with real peers on them.
//!
//! A [`Lab`] owns a directory and gives out [`Namespace`]s; [`wire`] and [`Switch`] join them;
//! [`Link`] is a wire with a watcher in the middle; [`strongswan`] puts a real peer on a host, with
//! certificates of [`pki`]. [`offices`] and [`world`] are the two networks that the scenarios and the
//! demo use. Everything is removed when dropped, see [`interrupt`].

pub mod algo;
pub mod chrony;
pub mod cygnet;
pub mod failure;
pub mod interrupt;
pub mod kept_clock;
pub mod link;
pub mod namespace;
pub mod nat;
pub mod offices;
pub mod own_server;
pub mod pki;
pub mod process;
pub(crate) mod sites;
pub mod strongswan;
pub mod terminal;
pub mod traffic;
pub mod uml;
pub mod world;

pub use failure::{Context, Failure, Result};
pub use link::{Link, LinkCounters};
pub use namespace::{End, Namespace, Switch, join, on_host, wire};
pub use process::{Exec, Finished, Process, wait_for};

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One laboratory: a directory for files and logs, and a name for its namespaces. Several can live
/// side by side, in one process too.
#[derive(Debug)]
pub struct Lab {
    index: u32,
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Lab {
    /// A new, empty laboratory. Needs root.
    pub fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new(
                "the lab makes network namespaces: run this as root",
            ));
        }
        interrupt::check()?;
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = interrupt::directory(std::process::id(), index);
        // A process of the same id may have been killed earlier.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).context(format!("cannot create {}", path.display()))?;
        Ok(Self {
            index,
            directory: Arc::new(Directory(path)),
        })
    }

    /// Where files of this lab live; removed with it.
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// A directory within the lab's own, made when missing.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory().join(name);
        std::fs::create_dir_all(&path).context(format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// A shell script of this name that whoever finds it may run.
    pub fn script(&self, name: &str, body: &str) -> Result<PathBuf> {
        let path = self.subdirectory("scripts")?.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// A new host called `name`: loopback up, nothing else.
    pub fn host(&self, name: &str) -> Result<Namespace> {
        Namespace::create(&self.full_name(name), name, self.subdirectory("logs")?)
    }

    /// What `ip netns` calls the host `name` of this lab, for scripts that make hosts themselves.
    pub fn full_name(&self, name: &str) -> String {
        let (prefix, pid) = (interrupt::PREFIX, std::process::id());
        format!("{prefix}{pid}.{}-{name}", self.index)
    }

    /// A new host that forwards IPv4 and IPv6.
    pub fn router(&self, name: &str) -> Result<Namespace> {
        let host = self.host(name)?;
        host.forward_packets()?;
        Ok(host)
    }
}
