//! What is sent, made from a seed: any datagram and any chunk of a stream can be made again by who
//! receives it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Where all octets are taken from.
const BLOCK: usize = 1 << 18;
/// The longest piece of it.
pub(super) const LONGEST: usize = 1 << 16;
/// Flow and number, at the beginning of every datagram that has room for them.
const HEADER: usize = 8;
/// Datagrams of one length in a burst.
pub(super) const BURST: u64 = 16;
/// A datagram without room for its number is looked for so far around the one that is due.
const AROUND: u64 = 256;
/// Who skips more has not lost datagrams: its number is damaged.
const FARTHEST: u64 = 1 << 20;
/// Examples told of each kind of fault.
const EXAMPLES: usize = 4;

/// Octets that look random.
#[derive(Debug)]
pub(super) struct Octets {
    seed: u64,
    block: Vec<u8>,
}

impl Octets {
    pub(super) fn of(seed: u64) -> Self {
        let words = (0..BLOCK as u64 / 8).map(|index| mix(seed, index).to_be_bytes());
        Self {
            seed,
            block: words.flatten().collect(),
        }
    }

    /// The piece with this number, `length` octets and never more than [`LONGEST`].
    pub(super) fn piece(&self, number: u64, length: usize) -> &[u8] {
        let room = (BLOCK - LONGEST) as u64;
        let from = (mix(self.seed, !number) % room) as usize;
        &self.block[from..from + length.min(LONGEST)]
    }
}

/// SplitMix64 at a position of its stream.
pub(super) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The datagrams of a flow.
#[derive(Debug)]
pub(super) struct Datagrams {
    flow: u32,
    octets: Octets,
    lengths: RangeInclusive<usize>,
    bursts: bool,
}

impl Datagrams {
    /// Lengths are drawn for each datagram, or for each burst of [`BURST`].
    pub(super) fn new(flow: u32, seed: u64, lengths: RangeInclusive<usize>, bursts: bool) -> Self {
        let octets = Octets::of(mix(seed, u64::from(flow)));
        Self {
            flow,
            octets,
            lengths,
            bursts,
        }
    }

    /// Octets of the datagram with this number.
    pub(super) fn length(&self, number: u64) -> usize {
        let drawn = if self.bursts { number / BURST } else { number };
        let (least, most) = (*self.lengths.start(), *self.lengths.end());
        let choices = (most - least + 1) as u64;
        least + (mix(self.octets.seed ^ 0x5eed, drawn) % choices) as usize
    }

    /// What a router that marks some packets of a flow makes of its ECN field (RFC 3168 §5).
    pub(super) fn ecn(&self, number: u64) -> u8 {
        const ECT_0: u8 = 2;
        const CE: u8 = 3;
        let drawn = mix(self.octets.seed ^ 0xec4, number);
        if drawn.is_multiple_of(4) { CE } else { ECT_0 }
    }

    /// Appends the datagram with this number.
    pub(super) fn append(&self, number: u64, to: &mut Vec<u8>) {
        let (length, start) = (self.length(number), to.len());
        to.extend_from_slice(self.octets.piece(number, length));
        if let Some(header) = to.get_mut(start..start + HEADER) {
            header[..4].copy_from_slice(&self.flow.to_be_bytes());
            header[4..].copy_from_slice(&(number as u32).to_be_bytes());
        }
    }

    fn is(&self, number: u64, datagram: &[u8]) -> bool {
        if datagram.len() != self.length(number) {
            return false;
        }
        let piece = self.octets.piece(number, datagram.len());
        match datagram.split_at_checked(HEADER) {
            Some((header, rest)) => self.number(header) == Some(number) && rest == &piece[HEADER..],
            None => datagram == piece,
        }
    }

    /// What a datagram says of itself.
    fn number(&self, datagram: &[u8]) -> Option<u64> {
        let (flow, rest) = datagram.split_first_chunk::<4>()?;
        let number = rest.first_chunk::<4>()?;
        (u32::from_be_bytes(*flow) == self.flow).then(|| u64::from(u32::from_be_bytes(*number)))
    }
}

/// What has arrived of a flow, and what was wrong with it.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// The number that is due.
    next: u64,
    missing: BTreeSet<u64>,
    /// Octets that arrived.
    pub(super) octets: u64,
    /// Datagrams that arrived, faulty ones included.
    pub(super) arrived: u64,
    gaps: Examples,
    late: Examples,
    repeated: Examples,
    damaged: Examples,
}

#[derive(Debug, Default)]
struct Examples {
    count: u64,
    told: Vec<String>,
}

impl Examples {
    fn add(&mut self, at: Duration, text: String) {
        self.count += 1;
        if self.told.len() < EXAMPLES {
            self.told
                .push(format!("{text} at {:.3} s", at.as_secs_f64()));
        }
    }
}

