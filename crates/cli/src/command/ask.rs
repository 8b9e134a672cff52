//! Asking before something is gone.

use std::io::{BufRead, IsTerminal, Write};

/// Goes on after `yes` alone.
///
/// # Errors
/// What to tell: nobody to ask, or something else was typed.
pub(super) fn confirm(what: &str) -> Result<(), String> {
    if !std::io::stdin().is_terminal() {
        return Err("this cannot be undone; without a terminal to ask at, give --yes".to_owned());
    }
    let mut answer = String::new();
    let mut out = std::io::stdout();
    let asked = write!(out, "{what}\nGo on? Type yes: ")
        .and_then(|()| out.flush())
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err("nothing was removed".to_owned()),
    }
}
