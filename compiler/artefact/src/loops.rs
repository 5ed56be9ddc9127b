//! Generated loops on a pool.

use crate::io::Io;
use kernels::Pool;

/// A generated loop over `rows` rows of `n` elements. Operand `k` starts at `ptrs[k]`; from row to row it advances by
/// `strides[k]` bytes. The last operand is the result.
pub type RowLoop = unsafe extern "C" fn(ptrs: *const *mut u8, strides: *const i64, rows: i64, n: i64);

/// A generated loop over units `begin` to `end`: elements of a single dim, else rows.
pub type TypedLoop = unsafe extern "C" fn(ptrs: *const *mut u8, begin: i64, end: i64);

/// Addresses of all generated loops of a program.
#[derive(Clone, Copy)]
pub struct Code<'a>(&'a [*const u8]);

impl<'a> Code<'a> {
    /// # Safety
    /// The addresses are of the loops of one program, in order, with the signatures that its calls imply, and stay.
    pub unsafe fn new(all: &'a [*const u8]) -> Code<'a> {
        Code(all)
    }

    /// None at all.
    pub fn none() -> Code<'static> {
        Code(&[])
    }
}

/// Elements a task works on.
pub const GRAIN: usize = 16 * 1024;

/// Elements of a cache line.
pub const LINE: usize = 16;

/// Items of a task of about `grain`, such that threads have as many tasks each.
pub fn share(pool: &dyn Pool, items: usize, grain: usize) -> usize {
    match items.div_ceil(grain.max(1)) {
        0 | 1 => items.max(1),
        tasks => items.div_ceil(tasks.next_multiple_of(pool.threads().max(1))),
    }
}

type Pointers = smallvec::SmallVec<[*mut u8; 8]>;

/// Pointers that tasks share; each task writes other elements.
struct Shared(Pointers);
// SAFETY: tasks write disjoint ranges of the result and only read the other operands.
unsafe impl Sync for Shared {}

impl Shared {
    fn table(&self) -> *const *mut u8 {
        self.0.as_ptr()
    }
}

/// Runs tasks on the pool, or here when there is one.
pub fn run(pool: &dyn Pool, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    if tasks == 1 { f(0) } else { pool.run(tasks, f) }
}

/// How a loop over rows walks its operands, strides in bytes.
pub struct Walk<'a> {
    pub outer: &'a [(usize, Vec<i64>)],
    pub rows: usize,
    pub strides: &'a [i64],
    pub moving: &'a [bool],
    pub n: usize,
}

/// Rows of fewer elements are mostly ends of vectors: several are taken as one.
pub const LONGEST_JOINED: usize = 64;
/// How many elements there must be in all for that.
pub const LEAST_JOINED: usize = 4096;
/// Elements of such a row of rows.
const LONG: usize = 512;

/// Short rows taken as longer ones, for which what all rows read is there once for each of them.
struct Joined {
    /// Rows that are one.
    count: usize,
    strides: Vec<i64>,
    /// Operands that all rows read, repeated.
    repeated: Vec<(usize, Vec<f32>)>,
}

impl Joined {
    /// `None` where rows are long, do not follow each other or read one element each.
    fn of(w: &Walk, base: &Pointers) -> Option<Joined> {
        let count = LONG / w.n;
        if !w.outer.is_empty()
            || w.n >= LONGEST_JOINED
            || w.rows < 2 * count
            || w.rows.checked_mul(w.n)? < LEAST_JOINED
        {
            return None;
        }
        let mut repeated = Vec::new();
        let row = 4 * w.n as i64;
        let mut joined = |(k, &stride): (usize, &i64)| {
            let moves = w.moving.get(k).copied().unwrap_or(true);
            match stride {
                s if s == row && moves => Some(row * count as i64),
                0 if moves => {
                    // SAFETY: an operand that every row reads from its start has a row's elements.
                    let own = unsafe { std::slice::from_raw_parts(base.get(k)?.cast::<f32>(), w.n) };
                    repeated.push((k, own.repeat(count)));
                    Some(0)
                }
                0 => Some(0),
                _ => None,
            }
        };
        let strides = w.strides.iter().enumerate().map(&mut joined).collect::<Option<_>>()?;
        Some(Joined { count, strides, repeated })
    }
}

