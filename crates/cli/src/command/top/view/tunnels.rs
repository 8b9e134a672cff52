//! The page one begins with: tunnels, what the chosen one does, and what goes wrong.

use cygnet_daemon::api::{ConnectionStatus, Count, EngineStatus, IkeSaStatus, Status};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{
    Cell, RenderDirection, Row, Sparkline, StatefulWidget, Table, TableState, Widget,
};

use super::super::super::status::{bytes, calling, duration, whose};
use super::super::meter::Rate;
use super::super::model::{Model, Series};
use super::{Look, Need, rate, share, told, warnings};

/// Graphs that are higher show no more.
const GRAPHS_MOST: u16 = 18;
/// Below this width graphs stand one above the other.
const SIDE_BY_SIDE: u16 = 60;
/// Widths below which columns are left out.
const WITH_RATES: u16 = 36;
const WITH_UNITS: u16 = 52;
const WITH_ALL: u16 = 64;
/// Lines about peers.
const PEERS_MOST: usize = 20;

pub(super) fn draw(model: &Model, status: &Status, look: &Look, area: Rect, buffer: &mut Buffer) {
    let warnings = warnings(status, look);
    let Some(engine) = &status.engine else {
        let [top, rest] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        told("the engine is being restarted", look.bad(), top, buffer);
        return lines(&warnings, rest, buffer);
    };
    let details = details(model, look);
    let troubles = troubles(model, status, engine, usize::from(area.width));
    let rows = engine.connections.len().max(1);
    let count = |lines: usize| u16::try_from(lines).unwrap_or(u16::MAX);
    let need = |least, wish| Need { least, wish };
    let heights = share(
        area.height,
        [
            need(2, count(rows + 1).min((area.height / 2).max(2))),
            need(1, count(details.len())),
            need(1, count(troubles.len())),
            need(1, count(warnings.len()).min(3)),
            need(2, GRAPHS_MOST),
        ],
    );
    let [table, about, trouble, warned, drawn] =
        Layout::vertical(heights.map(Constraint::Length)).areas(area);
    if engine.connections.is_empty() {
        let none = "no tunnels: the configuration names none";
        told(none, Style::new(), table, buffer);
    } else {
        tunnels(model, look, table, buffer);
    }
    lines(&details, about, buffer);
    lines(&troubles, trouble, buffer);
    lines(&warnings, warned, buffer);
    if let Some(series) = model.chosen().and_then(|of| model.series(&of.name)) {
        graphs(series, look, drawn, buffer);
    }
}

