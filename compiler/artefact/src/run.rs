//! Calls executed.

use crate::call::{Call, Finish, Line, Move, Numbers, Stores};
use crate::io::{Io, Plain};
use crate::loops::{self, Code, GRAIN, Walk};
use kernels::arg::arg_reduce;
use kernels::convert::{Quantized, Scales, dequantize, narrow_bits, quantize, quantize_dynamic, widen_bits};
use kernels::cumsum::{Addend, CumSum, cumsum};
use kernels::elements::{
    Along, Triangle, gather_elements, one_hot, scatter_elements, scatter_rows, triangle,
};
use kernels::gather::{gather, gather_tuples};
use kernels::grid_sample::grid_sample;
use kernels::lrn::lrn;
use kernels::norm::{NormArgs, group_norm, normalize_rows};
use kernels::reduce::reduce;
use kernels::resize::{Image, Taps, resize_linear, resize_nearest};
use kernels::roi_align::roi_align;
use kernels::rotary::rotary;
use kernels::softmax::{log_sum_exp, softmax_axis, softmax_rows};
use kernels::topk::top_k;
use kernels::transpose::{Element, copy_strided, permute};
use kernels::vecmath;
use kernels::{Affine, Epilogue, Error, GemmShape, Operand, Residual, Strides, Tier};
use kernels::{conv_bf16, conv_f32, conv_transpose_f32, gemm_bf16, gemm_f32};
use kernels::{gemm_dynamic_f32, gemm_dynamic_scratch, gemm_packed, gemm_sparse_f32};
use kernels::{global_average_i8, global_pool_f32, max_pool_i8, pool_f32};
use std::cell::RefCell;
use std::sync::Mutex;

/// Runs a generic mover with the element type of a given width.
macro_rules! by_width {
    ($width:expr, $f:ident($($a:expr),*)) => {
        match $width {
            1 => $f::<u8>($($a),*),
            2 => $f::<u16>($($a),*),
            4 => $f::<u32>($($a),*),
            _ => $f::<u64>($($a),*),
        }
    };
}

macro_rules! by_store {
    ($stores:expr, $f:ident($($a:expr),*)) => {
        match $stores {
            Stores::U8 => $f::<u8>($($a),*),
            Stores::I8 => $f::<i8>($($a),*),
            Stores::U16 => $f::<u16>($($a),*),
            Stores::I16 => $f::<i16>($($a),*),
        }
    };
}

impl Call {
    /// Whether it sums products of floats.
    fn contracts(&self) -> bool {
        matches!(
            self,
            Call::Conv { .. }
                | Call::Product { .. }
                | Call::CodedProduct { .. }
                | Call::SparseProduct { .. }
                | Call::HalfConv { .. }
                | Call::HalfProduct { .. }
                | Call::Pair(_)
                | Call::Bands(_)
                | Call::Products { .. }
                | Call::ConvTranspose { .. }
                | Call::Attention(_)
                | Call::Recur(_)
        )
    }

    /// Makes the call.
    pub fn run(&self, io: &Io, code: Code) -> Result<(), Error> {
        match self.contracts() {
            true => crate::denormals::without(io.pool, |pool| self.with(&io.on(pool), code)),
            false => self.with(io, code),
        }
    }

