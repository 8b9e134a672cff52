//! `cygnet top`

use std::time::Duration;

use clap::Args as ClapArgs;

use super::Socket;

/// Seconds between two looks.
const LEAST: f64 = 0.2;
const MOST: f64 = 60.0;

#[derive(Debug, ClapArgs)]
pub(crate) struct Top {
    /// Seconds between two looks, 0.2 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Print one frame as text, after one interval, and end: for a pipe, a file, a forum
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) socket: Socket,
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (LEAST..=MOST).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!(
            "expected a number of seconds from {LEAST} to {MOST}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_neither_nothing_nor_for_ever() {
        assert_eq!(interval("0.2"), Ok(Duration::from_millis(200)));
        assert_eq!(interval("60"), Ok(Duration::from_secs(60)));
        for wrong in ["0", "0.1", "61", "-1", "nan", "inf", "", "1s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
