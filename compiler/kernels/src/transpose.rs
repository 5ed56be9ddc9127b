//! kernel: moving elements between strided layouts: permutes, slices, expands, concatenations.
//!
//! One plan serves all: dimensions with a source and a destination stride are merged where both are contiguous and
//! sorted by destination stride. The innermost then is a memcpy, a fill, or one side of a blocked 2-D transposition.

use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};

/// Types that may be moved as bytes.
///
/// # Safety
/// The type has no padding and is 1, 2, 4 or 8 bytes long.
pub unsafe trait Element: Copy + Send + Sync + 'static {}

macro_rules! elements {
    ($($t:ty)*) => {$(
        // SAFETY: a plain number.
        unsafe impl Element for $t {}
    )*};
}
elements!(u8 i8 u16 i16 u32 i32 f32 u64 i64 f64 bool half::f16 half::bf16);

/// One dimension of a move, strides in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub len: usize,
    /// May be zero (expand) or negative (reverse).
    pub from: isize,
    /// May be negative, not zero.
    pub to: isize,
}

/// Most dimensions a move may have.
pub const MAX_AXES: usize = 16;

/// Permutes the dimensions of `x`: `y[i_perm[0], i_perm[1], …] = x[i_0, i_1, …]`, as ONNX `Transpose`.
pub fn permute<T: Element>(
    pool: &dyn Pool,
    x: &[T],
    shape: &[usize],
    perm: &[usize],
    y: &mut [T],
) -> Result<(), Error> {
    let len = product("permuted sizes overflow", shape)?;
    same_length("permute input", len, x.len())?;
    same_length("permute output", len, y.len())?;
    let (mut seen, mut strides) = ([false; MAX_AXES], [0isize; MAX_AXES]);
    if perm.len() != shape.len() || shape.len() > MAX_AXES {
        return Err(Error::Shape {
            what: "the permutation has another rank than the tensor, or more than 16",
        });
    }
    let mut step = 1isize;
    for (d, &n) in shape.iter().enumerate().rev() {
        strides[d] = step;
        step = step.wrapping_mul(n as isize);
    }
    let mut axes = [Axis { len: 1, from: 0, to: 1 }; MAX_AXES];
    let mut step = 1isize;
    for (k, &p) in perm.iter().enumerate().rev() {
        if p >= shape.len() || std::mem::replace(&mut seen[p], true) {
            return Err(Error::Shape { what: "the permutation repeats or leaves the axes" });
        }
        axes[k] = Axis { len: shape[p], from: strides[p], to: step };
        step = step.wrapping_mul(shape[p] as isize);
    }
    copy_strided(pool, x, 0, y, 0, &axes[..perm.len()])
}

/// `[batch, channels, pixels]` to `[batch, pixels, channels]`.
pub fn nchw_to_nhwc<T: Element>(
    pool: &dyn Pool,
    x: &[T],
    batch: usize,
    channels: usize,
    pixels: usize,
    y: &mut [T],
) -> Result<(), Error> {
    permute(pool, x, &[batch, channels, pixels], &[0, 2, 1], y)
}

/// `[batch, pixels, channels]` to `[batch, channels, pixels]`.
pub fn nhwc_to_nchw<T: Element>(
    pool: &dyn Pool,
    x: &[T],
    batch: usize,
    channels: usize,
    pixels: usize,
    y: &mut [T],
) -> Result<(), Error> {
    permute(pool, x, &[batch, pixels, channels], &[0, 2, 1], y)
}

