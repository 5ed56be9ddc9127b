//! kernel: scaled dot-product attention, one head at a time, in blocks of queries and keys.
//!
//! Keys of a head are packed transposed and values contiguous, once; then 16 queries at a time meet blocks of 512
//! keys: scores, running softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), and
//! the weighted sum of values. Up to 512 keys that is the plain softmax over scores that stay in the cache.

use crate::dispatch::Tier;
use crate::error::{Error, product};
use crate::parallel::Pool;
use crate::partition::{Parts, ranges};
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::vecmath::{exp, exp_term, tanh};

mod open_keys;

/// Distances, in elements, between neighbouring batches, heads, positions and elements of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStrides {
    pub batch: usize,
    pub head: usize,
    pub position: usize,
    /// 1, except for keys whose positions are contiguous instead.
    pub lane: usize,
}

/// A tensor of `[batch, head, position, width]` in some order of the first three, or for keys of all; a stride of zero
/// broadcasts.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    pub data: &'a [f32],
    pub strides: HeadStrides,
}

/// Applied to the scores before the softmax; a stride of zero broadcasts.
#[derive(Clone, Copy, Debug)]
pub struct ScoreMask<'a> {
    pub data: &'a [f32],
    /// Scores become this where the mask is zero and stay elsewhere; without it the mask is added.
    pub fill: Option<f32>,
    pub batch: usize,
    pub head: usize,
    pub query: usize,
    /// 1, or 0 to broadcast.
    pub key: usize,
}

/// `softmax(cap(scale · q·kᵀ) + mask) · v` for every head.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// `[batch, heads, queries, dim]`.
    pub q: Heads<'a>,
    /// `[batch, kv_heads, keys, dim]`.
    pub k: Heads<'a>,
    /// `[batch, kv_heads, keys, value_dim]`.
    pub v: Heads<'a>,
    pub mask: Option<ScoreMask<'a>>,
    /// Query `i` sees the keys `j ≤ i + offset` only.
    pub causal: Option<isize>,
    pub scale: f32,
    /// `c·tanh(score / c)` if positive.
    pub softcap: f32,
    pub batch: usize,
    pub heads: usize,
    /// Divides `heads`: consecutive query heads share a key head.
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub dim: usize,
    pub value_dim: usize,
    /// What a query gets that sees no key: `0/0` by the formula, zero by the ONNX `Attention` operator.
    pub unseen: f32,
    /// Weights that are not a number count as zero: so does the result of a query that has such.
    pub guard: bool,
}

/// Queries that are worked on together.
const QUERIES: usize = 16;
/// Keys whose scores are kept at a time.
const KEYS: usize = 512;
/// Keys in a packed panel.
const PANEL: usize = 64;

/// Writes `[batch, heads, queries, value_dim]` with the strides `out_strides`.
pub fn attention(
    pool: &dyn Pool,
    a: &Attention<'_>,
    out: &mut [f32],
    out_strides: HeadStrides,
) -> Result<(), Error> {
    attention_on(Tier::best(), pool, a, out, out_strides)
}

/// [`attention`] on a chosen tier.
pub fn attention_on(
    tier: Tier,
    pool: &dyn Pool,
    a: &Attention<'_>,
    out: &mut [f32],
    out_strides: HeadStrides,
) -> Result<(), Error> {
    a.check(out, out_strides)?;
    let heads = a.batch * a.heads;
    if heads * a.queries * a.value_dim == 0 {
        return Ok(());
    }
    // Few heads for many threads: cut the queries as well. Rows do not depend on the cut.
    let cuts =
        if heads >= 2 * pool.threads() { 1 } else { a.queries.div_ceil(4 * QUERIES).min(2 * pool.threads()) };
    let step = a.queries.div_ceil(cuts).next_multiple_of(QUERIES);
    let cuts = a.queries.div_ceil(step);
    let out = Parts::of(out);
    ranges(pool, heads * cuts, 1, &|range| {
        for t in range {
            let (b, h) = (t / cuts / a.heads, t / cuts % a.heads);
            let first = t % cuts * step;
            let last = a.queries.min(first + step);
            // SAFETY: offsets were checked; tasks write disjoint heads or queries.
            unsafe { a.head(tier, b, h, first, last, out.as_mut_ptr(), out_strides) };
        }
    });
    Ok(())
}

