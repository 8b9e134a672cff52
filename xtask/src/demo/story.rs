//! `cargo xtask demo --story server`: from nothing to a connected device, each command as a person types it.

use crate::ensure;
use crate::lab::own_server::{OwnServer, SOON};
use crate::lab::strongswan::StrongSwan;
use crate::lab::world::{SERVER, WEB};
use crate::lab::{Lab, Result, wait_for};
use crate::project;
use clap::ValueEnum;
use std::time::{Duration, Instant};

/// A story to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Story {
    /// A rented machine becomes a VPN server, and a laptop with strongSwan connects to it.
    Server,
}

/// What all commands together may take.
const BOUND: Duration = Duration::from_secs(10);

/// Tells the story; fails when a part of it does not hold.
pub fn tell(story: Story) -> Result<()> {
    match story {
        Story::Server => server(),
    }
}

fn server() -> Result<()> {
    project::build_cygnet()?;
    let lab = Lab::new()?;
    let mut server = OwnServer::bare(&lab)?;
    let mut commands = Duration::ZERO;
    let mut step =
        |host: &str, typed: &str, what: &mut dyn FnMut() -> Result<String>| -> Result<()> {
            println!("\n{host}# {typed}");
            let begun = Instant::now();
            let said = what()?;
            commands += begun.elapsed();
            for line in said.trim().lines() {
                println!("  {line}");
            }
            Ok(())
        };
    step(
        "server",
        &format!("cygnet server init --address {SERVER}"),
        &mut || server.init(),
    )?;
    step("server", "systemctl start cygnet", &mut || {
        server.cygnet.restart().map(|()| String::new())
    })?;
    step(
        "server",
        "cygnet user add alice --devices laptop",
        &mut || server.add("alice", "laptop"),
    )?;
    let laptop = server.world.laptop.clone();
    let folder = server.folder("alice", "laptop").join("swanctl");
    let mut swan = None;
    step(
        "laptop",
        "cp -r alice/laptop/swanctl/. /etc/swanctl; systemctl start strongswan",
        &mut || {
            swan = Some(StrongSwan::start_with_files(&lab, &laptop, &folder)?);
            Ok(String::new())
        },
    )?;
    step("laptop", &format!("curl http://{WEB}/"), &mut || {
        server.online(&laptop).map(|_| SERVER.to_owned())
    })?;
    step(
        "server",
        "cygnet user remove alice --device laptop",
        &mut || server.cygnet(&["user", "remove", "alice", "--device", "laptop"]),
    )?;
    wait_for("the laptop is cut off", SOON, || {
        Ok(server.connected()?.is_empty().then_some(()))
    })?;
    println!("\nthe commands took {:.1} s", commands.as_secs_f64());
    ensure!(commands < BOUND, "that is more than {BOUND:?}");
    Ok(())
}
