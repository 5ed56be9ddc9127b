//! Which results does rounding decide? Answers of the reference whose values are all rounded otherwise, in bodies of loops
//! and branches as well.

use ir::{DType, Feeds, Graph, Reference, Tensor, Value, ValueId};
use std::cell::Cell;

/// What underflows may be zero, or this.
const TINY: f64 = 1e-30;
/// The same of half floats, whatever makes them: code that computes in float32 does not lose them.
const TINY_HALF: f64 = 6e-8;
const UNDERFLOWS: &[&str] = &["Exp", "Sigmoid", "Swish", "Gelu", "Soft", "Mish", "Elu", "elu", "Erf", "Pow"];
/// Operators in which terms of about 1 cancel, and what is left of them is off by, times what stands before it.
const CANCELS: &[&str] = &[
    "Gelu",
    "BiasGelu",
    "FastGelu",
    "QuickGelu",
    "LogSoftmax",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "SoftmaxCrossEntropyLoss",
    "Softplus",
    "Mish",
    "Elu",
    "Celu",
    "Selu",
];
const CANCELLED: f64 = 2e-6;

/// One way to round every float otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shake {
    /// Each element scaled by nearly 1, by up to so many units; directions and sizes by the number, where 0 and 1 move all
    /// of a tensor one way. Each odd one is the mirror of the one before, so that no sign of a difference stays by chance.
    Scaled(u64, u32),
    /// Every zero of one sign, as no operator says which one it gives, or not quite zero.
    Zeros(Sign),
    /// Values that nearly equal each other are equal.
    Merged(Grid),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
    /// Each element its own, by the number; each odd one is the mirror of the one before.
    Mixed(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grid {
    /// By the digits of each.
    Digits,
    /// By shares of the largest, which is what sums that cancel are off by; and by the same, moved by half, as what lies on
    /// both sides of a border in one of them is together in the other.
    Shares(bool),
}

const SCALED: u64 = 14;
/// More runs with values of half floats on the way, whose sums may lose more than their operands were off by.
const SCALED_HALF: u64 = 16;

const MIXED: u64 = 16;

fn all(half: bool) -> Vec<Shake> {
    let mut all: Vec<Shake> = (0..SCALED).map(|n| Shake::Scaled(n, 1)).collect();
    all.extend([Sign::Plus, Sign::Minus].map(Shake::Zeros));
    all.extend((0..MIXED).map(|n| Shake::Zeros(Sign::Mixed(n))));
    all.extend([Grid::Digits, Grid::Shares(false), Grid::Shares(true)].map(Shake::Merged));
    let more = if half { SCALED_HALF } else { 0 };
    all.extend((SCALED..SCALED + more).map(|n| Shake::Scaled(n, 2)));
    all
}

/// Whether half floats are on the way.
pub fn half(graph: &Graph) -> bool {
    graph.values().any(|v| matches!(graph.dtype(v), Some(DType::F16 | DType::BF16)))
}

/// The answers of each run. One that ends with an error tells nothing; one with other sizes on the way has no answers, as
/// its elements are others.
pub fn answers(graph: &Graph, feeds: &Feeds) -> Vec<Vec<Value>> {
    let Some((_, sizes)) = run(graph, feeds, &|_, _, x| x) else { return Vec::new() };
    let runs = all(half(graph)).into_iter().take_while(|_| !crate::check::late());
    let shaken = |s| run(graph, feeds, &|g, v, x| shaken(g, v, x, s));
    runs.filter_map(shaken).map(|(r, found)| if found == sizes { r } else { Vec::new() }).collect()
}

/// What a run gives, and a number for the sizes of all values on the way.
fn run(
    graph: &Graph,
    feeds: &Feeds,
    alter: &dyn Fn(&Graph, ValueId, Value) -> Value,
) -> Option<(Vec<Value>, u64)> {
    let sizes = Cell::new(0);
    let look = |g: &Graph, v: ValueId, x: Value| {
        if let Value::Tensor(t) = &x {
            let start = hash(sizes.get(), 0, t.rank() as u64);
            sizes.set(t.shape().iter().fold(start, |h, &d| hash(h, 0, d as u64)));
        }
        alter(g, v, x)
    };
    let outputs = Reference.run_altered(graph, feeds, &look).ok()?;
    Some((outputs, sizes.get()))
}

/// Whether a run whose values are rounded otherwise ends with an error, as where sizes follow from values.
pub fn ends(graph: &Graph, feeds: &Feeds) -> bool {
    let ends = |s| Reference.run_altered(graph, feeds, &|g, v, x| shaken(g, v, x, s)).is_err();
    all(half(graph)).into_iter().take_while(|_| !crate::check::late()).any(ends)
}

fn shaken(g: &Graph, v: ValueId, x: Value, shake: Shake) -> Value {
    let Value::Tensor(t) = &x else { return x };
    let dtype = t.dtype();
    if !matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
        return x;
    }
    let op = g.producer(v).and_then(|p| g.get(p)).map_or("", |n| n.op.name());
    let new = t.to_f64s().and_then(|mut all| {
        moved(&mut all, dtype, op, v.index() as u64, shake);
        Tensor::from_f64s(dtype, t.shape(), all)
    });
    new.map_or(x, Value::Tensor)
}

