//! Two products in a row: blocks of rows go through both, so that the middle stays in the cache.

use crate::call::{Matrix, Pair};
use crate::io::Io;
use crate::run::with_scratch;
use kernels::{Epilogue, Error, Pool, Residual, Serial, gemm_f32, gemm_packed};
use std::sync::Mutex;

/// Floats of a block's middle, which the second-level cache holds beside the weights.
const BLOCK: usize = 16384;

impl Matrix {
    fn k(&self) -> usize {
        match self {
            Matrix::Dense(w) => w.k(),
            Matrix::Coded(w, _) => w.k(),
        }
    }

    fn n(&self) -> usize {
        match self {
            Matrix::Dense(w) => w.n(),
            Matrix::Coded(w, _) => w.n(),
        }
    }

    /// `y = act(alpha · x·w + …)` over `m` rows.
    fn product(
        &self,
        pool: &dyn Pool,
        m: usize,
        x: &[f32],
        y: &mut [f32],
        alpha: f32,
        e: &Epilogue,
    ) -> Result<(), Error> {
        match self {
            Matrix::Dense(w) => gemm_f32(pool, m, x, w.k(), w, y, w.n(), alpha, e),
            Matrix::Coded(w, precision) => {
                gemm_packed(pool, *precision, m, (x, w.k()), w, (y, w.n()), alpha, e)
            }
        }
    }
}

impl Pair {
    /// Rows of the first input through both products.
    pub fn run(&self, io: &Io) -> Result<(), Error> {
        let [first, second] = &self.weights;
        let (m, k, middle, n) = (self.m, first.k().max(1), first.n(), second.n().max(1));
        if middle != second.k() {
            return Err(Error::Shape { what: "the two products of a pair" });
        }
        let e = self.finish.epilogue(io, n);
        let rows = (BLOCK / middle.max(1)).clamp(24, 480) / 24 * 24;
        let (x, y) = (io.input::<f32>(0), io.output::<f32>(0));
        if x.len() < m * k || y.len() < m * n {
            return Err(Error::Shape { what: "rows of a pair of products" });
        }
        let (x, y) = (&x[..m * k], &mut y[..m * n]);
        if m <= rows {
            return self.block(io.pool, x, y, &e);
        }
        let blocks: Vec<Mutex<(usize, &mut [f32])>> =
            y.chunks_mut(rows * n).enumerate().map(Mutex::new).collect();
        let failure = Mutex::new(Ok(()));
        io.pool.run(blocks.len(), &|i| {
            let mut block = blocks[i].lock().unwrap_or_else(|e| e.into_inner());
            let (index, y) = &mut *block;
            let start = *index * rows;
            let residual = e.residual.map(|r| Residual { data: &r.data[start * r.row_stride..], ..r });
            let x = &x[start * k..m.min(start + rows) * k];
            if let Err(error) = self.block(&Serial, x, y, &Epilogue { residual, ..e }) {
                *failure.lock().unwrap_or_else(|e| e.into_inner()) = Err(error);
            }
        });
        failure.into_inner().unwrap_or_else(|e| e.into_inner())
    }

    fn block(&self, pool: &dyn Pool, x: &[f32], y: &mut [f32], e: &Epilogue) -> Result<(), Error> {
        let ([a, b], [first, second]) = (&self.weights, self.alpha);
        let rows = x.len() / a.k().max(1);
        with_scratch(rows.checked_mul(a.n()), |middle| {
            a.product(pool, rows, x, middle, first, &Epilogue::default())?;
            b.product(pool, rows, middle, y, second, e)
        })
    }
}