impl Account {
    /// A datagram arrived at this moment of the run.
    pub(super) fn take(&mut self, all: &Datagrams, datagram: &[u8], at: Duration) {
        self.arrived += 1;
        self.octets += datagram.len() as u64;
        if all.is(self.next, datagram) {
            self.next += 1;
            return;
        }
        let Some(number) = self.recognise(all, datagram) else {
            let says = match all.number(datagram) {
                Some(number) => format!("number {number}"),
                None => format!("around number {}", self.next),
            };
            let length = datagram.len();
            self.damaged
                .add(at, format!("{says}, {length} octets: {}", start(datagram)));
            return;
        };
        if number > self.next {
            let (from, to) = (self.next, number - 1);
            self.gaps.add(at, format!("{from} to {to} skipped"));
            self.missing.extend(from..=to);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.late
                .add(at, format!("{number} after {}", self.next - 1));
        } else {
            self.repeated.add(at, format!("{number} again"));
        }
    }

    /// The number of an intact datagram that is not the one due.
    fn recognise(&self, all: &Datagrams, datagram: &[u8]) -> Option<u64> {
        if datagram.len() >= HEADER {
            let number = all.number(datagram)?;
            let near = number < self.next + FARTHEST;
            return (near && all.is(number, datagram)).then_some(number);
        }
        // Several may look like it: rather one that is missing, then the next to come, then a
        // repetition.
        let missing = self.missing.iter().rev().take(AROUND as usize).copied();
        let coming = self.next + 1..self.next + AROUND;
        let past = (self.next.saturating_sub(AROUND)..self.next).rev();
        missing
            .chain(coming)
            .chain(past)
            .find(|&number| all.is(number, datagram))
    }

    /// Whether all of `sent` datagrams are here.
    pub(super) fn is_complete(&self, sent: u64) -> bool {
        self.next >= sent && self.missing.is_empty()
    }

    /// What was wrong with the flow called `name` when `sent` datagrams were sent; nothing as a rule.
    pub(super) fn faults(&self, name: &str, sent: u64) -> Option<String> {
        let tail = sent.saturating_sub(self.next);
        let lost = self.missing.len() as u64 + tail;
        let mut faults = Vec::new();
        if lost > 0 {
            let first: Vec<String> = self
                .missing
                .iter()
                .take(EXAMPLES)
                .map(u64::to_string)
                .chain((tail > 0).then(|| format!("{} to the last", self.next)))
                .collect();
            let gaps = self.gaps.told.join(", ");
            faults.push(format!(
                "{lost} lost (numbers {}; {gaps})",
                first.join(", ")
            ));
        }
        for (what, examples) in [
            ("out of order", &self.late),
            ("more than once", &self.repeated),
            ("damaged", &self.damaged),
        ] {
            if examples.count > 0 {
                let (count, told) = (examples.count, examples.told.join(", "));
                faults.push(format!("{count} {what} ({told})"));
            }
        }
        let all = faults.join("; ");
        (!faults.is_empty()).then(|| format!("{name}, {sent} datagrams sent: {all}"))
    }
}

/// The first octets, for a person.
fn start(octets: &[u8]) -> String {
    octets.iter().take(16).map(|o| format!("{o:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a flow whose datagrams arrive in this order.
    fn told(lengths: RangeInclusive<usize>, order: &[u64], sent: u64) -> Option<String> {
        let all = Datagrams::new(7, 1, lengths, false);
        let mut account = Account::default();
        for &number in order {
            let mut datagram = Vec::new();
            all.append(number, &mut datagram);
            account.take(&all, &datagram, Duration::from_secs(1));
        }
        account.faults("udp", sent)
    }

    #[test]
    fn every_kind_of_fault_is_told_by_its_number() {
        assert_eq!(told(1..=1350, &[0, 1, 2, 3], 4), None);
        let lost = told(8..=1350, &[0, 1, 4], 6).unwrap();
        assert!(
            lost.contains("3 lost (numbers 2, 3, 5 to the last; 2 to 3 skipped at 1.000 s)"),
            "{lost}"
        );
        let late = told(8..=1350, &[0, 2, 1, 3], 4).unwrap();
        assert!(
            late.ends_with("sent: 1 out of order (1 after 2 at 1.000 s)"),
            "{late}"
        );
        let again = told(8..=1350, &[0, 1, 2, 1], 3).unwrap();
        assert!(
            again.ends_with("1 more than once (1 again at 1.000 s)"),
            "{again}"
        );
    }

    #[test]
    fn datagrams_without_a_number_are_recognised() {
        assert_eq!(told(5..=7, &(0..50).collect::<Vec<_>>(), 50), None);
        let swapped = told(5..=7, &[0, 2, 1, 3], 4).unwrap();
        assert!(swapped.contains("1 out of order"), "{swapped}");
        let again = told(5..=7, &[0, 1, 2, 2], 3).unwrap();
        assert!(again.contains("1 more than once"), "{again}");
    }

    #[test]
    fn one_octet_that_changed_is_damage() {
        let all = Datagrams::new(7, 1, 100..=200, true);
        let mut datagram = Vec::new();
        all.append(0, &mut datagram);
        for changed in [0, 5, 8, datagram.len() - 1] {
            let mut account = Account::default();
            let mut datagram = datagram.clone();
            datagram[changed] ^= 1;
            account.take(&all, &datagram, Duration::ZERO);
            let told = account.faults("udp", 1).unwrap();
            assert!(told.contains("1 damaged"), "{changed}: {told}");
        }
        assert_eq!(all.length(0), all.length(BURST - 1));
    }
}
