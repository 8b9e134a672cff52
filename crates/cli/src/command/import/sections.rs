//! The text of `cygnet.toml`, to which sections are added and in which one's own are replaced; nothing else in it is
//! touched.

use std::path::Path;

use cygnet_profile::read::quoted;
use toml::{Table, Value};

/// A configuration as text.
#[derive(PartialEq, Eq)]
pub(super) struct Sections {
    text: String,
}

/// A tunnel that an earlier import wrote.
pub(super) struct Replaced {
    /// The folder of its files.
    pub(super) folder: Option<String>,
}

impl Sections {
    /// The file; an empty text where there is none.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        if path.is_symlink() {
            return Err(format!(
                "{shown} is a link: name the file it leads to with --config, so that it stays one"
            ));
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(format!(
                    "cannot read {shown}: {error}; try again with sudo?"
                ));
            }
        };
        if let Err(error) = text.parse::<Table>() {
            return Err(format!(
                "{shown} is not good as it is; mend it first (`cygnet check`): {}",
                error.message()
            ));
        }
        if let Some(line) = mark_in_value(&text) {
            return Err(format!(
                "{shown}, line {line}: a mark of `cygnet import` stands inside a value there, so it cannot be told what an \
                 import wrote: change that value first"
            ));
        }
        Ok(Self { text })
    }

    pub(super) fn of(text: String) -> Self {
        Self { text }
    }

    fn table(&self) -> Table {
        self.text.parse().unwrap_or_default()
    }

    /// Whether a tunnel of this name may be written: there is none, or it is one of ours and may be `replace`d.
    pub(super) fn tunnel(&self, name: &str, replace: bool) -> Result<Option<Replaced>, String> {
        let table = self.table();
        let tunnels = table.get("tunnel").and_then(Value::as_table);
        let Some(tunnel) = tunnels.and_then(|it| it.get(name)) else {
            return Ok(None);
        };
        let ours = self.block(&tunnel_title(name)).is_some();
        match (ours, replace) {
            (true, true) => {
                let mut files = ["certificate", "psk", "password"].into_iter();
                let file = files.find_map(|it| tunnel.get(it)).and_then(Value::as_str);
                let file = file.unwrap_or_default();
                let folder = file.split_once('/').map(|(folder, _)| folder);
                // Of an import's own making it is a name and nothing else.
                let own = |it: &&str| it.starts_with(name) && !it.starts_with('.');
                let folder = folder.filter(own).map(str::to_owned);
                Ok(Some(Replaced { folder }))
            }
            (true, false) => Err(format!(
                "there is a tunnel {name} already, from an earlier import: --replace it, or give this one another --name"
            )),
            (false, _) => Err(format!(
                "there is a tunnel {name} already, which was not imported: give this one another --name"
            )),
        }
    }

    /// The text with the tunnel in it: where it was, or at the end.
    pub(super) fn with_tunnel(&self, name: &str, section: &str) -> String {
        self.with(&tunnel_title(name), section)
    }

    /// The text with `[gateway]` through the tunnel.
    pub(super) fn with_gateway(
        &self,
        tunnel: &str,
        lan: &[String],
        replace: bool,
    ) -> Result<String, String> {
        let ours = self.block(GATEWAY).is_some();
        if self.table().contains_key("gateway") && !(ours && replace) {
            let remedy = match ours {
                true => "--replace it",
                false => "write this tunnel there by hand",
            };
            return Err(format!(
                "there is a [gateway] already: {remedy}, or import without --gateway"
            ));
        }
        let lan = match lan {
            [one] => quoted(one),
            several => {
                let names: Vec<String> = several.iter().map(|it| quoted(it)).collect();
                format!("[{}]", names.join(", "))
            }
        };
        let section = format!("[gateway]\ntunnel = {}\nlan = {lan}\n", quoted(tunnel));
        Ok(self.with(GATEWAY, &section))
    }

    fn with(&self, title: &str, section: &str) -> String {
        let block = format!("{}\n{section}{}\n", begin(title), end(title));
        if let Some(at) = self.block(title) {
            let (before, after) = (self.text.get(..at.start), self.text.get(at.end..));
            return [before, Some(&block), after]
                .into_iter()
                .flatten()
                .collect();
        }
        let mut text = self.text.clone();
        if !text.is_empty() {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push('\n');
        }
        text.push_str(&block);
        text
    }

    /// Where a block of ours stands, its marks included.
    fn block(&self, title: &str) -> Option<std::ops::Range<usize>> {
        let mut at = 0;
        let mut start = None;
        for line in self.text.split_inclusive('\n') {
            let trimmed = line.trim_end();
            if trimmed == begin(title) {
                start = Some(at);
            }
            at += line.len();
            if trimmed == end(title)
                && let Some(start) = start
            {
                return Some(start..at);
            }
        }
        None
    }
}

