//! The text of the configuration: a section is added at its end, or values of one that is there are changed where they
//! stand; and back. Comments, order and blanks stay. What came of an edit is read again and compared with what was meant.

use std::collections::BTreeMap;
use std::ops::Range;

use cygnet_daemon::survey::SOME_RESOLVER;
use cygnet_profile::read::quoted;
use toml::de::DeTable;
use toml::{Table, Value};

use super::wish::Wish;
use crate::command::import::sections::Sections;

/// Stands before what was added.
const MARK: &str = "# Written by `cygnet gateway setup`; `cygnet gateway off` takes it away.";

/// The section that all of this is about.
const GATEWAY: &str = "gateway";

const ADVERTISE: &str = "\n[gateway.advertise]\n";

/// The configuration with the gateway that is wished for.
pub(super) fn with(text: &str, wish: &Wish) -> Result<String, String> {
    let source = Source::read(text)?;
    if !source.table.contains_key(GATEWAY) {
        let section = format!("{MARK}\n{}", section(wish));
        return Ok(Sections::of(text.to_owned()).with_section(&section));
    }
    let mut edit = Edit::of(&source);
    for (key, value) in values(wish) {
        edit.set(&[key], value);
    }
    match (wish.dns, source.value(&["dns"]).is_some()) {
        (true, false) => edit.add(&["dns"], Table::new(), "\n[gateway.dns]\n"),
        (false, true) => edit.remove_section("dns"),
        _ => {}
    }
    match (&wish.dhcp, source.value(&["dhcp"]).is_some()) {
        (Some(range), true) => {
            edit.set(&["dhcp", "range"], Some(range.as_str().into()));
            // Who answered until now does so no more.
            let answered = source.value(&["dns"]).is_some() && !wish.dns;
            if answered && source.value(&["dhcp", "dns"]).is_none() {
                edit.set(&["dhcp", "dns"], Some(resolvers()));
            }
        }
        (Some(range), false) => {
            let mut table = Table::from_iter([("range".to_owned(), Value::from(range.as_str()))]);
            if !wish.dns {
                table.insert("dns".to_owned(), resolvers());
            }
            edit.add(&["dhcp"], table, &lending(range, wish.dns));
        }
        (None, true) => edit.remove_section("dhcp"),
        (None, false) => {}
    }
    match (wish.advertise, source.value(&["advertise"]).is_some()) {
        (true, false) => edit.add(&["advertise"], Table::new(), ADVERTISE),
        (false, true) => edit.remove_section("advertise"),
        _ => {}
    }
    edit.done().ok_or_else(|| {
        "[gateway] is written in a way that cannot be changed here: change it by hand, or write each key on a line of its own"
            .to_owned()
    })
}

/// `[gateway]` and what belongs to it, as it is added.
fn section(wish: &Wish) -> String {
    let mut text = "[gateway]\n".to_owned();
    for (key, value) in values(wish) {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {}\n", written(&value)));
        }
    }
    if wish.dns {
        text.push_str("\n[gateway.dns]\n");
    }
    if let Some(range) = &wish.dhcp {
        text.push_str(&lending(range, wish.dns));
    }
    if wish.advertise {
        text.push_str(ADVERTISE);
    }
    text
}

/// `answers`: this machine answers questions for names, so devices are told of it.
fn lending(range: &str, answers: bool) -> String {
    let dns = match answers {
        true => String::new(),
        false => format!("dns = {}\n", written(&resolvers())),
    };
    format!("\n[gateway.dhcp]\nrange = {}\n{dns}", quoted(range))
}

/// Whether devices are told of [`SOME_RESOLVER`] after this change and were not before.
pub(super) fn names_resolver(before: &str, after: &str) -> bool {
    let named = |text: &str| {
        let table: Table = text.parse().ok()?;
        table.get(GATEWAY)?.get("dhcp")?.get("dns").cloned()
    };
    named(after) == Some(resolvers()) && named(before) != named(after)
}

/// What devices are told where nobody answers on this machine.
fn resolvers() -> Value {
    Value::from(vec![SOME_RESOLVER])
}

