//! kernel: products with float32 weights most of which are zero: only the others are stored and multiplied.
//!
//! A column of weights is a list of values and of the inputs they meet. Few rows are dot products along these lists; many
//! are transposed in blocks, so that one value multiplies a vector of rows. After Elsen et al., Fast Sparse ConvNets (2020).

use crate::dispatch::Tier;
use crate::epilogue::{Epilogue, Finish, holds};
use crate::error::{Error, product};
use crate::pack::Strides;
use crate::parallel::Pool;
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::stored::{Reader, Stored, Writer};
use crate::tile::{Place, load};
use crate::transpose::turn;

/// Rows that are transposed together.
const BLOCK: usize = 4 * LANES;
/// Columns whose sums are transposed back together.
const PANEL: usize = 64;
/// Rows from which on they are transposed.
const FEW: usize = 8;
/// Multiplications below which a task is not worth handing over.
const GRAIN: usize = 32 << 10;

/// Weights of a `k × n` product that are not zero.
pub struct SparseF32 {
    tier: Tier,
    k: usize,
    n: usize,
    /// Where each column's values start, and where the last ends.
    starts: Vec<usize>,
    /// The input each value meets, ascending in a column.
    inputs: Vec<u32>,
    values: Vec<f32>,
}

impl SparseF32 {
    /// Keeps what is not zero of a matrix of `k × n` elements at `strides`.
    pub fn from_strided(
        tier: Tier,
        w: &[f32],
        strides: Strides,
        k: usize,
        n: usize,
    ) -> Result<SparseF32, Error> {
        strides.check("weights", w.len(), k, n)?;
        if u32::try_from(k).is_err() {
            return Err(Error::Shape { what: "a sparse weight has more inputs than 32 bits number" });
        }
        let mut sparse =
            SparseF32 { tier: tier.usable(), k, n, starts: vec![0], inputs: Vec::new(), values: Vec::new() };
        for col in 0..n {
            for row in 0..k {
                let x = w[row * strides.row + col * strides.col];
                if x != 0.0 {
                    sparse.inputs.push(row as u32);
                    sparse.values.push(x);
                }
            }
            sparse.starts.push(sparse.values.len());
        }
        sparse.inputs.shrink_to_fit();
        sparse.values.shrink_to_fit();
        Ok(sparse)
    }

    /// Whether `m` rows are multiplied faster without the zeros, which are the share `zeros` of all `weights`. Measured with
    /// `cargo run --release -p compress-kernels --example sparse K N` for 768 × 768 and 4096 × 4096 on one thread: the least
    /// share at which every size measured was faster. Products of bytes are faster still up to about 90 % with rows in
    /// plenty, 95 % with few; where they are possible, the search times both.
    pub fn pays(m: usize, weights: usize, zeros: f64) -> bool {
        let least = match m {
            // One row from memory is a matter of bytes, others of multiplications.
            0..2 if weights >= LARGE => 0.7,
            0..2 => 0.9,
            // Each row reads the inputs it needs one by one.
            2..FEW if weights >= LARGE => 0.95,
            2..FEW => 0.98,
            FEW..16 => 0.83,
            _ => 0.7,
        };
        zeros >= least
    }

    /// The share of zeros below which sparse weights never pay.
    pub const LEAST: f64 = 0.7;

    pub fn k(&self) -> usize {
        self.k
    }

    pub fn n(&self) -> usize {
        self.n
    }

    /// Weights that are not zero.
    pub fn kept(&self) -> usize {
        self.values.len()
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        8 * (self.starts.len() + self.values.len())
    }

    fn column(&self, col: usize) -> (&[u32], &[f32]) {
        let range = self.starts[col]..self.starts[col + 1];
        (&self.inputs[range.clone()], &self.values[range])
    }
}

/// Weights that fill more than the caches.
const LARGE: usize = 4 << 20;

impl Stored for SparseF32 {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.tier.put(out);
        self.k.put(out);
        self.starts.put(out);
        self.inputs.put(out);
        self.values.put(out);
    }
    fn take(from: &mut Reader) -> Option<SparseF32> {
        let (tier, k, starts) = <(Tier, usize, Vec<usize>)>::take(from)?;
        let (inputs, values) = <(Vec<u32>, Vec<f32>)>::take(from)?;
        let n = starts.len().checked_sub(1)?;
        let ordered = starts[0] == 0 && starts[n] == values.len() && starts.is_sorted();
        let below = inputs.len() == values.len() && inputs.iter().all(|&i| (i as usize) < k);
        (ordered && below).then_some(SparseF32 { tier, k, n, starts, inputs, values })
    }
}

