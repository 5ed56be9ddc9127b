//! Who is right: comparing two runs of what should be the same graph.

use ir::{Tensor, Value};

/// Differences up to this share of the largest value are rounding.
const RELATIVE: f64 = 2e-3;

/// Panics with a message when two lists of outputs are not equal up to rounding. Where the expected value is not finite or
/// huge, rounding before it may have decided, and nothing is claimed.
pub fn assert_same(expected: &[Value], got: &[Value], what: &str) {
    assert_eq!(expected.len(), got.len(), "{what}: number of outputs");
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        let (Value::Tensor(e), Value::Tensor(g)) = (e, g) else {
            assert_eq!(e, g, "{what}: output {i}");
            continue;
        };
        assert_eq!((e.dtype(), e.shape()), (g.dtype(), g.shape()), "{what}: output {i}");
        compare(e, g, &format!("{what}: output {i}"));
    }
}

fn compare(e: &Tensor, g: &Tensor, what: &str) {
    let (Ok(e), Ok(g)) = (e.to_f64s(), g.to_f64s()) else { return };
    let finite = e.iter().all(|x| x.is_finite() && x.abs() < 1e4);
    if !finite {
        return;
    }
    let top = e.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    for (k, (x, y)) in e.iter().zip(&g).enumerate() {
        assert!((x - y).abs() <= RELATIVE * top, "{what}, element {k}: {x} against {y}");
    }
}
