//! What it was that did not let a direction be faster.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{CpuUse, Direction};

/// From this share of its time on, one processor, or one thread, is what the others wait for.
const ONE_FULL: f64 = 0.9;
/// From this share on, all processors together are: which of them a thread runs on changes all the time.
const ALL_FULL: f64 = 0.85;
/// The tunnel has this share of what the line carries without it, or more: the line is the limit. A tunnel's own headers
/// take some four hundredths.
const AS_FAST: f64 = 0.85;

/// The limit of one direction through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Limit {
    /// A thread of the daemon's was busy nearly all the time, as a share from 0 to 1.
    Thread {
        /// How busy.
        busy: f64,
    },
    /// This machine's processors were.
    Cpu {
        /// How busy.
        busy: f64,
        /// Which of them.
        #[serde(default)]
        cores: Cores,
    },
    /// The server's processors were.
    Server {
        /// How busy.
        busy: f64,
        /// Which of them.
        #[serde(default)]
        cores: Cores,
    },
    /// Around the tunnel it is hardly faster.
    Line {
        /// Around the tunnel.
        direct_mbit_s: f64,
    },
    /// Around the tunnel it is faster, and no processor is to blame.
    Path {
        /// Around the tunnel.
        direct_mbit_s: f64,
    },
    /// No processor that was looked at: the line, or something on the way.
    NoCpu {
        /// The server's were looked at, too.
        server_seen: bool,
    },
}

/// Whose share of the time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cores {
    /// The busiest one's.
    #[default]
    Busiest,
    /// That of all together, none of which was full.
    All,
}

impl Cores {
    /// Which of them were full, and how busy these were.
    fn full(used: &CpuUse) -> Option<(f64, Self)> {
        if used.busiest >= ONE_FULL {
            return Some((used.busiest, Self::Busiest));
        }
        (used.all >= ALL_FULL).then_some((used.all, Self::All))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busiest => "its busiest core was",
            Self::All => "all its cores together were",
        })
    }
}

impl Limit {
    /// The first thing that was full; `direct`: the same direction around the tunnel, if it was measured.
    #[must_use]
    pub fn of(direction: &Direction, direct: Option<&Direction>) -> Self {
        if let Some(busy) = direction.thread.filter(|busy| *busy >= ONE_FULL) {
            return Self::Thread { busy };
        }
        if let Some((busy, cores)) = direction.cpu.as_ref().and_then(Cores::full) {
            return Self::Cpu { busy, cores };
        }
        if let Some((busy, cores)) = direction.server_cpu.as_ref().and_then(Cores::full) {
            return Self::Server { busy, cores };
        }
        match direct.map(|direct| direct.mbit_s) {
            Some(direct_mbit_s) if direction.mbit_s >= AS_FAST * direct_mbit_s => {
                Self::Line { direct_mbit_s }
            }
            Some(direct_mbit_s) => Self::Path { direct_mbit_s },
            None => Self::NoCpu {
                server_seen: direction.server_cpu.is_some(),
            },
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        match *self {
            Self::Thread { busy } => write!(
                f,
                "the CPU of this machine: one thread of cygnet had {:.0} % of a core",
                percent(busy)
            ),
            Self::Cpu { busy, cores } => write!(
                f,
                "the CPU of this machine: {cores} busy for {:.0} %",
                percent(busy)
            ),
            Self::Server { busy, cores } => write!(
                f,
                "the CPU of the server: {cores} busy for {:.0} %",
                percent(busy)
            ),
            Self::Line { direct_mbit_s } => write!(
                f,
                "the line: around the tunnel it carries {direct_mbit_s:.1} Mbit/s"
            ),
            Self::Path { direct_mbit_s } => write!(
                f,
                "neither CPU nor line (around the tunnel it carries {direct_mbit_s:.1} Mbit/s): something on the way to \
                 the server is slower, or slows UDP down"
            ),
            Self::NoCpu { server_seen: true } => f.write_str(
                "most likely the line: neither this machine's CPU nor the server's was busy; --direct-url tells",
            ),
            Self::NoCpu { server_seen: false } => f.write_str(
                "not the CPU of this machine: the line, or the other end; --direct-url tells",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(mbit_s: f64) -> Direction {
        Direction {
            mbit_s,
            ..Direction::default()
        }
    }

    fn busy(busiest: f64, all: f64) -> Option<CpuUse> {
        Some(CpuUse { all, busiest })
    }

    #[test]
    fn what_is_full_first_is_the_limit() {
        let idle = busy(0.3, 0.2);
        let seen = |cpu, thread, server_cpu, direct: Option<f64>| {
            let measured = Direction {
                cpu,
                thread,
                server_cpu,
                ..direction(90.0)
            };
            Limit::of(&measured, direct.map(direction).as_ref())
        };
        let full = busy(0.97, 0.5);
        assert_eq!(
            seen(full, Some(0.95), full, Some(95.0)),
            Limit::Thread { busy: 0.95 }
        );
        assert_eq!(
            seen(full, Some(0.5), full, Some(95.0)),
            Limit::Cpu {
                busy: 0.97,
                cores: Cores::Busiest
            }
        );
        // A thread that moves from core to core.
        assert_eq!(
            seen(busy(0.88, 0.86), None, idle, None),
            Limit::Cpu {
                busy: 0.86,
                cores: Cores::All
            }
        );
        assert_eq!(
            seen(idle, Some(0.2), full, Some(95.0)),
            Limit::Server {
                busy: 0.97,
                cores: Cores::Busiest
            }
        );
        assert_eq!(
            seen(idle, None, idle, Some(95.0)),
            Limit::Line {
                direct_mbit_s: 95.0
            }
        );
        assert_eq!(
            seen(idle, None, idle, Some(400.0)),
            Limit::Path {
                direct_mbit_s: 400.0
            }
        );
        for server in [idle, None] {
            let server_seen = server.is_some();
            assert_eq!(seen(idle, None, server, None), Limit::NoCpu { server_seen });
        }
    }

    #[test]
    fn each_says_where_and_how_much() {
        for (limit, expected) in [
            (
                Limit::Thread { busy: 0.95 },
                "one thread of cygnet had 95 %",
            ),
            (
                Limit::Cpu {
                    busy: 1.0,
                    cores: Cores::Busiest,
                },
                "this machine: its busiest core was busy for 100 %",
            ),
            (
                Limit::Server {
                    busy: 0.86,
                    cores: Cores::All,
                },
                "server: all its cores together were busy for 86 %",
            ),
            (
                Limit::Line {
                    direct_mbit_s: 95.04,
                },
                "the line: around the tunnel it carries 95.0 Mbit/s",
            ),
            (
                Limit::Path {
                    direct_mbit_s: 400.0,
                },
                "neither CPU nor line",
            ),
            (Limit::NoCpu { server_seen: true }, "nor the server's"),
            (Limit::NoCpu { server_seen: false }, "or the other end"),
        ] {
            let told = limit.to_string();
            assert!(told.contains(expected), "{told}");
        }
    }
    #[test]
    fn a_history_without_cores_is_read() {
        let kept: Limit = serde_json::from_str(r#"{"is":"cpu","busy":0.97}"#).unwrap();
        let cores = Cores::Busiest;
        assert_eq!(kept, Limit::Cpu { busy: 0.97, cores });
        let told = serde_json::to_value(kept).unwrap();
        assert_eq!(told["cores"], "busiest");
    }
}
