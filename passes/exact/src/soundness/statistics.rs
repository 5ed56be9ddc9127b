//! Instances of the rules about means, variances and softmax as JAX writes them.

use super::{B, Instance};
use ir::{Attrs, ValueId};

/// Rules and a graph on which all of them fire.
pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (
            &[
                "sum-over-count-to-mean",
                "variance-by-squares-to-centred",
                "drop-floor",
                "keep-dims-of-ReduceMean",
                "scale-after-norm",
                "recognise-layer-norm-by-reciprocal",
                "fold-mul-into-layer-norm",
            ],
            |b| {
                let n = b.dim();
                let (x, axes, kept) = (b.input(&[3, n]), b.ints(&[1]), b.ints(&[3, 1]));
                let (over, zero, eps) = (b.scalar(1.0 / n as f32), b.scalar(0.0), b.scalar(1e-2));
                let (s, t) = (b.weight(&[n]), b.weight(&[n]));
                let mean = dropped(b, "ReduceSum", x, axes);
                let mean = b.plain("Mul", &[mean, over]);
                let squares = b.plain("Mul", &[x, x]);
                let squares = dropped(b, "ReduceSum", squares, axes);
                let squares = b.plain("Mul", &[squares, over]);
                let squared = b.plain("Mul", &[mean, mean]);
                let variance = b.plain("Sub", &[squares, squared]);
                let variance = b.plain("Max", &[variance, zero]);
                let variance = b.plain("Reshape", &[variance, kept]);
                let variance = b.plain("Add", &[variance, eps]);
                let root = b.plain("Sqrt", &[variance]);
                let inverse = b.plain("Reciprocal", &[root]);
                let scale = b.plain("Mul", &[inverse, s]);
                let mean = b.plain("Reshape", &[mean, kept]);
                let d = b.plain("Sub", &[x, mean]);
                let y = b.plain("Mul", &[d, scale]);
                let y = b.plain("Add", &[y, t]);
                b.out(y);
            },
        ),
        (
            &["drop-floor-first", "keep-dims-of-ReduceMax", "keep-dims-of-ReduceSum", "recognise-softmax"],
            |b| {
                let n = b.dim();
                let (x, axes, kept) = (b.input(&[2, n]), b.ints(&[1]), b.ints(&[2, 1]));
                let least = b.scalar(f32::NEG_INFINITY);
                let top = dropped(b, "ReduceMax", x, axes);
                let top = b.plain("Max", &[least, top]);
                let top = b.plain("Reshape", &[top, kept]);
                let d = b.plain("Sub", &[x, top]);
                let e = b.plain("Exp", &[d]);
                let sum = dropped(b, "ReduceSum", e, axes);
                let sum = b.plain("Reshape", &[sum, kept]);
                let y = b.plain("Div", &[e, sum]);
                b.out(y);
            },
        ),
        (&["recognise-gelu-tanh-by-products"], |b| {
            let x = b.input(&[9]);
            let [k2, k, one, half] = [0.044715, 0.797_884_6, 1.0, 0.5].map(|v| b.scalar(v));
            let p = b.plain("Mul", &[k2, x]);
            let p = b.plain("Mul", &[x, p]);
            let p = b.plain("Mul", &[x, p]);
            let p = b.plain("Add", &[x, p]);
            let p = b.plain("Mul", &[k, p]);
            let t = b.plain("Tanh", &[p]);
            let t = b.plain("Add", &[one, t]);
            let t = b.plain("Mul", &[half, t]);
            let y = b.plain("Mul", &[x, t]);
            b.out(y);
        }),
    ]
}

fn dropped(b: &mut B, op: &str, x: ValueId, axes: ValueId) -> ValueId {
    b.op(op, Attrs::new().with("keepdims", 0), &[x, axes])
}

/// A floor of zero stays where values may be below it.
#[test]
fn a_floor_that_matters_stays() {
    let text = "<ir_version: 10, opset_import: [\"\": 21]>
        case (float[3] x, float[3] y) => (float[3] z)
        <float c = {0.0}> {
            p = Mul (x, y)
            z = Max (p, c)
        }";
    let g = ir::text::parse(text, &ops::Standard).unwrap();
    let (h, _) = crate::optimize(&g, crate::Options::PORTABLE).unwrap();
    assert_eq!(h.node_count(), 2, "{}", ir::text::print(&h).unwrap());
}
