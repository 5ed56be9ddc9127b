//! Who is right: comparing two runs of what should be the same graph.

use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Tensor, Value, ValueId};

/// Differences up to this share of the largest value are rounding.
const RELATIVE: f64 = 2e-3;
/// The same where the smallest type on the way keeps 11 bits or fewer.
const RELATIVE_HALF: f64 = 3e-2;
/// Runs with every intermediate value scaled by nearly 1.
const SHAKEN_RUNS: u64 = 6;

/// Panics with a message when outputs are not equal up to rounding. Where the expected value is not finite or huge,
/// rounding before it may have decided, and nothing is claimed; nor is where the reference itself answers differently when
/// its intermediate values are rounded otherwise (a comparison, a floor or a cast next to its step).
pub fn assert_same(graph: &Graph, feeds: &Feeds, expected: &[Value], got: &[Value], what: &str) {
    assert_eq!(expected.len(), got.len(), "{what}: number of outputs");
    let mut shaken: Option<Vec<Vec<Value>>> = None;
    let half = graph.values().any(|v| matches!(graph.dtype(v), Some(DType::F16 | DType::BF16)));
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        let (Value::Tensor(e), Value::Tensor(g)) = (e, g) else {
            assert_eq!(e, g, "{what}: output {i}");
            continue;
        };
        assert_eq!((e.dtype(), e.shape()), (g.dtype(), g.shape()), "{what}: output {i}");
        for (k, x, y) in differences(e, g, if half { RELATIVE_HALF } else { RELATIVE }) {
            let runs = shaken
                .get_or_insert_with(|| (0..SHAKEN_RUNS).filter_map(|s| shake(graph, feeds, s)).collect());
            let stable = runs.iter().all(|r| r.get(i).is_some_and(|r| agrees(r, k, x, y)));
            assert!(!stable, "{what}: output {i}, element {k}: {x} against {y}");
        }
    }
}

/// Whether a shaken run's element tells `x` from `y`: it lies with `x`.
fn agrees(run: &Value, k: usize, x: f64, y: f64) -> bool {
    let Ok(all) = run.tensor().and_then(Tensor::to_f64s) else { return false };
    let Some(&z) = all.get(k) else { return false };
    if y.is_finite() { (z - x).abs() * 4.0 < (x - y).abs() } else { z.is_finite() }
}

/// Elements that differ by more than rounding: index, expected, got.
fn differences(e: &Tensor, g: &Tensor, relative: f64) -> Vec<(usize, f64, f64)> {
    let float = e.dtype().is_float();
    let (Ok(e), Ok(g)) = (e.to_f64s(), g.to_f64s()) else { return Vec::new() };
    let claimed = |x: f64| x.is_finite() && (!float || x.abs() < 1e4);
    let top = e.iter().filter(|x| claimed(**x)).fold(1.0f64, |m, x| m.max(x.abs()));
    let room = if float { relative * top } else { 0.0 };
    let differs = |x: f64, y: f64| claimed(x) && ((x - y).abs() > room || y.is_nan());
    e.iter()
        .zip(&g)
        .enumerate()
        .filter(|(_, (x, y))| differs(**x, **y))
        .map(|(k, (x, y))| (k, *x, *y))
        .collect()
}

/// The reference's answer with each float input and intermediate scaled by 1 ± 2⁻¹⁸ (a few units in the last place of a
/// narrower type), directions by `seed`.
fn shake(graph: &Graph, feeds: &Feeds, seed: u64) -> Option<Vec<Value>> {
    let mut g = graph.clone();
    ir::infer(&mut g).ok()?;
    let mul = ops::standard("Mul").ok()?;
    let values: Vec<ValueId> = g.values().collect();
    for v in values {
        let Some(dtype) = g.dtype(v) else { continue };
        let unit = match dtype {
            DType::F32 | DType::F64 => 2f64.powi(-18),
            DType::F16 => 2f64.powi(-9),
            DType::BF16 => 2f64.powi(-6),
            _ => continue,
        };
        // The first two runs move all of a tensor one way, the others each element its own way.
        let shape =
            if seed < 2 { Vec::new() } else { g.ty(v).concrete().map(|s| s.to_vec()).unwrap_or_default() };
        let n: usize = shape.iter().product();
        let factor = |i: usize| {
            let h = (seed * 7919 + v.index() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64;
            let up = if seed < 2 { seed == 0 } else { h.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 0 };
            if up { 1.0 + unit } else { 1.0 - unit }
        };
        let c = Tensor::from_f64s(dtype, &shape, (0..n).map(factor).collect()).ok()?;
        let c = g.add_initializer("shake", c);
        let scaled = g.apply("", mul, Attrs::new(), &[v, c]);
        let by = g.producer(scaled)?;
        g.replace_uses(v, scaled);
        g.set_input(by, 0, Some(v));
    }
    Some(Reference.run(&g, feeds, &[]).ok()?.outputs)
}