/// `y[to + Σ i_d·axes[d].to] = x[from + Σ i_d·axes[d].from]` for all indices. Every element named must lie inside its
/// slice, and no two indices may name one element of `y`.
pub fn copy_strided<T: Element>(
    pool: &dyn Pool,
    x: &[T],
    from: usize,
    y: &mut [T],
    to: usize,
    axes: &[Axis],
) -> Result<(), Error> {
    if axes.len() > MAX_AXES {
        return Err(Error::Shape { what: "a move has more than 16 dimensions" });
    }
    if axes.iter().any(|a| a.len == 0) {
        return Ok(());
    }
    inside("the move leaves its input", from, axes.iter().map(|a| (a.len, a.from)), x.len())?;
    inside("the move leaves its output", to, axes.iter().map(|a| (a.len, a.to)), y.len())?;
    let plan = Plan::of(axes).ok_or(Error::Shape { what: "a move writes one element twice" })?;
    let parts = Parts::of(y);
    // SAFETY: the extents were checked; element types are plain numbers of these sizes.
    unsafe {
        let (x, y) = (x.as_ptr().add(from).cast::<u8>(), parts.as_mut_ptr().add(to).cast::<u8>());
        match size_of::<T>() {
            1 => plan.run::<1>(pool, x, y),
            2 => plan.run::<2>(pool, x, y),
            4 => plan.run::<4>(pool, x, y),
            8 => plan.run::<8>(pool, x, y),
            _ => return Err(Error::Shape { what: "elements are 1, 2, 4 or 8 bytes" }),
        }
    }
    Ok(())
}

/// The smallest and largest offset from `start` lie in `0..len`.
fn inside(
    what: &'static str,
    start: usize,
    axes: impl Iterator<Item = (usize, isize)>,
    len: usize,
) -> Result<(), Error> {
    let (mut low, mut high) = (start as i128, start as i128);
    for (n, stride) in axes {
        let reach = (n as i128 - 1).saturating_mul(stride as i128);
        if reach < 0 { low = low.saturating_add(reach) } else { high = high.saturating_add(reach) }
    }
    if low < 0 || high >= len as i128 { Err(Error::Shape { what }) } else { Ok(()) }
}

/// Merged dimensions, outermost first; the last has the smallest destination stride.
struct Plan {
    axes: [Axis; MAX_AXES],
    rank: usize,
}

impl Plan {
    /// `None` if two indices may write one element: each destination stride must exceed the reach of the smaller ones.
    fn of(axes: &[Axis]) -> Option<Plan> {
        let mut sorted = [Axis { len: 1, from: 0, to: 1 }; MAX_AXES];
        let mut rank = 0;
        for &a in axes.iter().filter(|a| a.len > 1) {
            sorted[rank] = a;
            rank += 1;
        }
        sorted[..rank].sort_by_key(|a| std::cmp::Reverse(a.to.unsigned_abs()));
        let mut merged = [Axis { len: 1, from: 0, to: 1 }; MAX_AXES];
        let mut n = 0;
        for &a in &sorted[..rank] {
            let len = a.len as isize;
            if n > 0
                && merged[n - 1].from == a.from.wrapping_mul(len)
                && merged[n - 1].to == a.to.wrapping_mul(len)
            {
                merged[n - 1] = Axis { len: merged[n - 1].len.checked_mul(a.len)?, ..a };
            } else {
                merged[n] = a;
                n += 1;
            }
        }
        let mut reach = 0usize;
        for a in merged[..n].iter().rev() {
            if a.to.unsigned_abs() <= reach {
                return None;
            }
            reach = reach.saturating_add(a.to.unsigned_abs().saturating_mul(a.len - 1));
        }
        Some(Plan { axes: merged, rank: n })
    }

    /// # Safety
    /// All offsets of the plan lie inside the buffers of `N`-byte elements at `x` and `y`.
    unsafe fn run<const N: usize>(&self, pool: &dyn Pool, x: *const u8, y: *mut u8) {
        let axes = &self.axes[..self.rank];
        let (inner, outer) = axes.split_last().map_or((UNIT, axes), |(l, o)| (*l, o));
        // The dimension that is contiguous in the source makes a 2-D transposition, else any is a second loop.
        let second = if inner.turns() { outer.iter().position(|a| a.from == 1) } else { None };
        let second = second.or_else(|| match outer {
            // Few lines would take as long as finding them.
            [.., longer, last] if last.len < FEW && longer.len > last.len => Some(outer.len() - 2),
            _ => outer.len().checked_sub(1),
        });
        let mut rest = [UNIT; MAX_AXES];
        let mut n = 0;
        for (_, &a) in outer.iter().enumerate().filter(|(i, _)| Some(*i) != second) {
            rest[n] = a;
            n += 1;
        }
        let rest = &rest[..n];
        let tile = Tile { inner, outer: second.map_or(UNIT, |i| outer[i]) };
        let ends = Ends(x, y);
        let (count, items) = (rest.iter().map(|a| a.len).product(), tile.inner.len * tile.outer.len);
        if count < 4 * pool.threads() && pool.threads() > 1 {
            // Few tiles: cut each along its longer side.
            let mut walk = Walk::start(rest, 0);
            for _ in 0..count {
                // SAFETY: offsets of the plan.
                tile.cut(pool, &|part, f, t| unsafe {
                    part.run::<N>(ends.from::<N>(walk.from + f), ends.to::<N>(walk.to + t));
                });
                walk.step(rest);
            }
            return;
        }
        ranges(pool, count, GRAIN.div_ceil(items), &|range| {
            let mut walk = Walk::start(rest, range.start);
            for _ in range {
                // SAFETY: offsets of the plan.
                unsafe { tile.run::<N>(ends.from::<N>(walk.from), ends.to::<N>(walk.to)) };
                walk.step(rest);
            }
        });
    }
}

