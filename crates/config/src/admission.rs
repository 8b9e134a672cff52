//! The files that say who is let in.

use toml::{Table, Value};

use crate::guard::strings;
use crate::{SERVER, parse};

/// Revocation lists and lists of devices that a configuration names, as they are written in its text. What is
/// fetched is no file.
#[must_use]
pub fn admission_files(text: &str) -> Vec<String> {
    let table: Table = toml::from_str(text).unwrap_or_default();
    let tunnels = table.get("tunnel").and_then(Value::as_table);
    let sections = table
        .get(SERVER)
        .into_iter()
        .chain(tunnels.into_iter().flat_map(Table::values));
    let values = sections.flat_map(|section| [section.get("crl"), section.get("devices")]);
    let names = values.flat_map(strings);
    names
        .filter(|name| !parse::is_url(name))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_found_in_every_section() {
        let text = "[server]\ncrl = 'a'\ndevices = 'b'\n[tunnel.x]\ncrl = ['c', 'http://e.example/f', 'd']\n[tunnel.y]\nca = 'e'\n";
        assert_eq!(admission_files(text), ["a", "b", "c", "d"]);
    }
}