const GATEWAY: &str = "[gateway]";

/// The first line that looks like a mark and is part of a value: marks are comments, without which a text means the same.
fn mark_in_value(text: &str) -> Option<usize> {
    let is_mark = |line: &str| {
        let begins = line.starts_with("# [") && line.contains("] was written by `cygnet import`");
        begins || line.starts_with("# end of [")
    };
    let table = text.parse::<Table>().ok();
    let matters = |at: usize| {
        let lines = text.split_inclusive('\n').enumerate();
        let without: String = lines.filter(|(it, _)| *it != at).map(|it| it.1).collect();
        without.parse::<Table>().ok() != table
    };
    let marks = text.lines().enumerate().filter(|(_, line)| is_mark(line));
    marks
        .map(|(at, _)| at)
        .find(|at| matters(*at))
        .map(|at| at + 1)
}

fn tunnel_title(name: &str) -> String {
    format!("[tunnel.{name}]")
}

fn begin(title: &str) -> String {
    format!(
        "# {title} was written by `cygnet import`, and is replaced by `cygnet import --replace`, down to the end mark"
    )
}

fn end(title: &str) -> String {
    format!("# end of {title}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = "[tunnel.home]\nremote = \"a\"\ncertificate = \"home/client.crt\"\n";

    #[test]
    fn what_is_there_stays_as_it_is() {
        let written = "# mine\n[daemon]\nlog = \"debug\" # loud";
        let once = Sections::of(written.into()).with_tunnel("home", SECTION);
        assert!(
            once.starts_with("# mine\n[daemon]\nlog = \"debug\" # loud\n\n#"),
            "{once}"
        );
        let more = format!("{once}# below\n[tunnel.other]\nremote = \"b\"\n");
        let again = Sections::of(more).with_tunnel("home", &SECTION.replace("\"a\"", "\"c\""));
        assert!(
            again.ends_with("# end of [tunnel.home]\n# below\n[tunnel.other]\nremote = \"b\"\n"),
            "{again}"
        );
        assert!(
            again.contains("remote = \"c\"") && !again.contains("remote = \"a\""),
            "{again}"
        );
        assert_eq!(again.matches("[tunnel.home]\n").count(), 2, "{again}");
    }

    #[test]
    fn only_what_an_import_wrote_is_replaced() {
        let own = Sections::of(Sections::of(String::new()).with_tunnel("home", SECTION));
        assert!(own.tunnel("other", false).is_ok_and(|it| it.is_none()));
        assert!(
            own.tunnel("home", false)
                .is_err_and(|it| it.contains("--replace"))
        );
        let replaced = own.tunnel("home", true).ok().flatten().expect("ours");
        assert_eq!(replaced.folder.as_deref(), Some("home"));
        let foreign = Sections::of(SECTION.into());
        assert!(
            foreign
                .tunnel("home", true)
                .is_err_and(|it| it.contains("not imported"))
        );
    }

    #[test]
    fn a_mark_inside_a_value_is_no_mark() {
        let own = Sections::of(String::new()).with_tunnel("home", SECTION);
        assert_eq!(mark_in_value(&own), None);
        let title = tunnel_title("home");
        for mark in [begin(&title), end(&title)] {
            let value = format!("[tunnel.a]\nremote = \"\"\"\n{mark}\n\"\"\"\n{own}");
            assert_eq!(mark_in_value(&value), Some(3), "{value}");
        }
    }

    #[test]
    fn a_text_is_one_line_whatever_is_in_it() {
        let odd = "a\n# end of [tunnel.home]\n\"'\u{7f}";
        let written = quoted(odd);
        assert_eq!(written.lines().count(), 1, "{written}");
        let table: Table = format!("x = {written}").parse().expect("TOML");
        assert_eq!(table.get("x").and_then(Value::as_str), Some(odd));
    }

    #[test]
    fn there_is_one_gateway() {
        let lan = ["eth0".to_owned()];
        let text = Sections::of(String::new()).with_gateway("home", &lan, false);
        let text = text.expect("none was there");
        assert!(
            text.contains("[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n"),
            "{text}"
        );
        let again = Sections::of(text);
        assert!(again.with_gateway("b", &lan, false).is_err());
        let lans = ["eth0".to_owned(), "wlan0".to_owned()];
        let replaced = again.with_gateway("b", &lans, true).expect("ours");
        assert!(
            replaced.contains("tunnel = \"b\"\nlan = [\"eth0\", \"wlan0\"]\n"),
            "{replaced}"
        );
        assert!(!replaced.contains("\"home\""));
        let foreign = Sections::of("[gateway]\ntunnel = \"x\"\nlan = \"eth0\"\n".into());
        assert!(
            foreign
                .with_gateway("b", &lan, true)
                .is_err_and(|it| it.contains("by hand"))
        );
    }
}
