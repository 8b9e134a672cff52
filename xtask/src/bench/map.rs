//! `cargo xtask bench --map`: what two offices carry to each other, and what `local_map` costs.
//!
//! Both are joined by `cygnet site add`: two Cygnets, and Cygnet with strongSwan; with networks of their own, and with the
//! same network at both, each known to the other by another one. One TCP stream, of all four in turns.

use crate::lab::cygnet::Cygnet;
use crate::lab::offices::Offices;
use crate::lab::sites::{self, Networks, SHOWN_B};
use crate::lab::traffic::{Direction, ping_until_answered, throughput_by};
use crate::lab::{Failure, Lab, Result};
use serde::Serialize;
use std::any::Any;
use std::time::Duration;

/// Until hosts reach each other.
const SOON: Duration = Duration::from_secs(10);
/// Rounds in which each is measured once.
const ROUNDS: u32 = 5;
/// Of one direction.
const SECONDS: u32 = 3;

/// Measures and prints.
pub(super) fn run(json: bool) -> Result<bool> {
    let table = Table::of(&measure()?)?;
    println!(
        "{}",
        match json {
            true => serde_json::to_string(&table)?,
            false => table.to_markdown(),
        }
    );
    Ok(true)
}

/// Who is at the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Ends {
    TwoCygnets,
    CygnetAndStrongswan,
}

impl Ends {
    fn name(self) -> &'static str {
        match self {
            Self::TwoCygnets => "two Cygnets",
            Self::CygnetAndStrongswan => "Cygnet and strongSwan",
        }
    }
}

/// Two offices, joined.
struct Site {
    ends: Ends,
    networks: Networks,
    offices: Offices,
    /// What the second one's host is called by.
    host_b: &'static str,
    /// Both have to live while it is measured.
    _a: Cygnet,
    _b: Box<dyn Any>,
    _lab: Lab,
}

impl Site {
    fn join(ends: Ends, networks: Networks) -> Result<Self> {
        let lab = Lab::new()?;
        let (offices, a, b) = match ends {
            Ends::TwoCygnets => {
                let (offices, a, b) = sites::two_cygnets(&lab, networks, "psk", "")?;
                (offices, a, Box::new(b) as Box<dyn Any>)
            }
            Ends::CygnetAndStrongswan => {
                let (offices, a, b) = sites::with_strongswan(&lab, networks, "psk", "")?;
                (offices, a, Box::new(b) as Box<dyn Any>)
            }
        };
        let host_b = match networks {
            Networks::Own => offices.b.host4,
            Networks::Same => SHOWN_B,
        };
        ping_until_answered(&offices.a.host, host_b, SOON)?;
        Ok(Self {
            ends,
            networks,
            offices,
            host_b,
            _a: a,
            _b: b,
            _lab: lab,
        })
    }

    fn carries(&self, direction: Direction) -> Result<f64> {
        let Offices { a, b, .. } = &self.offices;
        let server = (b.host4, self.host_b);
        throughput_by(&a.host, &b.host, server, SECONDS, direction)
    }
}

/// Mbit/s of one pair of offices, in each round.
struct Measured {
    ends: Ends,
    networks: Networks,
    up: Vec<f64>,
    down: Vec<f64>,
}

fn measure() -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for ends in [Ends::TwoCygnets, Ends::CygnetAndStrongswan] {
        for networks in [Networks::Own, Networks::Same] {
            let site = Site::join(ends, networks)?;
            let measured = Measured {
                ends: site.ends,
                networks: site.networks,
                up: Vec::new(),
                down: Vec::new(),
            };
            all.push((site, measured));
        }
    }
    for _ in 0..ROUNDS {
        for (site, measured) in &mut all {
            measured.up.push(site.carries(Direction::Upload)?);
            measured.down.push(site.carries(Direction::Download)?);
        }
    }
    Ok(all.into_iter().map(|(_, measured)| measured).collect())
}

