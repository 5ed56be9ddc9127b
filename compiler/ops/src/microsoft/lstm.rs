//! DynamicQuantizeLSTM: an LSTM whose products are of bytes. The inputs are quantized once, the hidden state before each
//! step, each over all its samples (as DynamicQuantizeLinear does); weights are (directions, rows, 4·hidden).

use crate::quantize::{dynamic_code, dynamic_parameters};
use crate::rnn::{self, Cell, Emit, Pass, RnnGeometry};
use crate::typing::tensor_type;
use ir::{DType, Dim, Error, EvalCx, InferCx, Result, Value, ValueType, budget};

pub fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let directions = if cx.attrs.str_or("direction", "forward")? == "bidirectional" { 2 } else { 1 };
    let hidden = match (cx.attrs.int("hidden_size")?, cx.shape(2)) {
        (Some(h), _) => usize::try_from(h).ok().map_or(Dim::Unknown, Dim::Known),
        (None, Some([_, rows, _])) => rows.clone(),
        _ => Dim::Unknown,
    };
    let (time, batch) = match cx.shape(0) {
        Some([a, b, _]) => (a.clone(), b.clone()),
        None => (Dim::Unknown, Dim::Unknown),
        Some(s) => return Err(Error::model(format!("X must have rank 3, not {}", s.len()))),
    };
    let (d, dtype) = (Dim::Known(directions), Some(DType::F32));
    let last = tensor_type(dtype, Some(vec![d.clone(), batch.clone(), hidden.clone()]));
    Ok(vec![tensor_type(dtype, Some(vec![time, d, batch, hidden])), last.clone(), last])
}

/// The codes of one direction's matrix, with its scales and zero points: (rows, columns).
struct Bytes {
    rows: usize,
    columns: usize,
    /// Less the zero points.
    codes: Vec<i32>,
    /// One, or one for each column.
    scales: Vec<f32>,
}

impl Bytes {
    fn read(cx: &EvalCx, i: usize, params: usize, direction: usize, shape: [usize; 2]) -> Result<Bytes> {
        let (w, scale, zero) = (cx.tensor(i)?, cx.tensor(params)?, cx.tensor(params + 1)?);
        let (all, [rows, columns]) = (w.shape(), shape);
        if !matches!(w.dtype(), DType::U8 | DType::I8) || all.get(1..) != Some(&shape[..]) {
            return Err(Error::model(format!(
                "weights {} {all:?} must be bytes (…, {rows}, {columns})",
                w.dtype()
            )));
        }
        let directions = all[0];
        if direction >= directions {
            return Err(Error::model(format!("weights for {directions} directions, more are needed")));
        }
        let per = scale.len() / directions.max(1);
        if per * directions != scale.len() || (per != 1 && per != columns) || zero.len() != scale.len() {
            return Err(Error::model(format!(
                "{} scales and {} zero points for {directions} matrices",
                scale.len(),
                zero.len()
            )));
        }
        let (scale, zero) = (scale.to_f32s()?, zero.to_i64s()?);
        let part = |n: usize| direction * n..(direction + 1) * n;
        let zero = &zero[part(per)];
        let value = |(j, &b): (usize, &u8)| {
            let v = if w.dtype() == DType::I8 { i32::from(b.cast_signed()) } else { i32::from(b) };
            v - zero[if per == 1 { 0 } else { j % columns }] as i32
        };
        let bytes = w.bytes().get(part(rows * columns)).ok_or_else(|| Error::internal("bytes"))?;
        let codes = bytes.iter().enumerate().map(value).collect();
        Ok(Bytes { rows, columns, codes, scales: scale[part(per)].to_vec() })
    }

    /// `x` (n, rows) quantized as a whole, times the matrix, into `y` (n, columns).
    fn product(&self, x: &[f32], y: &mut [f32], sums: &mut [i32]) {
        let (scale, zero) = dynamic_parameters(x);
        for (row, out) in x.chunks(self.rows.max(1)).zip(y.chunks_mut(self.columns.max(1))) {
            sums.fill(0);
            for (&v, line) in row.iter().zip(self.codes.chunks(self.columns.max(1))) {
                let q = i32::from(dynamic_code(v, scale, zero)) - zero as i32;
                if q != 0 {
                    sums.iter_mut().zip(line).for_each(|(s, w)| *s += q * w);
                }
            }
            for (j, (o, &s)) in out.iter_mut().zip(sums.iter()).enumerate() {
                *o = s as f32 * (scale * self.scales[if self.scales.len() == 1 { 0 } else { j }]);
            }
        }
    }
}

pub fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (w, r) = (cx.tensor(1)?.shape(), cx.tensor(2)?.shape());
    let (&[d, input, rows], &[_, hidden, _]) = (w, r) else {
        return Err(Error::model(format!("W {w:?} and R {r:?} must have rank 3")));
    };
    let g = rnn::geometry(cx.attrs, Cell::Lstm, x.shape(), &[d, rows, input], &[d, rows, hidden])?;
    let side = |i: usize, n: usize, p: usize| -> Result<Vec<Bytes>> {
        (0..d).map(|k| Bytes::read(cx, i, p, k, [n, rows])).collect()
    };
    let (w, r) = (side(1, input, 8)?, side(2, hidden, 10)?);
    rnn::layer(cx, &g, |pass, x, lengths, h, c, emit| {
        steps(&g, pass, [&w[pass.index], &r[pass.index]], x, lengths, [h, c], emit)
    })
}

/// All steps of one direction.
fn steps(
    g: &RnnGeometry,
    pass: &Pass<f32>,
    [w, r]: [&Bytes; 2],
    x: &[f32],
    lengths: &[usize],
    [h, c]: [&mut [f32]; 2],
    emit: Emit<f32>,
) -> Result<()> {
    let (n, rows) = (g.batch, 4 * g.hidden);
    let mut sums = budget::filled(rows, 0i32)?;
    let mut inputs = budget::filled(budget::elements(&[g.sequence, n, rows])?, 0.0)?;
    w.product(x, &mut inputs, &mut sums);
    let mut recurrent = budget::filled(budget::elements(&[n, rows])?, 0.0)?;
    for step in 0..g.sequence {
        r.product(h, &mut recurrent, &mut sums);
        pass.advance(step, &inputs, &recurrent, &[], lengths, h, c, emit)?;
    }
    Ok(())
}
