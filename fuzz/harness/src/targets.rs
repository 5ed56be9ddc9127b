//! One check per fuzz target: bytes in, a panic when something is wrong.

use crate::check::{self, Ran, Stop};
use crate::families::wide;
use crate::generate::{Case, blocks, case};
use crate::mutate;
use crate::pair::Pair;
use crate::passes::{Growth, Level, Pass, Pipeline};
use crate::quant;
use crate::random::Random;
use arbitrary::Unstructured;

pub use crate::bytes::prescan_import;
pub use crate::container::container;

/// What a pair is made and checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Rule subsets in changed orders.
    Exact,
    /// Methods with their options.
    Lossy,
    /// Generated code.
    Codegen,
    /// Files and text.
    Roundtrip,
    /// Any passes.
    Joint,
}

impl Target {
    pub const ALL: [Target; 5] =
        [Target::Exact, Target::Lossy, Target::Codegen, Target::Roundtrip, Target::Joint];

    pub fn name(self) -> &'static str {
        match self {
            Target::Exact => "exact",
            Target::Lossy => "lossy",
            Target::Codegen => "codegen",
            Target::Roundtrip => "roundtrip",
            Target::Joint => "joint",
        }
    }

    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Whether a pass belongs to what this target looks at.
    pub fn takes(self, pass: &Pass) -> bool {
        match self {
            Target::Exact => matches!(pass, Pass::Exact { .. } | Pass::Fold | Pass::Widen),
            Target::Lossy => matches!(pass, Pass::Compress { .. } | Pass::Search { .. }),
            Target::Codegen => matches!(pass, Pass::Run { .. }),
            Target::Roundtrip => matches!(pass, Pass::File | Pass::Text),
            Target::Joint => true,
        }
    }

    /// A sequence to start with.
    pub fn passes(self, r: &mut Random) -> Vec<Pass> {
        match self {
            Target::Exact => vec![
                Pass::exact(Level::Portable, Growth::Never),
                Pass::exact(Level::Runtime, Growth::Allowed),
            ],
            Target::Lossy => vec![mutate::passes::compress(r)],
            Target::Codegen => vec![Pass::RUN],
            Target::Roundtrip => vec![Pass::File, Pass::Text],
            Target::Joint => mutate::passes::sequence(r),
        }
    }

    /// One sequence for every graph: what `compress optimize` and then `compress run` do.
    pub fn usual(self) -> Vec<Pass> {
        match self {
            Target::Joint => vec![Pass::exact(Level::Portable, Growth::Never), Pass::File, Pass::RUN],
            _ => self.passes(&mut Random(0)),
        }
    }

    /// The pair that these bytes stand for: one written by [`Pair::encode`], else one generated from them.
    pub fn pair(self, bytes: &[u8]) -> Option<Pair> {
        if let Some(mut p) = Pair::decode(bytes) {
            p.pipeline.passes.retain(|x| self.takes(x));
            return Some(p);
        }
        let seed = tally::key(&String::from_utf8_lossy(bytes));
        let passes = self.passes(&mut Random(seed));
        Some(Pair::from((generated(bytes)?, Pipeline::new(seed, passes))))
    }

    /// For libFuzzer: changes the pair in the first `size` bytes of `data`, which has room for `room`; the new size, or
    /// `None` where that is no pair or does not fit.
    pub fn mutate(self, data: &mut [u8], size: usize, room: usize, seed: u32) -> Option<usize> {
        let new = mutate::bytes(self, data.get(..size)?, u64::from(seed)).filter(|b| b.len() <= room)?;
        data.get_mut(..new.len())?.copy_from_slice(&new);
        Some(new.len())
    }

    /// # Panics
    /// With the finding, if there is one.
    pub fn check(self, bytes: &[u8]) -> Ran {
        check::set_limits();
        let Some(pair) = self.pair(bytes) else { return Ran::default() };
        check::check(&pair).unwrap_or_else(|f| panic!("{f}"))
    }
}

/// The case that these bytes stand for.
pub fn generated(bytes: &[u8]) -> Option<Case> {
    // The last byte chooses the generator.
    let (&kind, bytes) = bytes.split_last()?;
    if kind % 16 == 15 {
        return quant::quantized(tally::key(&String::from_utf8_lossy(bytes))).map(|(c, _)| c);
    }
    let mut u = Unstructured::new(bytes);
    if kind % 16 == 14 {
        return blocks(&mut u).ok();
    }
    if kind % 2 == 0 { case(&mut u) } else { wide(&mut u) }.ok()
}