/// Lines of a tile that has more if it can.
const FEW: usize = 8;

impl Axis {
    /// Whether, with a dimension that is contiguous in the source, it is a transposition. One element repeated is none, but
    /// a few of it are stored at once there.
    fn turns(self) -> bool {
        self.to == 1 && self.from != 1 && (self.from != 0 || self.len <= 4)
    }
}

const UNIT: Axis = Axis { len: 1, from: 0, to: 1 };

/// Start of source and destination.
struct Ends(*const u8, *mut u8);

// SAFETY: tasks read the source and write disjoint elements of the destination.
unsafe impl Sync for Ends {}

impl Ends {
    unsafe fn from<const N: usize>(&self, at: isize) -> *const u8 {
        // SAFETY: an offset of the plan.
        unsafe { self.0.offset(at * N as isize) }
    }
    unsafe fn to<const N: usize>(&self, at: isize) -> *mut u8 {
        // SAFETY: an offset of the plan.
        unsafe { self.1.offset(at * N as isize) }
    }
}

/// Position in the outer dimensions.
struct Walk {
    index: [usize; MAX_AXES],
    from: isize,
    to: isize,
}

impl Walk {
    fn start(axes: &[Axis], mut at: usize) -> Walk {
        let mut walk = Walk { index: [0; MAX_AXES], from: 0, to: 0 };
        for (d, a) in axes.iter().enumerate().rev() {
            let i = at % a.len;
            at /= a.len;
            walk.index[d] = i;
            walk.from += i as isize * a.from;
            walk.to += i as isize * a.to;
        }
        walk
    }

    fn step(&mut self, axes: &[Axis]) {
        for (d, a) in axes.iter().enumerate().rev() {
            self.index[d] += 1;
            self.from += a.from;
            self.to += a.to;
            if self.index[d] < a.len {
                return;
            }
            self.index[d] = 0;
            self.from -= a.len as isize * a.from;
            self.to -= a.len as isize * a.to;
        }
    }
}

/// The two inner dimensions.
#[derive(Clone, Copy)]
struct Tile {
    inner: Axis,
    outer: Axis,
}

impl Tile {
    /// Runs `f` on parts along the longer side, with the source and destination offsets where each starts.
    fn cut(self, pool: &dyn Pool, f: &(dyn Fn(Tile, isize, isize) + Sync)) {
        const STEP: usize = 64;
        let along_inner = self.inner.len > self.outer.len;
        let (side, other) = if along_inner { (self.inner, self.outer) } else { (self.outer, self.inner) };
        ranges(pool, side.len.div_ceil(STEP), GRAIN.div_ceil(STEP * other.len), &|range| {
            let (start, end) = (range.start * STEP, side.len.min(range.end * STEP));
            let part = Axis { len: end - start, ..side };
            let tile = if along_inner { Tile { inner: part, ..self } } else { Tile { outer: part, ..self } };
            f(tile, start as isize * side.from, start as isize * side.to);
        });
    }

    /// # Safety
    /// Every offset of the tile is valid at `x` and `y`.
    unsafe fn run<const N: usize>(self, x: *const u8, y: *mut u8) {
        let size = N as isize;
        // SAFETY: passed on.
        unsafe {
            if self.inner.turns() && self.outer.from == 1 && self.outer.len > 1 {
                let (sx, sy) = (self.inner.from * size, self.outer.to * size);
                return turn::<N>(x, sx, y, sy, self.inner.len, self.outer.len);
            }
            for i in 0..self.outer.len as isize {
                line::<N>(
                    x.offset(i * self.outer.from * size),
                    y.offset(i * self.outer.to * size),
                    self.inner,
                );
            }
        }
    }
}

