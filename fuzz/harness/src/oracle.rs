//! Who is right: comparing two runs of what should be the same graph.

use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Tensor, Value, ValueId};
use std::collections::BTreeMap;

/// Differences up to this share of the largest value are rounding.
const RELATIVE: f64 = 2e-3;
/// The same where the smallest type on the way keeps 11 bits or fewer.
const RELATIVE_HALF: f64 = 3e-2;
/// Runs with every intermediate value scaled by nearly 1; then two with all zeros positive, or negative, and one in which
/// values that nearly equal each other are equal.
const SHAKEN_RUNS: u64 = 17;
const SIGNS: u64 = 14;
const MERGED: u64 = 16;
/// The same with values of half floats on the way, whose sums may lose more than their operands were off by.
const SHAKEN_RUNS_HALF: u64 = 33;
/// What underflows may be zero, or this.
const TINY: f64 = 1e-30;
/// The same of half floats, whatever makes them: code that computes in float32 does not lose them.
const TINY_HALF: f64 = 6e-8;
const UNDERFLOWS: &[&str] = &["Exp", "Sigmoid", "Swish", "Gelu", "Soft", "Mish", "Elu", "elu", "Erf", "Pow"];
/// What 1 + erf is off by where it cancels, times what stands before it.
const CANCELLED: f64 = 2e-6;
/// What sums products, in parts of names.
const CONTRACTS: &[&str] = &["Conv", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN", "Attention"];
/// Beyond it integers of 32 bits end.
const HUGE: f64 = 2e9;
/// Beyond it a factor of a few ends what float32 holds.
const BRINK: f64 = 1e36;
/// Tiles of a convolution sum differences of inputs: from here on one input may cost its neighbours their digits.
const SPREADS: f64 = 1e4;

/// An error with a message when outputs are not equal up to rounding. Where the expected value is not finite or huge,
/// rounding before it may have decided, and nothing is claimed; nor is where the reference itself answers differently when
/// its intermediate values are rounded otherwise (a comparison, a floor or a cast next to its step).
pub fn same(graph: &Graph, feeds: &Feeds, expected: &[Value], got: &[Value]) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!("{} outputs against {}", expected.len(), got.len()));
    }
    let mut shaken: Option<Vec<Vec<Value>>> = None;
    let mut way: Option<Way> = None;
    // Where NaN stands in an order, or among integers, is told nowhere.
    let steps = ["Max", "Min", "TopK", "max", "Clip", "Quantize", "Cast"];
    let orders = |n: &str| steps.iter().any(|o| n.contains(o));
    let ordering = graph.nodes().any(|(_, n)| orders(n.op.name()));
    let convolves = graph.nodes().any(|(_, n)| n.op.name().contains("Conv"));
    // Generated contractions take denormal numbers as zeros, which a logarithm or a huge factor tells apart.
    let contracts = graph.nodes().any(|(_, n)| CONTRACTS.iter().any(|c| n.op.name().contains(c)));
    let half = graph.values().any(|v| matches!(graph.dtype(v), Some(DType::F16 | DType::BF16)));
    let most = if half { SHAKEN_RUNS_HALF } else { SHAKEN_RUNS };
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        let (Value::Tensor(e), Value::Tensor(g)) = (e, g) else {
            if e == g {
                continue;
            }
            return Err(format!("output {i}: {} against {}", e.value_type(), g.value_type()));
        };
        if (e.dtype(), e.shape()) != (g.dtype(), g.shape()) {
            let (d, s) = (g.dtype(), g.shape());
            let runs = shaken.get_or_insert_with(|| all_shaken(graph, feeds, most));
            if crate::check::late() {
                return Ok(());
            }
            let told = |r: &Vec<Value>| match r.get(i) {
                Some(Value::Tensor(t)) => t.shape() == e.shape(),
                _ => false,
            };
            let way = way.get_or_insert_with(|| Way::of(graph, feeds));
            // What no iteration of a loop gave has the rank and sizes that its types tell, and rewriting learns more of these.
            let turns = graph.nodes().any(|(_, n)| n.op.name() == "Loop");
            if turns && e.dtype() == g.dtype() && e.is_empty() && g.is_empty() {
                continue;
            }
            // Sizes may follow from values.
            let open =
                !runs.iter().all(told) || way.largest.is_infinite() || way.subnormal || way.flat || way.brink;
            if (e.dtype(), e.rank()) == (g.dtype(), g.rank()) && open {
                continue;
            }
            return Err(format!("output {i}: {} {:?} against {d} {s:?}", e.dtype(), e.shape()));
        }
        let float = e.dtype().is_float();
        for (k, x, y) in differences(e, g, if half { RELATIVE_HALF } else { RELATIVE }) {
            let runs = shaken.get_or_insert_with(|| all_shaken(graph, feeds, most));
            if crate::check::late() {
                return Ok(());
            }
            let stable = runs.iter().all(|r| r.get(i).is_some_and(|r| agrees(r, k, x, y)));
            // What no integer stands for becomes whichever; nothing times infinity is nothing or no number; and which
            // sums overflow depends on their order.
            let limit = match (!float || !y.is_finite() || ordering, convolves) {
                (_, true) => SPREADS,
                (true, false) => HUGE,
                (false, false) => f64::INFINITY,
            };
            let defined = |way: &Way| {
                (limit.is_infinite() || way.largest < limit)
                    && !way.flat
                    && !way.brink
                    && !(way.subnormal && (contracts || !float))
            };
            if stable && defined(way.get_or_insert_with(|| Way::of(graph, feeds))) {
                return Err(format!("output {i}, element {k}: {x} against {y}"));
            }
        }
    }
    Ok(())
}

