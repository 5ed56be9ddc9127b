//! One check per fuzz target.

use crate::families::wide;
use crate::generate::{Case, case};
use crate::oracle::assert_same;
use arbitrary::Unstructured;
use ir::{Evaluate, Reference};

/// Bytes as a model file: an error or a graph that verifies, exports and imports again, never a panic.
pub fn prescan_import(bytes: &[u8]) {
    let Ok(m) = onnx::from_bytes(bytes.to_vec(), &ops::Standard) else { return };
    if let Ok(out) = onnx::to_bytes(&m.graph, &ops::Standard) {
        let back = onnx::from_bytes(out, &ops::Standard);
        assert!(back.is_ok(), "an exported model does not import: {:?}", back.err());
    }
}

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
