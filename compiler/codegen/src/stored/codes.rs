//! An expression taken apart: codes of at most eight bits, what they count from or look up, and scales.

use super::field::Field;
use ir::{DType, Graph, Node, Tensor, ValueId};
use kernels::{Codes, PackedCodes, Precision, Strides, Tier, Zero};

/// Operators between a weight and its codes.
const DEEPEST: usize = 24;
/// Fewest inputs that share a scale.
const LEAST_BLOCK: usize = 8;

/// A weight as `Π scales · (value(code) − zero)` for each element.
pub struct Coded {
    codes: Vec<u8>,
    shape: Vec<usize>,
    scales: Vec<Field>,
    zero: Count,
    table: Option<Vec<f32>>,
}

/// What codes count from.
enum Count {
    One(i32),
    Each(Field),
}

impl Coded {
    /// Finds the codes of an expression.
    pub fn of(graph: &Graph, v: ValueId) -> Option<Coded> {
        of(graph, v, DEEPEST)
    }

    fn plain(codes: Vec<u8>, shape: &[usize], zero: i32) -> Coded {
        Coded { codes, shape: shape.to_vec(), scales: Vec::new(), zero: Count::One(zero), table: None }
    }

    fn transposed(self, perm: &[usize]) -> Option<Coded> {
        let field = |f: &Field| f.transposed(&self.shape, perm);
        let scales = self.scales.iter().map(field).collect::<Option<_>>()?;
        let zero = match &self.zero {
            Count::One(z) => Count::One(*z),
            Count::Each(f) => Count::Each(field(f)?),
        };
        let t = Tensor::new(&self.shape, self.codes).ok()?;
        let t = ops::transpose::transpose(&t, perm).ok()?;
        Some(Coded { codes: t.bytes().to_vec(), shape: t.shape().to_vec(), scales, zero, table: self.table })
    }

    /// Packs the matrix of `k × n` that the weight is, stored as `[n, k]` or as `[k, n]`, where that pays for `m` rows of such activations.
    pub fn pack(
        mut self,
        tier: Tier,
        (m, precision): (usize, Precision),
        (k, n): (usize, usize),
        n_first: bool,
    ) -> Option<PackedCodes> {
        let (rows, cols) = if n_first { (n, k) } else { (k, n) };
        if rows.checked_mul(cols)? != self.codes.len() {
            return None;
        }
        let oriented = |f: &Field| {
            let [a, b] = f.matrix(rows, cols)?;
            Some(if n_first { (a, b) } else { (b, a) })
        };
        let places: Vec<(Vec<usize>, Vec<usize>)> =
            self.scales.iter().map(oriented).collect::<Option<_>>()?;
        let zeros = match &self.zero {
            Count::Each(f) => Some((f, oriented(f)?)),
            Count::One(_) => None,
        };
        let block = places.iter().chain(zeros.as_ref().map(|z| &z.1)).map(|p| run(&p.1)).fold(k, gcd);
        if block < LEAST_BLOCK.min(k) {
            return None;
        }
        let each = |value: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
            (0..n)
                .flat_map(|n| (0..k).step_by(block).map(move |k| (n, k)))
                .map(|(n, k)| value(n, k))
                .collect()
        };
        let scale = each(&|n, k| {
            self.scales.iter().zip(&places).map(|(f, (i, j))| f.data[i[n] + j[k]]).product::<f32>()
        });
        let zeros = zeros.map(|(f, (i, j))| each(&|n, k| f.data[i[n] + j[k]]));
        let (least, most) = self.codes.iter().fold((255, 0), |(a, b), &c| (c.min(a), c.max(b)));
        let (bits, zero) = match (&self.zero, &self.table) {
            (_, Some(t)) => (if t.len() == 16 { 4 } else { 8 }, Zero::One(0)),
            (Count::One(z), None) if most - least < 16 => {
                self.codes.iter_mut().for_each(|c| *c -= least);
                (4, Zero::One(z - i32::from(least)))
            }
            (zero, None) => {
                let bits = if most < 16 { 4 } else { 8 };
                (bits, if let Count::One(z) = zero { Zero::One(*z) } else { Zero::Each(zeros.as_deref()?) })
            }
        };
        let strides = if n_first { Strides::nk(k) } else { Strides::kn(n) };
        let table = self.table.as_deref();
        let codes = Codes { codes: &self.codes, strides, k, n, bits, block, scale: &scale, zero, table };
        PackedCodes::for_rows(tier, &codes, m, precision).ok()?
    }
}

