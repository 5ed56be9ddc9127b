//! LSTM, GRU and RNN with constant weights: one product for all input projections, then the recurrence.

use super::{Cx, Lowered, Work};
use crate::kernel::{Io, text};
use ir::{DType, Node, ValueId};
use kernels::rnn::{Gate, Kind, PackedRecurrence, Projected, RecurrenceArgs, States, recur};
use kernels::{Epilogue, PackedB, Pool, gemm_f32};
use ops::rnn::{Activation, Cell, RnnGeometry, geometry};

/// One direction with its weights.
struct Pass {
    projection: PackedB,
    recurrence: PackedRecurrence,
    /// Input and recurrent biases added, as far as the equations allow.
    bias: Vec<f32>,
    hidden_bias: Option<Vec<f32>>,
    peephole: Option<Vec<f32>>,
    gates: [Gate; 3],
    reverse: bool,
}

/// Operands by number, where the node has them.
struct Operands {
    lengths: Option<usize>,
    start: [Option<usize>; 2],
    y: Option<usize>,
    end: [Option<usize>; 2],
}

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    let cell = match n.op.name() {
        _ if !n.op.domain().is_empty() => return None,
        "LSTM" => Cell::Lstm,
        "GRU" => Cell::Gru,
        "RNN" => Cell::Rnn,
        _ => return None,
    };
    let (x, w, r) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let g = geometry(&n.attrs, cell, &cx.f32_shape(x)?, &cx.shape(w)?, &cx.shape(r)?).ok()?;
    // Whether a clip limits what the cell's state is squashed from is not agreed on.
    let clipped = cell == Cell::Lstm && g.clip.is_some();
    if clipped || g.input == 0 || g.hidden == 0 || g.sequence == 0 || g.batch == 0 {
        return None;
    }
    let count = g.directions.len();
    let (bias, peephole) = (cx.optional_floats(n.input(3))?, cx.optional_floats(n.input(7))?);
    let rows = cell.gates() * g.hidden;
    let fits = |v: &Option<Vec<f32>>, each: usize| v.as_ref().is_none_or(|v| v.len() == count * each);
    if !fits(&bias, 2 * rows) || !fits(&peephole, 3 * g.hidden) {
        return None;
    }
    let part =
        |v: &Option<Vec<f32>>, i: usize, len: usize| v.as_ref().map(|v| v[i * len..(i + 1) * len].to_vec());
    let passes = (0..count)
        .map(|i| pass(cx, &g, i, (w, r), part(&bias, i, 2 * rows), part(&peephole, i, 3 * g.hidden)))
        .collect::<Option<Vec<_>>>()?;
    let (mut reads, mut writes) = (vec![x], Vec::new());
    let mut operand = |i: usize, dtype: DType, len: usize| -> Option<Option<usize>> {
        let Some(v) = n.input(i) else { return Some(None) };
        if cx.graph.dtype(v) != Some(dtype) || cx.shape(v)?.iter().product::<usize>() != len {
            return None;
        }
        reads.push(v);
        Some(Some(reads.len() - 1))
    };
    let states = count * g.batch * g.hidden;
    let lengths = operand(4, DType::I32, g.batch)?;
    let start = [operand(5, DType::F32, states)?, operand(6, DType::F32, states)?];
    let mut output = |i: usize| {
        n.output(i).map(|v| {
            writes.push(v);
            writes.len() - 1
        })
    };
    let at = Operands { lengths, start, y: output(0), end: [output(1), output(2)] };
    for &v in &writes {
        cx.f32_shape(v)?;
    }
    let flops = 2.0 * (count * g.sequence * g.batch * rows * (g.input + g.hidden)) as f64;
    let kernel = move |io: &Io| run(io, &g, &passes, &at);
    let work = Work::Kernel(Box::new(kernel));
    Some(Lowered { kind: "recurrence", work, reads, writes, flops, call: None })
}

fn pass(
    cx: &Cx,
    g: &RnnGeometry,
    i: usize,
    (w, r): (ValueId, ValueId),
    bias: Option<Vec<f32>>,
    peephole: Option<Vec<f32>>,
) -> Option<Pass> {
    let kind = match g.cell {
        Cell::Lstm => Kind::Lstm,
        Cell::Gru => Kind::Gru { linear_before_reset: g.linear_before_reset },
        Cell::Rnn => Kind::Rnn,
    };
    let rows = g.cell.gates() * g.hidden;
    let projection = cx.pack(w, |w| {
        PackedB::from_nk(cx.tier, w.get(i * rows * g.input..(i + 1) * rows * g.input)?, rows, g.input).ok()
    })?;
    let recurrence = cx.pack(r, |r| {
        PackedRecurrence::pack(kind, r.get(i * rows * g.hidden..(i + 1) * rows * g.hidden)?, g.hidden).ok()
    })?;
    let mut sums = vec![0.0; rows];
    let mut hidden_bias = None;
    if let Some(b) = bias {
        let (input, recurrent) = b.split_at(rows);
        // The reset gate multiplies this one too, so it stays with the recurrent product.
        let apart = if kind == (Kind::Gru { linear_before_reset: true }) { 2 * g.hidden } else { rows };
        for (k, s) in sums.iter_mut().enumerate() {
            *s = input[k] + if k < apart { recurrent[k] } else { 0.0 };
        }
        hidden_bias = (apart < rows).then(|| recurrent[apart..].to_vec());
    }
    let direction = &g.directions[i];
    let mut gates = [Gate::Tanh; 3];
    gates.iter_mut().zip(&direction.activations).for_each(|(g, a)| *g = gate(*a));
    let reverse = direction.reverse;
    Some(Pass { projection, recurrence, bias: sums, hidden_bias, peephole, gates, reverse })
}