/// What floats are like on the way to the outputs.
struct Way {
    /// The largest, infinite where one is no number.
    largest: f64,
    /// Whether a finite one may be infinite where it is scaled in another order.
    brink: bool,
    /// Whether one is below the normal ones of float32, where a rounding is no small share.
    subnormal: bool,
    /// Whether numbers are brought to mean 0 that are the same but for rounding, which is then all that is left.
    flat: bool,
}

impl Way {
    fn of(graph: &Graph, feeds: &Feeds) -> Way {
        let mut way = Way { largest: f64::INFINITY, brink: false, subnormal: false, flat: false };
        let values: Vec<ValueId> = graph.values().collect();
        let Ok(run) = Reference.run(graph, feeds, &values) else { return way };
        way.largest = 0.0;
        let normal = f64::from(f32::MIN_POSITIVE);
        for (v, x) in values.iter().zip(&run.taps) {
            let Some(t) = x.tensor().ok().filter(|t| t.dtype().is_float()) else { continue };
            let Ok(all) = t.to_f64s() else { continue };
            for &x in &all {
                way.largest = way.largest.max(if x.is_nan() { f64::INFINITY } else { x.abs() });
                way.brink |= x.is_finite() && x.abs() > BRINK;
                way.subnormal |= x != 0.0 && x.abs() < normal;
            }
            let rows = graph.uses(*v).into_iter().filter_map(|u| match u {
                ir::Use::Input(n, 0) => centred(graph.get(n)?, t.shape()),
                _ => None,
            });
            for row in rows.collect::<Vec<_>>() {
                way.flat |= all.chunks(row).any(flat);
            }
        }
        way
    }
}

/// Numbers that the node brings to mean 0 together, at least.
fn centred(n: &ir::Node, shape: &[usize]) -> Option<usize> {
    let axis = match n.op.name() {
        "LayerNormalization" | "SkipLayerNormalization" => n.attrs.int_or("axis", -1).ok()?,
        "InstanceNormalization" | "GroupNormalization" | "MeanVarianceNormalization" => 2,
        _ => return None,
    };
    let rank = shape.len() as i64;
    let from = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let row: usize = shape.get(from..)?.iter().product();
    (row > 1).then_some(row)
}

