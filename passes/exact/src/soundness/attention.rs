//! Instances of the rules that recognise attention.

use super::{B, Instance};
use ir::{Attrs, ValueId};

/// Rules and a graph on which all of them fire.
pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (
            &[
                "recognise-scaled-masked-attention",
                "absorb-transpose-of-queries",
                "absorb-transpose-of-keys",
                "absorb-transpose-of-values",
                "absorb-transpose-of-attention",
            ],
            |b| {
                let (s, t, h, d) = (b.dim(), b.dim(), b.dim(), b.dim());
                let q = b.transposed(&[2, s, h, d], &[0, 2, 1, 3]);
                let k = b.transposed(&[2, t, h, d], &[0, 2, 3, 1]);
                let v = b.transposed(&[2, t, h, 3], &[0, 2, 1, 3]);
                let (c, mask) = (b.scalar(2.0), b.input(&[2, 1, 1, t]));
                let x = b.plain("MatMul", &[q, k]);
                let x = b.plain("Div", &[x, c]);
                let x = b.plain("Add", &[x, mask]);
                let x = b.plain("Softmax", &[x]);
                let y = b.plain("MatMul", &[x, v]);
                let y = b.op("Transpose", Attrs::new().with("perm", vec![0, 2, 1, 3]), &[y]);
                b.out(y);
            },
        ),
        (&["recognise-attention", "fold-scale-of-queries", "fold-scale-of-keys"], |b| {
            let (n, s, t, d) = (b.dim(), b.dim(), b.dim(), b.dim());
            let (q, k, v, c) = (b.input(&[n, s, d]), b.input(&[n, d, t]), b.input(&[1, t, 3]), b.scalar(0.7));
            let (q, k) = (b.plain("Mul", &[q, c]), b.plain("Mul", &[k, c]));
            let x = b.plain("MatMul", &[q, k]);
            let x = b.plain("Softmax", &[x]);
            let y = b.plain("MatMul", &[x, v]);
            b.out(y);
        }),
        (&["recognise-guarded-attention"], |b| guarded(b, |_, x, _| x)),
        (&["recognise-guarded-scaled-attention"], |b| {
            guarded(b, |b, x, _| {
                let c = b.scalar(0.6);
                b.plain("Mul", &[x, c])
            })
        }),
        (&["recognise-guarded-masked-attention"], |b| {
            guarded(b, |b, x, n| {
                let hidden = hidden(b, n);
                b.plain("Add", &[x, hidden])
            })
        }),
        (&["recognise-guarded-scaled-masked-attention"], |b| {
            guarded(b, |b, x, n| {
                let (hidden, c) = (hidden(b, n), b.scalar(0.6));
                let x = b.plain("Mul", &[x, c]);
                b.plain("Add", &[x, hidden])
            })
        }),
        (&["recognise-masked-attention"], |b| {
            scored(b, |b, x, n| {
                let mask = b.input(&[n]);
                b.plain("Add", &[mask, x])
            })
        }),
        (&["recognise-scaled-attention"], |b| {
            scored(b, |b, x, _| {
                let c = b.scalar(-0.3);
                b.plain("Mul", &[x, c])
            })
        }),
        (&["recognise-filled-attention"], |b| {
            scored(b, |b, x, n| {
                let (mask, fill) = (truth(b, &[n]), b.scalar(-1e4));
                b.plain("Where", &[mask, x, fill])
            })
        }),
        (&["recognise-attention-filled-first"], |b| {
            scored(b, |b, x, n| {
                let (mask, fill) = (truth(b, &[2, 1, n]), b.scalar(f32::NEG_INFINITY));
                b.plain("Where", &[mask, fill, x])
            })
        }),
        (&["recognise-scaled-filled-attention"], |b| {
            scored(b, |b, x, n| {
                let (mask, fill, c) = (truth(b, &[n]), b.scalar(-1.0), b.scalar(0.5));
                let x = b.plain("Mul", &[x, c]);
                b.plain("Where", &[mask, x, fill])
            })
        }),
        (&["recognise-scaled-attention-filled-first"], |b| {
            scored(b, |b, x, n| {
                let (mask, fill, c) = (truth(b, &[n]), b.scalar(-1.0), b.scalar(0.5));
                let x = b.plain("Mul", &[x, c]);
                b.plain("Where", &[mask, fill, x])
            })
        }),
        (
            &[
                "recognise-standard-attention",
                "recognise-standard-scaled-attention",
                "split-standard-attention",
            ],
            |b| {
                b.g.meta.opset = 23;
                for scaled in [false, true] {
                    let (h, s, t, d) = (b.dim(), b.dim(), b.dim(), b.dim());
                    let (q, v, c) = (b.input(&[2, h, s, d]), b.input(&[2, h, t, 3]), b.scalar(0.7));
                    let k = b.transposed(&[2, t, h, d], &[0, 2, 3, 1]);
                    let x = b.plain("MatMul", &[q, k]);
                    let x = if scaled { b.plain("Mul", &[x, c]) } else { x };
                    let x = b.plain("Softmax", &[x]);
                    let y = b.plain("MatMul", &[x, v]);
                    b.out(y);
                }
            },
        ),
    ]
}

/// Attention of two heads whose scores, for `n` keys, go through `f` before the softmax.
fn scored(b: &mut B, f: fn(&mut B, ValueId, usize) -> ValueId) {
    let (s, t, d) = (b.dim(), b.dim(), b.dim());
    let (q, k, v) = (b.input(&[2, s, d]), b.input(&[2, d, t]), b.input(&[2, t, 3]));
    let x = b.plain("MatMul", &[q, k]);
    let x = f(b, x, t);
    let x = b.op("Softmax", Attrs::new().with("axis", 2), &[x]);
    let y = b.plain("MatMul", &[x, v]);
    b.out(y);
}

fn truth(b: &mut B, shape: &[usize]) -> ValueId {
    let (x, c) = (b.input(shape), b.scalar(0.1));
    b.plain("Less", &[x, c])
}

/// Scores whose weights are zero where a softmax gives no number.
fn guarded(b: &mut B, f: fn(&mut B, ValueId, usize) -> ValueId) {
    let (s, t, d) = (b.dim(), b.dim(), b.dim());
    let (q, k, v) = (b.input(&[2, s, d]), b.input(&[2, d, t]), b.input(&[2, t, 3]));
    let x = b.plain("MatMul", &[q, k]);
    let x = f(b, x, t);
    let x = b.op("Softmax", Attrs::new().with("axis", -1), &[x]);
    let (odd, zero) = (b.plain("IsNaN", &[x]), b.scalar(0.0));
    let x = b.plain("Where", &[odd, zero, x]);
    let y = b.plain("MatMul", &[x, v]);
    b.out(y);
}

/// Nothing, or minus infinity for all keys of some rows.
fn hidden(b: &mut B, keys: usize) -> ValueId {
    let (rows, seen, none) = (truth(b, &[2, 1, 1]), b.scalar(0.0), b.scalar(f32::NEG_INFINITY));
    let one = b.input(&[keys]);
    let mask = b.plain("Where", &[rows, seen, none]);
    b.plain("Add", &[one, mask])
}
