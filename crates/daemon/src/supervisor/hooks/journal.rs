//! What hooks were told, for the next run of this program, if this one ends without a word.
//!
//! A line is added for each run of a hook: there may be thousands of pairs, and none is to be written again because
//! another one changes. Now and then all of it is written anew. It need not outlive the machine.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use cygnet_linux::replace_file;
use serde::{Deserialize, Serialize};

use super::pairs::Told;

/// Lines beside those of what is told now, after which it is written anew.
const SLACK: usize = 256;

/// A line of the file.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<'a> {
    /// That something is up.
    Told(&'a str, &'a Told),
    /// Of what was told in this turn, that it is down.
    Undone(&'a str, u64),
}

/// The same when it is read.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Recalled {
    Told(String, Box<Told>),
    Undone(String, u64),
}

pub(super) struct Journal {
    path: PathBuf,
    /// To be added to; `None`: it is to be written anew.
    file: Option<File>,
    lines: usize,
}

impl Journal {
    /// The journal, and what an earlier run has told the hooks of these tunnels, and left.
    pub(super) fn open(path: PathBuf) -> (Self, Vec<(String, Told)>) {
        let left = read(&path).unwrap_or_else(|error| {
            tracing::warn!(
                "{}: what hooks were told before cannot be read, and is not undone: {error}",
                path.display()
            );
            Vec::new()
        });
        let journal = Self {
            path,
            file: None,
            lines: 0,
        };
        (journal, left)
    }

    /// Adds a line; `all` is what is told now, with it.
    pub(super) fn add<'a>(&mut self, line: Line<'_>, all: impl Iterator<Item = Line<'a>> + Clone) {
        if let Err(error) = self.write(line, all) {
            self.file = None;
            tracing::warn!("cannot write {}: {error}", self.path.display());
        }
    }

    fn write<'a>(
        &mut self,
        line: Line<'_>,
        all: impl Iterator<Item = Line<'a>> + Clone,
    ) -> io::Result<()> {
        if all.clone().next().is_none() {
            self.file = None;
            return match std::fs::remove_file(&self.path) {
                // There was nothing to forget.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        // Counted when that may matter, and not for each line.
        if self.lines > SLACK && self.lines > SLACK + 2 * all.clone().count() {
            self.file = None;
        }
        if let Some(file) = &mut self.file {
            self.lines += 1;
            return file.write_all(&text(line)?);
        }
        let mut bytes = Vec::new();
        for line in all {
            bytes.extend(text(line)?);
        }
        replace_file(&self.path, &bytes)?;
        self.lines = 0;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(())
    }
}

fn text(line: Line<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(&line).map_err(io::Error::other)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn read(path: &Path) -> io::Result<Vec<(String, Told)>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let mut left = BTreeMap::new();
    // A line that is not whole was being written when this program was killed.
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        match serde_json::from_slice(line).map_err(io::Error::other)? {
            Recalled::Told(tunnel, told) => {
                left.insert((tunnel, told.turn), *told);
            }
            Recalled::Undone(tunnel, turn) => {
                left.remove(&(tunnel, turn));
            }
        }
    }
    let left = left.into_iter();
    Ok(left.map(|((tunnel, _), told)| (tunnel, told)).collect())
}
