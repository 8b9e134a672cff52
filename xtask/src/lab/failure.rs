//! The one error of the lab: a message for a person, with what was being done around it.

use std::fmt;

/// What went wrong, outermost context first. Any standard error becomes one with `?`.
pub struct Failure {
    message: String,
}

/// Shorthand used all over the lab.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

// `Failure` itself must not implement `std::error::Error`: that is what allows this conversion.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        Self::new(message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Adds what was being done to the error of a result.
pub trait Context<T> {
    /// `result.context("reading the key")?`
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.into().while_doing(what))
    }
}

/// Fails with a formatted message: `bail!("expected {a}, saw {b}")`.
#[macro_export]
macro_rules! bail {
    ($($part:tt)*) => {
        return Err($crate::lab::Failure::new(format!($($part)*)))
    };
}

/// Fails with a formatted message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($part:tt)*) => {
        if !$condition {
            $crate::bail!($($part)*);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_told_from_the_outside_in() {
        let inner: Result<(), Failure> = Err(Failure::new("no such file"));
        let told = inner.context("reading the key").context("starting charon");
        assert_eq!(
            told.unwrap_err().to_string(),
            "starting charon: reading the key: no such file"
        );
    }

    #[test]
    fn standard_errors_convert() {
        fn parse() -> Result<u8> {
            Ok("300".parse::<u8>()?)
        }
        assert!(parse().unwrap_err().to_string().contains("too large"));
    }
}