    fn with(&self, io: &Io, code: Code) -> Result<(), Error> {
        let pool = io.pool;
        match self {
            Call::Copy => {
                io.output::<u8>(0).copy_from_slice(io.input(0));
                Ok(())
            }
            Call::Conv { shape: s, weights, finish } => {
                let e = finish.epilogue(io, s.cout);
                conv_f32(pool, s, io.input(0), s.cin, weights, io.output(0), s.cout, &e)
            }
            Call::Product { m, alpha, weights: w, finish } => {
                let e = finish.epilogue(io, w.n());
                gemm_f32(pool, *m, io.input(0), w.k(), w, io.output(0), w.n(), *alpha, &e)
            }
            Call::HalfConv { shape: s, weights, finish } => {
                let e = finish.epilogue(io, s.cout);
                conv_bf16(pool, s, io.input(0), s.cin, weights, io.output(0), s.cout, &e)
            }
            Call::HalfProduct { m, alpha, weights: w, finish } => {
                let e = finish.epilogue(io, w.n());
                gemm_bf16(pool, *m, io.input(0), w.k(), w, io.output(0), w.n(), *alpha, &e)
            }
            &Call::CodedProduct { m, alpha, weights: ref w, precision, ref finish } => {
                let e = finish.epilogue(io, w.n());
                let (a, y) = ((io.input(0), w.k()), (io.output(0), w.n()));
                gemm_packed(pool, precision, m, a, w, y, alpha, &e)
            }
            Call::SparseProduct { m, alpha, weights: w, finish } => {
                let e = finish.epilogue(io, w.n());
                let (a, y) = ((io.input(0), w.k()), (io.output(0), w.n()));
                gemm_sparse_f32(pool, *m, a, w, y, *alpha, &e)
            }
            Call::LookUp { tier, table } => crate::chain::look_up(io, *tier, table),
            Call::Pair(p) => p.run(io),
            Call::Bands(b) => b.run(io),
            Call::Products { tier, shape, steps, finish } => products(io, *tier, *shape, *steps, finish),
            Call::ConvTranspose { shape: s, weights, finish } => {
                let e = finish.epilogue(io, s.cout);
                conv_transpose_f32(pool, s, io.input(0), s.cin, weights, io.output(0), s.cout, &e)
            }
            Call::ByteConv { shape, weights, scaling, finish } => scaling.conv(io, shape, weights, finish),
            Call::ByteProduct { m, weights, scaling, finish } => scaling.product(io, *m, weights, finish),
            Call::ByteProducts { tier, of, scaling, finish } => scaling.products(io, *tier, of, finish),
            &Call::Pool { tier, kind, window: ref w, batch, channels: c } => {
                pool_f32(tier, pool, kind, w, batch, c, io.input(0), c, io.output(0), c)
            }
            &Call::GlobalPool { tier, kind, batch, positions, channels: c } => {
                global_pool_f32(tier, pool, kind, batch, positions, c, io.input(0), c, io.output(0), c)
            }
            &Call::BytePool { tier, signed, ref window, batch, channels } => {
                max_pool_i8(tier, pool, window, signed, [batch, channels], io.input(0), io.output(0))
            }
            &Call::GlobalAverage { tier, by, batch, positions, channels } => {
                global_average_i8(tier, pool, by, [batch, positions, channels], io.input(0), io.output(0))
            }
            &Call::Softmax { kind, size, inner: 1, .. } => {
                softmax_rows(pool, kind, io.input(0), io.output(0), size, 1.0, None)
            }
            &Call::Softmax { kind, outer, size, inner } => {
                softmax_axis(pool, kind, io.input(0), io.output(0), outer, size, inner)
            }
            &Call::Map { function } => each(io, "function result", |x, y| vecmath::map(function, x, y)),
            &Call::Widen { brain } => each(io, "widened result", |x, y| widen_bits(brain, x, y)),
            &Call::Narrow { brain } => each(io, "narrowed result", |x, y| narrow_bits(brain, x, y)),
            Call::Power { base, exponent } => power(io, *base, *exponent),
            Call::TopK(size) => top_k(pool, *size, io.input(0), io.output(0), io.output(1)),
            Call::LogSumExp { size } => log_sum_exp(pool, io.input(0), io.output(0), *size),
            &Call::Reduce { op, outer, size, inner } => {
                reduce(pool, op, io.input(0), io.output(0), outer, size, inner)
            }
            &Call::Arg { which, select_last, outer, size, inner } => {
                arg_reduce(pool, which, select_last, io.input(0), io.output(0), outer, size, inner)
            }
            Call::Normalize { norm, size, gamma, beta } => {
                let args = NormArgs { gamma: gamma.as_deref(), beta: beta.as_deref(), ..NormArgs::default() };
                normalize_rows(pool, *norm, io.input(0), io.output(0), *size, args)
            }
            &Call::NormalizeGroups { batch, channels, inner, groups, ref gamma, ref beta, epsilon } => {
                let (x, y) = (io.input(0), io.output(0));
                group_norm(pool, x, y, batch, channels, inner, groups, gamma, beta, epsilon)
            }
            &Call::Gather { width, wide, outer, rows, run } => {
                by_width!(width, pick(io, wide, outer, rows, run))
            }
            Call::Tuples { width, batch, dims, run } => by_width!(*width, tuples(io, *batch, dims, *run)),
            Call::Elements { width, wide, along } => by_width!(*width, elements(io, *wide, along)),
            Call::ScatterElements { width, wide, along } => by_width!(*width, scattered(io, *wide, along)),
            Call::ScatterTuples { width, dims, run } => by_width!(*width, placed(io, dims, *run)),
            Call::Triangle { width, of } => by_width!(*width, cut(io, *of)),
            Call::Rotary { tier, of } => {
                let positions = (io.inputs() > 3).then(|| io.input(3));
                rotary(*tier, pool, of, io.input(0), [io.input(1), io.input(2)], positions, io.output(0))
            }
            Call::Lrn { tier, of } => lrn(*tier, pool, of, io.input(0), io.output(0)),
            Call::GridSample { tier, of } => {
                grid_sample(*tier, pool, of, io.input(0), io.input(1), io.output(0))
            }
            Call::RoiAlign { tier, of } => {
                roi_align(*tier, pool, of, io.input(0), io.input(1), io.input(2), io.output(0))
            }
            Call::CumSum { numbers, of } => match numbers {
                Numbers::F32 => running::<f32>(io, of),
                Numbers::F64 => running::<f64>(io, of),
                Numbers::I32 => running::<i32>(io, of),
                Numbers::I64 => running::<i64>(io, of),
            },
            &Call::OneHot { width, wide, depth, inner } => by_width!(width, hot(io, wide, depth, inner)),
            Call::Moves { width, fill, outputs, list } => {
                by_width!(*width, moves(io, fill.as_deref(), *outputs, list))
            }
            Call::Permute { width, shape, perm } => by_width!(*width, transpose(io, shape, perm)),
            Call::Nearest { width, image, rows, columns } => {
                by_width!(*width, nearest(io, *image, rows, columns))
            }
            Call::Linear { image, rows, columns } => {
                resize_linear(pool, *image, io.input(0), taps(rows), taps(columns), io.output(0))
            }
            Call::Attention(scores) => scores.run(io),
            &Call::Quantize { to, zero, inner } => by_store!(to, shrink(io, zero, inner)),
            &Call::Dequantize { from, zero, inner } => by_store!(from, grow(io, zero, inner)),
            Call::QuantizeDynamic => {
                let (scale, zero) = quantize_dynamic(pool, io.input(0), io.output::<u8>(0))?;
                io.output::<f32>(1).fill(scale);
                io.output::<u8>(2).fill(zero);
                Ok(())
            }
            Call::Recur(r) => r.run(io),
            Call::Rows { code: index, outer, rows, strides, moving, n } => {
                loops::rows(io, code, *index, &Walk { outer, rows: *rows, strides, moving, n: *n });
                Ok(())
            }
            Call::Chain { tier, chain, outer, rows, strides, moving, n } => {
                crate::chain::run(io, *tier, chain, &Walk { outer, rows: *rows, strides, moving, n: *n })
            }
            Call::Typed { code: index, units, elements } => {
                loops::typed(io, code, *index, *units, *elements);
                Ok(())
            }
        }
    }
}

