//! `cygnet top`: tunnels as they are, again and again, on a terminal; or one frame of it as text.

mod keys;
mod live;
mod meter;
mod model;
mod screen;
#[cfg(test)]
mod testing;
mod view;

use std::io::{IsTerminal, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use hyper::Method;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use time::UtcOffset;

use crate::args::top::Top;
use crate::client;
use model::{Answer, Known, Model};
use view::Look;

const STATUS: &str = "/v1/status";
const DEVICES: &str = "/v1/devices";

pub(super) fn top(options: &Top) -> ExitCode {
    let look = Look {
        colour: std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
        // Once there are other threads it is not told.
        zone: UtcOffset::current_local_offset().ok(),
        keys: !options.once,
    };
    if options.once {
        return once(options, &look);
    }
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return super::refuse(
            "top needs a terminal to read keys from and to draw on; `cygnet top --once` prints one frame",
        );
    }
    match live::watch(options, &look) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => super::fail(&message),
    }
}

/// Two answers make a rate.
fn once(options: &Top, look: &Look) -> ExitCode {
    let mut model = Model::new(options.interval);
    for first in [true, false] {
        if !first {
            std::thread::sleep(options.interval);
        }
        model.handle_answer(Instant::now(), ask(&options.socket.socket));
        if let Known::Silence(why) = &model.known {
            return super::fail(why);
        }
    }
    let width = std::env::var("COLUMNS").ok();
    let width = width.and_then(|columns| columns.parse().ok());
    print!("{}", text(&model, look, width.unwrap_or(80)));
    ExitCode::SUCCESS
}

fn ask(socket: &Path) -> Answer {
    Answer {
        status: client::call(socket, Method::GET, STATUS, None),
        devices: None,
    }
}

/// A frame, as long as it takes.
fn text(model: &Model, look: &Look, width: u16) -> String {
    let area = Rect::new(0, 0, width.clamp(20, 400), view::length(model));
    let mut buffer = Buffer::empty(area);
    view::draw(model, look, area, &mut buffer);
    let mut text = String::new();
    for row in area.rows() {
        let mut line = String::new();
        for cell in row.positions() {
            line.push_str(buffer[cell].symbol());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let end = text.trim_end().len();
    text.truncate(end);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_frame_as_text_shows_every_tunnel() {
        let names: Vec<String> = (0..40).map(|n| format!("tunnel{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut model = Model::new(Duration::from_secs(1));
        let status = serde_json::to_vec(&testing::status(&names)).unwrap();
        let answer = Answer {
            status: Ok(status),
            devices: None,
        };
        model.handle_answer(Instant::now(), answer);
        let text = text(&model, &testing::LOOK, 80);
        for name in names {
            assert!(text.contains(name), "{name} is not in {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
    }
}
