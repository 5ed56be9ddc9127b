//! Recurrent layers LSTM, GRU and RNN: directions, activations, clipping, peepholes, sequence lengths and both layouts.

use crate::arith::{Number, Real, Strided, by_real};
use crate::typing::tensor_type;
use crate::window::check_product;
use crate::{Op, schema};
use ir::budget;
use ir::{Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Value, ValueType};

const fn row(op: Op) -> Op {
    op.kind(|_| Kind::Contract).accuracy(Accuracy::Accumulated)
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row(Op::new("LSTM", &schema::LSTM, infer, |cx| eval(cx, Cell::Lstm))),
    &row(Op::new("GRU", &schema::GRU, infer, |cx| eval(cx, Cell::Gru))),
    &row(Op::new("RNN", &schema::RNN, infer, |cx| eval(cx, Cell::Rnn))),
];

/// The kind of recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Gates input, output, forget, cell.
    Lstm,
    /// Gates update, reset, hidden.
    Gru,
    Rnn,
}

impl Cell {
    /// Gates, each of `hidden` rows in W and R.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Rnn => 1,
        }
    }
    fn default_activations(self) -> &'static [&'static str] {
        match self {
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Rnn => &["Tanh"],
        }
    }
}

/// An activation with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    Relu,
    Tanh,
    Sigmoid,
    Softsign,
    Softplus,
    /// alpha·x + beta
    Affine(f32, f32),
    LeakyRelu(f32),
    ThresholdedRelu(f32),
    /// alpha·tanh(beta·x)
    ScaledTanh(f32, f32),
    HardSigmoid(f32, f32),
    Elu(f32),
}

impl Activation {
    fn parse(
        name: &str,
        alpha: &mut impl Iterator<Item = f32>,
        beta: &mut impl Iterator<Item = f32>,
    ) -> Result<Activation> {
        use Activation::*;
        let mut a = |default: f32| alpha.next().unwrap_or(default);
        let mut b = |default: f32| beta.next().unwrap_or(default);
        Ok(match name.to_ascii_lowercase().as_str() {
            "relu" => Relu,
            "tanh" => Tanh,
            "sigmoid" => Sigmoid,
            "softsign" => Softsign,
            "softplus" => Softplus,
            "affine" => Affine(a(1.0), b(0.0)),
            "leakyrelu" => LeakyRelu(a(0.01)),
            "thresholdedrelu" => ThresholdedRelu(a(1.0)),
            "scaledtanh" => ScaledTanh(a(1.0), b(1.0)),
            "hardsigmoid" => HardSigmoid(a(0.2), b(0.5)),
            "elu" => Elu(a(1.0)),
            _ => return Err(Error::model(format!("activation '{}' is not known", name.escape_debug()))),
        })
    }

    fn apply<T: Real>(self, x: T) -> T {
        use Activation::*;
        let of = |v: f32| T::of(f64::from(v));
        let (zero, one) = (T::ZERO, T::ONE);
        match self {
            Relu => x.max(zero),
            Tanh => x.tanh(),
            Sigmoid => one / (one + (-x).exp()),
            Softsign => x / (one + x.abs()),
            Softplus => x.max(zero) + (-x.abs()).exp().ln_1p(),
            Affine(a, b) => of(a) * x + of(b),
            LeakyRelu(a) => {
                if x < zero {
                    of(a) * x
                } else {
                    x
                }
            }
            ThresholdedRelu(a) => {
                if x > of(a) {
                    x
                } else {
                    zero
                }
            }
            ScaledTanh(a, b) => of(a) * (of(b) * x).tanh(),
            HardSigmoid(a, b) => (of(a) * x + of(b)).max(zero).min(one),
            Elu(a) => {
                if x < zero {
                    of(a) * x.exp_m1()
                } else {
                    x
                }
            }
        }
    }
}

/// One pass over the sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    pub reverse: bool,
    /// As many as the cell takes: f; f, g; or f, g, h.
    pub activations: Vec<Activation>,
}

/// A recurrent layer with all sizes known and all attributes checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RnnGeometry {
    pub cell: Cell,
    pub sequence: usize,
    pub batch: usize,
    pub input: usize,
    pub hidden: usize,
    pub directions: Vec<Direction>,
    pub clip: Option<f32>,
    /// X is (batch, sequence, input) rather than (sequence, batch, input), and states are batch first.
    pub batch_first: bool,
    /// LSTM: the forget gate is one minus the input gate.
    pub input_forget: bool,
    /// GRU: the reset gate multiplies after the recurrent product.
    pub linear_before_reset: bool,
}

