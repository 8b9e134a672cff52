//! What the tests of this crate share.

use crate::Random;

/// Octets from hexadecimal digits; anything else is skipped.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    assert!(
        digits.len().is_multiple_of(2),
        "odd number of hexadecimal digits"
    );
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4) | pair[1])
        .collect()
}

/// A case of a Wycheproof file in `vectors/`.
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) valid: bool,
    pub(crate) fields: Vec<Vec<u8>>,
}

/// The cases of a file in `vectors/`.
pub(crate) fn cases(file: &'static str) -> impl Iterator<Item = Case> {
    file.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ');
            let id = words.next().expect("a case has an id");
            // "acceptable" cases are right answers to odd questions.
            let valid = words.next() != Some("invalid");
            Case {
                id,
                valid,
                fields: words.map(hex).collect(),
            }
        })
}

/// Yields these octets, then fails the test.
pub(crate) struct Script(std::collections::VecDeque<u8>);

impl Script {
    pub(crate) fn new(octets: Vec<u8>) -> Self {
        Script(octets.into())
    }
}

impl Random for Script {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill_with(|| {
            self.0
                .pop_front()
                .expect("more randomness was asked than scripted")
        });
    }
}
