//! The other pages: devices of the LAN, what happened to a tunnel, and the keys.

use cygnet_daemon::api::{DeviceStatus, PolicySource, Status};
use cygnet_gateway::DevicePolicy;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, StatefulWidget, Table, TableState, Widget};

use super::super::super::device::goes;
use super::super::super::status::{self, duration};
use super::super::keys::HELP;
use super::super::model::Model;
use super::{Look, told};

/// Widths below which columns are left out.
const WITH_SIGNS: u16 = 60;
const WITH_ALL: u16 = 76;
/// Room for where a device goes: the names of tunnels may be long.
const GOES_MOST: u16 = 24;

pub(super) fn devices(model: &Model, look: &Look, area: Rect, buffer: &mut Buffer) {
    let known = match &model.devices {
        None => return told("asking for the devices…", Style::new(), area, buffer),
        Some(Err(why)) => return told(why, look.bad(), area, buffer),
        Some(Ok(known)) => known,
    };
    let mut notes: Vec<Line<'_>> = Vec::new();
    let warned = known.problem.iter().chain(&known.warnings);
    notes.extend(warned.map(|text| Line::styled(format!("warning: {text}"), look.busy())));
    notes.push(Line::from(format!("all others are {}", known.default)));
    let below = u16::try_from(notes.len()).unwrap_or(u16::MAX);
    let heights = [
        Constraint::Fill(1),
        Constraint::Length(below.min(area.height / 3)),
    ];
    let [table, below] = Layout::vertical(heights).areas(area);
    for (note, row) in notes.iter().zip(below.rows()) {
        note.render(row, buffer);
    }
    if known.devices.is_empty() {
        return told("no device was seen yet", Style::new(), table, buffer);
    }
    let goes_of = |device: &DeviceStatus| goes(device.policy, device.through.as_deref()).len();
    let widest = known.devices.iter().map(goes_of).max().unwrap_or_default();
    let goes_width = u16::try_from(widest)
        .unwrap_or(GOES_MOST)
        .clamp(10, GOES_MOST);
    let columns = [
        ("DEVICE", Constraint::Fill(1)),
        ("GOES", Constraint::Length(goes_width)),
        ("BY", Constraint::Length(13)),
        ("SEEN AGO", Constraint::Length(11)),
        ("ADDRESSES", Constraint::Fill(1)),
    ];
    let shown = match area.width {
        0..WITH_SIGNS => 2,
        WITH_SIGNS..WITH_ALL => 4,
        _ => columns.len(),
    };
    let rows = known.devices.iter().map(|device| {
        let cells = cells(device, look).into_iter();
        Row::new(cells.take(shown))
    });
    let widths = columns.iter().take(shown).map(|(_, width)| *width);
    let titles = columns.iter().take(shown).map(|(title, _)| *title);
    let devices = Table::new(rows, widths)
        .header(Row::new(titles).style(look.title()))
        .row_highlight_style(look.chosen())
        .highlight_symbol("> ");
    let mut state = TableState::new().with_selected(Some(model.device));
    StatefulWidget::render(devices, table, buffer, &mut state);
}

fn cells<'a>(device: &DeviceStatus, look: &Look) -> [Cell<'a>; 5] {
    // In brackets it is the device's own word.
    let called = match (&device.name, &device.host_name) {
        (Some(name), _) => format!("{name} {}", device.device),
        (None, Some(name)) => format!("({name}) {}", device.device),
        (None, None) => device.device.clone(),
    };
    let style = match device.policy {
        DevicePolicy::Tunnelled => look.good(),
        DevicePolicy::Direct => look.busy(),
        DevicePolicy::Blocked => look.bad(),
    };
    let by = match device.from {
        PolicySource::Default => "default",
        PolicySource::Configuration => "configuration",
        PolicySource::Command => "command",
    };
    let addresses: Vec<String> = device.addresses.iter().map(ToString::to_string).collect();
    [
        Cell::new(called),
        Cell::new(goes(device.policy, device.through.as_deref())).style(style),
        Cell::new(by),
        Cell::new(device.last_seen_s.map_or("-".to_owned(), duration)),
        Cell::new(addresses.join(" ")),
    ]
}

/// Of the chosen tunnel, the latest first: what there is no room for is the oldest.
pub(super) fn history(
    model: &Model,
    status: &Status,
    look: &Look,
    area: Rect,
    buffer: &mut Buffer,
) {
    let heights = [Constraint::Length(1), Constraint::Fill(1)];
    let [title, below] = Layout::vertical(heights).areas(area);
    let chosen = model.chosen().map(|connection| &connection.name);
    // While the engine is away tunnels have a past all the same.
    let first = status.history.first().map(|of| &of.name);
    let Some(tunnel) = chosen.or(first) else {
        return told("no tunnels, and no history", Style::new(), area, buffer);
    };
    let what = format!("what happened to {tunnel}, the latest first");
    Line::styled(what, look.title()).render(title, buffer);
    let mut text = String::new();
    let most = usize::from(below.height);
    status::history(&mut text, status, tunnel, most, |_| look.zone);
    let latest_first: Vec<&str> = text.lines().rev().collect();
    match latest_first.is_empty() {
        true => told("nothing yet", Style::new(), below, buffer),
        false => told(&latest_first.join("\n"), Style::new(), below, buffer),
    }
}

pub(super) fn help(look: &Look, area: Rect, buffer: &mut Buffer) {
    let heights = [Constraint::Length(1), Constraint::Fill(1)];
    let [title, below] = Layout::vertical(heights).areas(area);
    Line::styled("KEYS", look.title()).render(title, buffer);
    for ((key, does), row) in HELP.iter().zip(below.rows()) {
        Line::from(format!("{key:<16}{does}")).render(row, buffer);
    }
}