fn directions(attrs: &Attrs, cell: Cell) -> Result<Vec<Direction>> {
    let reverse: &[bool] = match attrs.str_or("direction", "forward")? {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        d => return Err(Error::model(format!("direction '{}' is not known", d.escape_debug()))),
    };
    let defaults = cell.default_activations();
    let names: Vec<&str> = match attrs.strs("activations")?.filter(|n| !n.is_empty()) {
        Some(n) => n.iter().map(String::as_str).collect(),
        None => defaults.repeat(reverse.len()),
    };
    if names.len() != defaults.len() * reverse.len() {
        return Err(Error::model(format!(
            "{} activations, {} are needed",
            names.len(),
            defaults.len() * reverse.len()
        )));
    }
    let mut alpha = attrs.floats("activation_alpha")?.unwrap_or(&[]).iter().copied();
    let mut beta = attrs.floats("activation_beta")?.unwrap_or(&[]).iter().copied();
    let pass = |(&reverse, names): (&bool, &[&str])| {
        let activations =
            names.iter().map(|n| Activation::parse(n, &mut alpha, &mut beta)).collect::<Result<_>>()?;
        Ok(Direction { reverse, activations })
    };
    reverse.iter().zip(names.chunks(defaults.len())).map(pass).collect()
}

/// Geometry of a recurrent node for concrete shapes of X, W and R.
pub fn geometry(attrs: &Attrs, cell: Cell, x: &[usize], w: &[usize], r: &[usize]) -> Result<RnnGeometry> {
    let bad = || Error::model(format!("X {x:?}, W {w:?} and R {r:?} do not fit each other"));
    let (&[a, b, input], &[_, _, hidden]) = (x, r) else { return Err(bad()) };
    let batch_first = attrs.int_or("layout", 0)? != 0;
    let (sequence, batch) = if batch_first { (b, a) } else { (a, b) };
    let directions = directions(attrs, cell)?;
    let rows = hidden.checked_mul(cell.gates()).ok_or_else(bad)?;
    if w != [directions.len(), rows, input] || r != [directions.len(), rows, hidden] {
        return Err(bad());
    }
    if let Some(h) = attrs.int("hidden_size")?.filter(|&h| usize::try_from(h) != Ok(hidden)) {
        return Err(Error::model(format!("hidden_size is {h}, R holds {hidden}")));
    }
    budget::check(sequence.saturating_mul(batch))?;
    check_product([sequence, batch, rows])?;
    check_product([sequence, batch, input])?;
    Ok(RnnGeometry {
        cell,
        sequence,
        batch,
        input,
        hidden,
        directions,
        clip: attrs.float("clip")?.filter(|&c| c > 0.0),
        batch_first,
        input_forget: attrs.int_or("input_forget", 0)? != 0,
        linear_before_reset: attrs.int_or("linear_before_reset", 0)? != 0,
    })
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let directions = if cx.attrs.str_or("direction", "forward")? == "bidirectional" { 2 } else { 1 };
    let hidden = match cx.attrs.int("hidden_size")? {
        Some(h) => usize::try_from(h).ok().map_or(Dim::Unknown, Dim::Known),
        None => cx.shape(2).and_then(<[Dim]>::last).cloned().unwrap_or(Dim::Unknown),
    };
    let (a, b) = match cx.shape(0) {
        Some([a, b, _]) => (a.clone(), b.clone()),
        None => (Dim::Unknown, Dim::Unknown),
        Some(s) => return Err(Error::model(format!("X must have rank 3, not {}", s.len()))),
    };
    let d = Dim::Known(directions);
    let (all, last) = if cx.attrs.int_or("layout", 0)? != 0 {
        (vec![a.clone(), b, d.clone(), hidden.clone()], vec![a, d, hidden])
    } else {
        (vec![a, d.clone(), b.clone(), hidden.clone()], vec![d, b, hidden])
    };
    let last = tensor_type(dtype, Some(last));
    Ok(vec![tensor_type(dtype, Some(all)), last.clone(), last])
}

fn eval(cx: &EvalCx, cell: Cell) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let g = geometry(cx.attrs, cell, x.shape(), cx.tensor(1)?.shape(), cx.tensor(2)?.shape())?;
    by_real!(x.dtype(), typed(cx, &g))
}

