//! Who is right: comparing two runs of what should be the same graph.

use crate::mutate::{is_sane, is_scale};
use crate::shake;
use ir::{Feeds, Graph, Reference, Tensor, Value, ValueId};
use std::cell::{Cell, RefCell};

/// Differences up to this share of the largest value are rounding.
const RELATIVE: f64 = 2e-3;
/// The same where the smallest type on the way keeps 11 bits or fewer.
const RELATIVE_HALF: f64 = 3e-2;
/// What sums products, in parts of names.
const CONTRACTS: &[&str] = &["Conv", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN", "Attention"];
/// What picks some elements of many; of those that nearly equal each other it may pick any.
const PICKS: &[&str] = &["Hardmax", "ArgMax", "ArgMin", "TopK"];
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
    let steps = ["Max", "Min", "TopK", "max", "Clip", "Quantize", "Cast", "Threshold", "Shrink"];
    let orders = |n: &str| steps.iter().any(|o| n.contains(o));
    let ordering = any(graph, &orders);
    let convolves = any(graph, &|n| n.contains("Conv"));
    // Generated contractions take denormal numbers as zeros, which a logarithm or a huge factor tells apart.
    let contracts = any(graph, &|n| CONTRACTS.iter().any(|c| n.contains(c)));
    let picks = any(graph, &|n| PICKS.contains(&n));
    let half = shake::half(graph);
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        let (Value::Tensor(e), Value::Tensor(g)) = (e, g) else {
            if e == g {
                continue;
            }
            return Err(format!("output {i}: {} against {}", e.value_type(), g.value_type()));
        };
        if (e.dtype(), e.shape()) != (g.dtype(), g.shape()) {
            let (d, s) = (g.dtype(), g.shape());
            let runs = shaken.get_or_insert_with(|| shake::answers(graph, feeds));
            if crate::check::late() {
                return Ok(());
            }
            let told = |r: &Vec<Value>| match r.get(i) {
                Some(Value::Tensor(t)) => t.shape() == e.shape(),
                _ => false,
            };
            let way = way.get_or_insert_with(|| Way::of(graph, feeds));
            let nothing = e.dtype() == g.dtype() && e.is_empty() && g.is_empty();
            if nothing && gathers_nothing(graph, feeds) {
                continue;
            }
            // Sizes may follow from values.
            let open = !runs.iter().all(told)
                || way.largest.is_infinite()
                || way.subnormal
                || way.flat
                || way.brink
                || way.undefined;
            if (e.dtype(), e.rank()) == (g.dtype(), g.rank()) && open {
                continue;
            }
            return Err(format!("output {i}: {} {:?} against {d} {s:?}", e.dtype(), e.shape()));
        }
        let float = e.dtype().is_float();
        let tolerance = if half { RELATIVE_HALF } else { RELATIVE };
        let different = differences(e, g, tolerance);
        if different.is_empty() {
            continue;
        }
        let runs = shaken.get_or_insert_with(|| shake::answers(graph, feeds));
        if crate::check::late() {
            return Ok(());
        }
        // A few runs do not meet each winner among many that tie.
        let other = |r: &Vec<Value>| match r.get(i) {
            Some(Value::Tensor(r)) if r.shape() == e.shape() => !differences(e, r, tolerance).is_empty(),
            _ => true,
        };
        let lost = |r: &Vec<Value>| matches!(r.get(i), Some(Value::Tensor(r)) if float && scattered(e, r, tolerance));
        if picks && runs.iter().any(other) || runs.iter().any(lost) {
            continue;
        }
        // Where sizes follow from values, elements of other sizes are others.
        let elements =
            |r: &Vec<Value>| r.get(i)?.tensor().ok().filter(|t| t.shape() == e.shape())?.to_f64s().ok();
        let Some(runs) = runs.iter().map(elements).collect::<Option<Vec<Vec<f64>>>>() else { continue };
        for (k, x, y) in different {
            let stable = runs.iter().all(|r| r.get(k).is_some_and(|&z| agrees(z, x, y)));
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
                    && !way.undefined
                    && !(way.subnormal && (contracts || !float))
            };
            if stable && defined(way.get_or_insert_with(|| Way::of(graph, feeds))) {
                return Err(format!("output {i}, element {k}: {x} against {y}"));
            }
        }
    }
    Ok(())
}

/// Whether a loop gave nothing of what it gathers: rank and sizes of that are what types tell, and rewriting learns more of
/// these.
pub fn gathers_nothing(graph: &Graph, feeds: &Feeds) -> bool {
    let found = Cell::new(false);
    let look = |g: &Graph, v: ValueId, x: Value| {
        let of_loop = g.producer(v).and_then(|p| g.get(p)).is_some_and(|n| n.op.name() == "Loop");
        let empty = of_loop && x.tensor().is_ok_and(Tensor::is_empty);
        found.set(found.get() || empty);
        x
    };
    Reference.run_altered(graph, feeds, &look).is_ok() && found.get()
}