fn gate(a: Activation) -> Gate {
    match a {
        Activation::Relu => Gate::Relu,
        Activation::Tanh => Gate::Tanh,
        Activation::Sigmoid => Gate::Sigmoid,
        Activation::Softsign => Gate::Softsign,
        Activation::Softplus => Gate::Softplus,
        Activation::Affine(alpha, beta) => Gate::Affine { alpha, beta },
        Activation::LeakyRelu(alpha) => Gate::LeakyRelu { alpha },
        Activation::ThresholdedRelu(alpha) => Gate::ThresholdedRelu { alpha },
        Activation::ScaledTanh(alpha, beta) => Gate::ScaledTanh { alpha, beta },
        Activation::HardSigmoid(alpha, beta) => Gate::HardSigmoid { alpha, beta },
        Activation::Elu(alpha) => Gate::Elu { alpha },
    }
}

/// Room of a run, kept for the next.
#[derive(Default)]
struct Room {
    projected: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
}

thread_local! {
    static ROOM: std::cell::RefCell<Room> = std::cell::RefCell::default();
}

fn run(io: &Io, g: &RnnGeometry, passes: &[Pass], at: &Operands) -> Result<(), String> {
    let lengths = at.lengths.map(|i| lengths(g, io.input(i))).transpose()?;
    let mut y = at.y.map(|i| io.output::<f32>(i));
    let mut ends = at.end.map(|i| i.map(|i| io.output::<f32>(i)));
    let mut room = ROOM.take();
    for (i, pass) in passes.iter().enumerate() {
        direction(
            io.pool,
            io,
            g,
            (i, passes.len()),
            pass,
            at,
            lengths.as_deref(),
            &mut y,
            &mut ends,
            &mut room,
        )?;
    }
    ROOM.set(room);
    Ok(())
}

/// Lengths of the sequences, each at most the padded length.
fn lengths(g: &RnnGeometry, l: &[i32]) -> Result<Vec<usize>, String> {
    let valid = l.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n <= g.sequence));
    let valid: Option<Vec<usize>> = valid.collect();
    valid.ok_or_else(|| format!("sequence_lens needs {} values within 0..={}", g.batch, g.sequence))
}

fn direction(
    pool: &dyn Pool,
    io: &Io,
    g: &RnnGeometry,
    (i, count): (usize, usize),
    pass: &Pass,
    at: &Operands,
    lengths: Option<&[usize]>,
    y: &mut Option<&mut [f32]>,
    ends: &mut [Option<&mut [f32]>; 2],
    room: &mut Room,
) -> Result<(), String> {
    let (n, hidden, rows) = (g.batch, g.hidden, g.cell.gates() * g.hidden);
    room.projected.resize(g.sequence * n * rows, 0.0);
    let e = Epilogue { bias: Some(&pass.bias), ..Epilogue::default() };
    let (steps, x) = (g.sequence * n, io.input(0));
    gemm_f32(pool, steps, x, g.input, &pass.projection, &mut room.projected, rows, 1.0, &e).map_err(text)?;
    // A sequence's state of this direction in the operand that holds all.
    let place = |b: usize| if g.batch_first { (b * count + i) * hidden } else { (i * n + b) * hidden };
    for (state, from) in [&mut room.h, &mut room.c].into_iter().zip(at.start) {
        state.clear();
        match from {
            Some(from) => {
                let from = io.input::<f32>(from);
                (0..n).for_each(|b| state.extend_from_slice(&from[place(b)..][..hidden]));
            }
            None => state.resize(n * hidden, 0.0),
        }
    }
    let (near, far) = if g.batch_first { (1, g.sequence) } else { (n, 1) };
    let p = Projected {
        data: &room.projected,
        steps: g.sequence,
        batch: n,
        step: near * rows,
        row: far * rows,
        lengths,
        reverse: pass.reverse,
    };
    let args = RecurrenceArgs {
        f: pass.gates[0],
        g: pass.gates[1],
        h: pass.gates[2],
        clip: g.clip.unwrap_or(f32::INFINITY),
        input_forget: g.input_forget,
        peephole: pass.peephole.as_deref(),
        hidden_bias: pass.hidden_bias.as_deref(),
    };
    let states = y.as_deref_mut().map(|y| {
        if g.batch_first {
            States { data: &mut y[i * hidden..], step: count * hidden, row: g.sequence * count * hidden }
        } else {
            States { data: &mut y[i * n * hidden..], step: count * n * hidden, row: hidden }
        }
    });
    recur(pool, &pass.recurrence, &args, &p, &mut room.h, &mut room.c, states).map_err(text)?;
    for (state, to) in [&room.h, &room.c].into_iter().zip(ends) {
        if let Some(to) = to {
            for (b, state) in state.chunks_exact(hidden).enumerate() {
                to[place(b)..][..hidden].copy_from_slice(state);
            }
        }
    }
    Ok(())
}