#[inline(always)]
unsafe fn get<const N: usize>(p: *const u8) -> [u8; N] {
    // SAFETY: the caller names a valid element.
    unsafe { p.cast::<[u8; N]>().read() }
}

#[inline(always)]
unsafe fn put<const N: usize>(p: *mut u8, v: [u8; N]) {
    // SAFETY: the caller names a valid element.
    unsafe { p.cast::<[u8; N]>().write(v) }
}

/// # Safety
/// The axis is valid at `x` and `y`.
#[inline(always)]
unsafe fn line<const N: usize>(x: *const u8, y: *mut u8, a: Axis) {
    let (fx, fy) = (a.from * N as isize, a.to * N as isize);
    // SAFETY: passed on.
    unsafe {
        match (a.from, a.to) {
            (1, 1) if a.len * N >= 64 => std::ptr::copy_nonoverlapping(x, y, a.len * N),
            (1, 1) if a.len * N >= 16 => {
                // The last piece begins where it ends with the line.
                let last = a.len * N - 16;
                for at in (0..last).step_by(16).chain([last]) {
                    put::<16>(y.add(at), get::<16>(x.add(at)));
                }
            }
            (0, 1) => {
                let v = get::<N>(x);
                std::slice::from_raw_parts_mut(y.cast::<[u8; N]>(), a.len).fill(v);
            }
            _ => {
                for i in 0..a.len as isize {
                    put::<N>(y.offset(i * fy), get::<N>(x.offset(i * fx)));
                }
            }
        }
    }
}

/// A matrix of `R` rows, such as the planes of an image, to groups of `R` side by side.
///
/// # Safety
/// As [`turn`].
unsafe fn weave<const N: usize, const R: usize>(
    x: *const u8,
    sx: isize,
    y: *mut u8,
    sy: isize,
    columns: usize,
) {
    for c in 0..columns as isize {
        // SAFETY: `R` rows and `columns` columns by the caller.
        unsafe {
            let mut group = [[0; N]; R];
            for (r, g) in group.iter_mut().enumerate() {
                *g = get::<N>(x.offset(r as isize * sx + c * N as isize));
            }
            y.offset(c * sy).cast::<[[u8; N]; R]>().write(group);
        }
    }
}

/// Groups of `C` side by side, such as the channels of a pixel, to rows.
///
/// # Safety
/// As [`turn`], with `sx` the size of `C` elements.
#[inline(always)]
unsafe fn unweave<T: Copy, const C: usize>(x: *const u8, y: *mut u8, sy: isize, rows: usize) {
    // SAFETY: `rows` groups of `C` by the caller.
    unsafe {
        let x = x.cast::<T>();
        let to: [*mut T; C] = std::array::from_fn(|c| y.offset(c as isize * sy).cast());
        for r in 0..rows {
            for (c, to) in to.iter().enumerate() {
                to.add(r).write_unaligned(x.add(r * C + c).read_unaligned());
            }
        }
    }
}

/// [`unweave`] for elements of `N` bytes.
///
/// # Safety
/// As [`unweave`].
#[inline(always)]
unsafe fn unweave_sized<const N: usize, const C: usize>(x: *const u8, y: *mut u8, sy: isize, rows: usize) {
    // SAFETY: passed on.
    unsafe {
        match N {
            1 => unweave::<u8, C>(x, y, sy, rows),
            2 => unweave::<u16, C>(x, y, sy, rows),
            4 => unweave::<u32, C>(x, y, sy, rows),
            _ => unweave::<u64, C>(x, y, sy, rows),
        }
    }
}

/// [`unweave`] for `columns` of 2, 3 or 4.
///
/// # Safety
/// As [`unweave`].
#[inline(always)]
unsafe fn unweave_all<const N: usize>(x: *const u8, y: *mut u8, sy: isize, rows: usize, columns: usize) {
    // SAFETY: passed on.
    unsafe {
        match columns {
            2 => unweave_sized::<N, 2>(x, y, sy, rows),
            3 => unweave_sized::<N, 3>(x, y, sy, rows),
            _ => unweave_sized::<N, 4>(x, y, sy, rows),
        }
    }
}

