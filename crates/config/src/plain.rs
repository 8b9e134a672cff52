//! What the TOML reader says, without the words of a programmer.

use std::ops::Range;

use crate::{Mistake, sections};

/// Words of the reader, and what is said instead.
const WORDS: [(&str, &str); 12] = [
    (
        "expected a sequence",
        "expected a list: put it between [ and ]",
    ),
    (
        "string values must be quoted, expected literal string",
        "text must stand between quotation marks; what is on or off is `true` or `false`, without them",
    ),
    (
        "invalid float, expected nothing",
        "text (an address, too) must stand between quotation marks",
    ),
    (
        "expected a boolean",
        "expected true or false, without quotation marks",
    ),
    (
        "expected u16",
        "expected a number from 0 to 65535, without quotation marks",
    ),
    (
        "expected u32",
        "expected a number from 0 to 4294967295, without quotation marks",
    ),
    (
        "expected u64",
        "expected a number from 0 up, without quotation marks",
    ),
    ("expected f32", "expected a number, without quotation marks"),
    (
        "expected struct RawTunnel",
        "expected a section with a name: [tunnel.NAME]",
    ),
    ("expected struct RawServer", "expected a section: [server]"),
    (
        "expected struct RawGateway",
        "expected a section: [gateway]",
    ),
    ("expected struct RawDaemon", "expected a section: [daemon]"),
];

/// The mistake that the reader found in `text`.
pub(crate) fn mistake(text: &str, error: &toml::de::Error) -> Mistake {
    let span = error.span().unwrap_or(0..0);
    let said = error.message().trim();
    let (message, help) = if let Some(rest) = said.strip_prefix("unknown field ") {
        unknown_key(rest, text, span.start)
    } else if let Some(key) = said.strip_prefix("missing field ") {
        let owner = section(text, span.start).unwrap_or("the section");
        (format!("{owner} lacks {key}"), None)
    } else if let Some(twice) = said
        .contains("duplicate key")
        .then(|| duplicate(text, &span))
    {
        twice
    } else if let Some(mark) = text.get(span.start..).and_then(typographic_mark) {
        (
            format!("{mark} is a typographic quotation mark"),
            Some("write \" before and behind the text, or ' at both".to_owned()),
        )
    } else {
        let mut message = said.replace('\n', "; ");
        for (reader, ours) in WORDS {
            message = message.replace(reader, ours);
        }
        (message, None)
    };
    Mistake {
        span,
        message,
        help,
    }
}

/// `rest`: the key and those that were expected, between backquotes; `at`: where in the text it stands.
fn unknown_key(rest: &str, text: &str, at: usize) -> (String, Option<String>) {
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let key = quoted.next().unwrap_or_default();
    let before = text.get(..at).unwrap_or_default();
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let itself = text
        .get(line..)
        .is_some_and(|line| line.trim_start().starts_with('['));
    if let Some((message, help)) = sections::elsewhere(key, section(text, at), itself) {
        return (message, Some(help));
    }
    let known: Vec<&str> = quoted.collect();
    let near = known
        .iter()
        .map(|k| (strsim::osa_distance(key, k), k))
        .min();
    let near = near.filter(|(distance, _)| *distance <= 2);
    let near = near.map_or(String::new(), |(_, k)| format!("did you mean `{k}`? "));
    let help = format!("{near}expected one of: {}", known.join(", "));
    (
        format!("unknown key `{key}`"),
        (!known.is_empty()).then_some(help),
    )
}

/// What a text processor, or a web page, makes of a quotation mark.
fn typographic_mark(text: &str) -> Option<char> {
    let first = text.chars().next()?;
    "\u{201c}\u{201d}\u{201e}\u{201f}\u{2018}\u{2019}\u{201a}\u{ab}\u{bb}"
        .contains(first)
        .then_some(first)
}

