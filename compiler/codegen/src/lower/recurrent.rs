//! LSTM with constant weights: one product for all input projections, then the recurrence.

use super::{Cx, Lowered, Work};
use crate::kernel::{Io, text};
use ir::Node;
use kernels::rnn::{Kind, PackedRecurrence, Projected, RecurrenceArgs, States, recur};
use kernels::{Epilogue, PackedB, gemm_f32};

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.op.domain().is_empty() || n.op.name() != "LSTM" {
        return None;
    }
    let plain = n.attrs.str_or("direction", "forward").ok()? == "forward"
        && n.attrs.int_or("layout", 0).ok()? == 0
        && !n.attrs.has("activations")
        && !n.attrs.has("clip")
        && n.attrs.int_or("input_forget", 0).ok()? == 0
        && n.input(4).is_none()
        && n.input(7).is_none();
    if !plain {
        return None;
    }
    let x = n.input(0)?;
    let &[steps, batch, size] = &cx.f32_shape(x)?[..] else { return None };
    let hidden = usize::try_from(n.attrs.int("hidden_size").ok()??).ok()?;
    let (w, r) = (cx.floats(n.input(1)?)?, cx.floats(n.input(2)?)?);
    let gates = 4 * hidden;
    if w.len() != gates * size || r.len() != gates * hidden || size == 0 || hidden == 0 {
        return None;
    }
    let bias = match cx.optional_floats(n.input(3))? {
        Some(b) if b.len() == 2 * gates => (0..gates).map(|i| b[i] + b[gates + i]).collect(),
        Some(_) => return None,
        None => vec![0.0; gates],
    };
    let projection = PackedB::from_nk(cx.tier, &w, gates, size).ok()?;
    let recurrence = PackedRecurrence::pack(Kind::Lstm, &r, hidden).ok()?;
    let mut reads = vec![x];
    let mut state = |i: usize| -> Option<Option<usize>> {
        let Some(v) = n.input(i) else { return Some(None) };
        if cx.f32_shape(v)?.iter().product::<usize>() != batch * hidden {
            return None;
        }
        reads.push(v);
        Some(Some(reads.len() - 1))
    };
    let (h0, c0) = (state(5)?, state(6)?);
    let mut writes = Vec::new();
    let mut output = |i: usize| {
        n.output(i).map(|v| {
            writes.push(v);
            writes.len() - 1
        })
    };
    let (y, yh, yc) = (output(0), output(1), output(2));
    for &v in &writes {
        cx.f32_shape(v)?;
    }
    let flops = 2.0 * (steps * batch * gates * (size + hidden)) as f64;
    let kernel = move |io: &Io| {
        let mut projected = vec![0f32; steps * batch * gates];
        let e = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        gemm_f32(io.pool, steps * batch, io.input(0), size, &projection, &mut projected, gates, 1.0, &e)
            .map_err(text)?;
        let start = |i: Option<usize>| i.map_or(vec![0f32; batch * hidden], |i| io.input::<f32>(i).to_vec());
        let (mut h, mut c) = (start(h0), start(c0));
        let p = Projected {
            data: &projected,
            steps,
            batch,
            step: batch * gates,
            row: gates,
            lengths: None,
            reverse: false,
        };
        let states = y.map(|i| States { data: io.output::<f32>(i), step: batch * hidden, row: hidden });
        recur(io.pool, &recurrence, &RecurrenceArgs::default(), &p, &mut h, &mut c, states).map_err(text)?;
        if let Some(i) = yh {
            io.output::<f32>(i).copy_from_slice(&h);
        }
        if let Some(i) = yc {
            io.output::<f32>(i).copy_from_slice(&c);
        }
        Ok(())
    };
    Some(Lowered {
        kind: "recurrence",
        work: Work::Kernel(Box::new(kernel)),
        reads,
        writes,
        flops,
        call: None,
    })
}