/// `y[c·sy + r] = x[r·sx + c]` for `r < rows`, `c < columns`, strides in bytes.
///
/// # Safety
/// All those elements are valid.
pub(crate) unsafe fn turn<const N: usize>(
    x: *const u8,
    sx: isize,
    y: *mut u8,
    sy: isize,
    rows: usize,
    columns: usize,
) {
    // SAFETY: passed on; a tier names features the CPU has.
    unsafe {
        match rows {
            2 => return weave::<N, 2>(x, sx, y, sy, columns),
            3 => return weave::<N, 3>(x, sx, y, sy, columns),
            4 => return weave::<N, 4>(x, sx, y, sy, columns),
            _ => {}
        }
        let groups = matches!(columns, 2..=4) && sx == (columns * N) as isize;
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use crate::dispatch::Tier;
            if groups && Tier::best() != Tier::Portable {
                return x86::unweave::<N>(x, y, sy, rows, columns);
            }
            if N == 4 && Tier::best() != Tier::Portable {
                return x86::turn_4(x, sx, y, sy, rows, columns);
            }
            if N == 8 && Tier::best() != Tier::Portable {
                return x86::turn_8(x, sx, y, sy, rows, columns);
            }
            if N == 2 {
                return blocked::<2, x86::Two>(x, sx, y, sy, rows, columns);
            }
            if N == 1 {
                return blocked::<1, x86::One>(x, sx, y, sy, rows, columns);
            }
        }
        if groups {
            return unweave_all::<N>(x, y, sy, rows, columns);
        }
        blocked::<N, Scalar<N>>(x, sx, y, sy, rows, columns);
    }
}

/// Transposes one square.
trait Square {
    const SIDE: usize;
    /// # Safety
    /// `SIDE × SIDE` elements are valid at both.
    unsafe fn turn(x: *const u8, sx: isize, y: *mut u8, sy: isize);
}

struct Scalar<const N: usize>;

impl<const N: usize> Square for Scalar<N> {
    const SIDE: usize = 8;
    #[inline(always)]
    unsafe fn turn(x: *const u8, sx: isize, y: *mut u8, sy: isize) {
        // SAFETY: the caller's contract.
        unsafe { edge::<N>(x, sx, y, sy, 8, 8) }
    }
}

/// Element by element.
#[inline(always)]
unsafe fn edge<const N: usize>(x: *const u8, sx: isize, y: *mut u8, sy: isize, rows: usize, columns: usize) {
    let size = N as isize;
    for c in 0..columns as isize {
        for r in 0..rows as isize {
            // SAFETY: the caller vouches for all rows and columns.
            unsafe { put::<N>(y.offset(c * sy + r * size), get::<N>(x.offset(r * sx + c * size))) };
        }
    }
}