/// Loop `code` over rows.
pub fn rows(io: &Io, code: Code, index: usize, w: &Walk) {
    if w.n == 0 {
        return;
    }
    // SAFETY: the loop was generated with this signature.
    let f = unsafe { std::mem::transmute::<*const u8, RowLoop>(code.0[index]) };
    let call = |ptrs: &[*mut u8], strides: &[i64], rows: usize, n: usize| {
        // SAFETY: the pointers have `rows` rows of `n` elements at these strides inside their operands: the walk was made
        // from the operands' shapes, and joined rows are as many of its rows, or repeated.
        unsafe { f(ptrs.as_ptr(), strides.as_ptr(), rows as i64, n as i64) }
    };
    let base = Shared((0..w.moving.len() + 1).map(|k| io.pointer(k)).collect());
    let base = &base;
    if let Some(j) = &Joined::of(w, &base.0) {
        let (whole, n) = (w.rows / j.count, w.n * j.count);
        let per = share(io.pool, whole, GRAIN / n);
        let starting = |row: usize| -> Pointers {
            base.0.iter().zip(w.strides).map(|(p, s)| p.wrapping_offset((row as i64 * s) as isize)).collect()
        };
        run(io.pool, whole.div_ceil(per), &|t| {
            let mut ptrs = starting(t * per * j.count);
            j.repeated.iter().for_each(|(k, all)| ptrs[*k] = all.as_ptr().cast_mut().cast());
            call(&ptrs, &j.strides, per.min(whole - t * per), n);
        });
        let rest = w.rows % j.count;
        if rest > 0 {
            call(&starting(w.rows - rest), w.strides, rest, w.n);
        }
        return;
    }
    if w.outer.is_empty() && w.rows == 1 {
        let per = share(io.pool, w.n, GRAIN).next_multiple_of(LINE);
        run(io.pool, w.n.div_ceil(per), &|t| {
            let (from, to) = (t * per, ((t + 1) * per).min(w.n));
            let shift = |k: usize| if w.moving.get(k).copied().unwrap_or(true) { 4 * from } else { 0 };
            let ptrs: Pointers = base.0.iter().enumerate().map(|(k, p)| p.wrapping_add(shift(k))).collect();
            call(&ptrs, w.strides, 1, to - from);
        });
        return;
    }
    let outer: usize = w.outer.iter().map(|o| o.0).product();
    let per = share(io.pool, w.rows, GRAIN / w.n.max(1));
    let blocks = w.rows.div_ceil(per);
    run(io.pool, outer * blocks, &|t| {
        let (mut o, block) = (t / blocks, t % blocks);
        let mut ptrs: Pointers = base.0.iter().copied().collect();
        for (size, strides) in w.outer {
            let i = (o % size) as i64;
            o /= size;
            ptrs.iter_mut().zip(strides).for_each(|(p, s)| *p = p.wrapping_offset((i * s) as isize));
        }
        let from = block * per;
        ptrs.iter_mut().zip(w.strides).for_each(|(p, s)| *p = p.wrapping_offset((from as i64 * s) as isize));
        call(&ptrs, w.strides, per.min(w.rows - from), w.n);
    });
}

/// Loop `code` over `units`, which hold `elements`.
pub fn typed(io: &Io, code: Code, index: usize, units: usize, elements: usize) {
    if elements == 0 {
        return;
    }
    // SAFETY: the loop was generated with this signature.
    let f = unsafe { std::mem::transmute::<*const u8, TypedLoop>(code.0[index]) };
    let ptrs = Shared((0..io.inputs() + 1).map(|k| io.pointer(k)).collect());
    let tasks = elements.div_ceil(GRAIN).clamp(1, units);
    let per = units.div_ceil(tasks);
    run(io.pool, tasks, &|t| {
        let (from, to) = ((t * per).min(units), ((t + 1) * per).min(units));
        // SAFETY: the table holds every operand; the loop was made from their shapes and stays inside them for units
        // below `units`.
        unsafe { f(ptrs.table(), from as i64, to as i64) }
    });
}
