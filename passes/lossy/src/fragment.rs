//! Small graphs of standard operators that decode a stored form into a weight.

use crate::gptq::Rounded;
use crate::quant::Grid;
use crate::view::View;
use half::f16;
use ir::{Attrs, DType, Error, Graph, Result, Tensor, ValueId};
use ndarray::Array2;

/// A graph under construction; names start with the weight's.
pub struct Build {
    pub graph: Graph,
    name: String,
}

impl Build {
    pub fn new(name: &str) -> Build {
        Build::around(name, Graph::new("fragment"))
    }

    /// Continues a graph that has inputs already.
    pub fn around(name: &str, graph: Graph) -> Build {
        Build { graph, name: name.to_string() }
    }

    /// A constant called `<weight>.<what>`.
    pub fn constant(&mut self, what: &str, t: Tensor) -> ValueId {
        self.graph.add_initializer(&format!("{}.{what}", self.name), t)
    }

    /// A node of the standard domain; its output is called `<weight>.<what>`.
    pub fn op(&mut self, op: &str, what: &str, attrs: Attrs, inputs: &[ValueId]) -> Result<ValueId> {
        let op = ops::standard(op)?;
        let name = format!("{}.{what}", self.name);
        Ok(self.graph.apply(&name, op, attrs, inputs))
    }

    pub fn cast(&mut self, x: ValueId, to: DType, what: &str) -> Result<ValueId> {
        self.op("Cast", what, Attrs::new().with("to", i64::from(to.onnx())), &[x])
    }

    pub fn reshape(&mut self, x: ValueId, shape: &[usize], what: &str) -> Result<ValueId> {
        let dims = shape.iter().map(|&d| d as i64).collect();
        let s = self.constant(&format!("{what}.shape"), Tensor::vector::<i64>(dims));
        self.op("Reshape", what, Attrs::new(), &[x, s])
    }

    /// Ends the fragment with these outputs and infers types.
    pub fn finish(mut self, outputs: &[ValueId]) -> Result<Graph> {
        for (i, &v) in outputs.iter().enumerate() {
            self.graph.add_output(&format!("out{i}"), v);
        }
        ir::infer(&mut self.graph)?;
        Ok(self.graph)
    }
}

fn float(shape: &[usize], data: Vec<f32>, half: bool) -> Result<Tensor> {
    if half {
        Tensor::new(shape, data.into_iter().map(f16::from_f32).collect())
    } else {
        Tensor::new(shape, data)
    }
}

/// The weight as integer codes of `grid`: one DequantizeLinear for 4 and 8 bits, assembled parts for other widths.
pub fn integers(name: &str, view: &View, rounded: &Rounded, grid: &Grid) -> Result<Graph> {
    let mut b = Build::new(name);
    let out = integers_of(&mut b, view, &rounded.codes, grid)?;
    b.finish(&[out])
}

/// As [`integers`], as part of a larger fragment; `what` tells several weights of one fragment apart.
pub fn integers_into(
    b: &mut Build,
    what: &str,
    view: &View,
    rounded: &Rounded,
    grid: &Grid,
) -> Result<ValueId> {
    let outer = std::mem::take(&mut b.name);
    b.name = format!("{outer}.{what}");
    let out = integers_of(b, view, &rounded.codes, grid);
    b.name = outer;
    out
}

fn integers_of(b: &mut Build, view: &View, codes: &Array2<u8>, grid: &Grid) -> Result<ValueId> {
    let w = match grid.bits {
        4 | 8 => dequantized(b, view, codes, grid)?,
        _ => assembled(b, view, codes, grid)?,
    };
    if grid.columns.is_empty() { Ok(w) } else { by_column(b, view, &grid.columns, w) }
}

/// A weight times a factor, kept in half precision, per column.
fn by_column(b: &mut Build, view: &View, factors: &[f32], w: ValueId) -> Result<ValueId> {
    let rank = view.shape.len();
    let columns = |n: &usize| view.shape[rank - n..].iter().product::<usize>() == view.cols;
    let shape: Vec<usize> = if view.transposed {
        std::iter::once(view.cols).chain((1..rank).map(|_| 1)).collect()
    } else {
        let axes = (1..=rank).find(columns);
        let axes = axes.ok_or_else(|| Error::internal("columns that are no axes of the weight"))?;
        view.shape[rank - axes..].to_vec()
    };
    let c = b.constant("c", float(&shape, factors.to_vec(), true)?);
    let c = b.cast(c, DType::F32, "cf")?;
    b.op("Mul", "wc", Attrs::new(), &[w, c])
}

