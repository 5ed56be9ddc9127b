//! Decoding fragments of sparse weights: a bitmap with kept values, and 2:4 patterns with pairs.

use crate::fragment::{Build, looked_up, scaled};
use crate::quant::Grid;
use crate::view::View;
use ir::{Attrs, DType, Error, Graph, Result, Tensor, ValueId};
use ndarray::Array2;

/// Kept codes as signed integers of the grid's width, read as floats.
fn kept(b: &mut Build, shape: &[usize], codes: Vec<u8>, grid: &Grid) -> Result<ValueId> {
    let dtype = if grid.bits == 8 { DType::I8 } else { DType::I4 };
    let signed: Vec<u8> = codes.into_iter().map(|c| (i32::from(c) - grid.offset()) as u8).collect();
    let q = b.constant("q", Tensor::from_unpacked(dtype, shape, &signed)?);
    b.cast(q, DType::F32, "v")
}

/// A bit per weight in storage order, and the values that are not zero; one scale per row.
pub fn sparse(name: &str, view: &View, codes: &Array2<u8>, grid: &Grid) -> Result<Graph> {
    let mut b = Build::new(name);
    let stored = view.stored(codes);
    let zero = grid.offset() as u8;
    let mut values: Vec<u8> = stored.iter().copied().filter(|&c| c != zero).collect();
    if values.is_empty() {
        values.push(zero);
    }
    let n = values.len();
    let v = kept(&mut b, &[n], values, grid)?;
    let x = spread(&mut b, stored.iter().map(|&c| c != zero), v)?;
    let x = b.reshape(x, &view.stored_shape(), "xr")?;
    let w = scaled(&mut b, view, grid, x)?;
    b.finish(&[w])
}

/// As [`sparse`] with the kept values as they are.
pub fn sparse_floats(name: &str, view: &View, values: &Array2<f32>) -> Result<Graph> {
    let mut b = Build::new(name);
    let stored = view.stored(values);
    let mut some: Vec<f32> = stored.iter().copied().filter(|&x| x != 0.0).collect();
    if some.is_empty() {
        some.push(0.0);
    }
    let v = b.constant("v", Tensor::vector(some));
    let x = spread(&mut b, stored.iter().map(|&x| x != 0.0), v)?;
    let w = b.reshape(x, &view.shape, "w")?;
    b.finish(&[w])
}

/// The values `v` at the places of a mask, in order, zeros elsewhere.
fn spread(b: &mut Build, mask: impl Iterator<Item = bool>, v: ValueId) -> Result<ValueId> {
    let mask: Vec<bool> = mask.collect();
    let packed: Vec<u8> =
        mask.chunks(4).map(|c| c.iter().enumerate().fold(0, |p, (i, &k)| p | u8::from(k) << i)).collect();
    let bits: Vec<i32> = (0..16).flat_map(|p| (0..4).map(move |i| (p >> i) & 1)).collect();
    let mask = looked_up(b, "m", &[mask.len()], &packed, Tensor::new(&[16, 4], bits)?)?;
    // The running count numbers the kept values; before the first it is −1, which reads the last and is masked.
    let axis = b.constant("axis", Tensor::scalar(0i64));
    let count = b.op("CumSum", "n", Attrs::new(), &[mask, axis])?;
    let one = b.constant("one", Tensor::scalar(1i32));
    let at = b.op("Sub", "at", Attrs::new(), &[count, one])?;
    let all = b.op("Gather", "all", Attrs::new().with("axis", 0i64), &[v, at])?;
    let maskf = b.cast(mask, DType::F32, "mf")?;
    b.op("Mul", "x", Attrs::new(), &[all, maskf])
}

/// The six ways to keep two of four.
const PAIRS: [(usize, usize); 6] = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];

/// A pattern number per four inputs, and the two values kept; one scale per row.
pub fn two_of_four(name: &str, view: &View, codes: &Array2<u8>, grid: &Grid) -> Result<Graph> {
    let mut b = Build::new(name);
    let zero = grid.offset() as u8;
    let fours = view.len() / 4;
    let (mut patterns, mut values) = (Vec::with_capacity(fours), Vec::with_capacity(fours * 2));
    let flat: Vec<u8> = codes.iter().copied().collect();
    for c in flat.chunks_exact(4) {
        let fits = |p: &(usize, usize)| (0..4).all(|i| i == p.0 || i == p.1 || c[i] == zero);
        let at = PAIRS
            .iter()
            .position(fits)
            .ok_or_else(|| Error::internal("more than two of four weights were kept"))?;
        patterns.push(at as u8);
        values.extend([c[PAIRS[at].0], c[PAIRS[at].1]]);
    }
    let table: Vec<f32> = (0..16)
        .flat_map(|p| {
            (0..8).map(move |i| {
                let pair = PAIRS.get(p).copied().unwrap_or((4, 4));
                let place = if i % 2 == 0 { pair.0 } else { pair.1 };
                if place == i / 2 { 1.0 } else { 0.0 }
            })
        })
        .collect();
    let p = looked_up(&mut b, "p", &[fours, 4, 2], &patterns, Tensor::new(&[16, 8], table)?)?;
    let v = kept(&mut b, &[fours, 2, 1], values, grid)?;
    let x = b.op("MatMul", "x", Attrs::new(), &[p, v])?;
    let mut x = b.reshape(x, &[view.rows, view.cols], "xr")?;
    if view.transposed {
        x = b.op("Transpose", "xt", Attrs::new().with("perm", vec![1i64, 0]), &[x])?;
    }
    let w = scaled(&mut b, view, grid, x)?;
    b.finish(&[w])
}
