//! The date, and certificates, which hang on it.

use cygnet_daemon::survey;

use crate::facts::Facts;
use crate::report::Check;
use crate::words::{day, minute, span};

/// Two clocks that differ by less agree well enough for certificates, and for two programs that speak of time.
const DIFFER: u64 = 120;

pub(super) fn clock(facts: &Facts) -> Check {
    let name = "clock";
    let wrong = |why: String| {
        Check::wrong(
            name,
            why,
            "`timedatectl set-ntp true` keeps it right where the machine reaches the internet",
        )
    };
    let status = facts.status.as_ref().ok();
    let mut warnings = status.into_iter().flat_map(|status| &status.warnings);
    if let Some(waits) = warnings.find(|warning| survey::is_about_clock(warning)) {
        return wrong(waits.clone());
    }
    // The program that runs may know better.
    let now = match (&facts.clock.servers, &facts.clock.date) {
        (Some(servers), _) => return wrong(servers.to_string()),
        (None, Err(why)) => return wrong(why.clone()),
        (None, Ok(now)) => *now,
    };
    let says = minute(now);
    match &facts.clock.ahead {
        Some((host, ahead)) if ahead.unsigned_abs() > DIFFER => {
            let way = if *ahead > 0 { "ahead of" } else { "behind" };
            Check::wrong(
                name,
                format!(
                    "this machine's clock says {says}, which is {} {way} that of {host}",
                    span(ahead.unsigned_abs())
                ),
                "`timedatectl set-ntp true`, or `timedatectl set-time`",
            )
        }
        Some((host, _)) => Check::good(name, format!("{says}, and {host} agrees")),
        None if facts.clock.synchronised => Check::good(
            name,
            format!("{says}, and time synchronisation keeps it right"),
        ),
        None => Check::unknown(
            name,
            format!("{says}: is that right? no time synchronisation keeps it, and no other clock was asked"),
        )
        .try_this("`timedatectl set-ntp true`; with --url a web host's clock is compared"),
    }
}

pub(super) fn certificates(facts: &Facts) -> Vec<Check> {
    let name = "certificates";
    if facts.configuration.read.is_err() {
        return Vec::new();
    }
    let Some(now) = facts.clock.known() else {
        let needed = !facts.certificates.is_empty();
        let unknown = || Check::unknown(name, "without the date there is nothing to judge them by");
        return needed.then(unknown).into_iter().collect();
    };
    let mut checks: Vec<Check> = facts
        .expiring
        .iter()
        .map(|told| Check::wrong(name, told, "renew it, and `cygnet reload`"))
        .collect();
    let early = facts.certificates.iter().filter(|c| c.not_before > now);
    checks.extend(early.map(|certificate| {
        Check::wrong(
            name,
            format!(
                "{} is valid from {} on, and today is {}",
                certificate.whose,
                day(certificate.not_before),
                day(now)
            ),
            "set the clock of the machine that issued it, or of this one",
        )
    }));
    if !checks.is_empty() {
        return checks;
    }
    let first = facts.certificates.iter().min_by_key(|c| c.not_after);
    let good = match first {
        None => "none are used here: both ends prove themselves by secrets or passwords".to_owned(),
        Some(first) => format!(
            "the first to end is {}, on {}",
            first.whose,
            day(first.not_after)
        ),
    };
    vec![Check::good(name, good)]
}

#[cfg(test)]
mod tests {
    use cygnet_daemon::api::ClockStatus;

    use super::super::testing::{expect, found};
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_judges_no_certificates() {
        let found = found(|f| f.clock.date = Err("it says 1970".into()));
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("Wrong clock : it says 1970 -> `timedatectl"));
        assert!(found[1].starts_with("Unknown certificates : without the date"));
    }

    #[test]
    fn certificates_are_judged_by_the_date_of_time_servers() {
        let change = |f: &mut Facts| {
            let clock = ClockStatus {
                date: 1_795_651_200,
                servers: vec!["ntp.example".into()],
                behind_s: 20 * 365 * 86_400,
            };
            f.clock.date = Err("it says 2006".into());
            // What it warns of is said once.
            f.status.as_mut().unwrap().warnings = vec![clock.to_string()];
            f.clock.servers = Some(clock);
        };
        let expected =
            "Wrong clock : time from ntp.example: this machine's clock is 20 years behind";
        expect(change, expected, &["`timedatectl set-ntp true` keeps"]);
        // A clock that can be right, and is not.
        let another = |f: &mut Facts| {
            change(f);
            f.clock.date = Ok(1_795_651_200 - 20 * 365 * 86_400);
        };
        expect(another, expected, &["`timedatectl set-ntp true` keeps"]);
    }

    #[test]
    fn a_clock_that_another_contradicts() {
        for (ahead, told) in [
            (121, "2 min ahead of that of web.example"),
            (-86_400, "1 d 0 h behind that of web.example"),
            (i64::MIN, " behind that of web.example"),
        ] {
            expect(
                |f| f.clock.ahead = Some(("web.example".into(), ahead)),
                "Wrong clock : this machine's clock says 2026-11-26 00:00 UTC",
                &[told],
            );
        }
        let close = |f: &mut Facts| f.clock.ahead = Some(("web.example".into(), -120));
        assert!(found(close).is_empty());
    }

    #[test]
    fn a_clock_that_nobody_keeps() {
        let change = |f: &mut Facts| f.clock.synchronised = false;
        expect(change, "Unknown clock ", &["is that right?", "--url"]);
    }

    #[test]
    fn certificates_that_ended_or_have_not_begun() {
        let told = "the certificate of tunnel home (CN=box) expired on 2026-11-25: have it renewed";
        let expired = |f: &mut Facts| f.expiring = vec![told.into()];
        expect(
            expired,
            &format!("Wrong certificates : {told}"),
            &["`cygnet reload`"],
        );
        let early = |f: &mut Facts| f.certificates[0].not_before = 1_795_651_201;
        expect(
            early,
            "Wrong certificates : the certificate of tunnel home (CN=box) is valid from 2026-11-26 on",
            &[],
        );
    }
}
