//! One check per fuzz target.

use crate::families::wide;
use crate::generate::{Case, case};
use crate::oracle::assert_same;
use arbitrary::Unstructured;
use ir::{Evaluate, Reference};

pub use crate::bytes::prescan_import;

/// The case that these bytes stand for.
pub fn generated(bytes: &[u8]) -> Option<Case> {
    // The last byte chooses the generator.
    let (&kind, bytes) = bytes.split_last()?;
    let mut u = Unstructured::new(bytes);
    if kind % 2 == 0 { case(&mut u) } else { wide(&mut u) }.ok()
}

/// A generated case and the reference's answers.
fn runnable(bytes: &[u8]) -> Option<(Case, Vec<ir::Value>)> {
    let c = generated(bytes)?;
    let expected = Reference
        .run(&c.graph, &c.feeds, &[])
        .unwrap_or_else(|e| panic!("the generator made a bad graph: {e}"));
    Some((c, expected.outputs))
}

/// Exact rewrites keep the answers, and the verifier accepts their result.
pub fn exact(bytes: &[u8]) {
    let Some((c, expected)) = runnable(bytes) else { return };
    for options in [exact::Options::PORTABLE, exact::Options::RUNTIME] {
        let (g, _) = exact::optimize(&c.graph, options).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        ir::verify(&g).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        let got = Reference.run(&g, &c.feeds, &[]).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert_same(&c.graph, &c.feeds, &expected, &got.outputs, "rewritten");
    }
}

/// Generated code gives the reference's answers, on one thread and, bit for bit the same, on two.
pub fn codegen(bytes: &[u8]) {
    let Some((c, expected)) = runnable(bytes) else { return };
    let run = |threads: usize| {
        let s = runtime::Session::from_graph(&c.graph, threads).unwrap_or_else(|e| panic!("{e}"));
        s.evaluate(&c.feeds).unwrap_or_else(|e| panic!("generated code: {e}"))
    };
    let one = run(1);
    assert_same(&c.graph, &c.feeds, &expected, &one, "generated code");
    assert_eq!(one, run(2), "threads changed the bits");
}

/// A file written and read again is the same computation.
pub fn roundtrip(bytes: &[u8]) {
    let Some((c, expected)) = runnable(bytes) else { return };
    let file = onnx::to_bytes(&c.graph, &ops::Standard).unwrap_or_else(|e| panic!("{e}"));
    let back = onnx::from_bytes(file, &ops::Standard).unwrap_or_else(|e| panic!("{e}"));
    let got = Reference.run(&back.graph, &c.feeds, &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_same(&c.graph, &c.feeds, &expected, &got.outputs, "read back");
}

#[cfg(test)]
mod tests {
    /// The same pseudo-random inputs every time, on stable, without a fuzzer. New ones are the fuzzer's and `soak`'s work.
    fn smoke(check: fn(&[u8])) {
        for seed in 0..150u64 {
            check(&crate::random_bytes(seed));
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

    #[test]
    fn prescan_import_smoke() {
        smoke(super::prescan_import);
    }
    #[test]
    fn exact_smoke() {
        smoke(super::exact);
    }
    #[test]
    fn codegen_smoke() {
        smoke(super::codegen);
    }
    #[test]
    fn roundtrip_smoke() {
        smoke(super::roundtrip);
    }
}