/// What each key of the section is to be; `None`: it is not to be there.
fn values(wish: &Wish) -> [(&'static str, Option<Value>); 6] {
    let list = |items: &[String]| match items {
        [] => None,
        [one] => Some(Value::from(one.as_str())),
        several => Some(Value::from(several.to_vec())),
    };
    let default = wish.default.as_str();
    [
        ("tunnel", Some(wish.tunnel.as_str().into())),
        ("lan", list(&wish.lan)),
        ("default", (default != "tunnelled").then(|| default.into())),
        ("tunnelled", list(&wish.tunnelled)),
        ("direct", list(&wish.direct)),
        ("blocked", list(&wish.blocked)),
    ]
}

/// A value as text: words, and lists of them.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(written).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// For a comparison: a list of one is the one.
fn meaning(value: Option<&Value>) -> Option<Value> {
    match value {
        Some(Value::Array(list)) if list.len() == 1 => list.first().cloned(),
        other => other.cloned(),
    }
}

/// A text with the places of what `[gateway]` says in it.
struct Source<'a> {
    text: &'a str,
    table: Table,
    /// By path within the section: from the key to the value's end, and the value alone.
    places: BTreeMap<Vec<String>, (Range<usize>, Range<usize>)>,
}

impl<'a> Source<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let told = |error: toml::de::Error| error.message().to_owned();
        let table: Table = text.parse().map_err(told)?;
        let spans = DeTable::parse(text).map_err(told)?;
        let mut places = BTreeMap::new();
        let section = spans
            .get_ref()
            .iter()
            .find(|(key, _)| key.get_ref() == GATEWAY);
        if let Some(section) = section.and_then(|(_, value)| value.get_ref().as_table()) {
            find_places(section, &mut Vec::new(), &mut places);
        }
        Ok(Self {
            text,
            table,
            places,
        })
    }

    /// What is said there, within the section.
    fn value(&self, path: &[&str]) -> Option<&Value> {
        let mut at = self.table.get(GATEWAY)?;
        for key in path {
            at = at.get(key)?;
        }
        Some(at)
    }

    fn place(&self, path: &[&str]) -> Option<(Range<usize>, Range<usize>)> {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        self.places.get(&path).cloned()
    }

    /// Sections of this name and those in them, each with its mark: to the last line that says something, so that what is
    /// said behind stays. `path` is that of a header, such as `gateway.dns`.
    fn sections(&self, path: &str) -> Vec<Range<usize>> {
        let within = format!("{path}.");
        let mut found: Vec<Range<usize>> = Vec::new();
        let (mut open, mut at) = (false, 0);
        let mut before: Vec<(usize, &str)> = Vec::new();
        for line in self.text.split_inclusive('\n') {
            let start = at;
            at += line.len();
            let trimmed = line.trim();
            if let Some(name) = header(trimmed) {
                open = name == path || name.starts_with(&within);
                if open {
                    let marked = before.last().filter(|(_, line)| *line == MARK);
                    let blank = (before.iter().rev().nth(1)).filter(|(_, line)| line.is_empty());
                    let start = match (marked, blank) {
                        (Some(_), Some((start, _))) | (Some((start, _)), None) => *start,
                        (None, _) => start,
                    };
                    found.push(start..at);
                }
            } else if open
                && !trimmed.is_empty()
                && !trimmed.starts_with('#')
                && let Some(last) = found.last_mut()
            {
                last.end = at;
            }
            before.push((start, trimmed));
        }
        found
    }
}

fn find_places(
    table: &DeTable<'_>,
    path: &mut Vec<String>,
    places: &mut BTreeMap<Vec<String>, (Range<usize>, Range<usize>)>,
) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        match value.get_ref().as_table() {
            Some(inner) => find_places(inner, path, places),
            None => {
                let whole = key.span().start..value.span().end;
                places.insert(path.clone(), (whole, value.span()));
            }
        }
        path.pop();
    }
}

/// The name of a section, if the line begins one.
fn header(line: &str) -> Option<String> {
    let line = line.split_once('#').map_or(line, |(line, _)| line.trim());
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    let parts = name
        .split('.')
        .map(|part| part.trim().trim_matches(['"', '\'']));
    Some(parts.collect::<Vec<_>>().join("."))
}

/// Changes of a text, and what they are to mean.
struct Edit<'s> {
    source: &'s Source<'s>,
    changes: Vec<(Range<usize>, String)>,
    added: String,
    meant: Table,
}