struct Job<'a> {
    w: &'a SparseF32,
    a: *const f32,
    a_step: usize,
    c: *mut f32,
    c_step: usize,
    finish: &'a Finish,
}

// SAFETY: tasks write disjoint parts of `c`; everything else is read.
unsafe impl Sync for Job<'_> {}

/// `C = act(alpha · A·W + …)`. A is `m × k` with rows `a_stride` apart, C is `m × n` with rows `c_stride` apart.
pub fn gemm_sparse_f32(
    pool: &dyn Pool,
    m: usize,
    (a, a_stride): (&[f32], usize),
    w: &SparseF32,
    (c, c_stride): (&mut [f32], usize),
    alpha: f32,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    Strides { row: a_stride, col: 1 }.check("A", a.len(), m, w.k)?;
    holds("C", c.len(), m, w.n, c_stride)?;
    let finish = epilogue.finish(alpha, m, w.n)?;
    if m == 0 || w.n == 0 {
        return Ok(());
    }
    let room = product("rows leave the address space", &[BLOCK, w.k])?;
    let job =
        Job { w, a: a.as_ptr(), a_step: a_stride, c: c.as_mut_ptr(), c_step: c_stride, finish: &finish };
    let (blocks, panels) = (m.div_ceil(BLOCK), w.n.div_ceil(PANEL));
    let work = w.values.len().saturating_mul(m);
    let most = if pool.threads() <= 1 { 1 } else { (4 * pool.threads()).div_ceil(blocks) };
    let groups = (work / GRAIN / blocks).clamp(1, most).min(panels);
    let share = panels.div_ceil(groups);
    let groups = panels.div_ceil(share);
    let task = |i: usize| {
        let (block, group) = (i / groups, i % groups);
        let (first, col) = (block * BLOCK, group * share * PANEL);
        let rows = BLOCK.min(m - first);
        let end = w.n.min(col + share * PANEL);
        // SAFETY: the extents were checked; blocks and groups are disjoint parts of the result.
        unsafe {
            if rows < FEW {
                (first..first + rows).for_each(|row| few(w.tier, &job, row, col, end));
                return;
            }
            scratch::with(room, |x| many(w.tier, &job, (first, rows), (col, end), x));
        }
    };
    match blocks * groups {
        tasks if tasks == 1 || pool.threads() <= 1 => (0..tasks).for_each(task),
        tasks => pool.run(tasks, &task),
    }
    Ok(())
}

/// Whether a zero times each element is zero.
#[inline(always)]
unsafe fn finite<S: Simd>(s: S, x: *const f32, n: usize) -> bool {
    let mut odd = s.splat(0.0);
    for i in (0..n).step_by(LANES) {
        // SAFETY: the caller's contract: `n` elements.
        odd = unsafe { s.fma(s.load_up_to(x.add(i), n - i), s.splat(0.0), odd) };
    }
    !s.any(s.is_nan(odd))
}

/// One sum with its zeros: a row holds infinities or NaN.
#[inline(never)]
unsafe fn plain(w: &SparseF32, x: *const f32, col: usize) -> f32 {
    let (inputs, values) = w.column(col);
    let mut next = 0;
    (0..w.k).fold(0.0, |sum, k| {
        let kept = inputs.get(next) == Some(&(k as u32));
        let v = if kept { values[next] } else { 0.0 };
        next += usize::from(kept);
        // SAFETY: a row holds `k` elements.
        sum + unsafe { *x.add(k) } * v
    })
}

/// The epilogue of `live` sums of row `row` at `y`, and storing them at column `col`.
///
/// # Safety
/// `y` holds 64 sums, the result the row and columns.
#[inline(always)]
unsafe fn finish<S: Simd>(s: S, job: &Job, y: *const f32, row: usize, col: usize, live: usize) {
    let place = Place { out: &row, live_rows: 1, live_cols: live, col };
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[s.splat(0.0); 4]];
        for v in 0..4 {
            sums[0][v] = load(s, y, v, live);
        }
        job.finish.sums(s, &mut sums, &place);
        let c = job.c.add(row * job.c_step + col);
        for v in 0..4 {
            if live > v * LANES {
                s.store_up_to(c.add(v * LANES), sums[0][v], live - v * LANES);
            }
        }
        if job.finish.is_late() {
            job.finish.late(std::slice::from_raw_parts_mut(c, live), row, col);
        }
    }
}