/// Blocks of 64-byte lines on both sides, each of squares; the shorter side is walked first.
#[inline(always)]
unsafe fn blocked<const N: usize, Q: Square>(
    x: *const u8,
    sx: isize,
    y: *mut u8,
    sy: isize,
    rows: usize,
    columns: usize,
) {
    let side = Q::SIDE.max(64 / N);
    let (down, right) = (rows.div_ceil(side), columns.div_ceil(side));
    for b in 0..down * right {
        let (r, c) = if down < right { (b % down, b / down) } else { (b / right, b % right) };
        let (r0, c0) = (r * side, c * side);
        let (r1, c1) = (rows.min(r0 + side), columns.min(c0 + side));
        let (rq, cq) = (r0 + (r1 - r0) / Q::SIDE * Q::SIDE, c0 + (c1 - c0) / Q::SIDE * Q::SIDE);
        // SAFETY: all parts lie inside the rows and columns the caller vouches for.
        unsafe {
            let from = |r: usize, c: usize| x.offset(r as isize * sx + (c * N) as isize);
            let to = |r: usize, c: usize| y.offset(c as isize * sy + (r * N) as isize);
            for c in (c0..cq).step_by(Q::SIDE) {
                for r in (r0..rq).step_by(Q::SIDE) {
                    Q::turn(from(r, c), sx, to(r, c), sy);
                }
            }
            edge::<N>(from(rq, c0), sx, to(rq, c0), sy, r1 - rq, cq - c0);
            edge::<N>(from(r0, cq), sx, to(r0, cq), sy, r1 - r0, c1 - cq);
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    //! Squares in registers.

    use super::{Square, blocked, unweave_all};
    use std::arch::x86_64::*;

    /// # Safety
    /// As `super::unweave`, on a CPU with AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn unweave<const N: usize>(
        x: *const u8,
        y: *mut u8,
        sy: isize,
        rows: usize,
        columns: usize,
    ) {
        // SAFETY: passed on.
        unsafe { unweave_all::<N>(x, y, sy, rows, columns) }
    }

    /// # Safety
    /// As `blocked`, on a CPU with AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn turn_4(x: *const u8, sx: isize, y: *mut u8, sy: isize, rows: usize, columns: usize) {
        // SAFETY: passed on.
        unsafe { blocked::<4, Four>(x, sx, y, sy, rows, columns) }
    }

    /// # Safety
    /// As `blocked`, on a CPU with AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn turn_8(x: *const u8, sx: isize, y: *mut u8, sy: isize, rows: usize, columns: usize) {
        // SAFETY: passed on.
        unsafe { blocked::<8, Eight>(x, sx, y, sy, rows, columns) }
    }

    struct Four;

    impl Square for Four {
        const SIDE: usize = 8;
        #[inline(always)]
        unsafe fn turn(x: *const u8, sx: isize, y: *mut u8, sy: isize) {
            // SAFETY: the caller's contract; used under AVX2 only.
            unsafe {
                let row = |i: isize| _mm256_loadu_ps(x.offset(i * sx).cast());
                let mut pairs = [_mm256_setzero_ps(); 8];
                for i in 0..4 {
                    let (a, b) = (row(2 * i), row(2 * i + 1));
                    pairs[2 * i as usize] = _mm256_unpacklo_ps(a, b);
                    pairs[2 * i as usize + 1] = _mm256_unpackhi_ps(a, b);
                }
                let mut quads = [_mm256_setzero_ps(); 8];
                for half in 0..2 {
                    for hi in 0..2 {
                        let (a, b) = (pairs[4 * half + hi], pairs[4 * half + hi + 2]);
                        quads[4 * half + 2 * hi] = _mm256_shuffle_ps::<0x44>(a, b);
                        quads[4 * half + 2 * hi + 1] = _mm256_shuffle_ps::<0xee>(a, b);
                    }
                }
                for i in 0..4 {
                    let (a, b) = (quads[i], quads[i + 4]);
                    _mm256_storeu_ps(y.offset(i as isize * sy).cast(), _mm256_permute2f128_ps::<0x20>(a, b));
                    _mm256_storeu_ps(
                        y.offset((i + 4) as isize * sy).cast(),
                        _mm256_permute2f128_ps::<0x31>(a, b),
                    );
                }
            }
        }
    }

    struct Eight;

    impl Square for Eight {
        const SIDE: usize = 4;
        #[inline(always)]
        unsafe fn turn(x: *const u8, sx: isize, y: *mut u8, sy: isize) {
            // SAFETY: the caller's contract; used under AVX2 only.
            unsafe {
                let row = |i: isize| _mm256_loadu_pd(x.offset(i * sx).cast());
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                let (ab0, ab1) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
                let (cd0, cd1) = (_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
                let put = |i: isize, v: __m256d| _mm256_storeu_pd(y.offset(i * sy).cast(), v);
                put(0, _mm256_permute2f128_pd::<0x20>(ab0, cd0));
                put(1, _mm256_permute2f128_pd::<0x20>(ab1, cd1));
                put(2, _mm256_permute2f128_pd::<0x31>(ab0, cd0));
                put(3, _mm256_permute2f128_pd::<0x31>(ab1, cd1));
            }
        }
    }

    /// 8 × 8 of two bytes: three rounds of interleaving rows `i` and `i + 4`.
    pub(super) struct Two;

    impl Square for Two {
        const SIDE: usize = 8;
        #[inline(always)]
        unsafe fn turn(x: *const u8, sx: isize, y: *mut u8, sy: isize) {
            // SAFETY: the caller's contract; SSE2 is part of x86-64.
            unsafe {
                let mut v = [_mm_setzero_si128(); 8];
                for (i, v) in v.iter_mut().enumerate() {
                    *v = _mm_loadu_si128(x.offset(i as isize * sx).cast());
                }
                for _ in 0..3 {
                    let old = v;
                    for i in 0..4 {
                        v[2 * i] = _mm_unpacklo_epi16(old[i], old[i + 4]);
                        v[2 * i + 1] = _mm_unpackhi_epi16(old[i], old[i + 4]);
                    }
                }
                for (i, v) in v.iter().enumerate() {
                    _mm_storeu_si128(y.offset(i as isize * sy).cast(), *v);
                }
            }
        }
    }

    /// 16 × 16 bytes: four rounds of interleaving rows `i` and `i + 8`.
    pub(super) struct One;

    impl Square for One {
        const SIDE: usize = 16;
        #[inline(always)]
        unsafe fn turn(x: *const u8, sx: isize, y: *mut u8, sy: isize) {
            // SAFETY: the caller's contract; SSE2 is part of x86-64.
            unsafe {
                let mut v = [_mm_setzero_si128(); 16];
                for (i, v) in v.iter_mut().enumerate() {
                    *v = _mm_loadu_si128(x.offset(i as isize * sx).cast());
                }
                for _ in 0..4 {
                    let old = v;
                    for i in 0..8 {
                        v[2 * i] = _mm_unpacklo_epi8(old[i], old[i + 8]);
                        v[2 * i + 1] = _mm_unpackhi_epi8(old[i], old[i + 8]);
                    }
                }
                for (i, v) in v.iter().enumerate() {
                    _mm_storeu_si128(y.offset(i as isize * sy).cast(), *v);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use proptest::prelude::*;

    struct Many;
    impl Pool for Many {
        fn threads(&self) -> usize {
            3
        }
        fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
            (0..tasks).rev().for_each(f);
        }
    }

    fn naive<T: Element>(x: &[T], shape: &[usize], perm: &[usize]) -> Vec<T> {
        let strides: Vec<usize> = (0..shape.len()).map(|d| shape[d + 1..].iter().product()).collect();
        let out: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
        (0..x.len())
            .map(|mut at| {
                let mut from = 0;
                for d in (0..out.len()).rev() {
                    from += at % out[d] * strides[perm[d]];
                    at /= out[d];
                }
                x[from]
            })
            .collect()
    }

    fn check<T: Element + PartialEq + std::fmt::Debug>(
        shape: &[usize],
        perm: &[usize],
        make: impl Fn(usize) -> T,
    ) {
        let n = shape.iter().product();
        let x: Vec<T> = (0..n).map(&make).collect();
        let want = naive(&x, shape, perm);
        for pool in [&Serial as &dyn Pool, &Many] {
            let mut y = vec![make(0); n];
            permute(pool, &x, shape, perm, &mut y).unwrap();
            assert!(y == want, "{shape:?} {perm:?}");
        }
    }

    fn check_sizes(shape: &[usize], perm: &[usize]) {
        check(shape, perm, |i| (i * 31 + i / 256) as u8);
        check(shape, perm, |i| (i * 31) as u16);
        check(shape, perm, |i| i as f32);
        check(shape, perm, |i| i as u64);
    }

    #[test]
    fn images_change_layout() {
        for (c, hw) in [(3, 35), (16, 49), (40, 100), (8, 8), (130, 70)] {
            check_sizes(&[2, c, hw], &[0, 2, 1]);
            check_sizes(&[hw, c], &[1, 0]);
        }
        check_sizes(&[2, 5, 4, 6], &[0, 2, 1, 3]);
        check_sizes(&[2, 5, 4, 6], &[0, 2, 3, 1]);
        check_sizes(&[], &[]);
        check_sizes(&[300, 200], &[1, 0]);
    }

    #[test]
    fn groups_side_by_side_come_apart() {
        for (c, n) in [(2, 5), (2, 64), (3, 33), (3, 97), (4, 40), (4, 1), (5, 31)] {
            check_sizes(&[3, n, c], &[0, 2, 1]);
            check_sizes(&[n, c, 3], &[1, 2, 0]);
            // Blocks to depth.
            check_sizes(&[1, 3, 4, c, n, c], &[0, 3, 5, 1, 2, 4]);
        }
    }

    #[test]
    fn elements_and_lines_are_repeated() {
        for (n, m) in [(7, 1), (7, 2), (6, 3), (9, 4), (5, 5), (3, 40), (40, 19), (1, 3136)] {
            let x: Vec<u32> = (0..n as u32).collect();
            // Each element `m` times, and the line `m` times.
            for (axes, of) in [([(n, 1, m), (m, 0, 1)], m), ([(m, 0, n), (n, 1, 1)], 1)] {
                let axes = axes.map(|(len, from, to)| Axis { len, from, to: to as isize });
                for pool in [&Serial as &dyn Pool, &Many] {
                    let mut y = vec![u32::MAX; n * m];
                    copy_strided(pool, &x, 0, &mut y, 0, &axes).unwrap();
                    let want: Vec<u32> = (0..n * m).map(|i| x[i / of % n]).collect();
                    assert_eq!(y, want, "{n} {m}");
                }
            }
        }
        // A tile of each of two images, twice along both sides.
        let x: Vec<u16> = (0..2 * 5 * 11).collect();
        let axes = [(2, 55, 220), (2, 0, 110), (5, 11, 22), (2, 0, 11), (11, 1, 1)];
        let axes = axes.map(|(len, from, to)| Axis { len, from, to });
        let mut y = vec![u16::MAX; 440];
        copy_strided(&Many, &x, 0, &mut y, 0, &axes).unwrap();
        let want: Vec<u16> = (0..440).map(|i| x[i / 220 * 55 + i % 110 / 22 * 11 + i % 11]).collect();
        assert_eq!(y, want);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 64 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_permutation_matches_the_definition(
            (shape, perm) in prop::collection::vec(1usize..7, 0..6).prop_flat_map(|s| {
                let axes: Vec<usize> = (0..s.len()).collect();
                (Just(s), Just(axes).prop_shuffle())
            })
        ) {
            check_sizes(&shape, &perm);
        }
    }

    #[test]
    fn slices_reverse_expand_and_step() {
        let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let mut y = vec![0.0; 6];
        // x[4x6], rows 3 and 1, every second column
        let axes = [Axis { len: 2, from: -12, to: 3 }, Axis { len: 3, from: 2, to: 1 }];
        copy_strided(&Serial, &x, 18, &mut y, 0, &axes).unwrap();
        assert_eq!(y, [18.0, 20.0, 22.0, 6.0, 8.0, 10.0]);
        let axes = [Axis { len: 2, from: 1, to: 3 }, Axis { len: 3, from: 0, to: 1 }];
        copy_strided(&Serial, &x, 4, &mut y, 0, &axes).unwrap();
        assert_eq!(y, [4.0, 4.0, 4.0, 5.0, 5.0, 5.0]);
    }

    #[test]
    fn moves_outside_their_slices_are_refused() {
        let (x, mut y) = ([0u8; 10], [0u8; 10]);
        let long = [Axis { len: 4, from: 3, to: 1 }];
        assert!(copy_strided(&Serial, &x, 0, &mut y, 0, &long).is_ok());
        assert!(copy_strided(&Serial, &x, 1, &mut y, 0, &long).is_err());
        assert!(copy_strided(&Serial, &x, 0, &mut y, 7, &long).is_err());
        assert!(copy_strided(&Serial, &x, 0, &mut y, 0, &[Axis { len: 2, from: -1, to: 1 }]).is_err());
        let huge = [Axis { len: usize::MAX, from: isize::MAX, to: 1 }; 3];
        assert!(copy_strided(&Serial, &x, 0, &mut y, 0, &huge).is_err());
        assert!(copy_strided(&Serial, &x, 0, &mut y, 0, &[Axis { len: 2, from: 1, to: 0 }]).is_err());
        assert!(permute(&Serial, &x, &[2, 5], &[0, 0], &mut y).is_err());
        assert!(permute(&Serial, &x, &[2, 5], &[0, 2], &mut y).is_err());
        assert!(permute(&Serial, &x, &[2, 6], &[0, 1], &mut y).is_err());
    }
}