/// Exact rewrites keep the answers, and the verifier accepts their result.
pub fn exact(bytes: &[u8]) {
    Target::Exact.check(bytes);
}

/// A method's candidate has the error and the bytes that it states.
pub fn lossy(bytes: &[u8]) {
    Target::Lossy.check(bytes);
}

/// Generated code gives the reference's answers, on one thread and, bit for bit the same, on two.
pub fn codegen(bytes: &[u8]) {
    Target::Codegen.check(bytes);
}

/// A file or a text written and read again is the same computation.
pub fn roundtrip(bytes: &[u8]) {
    Target::Roundtrip.check(bytes);
}

/// Any passes in any order.
pub fn joint(bytes: &[u8]) {
    Target::Joint.check(bytes);
}

/// Quantized graphs on every tier; the bytes are a seed.
pub fn runtime_quant(bytes: &[u8]) {
    check::set_limits();
    let seed = bytes.iter().fold(0u64, |h, &b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
    let Some((case, exact)) = quant::quantized(seed) else { return };
    if let Err(Stop::Found(oracle, message)) = quant::check(&case, exact) {
        panic!("{oracle}: {message} (seed {seed})");
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// The same pseudo-random inputs every time, on stable, without a fuzzer. New ones are the fuzzer's work.
    fn smoke(check: fn(&[u8]), inputs: u64) {
        for seed in 0..inputs {
            check(&crate::random_bytes(seed));
        }
    }

    /// Files that fuzzing kept for a target, smallest set that reaches what all of them reach.
    fn corpus(target: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "no files in {}", folder.display());
        files
    }

    fn replay(target: &str, check: fn(&[u8])) {
        for f in corpus(target) {
            let bytes = std::fs::read(&f).unwrap();
            let message = crate::check::guarded(|| check(&bytes)).err();
            assert_eq!(message, None, "{}", f.display());
        }
    }

    /// Operators that the cases of some seeds hold, and how many cases there were.
    #[test]
    fn cases_hold_most_operators() {
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..6000u64 {
            let Some(c) = super::generated(&crate::random_bytes(seed)) else { continue };
            found.extend(c.graph.nodes().map(|(_, n)| n.op.name()));
        }
        println!("{} operators: {found:?}", found.len());
        assert!(found.len() >= 120, "{} operators", found.len());
    }

    /// One element was 1 instead of 0: something divided by a zero whose sign no operator promises.
    #[test]
    fn seed_4351_gives_the_references_answer() {
        use ir::Evaluate;
        let bytes = crate::random_bytes(4351);
        let (&kind, bytes) = bytes.split_last().unwrap();
        let mut u = arbitrary::Unstructured::new(bytes);
        let c = if kind % 2 == 0 { crate::generate::case(&mut u) } else { crate::families::wide(&mut u) }
            .unwrap();
        let expected = ir::Reference.run(&c.graph, &c.feeds, &[]).unwrap().outputs;
        let session = runtime::Session::from_graph(&c.graph, 1).unwrap();
        let got = session.evaluate(&c.feeds).unwrap();
        let same = crate::oracle::same(&c.graph, &c.feeds, &expected, &got);
        assert_eq!(same, Ok(()), "{} {:?}", ir::text::print(&c.graph).unwrap(), c.feeds);
    }

    #[test]
    fn prescan_import_smoke() {
        smoke(super::prescan_import, 150);
    }
    #[test]
    fn exact_smoke() {
        smoke(super::exact, 150);
        replay("exact", super::exact);
    }
    #[test]
    fn lossy_smoke() {
        smoke(super::lossy, 150);
        replay("lossy", super::lossy);
    }
    #[test]
    fn codegen_smoke() {
        smoke(super::codegen, 150);
        replay("codegen", super::codegen);
    }
    #[test]
    fn roundtrip_smoke() {
        smoke(super::roundtrip, 150);
        replay("roundtrip", super::roundtrip);
    }
    #[test]
    fn joint_smoke() {
        smoke(super::joint, 100);
        replay("joint", super::joint);
    }
    #[test]
    fn container_smoke() {
        smoke(super::container, 100);
        (0..50).for_each(|s| super::container(&crate::container::example(s)));
        replay("container", super::container);
    }
    #[test]
    fn runtime_quant_smoke() {
        smoke(super::runtime_quant, 200);
        replay("runtime_quant", super::runtime_quant);
    }
}
