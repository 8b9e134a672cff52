//! What the kernel of a host holds that Cygnet might change, as text to be compared.

use crate::lab::{Failure, Namespace, Result};
use std::fmt;

/// Rules, routes, addresses, nftables and settings of one host, in the words of its own tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::interop) struct State(Vec<String>);

/// Each with what its lines begin with in a comparison.
const LISTINGS: [(&str, &str); 7] = [
    ("rule", "ip -4 rule"),
    ("rule6", "ip -6 rule"),
    ("route", "ip -4 route show table all"),
    (
        "route6",
        "ip -6 route show table all | sed 's/ expires [^ ]*//'",
    ),
    // Numbers of interfaces differ from run to run.
    ("addr", "ip -o addr | sed 's/^[0-9]*: //'"),
    // Without the values of counters.
    ("nft", "nft -s list ruleset"),
    (
        "sysctl",
        "cd /proc/sys/net; grep -rs . ipv4/conf ipv6/conf ipv4/ip_forward | grep -v stable_secret | sort",
    ),
];

impl State {
    /// Asks for all of it.
    pub(in crate::interop) fn of(host: &Namespace) -> Result<Self> {
        let mut lines = Vec::new();
        for (kind, command) in LISTINGS {
            let listed = host.shell(command)?;
            lines.extend(
                listed
                    .lines()
                    .map(|line| format!("{kind}: {}", line.trim_end())),
            );
        }
        Ok(Self(lines))
    }

    /// What `other` has more and less.
    pub(in crate::interop) fn difference(&self, other: &Self) -> Difference {
        let missing = |in_: &Self, from: &Self| {
            let mut left = in_.0.clone();
            from.0
                .iter()
                .filter(|line| match left.iter().position(|have| have == *line) {
                    Some(at) => {
                        left.swap_remove(at);
                        false
                    }
                    None => true,
                })
                .cloned()
                .collect::<Vec<_>>()
        };
        Difference {
            gone: missing(other, self),
            new: missing(self, other),
            reordered: self.0 != other.0,
        }
    }

    /// Fails with the difference unless both are the same, line by line.
    pub(in crate::interop) fn expect_same(&self, now: &Self, when: &str) -> Result<()> {
        if self == now {
            return Ok(());
        }
        Err(Failure::new(format!("{when}: {}", self.difference(now))))
    }

    /// Whether a line of this kind contains `text`.
    pub(in crate::interop) fn has(&self, kind: &str, text: &str) -> bool {
        self.0
            .iter()
            .filter_map(|line| line.strip_prefix(kind)?.strip_prefix(": "))
            .any(|line| line.contains(text))
    }
}

/// What changed from one [`State`] to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::interop) struct Difference {
    gone: Vec<String>,
    new: Vec<String>,
    reordered: bool,
}

impl Difference {
    /// Whether both have the same lines.
    pub(in crate::interop) fn is_order_alone(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_order_alone() {
            return f.write_str(if self.reordered {
                "the same lines in another order"
            } else {
                "no difference"
            });
        }
        f.write_str("the kernel's state differs:")?;
        for line in &self.gone {
            write!(f, "\n- {line}")?;
        }
        for line in &self.new {
            write!(f, "\n+ {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;

    #[test]
    fn a_rule_and_a_setting_are_told() {
        let lab = Lab::new().unwrap();
        let host = lab.host("host").unwrap();
        let before = State::of(&host).unwrap();
        before
            .expect_same(&State::of(&host).unwrap(), "at once")
            .unwrap();
        host.ip("rule add pref 77 to 192.0.2.0/24 lookup main")
            .unwrap();
        host.sysctl("net.ipv4.conf.lo.rp_filter", "2").unwrap();
        host.nft("table inet x {\nchain y {\n}\n}\n").unwrap();
        let after = State::of(&host).unwrap();
        assert!(after.has("rule", "192.0.2.0/24") && !before.has("rule", "192.0.2.0/24"));
        let told = before.expect_same(&after, "now").unwrap_err().to_string();
        for part in [
            "+ rule: 77:",
            "- sysctl: ipv4/conf/lo/rp_filter:",
            "+ nft: table inet x",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
}
