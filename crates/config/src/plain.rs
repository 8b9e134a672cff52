//! What the TOML reader says, without the words of a programmer.

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
        ] {
            let error = Config::parse("t", text, &mut |p| Err(format!("no {p}"))).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(expected), "{told}");
            assert!(miette::Diagnostic::help(&error).is_none(), "said twice");
            assert!(!told.contains("u16") && !told.contains("field"), "{told}");
        }
    }
}