fn reach(what: &'static str, len: usize, width: usize, axes: &[(usize, usize)]) -> Result<(), Error> {
    let mut end = width;
    for &(n, stride) in axes {
        if n == 0 {
            return Ok(());
        }
        let last = product(what, &[n - 1, stride])?;
        end = end.checked_add(last).ok_or(Error::Shape { what })?;
    }
    if end > len { Err(Error::Length { what, expected: end, found: len }) } else { Ok(()) }
}

impl Attention<'_> {
    fn check(&self, out: &[f32], o: HeadStrides) -> Result<(), Error> {
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::Shape { what: "key heads do not divide query heads" });
        }
        product("attention sizes overflow", &[self.batch, self.heads, self.queries, self.value_dim])?;
        product("attention sizes overflow", &[self.keys, self.dim.max(self.value_dim).max(PANEL), 8])?;
        let tensor = |what, data: &[f32], s: HeadStrides, heads, positions, width| {
            let axes = [(self.batch, s.batch), (heads, s.head), (positions, s.position), (width, s.lane)];
            reach(what, data.len(), 1, &axes)
        };
        let rows = [self.q.strides, self.v.strides, o].iter().all(|s| s.lane == 1);
        if !rows || (self.k.strides.lane != 1 && self.k.strides.position != 1) {
            return Err(Error::Shape { what: "attention rows are not contiguous" });
        }
        tensor("attention queries", self.q.data, self.q.strides, self.heads, self.queries, self.dim)?;
        tensor("attention keys", self.k.data, self.k.strides, self.kv_heads, self.keys, self.dim)?;
        tensor("attention values", self.v.data, self.v.strides, self.kv_heads, self.keys, self.value_dim)?;
        tensor("attention output", out, o, self.heads, self.queries, self.value_dim)?;
        self.check_disjoint(o)?;
        let Some(m) = &self.mask else { return Ok(()) };
        if m.key > 1 {
            return Err(Error::Shape { what: "the mask's last axis is neither contiguous nor broadcast" });
        }
        let axes = [(self.batch, m.batch), (self.heads, m.head), (self.queries, m.query), (self.keys, m.key)];
        reach("attention mask", m.data.len(), 1, &axes)
    }

    /// Output rows must not meet: tasks write them at the same time.
    fn check_disjoint(&self, o: HeadStrides) -> Result<(), Error> {
        let mut axes = [(o.batch, self.batch), (o.head, self.heads), (o.position, self.queries)];
        if axes.iter().any(|&(_, n)| n == 0) {
            return Ok(());
        }
        axes.sort_unstable();
        let mut span = self.value_dim;
        for (stride, n) in axes {
            if n > 1 {
                if stride < span {
                    return Err(Error::Shape { what: "rows of the attention output overlap" });
                }
                span = span.saturating_add(stride.saturating_mul(n - 1));
            }
        }
        Ok(())
    }

    /// # Safety
    /// The sizes were checked against the slices and `out`.
    unsafe fn head(
        &self,
        tier: Tier,
        b: usize,
        h: usize,
        first: usize,
        last: usize,
        out: *mut f32,
        o: HeadStrides,
    ) {
        let kv = h / (self.heads / self.kv_heads);
        let wide = self.value_dim.next_multiple_of(LANES);
        // SAFETY: the caller's contract.
        let open = unsafe { self.open_keys(tier, b, h, first..last) };
        let at = |t: &Heads<'_>, head: usize, position: usize| {
            let s = t.strides;
            t.data.as_ptr().wrapping_add(b * s.batch + head * s.head + position * s.position)
        };
        let mask = self.mask.map(|m| {
            let start = b * m.batch + h * m.head + open.start * m.key;
            (m.data.as_ptr().wrapping_add(start), m.query, m.key)
        });
        let size = |n: usize, w: usize| n * w;
        let keys = open.len().next_multiple_of(PANEL);
        // A vector more, as rows at powers of two share the lines of the first-level cache.
        let step = keys.min(KEYS) + LANES;
        let sizes = [
            size(keys, self.dim),
            size(open.len(), wide),
            size(QUERIES, self.dim),
            size(QUERIES, step),
            QUERIES * wide,
        ];
        // SAFETY: pointers lead to the head's elements by the check; scratch parts have the sizes above.
        scratch::with(sizes.iter().sum(), |buffer| unsafe {
            let (kt, rest) = buffer.split_at_mut(sizes[0]);
            let (vs, rest) = rest.split_at_mut(sizes[1]);
            let (qs, rest) = rest.split_at_mut(sizes[2]);
            let (scores, sums) = rest.split_at_mut(sizes[3]);
            pack_keys(at(&self.k, kv, open.start), self.k.strides, open.len(), self.dim, kt);
            let v = at(&self.v, kv, open.start);
            pack_rows(v, self.v.strides.position, open.len(), self.value_dim, wide, vs);
            for i in (first..last).step_by(QUERIES) {
                let n = QUERIES.min(last - i);
                let from = at(&self.q, h, i);
                pack_queries(from, self.q.strides.position, n, self.dim, self.scale, qs);
                let block = Block {
                    q: qs.as_ptr(),
                    kt: kt.as_ptr(),
                    v: vs.as_ptr(),
                    scores: scores.as_mut_ptr(),
                    step,
                    sums: sums.as_mut_ptr(),
                    mask: mask.map_or(std::ptr::null(), |(p, q, _)| p.wrapping_add(i * q)),
                    mask_query: mask.map_or(0, |m| m.1),
                    mask_key: mask.map_or(0, |m| m.2),
                    fill: self.mask.and_then(|m| m.fill),
                    unseen: self.unseen,
                    guard: self.guard,
                    softcap: self.softcap,
                    causal: self.causal.map(|c| c.saturating_add_unsigned(i)),
                    queries: n,
                    keys: open.len(),
                    dim: self.dim,
                    wide,
                    out: out.add(b * o.batch + h * o.head + i * o.position),
                    out_position: o.position,
                    value_dim: self.value_dim,
                };
                attend(tier, &block);
            }
        });
    }
}