/// Whether an operator of such a name is in the graph or in bodies.
fn any(g: &Graph, named: &dyn Fn(&str) -> bool) -> bool {
    g.nodes().any(|(_, n)| named(n.op.name()) || n.attrs.graphs().into_iter().any(|b| any(b, named)))
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
    /// Whether a scale is none, or a key may have a score that no mask closes, as nothing times infinity is no number.
    undefined: bool,
}

impl Way {
    fn of(graph: &Graph, feeds: &Feeds) -> Way {
        let way =
            RefCell::new(Way { largest: 0.0, brink: false, subnormal: false, flat: false, undefined: false });
        let look = |g: &Graph, v: ValueId, x: Value| {
            way.borrow_mut().add(g, v, &x);
            x
        };
        let run = Reference.run_altered(graph, feeds, &look);
        let mut way = way.into_inner();
        if run.is_err() {
            way.largest = f64::INFINITY;
        }
        way
    }

    fn add(&mut self, g: &Graph, v: ValueId, x: &Value) {
        let Some(t) = x.tensor().ok().filter(|t| t.dtype().is_float()) else { return };
        let Ok(all) = t.to_f64s() else { return };
        for &x in &all {
            self.largest = self.largest.max(if x.is_nan() { f64::INFINITY } else { x.abs() });
            self.brink |= x.is_finite() && x.abs() > BRINK;
            self.subnormal |= x != 0.0 && x.abs() < f64::from(f32::MIN_POSITIVE);
        }
        self.undefined |= g.uses(v).into_iter().any(|u| match u {
            ir::Use::Input(n, i) => g.get(n).is_some_and(|n| all.iter().any(|&x| undefined(n, i, x))),
            _ => false,
        });
        let rows = g.uses(v).into_iter().filter_map(|u| match u {
            ir::Use::Input(n, 0) => centred(g.get(n)?, t.shape()),
            _ => None,
        });
        for row in rows {
            self.flat |= all.chunks(row).any(flat);
        }
    }
}

/// Whether nothing tells what a node makes of such an element of its input.
fn undefined(n: &ir::Node, i: usize, x: f64) -> bool {
    // Products of two beyond it are infinite.
    let open = |x: f64| x.is_nan() || x.abs() > 1e18;
    is_scale(n, i) && !is_sane(x) || n.op.name().contains("Attention") && i != 3 && open(x)
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

/// Whether a shaken run's element `z` tells `x` from `y`: it lies with `x`.
fn agrees(z: f64, x: f64, y: f64) -> bool {
    if y.is_finite() { (z - x).abs() * 4.0 < (x - y).abs() } else { z.is_finite() }
}

/// Whether many elements of a shaken run have nothing in common with those of the other, as what repeats a tangent gives: how
/// far one of them is off says nothing of the next.
fn scattered(e: &Tensor, shaken: &Tensor, relative: f64) -> bool {
    let elsewhere = |(_, x, y): &(usize, f64, f64)| (x - y).abs() > 0.25 * x.abs().max(y.abs());
    let many = e.len().div_ceil(8).max(2);
    e.shape() == shaken.shape()
        && differences(e, shaken, relative).iter().filter(|d| elsewhere(d)).count() >= many
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A tangent of a tangent, 13 times: -0.78 against 34, where no run of other roundings was beyond 8.
    #[test]
    fn what_repeats_a_tangent_is_not_claimed() {
        let text = r#"<ir_version: 13, opset_import: ["" : 21]>
case (float[7, 1, 1, 7] x) => (float[7, 1, 1, 7] y) <bool go = {1}, int64 trips = {13}> {
   y = Loop <body: graph = turn (int64[] i, bool[] on, float[] carried) => (more, next) {
      next = Tan (carried)
      more = Identity (on)
   }> (trips, go, x)
}
"#;
        crate::reduce::replay(text, "seed = 1\n\n[[pass]]\nname = \"run\"\ntier = \"avx512\"");
        let tensor = |x: [f32; 4]| Tensor::vector(x.to_vec());
        let near = |x| scattered(&tensor([1.0, 2.0, -3.0, 0.5]), &tensor(x), RELATIVE);
        assert!(
            near([1.5, -2.0, -3.0, 0.5]) && !near([1.5, 2.0, -3.0, 0.5]) && !near([1.1, 2.2, -3.3, 0.55])
        );
    }

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