impl Finish {
    /// The epilogue of one run.
    pub fn epilogue<'a>(&'a self, io: &'a Io, row_stride: usize) -> Epilogue<'a> {
        let residual = self.residual.map(|r| Residual {
            data: io.input(r.input),
            row_stride,
            after_activation: r.after_activation,
        });
        let affine = self.affine.as_ref().map(|(scale, shift)| Affine { scale, shift });
        Epilogue { bias: self.bias.as_deref(), residual, act: self.act, affine, grid: self.grid }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with `len` floats that are kept for the next call of the thread.
pub fn with_scratch(
    len: Option<usize>,
    f: impl FnOnce(&mut [f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let len = len.ok_or(Error::Shape { what: "the scratch memory overflows" })?;
    SCRATCH.with(|s| {
        let mut s = s.borrow_mut();
        if s.len() < len {
            s.resize(len, 0.0);
        }
        f(&mut s[..len])
    })
}

fn products(io: &Io, tier: Tier, shape: GemmShape, steps: [usize; 2], f: &Finish) -> Result<(), Error> {
    let (m, n, k) = (shape.m, shape.n, shape.k);
    let [left, right] = steps;
    with_scratch(gemm_dynamic_scratch(shape, false, io.pool.threads()), |s| {
        let a = Operand { data: io.input(0), strides: Strides::kn(k), batch_stride: left };
        let b = Operand { data: io.input(1), strides: Strides::kn(n), batch_stride: right };
        let (e, y) = (f.epilogue(io, n), io.output(0));
        gemm_dynamic_f32(tier, io.pool, shape, a, b, y, n, m * n, 1.0, &e, s)
    })
}

/// The result that tasks share; each task writes other elements.
struct Shared<T>(*mut T);
// SAFETY: tasks write disjoint ranges.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Calls `f` with pieces of the input and of the output, element by element.
fn each<T: Plain + Sync, U: Plain + Send>(
    io: &Io,
    what: &'static str,
    f: impl Fn(&[T], &mut [U]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let (x, y) = (io.input::<T>(0), io.output::<U>(0));
    if y.len() != x.len() {
        return Err(Error::Length { what, expected: x.len(), found: y.len() });
    }
    let (out, len) = (&Shared(y.as_mut_ptr()), x.len());
    let failure = Mutex::new(None);
    loops::run(io.pool, len.div_ceil(GRAIN).max(1), &|t| {
        let range = t * GRAIN..((t + 1) * GRAIN).min(len);
        // SAFETY: tasks have disjoint ranges of the output, which has as many elements as the input.
        let part = unsafe { std::slice::from_raw_parts_mut(out.0.add(range.start), range.len()) };
        if let Err(e) = f(&x[range], part) {
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    });
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

fn power(io: &Io, base: Option<f32>, exponent: Option<f32>) -> Result<(), Error> {
    let y = io.output::<f32>(0);
    let (known, next) = (base.map(|b| [b]), usize::from(base.is_none()));
    let x: &[f32] = known.as_ref().map(|b| &b[..]).unwrap_or_else(|| io.input(0));
    let by = exponent.map(|e| [e]);
    let e: &[f32] = by.as_ref().map(|e| &e[..]).unwrap_or_else(|| io.input(next));
    let (out, len) = (&Shared(y.as_mut_ptr()), y.len());
    let failure = Mutex::new(None);
    loops::run(io.pool, len.div_ceil(GRAIN).max(1), &|t| {
        let range = t * GRAIN..((t + 1) * GRAIN).min(len);
        let part = |v: &[f32]| if v.len() == 1 { 0..1 } else { range.clone() };
        // SAFETY: tasks have disjoint ranges of the output.
        let to = unsafe { std::slice::from_raw_parts_mut(out.0.add(range.start), range.len()) };
        let done = match (x.get(part(x)), e.get(part(e))) {
            (Some(x), Some(e)) => vecmath::pow(x, e, to),
            _ => {
                Err(Error::Length { what: "operands of powers", expected: len, found: x.len().min(e.len()) })
            }
        };
        if let Err(e) = done {
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    });
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

fn taps(l: &Line) -> Taps<'_> {
    Taps { low: &l.low, high: &l.high, weight: &l.weight }
}

fn pick<T: Element + Plain>(io: &Io, wide: bool, outer: usize, rows: usize, run: usize) -> Result<(), Error> {
    let (table, y) = (io.input::<T>(0), io.output::<T>(0));
    if wide {
        gather::<T, i64>(io.pool, table, outer, rows, run, io.input(1), y)
    } else {
        gather::<T, i32>(io.pool, table, outer, rows, run, io.input(1), y)
    }
}

fn tuples<T: Element + Plain>(io: &Io, batch: usize, dims: &[usize], run: usize) -> Result<(), Error> {
    gather_tuples::<T>(io.input(0), batch, dims, run, io.input(1), io.output(0))
}

fn elements<T: Element + Plain>(io: &Io, wide: bool, along: &Along) -> Result<(), Error> {
    if wide {
        gather_elements::<T, i64>(along, io.input(0), io.input(1), io.output(0))
    } else {
        gather_elements::<T, i32>(along, io.input(0), io.input(1), io.output(0))
    }
}

fn scattered<T: Element + Plain>(io: &Io, wide: bool, along: &Along) -> Result<(), Error> {
    if wide {
        scatter_elements::<T, i64>(along, io.input(0), io.input(1), io.input(2), io.output(0))
    } else {
        scatter_elements::<T, i32>(along, io.input(0), io.input(1), io.input(2), io.output(0))
    }
}

fn placed<T: Element + Plain>(io: &Io, dims: &[usize], run: usize) -> Result<(), Error> {
    scatter_rows::<T>(io.input(0), dims, run, io.input(1), io.input(2), io.output(0))
}

fn cut<T: Element + Plain + Default>(io: &Io, of: Triangle) -> Result<(), Error> {
    triangle::<T>(io.pool, of, io.input(0), io.output(0))
}

fn running<T: Addend + Plain>(io: &Io, of: &CumSum) -> Result<(), Error> {
    cumsum::<T>(io.pool, of, io.input(0), io.output(0))
}

fn hot<T: Element + Plain>(io: &Io, wide: bool, depth: usize, inner: usize) -> Result<(), Error> {
    if wide {
        one_hot::<T, i64>(io.input(0), io.input(1), depth, inner, io.output(0))
    } else {
        one_hot::<T, i32>(io.input(0), io.input(1), depth, inner, io.output(0))
    }
}

fn nearest<T: Element + Plain>(
    io: &Io,
    image: Image,
    rows: &[usize],
    columns: &[usize],
) -> Result<(), Error> {
    resize_nearest::<T>(io.pool, image, io.input(0), rows, columns, io.output(0))
}

fn moves<T: Element + Plain>(
    io: &Io,
    fill: Option<&[u8]>,
    outputs: usize,
    list: &[Move],
) -> Result<(), Error> {
    let mut outputs: Vec<&mut [T]> = (0..outputs).map(|i| io.output::<T>(i)).collect();
    if let (Some(value), Some(out)) = (fill, outputs.first_mut()) {
        let bad = Error::Length { what: "fill value", expected: size_of::<T>(), found: value.len() };
        out.fill(bytemuck::try_pod_read_unaligned(value).map_err(|_| bad)?);
    }
    list.iter().try_for_each(|m| {
        copy_strided::<T>(io.pool, io.input(m.input), m.from, outputs[m.output], m.to, &m.axes)
    })
}

fn transpose<T: Element + Plain>(io: &Io, shape: &[usize], perm: &[usize]) -> Result<(), Error> {
    permute::<T>(io.pool, io.input(0), shape, perm, io.output(0))
}

/// Scales and zero points of a step: operands 1 and, if there, 2.
fn scales<'a, Q: Quantized + Plain>(io: &'a Io, zero: bool, inner: usize) -> Scales<'a, Q> {
    Scales { scale: io.input(1), zero: if zero { io.input(2) } else { &[] }, inner }
}

fn shrink<Q: Quantized + Plain>(io: &Io, zero: bool, inner: usize) -> Result<(), Error> {
    quantize::<Q>(io.pool, io.input(0), scales(io, zero, inner), io.output(0))
}

fn grow<Q: Quantized + Plain>(io: &Io, zero: bool, inner: usize) -> Result<(), Error> {
    dequantize::<Q>(io.pool, io.input(0), scales(io, zero, inner), io.output(0))
}
