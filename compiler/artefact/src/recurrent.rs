//! Recurrences from their descriptions: for each direction one product for all input projections, then step after step.

use crate::call::{Pass, Recurrence, Weights};
use crate::io::Io;
use kernels::convert::quantize_dynamic;
use kernels::rnn::{Projected, RecurrenceArgs, States, recur, recur_bytes};
use kernels::{Activations, Epilogue, Error, Pool, Results, Serial, gemm_f32, gemm_i8};
use std::sync::Mutex;

/// Bytes of input projections that are computed at once.
const PROJECTED: usize = 1 << 20;

/// What one direction gives: all its states where they are asked for, the last state and the last cell.
type Ends = (Vec<f32>, [Vec<f32>; 2]);

impl Recurrence {
    pub fn run(&self, io: &Io) -> Result<(), Error> {
        let lengths = self.lengths.map(|i| self.lengths(io.input(i))).transpose()?;
        let [y, last_h, last_c] = self.last;
        let mut y = y.map(|i| io.output::<f32>(i));
        let mut last = [last_h, last_c].map(|i| i.map(|i| io.output::<f32>(i)));
        let mut keep = |d: usize, ends: &[Vec<f32>; 2]| {
            for (to, from) in last.iter_mut().zip(ends) {
                for (b, from) in from.chunks_exact(self.hidden.max(1)).enumerate() {
                    if let Some(to) = to {
                        to[self.state(d, b)..][..self.hidden].copy_from_slice(from);
                    }
                }
            }
        };
        if self.passes.iter().all(|p| matches!(p.weights, Weights::Bytes { .. })) {
            for (d, found) in self.bytes(io, lengths.as_deref())?.into_iter().enumerate() {
                let (states, ends) = found?;
                keep(d, &ends);
                let Some(y) = &mut y else { continue };
                let (at, step, row) = self.place(d);
                for (i, from) in states.chunks_exact(self.hidden.max(1)).enumerate() {
                    let to = at + i / self.batch * step + i % self.batch * row;
                    y[to..to + self.hidden].copy_from_slice(from);
                }
            }
            return Ok(());
        }
        for (d, pass) in self.passes.iter().enumerate() {
            keep(d, &self.pass(io, d, pass, lengths.as_deref(), y.as_deref_mut())?);
        }
        Ok(())
    }