/// The longest run that all runs of equal numbers are whole multiples of.
fn run(x: &[usize]) -> usize {
    let starts = (1..x.len()).filter(|&i| x[i] != x[i - 1]);
    starts.fold(x.len(), gcd)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn of(graph: &Graph, v: ValueId, depth: usize) -> Option<Coded> {
    let depth = depth.checked_sub(1)?;
    let shape = graph.ty(v).concrete()?.to_vec();
    let Some(n) = graph.producer(v).and_then(|p| graph.get(p)).filter(|n| n.op.domain().is_empty()) else {
        return values(graph, v);
    };
    let inner = n.input(0)?;
    match n.op.name() {
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" => {
            let c = of(graph, inner, depth)?;
            (c.codes.len() == shape.iter().product::<usize>()).then_some(Coded { shape, ..c })
        }
        "Transpose" => {
            let reversed: Vec<usize> = (0..shape.len()).rev().collect();
            let perm = match n.attrs.ints("perm").ok()? {
                Some(p) => p.iter().map(|&p| usize::try_from(p).ok()).collect::<Option<_>>()?,
                None => reversed,
            };
            of(graph, inner, depth)?.transposed(&perm)
        }
        "Cast" if graph.dtype(inner).is_some_and(|d| d.is_int()) => integers(&graph.evaluate(inner)?),
        "Mul" => scaled(graph, n, &shape, depth).or_else(|| values(graph, v)),
        "DequantizeLinear" => dequantized(graph, n),
        "Gather" => looked_up(graph, n).or_else(|| values(graph, v)),
        _ => values(graph, v),
    }
}

/// A product with fewer numbers than the weight has.
fn scaled(graph: &Graph, n: &Node, shape: &[usize], depth: usize) -> Option<Coded> {
    let (a, b) = (n.input(0)?, n.input(1)?);
    let len = |v: ValueId| graph.ty(v).concrete().map(|s| s.iter().product::<usize>());
    let (w, s) = if len(a)? >= len(b)? { (a, b) } else { (b, a) };
    if graph.ty(w).concrete()?[..] != *shape || len(s)? >= len(w)? {
        return None;
    }
    let t = graph.evaluate(s)?;
    let f = Field::broadcast(t.shape(), shape, t.to_f32s().ok()?)?;
    let mut c = of(graph, w, depth)?;
    c.scales.push(f);
    Some(c)
}

fn dequantized(graph: &Graph, n: &Node) -> Option<Coded> {
    let (q, s) = (graph.evaluate(n.input(0)?)?, graph.evaluate(n.input(1)?)?);
    if s.dtype() != DType::F32 || n.output(0).and_then(|y| graph.dtype(y)) != Some(DType::F32) {
        return None;
    }
    let block = usize::try_from(n.attrs.int_or("block_size", 0).ok()?).ok()?;
    let axis = n.attrs.int_or("axis", 1).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + q.rank() as i64 } else { axis }).ok()?;
    let field = |t: &Tensor| Field::blocked(q.shape(), axis, block, t.shape(), t.to_f32s().ok()?);
    let offset = offset(q.dtype())?;
    let mut c = Coded::plain(counted(&q)?, q.shape(), i32::from(offset));
    c.scales.push(field(&s)?);
    if let Some(z) = n.input(2) {
        let z = graph.evaluate(z)?;
        let z = Tensor::new(z.shape(), z.to_f32s().ok()?).ok()?;
        let mut f = field(&z)?;
        f.data.iter_mut().for_each(|z| *z += f32::from(offset));
        c.zero = match f.data.first() {
            Some(&first) if f.data.iter().all(|&z| z == first) => Count::One(first as i32),
            _ => Count::Each(f),
        };
    }
    Some(c)
}