/// An optional input of a known shape, or nothing.
fn part<T: Number>(cx: &EvalCx, i: usize, shape: &[usize], what: &str) -> Result<Option<Vec<T>>> {
    let Some(t) = cx.optional(i)? else { return Ok(None) };
    if t.shape() != shape {
        return Err(Error::model(format!("{what} has shape {:?}, {shape:?} is needed", t.shape())));
    }
    Ok(Some(T::read(t)?.into_owned()))
}

/// Swaps the two leading dims of rows of `n` elements.
fn swapped<T: Copy>(x: &[T], a: usize, b: usize, n: usize) -> Vec<T> {
    let rows = (0..b).flat_map(|j| (0..a).map(move |i| (i * b + j) * n));
    rows.flat_map(|at| &x[at..at + n]).copied().collect()
}

/// Lengths of the sequences, each at most the padded length.
fn lengths(cx: &EvalCx, g: &RnnGeometry) -> Result<Vec<usize>> {
    let Some(l) = cx.optional_ints(4)? else { return budget::filled(g.batch, g.sequence) };
    let valid: Option<Vec<usize>> =
        l.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n <= g.sequence)).collect();
    valid.filter(|l| l.len() == g.batch).ok_or_else(|| {
        Error::data(format!("sequence_lens needs {} values within 0..={}", g.batch, g.sequence))
    })
}

fn typed<T: Real>(cx: &EvalCx, g: &RnnGeometry) -> Result<Vec<Value>> {
    let (w, r) = (T::read(cx.tensor(1)?)?, T::read(cx.tensor(2)?)?);
    let rows = g.cell.gates() * g.hidden;
    layer(cx, g, |pass, x, lengths, h, c, emit| {
        let (w, r) = (&w[pass.index * rows * g.input..], &r[pass.index * rows * g.hidden..]);
        pass.run(x, &w[..rows * g.input], &r[..rows * g.hidden], lengths, h, c, emit)
    })
}

/// Takes each new hidden row: time, sample, row.
pub(crate) type Emit<'a, T> = &'a mut dyn FnMut(usize, usize, &[T]);

/// All directions of a layer; `steps` runs one of them from x (sequence, batch, input), lengths and the states (batch,
/// hidden), which it updates.
pub(crate) fn layer<T: Real>(
    cx: &EvalCx,
    g: &RnnGeometry,
    mut steps: impl FnMut(&Pass<T>, &[T], &[usize], &mut [T], &mut [T], Emit<T>) -> Result<()>,
) -> Result<Vec<Value>> {
    let (n, h, d) = (g.batch, g.hidden, g.directions.len());
    let x = T::read(cx.tensor(0)?)?;
    let x = if g.batch_first { swapped(&x, n, g.sequence, g.input) } else { x.into_owned() };
    let rows = g.cell.gates() * h;
    let bias = part::<T>(cx, 3, &[d, 2 * rows], "B")?;
    let lengths = lengths(cx, g)?;
    let state_shape = if g.batch_first { [n, d, h] } else { [d, n, h] };
    let state = |i: usize, what: &str| -> Result<Vec<T>> {
        Ok(match part::<T>(cx, i, &state_shape, what)? {
            Some(s) if g.batch_first => swapped(&s, n, d, h),
            Some(s) => s,
            None => budget::filled(budget::elements(&state_shape)?, T::ZERO)?,
        })
    };
    let mut hidden = state(5, "initial_h")?;
    let lstm = g.cell == Cell::Lstm;
    let mut memory = if lstm { state(6, "initial_c")? } else { vec![] };
    let peepholes = if lstm { part::<T>(cx, 7, &[d, 3 * h], "P")? } else { None };
    let mut y = budget::filled(budget::elements(&[g.sequence, d, n, h])?, T::ZERO)?;
    for (i, direction) in g.directions.iter().enumerate() {
        let slice = |v: &Option<Vec<T>>, len: usize| v.as_ref().map(|v| v[i * len..(i + 1) * len].to_vec());
        let pass = Pass {
            g,
            direction,
            index: i,
            bias: slice(&bias, 2 * rows),
            peepholes: slice(&peepholes, 3 * h),
        };
        let (state, rest) = (&mut hidden[i * n * h..][..n * h], i * n * h);
        let cells = if lstm { &mut memory[rest..][..n * h] } else { &mut [][..] };
        steps(&pass, &x, &lengths, state, cells, &mut |t, b, row| {
            y[((t * d + i) * n + b) * h..][..h].copy_from_slice(row);
        })?;
    }
    let dtype = cx.tensor(0)?.dtype();
    let state = |s: Vec<T>| -> Result<Value> {
        let s = if g.batch_first { swapped(&s, d, n, h) } else { s };
        Ok(T::write(dtype, &state_shape, s)?.into())
    };
    let y = if g.batch_first {
        let by_time = swapped(&y, g.sequence * d, n, h);
        T::write(dtype, &[n, g.sequence, d, h], by_time)?
    } else {
        T::write(dtype, &[g.sequence, d, n, h], y)?
    };
    let mut out = vec![y.into(), state(hidden)?];
    if lstm {
        out.push(state(memory)?);
    }
    Ok(out)
}