impl<'s> Edit<'s> {
    fn of(source: &'s Source<'s>) -> Self {
        Self {
            source,
            changes: Vec::new(),
            added: String::new(),
            meant: source.table.clone(),
        }
    }

    /// A value within the section is to be this, or not to be there.
    fn set(&mut self, path: &[&str], value: Option<Value>) {
        let text = value.as_ref().map(written);
        self.set_as(path, value, text);
    }

    /// The same, as it is to be written.
    fn set_as(&mut self, path: &[&str], value: Option<Value>, text: Option<String>) {
        if meaning(self.source.value(path)) == meaning(value.as_ref()) {
            return;
        }
        match (self.source.place(path), text) {
            (Some((_, place)), Some(text)) => self.changes.push((place, text)),
            (Some((whole, _)), None) => self.changes.push((self.lines(whole), String::new())),
            (None, Some(text)) => {
                let key = path.last().copied().unwrap_or_default();
                let at = self.end_of_keys(path);
                self.changes.push((at..at, format!("{key} = {text}\n")));
            }
            (None, None) => {}
        }
        self.mean(path, value);
    }

    /// A section is added at the end.
    fn add(&mut self, path: &[&str], table: Table, text: &str) {
        self.added.push_str(text);
        self.mean(path, Some(Value::Table(table)));
    }

    fn remove_section(&mut self, name: &str) {
        let sections = self.source.sections(&format!("{GATEWAY}.{name}"));
        self.changes
            .extend(sections.into_iter().map(|range| (range, String::new())));
        self.mean(&[name], None);
    }

    fn remove_all(&mut self) {
        let sections = self.source.sections(GATEWAY);
        self.changes
            .extend(sections.into_iter().map(|range| (range, String::new())));
        self.meant.remove(GATEWAY);
    }

    fn mean(&mut self, path: &[&str], value: Option<Value>) {
        let Some((last, before)) = path.split_last() else {
            return;
        };
        let mut at = self.meant.get_mut(GATEWAY);
        for key in before {
            at = at.and_then(|at| at.get_mut(key));
        }
        if let Some(Value::Table(table)) = at {
            match value {
                Some(value) => drop(table.insert((*last).to_owned(), value)),
                None => drop(table.remove(*last)),
            }
        }
    }

    /// The lines that a place is on.
    fn lines(&self, place: Range<usize>) -> Range<usize> {
        let text = self.source.text;
        let before = text.get(..place.start).unwrap_or_default();
        let behind = text.get(place.end..).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = behind
            .find('\n')
            .map_or(text.len(), |at| place.end + at + 1);
        start..end
    }

    /// Behind the last key that stands beside this one.
    fn end_of_keys(&self, path: &[&str]) -> usize {
        let places = self.source.places.iter();
        let beside = places.filter(|(other, _)| {
            let (other, path) = (other.split_last(), path.split_last());
            other
                .zip(path)
                .is_some_and(|((_, other), (_, path))| other == path)
        });
        let last = beside
            .map(|(_, (whole, _))| whole.clone())
            .max_by_key(|whole| whole.end);
        last.map_or(self.source.text.len(), |whole| self.lines(whole).end)
    }

    /// The text, if it means what it is to mean.
    fn done(mut self) -> Option<String> {
        let mut text = self.source.text.to_owned();
        self.changes
            .sort_by_key(|(range, _)| (range.start, range.end));
        for (range, by) in self.changes.iter().rev() {
            text.get(range.clone())?;
            text.replace_range(range.clone(), by);
        }
        if !self.added.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.added);
        let means: Table = text.parse().ok()?;
        same(&means, &self.meant).then_some(text)
    }
}

/// Whether both say the same.
fn same(a: &Table, b: &Table) -> bool {
    a.len() == b.len()
        && a.iter().all(|(key, a)| match (a, b.get(key)) {
            (Value::Table(a), Some(Value::Table(b))) => same(a, b),
            (a, b) => meaning(Some(a)) == meaning(b),
        })
}

