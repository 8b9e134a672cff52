//! The set that says whether tunnelled devices go direct while the gateway's tunnel is down, and the rules that ask it.
//!
//! Its elements end by themselves, so that devices are closed in when nobody is left who looks after the tunnel. It holds
//! both families or none.

use crate::DIRECT_MARK;
use crate::inputs::{Lan, OnFailure};

const BOTH: &str = "{ ipv4, ipv6 }";

/// The set, where there may be something in it.
pub(super) fn set(lan: &Lan) -> String {
    if !lan.on_failure.is_direct() {
        return String::new();
    }
    let elements = match lan.on_failure.is_open() {
        true => format!("\t\telements = {BOTH}\n"),
        false => String::new(),
    };
    format!(
        "\tset {} {{\n\t\ttype nf_proto\n\t\tflags timeout\n\t\ttimeout {}s\n{elements}\t}}\n",
        OnFailure::SET,
        OnFailure::HELD.as_secs()
    )
}

/// Of what is tunnelled, what begins now, or began so, goes direct. What began in the tunnel stays there, and ends.
pub(super) fn marks(lan: &Lan) -> Vec<String> {
    let of = [
        "ct status & confirmed == 0".to_owned(),
        format!("ct mark {DIRECT_MARK:#010x}"),
    ];
    let rules =
        of.map(|which| format!("{which} meta nfproto @{} goto mark_direct", OnFailure::SET));
    where_asked(lan, rules.to_vec())
}

/// Of what is tunnelled, all is let do this.
pub(super) fn rule(lan: &Lan, verdict: &str) -> Vec<String> {
    where_asked(
        lan,
        vec![format!("meta nfproto @{} {verdict}", OnFailure::SET)],
    )
}

fn where_asked(lan: &Lan, rules: Vec<String>) -> Vec<String> {
    match lan.on_failure {
        OnFailure::Direct { .. } => rules,
        OnFailure::Blocked => Vec::new(),
    }
}

/// What is in the set already is not changed by adding it, so it is taken out first; and as what is not in it cannot be
/// taken out, it is put in before. All of that is one transaction.
pub(crate) fn change(table: &str, open: bool) -> String {
    let verbs = match open {
        true => &["add", "delete", "add"][..],
        false => &["add", "delete"],
    };
    let lines = verbs.iter();
    lines
        .map(|verb| format!("{verb} element inet {table} {} {BOTH}\n", OnFailure::SET))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letting_out_is_for_both_families_and_for_a_time() {
        assert_eq!(
            OnFailure::change("cygnet", true),
            "add element inet cygnet failure { ipv4, ipv6 }\n\
             delete element inet cygnet failure { ipv4, ipv6 }\n\
             add element inet cygnet failure { ipv4, ipv6 }\n"
        );
        assert_eq!(
            OnFailure::change("cygnet", false).lines().last(),
            Some("delete element inet cygnet failure { ipv4, ipv6 }")
        );
        let lan = |on_failure| Lan {
            on_failure,
            ..Lan::default()
        };
        assert_eq!(set(&lan(OnFailure::Blocked)), "");
        let closed = set(&lan(OnFailure::Direct { open: false }));
        assert!(
            closed.contains("\t\ttimeout 30s\n") && !closed.contains("elements"),
            "{closed}"
        );
        let open = set(&lan(OnFailure::Direct { open: true }));
        assert!(open.contains("\t\telements = { ipv4, ipv6 }\n"), "{open}");
        assert!(marks(&lan(OnFailure::Blocked)).is_empty());
    }
}
