//! Asking a person at a terminal, or a script at the other end of a pipe: a line an answer.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

/// No answer is longer.
const LINE_MAX: usize = 4096;
/// What a pipe holds (pipe(7)), and a terminal less: no more octets were typed before.
const TYPED_MAX: usize = 64 << 10;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(String),
    /// Nobody is there any more.
    End,
    /// Nothing yet.
    Late,
}

/// Where answers come from.
pub(super) struct Answers<F> {
    from: F,
    waiting: Vec<u8>,
}

/// Nobody is there to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended;

impl Answers<io::Stdin> {
    pub(super) fn stdin() -> Self {
        Self::of(io::stdin())
    }
}

impl<F: AsFd> Answers<F> {
    pub(super) fn of(from: F) -> Self {
        Self {
            from,
            waiting: Vec::new(),
        }
    }

    /// The next line; waits for it for so long, or for ever.
    pub(super) fn line(&mut self, patience: Option<Duration>) -> Line {
        let until = patience.map(|patience| Instant::now() + patience);
        loop {
            if let Some(at) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=at).collect();
                return Line::Text(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if self.waiting.len() > LINE_MAX {
                self.waiting.clear();
                return Line::Text("(too long)".to_owned());
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match self.more(left) {
                Ok(true) => {}
                Ok(false) => return Line::Late,
                Err(Ended) => return Line::End,
            }
        }
    }

    /// Forgets what was typed before it was asked for. Somebody may type without an end (`yes`).
    pub(super) fn forget(&mut self) {
        let mut typed = 0;
        // Of a terminal a read takes one line.
        while typed < TYPED_MAX && self.more(Some(Duration::ZERO)) == Ok(true) {
            typed += self.waiting.len();
            self.waiting.clear();
        }
        self.waiting.clear();
    }

    /// Reads what there is; `false` if nothing came in time, or a signal did.
    fn more(&mut self, patience: Option<Duration>) -> Result<bool, Ended> {
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(_) => return Err(Ended),
        }
        let mut buffer = [0; 512];
        match rustix::io::read(&self.from, &mut buffer) {
            Ok(0) => Err(Ended),
            Ok(length) => {
                let came = buffer.get(..length).unwrap_or_default();
                self.waiting.extend_from_slice(came);
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(false),
            // The terminal is gone.
            Err(_) => Err(Ended),
        }
    }

    /// Asks until an answer is understood; Enter takes `default`.
    pub(super) fn ask<T>(
        &mut self,
        question: &str,
        default: &str,
        understand: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Ended> {
        loop {
            print!("{question} [{default}]: ");
            let answer = match self.line(None) {
                Line::Text(text) if text.is_empty() => default.to_owned(),
                Line::Text(text) => text,
                Line::Late => continue,
                Line::End => return Err(Ended),
            };
            match understand(&answer) {
                Ok(understood) => return Ok(understood),
                Err(why) => println!("  {why}"),
            }
        }
    }
}

/// Yes or no, in the letters that people type.
pub(super) fn yes_or_no(answer: &str) -> Result<bool, String> {
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("expected y or n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_one_by_one_until_nobody_is_there() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut answers = Answers::of(reader);
        assert_eq!(answers.line(Some(Duration::ZERO)), Line::Late);
        writer.write_all(b" eth0 \n\nre").unwrap();
        assert_eq!(answers.line(None), Line::Text("eth0".into()));
        assert_eq!(answers.line(None), Line::Text(String::new()));
        assert_eq!(answers.line(Some(Duration::from_millis(1))), Line::Late);
        writer.write_all(b"st\nmore\n").unwrap();
        assert_eq!(answers.line(None), Line::Text("rest".into()));
        answers.forget();
        assert_eq!(answers.line(Some(Duration::ZERO)), Line::Late);
        drop(writer);
        assert_eq!(answers.line(None), Line::End);
    }

    #[test]
    fn a_wrong_answer_is_asked_again_and_enter_takes_the_default() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut answers = Answers::of(reader);
        writer.write_all(b"maybe\ny\n\n").unwrap();
        assert_eq!(answers.ask("Go on?", "n", yes_or_no), Ok(true));
        assert_eq!(answers.ask("Go on?", "n", yes_or_no), Ok(false));
        drop(writer);
        assert_eq!(answers.ask("Go on?", "n", yes_or_no), Err(Ended));
    }

    #[test]
    fn who_types_without_an_end_is_not_waited_for() {
        let endless = std::fs::File::open("/dev/zero").unwrap();
        let mut answers = Answers::of(endless);
        answers.forget();
        assert!(answers.waiting.is_empty());
        assert_eq!(answers.line(None), Line::Text("(too long)".into()));
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'x'; 3 * LINE_MAX]).unwrap();
        let mut answers = Answers::of(reader);
        assert_eq!(answers.line(None), Line::Text("(too long)".into()));
        assert!(answers.waiting.len() <= LINE_MAX);
    }
}
