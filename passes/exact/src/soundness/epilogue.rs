//! The generated instances of the families of rules that fuse what follows a contraction.

use super::{B, Instance, new_builder};
use ir::{Attrs, Graph, ValueId};

/// Rules and a graph on which all of them fire.
pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (&["extend-conv"], |b| {
            let y = contraction(b, "FusedConv");
            b.out(y);
        }),
        (&["extend-conv-transpose"], |b| {
            let y = contraction(b, "FusedConvTranspose");
            b.out(y);
        }),
        (&["extend-gemm"], |b| {
            let y = contraction(b, "FusedGemm");
            b.out(y);
        }),
        (&["extend-matmul", "fuse-bias-into-FusedMatMul", "fuse-Gelu-into-FusedMatMul"], |b| {
            let y = contraction(b, "FusedMatMul");
            let c = b.weight(&[3]);
            let y = b.plain("Add", &[y, c]);
            let y = b.plain("Gelu", &[y]);
            b.out(y);
        }),
        // A residual before and after the activation, and a second activation that stays outside.
        (&["fuse-residual-into-FusedConv", "fuse-Relu-into-FusedConv"], |b| {
            for first in [false, true] {
                let y = contraction(b, "FusedConv");
                let r = b.input(&[1, 3, 5, 5]);
                let y = if first { b.plain("Relu", &[y]) } else { y };
                let y = b.plain("Add", &[r, y]);
                let y = b.plain("Relu", &[y]);
                let y = b.plain("Tanh", &[y]);
                b.out(y);
            }
        }),
    ]
}

/// A contraction to three channels or columns, of shape `[1, 3, 5, 5]`, `[4, 3]` or `[2, 4, 3]`.
fn contraction(b: &mut B, fused: &str) -> ValueId {
    let k = b.dim();
    let attrs = Attrs::new();
    match fused {
        "FusedConv" => {
            let (x, w, c) = (b.input(&[1, k, 5, 5]), b.weight(&[3, k, 3, 3]), b.weight(&[3]));
            b.op("Conv", attrs.with("pads", vec![1, 1, 1, 1]), &[x, w, c])
        }
        "FusedConvTranspose" => {
            let (x, w) = (b.input(&[1, k, 5, 5]), b.weight(&[k, 3, 1, 1]));
            b.plain("ConvTranspose", &[x, w])
        }
        "FusedGemm" => {
            let (x, w, c) = (b.input(&[4, k]), b.weight(&[3, k]), b.weight(&[3]));
            b.op("Gemm", attrs.with("transB", 1), &[x, w, c])
        }
        _ => {
            let (x, w) = (b.input(&[2, 4, k]), b.weight(&[k, 3]));
            b.plain("MatMul", &[x, w])
        }
    }
}

/// The graph of `fuse-ACTIVATION-into-CONTRACTION`.
pub fn fusing(name: &str) -> Option<Graph> {
    let (op, fused) = name.strip_prefix("fuse-")?.split_once("-into-")?;
    let mut b = new_builder(name.len() as u64);
    let y = contraction(&mut b, fused);
    let y = match op {
        "residual" => {
            let r = b.input(match fused {
                "FusedGemm" => &[4, 3],
                "FusedMatMul" => &[2, 4, 3],
                _ => &[1, 3, 5, 5],
            });
            b.plain("Add", &[y, r])
        }
        "bias" => return None,
        "Clip" => {
            let (lo, hi) = (b.scalar(-0.5), b.scalar(0.75));
            b.plain("Clip", &[y, lo, hi])
        }
        op => b.plain(op, &[y]),
    };
    b.out(y);
    Some(b.g)
}
