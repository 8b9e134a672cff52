//! A frame: what the model knows, on as many cells as there are. Every size will do, the smaller the less is said.
//! Colour is never all that tells something.

mod pages;
mod tunnels;

use cygnet_daemon::api::{Guard, Status};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Widget, Wrap};
use time::UtcOffset;

use super::super::status::duration;
use super::model::{Known, Model, Page};

/// How it is to look, whatever is shown.
pub(super) struct Look {
    pub(super) colour: bool,
    /// That of whoever looks; `None`: unknown.
    pub(super) zone: Option<UtcOffset>,
    /// Whether there are keys to be told of.
    pub(super) keys: bool,
}

impl Look {
    fn paint(&self, colour: Color) -> Style {
        match self.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn good(&self) -> Style {
        self.paint(Color::Green)
    }

    fn busy(&self) -> Style {
        self.paint(Color::Yellow)
    }

    fn bad(&self) -> Style {
        self.paint(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn title(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn chosen(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// Lines of a terminal as it is mostly.
const LINES: u16 = 24;

pub(super) fn draw(model: &Model, look: &Look, area: Rect, buffer: &mut Buffer) {
    let foot = u16::from(look.keys && area.height > 2);
    let rows = [
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(foot),
    ];
    let [head, body, foot] = Layout::vertical(rows).areas(area);
    header(model, look).render(head, buffer);
    Line::from(keys(foot.width)).render(foot, buffer);
    if model.help {
        return pages::help(look, body, buffer);
    }
    let status = match &model.known {
        Known::Status(status) => status,
        Known::Nothing => return told("asking cygnet…", Style::new(), body, buffer),
        Known::Silence(why) => {
            let why = format!("{why}\n\ntrying again every {}", seconds(model));
            return told(&why, look.bad(), body, buffer);
        }
    };
    match model.page {
        Page::Tunnels => tunnels::draw(model, status, look, body, buffer),
        Page::Devices => pages::devices(model, look, body, buffer),
        Page::History => pages::history(model, status, look, body, buffer),
    }
}

/// Lines that a frame takes in which no tunnel is left out.
pub(super) fn length(model: &Model) -> u16 {
    let tunnels = u16::try_from(model.connections().len()).unwrap_or(u16::MAX);
    tunnels.saturating_mul(2).saturating_add(LINES).min(1000)
}

fn header(model: &Model, look: &Look) -> Line<'static> {
    let mut line = Line::from(Span::styled("cygnet", look.title()));
    let mut say = |text: String, style: Style| {
        line.push_span(Span::styled(text, style));
    };
    if model.paused {
        say(" PAUSED".to_owned(), look.busy());
    }
    if let Known::Status(status) = &model.known {
        say(format!(" {}", status.version), Style::new());
        match status.guard {
            Guard::NotConfigured => {}
            Guard::On => say(", guard on".to_owned(), look.good()),
            Guard::Missing => say(", GUARD MISSING".to_owned(), look.bad()),
        }
        let up = duration(status.uptime_s as f64);
        say(format!(", up for {up}"), Style::new());
        if status.engine_restarts > 0 {
            let restarts = status.engine_restarts;
            say(format!(", engine restarted {restarts} times"), look.bad());
        }
    }
    say(format!(", every {}", seconds(model)), Style::new());
    line
}

fn seconds(model: &Model) -> String {
    format!("{} s", model.interval.as_secs_f64())
}

fn keys(width: u16) -> &'static str {
    match width {
        0..48 => "q quit  ? help",
        48..76 => "q quit  ? help  Tab tunnel  d devices  h history",
        _ => "q quit  ? help  Tab tunnel  d devices  h history  p pause  + - interval",
    }
}

/// A sentence or two, as wide as there is room.
fn told(text: &str, style: Style, area: Rect, buffer: &mut Buffer) {
    let lines: Vec<Line<'_>> = text.lines().map(Line::from).collect();
    Paragraph::new(Text::from(lines))
        .style(style)
        .wrap(Wrap { trim: true })
        .render(area, buffer);
}

/// Lines that a part takes at least, if it is to be there at all, and with which it is content.
#[derive(Clone, Copy)]
struct Need {
    least: u16,
    wish: u16,
}

/// Shares lines out: first to each what it needs at least, then what it wishes, whoever stands first first.
fn share<const N: usize>(height: u16, needs: [Need; N]) -> [u16; N] {
    let mut left = height;
    let mut shares = needs.map(|need| {
        let share = need.least.min(need.wish).min(left);
        left -= share;
        share
    });
    for (share, need) in shares.iter_mut().zip(needs) {
        let more = need.wish.saturating_sub(*share).min(left);
        *share += more;
        left -= more;
    }
    shares
}

/// `1.2 Mbit/s`: ten characters at most.
fn rate(bits: f64) -> String {
    const UNITS: [&str; 4] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
    let mut value = bits.max(0.0);
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

fn warnings<'a>(status: &'a Status, look: &Look) -> Vec<Line<'a>> {
    let warnings = status.warnings.iter();
    warnings
        .map(|warning| Line::styled(format!("warning: {warning}"), look.busy()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::keys::Action;
    use super::super::model::Answer;
    use super::super::testing;
    use super::*;

    const SIZES: [(u16, u16); 3] = [(80, 24), (40, 10), (200, 60)];

    fn frame(model: &Model, look: &Look, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(model, look, frame.area(), frame.buffer_mut()))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let line = |row: Rect| row.positions().map(|cell| buffer[cell].symbol()).collect();
        let lines: Vec<String> = buffer.area.rows().map(line).collect();
        lines
            .iter()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    fn know(model: &mut Model, second: u64, status: &Status) {
        let answer = Answer {
            status: Ok(serde_json::to_vec(status).unwrap()),
            devices: None,
        };
        // Instants cannot be made from numbers.
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        model.handle_answer(*START + Duration::from_secs(second), answer);
    }

    /// What cygnet says of the LAN's devices.
    fn two_devices() -> Vec<u8> {
        let devices = json!({"default": "tunnelled", "direct_networks": [], "problem": null, "devices": [
            {"device": "02:00:00:00:00:01", "name": "tv", "addresses": ["192.168.1.9"], "policy": "direct", "from": "command",
             "last_seen_s": 61.0},
            {"device": "02:00:00:00:00:02", "name": null, "host_name": "phone", "addresses": [], "policy": "tunnelled",
             "from": "default", "last_seen_s": null},
        ]});
        devices.to_string().into_bytes()
    }

    fn some_changes() -> Vec<serde_json::Value> {
        (0..20)
            .map(|n| json!({"at": null, "what": "down", "text": format!("why {n}")}))
            .collect()
    }

    /// Received 8 Mbit/s and sent 800 kbit/s in the last second.
    fn busy(tunnels: &[&str]) -> (Model, Status) {
        let mut model = Model::new(Duration::from_secs(1));
        let mut status = testing::status(tunnels);
        know(&mut model, 0, &status);
        if !tunnels.is_empty() {
            testing::carry(&mut status, 0, 1_000_000, 100_000);
        }
        know(&mut model, 1, &status);
        (model, status)
    }

    #[test]
    fn one_tunnel_is_told_at_every_size() {
        let (mut model, mut status) = busy(&["home"]);
        testing::drop(&mut status, "esp-replayed", 7);
        testing::drop(&mut status, "multicast", 9);
        testing::carry(&mut status, 0, 1_000_000, 100_000);
        know(&mut model, 2, &status);
        for size in SIZES {
            let lines = frame(&model, &testing::LOOK, size);
            let all = lines.join("\n");
            assert!(
                lines[0].starts_with("cygnet 0.1.0, guard on, up for"),
                "{all}"
            );
            let tunnel = lines.iter().find(|line| line.starts_with("> home"));
            let tunnel = tunnel.unwrap_or_else(|| panic!("no tunnel in {all}"));
            for word in [" up ", " 8.0 M", " 800 k"] {
                assert!(tunnel.contains(word), "{word} in {tunnel}");
            }
            assert!(all.contains("dropped  esp-replayed 7"), "{all}");
            assert!(!all.contains("multicast"), "{all}");
            assert!(lines.last().unwrap().starts_with("q quit"), "{all}");
            // Two samples, the highest there is.
            assert!(all.contains("██"), "{all}");
        }
        let all = frame(&model, &testing::LOOK, (80, 24)).join("\n");
        for words in [
            "in 2.0 MB, out 200.0 kB since the engine started",
            "new keys: 4 Child SAs, 1 IKE SA; the next in 55 min",
            "vpn.example.org 192.168.1.2:4500 -> 203.0.113.5:4500",
            "esp-replayed 7 (7/s)",
        ] {
            assert!(all.contains(words), "{words} is not in {all}");
        }
    }

    #[test]
    fn nothing_known_nothing_configured_and_nobody_there_are_told() {
        let mut model = Model::new(Duration::from_secs(1));
        for size in SIZES {
            assert!(frame(&model, &testing::LOOK, size)[1].contains("asking"));
        }
        know(&mut model, 0, &testing::status(&[]));
        for size in SIZES {
            let all = frame(&model, &testing::LOOK, size).join("\n");
            assert!(all.contains("no tunnels"), "{all}");
        }
        let mut away = testing::status(&["home"]);
        away.engine = None;
        know(&mut model, 1, &away);
        for size in SIZES {
            let all = frame(&model, &testing::LOOK, size).join("\n");
            assert!(all.contains("the engine is being restarted"), "{all}");
        }
        let why = "cannot reach /run/cygnet/control.sock: No such file or directory (os error 2); is cygnet running? (systemctl status cygnet)";
        let silence = Answer {
            status: Err(why.to_owned()),
            devices: None,
        };
        model.handle_answer(Instant::now(), silence);
        for size in SIZES {
            let all = frame(&model, &testing::LOOK, size).join(" ");
            for word in [
                "cannot reach",
                "is cygnet running?",
                "trying again every 1 s",
            ] {
                let words: Vec<&str> = all.split_whitespace().collect();
                assert!(words.join(" ").contains(word), "{word} is not in {all}");
            }
        }
    }

    #[test]
    fn of_many_tunnels_the_chosen_one_is_in_sight() {
        let names: Vec<String> = (0..50).map(|n| format!("tunnel{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (mut model, _) = busy(&names);
        for place in 0..60 {
            let chosen = format!("> tunnel{:02}", place % 50);
            for size in SIZES {
                let lines = frame(&model, &testing::LOOK, size);
                let there = lines.iter().any(|line| line.starts_with(&chosen));
                assert!(there, "{chosen} is not in {}", lines.join("\n"));
            }
            model.handle_action(Action::Next);
        }
    }

    #[test]
    fn long_and_hostile_names_neither_break_a_frame_nor_steer_a_terminal() {
        let long = "a-very-long-name-of-a-tunnel-".repeat(10);
        let evil = "x\u{1b}[2J\u{9b}H\r\nguard on\u{7}\u{202e}漢字\u{301}";
        let (mut model, mut status) = busy(&[evil, &long]);
        let engine = status.engine.as_mut().unwrap();
        engine.connections[0].state = evil.to_owned();
        engine.connections[0].reason = Some(evil.repeat(20));
        engine.connections[0].ike_sas[0].peer = Some(evil.to_owned());
        status.warnings.push(evil.to_owned());
        status.version = evil.to_owned();
        testing::drop(&mut status, evil, 3);
        know(&mut model, 2, &status);
        for size in SIZES {
            for _ in 0..2 {
                let all = frame(&model, &testing::LOOK, size).join("\n");
                let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
                assert!(!all.contains(steers), "{all:?}");
                assert!(!all.lines().any(|line| line.starts_with("guard on")));
                model.handle_action(Action::Next);
            }
        }
    }

    #[test]
    fn no_size_is_too_small_for_any_page() {
        let (mut model, mut status) = busy(&["home", "office"]);
        status.warnings = vec!["a warning".to_owned(); 30];
        for number in 0..30 {
            testing::drop(&mut status, &format!("reason{number}"), number + 1);
        }
        let history = json!([{"name": "home", "changes": some_changes()}]);
        status.history = serde_json::from_value(history).unwrap();
        know(&mut model, 2, &status);
        let devices = Answer {
            status: Ok(serde_json::to_vec(&status).unwrap()),
            devices: Some(Ok(two_devices())),
        };
        model.handle_answer(Instant::now(), devices);
        let turns = [
            Action::Devices,
            Action::Next,
            Action::History,
            Action::Help,
            Action::Interrupt,
        ];
        let large = ["> home", "> tv", "(phone)", "why 19", "this help"];
        for (turn, shown) in turns.into_iter().zip(large) {
            let all = frame(&model, &testing::LOOK, (80, 24)).join("\n");
            assert!(all.contains(shown), "{shown} is not in {all}");
            for width in (0..50).step_by(3) {
                for height in (0..30).step_by(2) {
                    let area = Rect::new(0, 0, width, height);
                    draw(&model, &testing::LOOK, area, &mut Buffer::empty(area));
                }
            }
            model.handle_action(turn);
        }
    }

    #[test]
    fn without_colour_there_is_none_and_with_it_nothing_else_is_told() {
        let (model, _) = busy(&["home"]);
        let painted = |colour| {
            let area = Rect::new(0, 0, 80, 24);
            let mut buffer = Buffer::empty(area);
            let look = Look {
                colour,
                ..testing::LOOK
            };
            draw(&model, &look, area, &mut buffer);
            buffer
        };
        let (plain, coloured) = (painted(false), painted(true));
        assert!(
            plain
                .content
                .iter()
                .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
        );
        assert!(coloured.content.iter().any(|cell| cell.fg == Color::Green));
        let text = |buffer: &Buffer| {
            let symbols = buffer.content.iter().map(|cell| cell.symbol().to_owned());
            symbols.collect::<String>()
        };
        assert_eq!(text(&plain), text(&coloured));
    }

    #[test]
    fn devices_with_their_policies_and_why_there_are_none() {
        let (mut model, status) = busy(&["home"]);
        model.handle_action(Action::Devices);
        let all = frame(&model, &testing::LOOK, (80, 24)).join("\n");
        assert!(all.contains("asking"), "{all}");
        let with = |devices: Result<Vec<u8>, String>| Answer {
            status: Ok(serde_json::to_vec(&status).unwrap()),
            devices: Some(devices),
        };
        model.handle_answer(Instant::now(), with(Ok(two_devices())));
        for size in SIZES {
            let lines = frame(&model, &testing::LOOK, size);
            let all = lines.join("\n");
            let tv = lines.iter().find(|line| line.starts_with("> tv"));
            assert!(tv.is_some_and(|line| line.contains("direct")), "{all}");
            let phone = lines.iter().find(|line| line.contains("(phone)"));
            assert!(
                phone.is_some_and(|line| line.contains("tunnelled")),
                "{all}"
            );
        }
        let refused = "this machine is no gateway";
        model.handle_answer(Instant::now(), with(Err(refused.to_owned())));
        for size in SIZES {
            let all = frame(&model, &testing::LOOK, size).join("\n");
            assert!(all.contains(refused), "{all}");
        }
    }

    #[test]
    fn history_tells_the_last_of_it() {
        let (mut model, mut status) = busy(&["home"]);
        let history = json!([{"name": "home", "changes": some_changes()}]);
        status.history = serde_json::from_value(history).unwrap();
        know(&mut model, 2, &status);
        model.handle_action(Action::History);
        for size in SIZES {
            let all = frame(&model, &testing::LOOK, size).join("\n");
            assert!(all.contains("down at an unknown time: why 19"), "{all}");
        }
        let all = frame(&model, &testing::LOOK, (40, 10)).join("\n");
        assert!(!all.contains("why 12"), "{all}");
    }

    #[test]
    fn rates_fit_their_column() {
        assert_eq!(rate(0.0), "0 bit/s");
        assert_eq!(rate(999.4), "999 bit/s");
        assert_eq!(rate(999.6), "1.0 kbit/s");
        assert_eq!(rate(9_960_000.0), "10 Mbit/s");
        assert_eq!(rate(1_234_000_000.0), "1.2 Gbit/s");
        assert_eq!(rate(-1.0), "0 bit/s");
        for exponent in 0..9 {
            for value in [1.0, 9.94, 9.99, 99.9, 999.4, 999.6] {
                let shown = rate(value * 10f64.powi(exponent));
                assert!(shown.len() <= 10, "{shown}");
            }
        }
    }

    #[test]
    fn lines_are_shared_by_need_and_then_by_wish() {
        let need = |least, wish| Need { least, wish };
        assert_eq!(share(10, [need(2, 4), need(1, 3), need(2, 99)]), [4, 3, 3]);
        assert_eq!(share(5, [need(2, 4), need(1, 3), need(2, 99)]), [2, 1, 2]);
        assert_eq!(share(2, [need(2, 4), need(1, 3), need(2, 99)]), [2, 0, 0]);
        assert_eq!(share(9, [need(2, 1), need(1, 0), need(2, 2)]), [1, 0, 2]);
    }
}