/// A configuration from which a setup was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Back {
    pub(super) text: String,
    /// Somebody has changed it since.
    pub(super) by_hand: bool,
    /// It cannot be read any more, so nothing was taken out.
    pub(super) unreadable: bool,
    /// What there is to say of it.
    pub(super) notes: Vec<String>,
}

const UNREADABLE: &str = "it was changed since and cannot be read any more, so it stays as it is: take [gateway] out by hand";

/// `now` without what turned `before` into `written`.
pub(super) fn back(now: &str, before: &str, written: &str) -> Back {
    // The latter: the setup did not come to it.
    if now == written || now == before {
        return Back {
            text: before.to_owned(),
            by_hand: false,
            unreadable: false,
            notes: Vec::new(),
        };
    }
    let mut back = Back {
        text: now.to_owned(),
        by_hand: true,
        unreadable: false,
        notes: Vec::new(),
    };
    let sources = (
        Source::read(now),
        Source::read(before),
        Source::read(written),
    );
    let (Ok(now), Ok(before), Ok(written)) = sources else {
        back.unreadable = true;
        back.notes.push(UNREADABLE.to_owned());
        return back;
    };
    let mut edit = Edit::of(&now);
    if before.value(&[]).is_none() {
        back.notes.push(
            match (now.value(&[]), now.value(&[]) == written.value(&[])) {
                (None, _) => "it was changed since, and has no [gateway] any more: it stays as it is",
                (Some(_), true) => {
                    "it was changed since: [gateway] is taken out of it, and the rest stays as it is"
                }
                (Some(_), false) => {
                    "it was changed since, in [gateway] as well: that section is taken out of it with what somebody wrote \
                     there, and the rest stays as it is"
                }
            }
            .to_owned(),
        );
        edit.remove_all();
    } else {
        back.notes.push(
            "it was changed since: what the setup changed in [gateway] is as before, and the rest stays as it is".to_owned(),
        );
        back.notes.extend(take_out(&mut edit, &before, &written));
    }
    match edit.done() {
        Some(text) => back.text = text,
        None => {
            back.unreadable = true;
            back.notes = vec![UNREADABLE.to_owned()];
        }
    }
    back
}