fn lines(lines: &[Line<'_>], area: Rect, buffer: &mut Buffer) {
    for (line, row) in lines.iter().zip(area.rows()) {
        line.render(row, buffer);
    }
}

fn tunnels(model: &Model, look: &Look, area: Rect, buffer: &mut Buffer) {
    // Where there is little room, units stand above.
    let narrow = area.width < WITH_UNITS;
    let (received, sent, rates) = match narrow {
        true => ("IN b/s", "OUT b/s", 7),
        false => ("IN", "OUT", 10),
    };
    let columns = [
        ("TUNNEL", Constraint::Fill(1)),
        ("STATE", Constraint::Length(10)),
        (received, Constraint::Length(rates)),
        (sent, Constraint::Length(rates)),
        ("NEW KEYS", Constraint::Length(8)),
        ("PEERS", Constraint::Length(5)),
    ];
    let shown = match area.width {
        0..WITH_RATES => 2,
        WITH_RATES..WITH_ALL => 4,
        _ => columns.len(),
    };
    let row = |connection: &ConnectionStatus| {
        let rates = model.rates.connections.get(&connection.name);
        let told = |of: fn(&Rate) -> f64| {
            let told = rates.map_or("-".to_owned(), |rates| rate(of(rates)));
            match narrow {
                true => told.trim_end_matches("bit/s").to_owned(),
                false => told,
            }
        };
        let state = match connection.state.as_str() {
            "up" | "listening" => look.good(),
            "down" | "idle" => Style::new(),
            _ => look.busy(),
        };
        let peers = connection.ike_sas.iter().filter(|sa| sa.state == "up");
        let cells = [
            Cell::new(connection.name.clone()),
            Cell::new(connection.state.clone()).style(state),
            Cell::new(told(|rate| rate.received)),
            Cell::new(told(|rate| rate.sent)),
            Cell::new((connection.child_rekeys + connection.ike_rekeys).to_string()),
            Cell::new(peers.count().to_string()),
        ];
        Row::new(cells.into_iter().take(shown))
    };
    let widths = columns.iter().take(shown).map(|(_, width)| *width);
    let titles = columns.iter().take(shown).map(|(title, _)| *title);
    let table = Table::new(model.connections().iter().map(row), widths)
        .header(Row::new(titles).style(look.title()))
        .row_highlight_style(look.chosen())
        .highlight_symbol("> ");
    let mut state = TableState::new().with_selected(Some(model.chosen_place()));
    StatefulWidget::render(table, area, buffer, &mut state);
}

/// What there is to say of the chosen tunnel, the most important first.
fn details<'a>(model: &Model, look: &Look) -> Vec<Line<'a>> {
    let Some(connection) = model.chosen() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    if connection.reason.is_some() || connection.retry_in_s.is_some() {
        let mut line = format!("{}: {}", connection.name, connection.state);
        if let Some(reason) = &connection.reason {
            line.push_str(&format!(" ({reason})"));
        }
        if let Some(retry) = connection.retry_in_s {
            line.push_str(&format!(", next try in {}", duration(retry)));
        }
        lines.push(Line::styled(line, look.busy()));
    }
    let mut peers: Vec<(&IkeSaStatus, Rate)> = connection
        .ike_sas
        .iter()
        .map(|sa| {
            (
                sa,
                model.rates.ike_sas.get(&sa.id).copied().unwrap_or_default(),
            )
        })
        .collect();
    // Who does most, where there are many.
    let busy = |rate: &Rate| rate.received + rate.sent;
    peers.sort_by(|(_, one), (_, other)| busy(other).total_cmp(&busy(one)));
    for (sa, rate) in peers.iter().take(PEERS_MOST) {
        lines.push(peer(sa, *rate, peers.len() > 1, look));
    }
    lines.push(Line::from(format!(
        "in {}, out {} since the engine started",
        bytes(connection.bytes_in),
        bytes(connection.bytes_out)
    )));
    let rekeys = connection.ike_sas.iter().flat_map(|sa| {
        let children = sa.children.iter().filter_map(|child| child.rekey_in_s);
        children.chain(sa.rekey_in_s)
    });
    let next = rekeys.min_by(f64::total_cmp);
    lines.push(Line::from(format!(
        "new keys: {}, {}{}",
        counted(connection.child_rekeys, "Child SA"),
        counted(connection.ike_rekeys, "IKE SA"),
        next.map_or_else(String::new, |next| format!(
            "; the next in {}",
            duration(next)
        ))
    )));
    lines
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

fn peer<'a>(sa: &IkeSaStatus, rates: Rate, one_of_many: bool, look: &Look) -> Line<'a> {
    if sa.state == "connecting" {
        let line = format!("{} -> {}: {}", sa.local, sa.remote, calling(sa));
        return Line::styled(line, look.busy());
    }
    let peer = sa.peer.as_deref().unwrap_or("(not yet known)");
    let who = whose(&sa.user, &sa.device, peer);
    if let Some(request) = sa.in_flight.as_ref().filter(|request| request.sent > 1) {
        let line = format!(
            "{who}: no answer to {} for {}, sent {} times",
            request.exchange,
            duration(request.since_s),
            request.sent
        );
        return Line::styled(line, look.bad());
    }
    let mut line = who;
    if one_of_many {
        let (received, sent) = (rate(rates.received), rate(rates.sent));
        line.push_str(&format!(" in {received}, out {sent},"));
    }
    line.push_str(&format!(" {} -> {}", sa.local, sa.remote));
    line.push_str(&format!(", {} for {}", sa.state, duration(sa.age_s)));
    Line::from(line)
}

/// Drops by reason, what IKE did not take, and names that could not be told.
fn troubles<'a>(
    model: &Model,
    status: &Status,
    engine: &EngineStatus,
    width: usize,
) -> Vec<Line<'a>> {
    // Multicast that no tunnel carries is no sign of trouble.
    let telling = |drop: &&Count| drop.count > 0 && drop.name != "multicast";
    let per_second = |drop: &Count| model.rates.drops.get(&drop.name).copied();
    let mut drops: Vec<&Count> = engine.drops.iter().filter(telling).collect();
    drops.sort_by(|one, other| {
        let [one_now, other_now] = [one, other].map(|drop| per_second(drop).unwrap_or_default());
        let now = other_now.total_cmp(&one_now);
        now.then(other.count.cmp(&one.count))
    });
    let drops = drops
        .into_iter()
        .map(|drop| match per_second(drop).filter(|now| *now > 0.0) {
            Some(now) => format!("{} {} ({}/s)", drop.name, drop.count, few(now)),
            None => format!("{} {}", drop.name, drop.count),
        });
    let mut lines = flow("dropped", drops, width);
    if lines.is_empty() {
        lines.push("dropped  nothing".to_owned());
    }
    // What is a matter of course is left out.
    let ordinary = ["established", "children"];
    let ike = engine.ike_counters.iter();
    let ike = ike.filter(|of| of.count > 0 && !ordinary.contains(&of.name.as_str()));
    lines.extend(flow(
        "ike",
        ike.map(|of| format!("{} {}", of.name, of.count)),
        width,
    ));
    if let Some(dns) = &status.dns {
        let now = model
            .rates
            .questions
            .map(|now| format!(" ({}/s)", few(now)));
        let questions = format!("{} questions{}", dns.queries, now.unwrap_or_default());
        let more = [
            (dns.blocked, "blocked"),
            (dns.failures, "failed"),
            (dns.dropped, "not answered"),
        ];
        let more = more.into_iter().filter(|(count, _)| *count > 0);
        let more = more.map(|(count, what)| format!("{count} {what}"));
        lines.extend(flow("dns", [questions].into_iter().chain(more), width));
    }
    lines.into_iter().map(Line::from).collect()
}

