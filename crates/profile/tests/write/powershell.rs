//! The Windows script, by a small lexer of PowerShell that knows its typographic quotes.
//!
//! PowerShell takes U+2018 to U+201B for `'` and U+201C to U+201E for `"` wherever a quote has a meaning, and two of
//! a kind side by side within a string for one (about_Quoting_Rules; the language specification, §2.3.5.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cygnet_pki::authority::KeyKind;

use crate::sample;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Comment,
    /// A string that nothing is expanded in.
    Verbatim(String),
    /// A string in which variables and commands are expanded.
    Expandable(String),
    Variable(String),
    /// Letters, digits and what may stand in a command's name.
    Word(String),
    Sign(char),
}

fn is_single(letter: char) -> bool {
    matches!(letter, '\'' | '\u{2018}'..='\u{201b}')
}

fn is_double(letter: char) -> bool {
    matches!(letter, '"' | '\u{201c}'..='\u{201e}')
}

/// Takes a script apart; panics where a string does not end.
pub(crate) fn lex(script: &str) -> Vec<Token> {
    let mut rest = script.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(letter) = rest.next() {
        match letter {
            _ if letter.is_whitespace() => {}
            '#' => {
                while rest.next_if(|&next| next != '\n' && next != '\r').is_some() {}
                tokens.push(Token::Comment);
            }
            _ if is_single(letter) || is_double(letter) => {
                let single = is_single(letter);
                let ends = |next: char| {
                    if single {
                        is_single(next)
                    } else {
                        is_double(next)
                    }
                };
                let mut text = String::new();
                loop {
                    let next = rest.next().expect("the string ends");
                    if ends(next) {
                        match rest.next_if(|&second| ends(second)) {
                            Some(second) => text.push(second),
                            None => break,
                        }
                    } else {
                        text.push(next);
                    }
                }
                tokens.push(match single {
                    true => Token::Verbatim(text),
                    false => Token::Expandable(text),
                });
            }
            '$' => {
                let mut name = String::new();
                while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    name.push(next);
                }
                tokens.push(Token::Variable(name));
            }
            _ if letter.is_alphanumeric() => {
                let mut word = String::from(letter);
                while let Some(next) =
                    rest.next_if(|next| next.is_alphanumeric() || "_-.".contains(*next))
                {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            _ => tokens.push(Token::Sign(letter)),
        }
    }
    tokens
}

/// What follows `$NAME =`, up to the next assignment or function, with its value if it is a text.
fn assigned<'a>(tokens: &'a [Token], name: &str) -> &'a [Token] {
    let is_name = |pair: &[Token]| pair == [Token::Variable(name.to_owned()), Token::Sign('=')];
    let start = tokens.windows(2).position(is_name).expect("assigned") + 2;
    let after = &tokens[start..];
    let end = after.windows(2).position(|pair| {
        matches!(pair, [Token::Variable(_), Token::Sign('=')])
            || pair[0] == Token::Word("function".into())
    });
    &after[..end.expect("something follows")]
}

/// The value of an expression this script may hold.
fn value(expression: &[Token]) -> String {
    let sign = Token::Sign;
    let word = |word: &str| Token::Word(word.to_owned());
    match expression {
        [Token::Verbatim(text)] => text.clone(),
        [
            head @ ..,
            Token::Verbatim(octets),
            Token::Sign(')'),
            Token::Sign(')'),
        ] => {
            let expected = [
                sign('['),
                word("Text.Encoding"),
                sign(']'),
                sign(':'),
                sign(':'),
                word("UTF8.GetString"),
                sign('('),
                sign('['),
                word("Convert"),
                sign(']'),
                sign(':'),
                sign(':'),
                word("FromBase64String"),
                sign('('),
            ];
            assert_eq!(head, expected);
            let octets = STANDARD.decode(octets).expect("base64");
            String::from_utf8(octets).expect("UTF-8")
        }
        other => panic!("no text: {other:?}"),
    }
}

/// Whether the title is exactly what the script calls the connection, and the rest is as it is for any title.
pub(crate) fn check(script: &str, title: &str, tame: &str) {
    // In every code page the same, so no octet becomes a quote.
    assert!(script.is_ascii());
    let tokens = lex(script);
    let name = assigned(&tokens, "Name");
    assert_eq!(value(name), title);
    let tame = lex(tame);
    let without = |tokens: &[Token], count: usize| {
        let is_name = |pair: &[Token]| pair == [Token::Variable("Name".into()), Token::Sign('=')];
        let start = tokens.windows(2).position(is_name).expect("assigned") + 2;
        [&tokens[..start], &tokens[start + count..]].concat()
    };
    let tame_name = assigned(&tame, "Name").len();
    assert_eq!(without(&tokens, name.len()), without(&tame, tame_name));
}

#[test]
fn the_lexer_knows_quotes_of_every_shape() {
    for quote in ['\'', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201b}'] {
        let script = format!("'a{quote} ; calc '");
        let verbatim = |text: &str| Token::Verbatim(text.to_owned());
        let calc = Token::Word("calc".to_owned());
        let expected = [verbatim("a"), Token::Sign(';'), calc, verbatim("b")];
        assert_eq!(lex(&format!("{script}b'")), expected);
        assert_eq!(
            lex(&format!("'a{quote}{quote}b'")),
            [verbatim(&format!("a{quote}b"))]
        );
    }
    assert_eq!(
        lex("\u{201e}a$x\u{201d}"),
        [Token::Expandable("a$x".to_owned())]
    );
}

