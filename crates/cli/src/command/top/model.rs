//! What is known and what was chosen: answers and keys in, what to show out. No terminal, no socket, no clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use cygnet_daemon::api::{ConnectionStatus, DevicesStatus, Status};

use super::super::status;
use super::keys::Action;
use super::meter::{Meter, Rate, Rates};

/// Samples of a graph that are kept: no terminal is wider.
const SAMPLES: usize = 512;

/// Between two looks, as `+` and `-` step through them.
const INTERVALS: [Duration; 8] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// What was said when the control socket was asked: bodies, or a sentence each.
pub(super) struct Answer {
    pub(super) status: Result<Vec<u8>, String>,
    /// `None`: not asked for.
    pub(super) devices: Option<Result<Vec<u8>, String>>,
}

/// What is known of the running cygnet.
pub(super) enum Known {
    /// It was not asked yet.
    Nothing,
    /// As of the last answer.
    Status(Box<Status>),
    /// It does not answer, and why.
    Silence(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Tunnels,
    Devices,
    History,
}

/// Rates of a tunnel, oldest first; `None` where nothing was measured.
pub(super) type Series = VecDeque<Option<Rate>>;

pub(super) struct Model {
    pub(super) known: Known,
    /// Of the page [`Page::Devices`], as of the last answer.
    pub(super) devices: Option<Result<DevicesStatus, String>>,
    pub(super) rates: Rates,
    pub(super) page: Page,
    pub(super) help: bool,
    pub(super) paused: bool,
    pub(super) interval: Duration,
    /// Place of the chosen device.
    pub(super) device: usize,
    /// The chosen tunnel, by name: others may come and go before it.
    tunnel: Option<String>,
    series: BTreeMap<String, Series>,
    meter: Meter,
}

impl Model {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            known: Known::Nothing,
            devices: None,
            rates: Rates::default(),
            page: Page::Tunnels,
            help: false,
            paused: false,
            interval,
            device: 0,
            tunnel: None,
            series: BTreeMap::new(),
            meter: Meter::default(),
        }
    }

    pub(super) fn handle_answer(&mut self, at: Instant, answer: Answer) {
        if self.paused {
            return;
        }
        let parse = |body: Vec<u8>| status::parse(&body);
        match answer.status.and_then(parse) {
            Ok(status) => {
                self.rates = self.meter.measure(at, &status);
                self.known = Known::Status(Box::new(status));
            }
            Err(why) => {
                self.meter.forget();
                self.rates = Rates::default();
                self.known = Known::Silence(why);
            }
        }
        if let Some(devices) = answer.devices {
            self.devices = Some(devices.and_then(|body| status::parse_as(&body)));
            self.device = self.device.min(self.device_count().saturating_sub(1));
        }
        self.sample();
    }

    /// One more place in each graph. What is configured no more has none; while nobody answers all keep theirs.
    fn sample(&mut self) {
        let names: Vec<String> = self.connections().iter().map(|c| c.name.clone()).collect();
        if matches!(&self.known, Known::Status(status) if status.engine.is_some()) {
            self.series.retain(|name, _| names.contains(name));
        }
        for name in names {
            self.series.entry(name).or_default();
        }
        for (name, series) in &mut self.series {
            if series.len() == SAMPLES {
                series.pop_front();
            }
            series.push_back(self.rates.connections.get(name).copied());
        }
    }

    /// Whether a key ends the program, rather than the help.
    pub(super) fn is_ended_by(&self, action: Action) -> bool {
        action == Action::Interrupt || action == Action::Quit && !self.help
    }

    /// What a key asks for, as far as it concerns what is shown.
    pub(super) fn handle_action(&mut self, action: Action) {
        // Any key does away with the help.
        if std::mem::take(&mut self.help) {
            return;
        }
        match action {
            Action::Help => self.help = true,
            Action::Next => self.step(1),
            Action::Previous => self.step(-1),
            Action::Devices => self.turn_to(Page::Devices),
            Action::History => self.turn_to(Page::History),
            Action::Pause => {
                self.paused = !self.paused;
                // A rate over the pause would be none of a moment.
                self.meter.forget();
            }
            Action::Slower => {
                let next = INTERVALS.into_iter().find(|one| *one > self.interval);
                self.interval = next.unwrap_or(self.interval);
            }
            Action::Faster => {
                let next = INTERVALS.into_iter().rev().find(|one| *one < self.interval);
                self.interval = next.unwrap_or(self.interval);
            }
            Action::Quit | Action::Interrupt | Action::Suspend => {}
        }
    }

    /// The page, or back from it.
    fn turn_to(&mut self, page: Page) {
        self.page = match self.page == page {
            true => Page::Tunnels,
            false => page,
        };
    }

    fn step(&mut self, by: isize) {
        let around = |at: usize, count: usize| match count {
            0 => 0,
            count => at.saturating_add(count).saturating_add_signed(by) % count,
        };
        match self.page {
            Page::Devices => self.device = around(self.device, self.device_count()),
            Page::Tunnels | Page::History => {
                let next = around(self.chosen_place(), self.connections().len());
                self.tunnel = self.connections().get(next).map(|c| c.name.clone());
            }
        }
    }

    fn device_count(&self) -> usize {
        let known = self.devices.as_ref().and_then(|known| known.as_ref().ok());
        known.map_or(0, |known| known.devices.len())
    }

    /// None while the engine is being restarted.
    pub(super) fn connections(&self) -> &[ConnectionStatus] {
        match &self.known {
            Known::Status(status) => {
                let engine = status.engine.as_ref();
                engine.map_or(&[][..], |engine| &engine.connections)
            }
            Known::Nothing | Known::Silence(_) => &[],
        }
    }

    /// Place of the chosen tunnel; the first one where it is gone.
    pub(super) fn chosen_place(&self) -> usize {
        let chosen = |c: &ConnectionStatus| Some(&c.name) == self.tunnel.as_ref();
        let place = self.connections().iter().position(chosen);
        place.unwrap_or(0)
    }

    pub(super) fn chosen(&self) -> Option<&ConnectionStatus> {
        self.connections().get(self.chosen_place())
    }

    pub(super) fn series(&self, tunnel: &str) -> Option<&Series> {
        self.series.get(tunnel)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing;
    use super::*;

    fn answer(status: &Status) -> Answer {
        Answer {
            status: Ok(serde_json::to_vec(status).unwrap()),
            devices: None,
        }
    }

    fn silence() -> Answer {
        Answer {
            status: Err("cannot reach it".to_owned()),
            devices: None,
        }
    }

    #[test]
    fn a_graph_has_gaps_where_nothing_was_measured() {
        let mut model = Model::new(Duration::from_secs(1));
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut status = testing::status(&["home"]);
        model.handle_answer(at(0), answer(&status));
        testing::carry(&mut status, 0, 1000, 500);
        model.handle_answer(at(1), answer(&status));
        model.handle_answer(at(2), silence());
        assert!(matches!(&model.known, Known::Silence(why) if why == "cannot reach it"));
        assert!(model.connections().is_empty());
        let mut anew = testing::status(&["home"]);
        anew.processes.supervisor = 4711;
        model.handle_answer(at(3), answer(&anew));
        testing::carry(&mut anew, 0, 100, 0);
        model.handle_answer(at(4), answer(&anew));
        let series = model.series("home").unwrap();
        let received: Vec<_> = series.iter().map(|s| s.map(|s| s.received)).collect();
        assert_eq!(received, [None, Some(8000.0), None, None, Some(800.0)]);
    }

    #[test]
    fn a_graph_grows_no_longer_than_it_is_wide_and_goes_with_its_tunnel() {
        let mut model = Model::new(Duration::from_secs(1));
        let status = testing::status(&["home", "office"]);
        for _ in 0..SAMPLES + 10 {
            model.handle_answer(Instant::now(), answer(&status));
        }
        assert_eq!(model.series("office").unwrap().len(), SAMPLES);
        model.handle_answer(Instant::now(), answer(&testing::status(&["home"])));
        assert!(model.series("office").is_none());
    }

    #[test]
    fn the_chosen_tunnel_stays_chosen_when_others_come() {
        let mut model = Model::new(Duration::from_secs(1));
        model.handle_answer(Instant::now(), answer(&testing::status(&["b", "c"])));
        assert_eq!(model.chosen().unwrap().name, "b");
        model.handle_action(Action::Next);
        assert_eq!(model.chosen().unwrap().name, "c");
        model.handle_answer(Instant::now(), answer(&testing::status(&["a", "b", "c"])));
        assert_eq!(model.chosen().unwrap().name, "c");
        model.handle_action(Action::Next);
        assert_eq!(model.chosen().unwrap().name, "a");
        model.handle_action(Action::Previous);
        assert_eq!(model.chosen().unwrap().name, "c");
        model.handle_answer(Instant::now(), answer(&testing::status(&[])));
        assert!(model.chosen().is_none());
        model.handle_action(Action::Next);
        model.handle_answer(Instant::now(), answer(&testing::status(&["a"])));
        assert_eq!(model.chosen().unwrap().name, "a");
    }

    #[test]
    fn while_it_is_paused_nothing_changes_and_nothing_is_measured_over_it() {
        let mut model = Model::new(Duration::from_secs(1));
        let start = Instant::now();
        let mut status = testing::status(&["home"]);
        model.handle_answer(start, answer(&status));
        model.handle_action(Action::Pause);
        model.handle_answer(start + Duration::from_secs(1), silence());
        assert!(model.chosen().is_some());
        model.handle_action(Action::Pause);
        testing::carry(&mut status, 0, 1_000_000, 0);
        model.handle_answer(start + Duration::from_secs(9), answer(&status));
        assert_eq!(model.rates.connections.get("home"), None);
    }

    #[test]
    fn the_interval_goes_in_steps_to_its_ends() {
        let mut model = Model::new(Duration::from_millis(700));
        model.handle_action(Action::Slower);
        assert_eq!(model.interval, Duration::from_secs(1));
        for _ in 0..10 {
            model.handle_action(Action::Slower);
        }
        assert_eq!(model.interval, Duration::from_secs(60));
        for _ in 0..10 {
            model.handle_action(Action::Faster);
        }
        assert_eq!(model.interval, Duration::from_millis(200));
    }

    #[test]
    fn keys_turn_pages_and_any_key_ends_the_help() {
        let mut model = Model::new(Duration::from_secs(1));
        model.handle_action(Action::Devices);
        assert_eq!(model.page, Page::Devices);
        // Nothing to choose from yet.
        model.handle_action(Action::Previous);
        let devices = json!({"default": "tunnelled", "direct_networks": [], "problem": null, "devices": [
            {"device": "02:00:00:00:00:01", "name": null, "addresses": [], "policy": "direct", "from": "command", "last_seen_s": 1.0},
            {"device": "02:00:00:00:00:02", "name": null, "addresses": [], "policy": "tunnelled", "from": "default", "last_seen_s": 1.0},
        ]});
        let with = |devices: Result<Vec<u8>, String>| Answer {
            devices: Some(devices),
            ..answer(&testing::status(&["home"]))
        };
        model.handle_answer(Instant::now(), with(Ok(devices.to_string().into_bytes())));
        model.handle_action(Action::Previous);
        assert_eq!(model.device, 1);
        model.handle_answer(Instant::now(), with(Err("no gateway".to_owned())));
        assert_eq!(model.device, 0);
        model.handle_action(Action::Help);
        assert!(model.help);
        assert!(model.is_ended_by(Action::Interrupt) && !model.is_ended_by(Action::Quit));
        model.handle_action(Action::History);
        assert!(model.is_ended_by(Action::Interrupt) && model.is_ended_by(Action::Quit));
        assert!(!model.help && model.page == Page::Devices);
        model.handle_action(Action::History);
        model.handle_action(Action::History);
        assert_eq!(model.page, Page::Tunnels);
    }
}