/// Panels of 64 keys, `[panel, dim, 64]`, zero past the last key.
///
/// # Safety
/// `k` has `keys` rows of `dim` elements with these strides, of which one is 1.
unsafe fn pack_keys(k: *const f32, strides: HeadStrides, keys: usize, dim: usize, to: &mut [f32]) {
    if dim == 0 {
        return;
    }
    for (p, panel) in to.chunks_exact_mut(PANEL * dim).enumerate() {
        let n = PANEL.min(keys - p * PANEL);
        if n < PANEL {
            panel.fill(0.0);
        }
        if strides.lane != 1 {
            for (d, row) in panel.chunks_exact_mut(PANEL).enumerate() {
                // SAFETY: element `d` of rows p·64 .. p·64 + n, which are neighbours.
                let from = unsafe { std::slice::from_raw_parts(k.add(d * strides.lane + p * PANEL), n) };
                row[..n].copy_from_slice(from);
            }
            continue;
        }
        // SAFETY: rows p·64 .. p·64 + n of `k`, transposed into the panel's `dim` rows of 64.
        unsafe {
            let from = k.add(p * PANEL * strides.position).cast::<u8>();
            let row = 4 * strides.position as isize;
            crate::transpose::turn::<4>(
                from,
                row,
                panel.as_mut_ptr().cast::<u8>(),
                4 * PANEL as isize,
                n,
                dim,
            );
        }
    }
}