    /// Lengths of the sequences, each at most the padded length.
    fn lengths(&self, l: &[i32]) -> Result<Vec<usize>, Error> {
        let valid = l.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n <= self.steps));
        let what = "sequence_lens has a length that is negative or beyond the padded one";
        valid.collect::<Option<_>>().ok_or(Error::Shape { what })
    }

    /// Where the state of sequence `b` in direction `d` starts.
    fn state(&self, d: usize, b: usize) -> usize {
        let row = if self.batch_first { b * self.passes.len() + d } else { d * self.batch + b };
        row * self.hidden
    }

    /// Where the states of direction `d` start, and how far apart steps and sequences are.
    fn place(&self, d: usize) -> (usize, usize, usize) {
        let (batch, hidden, wide) = (self.batch, self.hidden, self.passes.len() * self.hidden);
        match self.batch_first {
            true => (d * hidden, wide, self.steps * wide),
            false => (d * batch * hidden, batch * wide, hidden),
        }
    }

    /// First states, or first cells, of direction `d`.
    fn start(&self, io: &Io, d: usize, first: Option<usize>) -> Vec<f32> {
        let Some(i) = first else { return vec![0f32; self.batch * self.hidden] };
        let all = io.input::<f32>(i);
        (0..self.batch).flat_map(|b| &all[self.state(d, b)..][..self.hidden]).copied().collect()
    }

    /// Projections with rows of `gates` elements.
    fn projected<'a>(
        &self,
        p: &Pass,
        data: &'a [f32],
        gates: usize,
        lengths: Option<&'a [usize]>,
    ) -> Projected<'a> {
        let (steps, batch) = (self.steps, self.batch);
        let (step, row) = if self.batch_first { (gates, steps * gates) } else { (batch * gates, gates) };
        Projected { data, steps, batch, step, row, lengths, reverse: p.reverse, by_blocks: false }
    }

    fn args<'a>(&self, p: &'a Pass) -> RecurrenceArgs<'a> {
        RecurrenceArgs {
            f: p.gates[0],
            g: p.gates[1],
            h: p.gates[2],
            clip: self.clip,
            input_forget: self.input_forget,
            peephole: p.peephole.as_deref(),
            hidden_bias: p.hidden_bias.as_deref(),
        }
    }

    /// One direction: the last states and cells.
    fn pass(
        &self,
        io: &Io,
        d: usize,
        p: &Pass,
        lengths: Option<&[usize]>,
        y: Option<&mut [f32]>,
    ) -> Result<[Vec<f32>; 2], Error> {
        let Weights::Floats { projection, recurrence } = &p.weights else {
            return Err(Error::Shape { what: "directions of a recurrence have weights of different kinds" });
        };
        let gates = recurrence.kind().gates() * self.hidden;
        let e = Epilogue { bias: Some(&p.bias), ..Epilogue::default() };
        let [mut h, mut c] = self.first.map(|i| self.start(io, d, i));
        let (at, step, row) = self.place(d);
        let mut y = y.map(|y| y.get_mut(at..).unwrap_or_default());
        // Some steps after the other, so that projections are in the cache when they are read; where sequences lie one
        // after the other, or end one by one, all together.
        let whole = self.batch_first || lengths.is_some();
        let most = PROJECTED / size_of::<f32>() / (self.batch * gates).max(1);
        let most = if whole { self.steps } else { most.clamp(1, self.steps.max(1)) };
        let mut projected = vec![0f32; most * self.batch * gates];
        let mut done = 0;
        while done < self.steps || done == 0 {
            let steps = most.min(self.steps - done);
            let from = if p.reverse { self.steps - done - steps } else { done };
            let m = steps * self.batch;
            let inputs = io.input::<f32>(0).get(from * self.batch * self.size..).unwrap_or_default();
            let inputs = inputs.get(..m * self.size).unwrap_or_default();
            let data = &mut projected[..m * gates];
            gemm_f32(io.pool, m, inputs, self.size, projection, data, gates, 1.0, &e)?;
            let by_blocks = recurrence.kind().projects_by_blocks(self.hidden);
            let x = Projected { steps, by_blocks, ..self.projected(p, data, gates, lengths) };
            let y = y.as_deref_mut().map(|y| y.get_mut(from * step..).unwrap_or_default());
            let states = y.map(|data| States { data, step, row });
            recur(io.pool, recurrence, &self.args(p), &x, &mut h, &mut c, states)?;
            done += steps.max(1);
        }
        Ok([h, c])
    }

    /// All directions with weights of bytes, side by side where there are threads; the inputs are quantized once.
    fn bytes(&self, io: &Io, lengths: Option<&[usize]>) -> Result<Vec<Result<Ends, Error>>, Error> {
        let m = self.steps * self.batch;
        let x: &[f32] = io.input(0);
        let mut codes = vec![0u8; x.len()];
        let (scale, zero) = quantize_dynamic(io.pool, x, &mut codes)?;
        let a = Activations { data: &codes, signed: false, zero: i32::from(zero), zeros: &[], scale };
        let starts: Vec<[Vec<f32>; 2]> =
            (0..self.passes.len()).map(|d| self.first.map(|i| self.start(io, d, i))).collect();
        let one = |d: usize, p: &Pass, pool: &dyn Pool| -> Result<Ends, Error> {
            let Weights::Bytes { projection, recurrence } = &p.weights else {
                return Err(Error::Shape {
                    what: "directions of a recurrence have weights of different kinds",
                });
            };
            let gates = projection.n();
            let mut projected = vec![0f32; m * gates];
            let e = Epilogue { bias: Some(&p.bias), ..Epilogue::default() };
            gemm_i8(pool, m, &a, projection, &mut Results::F32(&mut projected), &e)?;
            let [mut h, mut c] = starts[d].clone();
            let mut y = vec![0f32; if self.last[0].is_some() { m * self.hidden } else { 0 }];
            let (step, row) = (self.batch * self.hidden, self.hidden);
            let states = self.last[0].map(|_| States { data: &mut y, step, row });
            let x = self.projected(p, &projected, gates, lengths);
            recur_bytes(pool, recurrence, &self.args(p), &x, &mut h, &mut c, states)?;
            Ok((y, [h, c]))
        };
        let all = self.passes.iter().enumerate();
        if self.passes.len() == 1 || io.pool.threads() <= 1 {
            return Ok(all.map(|(d, p)| one(d, p, io.pool)).collect());
        }
        let failed = || Error::Shape { what: "a direction of a recurrence did not run" };
        let found: Vec<_> = all.map(|_| Mutex::new(Err(failed()))).collect();
        io.pool.run(self.passes.len(), &|d| {
            if let (Some(p), Ok(mut found)) = (self.passes.get(d), found[d].lock()) {
                *found = one(d, p, &Serial);
            }
        });
        Ok(found.into_iter().map(|f| f.into_inner().unwrap_or_else(|_| Err(failed()))).collect())
    }
}
