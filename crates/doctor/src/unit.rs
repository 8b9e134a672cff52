//! What a unit of systemd starts.

use std::iter::Peekable;
use std::path::PathBuf;
use std::str::Chars;

/// The configuration of the packaged units, and of the program where nothing is said.
pub(crate) const PACKAGED: &str = "/etc/cygnet/cygnet.toml";

/// The configuration with which a unit of this text (what is dropped in counted) starts cygnet.
#[must_use]
pub fn configuration_of_unit(text: &str) -> PathBuf {
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ExecStart="));
    // An empty one takes back those before it.
    let command = lines.rfind(|line| !line.trim().is_empty());
    let mut words = words(command.unwrap_or_default()).into_iter();
    let named = words.find_map(|word| match word.strip_prefix("--config")? {
        "" => Some(None),
        rest => rest.strip_prefix('=').map(|path| Some(path.to_owned())),
    });
    let named = named.and_then(|named| named.or_else(|| words.next()));
    named.map_or_else(|| PACKAGED.into(), PathBuf::from)
}

/// The words of a command line, as systemd.service(5) has them: quotes, backslashes, `%%` and `$$`. What other
/// specifiers and variables stand for is not known here; they stay as they are.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut letters = line.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if letters.peek().is_none() {
            return words;
        }
        words.push(word(&mut letters));
    }
}

fn word(letters: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    let mut quote = None;
    while let Some(letter) = letters.next_if(|next| quote.is_some() || !next.is_whitespace()) {
        match letter {
            '"' | '\'' if quote == Some(letter) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(letter),
            '\\' => word.extend(escaped(letters)),
            '%' | '$' => {
                letters.next_if_eq(&letter);
                word.push(letter);
            }
            _ => word.push(letter),
        }
    }
    word
}

/// What follows a backslash.
fn escaped(letters: &mut Peekable<Chars<'_>>) -> Option<char> {
    match letters.next()? {
        'x' => {
            let digits: String = letters.by_ref().take(2).collect();
            u8::from_str_radix(&digits, 16).ok().map(char::from)
        }
        't' => Some('\t'),
        'n' => Some('\n'),
        's' => Some(' '),
        letter => Some(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_its_configuration_in_whatever_words() {
        for (command, expected) in [
            ("/usr/bin/cygnet run", PACKAGED),
            (
                "/usr/bin/cygnet run --config /srv/vpn.toml",
                "/srv/vpn.toml",
            ),
            (
                "/usr/bin/cygnet run --config=/srv/vpn.toml.bak",
                "/srv/vpn.toml.bak",
            ),
            (
                "/usr/bin/cygnet --config \"/srv/my vpn.toml\" run",
                "/srv/my vpn.toml",
            ),
            (
                "/usr/bin/cygnet run \"--config=/srv/a \\\"b\\\\c\"",
                "/srv/a \"b\\c",
            ),
            (
                "/usr/bin/cygnet run --config /srv/100%%/$$HOME.toml",
                "/srv/100%/$HOME.toml",
            ),
            (
                "/usr/bin/cygnet run --config /srv/a\\x20b.toml",
                "/srv/a b.toml",
            ),
            ("/usr/bin/cygnet run --config \"/srv/cut", "/srv/cut"),
        ] {
            let unit =
                format!("[Service]\nExecStart=/bin/false\nExecStart=\nExecStart={command}\n");
            assert_eq!(
                configuration_of_unit(&unit),
                PathBuf::from(expected),
                "{command}"
            );
        }
        assert_eq!(configuration_of_unit(""), PathBuf::from(PACKAGED));
    }
}
