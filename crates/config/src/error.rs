//! Errors of a configuration: every one points at its place in the text, says what was found
//! there, what was expected and what to do.

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the text it concerns.
    pub span: Range<usize>,
    /// What is wrong: what was found and what was expected.
    pub message: String,
    /// What to do, where that is not obvious.
    pub help: Option<String>,
}

/// A configuration that cannot be used: all mistakes found, in the order of the text.
#[derive(Debug)]
pub struct ConfigError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    text: String,
    source: NamedSource<String>,
    mistakes: Vec<Mistake>,
}

impl ConfigError {
    pub(crate) fn new(name: &str, text: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|m| m.span.start);
        Self(Box::new(Inner {
            name: name.to_owned(),
            text: text.to_owned(),
            source: NamedSource::new(name, text.to_owned()).with_language("toml"),
            mistakes,
        }))
    }

    /// The mistakes, in the order of the text.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0.mistakes
    }

    /// Line and column, both from 1, of a byte of the text.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.0.text.get(..offset).unwrap_or(&self.0.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        (line, column)
    }
}

/// One line a mistake: `cygnet.toml:3:8: what; what to do`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            let (line, column) = self.position(mistake.span.start);
            write!(f, "{}:{line}:{column}: {}", self.0.name, mistake.message)?;
            if let Some(help) = &mistake.help {
                write!(f, "; {help}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// No `help`: what to do is said once, by the line that says what is wrong.
impl Diagnostic for ConfigError {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.0.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.0.mistakes.iter().map(|m| {
            LabeledSpan::new_with_span(Some(m.message.clone()), m.span.clone())
        })))
    }
}
