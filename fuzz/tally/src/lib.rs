//! Tables of 8-bit counters that say what a run did: rules by the rule before, operators by pass, kernels by tier, blocks
//! of generated code. libFuzzer reads them beside code edges (feature `libfuzzer`), the loop of `compress fuzz` reads them
//! alone. Places inside the compiler count only in fuzz builds, so that normal ones do not know this crate.
//!
//! Each kind of event has counters of its own, so that none drowns another; there are many more than events, as two that
//! share a counter are one. A run touches few of them: only lines that it touched are read and cleared.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a counter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A rewrite rule, and the one that fired before.
    Rule,
    /// An operator in a pass's result: (pass, operator), (type, rank).
    Operator,
    /// An operator and the one it reads from.
    Pair,
    /// A step of a program: (kernel, tier), its tail.
    Kernel,
    /// A basic block of generated code: what the loop does, which block.
    Block,
    /// How a check ended.
    Verdict,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Rule, Kind::Operator, Kind::Pair, Kind::Kernel, Kind::Block, Kind::Verdict];

    pub const fn name(self) -> &'static str {
        match self {
            Kind::Rule => "rules",
            Kind::Operator => "operators",
            Kind::Pair => "pairs",
            Kind::Kernel => "kernels",
            Kind::Block => "blocks",
            Kind::Verdict => "verdicts",
        }
    }

    /// Counters of the kind, as a power of two.
    const fn bits(self) -> u32 {
        let bits = match self {
            Kind::Rule | Kind::Kernel | Kind::Operator => 18,
            Kind::Pair | Kind::Block => 20,
            Kind::Verdict => 15,
        };
        bits - FOLDED
    }
}

/// libFuzzer walks all counters after each run, and has room for the features of 262,144: there they are fewer.
const FOLDED: u32 = if cfg!(feature = "libfuzzer") { 6 } else { 0 };

/// Counters of a word: most words are 0, so that eight are looked at as one.
const WORD: usize = size_of::<u64>();
/// Counters that are read and cleared together.
const LINE: usize = 64;

/// Where the counters of each kind begin, and the end.
const STARTS: [usize; Kind::ALL.len() + 1] = {
    let mut starts = [0; Kind::ALL.len() + 1];
    let mut k = 0;
    while k < Kind::ALL.len() {
        starts[k + 1] = starts[k] + (1 << Kind::ALL[k].bits());
        k += 1;
    }
    starts
};
const SLOTS: usize = STARTS[Kind::ALL.len()];
const LINES: usize = SLOTS / LINE;

#[cfg_attr(
    all(feature = "libfuzzer", target_os = "linux"),
    unsafe(link_section = "__libfuzzer_extra_counters")
)]
static COUNTERS: [AtomicU64; SLOTS / WORD] = [const { AtomicU64::new(0) }; SLOTS / WORD];

/// Which lines may hold counters above 0.
static TOUCHED: [AtomicU8; LINES] = [const { AtomicU8::new(0) }; LINES];

/// A number for a name.
pub fn key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn slot(kind: Kind, a: u64, b: u64) -> usize {
    let z = (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ a ^ b.rotate_left(29);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let within = (z ^ (z >> 31)) & ((1 << kind.bits()) - 1);
    STARTS[kind as usize] + within as usize
}

/// Counts one event; a full counter stays full.
pub fn hit(kind: Kind, a: u64, b: u64) {
    let at = slot(kind, a, b);
    TOUCHED[at / LINE].store(1, Relaxed);
    let word = &COUNTERS[at / WORD];
    let mut bytes = word.load(Relaxed).to_ne_bytes();
    bytes[at % WORD] = bytes[at % WORD].saturating_add(1);
    word.store(u64::from_ne_bytes(bytes), Relaxed);
}

/// Where an event is counted, for code that counts by itself.
pub struct Place {
    /// The byte to count in.
    pub counter: *const u8,
    /// The byte to set to 1 where anything is counted.
    pub touched: *const u8,
}

pub fn place(kind: Kind, a: u64, b: u64) -> Place {
    let at = slot(kind, a, b);
    Place {
        counter: COUNTERS[at / WORD].as_ptr().cast::<u8>().wrapping_add(at % WORD),
        touched: TOUCHED[at / LINE].as_ptr(),
    }
}

/// The lines that were touched.
fn touched() -> impl Iterator<Item = usize> {
    TOUCHED.iter().enumerate().filter(|(_, t)| t.load(Relaxed) != 0).map(|(i, _)| i)
}

fn words(line: usize) -> &'static [AtomicU64] {
    &COUNTERS[line * LINE / WORD..(line + 1) * LINE / WORD]
}

