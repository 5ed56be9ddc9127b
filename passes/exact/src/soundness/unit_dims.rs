//! Instances of the rules about what follows a convolution behind dims of 1.

use super::{Instance, new_builder};
use ir::Graph;

/// Rules and a graph on which all of them fire.
pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![(&["add-before-dropped-dims", "activate-before-dropped-dims-Gelu", "fold-add-into-conv"], |b| {
        for (vector, kept) in [(&[1, 3, 1][..], &[1, 3, 4][..]), (&[3, 1, 1], &[1, 3, 1, 4])] {
            let (x, w, c) = (b.input(&[1, 2, 1, 4, 1]), b.weight(&[3, 2, 1, 1, 1]), b.weight(vector));
            let kept = b.ints(kept);
            let y = b.plain("Conv", &[x, w]);
            let y = b.plain("Reshape", &[y, kept]);
            let y = b.plain("Add", &[y, c]);
            let y = b.plain("Gelu", &[y]);
            b.out(y);
        }
    })]
}

/// The generated instances of the activations.
pub fn activating(name: &str) -> Option<Graph> {
    let act = name.strip_prefix("activate-before-dropped-dims-")?;
    let mut b = new_builder(name.len() as u64);
    let n = b.dim();
    let (x, w, kept) = (b.input(&[1, 2, 4, 1]), b.weight(&[n, 2, 3, 1]), b.ints(&[1, n as i64, 2]));
    let y = b.plain("Conv", &[x, w]);
    let y = b.plain("Reshape", &[y, kept]);
    let y = if act == "Clip" {
        let (lo, hi) = (b.scalar(-0.5), b.scalar(0.5));
        b.plain(act, &[y, lo, hi])
    } else {
        b.plain(act, &[y])
    };
    b.out(y);
    Some(b.g)
}