/// Rows of `width` elements side by side, each padded with zeros to `wide`.
///
/// # Safety
/// `x` has `rows` rows of `width` elements at distance `stride`.
unsafe fn pack_rows(x: *const f32, stride: usize, rows: usize, width: usize, wide: usize, to: &mut [f32]) {
    for (r, row) in to.chunks_exact_mut(wide).take(rows).enumerate() {
        // SAFETY: row `r` of `x`.
        let from = unsafe { std::slice::from_raw_parts(x.add(r * stride), width) };
        row[..width].copy_from_slice(from);
        row[width..].fill(0.0);
    }
}

/// Scaled queries side by side, then zero rows up to 16.
///
/// # Safety
/// `q` has `n` rows of `dim` elements at distance `stride`.
unsafe fn pack_queries(q: *const f32, stride: usize, n: usize, dim: usize, scale: f32, to: &mut [f32]) {
    for r in 0..n {
        // SAFETY: row `r` of `q`.
        let from = unsafe { std::slice::from_raw_parts(q.add(r * stride), dim) };
        to[r * dim..(r + 1) * dim].iter_mut().zip(from).for_each(|(t, f)| *t = f * scale);
    }
    to[n * dim..].fill(0.0);
}

/// Sixteen queries of one head.
struct Block {
    /// `[16, dim]`, scaled.
    q: *const f32,
    kt: *const f32,
    /// `[keys, wide]`.
    v: *const f32,
    /// Sixteen rows of `step`, at least as many as keys are looked at together.
    scores: *mut f32,
    step: usize,
    /// `[16, wide]`.
    sums: *mut f32,
    mask: *const f32,
    mask_query: usize,
    mask_key: usize,
    fill: Option<f32>,
    unseen: f32,
    guard: bool,
    softcap: f32,
    /// Last key that the first query sees.
    causal: Option<isize>,
    queries: usize,
    keys: usize,
    dim: usize,
    wide: usize,
    out: *mut f32,
    out_position: usize,
    value_dim: usize,
}

impl Block {
    /// Keys that query `r` sees.
    #[inline(always)]
    fn seen(&self, r: usize) -> usize {
        self.causal.map_or(self.keys, |c| {
            usize::try_from(c.saturating_add_unsigned(r + 1)).unwrap_or(0).min(self.keys)
        })
    }
}

