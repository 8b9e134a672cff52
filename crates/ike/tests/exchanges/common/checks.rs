//! What must hold: at every moment, when all has come to rest, and when all is over.

use std::collections::BTreeSet;

use cygnet_ike::status::ChildSaStatus;

use super::{A, B, End, World};

impl World {
    /// Whatever would be sealed now can be opened by the other end.
    pub(super) fn check_seal(&mut self, end: End) {
        let (us, them) = match end {
            A => (&self.a, &self.b),
            B => (&self.b, &self.a),
        };
        let names: BTreeSet<_> = us
            .children
            .values()
            .map(|c| c.params.policy.name.clone())
            .collect();
        for name in names {
            let Some(sending) = us.sending(&name) else {
                continue;
            };
            let opener = them.children.values().find(|child| {
                child.params.spi_in == sending.params.spi_out && child.keys_in.is_some()
            });
            let opens = opener.is_some_and(|child| child.keys_in == sending.keys_out);
            // RFC 7296 §2.8: a new one may be used before the response has arrived, but not while
            // another one serves.
            let others = us.children.values().filter(|c| {
                c.params.policy.name == name
                    && c.keys_out.is_some()
                    && c.params.id != sending.params.id
            });
            let served = others.into_iter().any(|other| {
                them.children
                    .values()
                    .any(|c| c.params.spi_in == other.params.spi_out)
            });
            let early = them.reserved.contains(&sending.params.spi_out) && !served;
            if !opens && !early {
                let what = format!(
                    "{:.3}: {end:?} seals on {name} {:08x}, which the other cannot open",
                    self.now.as_secs_f64(),
                    sending.params.spi_out
                );
                self.log.push(what.clone());
                self.unopened.push(what);
            }
        }
    }

    /// Both hold one IKE SA, the same, with these children, the same; nothing was sealed in vain.
    #[track_caller]
    pub fn assert_in_step(&mut self, children: &[&str]) {
        let now = self.now;
        let (a, b) = (self.a.ike_sas(now), self.b.ike_sas(now));
        let tail = self.tail();
        assert_eq!(a.len(), 1, "IKE SAs of A: {a:#?}\n{tail}");
        assert_eq!(b.len(), 1, "IKE SAs of B: {b:#?}\n{tail}");
        assert_eq!((a[0].spi_i, a[0].spi_r), (b[0].spi_i, b[0].spi_r), "{tail}");
        for (ours, theirs) in [(&a[0], &b[0]), (&b[0], &a[0])] {
            let mut names: Vec<_> = ours.children.iter().map(|c| c.name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, children, "{ours:#?}\n{tail}");
            for child in &ours.children {
                assert!(child.installed && child.sending, "{child:#?}\n{tail}");
                let paired = |c: &&ChildSaStatus| {
                    c.spi_in == child.spi_out && c.spi_out == child.spi_in && c.suite == child.suite
                };
                assert!(
                    theirs.children.iter().any(|c| paired(&c)),
                    "{child:#?}\n{tail}"
                );
            }
        }
        for node in [&self.a, &self.b] {
            assert!(
                node.reserved.is_empty(),
                "SPIs left over at {:?}\n{tail}",
                node.end
            );
            assert_eq!(
                node.children.len(),
                children.len(),
                "data path of {:?}\n{tail}",
                node.end
            );
        }
        assert!(self.unopened.is_empty(), "{:#?}\n{tail}", self.unopened);
    }

    #[track_caller]
    pub fn assert_empty(&mut self) {
        let now = self.now;
        let tail = self.tail();
        for node in [&self.a, &self.b] {
            let sas = node.ike_sas(now);
            assert!(sas.is_empty(), "{:?}: {sas:#?}\n{tail}", node.end);
            assert!(node.children.is_empty(), "{:?}\n{tail}", node.end);
            assert!(node.reserved.is_empty(), "{:?}\n{tail}", node.end);
            assert!(
                node.assigned.is_empty() && node.leases.is_empty(),
                "{:?}\n{tail}",
                node.end
            );
        }
    }
}
