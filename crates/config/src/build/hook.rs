//! `hook`, `hook_timeout`, `hook_user` of a section. Whether the file may be run is seen where there are files.

use std::time::Duration;

use toml::Spanned;

use super::Builder;
use crate::raw::OneOrMany;
use crate::{Hook, units};

/// How long a run may take where it is not said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// And at most: until then nothing else is told to the hook of that tunnel.
const TIMEOUT_MOST: Duration = Duration::from_secs(600);

/// What a section says of its hook.
pub(super) struct HookKeys<'a> {
    pub(super) command: Option<&'a OneOrMany>,
    pub(super) timeout: Option<&'a Spanned<String>>,
    pub(super) user: Option<&'a Spanned<String>>,
}

impl Builder<'_> {
    pub(super) fn hook(&mut self, keys: &HookKeys<'_>) -> Option<Hook> {
        let timeout = self.value_or(keys.timeout, TIMEOUT, hook_timeout);
        let Some(command) = keys.command else {
            if let Some(written) = keys.timeout.or(keys.user) {
                self.mistake_with_help(
                    written.span(),
                    "there is no `hook` that this could be about",
                    "name the program: hook = \"/usr/local/lib/cygnet/updown\"",
                );
            }
            return None;
        };
        let mut words = command.iter();
        let Some(first) = words.next() else {
            let span = keys.timeout.or(keys.user).map_or(0..0, Spanned::span);
            self.mistake_with_help(
                span,
                "`hook` is an empty list",
                "name the program: hook = \"/usr/local/lib/cygnet/updown\", or take the key out",
            );
            return None;
        };
        let program = self.value(first, program)?;
        let arguments = self.values(words, argument);
        Some(Hook {
            program,
            arguments,
            timeout,
            user: keys.user.map(|user| user.get_ref().clone()),
        })
    }
}

fn program(text: &str) -> Result<String, String> {
    if text.starts_with('/') && !text.ends_with('/') && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    let several = match text.contains(char::is_whitespace) {
        true => "; arguments are items of a list, hook = [\"/path\", \"argument\"]",
        false => "",
    };
    Err(format!(
        "`{text}` is no program that a hook can be: expected a path from the root, such as \
         \"/usr/local/lib/cygnet/updown\"{several}"
    ))
}

fn argument(text: &str) -> Result<String, String> {
    match text.contains('\0') {
        true => {
            Err("an argument of `hook` has a NUL in it, which no program can be given".to_owned())
        }
        false => Ok(text.to_owned()),
    }
}

fn hook_timeout(text: &str) -> Result<Duration, String> {
    let timeout = units::duration(text)?;
    if timeout > TIMEOUT_MOST {
        return Err(format!(
            "`{text}` is too long for a hook: expected ten minutes at most, as nothing else is told to it meanwhile"
        ));
    }
    Ok(timeout)
}