tiered! {
    /// Columns `col..end` of one row.
    ///
    /// # Safety
    /// The row and the columns lie in the operands of the job.
    unsafe fn few(s: S; job: &Job, row: usize, col: usize, end: usize) {
        const SUMS: usize = 8;
        let x = job.a.add(row * job.a_step);
        let whole = finite(s, x, job.w.k);
        for first in (col..end).step_by(PANEL) {
            let live = PANEL.min(end - first);
            let mut y = [0f32; PANEL];
            for (i, y) in y.iter_mut().take(live).enumerate() {
                if !whole {
                    *y = plain(job.w, x, first + i);
                    continue;
                }
                let (inputs, values) = job.w.column(first + i);
                let mut sums = [0f32; SUMS];
                let (mut ks, mut vs) = (inputs.chunks_exact(SUMS), values.chunks_exact(SUMS));
                for (k, v) in (&mut ks).zip(&mut vs) {
                    for j in 0..SUMS {
                        sums[j] += *x.add(k[j] as usize) * v[j];
                    }
                }
                for (j, (k, v)) in ks.remainder().iter().zip(vs.remainder()).enumerate() {
                    sums[j] += *x.add(*k as usize) * v;
                }
                *y = sums.iter().sum();
            }
            finish(s, job, y.as_ptr(), row, first, live);
        }
    }
}

tiered! {
    /// Columns `col..end` of `rows` rows from `first` on; `x` is room for as many inputs of a block.
    ///
    /// # Safety
    /// The rows and the columns lie in the operands of the job; `x` holds a block of `k` inputs.
    unsafe fn many(s: S; job: &Job, block: (usize, usize), columns: (usize, usize), x: &mut [f32]) {
        let ((first, rows), (col, end)) = (block, columns);
        let w = job.w;
        let a = job.a.add(first * job.a_step);
        let width = rows.next_multiple_of(LANES);
        let width = if width == 3 * LANES { BLOCK } else { width };
        let mut odd = [false; BLOCK];
        for r in 0..rows {
            odd[r] = !finite(s, a.add(r * job.a_step), w.k);
        }
        let (from, to) = (4 * job.a_step as isize, 4 * width as isize);
        turn::<4>(a.cast(), from, x.as_mut_ptr().cast(), to, rows, w.k);
        if rows < width {
            for k in 0..w.k {
                x[k * width + rows..(k + 1) * width].fill(0.0);
            }
        }
        let mut sums = [0f32; PANEL * BLOCK];
        let mut y = [0f32; PANEL * BLOCK];
        for start in (col..end).step_by(PANEL) {
            let live = PANEL.min(end - start);
            for i in 0..live {
                let (inputs, values) = w.column(start + i);
                let to = sums.as_mut_ptr().add(i * width);
                match width / LANES {
                    1 => dots::<S, 1, 4>(s, inputs, values, x.as_ptr(), to),
                    2 => dots::<S, 2, 2>(s, inputs, values, x.as_ptr(), to),
                    _ => dots::<S, 4, 1>(s, inputs, values, x.as_ptr(), to),
                }
            }
            let (from, to) = (4 * width as isize, 4 * PANEL as isize);
            turn::<4>(sums.as_ptr().cast(), from, y.as_mut_ptr().cast(), to, live, rows);
            for r in 0..rows {
                if odd[r] {
                    for i in 0..live {
                        y[r * PANEL + i] = plain(w, a.add(r * job.a_step), start + i);
                    }
                }
                finish(s, job, y.as_ptr().add(r * PANEL), first + r, start, live);
            }
        }
    }
}