fn dequantized(b: &mut Build, view: &View, codes: &Array2<u8>, grid: &Grid) -> Result<ValueId> {
    let blocked = grid.scales.ncols() > 1;
    let dtype = if grid.bits == 8 { DType::I8 } else { DType::I4 };
    let signed: Vec<u8> =
        view.stored(codes).into_iter().map(|c| (i32::from(c) - grid.offset()) as u8).collect();
    // The operator wants its scales along an axis of the tensor: the weight's own, or that of the matrix.
    let direct =
        if blocked { (view.shape.len() == 2).then(|| view.row_axis()) } else { view.direct_row_axis() };
    let stored = view.stored_shape();
    let shape: &[usize] = if direct.is_some() { &view.shape } else { &stored };
    let q = Tensor::from_unpacked(dtype, shape, &signed)?;
    let (attrs, scale_shape) = if blocked {
        let blocks = grid.scales.ncols();
        let s = if view.transposed { vec![blocks, view.rows] } else { vec![view.rows, blocks] };
        (Attrs::new().with("axis", view.col_axis()).with("block_size", grid.block as i64), s)
    } else {
        (Attrs::new().with("axis", direct.unwrap_or(view.row_axis())), vec![view.rows])
    };
    let scales: Vec<f32> = if view.transposed {
        grid.scales.t().iter().copied().collect()
    } else {
        grid.scales.iter().copied().collect()
    };
    let q = b.constant("q", q);
    // Scales are widened, not weights: a weight in half precision would be rounded once more.
    let mut s = b.constant("s", float(&scale_shape, scales, grid.half)?);
    if grid.half {
        s = b.cast(s, DType::F32, "sf")?;
    }
    let mut w = b.op("DequantizeLinear", "dq", attrs, &[q, s])?;
    if direct.is_none() {
        w = b.reshape(w, &view.shape, "r")?;
    }
    Ok(w)
}

/// Splits codes into parts of 4, 2 and 1 bits; narrow parts are read from tables that give several codes for one
/// 4-bit index.
fn assembled(b: &mut Build, view: &View, codes: &Array2<u8>, grid: &Grid) -> Result<ValueId> {
    const NAMES: [&str; 3] = ["h", "l", "m"];
    let stored: Vec<u8> = view.stored(codes);
    let shape = scaled_shape(view, grid);
    let mut left = grid.bits;
    let mut sum = None;
    for (&bits, name) in parts(grid.bits)?.iter().zip(NAMES) {
        left -= bits;
        let mask = (1u8 << bits) - 1;
        let codes: Vec<u8> = stored.iter().map(|c| (c >> left) & mask).collect();
        let unit = (1u32 << left) as f32;
        let offset = if sum.is_none() { grid.offset() as f32 } else { 0.0 };
        let x = part(b, name, &shape, &codes, bits, |v| v * unit - offset)?;
        sum = Some(match sum {
            None => x,
            Some(s) => b.op("Add", &format!("{name}c"), Attrs::new(), &[s, x])?,
        });
    }
    let sum = sum.ok_or_else(|| Error::internal("a width without parts"))?;
    scaled(b, view, grid, sum)
}

/// The low bits of codes, 1, 2 or 4 each, as floats of `shape`.
pub fn low_bits(b: &mut Build, shape: &[usize], codes: &[u8], bits: u32) -> Result<ValueId> {
    if bits < 4 {
        return part(b, "l", shape, codes, bits, |v| v);
    }
    let q = b.constant("l", Tensor::from_unpacked(DType::U4, shape, codes)?);
    b.cast(q, DType::F32, "lf")
}

/// Widths of the parts, high bits first.
fn parts(bits: u32) -> Result<&'static [u32]> {
    match bits {
        2 => Ok(&[2]),
        3 => Ok(&[2, 1]),
        5 => Ok(&[4, 1]),
        6 => Ok(&[4, 2]),
        7 => Ok(&[4, 2, 1]),
        n => Err(Error::internal(format!("no packed form of {n} bits"))),
    }
}

/// Elements must divide by this for a width to be stored.
pub fn packing(bits: u32) -> usize {
    match bits {
        3 | 5 | 7 => 4,
        2 | 6 => 2,
        _ => 1,
    }
}

/// Codes of `bits` bits as a tensor of `shape`, each mapped by `value`.
fn part<T: ir::Element>(
    b: &mut Build,
    what: &str,
    shape: &[usize],
    codes: &[u8],
    bits: u32,
    value: impl Fn(f32) -> T,
) -> Result<ValueId> {
    let per = 4 / bits as usize;
    let packed: Vec<u8> = codes
        .chunks(per)
        .map(|c| c.iter().enumerate().fold(0, |p, (i, &v)| p | v << (bits as usize * i)))
        .collect();
    let mask = (1u8 << bits) - 1;
    let table: Vec<T> = (0..16u8)
        .flat_map(|p| (0..per).map(move |i| f32::from((p >> (bits as usize * i)) & mask)))
        .map(value)
        .collect();
    looked_up(b, what, shape, &packed, Tensor::new(&[16, per], table)?)
}