/// What is added to integers of a type to count from zero.
fn offset(d: DType) -> Option<u8> {
    Some(match d {
        DType::U8 | DType::U4 | DType::U2 => 0,
        DType::I8 => 128,
        DType::I4 => 8,
        DType::I2 => 2,
        _ => return None,
    })
}

/// Small integers as codes.
fn counted(q: &Tensor) -> Option<Vec<u8>> {
    let offset = offset(q.dtype())?;
    let mut codes = q.unpacked().ok()?;
    codes.iter_mut().for_each(|c| *c = c.wrapping_add(offset));
    Some(codes)
}

fn integers(q: &Tensor) -> Option<Coded> {
    match offset(q.dtype()) {
        Some(o) => Some(Coded::plain(counted(q)?, q.shape(), i32::from(o))),
        None => whole(&q.to_f32s().ok()?, q.shape()),
    }
}

/// Entries of a table at indices.
fn looked_up(graph: &Graph, n: &Node) -> Option<Coded> {
    let table = graph.evaluate(n.input(0)?)?;
    if table.rank() != 1 || table.len() > 256 || table.dtype() != DType::F32 {
        return None;
    }
    // Indices are often bytes or less before a cast.
    let mut index = n.input(1)?;
    if let Some(c) = graph.producer(index).and_then(|p| graph.get(p)).filter(|c| c.is("Cast")) {
        index = c.input(0).filter(|&x| graph.dtype(x).and_then(offset) == Some(0)).unwrap_or(index);
    }
    let index = graph.evaluate(index)?;
    let len = table.len() as i64;
    let at = |i: i64| u8::try_from(if i < 0 { i + len } else { i }).ok().filter(|&i| i64::from(i) < len);
    let codes: Vec<u8> = match offset(index.dtype()) {
        Some(0) => index.unpacked().ok()?,
        _ => index.to_i64s().ok()?.into_iter().map(at).collect::<Option<_>>()?,
    };
    if codes.iter().any(|&c| i64::from(c) >= len) {
        return None;
    }
    let mut entries = table.to_f32s().ok()?;
    entries.resize(if entries.len() <= 16 { 16 } else { 256 }, 0.0);
    let mut c = Coded::plain(codes, index.shape(), 0);
    c.table = Some(entries);
    Some(c)
}

/// Codes of whatever takes few values.
fn values(graph: &Graph, v: ValueId) -> Option<Coded> {
    let t = graph.evaluate(v)?;
    if t.dtype() != DType::F32 {
        return None;
    }
    let x = t.to_f32s().ok()?;
    whole(&x, t.shape()).or_else(|| entries(&x, t.shape()))
}

/// Integers that span at most a byte.
fn whole(x: &[f32], shape: &[usize]) -> Option<Coded> {
    let (least, most) = x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (x.min(a), x.max(b)));
    let fits = least.abs() <= 512.0 && most - least <= 255.0 && x.iter().all(|x| x.fract() == 0.0);
    fits.then(|| Coded::plain(x.iter().map(|x| (x - least) as u8).collect(), shape, -least as i32))
}

/// At most 256 different numbers.
fn entries(x: &[f32], shape: &[usize]) -> Option<Coded> {
    /// Twice as many slots as entries.
    const SLOTS: usize = 512;
    let mut slots = [None; SLOTS];
    let mut table: Vec<f32> = Vec::new();
    let mut codes = Vec::with_capacity(x.len());
    for x in x {
        let bits = x.to_bits();
        let mut at = (bits.wrapping_mul(0x9e37_79b9) >> 23) as usize;
        let code = loop {
            match slots[at % SLOTS] {
                Some((b, code)) if b == bits => break code,
                Some(_) => at += 1,
                None if table.len() == 256 => return None,
                None => {
                    let code = table.len() as u8;
                    table.push(*x);
                    slots[at % SLOTS] = Some((bits, code));
                    break code;
                }
            }
        };
        codes.push(code);
    }
    table.resize(if table.len() <= 16 { 16 } else { 256 }, 0.0);
    let mut c = Coded::plain(codes, shape, 0);
    c.table = Some(table);
    Some(c)
}
