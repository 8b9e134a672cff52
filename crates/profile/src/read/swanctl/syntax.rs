//! The grammar of strongSwan's newer configuration: `name { … }`, `key = value`, `#` comments.

use zeroize::Zeroizing;

use super::super::{Error, File, Note, Place};

/// Sections within sections, and how many things there are in all.
const DEPTH: usize = 16;
const THINGS_MAX: usize = 4096;
const VALUE_MAX: usize = 4096;

/// What is between two braces.
#[derive(Default)]
pub(super) struct Node {
    pub(super) settings: Vec<Setting>,
    pub(super) sections: Vec<Section>,
}

pub(super) struct Setting {
    pub(super) key: String,
    /// A secret, as often as not.
    pub(super) value: Zeroizing<String>,
    pub(super) line: usize,
}

pub(super) struct Section {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

impl Node {
    /// The last setting of this name.
    pub(super) fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().rev().find(|it| it.key == key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.setting(key).map(|it| it.value.as_str())
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|it| it.name == name)
    }

    /// Sections whose names begin so: `local`, `local-1`, `local-home`.
    pub(super) fn sections_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Section> {
        self.sections
            .iter()
            .filter(move |it| it.name.starts_with(prefix))
    }
}

/// The whole file. What is not understood is noted and left out; braces that do not fit are an error.
pub(super) fn parse(file: &File, notes: &mut Vec<Note>) -> Result<Node, Error> {
    let mut scanner = Scanner {
        rest: file.text()?,
        line: 1,
    };
    let at = |line: usize| Place::line(&file.name, line);
    let mut open: Vec<Section> = Vec::new();
    let mut root = Node::default();
    let mut things = 0;
    loop {
        scanner.skip_blank();
        let line = scanner.line;
        let Some(c) = scanner.peek() else { break };
        things += 1;
        if things > THINGS_MAX {
            return Err(Error::at(
                &at(line),
                format!("more than {THINGS_MAX} settings and sections"),
            ));
        }
        if c == '}' {
            scanner.next();
            let Some(section) = open.pop() else {
                return Err(Error::at(&at(line), "a } without its {"));
            };
            open.last_mut()
                .map_or(&mut root, |it| &mut it.node)
                .sections
                .push(section);
            continue;
        }
        let name = scanner.take_while(|c| !c.is_whitespace() && !"={}#:".contains(c));
        if name.is_empty() {
            scanner.take_while(|c| c != '\n');
            notes.push(Note::NotRead(
                at(line),
                "expected a name; the line is left out".into(),
            ));
            continue;
        }
        if name == "include" {
            scanner.take_while(|c| c != '\n');
            let text = "include is not followed: name that file instead, or put both into one";
            notes.push(Note::NotRead(at(line), text.into()));
            continue;
        }
        scanner.skip_blank();
        if scanner.peek() == Some(':') {
            let text = format!("{name}: settings that it refers to are not taken over");
            notes.push(Note::NotRead(at(line), text));
            scanner.take_while(|c| c != '{' && c != '\n');
        }
        match scanner.peek() {
            Some('{') => {
                scanner.next();
                if open.len() >= DEPTH {
                    return Err(Error::at(
                        &at(line),
                        format!("sections {DEPTH} deep, expected less"),
                    ));
                }
                open.push(Section {
                    name: name.to_owned(),
                    line,
                    node: Node::default(),
                });
            }
            Some('=') => {
                scanner.next();
                let value = scanner.value();
                let value = value.filter(|it| it.len() <= VALUE_MAX).ok_or_else(|| {
                    let text =
                        format!("{name}: a quotation mark is not closed within {VALUE_MAX} bytes");
                    Error::at(&at(line), text)
                })?;
                let value = one_line(name, value).map_err(|text| Error::at(&at(line), text))?;
                let node = open.last_mut().map_or(&mut root, |it| &mut it.node);
                node.settings.push(Setting {
                    key: name.to_owned(),
                    value,
                    line,
                });
            }
            _ => {
                let text = format!("{name}: expected = or {{ behind it; it is left out");
                notes.push(Note::NotRead(at(line), text));
            }
        }
    }
    match open.pop() {
        Some(section) => Err(Error::at(
            &at(section.line),
            format!("{} {{ is not closed", section.name),
        )),
        None => Ok(root),
    }
}

/// What a secret is made of is its own affair; everything else is named in one line of ours.
fn one_line(name: &str, value: Zeroizing<String>) -> Result<Zeroizing<String>, String> {
    if name == "secret" {
        return Ok(value);
    }
    let value = Zeroizing::new(value.replace('\t', " "));
    match value.chars().any(char::is_control) {
        true => Err(format!(
            "{name}: expected one line, found a line break or another control character in it"
        )),
        false => Ok(value),
    }
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }

    /// White space and comments.
    fn skip_blank(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// To the end of the line, or in quotation marks; `None` where these are not closed.
    fn value(&mut self) -> Option<Zeroizing<String>> {
        self.take_while(|c| c == ' ' || c == '\t');
        if self.peek() != Some('"') {
            let value = self.take_while(|c| !"\n#}".contains(c)).trim();
            return Some(Zeroizing::new(value.to_owned()));
        }
        self.next();
        // Of one size: growing would leave copies of a secret behind. One character more than it may have ends it.
        let most = self.rest.len().min(VALUE_MAX + 4);
        let mut out = Zeroizing::new(String::with_capacity(most));
        loop {
            match self.next()? {
                '"' => return Some(Zeroizing::new(out.as_str().to_owned())),
                '\\' => out.push(match self.next()? {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                }),
                c => out.push(c),
            }
            if out.len() > VALUE_MAX {
                return None;
            }
        }
    }
}