/// The same but for the last digits, and not 0.
fn flat(row: &[f64]) -> bool {
    let (low, high) = row.iter().fold((f64::INFINITY, -f64::INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
    high - low <= 1e-4 * high.abs().max(low.abs()) && (low, high) != (0.0, 0.0)
}

/// Of values that are tensors.
type Shapes = BTreeMap<ValueId, Vec<usize>>;

fn all_shaken(graph: &Graph, feeds: &Feeds, most: u64) -> Vec<Vec<Value>> {
    let values: Vec<ValueId> = graph.values().collect();
    let run = Reference.run(graph, feeds, &values).map(|r| r.taps).unwrap_or_default();
    let shape = |(v, x): (ValueId, Value)| Some((v, x.tensor().ok()?.shape().to_vec()));
    let shapes: Shapes = values.into_iter().zip(run).filter_map(shape).collect();
    let runs = (0..most).take_while(|_| !crate::check::late());
    runs.filter_map(|s| shake(graph, feeds, &shapes, s)).collect()
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

/// The reference's answer with each float input and intermediate scaled by up to 1 ± 2⁻¹⁸ (a few units in the last place of
/// a narrower type), directions and sizes by `seed`.
fn shake(graph: &Graph, feeds: &Feeds, shapes: &Shapes, seed: u64) -> Option<Vec<Value>> {
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
        let unit = if seed < SHAKEN_RUNS { unit } else { 2.0 * unit };
        if (SIGNS..SHAKEN_RUNS).contains(&seed) {
            if seed == MERGED {
                merged(&mut g, v, dtype)?;
            } else {
                signed_zeros(&mut g, v, dtype, seed == SIGNS)?;
            }
            continue;
        }
        // The first two runs move all of a tensor one way, the others each element its own way.
        let shape = if seed < 2 { Vec::new() } else { shapes.get(&v).cloned().unwrap_or_default() };
        let n: usize = shape.iter().product();
        let factor = |i: usize| {
            // Each odd run is the mirror of the one before, so that no sign of a difference stays by chance.
            let h = (seed / 2 * 7919 + v.index() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64;
            let h = if seed < 2 { 0 } else { h.wrapping_mul(0xbf58_476d_1ce4_e5b9) };
            // Two large numbers that cancel do not move together.
            let part = 1.0 - (h >> 43 & 0xfffff) as f64 / f64::from(1 << 21);
            if h >> 63 == seed % 2 { 1.0 + part * unit } else { 1.0 - part * unit }
        };
        let c = Tensor::from_f64s(dtype, &shape, (0..n).map(factor).collect()).ok()?;
        let c = g.add_initializer("shake", c);
        let cancels = g.producer(v).and_then(|p| g.get(p)).is_some_and(|n| n.op.name().contains("Gelu"));
        let scaled = g.apply("", mul, Attrs::new(), &[v, c]);
        let by = g.producer(scaled)?;
        let new = if cancels {
            let off = if seed.is_multiple_of(2) { CANCELLED } else { -CANCELLED };
            let off = g.add_initializer("off", Tensor::from_f64s(dtype, &[], vec![off]).ok()?);
            g.apply("", ops::standard("Add").ok()?, Attrs::new(), &[scaled, off])
        } else {
            scaled
        };
        g.replace_uses(v, new);
        g.set_input(by, 0, Some(v));
        if let Some(sum) = g.producer(new).filter(|&p| p != by) {
            g.set_input(sum, 0, Some(scaled));
        }
    }
    Some(Reference.run(&g, feeds, &[]).ok()?.outputs)
}

/// Readers of `v` get it without its last digits, where float32 has them.
fn merged(g: &mut Graph, v: ValueId, dtype: DType) -> Option<()> {
    let digits = match dtype {
        DType::F32 => 2f64.powi(6) + 1.0,
        DType::F64 => 2f64.powi(35) + 1.0,
        _ => return Some(()),
    };
    let readers = g.uses(v);
    let scalar = |g: &mut Graph, x: f64| {
        Some(g.add_initializer("digits", Tensor::from_f64s(dtype, &[], vec![x]).ok()?))
    };
    let (digits, most) = (scalar(g, digits)?, scalar(g, BRINK / 128.0)?);
    let op = |g: &mut Graph, name: &str, x: &[ValueId]| {
        Some(g.apply("", ops::standard(name).ok()?, Attrs::new(), x))
    };
    // Veltkamp's splitting.
    let scaled = op(g, "Mul", &[v, digits])?;
    let rest = op(g, "Sub", &[scaled, v])?;
    let short = op(g, "Sub", &[scaled, rest])?;
    let size = op(g, "Abs", &[v])?;
    let fits = op(g, "Less", &[size, most])?;
    let new = op(g, "Where", &[fits, short, v])?;
    readers.into_iter().try_for_each(|u| redirect(g, u, new))
}

/// Readers of `v` get it with every zero of one sign, no operator says which one it gives, or not quite zero.
fn signed_zeros(g: &mut Graph, v: ValueId, dtype: DType, positive: bool) -> Option<()> {
    let (add, neg) = (ops::standard("Add").ok()?, ops::standard("Neg").ok()?);
    let readers = g.uses(v);
    let made_by = g.producer(v).and_then(|p| g.get(p)).map_or("", |n| n.op.name());
    let small = if dtype == DType::F16 {
        TINY_HALF
    } else if UNDERFLOWS.iter().any(|u| made_by.contains(u)) {
        TINY
    } else {
        0.0
    };
    let zero = g.add_initializer("zero", Tensor::from_f64s(dtype, &[], vec![small]).ok()?);
    let new = if made_by.contains("Gelu") {
        // What is left of a sum that cancels may be nothing.
        let shrink = ops::standard("Shrink").ok()?;
        g.apply("", shrink, Attrs::new().with("bias", 0f32).with("lambd", CANCELLED as f32), &[v])
    } else if positive {
        g.apply("", add, Attrs::new(), &[v, zero])
    } else {
        let minus = g.apply("", neg, Attrs::new(), &[v]);
        let sum = g.apply("", add, Attrs::new(), &[minus, zero]);
        g.apply("", neg, Attrs::new(), &[sum])
    };
    readers.into_iter().try_for_each(|u| redirect(g, u, new))
}

fn redirect(g: &mut Graph, u: ir::Use, to: ValueId) -> Option<()> {
    match u {
        ir::Use::Input(n, i) => g.set_input(n, i, Some(to)),
        ir::Use::Capture(n, i) => {
            let mut all = g.get(n)?.captures().to_vec();
            *all.get_mut(i)? = to;
            g.set_captures(n, &all);
        }
        ir::Use::Output(i) => g.set_output(i, to),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deviations of equal numbers are rounding, which a division by next to nothing makes large.
    #[test]
    fn equal_rows_that_are_centred_are_seen() {
        let text = |axis: i64| {
            format!(
                r#"case (float[2, 3] x) => (float[2, 3] y) <float[3] s = {{1.0,1.0,1.0}}> {{
   y = LayerNormalization <axis: int = {axis}> (x, s)
}}
"#
            )
        };
        let way = |x: [f32; 6], axis: i64| {
            let g = ir::text::parse(&text(axis), &ops::Standard).unwrap();
            let x = Tensor::new(&[2, 3], x.to_vec()).unwrap();
            Way::of(&g, &Feeds::from([("x".to_string(), x.into())]))
        };
        let equal = [1.0, 2.0, 3.0, 5.0, 5.0, 5.000_001];
        assert!(way(equal, -1).flat && way(equal, 1).flat && !way(equal, 0).flat);
        assert!(!way([1.0, 2.0, 3.0, 0.0, 0.0, 0.0], -1).flat);
        let ends = way([1e-40, 2.0, 3.0, f32::NAN, 1.0, 2.0], -1);
        assert!(ends.subnormal && ends.largest.is_infinite() && !ends.brink);
        assert!(way([3.4e38, 2.0, 3.0, 0.0, 1.0, 2.0], -1).brink);
    }
}
