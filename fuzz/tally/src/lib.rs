//! One table of 8-bit counters that says what a run did: rules by the rule before, operators by pass, kernels by tier,
//! blocks of generated code. libFuzzer reads it beside code edges (feature `libfuzzer`), the loop of `compress fuzz`
//! reads it alone. Places inside the compiler count only in fuzz builds, so that normal ones do not know this crate.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters; a power of two. Long runs reach some 20,000: fewer slots would make different events one.
pub const SLOTS: usize = 1 << 16;
/// Counters of a word: most words are 0, so that eight are looked at as one.
const WORD: usize = size_of::<u64>();

#[cfg_attr(
    all(feature = "libfuzzer", target_os = "linux"),
    unsafe(link_section = "__libfuzzer_extra_counters")
)]
static COUNTERS: [AtomicU64; SLOTS / WORD] = [const { AtomicU64::new(0) }; SLOTS / WORD];

/// What a counter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A rewrite rule, and the one that fired before.
    Rule = 1,
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

/// A number for a name.
pub fn key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn slot(kind: Kind, a: u64, b: u64) -> usize {
    let z = (kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ a ^ b.rotate_left(29);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as usize % SLOTS
}

/// Counts one event; a full counter stays full.
pub fn hit(kind: Kind, a: u64, b: u64) {
    let at = slot(kind, a, b);
    let word = &COUNTERS[at / WORD];
    let mut bytes = word.load(Relaxed).to_ne_bytes();
    bytes[at % WORD] = bytes[at % WORD].saturating_add(1);
    word.store(u64::from_ne_bytes(bytes), Relaxed);
}

/// Where the counter of an event lies, for code that counts by itself.
pub fn address(kind: Kind, a: u64, b: u64) -> *const u8 {
    let at = slot(kind, a, b);
    COUNTERS[at / WORD].as_ptr().cast::<u8>().wrapping_add(at % WORD)
}

/// All counters to 0.
pub fn clear() {
    COUNTERS.iter().for_each(|c| c.store(0, Relaxed));
}

/// What has been seen so far: of each counter, which powers of two it reached.
#[derive(Clone)]
pub struct Seen(Vec<u8>);

impl Default for Seen {
    fn default() -> Seen {
        Seen(vec![0; SLOTS])
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

impl Seen {
    /// Adds what the counters hold now; the features that are new.
    pub fn add(&mut self) -> Vec<(u16, u8)> {
        let mut new = Vec::new();
        for (i, (seen, word)) in self.0.chunks_mut(WORD).zip(&COUNTERS).enumerate() {
            let word = word.load(Relaxed);
            if word == 0 {
                continue;
            }
            for (k, (s, c)) in seen.iter_mut().zip(word.to_ne_bytes()).enumerate() {
                let r = range(c);
                if r & !*s != 0 {
                    *s |= r;
                    new.push(((i * WORD + k) as u16, r));
                }
            }
        }
        new
    }

    /// Counters that were ever above 0.
    pub fn events(&self) -> usize {
        self.0.iter().filter(|s| **s != 0).count()
    }
}

/// The features that the counters hold now.
pub fn features() -> Vec<(u16, u8)> {
    Seen::default().add()
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
        clear();
        assert_eq!(features(), []);
    }
}