fn moved(all: &mut [f64], dtype: DType, op: &str, v: u64, shake: Shake) {
    let cancels = CANCELS.contains(&op);
    match shake {
        Shake::Scaled(n, units) => {
            let unit = f64::from(units)
                * match dtype {
                    DType::F16 => 2f64.powi(-9),
                    DType::BF16 => 2f64.powi(-6),
                    _ => 2f64.powi(-18),
                };
            for (i, x) in all.iter_mut().enumerate() {
                // Two large numbers that cancel do not move together.
                let h = if n < 2 { hash(v, n, 0) } else { hash(v, n, i as u64 + 1) };
                let part = 1.0 - (h >> 43 & 0xf_ffff) as f64 / f64::from(1 << 21);
                let part = if h >> 63 == n % 2 { part } else { -part };
                *x *= 1.0 + part * unit;
                *x += if cancels { part * CANCELLED } else { 0.0 };
            }
        }
        Shake::Zeros(sign) => {
            let small = match dtype {
                DType::F16 => TINY_HALF,
                _ if UNDERFLOWS.iter().any(|u| op.contains(u)) => TINY,
                _ => 0.0,
            };
            for (i, x) in all.iter_mut().enumerate() {
                let plus = match sign {
                    Sign::Plus => true,
                    Sign::Minus => false,
                    Sign::Mixed(n) => hash(v, n, i as u64 + 1) >> 63 == n % 2,
                };
                // What is left of a sum that cancels may be nothing.
                let by = if cancels { 0.0 } else { small };
                *x = match () {
                    () if (cancels && x.abs() <= CANCELLED) || (*x == 0.0 && by == 0.0) => {
                        if plus {
                            0.0
                        } else {
                            -0.0
                        }
                    }
                    () => *x + if plus { by } else { -by },
                };
            }
        }
        Shake::Merged(grid) => merged(all, dtype, grid),
    }
}

