//! Recurrences from their descriptions: for each direction one product for all input projections, then step after step.

use crate::call::{Pass, Recurrence};
use crate::io::Io;
use kernels::rnn::{Projected, RecurrenceArgs, States, recur};
use kernels::{Epilogue, Error, gemm_f32};

impl Recurrence {
    pub fn run(&self, io: &Io) -> Result<(), Error> {
        let lengths = self.lengths.map(|i| self.lengths(io.input(i))).transpose()?;
        let [y, last_h, last_c] = self.last;
        let mut y = y.map(|i| io.output::<f32>(i));
        let mut last = [last_h, last_c].map(|i| i.map(|i| io.output::<f32>(i)));
        for (d, pass) in self.passes.iter().enumerate() {
            let ends = self.pass(io, d, pass, lengths.as_deref(), y.as_deref_mut())?;
            for (to, from) in last.iter_mut().zip(&ends) {
                for (b, from) in from.chunks_exact(self.hidden.max(1)).enumerate() {
                    if let Some(to) = to {
                        to[self.state(d, b)..][..self.hidden].copy_from_slice(from);
                    }
                }
            }
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

    /// One direction: the last states and cells.
    fn pass(
        &self,
        io: &Io,
        d: usize,
        p: &Pass,
        lengths: Option<&[usize]>,
        y: Option<&mut [f32]>,
    ) -> Result<[Vec<f32>; 2], Error> {
        let (steps, batch, hidden) = (self.steps, self.batch, self.hidden);
        let gates = p.recurrence.kind().gates() * hidden;
        let mut projected = vec![0f32; steps * batch * gates];
        let e = Epilogue { bias: Some(&p.bias), ..Epilogue::default() };
        let (m, x) = (steps * batch, io.input(0));
        gemm_f32(io.pool, m, x, self.size, &p.projection, &mut projected, gates, 1.0, &e)?;
        let start = |i: Option<usize>| {
            let Some(i) = i else { return vec![0f32; batch * hidden] };
            let all = io.input::<f32>(i);
            (0..batch).flat_map(|b| &all[self.state(d, b)..][..hidden]).copied().collect()
        };
        let [mut h, mut c] = self.first.map(start);
        let wide = self.passes.len() * hidden;
        let (step, row, to) = if self.batch_first {
            (1, steps, (wide, steps * wide, d * hidden))
        } else {
            (batch, 1, (batch * wide, hidden, d * batch * hidden))
        };
        let x = Projected {
            data: &projected,
            steps,
            batch,
            step: step * gates,
            row: row * gates,
            lengths,
            reverse: p.reverse,
        };
        let states = y.map(|y| States { data: y.get_mut(to.2..).unwrap_or_default(), step: to.0, row: to.1 });
        let args = RecurrenceArgs {
            f: p.gates[0],
            g: p.gates[1],
            h: p.gates[2],
            clip: self.clip,
            input_forget: self.input_forget,
            peephole: p.peephole.as_deref(),
            hidden_bias: p.hidden_bias.as_deref(),
        };
        recur(io.pool, &p.recurrence, &args, &x, &mut h, &mut c, states)?;
        Ok([h, c])
    }
}
