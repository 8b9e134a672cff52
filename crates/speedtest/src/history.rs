//! Earlier runs: a text with one in JSON on each line, the oldest first.

use crate::Run;

/// So many are kept.
pub const RUNS_MAX: usize = 200;

/// The text with a further run; the oldest give way.
#[must_use]
pub fn append(text: &str, run: &Run) -> String {
    let new = serde_json::to_string(run).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .chain([new.as_str()])
        .collect();
    let old = lines.len().saturating_sub(RUNS_MAX);
    let kept = lines.iter().skip(old);
    kept.fold(String::new(), |text, line| text + line + "\n")
}

/// The runs of a text, the oldest first. A line that is none (of another version, cut off) is passed over.
#[must_use]
pub fn read(text: &str) -> Vec<Run> {
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::example;

    #[test]
    fn the_oldest_give_way_and_what_is_no_run_is_passed_over() {
        let mut text = "cut off {\n\n".to_owned();
        for at in 0..RUNS_MAX as i64 + 5 {
            let run = Run { at, ..example() };
            text = append(&text, &run);
        }
        let runs = read(&text);
        assert_eq!(runs.len(), RUNS_MAX);
        assert_eq!((runs[0].at, runs[RUNS_MAX - 1].at), (5, 204));
        assert_eq!(text.lines().count(), RUNS_MAX);
        assert_eq!(runs[7].paths, example().paths);
        assert_eq!(read("{}\n[1]\n"), []);
    }
}