/// Changes back what a setup changed in a section that was there. What is somebody else's by now is told.
fn take_out(edit: &mut Edit<'_>, before: &Source<'_>, written: &Source<'_>) -> Vec<String> {
    const KEYS: [&[&str]; 11] = [
        &["tunnel"],
        &["lan"],
        &["default"],
        &["tunnelled"],
        &["direct"],
        &["blocked"],
        &["dns"],
        &["dhcp"],
        &["dhcp", "range"],
        &["dhcp", "dns"],
        &["advertise"],
    ];
    let mut told = Vec::new();
    for path in KEYS {
        let (was, set, is) = (
            before.value(path),
            written.value(path),
            edit.source.value(path),
        );
        let is_table = |value: Option<&Value>| value.is_some_and(Value::is_table);
        // A section that was there and is changed is changed by its keys.
        let both = is_table(was) && is_table(set);
        let one_level_up = path.split_last().is_some_and(|(_, up)| {
            !(up.is_empty() || is_table(before.value(up)) && is_table(written.value(up)))
        });
        if both || one_level_up || meaning(was) == meaning(set) {
            continue;
        }
        if meaning(is) != meaning(set) {
            let key = path.join(".");
            told.push(format!("`{key}` in [gateway] was changed since, and stays"));
            continue;
        }
        match (was, is_table(was) || is_table(set)) {
            (Some(Value::Table(table)), true) => {
                let name = format!("{GATEWAY}.{}", path.join("."));
                let ranges = before.sections(&name).into_iter();
                let text: String = ranges.filter_map(|range| before.text.get(range)).collect();
                edit.add(path, table.clone(), &format!("\n{text}"));
            }
            (_, true) => edit.remove_section(path.first().copied().unwrap_or_default()),
            (was, false) => {
                let place = before.place(path).map(|(_, value)| value);
                let text = place.and_then(|place| before.text.get(place));
                edit.set_as(path, was.cloned(), text.map(str::to_owned));
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use cygnet_gateway::DevicePolicy;

    use super::*;

    const TUNNEL: &str = "# mine\n[tunnel.home] # the server\nremote = \"203.0.113.5\"\npsk = \"k\"\n\
        virtual_address = true\n# the end\n";

    fn wish() -> Wish {
        Wish {
            tunnel: "home".into(),
            lan: vec!["eth0".into()],
            default: DevicePolicy::Tunnelled,
            tunnelled: Vec::new(),
            direct: Vec::new(),
            blocked: Vec::new(),
            dns: false,
            dhcp: None,
            advertise: false,
        }
    }

    #[test]
    fn a_section_is_added_at_the_end_and_nothing_else_moves() {
        let text = with(TUNNEL, &wish()).unwrap();
        assert_eq!(
            text,
            format!("{TUNNEL}\n{MARK}\n[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n")
        );
        let more = Wish {
            lan: vec!["eth0".into(), "eth1".into()],
            default: DevicePolicy::Direct,
            tunnelled: vec!["192.168.1.9".into()],
            blocked: vec!["02:00:00:00:00:01".into(), "tv".into()],
            dns: true,
            dhcp: Some("192.168.1.100-192.168.1.199".into()),
            ..wish()
        };
        assert_eq!(
            section(&more),
            "[gateway]\ntunnel = \"home\"\nlan = [\"eth0\", \"eth1\"]\ndefault = \"direct\"\ntunnelled = \"192.168.1.9\"\n\
             blocked = [\"02:00:00:00:00:01\", \"tv\"]\n\n[gateway.dns]\n\n[gateway.dhcp]\n\
             range = \"192.168.1.100-192.168.1.199\"\n"
        );
    }

    #[test]
    fn devices_are_told_a_resolver_where_nobody_answers_here() {
        let lending = Wish {
            dhcp: Some("192.168.1.100-192.168.1.199".into()),
            ..wish()
        };
        let told = "[gateway.dhcp]\nrange = \"192.168.1.100-192.168.1.199\"\ndns = [\"9.9.9.9\"]\n";
        for before in [TUNNEL.to_owned(), format!("{TUNNEL}{GATEWAY}")] {
            let text = with(&before, &lending).unwrap();
            assert!(text.ends_with(told), "{text}");
            assert!(names_resolver(&before, &text) && !names_resolver(&text, &text));
            let answering = Wish {
                dns: true,
                ..lending.clone()
            };
            let text = with(&before, &answering).unwrap();
            assert!(!text.contains("9.9.9.9"), "{text}");
            assert!(!names_resolver(&before, &text));
            let text = with(&text, &lending).unwrap();
            assert!(text.ends_with(told), "{text}");
        }
    }

    const GATEWAY: &str = "\n# the LAN\n[gateway] # of the house\ntunnel = \"home\" # ours\nlan = [ \"eth0\" ]   # left\n\
        blocked = \"camera\"\nnetworks = [\"10.1.0.0/24\"]\n\n[gateway.devices]\ncamera = \"02:00:00:00:00:01\"\n# last\n";

    #[test]
    fn values_change_where_they_stand() {
        let text = format!("{TUNNEL}{GATEWAY}");
        let same = Wish {
            blocked: vec!["camera".into()],
            ..wish()
        };
        assert_eq!(with(&text, &same).as_ref(), Ok(&text));
        let other = Wish {
            lan: vec!["eth1".into()],
            dns: true,
            ..wish()
        };
        let expected = text
            .replace("lan = [ \"eth0\" ]   #", "lan = \"eth1\"   #")
            .replace("blocked = \"camera\"\n", "")
            + "\n[gateway.dns]\n";
        assert_eq!(with(&text, &other), Ok(expected.clone()));
        let without = with(
            &expected,
            &Wish {
                dns: false,
                ..other
            },
        );
        assert!(!without.unwrap().contains("gateway.dns"));
    }

    #[test]
    fn who_is_advertised_is_so_until_addresses_are_lent() {
        let advertised = Wish {
            advertise: true,
            ..wish()
        };
        for before in [TUNNEL.to_owned(), format!("{TUNNEL}{GATEWAY}")] {
            let text = with(&before, &advertised).unwrap();
            assert!(text.ends_with("\n[gateway.advertise]\n"), "{text}");
            assert_eq!(with(&text, &advertised).as_ref(), Ok(&text));
            let lending = Wish {
                dhcp: Some("192.168.1.100-192.168.1.199".into()),
                ..wish()
            };
            let lent = with(&text, &lending).unwrap();
            assert!(
                !lent.contains("advertise") && lent.contains("[gateway.dhcp]"),
                "{lent}"
            );
            let now = format!("{text}# more\n");
            let back = back(&now, &before, &text);
            assert!(!back.text.contains("advertise"), "{}", back.text);
        }
    }

    #[test]
    fn what_nobody_changed_comes_back_to_the_byte() {
        for before in [TUNNEL.to_owned(), format!("{TUNNEL}{GATEWAY}")] {
            let written = with(&before, &wish()).unwrap();
            assert_ne!(written, before);
            for now in [&written, &before] {
                let back = back(now, &before, &written);
                assert_eq!((back.text, back.by_hand), (before.clone(), false));
            }
        }
    }

    #[test]
    fn of_a_file_that_somebody_changed_only_the_section_goes() {
        let written = with(TUNNEL, &wish()).unwrap();
        let now = format!("# hello\n{written}# behind\n\n[daemon]\nlog = \"debug\"\n");
        let taken = back(&now, TUNNEL, &written);
        assert!(taken.by_hand && taken.notes[0].contains("the rest stays"));
        let expected = format!("# hello\n{TUNNEL}# behind\n\n[daemon]\nlog = \"debug\"\n");
        assert_eq!(taken.text, expected);
        // What was written into the section goes with it, and that is told.
        let inside = written.replace("lan = \"eth0\"\n", "lan = \"eth0\"\ndirect = \"tv\"\n");
        let taken = back(&inside, TUNNEL, &written);
        assert!(!taken.text.contains("gateway"), "{}", taken.text);
        assert!(taken.notes[0].contains("in [gateway] as well"));
        let gone = format!("{TUNNEL}# more\n");
        assert_eq!(back(&gone, TUNNEL, &written).text, gone);
    }

    #[test]
    fn of_a_section_that_was_there_what_was_changed_goes_back() {
        let before = format!("{TUNNEL}{GATEWAY}");
        let written = with(
            &before,
            &Wish {
                lan: vec!["eth1".into()],
                ..wish()
            },
        )
        .unwrap();
        let now = written.replace(
            "networks = [\"10.1.0.0/24\"]",
            "networks = [\"10.2.0.0/24\"]",
        );
        let taken = back(&now, &before, &written);
        assert!(taken.text.contains("lan = [ \"eth0\" ]"), "{}", taken.text);
        assert!(
            taken.text.contains("blocked = \"camera\""),
            "{}",
            taken.text
        );
        assert!(taken.text.contains("10.2.0.0/24"), "{}", taken.text);
        // Somebody has another interface now: his word counts.
        let now = written.replace("\"eth1\"", "\"eth2\"");
        let taken = back(&now, &before, &written);
        assert!(taken.text.contains("eth2"), "{}", taken.text);
        assert!(taken.notes.iter().any(|note| note.contains("`lan`")));
    }

    #[test]
    fn a_section_in_one_line_is_not_guessed_at() {
        let text = TUNNEL.replace(
            "[tunnel.home]",
            "gateway = { tunnel = \"home\", lan = \"eth0\", blocked = \"tv\" }\n[tunnel.home]",
        );
        assert!(with(&text, &wish()).unwrap_err().contains("by hand"));
    }

    #[test]
    fn what_only_looks_like_a_section_is_none() {
        let before = format!("{TUNNEL}\n[daemon]\nlog = \"\"\"\n[gateway]\nlan = 1\n\"\"\"\n");
        let written = with(&before, &wish()).unwrap();
        let now = format!("{written}# more\n");
        let taken = back(&now, &before, &written);
        // Taken for one, it would go: so nothing is done, and it is told.
        assert!(
            taken.text == now && taken.notes[0].contains("by hand"),
            "{taken:?}"
        );
    }

    #[test]
    fn what_cannot_be_read_stays() {
        let written = with(TUNNEL, &wish()).unwrap();
        let broken = format!("{written}[[[\n");
        let taken = back(&broken, TUNNEL, &written);
        assert_eq!((taken.text, taken.unreadable), (broken, true));
        assert!(taken.notes[0].contains("by hand"));
    }
}