tiered! {
    /// # Safety
    /// The block's pointers hold what its fields say.
    unsafe fn attend(s: S; b: &Block) {
        let mut top = [f32::NEG_INFINITY; QUERIES];
        let mut weight = [0f32; QUERIES];
        for i in 0..QUERIES * b.wide / LANES {
            s.store(b.sums.add(i * LANES), s.zero());
        }
        let rows = b.queries.next_multiple_of(8);
        let seen = b.seen(b.queries - 1);
        let mut from = 0;
        while from < seen {
            let n = KEYS.min(seen - from);
            scores(s, b, rows, from, n);
            for r in 0..b.queries {
                let visible = b.seen(r).saturating_sub(from).min(n);
                let row = b.scores.add(r * b.step);
                let mask = if b.mask.is_null() { b.mask } else { b.mask.add(r * b.mask_query + from * b.mask_key) };
                let (t, w) = soften(s, row, n, visible, mask, b, top[r]);
                // A row that has seen nothing has no sums to rescale, and -∞ - -∞ is not a number.
                if from > 0 && t > top[r] {
                    let shrink = s.array(exp(s, s.splat(top[r] - t)))[0];
                    weight[r] *= shrink;
                    rescale(s, b.sums.add(r * b.wide), b.wide, shrink);
                }
                top[r] = if t > top[r] { t } else { top[r] };
                weight[r] += w;
            }
            weigh(s, b, rows, from, n);
            from += n;
        }
        for r in 0..b.queries {
            // No score that was a number leaves no weight, one that was none makes all of them so.
            let (share, seen) = (s.splat(1.0 / weight[r]), weight[r] != 0.0 && !(b.guard && weight[r].is_nan()));
            let mut i = 0;
            while i < b.value_dim {
                let sum = s.load(b.sums.add(r * b.wide + i));
                let unseen = s.splat(if b.guard { 0.0 } else { b.unseen });
                let y = if seen { s.mul(sum, share) } else { unseen };
                s.store_up_to(b.out.add(r * b.out_position + i), y, b.value_dim - i);
                i += LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn rescale<S: Simd>(s: S, x: *mut f32, n: usize, by: f32) {
    let mut i = 0;
    while i < n {
        // SAFETY: `x` holds `n` elements, a multiple of 16.
        unsafe { s.store(x.add(i), s.mul(s.load(x.add(i)), s.splat(by))) };
        i += LANES;
    }
}

/// Scores of `rows` queries against `n` keys from `from`, a multiple of 64.
#[inline(always)]
unsafe fn scores<S: Simd>(s: S, b: &Block, rows: usize, from: usize, n: usize) {
    let mut j = 0;
    while j < n {
        let panel = (from + j) / PANEL;
        // SAFETY: the panel exists, zero past the last key; a row of scores has room for whole panels.
        unsafe {
            let kt = b.kt.add(panel * PANEL * b.dim);
            let vectors = (n - j).div_ceil(LANES).min(PANEL / LANES);
            product_rows(s, b.q, b.dim, kt, PANEL, b.dim, b.scores.add(j), b.step, rows, vectors, false);
        }
        j += PANEL;
    }
}

/// Adds the values of `n` keys from `from`, weighted by the scores.
#[inline(always)]
unsafe fn weigh<S: Simd>(s: S, b: &Block, rows: usize, from: usize, n: usize) {
    // SAFETY: values and sums have rows of `wide` elements.
    unsafe {
        let v = b.v.add(from * b.wide);
        product_rows(s, b.scores, b.step, v, b.wide, n, b.sums, b.wide, rows, b.wide / LANES, true);
    }
}

/// `c (+)= a · b` for `rows`, a multiple of 8, and `vectors` columns of 16.
#[inline(always)]
unsafe fn product_rows<S: Simd>(
    s: S,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    k: usize,
    c: *mut f32,
    ldc: usize,
    rows: usize,
    vectors: usize,
    add: bool,
) {
    let mut j = 0;
    while j < vectors {
        let step = if !S::WIDE || vectors - j == 1 {
            1
        } else if vectors - j < 4 {
            2
        } else {
            4
        };
        let tall = if S::WIDE && step < 4 { 8 } else { 4 };
        let mut r = 0;
        while r < rows {
            // SAFETY: the caller vouches for `rows` rows and `vectors` vectors of each matrix.
            unsafe {
                let (a, b, c) = (a.add(r * lda), b.add(j * LANES), c.add(r * ldc + j * LANES));
                match (step, tall) {
                    (4, _) => tile::<S, 4, 4>(s, a, lda, b, ldb, k, c, ldc, add),
                    (2, _) => tile::<S, 8, 2>(s, a, lda, b, ldb, k, c, ldc, add),
                    (_, 8) => tile::<S, 8, 1>(s, a, lda, b, ldb, k, c, ldc, add),
                    _ => tile::<S, 4, 1>(s, a, lda, b, ldb, k, c, ldc, add),
                }
            }
            r += tall;
        }
        j += step;
    }
}

/// One register tile.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    k: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let mut acc = [[s.zero(); V]; R];
    // SAFETY: `R` rows of `a` and `c`, `k` rows of `b`, `V` vectors wide, by the caller.
    unsafe {
        if add {
            for r in 0..R {
                for v in 0..V {
                    acc[r][v] = s.load(c.add(r * ldc + v * LANES));
                }
            }
        }
        for i in 0..k {
            let mut right = [s.zero(); V];
            for v in 0..V {
                right[v] = s.load(b.add(i * ldb + v * LANES));
            }
            for r in 0..R {
                let left = s.splat(*a.add(r * lda + i));
                for v in 0..V {
                    acc[r][v] = s.fma(left, right[v], acc[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                s.store(c.add(r * ldc + v * LANES), acc[r][v]);
            }
        }
    }
}

/// Turns `n` scores into `e^(score - top)`, zero from `visible` on; gives the new top and the sum of what was made.
#[inline(always)]
unsafe fn soften<S: Simd>(
    s: S,
    row: *mut f32,
    n: usize,
    visible: usize,
    mask: *const f32,
    b: &Block,
    top: f32,
) -> (f32, f32) {
    let (mask_key, softcap) = (b.mask_key, b.softcap);
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut best = s.splat(top);
    let (uncapped, mut i) = (softcap <= 0.0, 0);
    // SAFETY: the row has room for `n` rounded up to 16; the mask holds `n` keys, or one if broadcast.
    unsafe {
        let whole = visible / LANES * LANES;
        if uncapped && mask.is_null() {
            while i < whole {
                best = s.max(s.load(row.add(i)), best);
                i += LANES;
            }
        } else if uncapped && mask_key != 0 && b.fill.is_none() {
            while i < whole {
                let x = s.add(s.load(row.add(i)), s.load(mask.add(i)));
                s.store(row.add(i), x);
                best = s.max(x, best);
                i += LANES;
            }
        }
        while i < n {
            let left = visible.saturating_sub(i);
            let mut x = s.load(row.add(i));
            if softcap > 0.0 {
                let c = s.splat(softcap);
                x = s.mul(c, tanh(s, s.div(x, c)));
            }
            if !mask.is_null() && left > 0 {
                let m = if mask_key == 0 { s.splat(*mask) } else { s.load_up_to(mask.add(i), left) };
                x = match b.fill {
                    Some(f) => s.select(s.eq(m, s.zero()), s.splat(f), x),
                    None => s.add(x, m),
                };
            }
            if left < LANES {
                x = s.select(s.head(left), x, lowest);
            }
            s.store(row.add(i), x);
            best = s.max(x, best);
            i += LANES;
        }
        let top = s.largest(best);
        // All -∞ so far: subtracting zero makes every weight zero.
        let shift = s.splat(if top == f32::NEG_INFINITY { 0.0 } else { top });
        let (mut sum, mut more) = (s.zero(), s.zero());
        i = 0;
        while i + LANES < n {
            let (e, f) = (
                exp_term(s, s.sub(s.load(row.add(i)), shift)),
                exp_term(s, s.sub(s.load(row.add(i + LANES)), shift)),
            );
            s.store(row.add(i), e);
            s.store(row.add(i + LANES), f);
            sum = s.add(sum, e);
            more = s.add(more, f);
            i += 2 * LANES;
        }
        if i < n {
            let e = exp_term(s, s.sub(s.load(row.add(i)), shift));
            s.store(row.add(i), e);
            sum = s.add(sum, e);
        }
        (top, s.sum(s.add(sum, more)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919 + seed * 31) % 2003) as f32 / 500.0 - 2.0).collect()
    }

    fn exact(a: &Attention<'_>, b: usize, h: usize, i: usize) -> Vec<f64> {
        let kv = h / (a.heads / a.kv_heads);
        let get = |t: &Heads<'_>, h: usize, p: usize, d: usize| {
            let s = t.strides;
            f64::from(t.data[b * s.batch + h * s.head + p * s.position + d * s.lane])
        };
        let score = |j: usize| {
            if a.causal.is_some_and(|c| j as isize > i as isize + c) {
                return f64::NEG_INFINITY;
            }
            let mut s = (0..a.dim).map(|d| get(&a.q, h, i, d) * get(&a.k, kv, j, d)).sum::<f64>()
                * f64::from(a.scale);
            if a.softcap > 0.0 {
                s = f64::from(a.softcap) * (s / f64::from(a.softcap)).tanh();
            }
            let Some(m) = a.mask else { return s };
            match (f64::from(m.data[b * m.batch + h * m.head + i * m.query + j * m.key]), m.fill) {
                (0.0, Some(fill)) => f64::from(fill),
                (_, Some(_)) => s,
                (m, None) => s + m,
            }
        };
        let scores: Vec<f64> = (0..a.keys).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = e.iter().sum();
        if top == f64::NEG_INFINITY {
            return vec![f64::from(a.unseen); a.value_dim];
        }
        (0..a.value_dim).map(|d| (0..a.keys).map(|j| e[j] / sum * get(&a.v, kv, j, d)).sum()).collect()
    }

    /// `[B, S, H, D]` if `interleaved`, else `[B, H, S, D]`.
    fn strides(interleaved: bool, heads: usize, positions: usize, width: usize) -> HeadStrides {
        let batch = heads * positions * width;
        if interleaved {
            HeadStrides { batch, head: width, position: heads * width, lane: 1 }
        } else {
            HeadStrides { batch, head: positions * width, position: width, lane: 1 }
        }
    }

    /// `[B, H, D, S]`.
    fn transposed(heads: usize, positions: usize, width: usize) -> HeadStrides {
        HeadStrides {
            batch: heads * positions * width,
            head: positions * width,
            position: 1,
            lane: positions,
        }
    }

    struct Many;
    impl Pool for Many {
        fn threads(&self) -> usize {
            4
        }
        fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
            (0..tasks).rev().for_each(f);
        }
    }

    fn check(a: &Attention<'_>, interleaved: bool) {
        let o = strides(interleaved, a.heads, a.queries, a.value_dim);
        let len = a.batch * a.heads * a.queries * a.value_dim;
        for &tier in Tier::available() {
            let (mut y, mut z) = (vec![9.0; len], vec![8.0; len]);
            attention_on(tier, &Serial, a, &mut y, o).unwrap();
            attention_on(tier, &Many, a, &mut z, o).unwrap();
            assert!(y.iter().zip(&z).all(|(y, z)| y.to_bits() == z.to_bits()));
            for (b, h) in (0..a.batch).flat_map(|b| (0..a.heads).map(move |h| (b, h))) {
                for i in 0..a.queries {
                    let at = b * o.batch + h * o.head + i * o.position;
                    for (y, w) in y[at..].iter().zip(exact(a, b, h, i)) {
                        assert!(
                            w.is_nan() == y.is_nan() && (w.is_nan() || (f64::from(*y) - w).abs() < 2e-5),
                            "{tier:?} {y} {w}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_option_matches_the_formula() {
        let sizes: &[(usize, usize, usize, usize)] = if cfg!(miri) {
            &[(3, 5, 4, 6)]
        } else {
            &[
                (1, 1, 1, 1),
                (3, 5, 4, 6),
                (17, 70, 8, 33),
                (128, 128, 32, 32),
                (20, 600, 16, 48),
                (5, 1100, 7, 80),
            ]
        };
        for &(queries, keys, dim, value_dim) in sizes {
            let (batch, heads, kv_heads) = (2, 4, 2);
            let q = values(batch * heads * queries * dim, 1);
            let k = values(batch * kv_heads * keys * dim, 2);
            let v = values(batch * kv_heads * keys * value_dim, 3);
            let mut mask = values(batch * queries * keys, 4);
            mask.iter_mut().step_by(3).for_each(|m| *m = f32::NEG_INFINITY);
            mask[..keys.saturating_sub(1)].fill(f32::NEG_INFINITY);
            let chosen: Vec<f32> = mask.iter().map(|&m| if m.is_finite() { 2.0 } else { 0.0 }).collect();
            for interleaved in [false, true] {
                let full = ScoreMask {
                    data: &mask,
                    fill: None,
                    batch: queries * keys,
                    head: 0,
                    query: keys,
                    key: 1,
                };
                let by_query = ScoreMask { batch: 0, head: 1, query: 2, key: 0, ..full };
                let filled = |fill| ScoreMask { data: &chosen, fill: Some(fill), ..full };
                for (mask, causal, softcap) in [
                    (None, None, 0.0),
                    (Some(filled(-1e9)), None, 0.0),
                    (Some(filled(f32::NEG_INFINITY)), None, 0.0),
                    (Some(full), None, 0.0),
                    (None, Some(0), 0.0),
                    (Some(full), Some(keys as isize - queries as isize), 5.0),
                    (mask.get(2 * queries + 8).map(|_| by_query), Some(-1), 0.0),
                ] {
                    let a = Attention {
                        q: Heads { data: &q, strides: strides(interleaved, heads, queries, dim) },
                        k: Heads {
                            data: &k,
                            strides: match mask {
                                Some(m) if m.fill.is_some() => transposed(kv_heads, keys, dim),
                                _ => strides(interleaved, kv_heads, keys, dim),
                            },
                        },
                        v: Heads { data: &v, strides: strides(!interleaved, kv_heads, keys, value_dim) },
                        mask,
                        causal,
                        scale: 0.3,
                        softcap,
                        batch,
                        heads,
                        kv_heads,
                        queries,
                        keys,
                        dim,
                        value_dim,
                        unseen: if interleaved { 0.0 } else { f32::NAN },
                        guard: false,
                    };
                    check(&a, interleaved);
                }
            }
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let data = [0.0; 64];
        let h = Heads { data: &data, strides: HeadStrides { batch: 0, head: 32, position: 8, lane: 1 } };
        let a = Attention {
            q: h,
            k: h,
            v: h,
            mask: None,
            causal: None,
            scale: 1.0,
            softcap: 0.0,
            batch: 1,
            heads: 2,
            kv_heads: 2,
            queries: 4,
            keys: 4,
            dim: 8,
            value_dim: 8,
            unseen: f32::NAN,
            guard: false,
        };
        let columns = HeadStrides { position: 1, lane: 4, ..h.strides };
        let mut y = [0.0; 64];
        assert!(attention(&Serial, &a, &mut y, h.strides).is_ok());
        assert!(attention(&Serial, &a, &mut y[..63], h.strides).is_err());
        assert!(attention(&Serial, &a, &mut y, HeadStrides { position: 7, ..h.strides }).is_err());
        assert!(attention(&Serial, &Attention { keys: 0, ..a }, &mut y, h.strides).is_ok() && y[0].is_nan());
        assert!(
            attention(&Serial, &Attention { k: Heads { strides: columns, ..h }, ..a }, &mut y, h.strides)
                .is_ok()
        );
        assert!(
            attention(&Serial, &Attention { v: Heads { strides: columns, ..h }, ..a }, &mut y, h.strides)
                .is_err()
        );
        assert!(attention(&Serial, &a, &mut y, columns).is_err());
        assert!(attention(&Serial, &Attention { keys: 5, ..a }, &mut y, h.strides).is_err());
        assert!(attention(&Serial, &Attention { kv_heads: 3, ..a }, &mut y, h.strides).is_err());
        assert!(attention(&Serial, &Attention { keys: usize::MAX, ..a }, &mut y, h.strides).is_err());
        let m = ScoreMask { data: &data[..15], fill: None, batch: 0, head: 0, query: 4, key: 1 };
        assert!(attention(&Serial, &Attention { mask: Some(m), ..a }, &mut y, h.strides).is_err());
    }
}
