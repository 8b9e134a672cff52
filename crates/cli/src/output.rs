//! What is printed. `println!`, `print!` and `eprintln!` of this crate are these, not the standard library's, which
//! panic where nothing can be written: with a full disk behind it, or `| head -1`, a command would end half done.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something could not be written that somebody may wait for.
static LOST: AtomicBool = AtomicBool::new(false);

macro_rules! print {
    ($($text:tt)*) => { $crate::output::to_stdout(format_args!($($text)*)) };
}

macro_rules! println {
    () => { $crate::output::to_stdout(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::to_stdout(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::to_stderr(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) fn to_stdout(text: Arguments<'_>) {
    let written = write(&mut io::stdout().lock(), text);
    if let Err(error) = written
        && is_loss(&error)
        && !LOST.swap(true, Ordering::Relaxed)
    {
        eprintln!("cygnet: not all of the output could be written: {error}");
    }
}

pub(crate) fn to_stderr(text: Arguments<'_>) {
    if write(&mut io::stderr().lock(), text).is_err_and(|error| is_loss(&error)) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// The exit code of a command that did what it was to do, unless not all of what it said was written.
pub(crate) fn judge(code: ExitCode) -> ExitCode {
    match LOST.load(Ordering::Relaxed) && code == ExitCode::SUCCESS {
        true => ExitCode::FAILURE,
        false => code,
    }
}

/// In one piece, and at once: what is said stands there before a question is asked or a secret read.
fn write(to: &mut impl Write, text: Arguments<'_>) -> io::Result<()> {
    to.write_all(text.to_string().as_bytes())?;
    to.flush()
}

/// Who went away from the other end of a pipe has read what they wanted.
fn is_loss(error: &io::Error) -> bool {
    error.kind() != ErrorKind::BrokenPipe
}