fn few(per_second: f64) -> String {
    match per_second < 9.95 && per_second.fract() != 0.0 {
        true => format!("{per_second:.1}"),
        false => format!("{per_second:.0}"),
    }
}

/// Items in lines of this width, the first with a title; none where there are no items.
fn flow(title: &str, items: impl Iterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            None => lines.push(format!("{title}  {item}")),
            Some(line) if line.chars().count() + 2 + item.chars().count() <= width => {
                line.push_str("  ");
                line.push_str(&item);
            }
            Some(_) => lines.push(format!("  {item}")),
        }
    }
    lines
}

/// Both directions on one scale, the latest at the right.
fn graphs(series: &Series, look: &Look, area: Rect, buffer: &mut Buffer) {
    let [first, second] = match area.width < SIDE_BY_SIDE {
        true => Layout::vertical([Constraint::Fill(1); 2]).areas(area),
        false => Layout::horizontal([Constraint::Fill(1); 2])
            .spacing(2)
            .areas(area),
    };
    let in_sight = series.iter().rev().take(usize::from(area.width));
    let both = in_sight
        .flatten()
        .flat_map(|rate| [rate.received, rate.sent]);
    let most = both.fold(1.0, f64::max);
    let received = |rate: &Rate| rate.received;
    let sent = |rate: &Rate| rate.sent;
    graph(("in", series, received), most, look, first, buffer);
    graph(("out", series, sent), most, look, second, buffer);
}

fn graph(
    (title, series, of): (&str, &Series, fn(&Rate) -> f64),
    most: f64,
    look: &Look,
    area: Rect,
    buffer: &mut Buffer,
) {
    let last = series.back().copied().flatten();
    let last = last.as_ref().map_or("-".to_owned(), |last| rate(of(last)));
    let (label, bars) = match area.height {
        0 => return,
        1 => {
            let widths = [Constraint::Length(15), Constraint::Fill(1)];
            let [label, bars] = Layout::horizontal(widths).areas(area);
            Line::from(format!("{title:<3} {last}")).render(label, buffer);
            (None, bars)
        }
        _ => {
            let heights = [Constraint::Length(1), Constraint::Fill(1)];
            let [label, bars] = Layout::vertical(heights).areas(area);
            (Some(label), bars)
        }
    };
    if let Some(label) = label {
        let text = format!("{title} {last}, scale to {}", rate(most));
        Line::styled(text, look.title()).render(label, buffer);
    }
    let newest_first = series.iter().rev().map(|sample| {
        let bits = sample.as_ref().map(of);
        bits.map(|bits| bits.round() as u64)
    });
    Sparkline::default()
        .data(newest_first)
        .max(most.round() as u64)
        .direction(RenderDirection::RightToLeft)
        .absent_value_symbol(" ")
        .style(look.good())
        .render(bars, buffer);
}