/// What is printed.
#[derive(Debug, PartialEq, Serialize)]
struct Table {
    rows: Vec<Row>,
    costs: Vec<Cost>,
}

/// What one pair of offices carries, in Mbit/s; up is from the Cygnet that typed `site add`.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    ends: Ends,
    mapped: bool,
    up: Figures,
    down: Figures,
}

/// What is carried with a map as a part of what is without, round by round.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cost {
    ends: Ends,
    up: Figures,
    down: Figures,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Figures {
    median: f64,
    least: f64,
    most: f64,
}

impl Figures {
    fn of(mut all: Vec<f64>) -> Result<Self> {
        all.sort_by(f64::total_cmp);
        match (all.first(), all.get(all.len() / 2), all.last()) {
            (Some(&least), Some(&median), Some(&most)) => Ok(Self {
                median,
                least,
                most,
            }),
            _ => Err(Failure::new("nothing was measured")),
        }
    }

    /// The first as parts of the second.
    fn ratios(one: &[f64], of: &[f64]) -> Result<Self> {
        Self::of(one.iter().zip(of).map(|(one, of)| one / of).collect())
    }

    fn shown(self, digits: usize) -> String {
        let Self {
            median,
            least,
            most,
        } = self;
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

impl Table {
    fn of(all: &[Measured]) -> Result<Self> {
        let row = |measured: &Measured| {
            Ok(Row {
                ends: measured.ends,
                mapped: measured.networks == Networks::Same,
                up: Figures::of(measured.up.clone())?,
                down: Figures::of(measured.down.clone())?,
            })
        };
        let of = |ends, networks| {
            let mut all = all.iter();
            all.find(|it| (it.ends, it.networks) == (ends, networks))
        };
        let cost = |plain: &Measured| {
            let mapped = of(plain.ends, Networks::Same)?;
            let cost = || {
                Ok(Cost {
                    ends: plain.ends,
                    up: Figures::ratios(&mapped.up, &plain.up)?,
                    down: Figures::ratios(&mapped.down, &plain.down)?,
                })
            };
            Some(cost())
        };
        let plain = all.iter().filter(|it| it.networks == Networks::Own);
        Ok(Self {
            rows: all.iter().map(row).collect::<Result<_>>()?,
            costs: plain.filter_map(cost).collect::<Result<_>>()?,
        })
    }

    fn to_markdown(&self) -> String {
        let mut text =
            "| ends | networks | up, Mbit/s | down, Mbit/s |\n|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            text.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                row.ends.name(),
                match row.mapped {
                    true => "the same at both, mapped",
                    false => "each its own",
                },
                row.up.shown(0),
                row.down.shown(0)
            ));
        }
        for cost in &self.costs {
            text.push_str(&format!(
                "| {} | mapped, as a part of unmapped | {} | {} |\n",
                cost.ends.name(),
                cost.up.shown(2),
                cost.down.shown(2)
            ));
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_what_a_map_costs() {
        let measured = |networks, up: [f64; 3]| Measured {
            ends: Ends::TwoCygnets,
            networks,
            up: up.to_vec(),
            down: vec![100.0; 3],
        };
        let all = [
            measured(Networks::Own, [1000.0, 800.0, 900.0]),
            measured(Networks::Same, [900.0, 800.0, 990.0]),
        ];
        let text = Table::of(&all).unwrap().to_markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2..],
            [
                "| two Cygnets | each its own | 900 (800 to 1000) | 100 (100 to 100) |",
                "| two Cygnets | the same at both, mapped | 900 (800 to 990) | 100 (100 to 100) |",
                "| two Cygnets | mapped, as a part of unmapped | 1.00 (0.90 to 1.10) | 1.00 (1.00 to 1.00) |",
            ]
        );
        let nothing = measured(Networks::Own, [0.0; 3]);
        let nothing = Measured {
            up: Vec::new(),
            ..nothing
        };
        assert!(Table::of(&[nothing]).is_err());
    }
}