/// All counters to 0.
pub fn clear() {
    for line in touched() {
        words(line).iter().for_each(|c| c.store(0, Relaxed));
        TOUCHED[line].store(0, Relaxed);
    }
}

/// A counter and its range, a power of two.
pub type Feature = (u32, u8);

/// What has been seen so far: of each counter, which powers of two it reached.
#[derive(Clone)]
pub struct Seen {
    ranges: Vec<u8>,
    events: [usize; Kind::ALL.len()],
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { ranges: vec![0; SLOTS], events: [0; Kind::ALL.len()] }
    }
}

/// A counter's range: 1, 2, 3, 4–7, 8–15, 16–31, 32–127, more.
fn range(n: u8) -> u8 {
    match n {
        0 => 0,
        1..=3 => 1 << (n - 1),
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        _ => 128,
    }
}

/// What the counters hold now.
pub fn features() -> Vec<Feature> {
    let mut all = Vec::new();
    for line in touched() {
        for (i, word) in words(line).iter().enumerate() {
            let word = word.load(Relaxed);
            if word == 0 {
                continue;
            }
            let first = line * LINE + i * WORD;
            let counted = word.to_ne_bytes().into_iter().enumerate().filter(|(_, n)| *n != 0);
            all.extend(counted.map(|(k, n)| ((first + k) as u32, range(n))));
        }
    }
    all
}

impl Seen {
    /// Adds what the counters hold now; the features that are new.
    pub fn add(&mut self) -> Vec<Feature> {
        let mut new = features();
        new.retain(|&(at, range)| {
            let at = at as usize;
            let seen = self.ranges[at];
            if seen == 0 {
                self.events[STARTS[1..].partition_point(|&end| end <= at)] += 1;
            }
            self.ranges[at] |= range;
            range & !seen != 0
        });
        new
    }

    /// Counters that were ever above 0.
    pub fn events(&self) -> usize {
        self.events.iter().sum()
    }

    /// Of each kind: those that were ever above 0, and how many there are.
    pub fn by_kind(&self) -> impl Iterator<Item = (Kind, usize, usize)> {
        Kind::ALL.into_iter().zip(self.events).map(|(k, n)| (k, n, 1 << k.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_not_new() {
        clear();
        let mut seen = Seen::default();
        hit(Kind::Rule, key("a"), key("b"));
        assert_eq!(seen.add().len(), 1);
        assert_eq!(seen.add(), []);
        hit(Kind::Rule, key("a"), key("b"));
        assert_eq!(seen.add().len(), 1);
        (0..300).for_each(|_| hit(Kind::Rule, key("a"), key("b")));
        assert_eq!(seen.add().len(), 1);
        hit(Kind::Rule, key("b"), key("a"));
        assert_eq!(seen.add().len(), 1);
        hit(Kind::Verdict, key("a"), key("b"));
        assert_eq!(seen.add().len(), 1);
        let told: Vec<_> = seen.by_kind().map(|(k, n, _)| (k.name(), n)).filter(|(_, n)| *n > 0).collect();
        assert_eq!((told, seen.events()), (vec![("rules", 2), ("verdicts", 1)], 3));
        clear();
        assert_eq!(features(), []);
        // Code that counts by itself is seen by way of the line that it marks.
        let p = place(Kind::Block, 1, 2);
        let line = TOUCHED.iter().position(|t| t.as_ptr().cast_const() == p.touched);
        let word = COUNTERS.iter().position(|c| {
            (0..WORD).any(|k| c.as_ptr().cast::<u8>().wrapping_add(k).cast_const() == p.counter)
        });
        assert_eq!(line, word.map(|w| w * WORD / LINE));
    }
}