/// The texts of a list.
fn texts(tokens: &[Token], name: &str) -> Vec<String> {
    let texts = assigned(tokens, name)
        .iter()
        .filter_map(|token| match token {
            Token::Verbatim(text) => Some(text.clone()),
            _ => None,
        });
    texts.collect()
}

#[test]
fn every_domain_of_a_split_tunnel_is_asked_through_it() {
    let mut profile = sample::certificate();
    profile.dns = vec!["10.0.0.53".parse().expect("an address")];
    profile.domains = vec!["example.org".to_owned(), "example.net".to_owned()];
    for split in [false, true] {
        if split {
            profile.networks = vec!["10.0.0.0/8".parse().expect("a network")];
        }
        let files = sample::files(&profile);
        let tokens = lex(sample::text(&files, "windows/alice.phone.ps1"));
        let expected = |all: &[&str]| match split {
            true => all.iter().map(|it| (*it).to_owned()).collect(),
            false => Vec::<String>::new(),
        };
        let domains = expected(&["example.org", "example.net"]);
        assert_eq!(texts(&tokens, "Domains"), domains);
        assert_eq!(texts(&tokens, "Resolvers"), expected(&["10.0.0.53"]));
        assert_eq!(value(assigned(&tokens, "Domain")), "example.org");
    }
}

#[test]
fn a_server_that_signs_with_rsa_has_no_script() {
    let mut profile = sample::of_kind(KeyKind::Rsa3072);
    for login in [None, Some(cygnet_profile::Login::Password)] {
        if let Some(login) = login {
            profile.login = login;
        }
        let files = sample::files(&profile);
        assert!(!files.iter().any(|file| file.path.starts_with("windows/")));
        let page = sample::text(&files, "README.html");
        assert!(page.contains("this server signs with RSA") && !page.contains(".ps1"));
    }
}

#[test]
fn the_script_sets_proposals_the_server_accepts() {
    let files = sample::files(&sample::certificate());
    let script = sample::text(&files, "windows/alice.phone.ps1");
    let tokens = lex(script);
    for (name, expected) in [
        ("Name", "Cygnet vpn.example.org"),
        ("Server", "vpn.example.org"),
        ("P12", "alice.phone.p12"),
        ("Domain", ""),
        ("IkeCipher", "GCMAES256"),
        ("IkeHash", "SHA384"),
        ("IkeGroup", "ECP384"),
        ("EspCipher", "GCMAES256"),
        ("PfsGroup", "ECP384"),
    ] {
        assert_eq!(value(assigned(&tokens, name)), expected, "{name}");
    }
    assert!(
        !tokens
            .iter()
            .any(|token| matches!(token, Token::Expandable(_)))
    );
    let words: Vec<&str> = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word.as_str()),
            _ => None,
        })
        .collect();
    for command in [
        "Add-VpnConnection",
        "Set-VpnConnectionIPsecConfiguration",
        "Import-PfxCertificate",
        "Import-Certificate",
        "Remove-VpnConnection",
        "Add-DnsClientNrptRule",
        "Remove-DnsClientNrptRule",
        "rasdial.exe",
    ] {
        assert!(words.contains(&command), "{command}");
    }
    assert_eq!(texts(&tokens, "Routes"), ["2000::/3", "fc00::/7"]);
    assert!(texts(&tokens, "Domains").is_empty());
    let brackets = |open: char, close: char| {
        let count = |sign: char| {
            tokens
                .iter()
                .filter(|token| **token == Token::Sign(sign))
                .count()
        };
        assert_eq!(count(open), count(close), "{open}{close}");
    };
    brackets('{', '}');
    brackets('(', ')');
    brackets('[', ']');
}

#[test]
fn a_grammar_of_powershell_finds_no_error() {
    let mut parser = tree_sitter::Parser::new();
    let language = tree_sitter_powershell::LANGUAGE.into();
    parser
        .set_language(&language)
        .expect("a grammar of a known version");
    let mut quoted = sample::password();
    quoted.title = "it's \u{201c}q\u{201d}".to_owned();
    quoted.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    for profile in [sample::certificate(), quoted] {
        let files = sample::files(&profile);
        let script = sample::text(&files, "windows/alice.phone.ps1");
        let tree = parser.parse(script, None).expect("a tree");
        assert!(
            !tree.root_node().has_error(),
            "{}",
            tree.root_node().to_sexp()
        );
    }
    let broken = parser.parse("function x { 'a", None).expect("a tree");
    assert!(broken.root_node().has_error());
}

#[test]
fn the_proposals_are_of_the_server_s_own() {
    let mut profile = sample::password();
    profile.ike = vec!["aes128gcm16-prfsha256-ecp256".to_owned()];
    profile.esp = vec!["aes128gcm16".to_owned()];
    profile.networks = vec!["10.0.0.0/8".parse().expect("a network")];
    let files = sample::files(&profile);
    let tokens = lex(sample::text(&files, "windows/alice.phone.ps1"));
    for (name, expected) in [
        ("P12", ""),
        ("IkeCipher", "GCMAES128"),
        ("IkeHash", "SHA256"),
        ("IkeGroup", "ECP256"),
        ("EspCipher", "GCMAES128"),
        ("PfsGroup", "None"),
    ] {
        assert_eq!(value(assigned(&tokens, name)), expected, "{name}");
    }
    assert_eq!(assigned(&tokens, "Split"), [Token::Variable("true".into())]);
    let routes = assigned(&tokens, "Routes");
    assert!(
        routes.contains(&Token::Verbatim("10.0.0.0/8".into())),
        "{routes:?}"
    );
}