/// One column's sums for `V` vectors of rows, in `P` phases, so that additions do not wait for each other.
///
/// # Safety
/// `x` holds `V` vectors for each input, `to` `V` vectors.
#[inline(always)]
unsafe fn dots<S: Simd, const V: usize, const P: usize>(
    s: S,
    inputs: &[u32],
    values: &[f32],
    x: *const f32,
    to: *mut f32,
) {
    let mut acc = [[s.splat(0.0); V]; P];
    let n = inputs.len().min(values.len());
    // SAFETY: the caller's contract; inputs are below `k`.
    unsafe {
        let mut i = 0;
        while i + P <= n {
            for p in 0..P {
                let w = s.splat(*values.get_unchecked(i + p));
                let x = x.add(*inputs.get_unchecked(i + p) as usize * V * LANES);
                for v in 0..V {
                    acc[p][v] = s.fma(w, s.load(x.add(v * LANES)), acc[p][v]);
                }
            }
            i += P;
        }
        while i < n {
            let w = s.splat(values[i]);
            let x = x.add(inputs[i] as usize * V * LANES);
            for v in 0..V {
                acc[0][v] = s.fma(w, s.load(x.add(v * LANES)), acc[0][v]);
            }
            i += 1;
        }
        for v in 0..V {
            let mut sum = acc[0][v];
            for p in 1..P {
                sum = s.add(sum, acc[p][v]);
            }
            s.store(to.add(v * LANES), sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epilogue::{Activation, Residual};
    use crate::parallel::Serial;
    use crate::testing::{Two, close, finished, random};

    /// Three of four weights are zero.
    fn weights(k: usize, n: usize) -> Vec<f32> {
        let keep = random(k * n, 9);
        random(k * n, 2).into_iter().zip(keep).map(|(w, r)| if r > 0.5 { w } else { 0.0 }).collect()
    }

    #[test]
    fn products_equal_those_with_the_zeros() {
        for (m, k, n) in [(1, 70, 33), (3, 300, 130), (8, 33, 64), (16, 40, 65), (40, 70, 90), (150, 64, 200)]
        {
            let (a, w) = (random(m * (k + 3), 1), weights(k, n));
            let (bias, residual) = (random(n, 4), random(m * n, 5));
            let e = Epilogue {
                bias: Some(&bias),
                residual: Some(Residual { data: &residual, row_stride: n, after_activation: true }),
                act: if m % 2 == 0 { Activation::Relu } else { Activation::Tanh },
                ..Epilogue::default()
            };
            let sum = |i: usize| -> f64 {
                let (row, col) = (i / n, i % n);
                let products = (0..k).map(|p| f64::from(a[row * (k + 3) + p]) * f64::from(w[p * n + col]));
                finished(&e, products.sum(), row, col)
            };
            let wanted: Vec<f64> = (0..m * n).map(sum).collect();
            for &tier in Tier::available() {
                let packed = SparseF32::from_strided(tier, &w, Strides::kn(n), k, n).unwrap();
                assert_eq!(packed.kept(), w.iter().filter(|w| **w != 0.0).count());
                let [one, two] = [&Serial as &dyn Pool, &Two].map(|pool| {
                    let mut c = vec![f32::NAN; m * n];
                    gemm_sparse_f32(pool, m, (&a, k + 3), &packed, (&mut c, n), 1.0, &e).unwrap();
                    c
                });
                close(&one, &wanted, k);
                assert!(one.iter().zip(&two).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }

    #[test]
    fn infinities_meet_zeros() {
        for m in [2, 20] {
            let (k, n) = (30, 20);
            let (mut a, w) = (random(m * k, 1), weights(k, n));
            a[3] = f32::INFINITY;
            for &tier in Tier::available() {
                let packed = SparseF32::from_strided(tier, &w, Strides::kn(n), k, n).unwrap();
                let mut c = vec![0.0; m * n];
                let e = Epilogue::default();
                gemm_sparse_f32(&Serial, m, (&a, k), &packed, (&mut c, n), 1.0, &e).unwrap();
                for (col, c) in c[..n].iter().enumerate() {
                    let want = f32::INFINITY * w[3 * n + col];
                    assert!(if want.is_nan() { c.is_nan() } else { *c == want }, "{c} {want}");
                }
                assert!(c[n..].iter().all(|c| c.is_finite()));
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_errors() {
        let w = weights(8, 8);
        assert!(SparseF32::from_strided(Tier::Portable, &w, Strides::kn(8), 9, 8).is_err());
        let packed = SparseF32::from_strided(Tier::Portable, &w, Strides::kn(8), 8, 8).unwrap();
        let (mut c, e) = ([0.0; 16], Epilogue::default());
        assert!(gemm_sparse_f32(&Serial, 2, (&[0.0; 15], 8), &packed, (&mut c, 8), 1.0, &e).is_err());
        assert!(gemm_sparse_f32(&Serial, 2, (&[0.0; 16], 8), &packed, (&mut c[1..], 8), 1.0, &e).is_err());
    }
}