/// What one direction adds to the products of its weights.
pub(crate) struct Pass<'a, T> {
    g: &'a RnnGeometry,
    direction: &'a Direction,
    /// Of the direction.
    pub index: usize,
    /// Input biases, then recurrent ones, gates·hidden each.
    bias: Option<Vec<T>>,
    /// LSTM: input, output, forget.
    peepholes: Option<Vec<T>>,
}

impl<T: Real> Pass<'_, T> {
    /// Runs all steps with w (gates·hidden, input) and r (gates·hidden, hidden); `h` and `c` (batch, hidden) are the states.
    #[allow(clippy::too_many_arguments)] // one more than what `layer` gives
    fn run(
        &self,
        x: &[T],
        w: &[T],
        r: &[T],
        lengths: &[usize],
        h: &mut [T],
        c: &mut [T],
        emit: Emit<T>,
    ) -> Result<()> {
        let (g, n) = (self.g, self.g.batch);
        let rows = g.cell.gates() * g.hidden;
        let mut inputs = budget::filled(budget::elements(&[g.sequence, n, rows])?, T::ZERO)?;
        let steps = g.sequence * n;
        T::gemm([steps, g.input, rows], Strided(x, g.input, 1), Strided(w, 1, g.input), &mut inputs, rows)?;
        let mut recurrent = budget::filled(budget::elements(&[n, rows])?, T::ZERO)?;
        for step in 0..g.sequence {
            recurrent.fill(T::ZERO);
            let by_row = Strided(r, 1, g.hidden);
            T::gemm([n, g.hidden, rows], Strided(h, g.hidden, 1), by_row, &mut recurrent, rows)?;
            self.advance(step, &inputs, &recurrent, r, lengths, h, c, emit)?;
        }
        Ok(())
    }

    /// One step, given the products of all inputs (sequence, batch, gates·hidden) and those of the hidden state.
    #[allow(clippy::too_many_arguments)] // states, products and where they go
    pub fn advance(
        &self,
        step: usize,
        inputs: &[T],
        recurrent: &[T],
        r: &[T],
        lengths: &[usize],
        h: &mut [T],
        c: &mut [T],
        emit: Emit<T>,
    ) -> Result<()> {
        let (g, n) = (self.g, self.g.batch);
        let rows = g.cell.gates() * g.hidden;
        for (b, &len) in lengths.iter().enumerate().filter(|&(_, &len)| step < len) {
            let t = if self.direction.reverse { len - 1 - step } else { step };
            let input = &inputs[(t * n + b) * rows..][..rows];
            let rec = &recurrent[b * rows..][..rows];
            let hidden = &mut h[b * g.hidden..][..g.hidden];
            match g.cell {
                Cell::Lstm => self.lstm(input, rec, hidden, &mut c[b * g.hidden..][..g.hidden]),
                Cell::Gru => self.gru(input, rec, r, hidden)?,
                Cell::Rnn => {
                    let next = (0..g.hidden).map(|j| self.act(0, input[j] + rec[j] + self.bias(j)));
                    next.collect::<Vec<T>>().iter().zip(hidden.iter_mut()).for_each(|(&v, h)| *h = v);
                }
            }
            emit(t, b, hidden);
        }
        Ok(())
    }

    /// Sum of the input and the recurrent bias of gate row `j`.
    fn bias(&self, j: usize) -> T {
        self.input_bias(j) + self.recurrent_bias(j)
    }
    fn input_bias(&self, j: usize) -> T {
        self.bias.as_ref().map_or(T::ZERO, |b| b[j])
    }
    fn recurrent_bias(&self, j: usize) -> T {
        self.bias.as_ref().map_or(T::ZERO, |b| b[b.len() / 2 + j])
    }

    /// Activation `i` of the clipped argument.
    fn act(&self, i: usize, x: T) -> T {
        let x = match self.g.clip {
            Some(c) => x.max(T::of(f64::from(-c))).min(T::of(f64::from(c))),
            None => x,
        };
        self.direction.activations[i].apply(x)
    }

    fn lstm(&self, input: &[T], rec: &[T], h: &mut [T], c: &mut [T]) {
        let n = self.g.hidden;
        let gate = |k: usize, j: usize| input[k * n + j] + rec[k * n + j] + self.bias(k * n + j);
        let peep = |k: usize, j: usize, c: T| self.peepholes.as_ref().map_or(T::ZERO, |p| p[k * n + j] * c);
        for j in 0..n {
            let i = self.act(0, gate(0, j) + peep(0, j, c[j]));
            let f = match self.g.input_forget {
                true => T::ONE - i,
                false => self.act(0, gate(2, j) + peep(2, j, c[j])),
            };
            c[j] = f * c[j] + i * self.act(1, gate(3, j));
            let o = self.act(0, gate(1, j) + peep(1, j, c[j]));
            h[j] = o * self.direction.activations[2].apply(c[j]);
        }
    }

    fn gru(&self, input: &[T], rec: &[T], r: &[T], h: &mut [T]) -> Result<()> {
        let n = self.g.hidden;
        let gate = |k: usize, j: usize| input[k * n + j] + rec[k * n + j] + self.bias(k * n + j);
        let reset: Vec<T> = (0..n).map(|j| self.act(0, gate(1, j))).collect();
        let mut candidate: Vec<T> = vec![T::ZERO; n];
        if self.g.linear_before_reset {
            for j in 0..n {
                candidate[j] = reset[j] * (rec[2 * n + j] + self.recurrent_bias(2 * n + j));
            }
        } else {
            let kept: Vec<T> = reset.iter().zip(h.iter()).map(|(&r, &h)| r * h).collect();
            T::gemm([1, n, n], Strided(&kept, n, 1), Strided(&r[2 * n * n..], 1, n), &mut candidate, n)?;
            candidate.iter_mut().enumerate().for_each(|(j, c)| *c += self.recurrent_bias(2 * n + j));
        }
        for j in 0..n {
            let update = self.act(0, gate(0, j));
            let new = self.act(1, input[2 * n + j] + candidate[j] + self.input_bias(2 * n + j));
            h[j] = (T::ONE - update) * new + update * h[j];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Tensor;

    fn run(cell: Cell, attrs: Attrs, inputs: &[Option<Tensor>]) -> Result<Vec<Value>> {
        let inputs: Vec<Option<Value>> = inputs.iter().map(|t| t.clone().map(Value::Tensor)).collect();
        let none = |_: &ir::Graph, _: Vec<Value>| Err(Error::internal("no subgraph"));
        let cx =
            EvalCx { node: "", attrs: &attrs, inputs: &inputs, captures: &[], outputs: 3, subgraph: &none };
        eval(&cx, cell)
    }

    fn t(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }

    #[test]
    fn reverse_starts_at_each_sequences_own_end() {
        let attrs = Attrs::new().with("direction", "reverse").with("activations", vec!["Affine".to_string()]);
        let lens = Some(Tensor::vector(vec![1i32, 2]));
        let inputs =
            [t(&[2, 2, 1], &[1., 2., 3., 4.]), t(&[1, 1, 1], &[1.]), t(&[1, 1, 1], &[10.]), None, lens];
        let out = run(Cell::Rnn, attrs, &inputs).unwrap();
        assert_eq!(out[0].tensor().unwrap().to_f32s().unwrap(), [1., 42., 0., 4.]);
        assert_eq!(out[1].tensor().unwrap().to_f32s().unwrap(), [1., 42.]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = t(&[2, 1, 1], &[1., 2.]);
        let w = |n: usize| t(&[1, n, 1], &vec![0.5; n]);
        assert!(run(Cell::Lstm, Attrs::new(), &[x.clone(), w(4), w(4)]).is_ok());
        assert!(run(Cell::Lstm, Attrs::new(), &[x.clone(), w(3), w(4)]).is_err());
        assert!(run(Cell::Gru, Attrs::new(), &[x.clone(), w(4), w(4)]).is_err());
        let long = Some(Tensor::vector(vec![3i32]));
        assert!(run(Cell::Gru, Attrs::new(), &[x.clone(), w(3), w(3), None, long]).is_err());
        let attrs = Attrs::new().with("activations", vec!["Tanh".to_string()]);
        assert!(run(Cell::Gru, attrs, &[x, w(3), w(3)]).is_err());
    }
}