/// A section or a key that is there already, which is in line so and so.
fn duplicate(text: &str, span: &Range<usize>) -> (String, Option<String>) {
    let before = text.get(..span.start).unwrap_or_default();
    let line = before.matches('\n').count();
    let lines: Vec<&str> = text.lines().collect();
    let header = |line: &str| {
        let line = line.trim_start();
        let header = line.get(..=line.find(']')?)?;
        header
            .starts_with('[')
            .then(|| header.split_whitespace().collect::<String>())
    };
    let earlier = lines.get(..line).unwrap_or_default().iter();
    let here = lines.get(line).copied().unwrap_or_default();
    let (what, first, remedy) = match header(here) {
        Some(section) => {
            let mut earlier = earlier.map(|line| header(line));
            let first = earlier.position(|it| it.as_ref() == Some(&section));
            (
                section,
                first,
                "write what stands below the two below one of them",
            )
        }
        None => {
            let key = text.get(span.clone()).unwrap_or_default().trim();
            let is_it = |line: &&str| {
                let written = line.split_once('=').map(|(written, _)| written.trim());
                written == Some(key)
            };
            // In the same section.
            let of_section = earlier.rev().take_while(|line| header(line).is_none());
            let above = of_section
                .enumerate()
                .filter(|(_, line)| is_it(line))
                .last();
            let first = above.map(|(above, _)| line - 1 - above);
            (format!("`{key}`"), first, "keep one of the two")
        }
    };
    match first {
        Some(first) => (
            format!("{what} is there already, in line {}", first + 1),
            Some(remedy.to_owned()),
        ),
        None => (format!("{what} is there already"), Some(remedy.to_owned())),
    }
}

/// The header of the section that byte `at` of the text is in.
fn section(text: &str, at: usize) -> Option<&str> {
    let end = text.get(at..)?.find('\n').map_or(text.len(), |n| at + n);
    let mut lines = text.get(..end)?.lines().rev();
    let header = lines.find(|line| line.trim_start().starts_with('['))?;
    let header = header.trim_start();
    header.get(..=header.find(']')?)
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn what_was_meant_is_told_in_the_words_of_the_file() {
        for (text, expected) in [
            (
                "[tunnel.a]\nremote = 203.0.113.5\n",
                "text (an address, too) must stand between quotation marks",
            ),
            (
                "[daemon]\nike_port = \"500\"\n",
                "expected a number from 0 to 65535, without quotation marks",
            ),
            (
                "[server]\npools = []\nunique = \"yes\"\n",
                "expected true or false, without quotation marks",
            ),
            (
                "[daemon]\n[server]\npsk = \"k\"\n",
                "[server] lacks `pools`",
            ),
            (
                "[gateway]\ntunnel = \"a\"\n[daemon]\n",
                "[gateway] lacks `lan`",
            ),
            (
                "[tunnel.a]\nidentitiy = \"a\"\n",
                "unknown key `identitiy`; did you mean `identity`? expected one of: ",
            ),
            (
                "[tunnel.a]\npks = \"a\"\n",
                "unknown key `pks`; did you mean `psk`? expected one of: ",
            ),
            (
                "[tunnel.a]\nfirewall = 1\n",
                "unknown key `firewall`; expected one of: remote, ",
            ),
            (
                "[gateway]\ntunnel = \"a\"\nlan = \"eth0\"\n[gateway.dns]\nresolvers = \"9.9.9.9\"\n\
                 direct_domains = [\"example.org\"]\n",
                "t:6:1: `direct_domains` belongs to [gateway]; write it there, above [gateway.dns]",
            ),
            (
                "[tunnel.a]\nremote = { address = \"b\", psk = \"k\" }\n",
                "`psk` belongs to [tunnel.a]; write it on a line of its own",
            ),
            (
                "remote = \"b\"\n[tunnel.a]\n",
                "`remote` belongs to [tunnel.NAME]; write it below that line",
            ),
            (
                "[daemon]\n[dns]\nresolvers = \"9.9.9.9\"\n",
                "there is no section [dns]; did you mean [gateway.dns]?",
            ),
            (
                "[tunnel.a]\nunique = yes\n",
                "text must stand between quotation marks; what is on or off is `true` or `false`, without them",
            ),
            (
                "[gateway]\ntunnel = \"a\"\nlan = \u{201c}eth0\u{201d}\n",
                "t:3:7: \u{201c} is a typographic quotation mark; write \" before and behind the text",
            ),
            (
                "[daemon]\n[gateway]\ntunnel = \"a\"\nlan = \"eth0\"\n\n[ gateway ]\n",
                "t:6:3: [gateway] is there already, in line 2; write what",
            ),
            (
                "[tunnel.a]\npsk = \"k\"\n[tunnel.b]\nremote = \"b\"\npsk = \"k\"\npsk = \"l\"\n",
                "t:6:1: `psk` is there already, in line 5; keep one",
            ),
            (
                "gateway = { lan = \"eth0\" }\n[gateway]\n",
                "[gateway] is there already",
            ),
        ] {
            let error = Config::parse("t", text, &mut |p| Err(format!("no {p}"))).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(expected), "{told}");
            assert!(miette::Diagnostic::help(&error).is_none(), "said twice");
            assert!(!told.contains("u16") && !told.contains("field"), "{told}");
        }
    }
}