/// Rows of `table` picked by 4-bit indices, as a tensor of `shape`.
pub fn looked_up(
    b: &mut Build,
    what: &str,
    shape: &[usize],
    packed: &[u8],
    table: Tensor,
) -> Result<ValueId> {
    let q = Tensor::from_unpacked(DType::U4, &[packed.len()], packed)?;
    let q = b.constant(&format!("{what}q"), q);
    let t = b.constant(&format!("{what}t"), table);
    let i = b.cast(q, DType::I32, &format!("{what}i"))?;
    let g = b.op("Gather", &format!("{what}g"), Attrs::new().with("axis", 0i64), &[t, i])?;
    b.reshape(g, shape, &format!("{what}r"))
}

/// Storage-order shape in which one multiplication applies all scales.
fn scaled_shape(view: &View, grid: &Grid) -> Vec<usize> {
    match (grid.scales.ncols(), view.transposed) {
        (1, _) => view.stored_shape().to_vec(),
        (n, false) => vec![view.rows, n, view.cols / n],
        (n, true) => vec![n, view.cols / n, view.rows],
    }
}

/// Applies the grid's scales to codes in storage order and gives them the weight's shape.
pub fn scaled(b: &mut Build, view: &View, grid: &Grid, x: ValueId) -> Result<ValueId> {
    let n = grid.scales.ncols();
    let (shape, data): (Vec<usize>, Vec<f32>) = match (n, view.transposed) {
        (1, false) => (vec![view.rows, 1], grid.scales.iter().copied().collect()),
        (1, true) => (vec![view.rows], grid.scales.iter().copied().collect()),
        (n, false) => (vec![view.rows, n, 1], grid.scales.iter().copied().collect()),
        (n, true) => (vec![n, 1, view.rows], grid.scales.t().iter().copied().collect()),
    };
    let mut s = b.constant("s", float(&shape, data, grid.half)?);
    if grid.half {
        s = b.cast(s, DType::F32, "sf")?;
    }
    let w = b.op("Mul", "w", Attrs::new(), &[x, s])?;
    if n == 1 && view.shape == view.stored_shape() { Ok(w) } else { b.reshape(w, &view.shape, "r") }
}

/// Entries of tables, picked per weight, times a scale per row: each of `tables` holds up to 4, 16 or 256 values, `of`
/// tells which one a row reads.
pub fn table(
    name: &str,
    view: &View,
    codes: &Array2<u8>,
    tables: &[Vec<f32>],
    of: &[usize],
    scales: &Array2<f32>,
) -> Result<Graph> {
    let mut b = Build::new(name);
    let grid =
        Grid { bits: 8, block: view.cols.max(1), scales: scales.clone(), half: false, columns: Vec::new() };
    let stored = view.stored(codes);
    let shape = view.stored_shape();
    let most = tables.iter().map(Vec::len).max().unwrap_or(0);
    let level = |t: &[f32], i: usize| t.get(i).or(t.last()).copied().unwrap_or(0.0);
    let x = match tables {
        [one] if most <= 4 && stored.len().is_multiple_of(2) => {
            let packed: Vec<u8> = stored.chunks(2).map(|c| c[0] | c[1] << 2).collect();
            let pairs = (0..16).flat_map(|p| [level(one, p & 3), level(one, p >> 2)]).collect();
            looked_up(&mut b, "t", &shape, &packed, Tensor::new(&[16, 2], pairs)?)?
        }
        _ => {
            let i = if most <= 4 && stored.len().is_multiple_of(2) {
                part(&mut b, "c", &shape, &stored, 2, |v| v as i32)?
            } else {
                let dtype = if most <= 16 { DType::U4 } else { DType::U8 };
                let q = b.constant("q", Tensor::from_unpacked(dtype, &shape, &stored)?);
                b.cast(q, DType::I32, "i")?
            };
            let size = if most <= 4 {
                4
            } else if most <= 16 {
                16
            } else {
                most
            };
            let all = tables.iter().flat_map(|t| (0..size).map(move |i| level(t, i))).collect();
            let t = b.constant("t", Tensor::vector::<f32>(all));
            let i = if tables.len() > 1 { of_rows(&mut b, view, i, of, size)? } else { i };
            b.op("Gather", "g", Attrs::new().with("axis", 0i64), &[t, i])?
        }
    };
    let w = scaled(&mut b, view, &grid, x)?;
    b.finish(&[w])
}

/// Indices within the table of each row as indices into all tables.
fn of_rows(b: &mut Build, view: &View, i: ValueId, of: &[usize], size: usize) -> Result<ValueId> {
    let first = of.iter().map(|&t| (t * size) as u8).collect();
    let shape: &[usize] = if view.transposed { &[view.rows] } else { &[view.rows, 1] };
    let first = b.constant("f", Tensor::new::<u8>(shape, first)?);
    let first = b.cast(first, DType::I32, "fi")?;
    b.op("Add", "a", Attrs::new(), &[i, first])
}
