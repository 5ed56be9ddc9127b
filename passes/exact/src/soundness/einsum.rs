//! Equations of one and two operands.

use super::{B, Instance};
use ir::Attrs;

/// Rules and a graph on which all of them fire.
pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (&["expand-einsum-of-one"], |b| {
            for equation in ["bij->jb", "bij->bji", "bij", "...i->...", "bij->"] {
                let shape = [b.dim(), b.dim(), b.dim()];
                of(b, equation, &[&shape]);
            }
        }),
        (&["expand-einsum-of-two"], |b| {
            let [n, m, h, d] = [b.dim(), b.dim(), b.dim(), b.dim()];
            // Attention, as transformers write it, and back; by heads that are not side by side.
            of(b, "bhqd,bhkd->bhqk", &[&[2, h, n, d], &[2, h, m, d]]);
            of(b, "bhqk,bhkd->bqhd", &[&[2, h, n, m], &[2, h, m, d]]);
            of(b, "bqhd,bkhd->bhqk", &[&[2, n, h, d], &[2, m, h, d]]);
            // Several summed, several of one side, the second's first, none of a kind.
            of(b, "nhd,hdm->nm", &[&[n, h, d], &[h, d, m]]);
            of(b, "nk,khd->nhd", &[&[n, m], &[m, h, d]]);
            of(b, "ik,kj->ji", &[&[n, h], &[h, m]]);
            of(b, "i,j->ij", &[&[n], &[m]]);
            of(b, "bi,bi->b", &[&[n, d], &[n, d]]);
            of(b, "bi,bi->bi", &[&[n, d], &[n, d]]);
            of(b, "i,i->", &[&[n], &[n]]);
            of(b, "...ij,...jk->...ik", &[&[2, n, m], &[2, m, d]]);
            of(b, "bcxd,md->bcxm", &[&[2, h, n, d], &[m, d]]);
            // Left as they are: a diagonal, a size of 1 for another, one operand's own sum.
            of(b, "ii,ij->ij", &[&[n, n], &[n, m]]);
            of(b, "bij,bjk->bik", &[&[1, n, m], &[2, m, d]]);
            of(b, "ij,k->ik", &[&[n, m], &[d]]);
        }),
    ]
}

fn of(b: &mut B, equation: &str, shapes: &[&[usize]]) {
    let operands: Vec<_> = shapes.iter().map(|s| b.input(s)).collect();
    let y = b.op("Einsum", Attrs::new().with("equation", equation), &operands);
    b.out(y);
}
