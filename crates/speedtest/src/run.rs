//! One run of the test, as it is shown, kept, and told as JSON.

use serde::{Deserialize, Serialize};

use crate::{CpuUse, Latency, Limit, Point};

/// Everything that was measured together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it began, in seconds since 1970.
    pub at: i64,
    /// Through which tunnel.
    pub tunnel: String,
    /// Seconds of each direction that were counted.
    pub seconds: u16,
    /// TCP connections of each direction.
    pub streams: u8,
    /// The tunnel first.
    pub paths: Vec<Path>,
}

/// What was measured on one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Which.
    pub way: Way,
    /// Who was at the other end: an address, or a URL.
    pub target: String,
    /// While nothing else was to do.
    pub idle: Option<Latency>,
    /// Towards this machine.
    pub down: Option<Direction>,
    /// From this machine.
    pub up: Option<Direction>,
}

/// How packets went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Through the tunnel.
    Tunnel,
    /// Around it, in clear.
    Direct,
}

impl Way {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Direct => "direct",
        }
    }
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Payload of TCP.
    pub mbit_s: f64,
    /// Meanwhile.
    pub latency: Option<Latency>,
    /// This machine's processors meanwhile.
    pub cpu: Option<CpuUse>,
    /// The share of a processor that the daemon's busiest thread had.
    pub thread: Option<f64>,
    /// The server's processors, as its endpoint tells.
    pub server_cpu: Option<CpuUse>,
    /// Of a direction through the tunnel.
    pub limit: Option<Limit>,
    /// The speed over time, from the first packet on.
    pub curve: Vec<Point>,
}

impl Run {
    /// Says what limits the tunnel, now that all is measured.
    pub fn judge(&mut self) {
        let direct = self.paths.iter().find(|path| path.way == Way::Direct);
        let direct = direct.cloned();
        let tunnels = self.paths.iter_mut().filter(|path| path.way == Way::Tunnel);
        for path in tunnels {
            for (direction, direct) in [
                (
                    &mut path.down,
                    direct.as_ref().and_then(|d| d.down.as_ref()),
                ),
                (&mut path.up, direct.as_ref().and_then(|d| d.up.as_ref())),
            ] {
                if let Some(direction) = direction {
                    direction.limit = Some(Limit::of(direction, direct));
                }
            }
        }
    }

    /// What was measured through the tunnel.
    #[must_use]
    pub fn tunnelled(&self) -> Option<&Path> {
        self.paths.iter().find(|path| path.way == Way::Tunnel)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run with a bit of everything.
    pub(crate) fn example() -> Run {
        let latency = |p50_ms, p99_ms| {
            Some(Latency {
                p50_ms,
                p99_ms,
                samples: 60,
            })
        };
        let direction = |mbit_s: f64| Direction {
            mbit_s,
            latency: latency(31.25, 55.0),
            cpu: Some(CpuUse {
                all: 0.21,
                busiest: 0.4,
            }),
            thread: Some(0.2),
            server_cpu: None,
            limit: None,
            curve: (1..=24u32)
                .map(|n| Point {
                    s: f64::from(n) / 2.0,
                    mbit_s: mbit_s * f64::from(n.min(4)) / 4.0,
                })
                .collect(),
        };
        let path = |way, target: &str, down, up| Path {
            way,
            target: target.to_owned(),
            idle: latency(12.5, 14.0),
            down: Some(direction(down)),
            up: Some(direction(up)),
        };
        Run {
            at: 1_795_651_200,
            tunnel: "home".to_owned(),
            seconds: 10,
            streams: 4,
            paths: vec![
                path(Way::Tunnel, "10.99.0.1", 90.0, 20.0),
                path(Way::Direct, "http://h/<big>", 95.0, 40.0),
            ],
        }
    }

    #[test]
    fn each_direction_is_judged_by_its_own() {
        let mut run = example();
        run.judge();
        let tunnel = run.tunnelled().unwrap();
        let limits = [&tunnel.down, &tunnel.up].map(|d| d.as_ref().unwrap().limit);
        let expected = [
            Limit::Line {
                direct_mbit_s: 95.0,
            },
            Limit::Path {
                direct_mbit_s: 40.0,
            },
        ];
        assert_eq!(limits, expected.map(Some));
        assert!(run.paths[1].down.as_ref().unwrap().limit.is_none());
    }

    #[test]
    fn json_has_the_names_that_the_documentation_has() {
        let mut run = example();
        run.judge();
        let json = serde_json::to_value(&run).unwrap();
        assert_eq!(json["paths"][0]["way"], "tunnel");
        assert_eq!(json["paths"][0]["down"]["mbit_s"], 90.0);
        assert_eq!(json["paths"][0]["down"]["limit"]["is"], "line");
        assert_eq!(json["paths"][0]["down"]["latency"]["p99_ms"], 55.0);
        assert_eq!(json["paths"][1]["up"]["curve"][0]["s"], 0.5);
        let again: Run = serde_json::from_value(json).unwrap();
        assert_eq!(again, run);
    }
}