/// A number for an element of a value, the same for a run and its mirror.
fn hash(v: u64, run: u64, element: u64) -> u64 {
    let z = (run / 2 * 7919 + v + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ element;
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The last digits taken away, where float32 or float64 has them.
fn merged(all: &mut [f64], dtype: DType, grid: Grid) {
    let lost = match dtype {
        DType::F32 => 6,
        DType::F64 => 35,
        _ => return,
    };
    let digits = if dtype == DType::F32 { 24 } else { 53 };
    let top = all.iter().filter(|x| x.is_finite()).fold(0.0f64, |m, x| m.max(x.abs()));
    for x in all.iter_mut().filter(|x| x.is_finite() && **x != 0.0) {
        let size = if grid == Grid::Digits { x.abs() } else { top };
        let step = 2f64.powi(size.log2().floor() as i32 + 1 + lost - digits);
        let new = match grid {
            Grid::Shares(true) => ((*x / step).floor() + 0.5) * step,
            _ => (*x / step).round() * step,
        };
        // Steps below what the type holds are none.
        if step.is_normal() && new.is_finite() {
            *x = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, x: Vec<f32>) -> Vec<Vec<Value>> {
        let g = ir::text::parse(text, &ops::Standard).unwrap();
        let x = Tensor::new(&[x.len()], x).unwrap();
        answers(&g, &Feeds::from([("x".to_string(), x.into())]))
    }

    fn answers_differ(text: &str, x: Vec<f32>) -> bool {
        let runs = of(text, x);
        assert_eq!(runs.len(), all(false).len());
        runs.iter().any(|r| r != &runs[0])
    }

    /// Which of two zeros is which, in the body of a loop, and only some of them.
    #[test]
    fn zeros_have_any_sign() {
        let text = r#"case (float[2] x) => (int64[1] y) <
   int64 trips = {1}, bool go = {1}, float zero = {-0.0}, float one = {1.0}> {
   m = Loop <body: graph = turn (int64[] i, bool[] "go.1", float[2] carried) => (more, next) {
      next = Max (zero, carried)
      more = Identity ("go.1")
   }> (trips, go, x)
   d = Div (one, m)
   y = ArgMax <axis: int = 0> (d)
}
"#;
        assert!(answers_differ(text, vec![0.0, 0.0]));
        assert!(!answers_differ(text, vec![2.0, 1.0]));
    }

    /// Numbers that are equal but for rounding are moved apart in a body as well, and what is nothing but rounding may be 0.
    #[test]
    fn bodies_are_shaken() {
        let text = r#"case (float[3] x) => (int64[3] y) <
   int64 trips = {2}, bool go = {1}, float[3] one = {1.0, 1.0, 1.0}> {
   m = Loop <body: graph = turn (int64[] i, bool[] "go.1", float[3] carried) => (more, next) {
      c = Mul (carried, one)
      next = LayerNormalization (c, one)
      more = Identity ("go.1")
   }> (trips, go, x)
   y = Cast <to: int = 7> (m)
}
"#;
        assert!(answers_differ(text, vec![3e14, 3e14, 3e14]));
        let text =
            "case (float[2] x) => (bool[2] y) <float zero = {0.0}> { s = LogSoftmax (x) y = Less (s, zero) }";
        assert!(answers_differ(text, vec![90.0, -3.0]));
        assert!(!answers_differ(text, vec![1.0, -3.0]));
    }

    /// How often each of few numbers was seen: elements are others where two of them became one.
    #[test]
    fn runs_with_other_sizes_on_the_way_have_no_answers() {
        let text = r#"case (float[4] x) => (int64[2] y) <bool[2] c = {1, 1}> {
   u, a, b, n = Unique (x)
   y = Compress (n, c)
}
"#;
        let empty = |x: Vec<f32>| of(text, x).iter().filter(|r| r.is_empty()).count();
        assert_eq!(empty(vec![1.0, 2.0, 3.0, 4.0]), 0);
        assert!(empty(vec![1.0, 1.000_000_1, 3.0, 4.0]) > 0);
    }

    #[test]
    fn what_nearly_equals_is_equal_on_some_grid() {
        let count = |a: f64, b: f64, top: f64| {
            let grids = [Grid::Digits, Grid::Shares(false), Grid::Shares(true)];
            grids.map(|g| {
                let mut all = [a, b, top];
                merged(&mut all, DType::F32, g);
                all[0] == all[1]
            })
        };
        // On both sides of a border of one grid; apart by its own digits; and apart.
        let step = 2f64.powi(-18);
        let edge = 0.5 + 0.5 * step;
        assert!(count(edge - 1e-9, edge + 1e-9, 0.9)[2]);
        assert!(count(1.0 - 1e-9, 1.0 + 1e-9, 1.0)[1]);
        assert_eq!(count(1e-8, 3e-8, 0.9), [false, true, true]);
        assert_eq!(count(0.5, 0.6, 0.9), [false; 3]);
    }
}
