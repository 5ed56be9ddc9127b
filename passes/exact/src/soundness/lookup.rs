//! Instances of the rules about rows looked up in a table.

use super::{B, Instance, new_builder};
use ir::{Attrs, Graph, ValueId};

/// Rules and a graph on which all of them fire.
pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (&["one-hot-product-to-lookup", "move-constant-Add-into-table", "move-Tanh-into-table"], |b| {
            one_hot(b, -1, true, |b, k| b.weight(&[5, k]))
        }),
        // A weight that is stored as bytes.
        (&["one-hot-product-to-lookup"], |b| {
            one_hot(b, 0, false, |b, k| {
                let bytes = b.random(&[5 * k], -90.0, 90.0).to_f32s().unwrap();
                let bytes = bytes.into_iter().map(|v| v as i8).collect();
                let bytes = b.g.add_initializer("q", ir::Tensor::new(&[5, k], bytes).unwrap());
                let scale = b.scalar(0.01);
                b.plain("DequantizeLinear", &[bytes, scale])
            })
        }),
    ]
}

/// Integers of −6 to 6 as rows with a one, or with none, times a matrix.
fn one_hot(b: &mut B, first: i64, counts_last: bool, weight: fn(&mut B, usize) -> ValueId) {
    let (n, k) = (b.dim(), b.dim());
    let (x, three) = (b.input(&[3, n, 1]), b.scalar(3.0));
    let x = b.plain("Mul", &[x, three]);
    let index = b.op("Cast", Attrs::new().with("to", 7), &[x]);
    let counts: Vec<i64> = (first..first + 5).collect();
    let counts = b.g.add_initializer("counts", ir::Tensor::new(&[1, 1, 5], counts).unwrap());
    let sides = if counts_last { [index, counts] } else { [counts, index] };
    let hot = b.plain("Equal", &sides);
    let hot = b.op("Cast", Attrs::new().with("to", 1), &[hot]);
    let (w, c) = (weight(b, k), b.weight(&[1, 1, k]));
    let y = b.plain("MatMul", &[hot, w]);
    let y = b.plain("Add", &[y, c]);
    let y = b.plain("Tanh", &[y]);
    b.out(y);
}

fn looked_up(b: &mut B, i: ValueId, k: usize) -> ValueId {
    let t = b.positive(&[3, k]);
    b.plain("Gather", &[t, i])
}

/// The generated instances of the families of rules that move an operator into the table.
pub fn moving(name: &str) -> Option<Graph> {
    let moved = name.strip_prefix("move-")?.strip_suffix("-into-table")?;
    let mut b = new_builder(name.len() as u64);
    let (n, k) = (b.dim(), b.dim());
    let x = b.input(&[2, n]);
    let i = b.op("Cast", Attrs::new().with("to", 7), &[x]);
    let y = looked_up(&mut b, i, k);
    let y = if let Some(op) = moved.strip_prefix("constant-") {
        let c = b.positive(&[1, k]);
        b.plain(op, &[y, c])
    } else if let Some(op) = moved.strip_suffix("-of-lookups") {
        let z = looked_up(&mut b, i, k);
        b.plain(op, &[y, z])
    } else {
        b.plain(moved, &[y])
    };
    b.out(y);
    Some(b.g)
}

/// A table is computed once only where that is less than computing what is looked up, and only along its rows.
#[test]
fn tables_that_are_longer_or_mixed_stay() {
    let lookup = |rows: usize, c: &[usize]| {
        let mut b = new_builder(1);
        let x = b.input(&[2, 3]);
        let i = b.op("Cast", Attrs::new().with("to", 7), &[x]);
        let (t, c) = (b.weight(&[rows, 4]), b.weight(c));
        let y = b.plain("Gather", &[t, i]);
        let y = b.plain("Mul", &[y, c]);
        b.out(y);
        let (h, _) = crate::optimize(&b.g, crate::Options::RUNTIME).unwrap();
        h.nodes().map(|(_, n)| n.op.name().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(lookup(6, &[4]), ["Cast", "Gather"]);
    assert_eq!(lookup(7, &[4]), ["Cast", "Gather", "Mul"]);
    assert_eq!(lookup(6, &[3, 1]), ["Cast", "Gather", "Mul"]);
}

/// Counting from the largest integer does not go past it.
#[test]
fn counts_at_the_end_of_integers_are_no_one_hot_rows() {
    let mut b = new_builder(3);
    let x = b.input(&[2, 1]);
    let index = b.op("Cast", Attrs::new().with("to", 7), &[x]);
    let counts = b.ints(&[i64::MAX, i64::MIN]);
    let hot = b.plain("Equal", &[index, counts]);
    let hot = b.op("Cast", Attrs::new().with("to", 1), &[hot]);
    let w = b.weight(&[2, 3]);
    let y = b.plain("MatMul", &[hot, w]);
    b.out(y);
    let (h, _) = crate::optimize(&b.g, crate::Options::RUNTIME).unwrap();
    assert!(h.nodes().all(|(_, n)| n.op.name() != "Gather"));
}
