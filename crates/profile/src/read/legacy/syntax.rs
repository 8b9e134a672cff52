//! The lines of `ipsec.conf`: a header at the margin, and indented `key=value` below it.

use super::{Error, File, Note, Place};

/// Sections and settings beyond this are nobody's configuration.
const SECTIONS_MAX: usize = 512;
const SETTINGS_MAX: usize = 256;
const VALUE_MAX: usize = 4096;

pub(super) struct Section {
    /// `conn`, `ca` or `config`.
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) settings: Vec<Setting>,
}

pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

/// A line that is neither is noted and left out; what belongs to it stays with the section above.
pub(super) fn parse(file: &File, notes: &mut Vec<Note>) -> Result<Vec<Section>, Error> {
    let text = file.text()?;
    let mut sections: Vec<Section> = Vec::new();
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        let place = Place::line(&file.name, at + 1);
        let mut left_out = |text: &str| notes.push(Note::NotRead(place.clone(), text.to_owned()));
        let content = without_comment(line).trim_end();
        if content.trim().is_empty() {
            continue;
        }
        if !content.starts_with([' ', '\t']) {
            inside = false;
            let mut words = content.split_whitespace();
            match (words.next(), words.next()) {
                (Some(kind @ ("conn" | "ca" | "config")), Some(name)) => {
                    if sections.len() >= SECTIONS_MAX {
                        return Err(Error::at(
                            &place,
                            format!("more than {SECTIONS_MAX} sections"),
                        ));
                    }
                    sections.push(Section {
                        kind: kind.to_owned(),
                        name: name.trim_matches('"').to_owned(),
                        line: at + 1,
                        settings: Vec::new(),
                    });
                    inside = true;
                }
                (Some("version"), _) => {}
                (Some("include"), _) => {
                    left_out(
                        "include is not followed: name that file instead, or put both into one",
                    );
                }
                _ => left_out(
                    "expected `conn NAME`, or a setting indented below one; the line is left out",
                ),
            }
            continue;
        }
        let Some((key, value)) = content.split_once('=') else {
            left_out("expected key=value; the line is left out");
            continue;
        };
        let Some(section) = sections.last_mut().filter(|_| inside) else {
            left_out("a setting that belongs to no section; it is left out");
            continue;
        };
        if section.settings.len() >= SETTINGS_MAX || value.len() > VALUE_MAX {
            return Err(Error::at(
                &place,
                format!(
                    "more than {SETTINGS_MAX} settings in a section, or {VALUE_MAX} bytes in one"
                ),
            ));
        }
        section.settings.push(Setting {
            key: key.trim().to_owned(),
            value: unquoted(value.trim()),
            line: at + 1,
        });
    }
    Ok(sections)
}

/// A `#` begins a comment, but for one between quotation marks.
pub(super) fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '#' && !quoted
    });
    end.and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

/// `"CN=a b"` is `CN=a b`.
fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    match inner {
        Some(inner) => inner.replace("\\\"", "\""),
        None => value.to_owned(),
    }
}
