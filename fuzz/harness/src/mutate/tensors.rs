//! Changes of what graphs hold: sizes, broadcasts, layouts, attributes, scales, special values, structure of weights.

use super::general::node;
use crate::pair::{self, EDGES};
use crate::random::Random;
use ir::{Attr, Attrs, DType, Dim, Graph, Tensor, ValueId, ValueType};

/// Nothing, one, primes, edges of vector widths and of their tails.
const SIZES: &[usize] = &[0, 1, 1, 2, 3, 5, 7, 8, 11, 13, 15, 16, 17, 19, 23, 31, 32, 33, 37, 48, 63, 64, 65];

/// All dims of one size get another.
pub fn dims(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let all = sizes(g);
    let from = *r.pick(&all)?;
    let to = r.one(SIZES, 1);
    if from == to { None } else { resize(g, from, to) }
}

/// Sizes of inputs and constants above 0.
pub fn sizes(g: &Graph) -> Vec<usize> {
    let inputs = g.inputs().iter().filter_map(|&v| g.ty(v).concrete()).map(|s| s.to_vec());
    let constants = g.initializers().map(|(_, t)| t.shape().to_vec());
    let mut all: Vec<usize> = inputs.chain(constants).flatten().filter(|&n| n > 0).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Every dim of `from` in inputs and constants becomes `to`; constants repeat or lose elements, and small integer
/// constants that say `from` say `to`.
pub fn resize(g: &mut Graph, from: usize, to: usize) -> Option<()> {
    for v in g.inputs().to_vec() {
        let ValueType::Tensor(t) = g.ty(v).clone() else { continue };
        let shape = t.shape?.into_iter().map(|d| if d == Dim::Known(from) { Dim::Known(to) } else { d });
        g.set_type(v, ValueType::tensor(t.dtype, shape.collect()));
    }
    let constants: Vec<(ValueId, Tensor)> = g.initializers().map(|(v, t)| (v, t.clone())).collect();
    for (v, t) in constants {
        let shape: Vec<usize> = t.shape().iter().map(|&n| if n == from { to } else { n }).collect();
        let mut t = if shape == t.shape() { t } else { taken(&t, &shape)? };
        if t.dtype() == DType::I64 && t.len() <= 8 {
            let data: Vec<i64> = t.to_i64s().ok()?;
            let data = data.into_iter().map(|x| if x == from as i64 { to as i64 } else { x }).collect();
            t = Tensor::new(t.shape(), data).ok()?;
        }
        g.set_constant(v, t);
    }
    Some(())
}

/// The tensor in another shape of the same rank: along each axis its elements from the start, again and again.
pub fn taken(t: &Tensor, shape: &[usize]) -> Option<Tensor> {
    let n = ir::budget::elements(shape).ok().filter(|&n| n < 1 << 20)?;
    if t.is_empty() || t.dtype() == DType::String {
        return Tensor::zeros(t.dtype(), shape).ok();
    }
    let small = t.dtype().bits() < 8;
    let bytes = if small { t.unpacked().ok()? } else { t.bytes().to_vec() };
    let size = bytes.len() / t.len();
    let mut out = Vec::with_capacity(n * size);
    let mut at = vec![0usize; shape.len()];
    for _ in 0..n {
        let mut from = 0;
        for (i, &d) in t.shape().iter().enumerate() {
            from = from * d + at[i] % d;
        }
        out.extend_from_slice(&bytes[from * size..(from + 1) * size]);
        for i in (0..shape.len()).rev() {
            at[i] += 1;
            if at[i] < shape[i] {
                break;
            }
            at[i] = 0;
        }
    }
    let made = if small {
        Tensor::from_unpacked(t.dtype(), shape, &out)
    } else {
        Tensor::from_bytes(t.dtype(), shape, out)
    };
    made.ok()
}

fn constant(g: &Graph, r: &mut Random, fits: impl Fn(&Tensor) -> bool) -> Option<(ValueId, Tensor)> {
    let all: Vec<(ValueId, Tensor)> =
        g.initializers().filter(|(_, t)| fits(t)).map(|(v, t)| (v, t.clone())).collect();
    r.pick(&all).cloned()
}

/// A constant loses elements along some axes, or leading axes, or all.
pub fn broadcast(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let (v, t) = constant(g, r, |t| t.rank() > 0 && t.len() > 1)?;
    let mut shape = t.shape().to_vec();
    match r.below(3) {
        0 => shape.iter_mut().for_each(|d| *d = 1),
        1 => shape = shape.iter().map(|&d| if r.chance(1, 2) { 1 } else { d }).collect(),
        _ => {
            let keep = 1 + r.below(shape.len());
            let cut = shape.len() - keep;
            shape.iter_mut().take(cut).for_each(|d| *d = 1);
        }
    }
    let mut t = taken(&t, &shape)?;
    let leading = shape.iter().take_while(|&&d| d == 1).count();
    if r.chance(1, 2) {
        t = t.reshaped(&shape[r.below(leading + 1)..]).ok()?;
    }
    g.set_constant(v, t);
    Some(())
}

/// A value goes through a transposition and back, or through a reshape and back.
pub fn layout(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let all: Vec<ValueId> = g.values().filter(|&v| g.ty(v).rank().is_some_and(|n| n > 1)).collect();
    let v = *r.pick(&all)?;
    let uses = g.uses(v);
    let mut perm: Vec<i64> = (0..g.ty(v).rank()? as i64).collect();
    r.shuffle(&mut perm);
    let mut back = vec![0i64; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| back[p as usize] = i as i64);
    let op = ops::standard("Transpose").ok()?;
    let there = g.apply("", op, Attrs::new().with("perm", perm), &[v]);
    // Something in between keeps the two apart, at times.
    let middle = if r.chance(1, 2) && g.dtype(v) == Some(DType::F32) {
        g.apply("", ops::standard("Relu").ok()?, Attrs::new(), &[there])
    } else {
        there
    };
    let new = g.apply("", op, Attrs::new().with("perm", back), &[middle]);
    for u in uses {
        match u {
            ir::Use::Input(n, i) => g.set_input(n, i, Some(new)),
            ir::Use::Output(i) => g.set_output(i, new),
            ir::Use::Capture(..) => {}
        }
    }
    Some(())
}

/// An attribute moves by one, changes sign, goes, or a list is shuffled.
pub fn attributes(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let id = node(g, r)?;
    let formals = g.get(id)?.op.signature().attrs;
    let (_, attrs) = g.node_mut(id).ok()?;
    let names: Vec<String> = attrs.iter().map(|(n, _)| n.to_string()).collect();
    let Some(name) = r.pick(&names) else {
        // A flag that is off by default.
        let f = r.pick(formals).filter(|f| f.kind == ir::AttrKind::Int)?;
        attrs.set(f.name, r.below(3) as i64);
        return Some(());
    };
    let new = match attrs.get(name)? {
        _ if r.chance(1, 8) => {
            attrs.remove(name);
            return Some(());
        }
        Attr::Int(n) => Attr::Int(match r.below(4) {
            0 => n.wrapping_add(1),
            1 => n.wrapping_sub(1),
            2 => n.wrapping_neg(),
            _ => r.below(4) as i64,
        }),
        Attr::Float(x) => Attr::Float(r.one(&[0.0, 1.0, -1.0, 0.5, 1e-5, 2.0, -x], 1.0)),
        Attr::Ints(v) => {
            let mut v = v.clone();
            let at = r.below(v.len());
            match (r.below(4), v.get_mut(at)) {
                (0, Some(x)) => *x += 1,
                (1, Some(x)) => *x -= 1,
                (2, Some(x)) => *x = r.below(4) as i64,
                _ => r.shuffle(&mut v),
            }
            Attr::Ints(v)
        }
        _ => return None,
    };
    attrs.set(name, new);
    Some(())
}

/// Scales and zero points at their ends.
pub fn quantization(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let all: Vec<ValueId> = g
        .nodes()
        .filter(|(_, n)| n.op.name().contains("Linear") || n.op.name().contains("Integer"))
        .flat_map(|(_, n)| n.reads())
        .filter(|&v| g.constant(v).is_some_and(|t| t.len() <= 64 && t.rank() <= 1))
        .collect();
    let v = *r.pick(&all)?;
    let t = g.constant(v)?.clone();
    let n = t.len();
    let new = if t.dtype().is_float() {
        let pool = [1e-10, 1e-3, 0.0078125, 0.0625, 1.0, 16.0, 1e6, 0.1];
        Tensor::from_f64s(t.dtype(), t.shape(), (0..n).map(|_| r.one(&pool, 1.0)).collect())
    } else {
        let (low, high) = t.dtype().int_range()?;
        let (low, high) = (low.max(-1000) as i64, high.min(1000) as i64);
        let pool = [low, high, 0, 1, (low + high + 1) / 2];
        Tensor::from_i64s(t.dtype(), t.shape(), (0..n).map(|_| r.one(&pool, 0)).collect())
    };
    g.set_constant(v, new.ok()?);
    Some(())
}

/// A few elements of a float constant become special values.
pub fn edges(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let (v, t) = constant(g, r, |t| t.dtype().is_float() && !t.is_empty())?;
    let mut data = t.to_f64s().ok()?;
    if r.chance(1, 3) {
        let x = r.one(EDGES, 0.0);
        data.iter_mut().for_each(|d| *d = x);
    } else {
        for _ in 0..1 + r.below(3) {
            let at = r.below(data.len());
            data[at] = r.one(EDGES, 0.0);
        }
    }
    g.set_constant(v, Tensor::from_f64s(t.dtype(), t.shape(), data).ok()?);
    Some(())
}

/// A weight becomes low-rank, sparse, of few values, the same as another, zero in whole rows, or noise.
pub fn weights(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let (v, t) = constant(g, r, |t| t.dtype() == DType::F32 && t.rank() >= 2 && t.len() >= 4)?;
    let mut data = t.to_f32s().ok()?;
    let rows = t.shape()[0].max(1);
    let cols = data.len() / rows;
    match r.below(6) {
        0 => {
            let at = |r: &mut Random| (r.below(4001) as f32 - 2000.0) / 1000.0;
            let rank = 1 + r.below(2);
            let a: Vec<f32> = (0..rows * rank).map(|_| at(r)).collect();
            let b: Vec<f32> = (0..cols * rank).map(|_| at(r)).collect();
            for i in 0..rows {
                for j in 0..cols {
                    data[i * cols + j] = (0..rank).map(|k| a[i * rank + k] * b[k * cols + j]).sum();
                }
            }
        }
        1 => data.iter_mut().for_each(|x| *x = if r.chance(3, 4) { 0.0 } else { *x }),
        2 => data.iter_mut().for_each(|x| *x = x.round().clamp(-1.0, 1.0)),
        3 => {
            let row = data[..cols].to_vec();
            data.chunks_mut(cols.max(1)).for_each(|c| c.copy_from_slice(&row[..c.len()]));
        }
        4 => {
            let at = r.below(rows);
            data[at * cols..(at + 1) * cols].fill(0.0);
        }
        _ => return pair::tensor(DType::F32, t.shape(), false, r).map(|t| g.set_constant(v, t)),
    }
    g.set_constant(v, Tensor::new(t.shape(), data).ok()?);
    Some(())
}

/// A constant becomes an input, or an input a constant.
pub fn constant_or_input(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    if r.chance(1, 2) {
        let (v, t) = constant(g, r, |t| t.dtype() == DType::F32)?;
        let x = g.add_input("was", ValueType::of(&t));
        g.replace_uses(v, x);
    } else {
        let v = *r.pick(g.inputs())?;
        let (d, s) = (g.dtype(v)?, g.ty(v).concrete()?);
        let c = g.add_initializer("was", pair::tensor(d, &s, false, r)?);
        g.replace_uses(v, c);
    }
    Some(())
}
