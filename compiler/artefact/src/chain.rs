//! Chains of element-wise steps on a pool.

use crate::io::Io;
use crate::loops::{self, GRAIN, LINE, Walk, share};
use kernels::chain::{Chain, Place, Table};
use kernels::{Error, Tier};
use std::sync::Mutex;

/// The result, in parts of which tasks write.
struct Shared(*mut u8, usize);
// SAFETY: tasks write disjoint parts.
unsafe impl Sync for Shared {}

/// Bytes a task looks up.
const LOOKED_UP: usize = 4 * GRAIN;

/// What becomes of each byte of the input.
pub fn look_up(io: &Io, tier: Tier, table: &Table) -> Result<(), Error> {
    let (x, out) = (io.input::<u8>(0), io.output::<u8>(0));
    if x.len() != out.len() {
        return Err(Error::Length { what: "looked up bytes", expected: x.len(), found: out.len() });
    }
    let base = Shared(out.as_mut_ptr(), out.len());
    let (base, failure) = (&base, Mutex::new(None));
    let per = share(io.pool, x.len(), LOOKED_UP).next_multiple_of(4 * LINE);
    loops::run(io.pool, x.len().div_ceil(per).max(1), &|t| {
        let range = t * per..x.len().min((t + 1) * per);
        // SAFETY: inside the result, which is as long as the input; tasks have ranges of their own.
        let out = unsafe { std::slice::from_raw_parts_mut(base.0.add(range.start), range.len()) };
        if let Err(e) = table.map(tier, &x[range], out) {
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    });
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

/// Computes the result from the inputs; strides are those of float32 elements.
pub fn run(io: &Io, tier: Tier, chain: &Chain, w: &Walk) -> Result<(), Error> {
    let out = io.output::<u8>(0);
    if w.n == 0 || out.is_empty() {
        return Ok(());
    }
    // Rows of one long row are pieces of it.
    let whole = w.outer.is_empty() && w.rows == 1;
    let per = match whole {
        true => share(io.pool, w.n, GRAIN).next_multiple_of(4 * LINE),
        false => share(io.pool, w.rows, GRAIN / w.n),
    };
    let blocks = if whole { w.n.div_ceil(per) } else { w.rows.div_ceil(per) };
    let outer: usize = w.outer.iter().map(|o| o.0).product();
    let size = chain.store.size();
    let base = Shared(out.as_mut_ptr(), out.len());
    let (base, failure) = (&base, Mutex::new(None));
    let inputs: Vec<&[u8]> = (0..chain.operands.len()).map(|k| io.input(k)).collect();
    loops::run(io.pool, outer * blocks, &|t| {
        let (index, block) = (t / blocks, t % blocks);
        let (from, count) = (block * per, if whole { w.n } else { w.rows });
        let count = per.min(count - from);
        let (rows, n) = if whole { (1, count) } else { (count, w.n) };
        let places: smallvec::SmallVec<[Place; 8]> = (0..chain.operands.len())
            .map(|k| {
                let (row, inner) = (w.strides[k] as usize / 4, usize::from(w.moving[k]));
                let (mut o, mut at) = (index, from * if whole { inner } else { row });
                for (m, strides) in w.outer {
                    at += o % m * (strides[k] as usize / 4);
                    o /= m;
                }
                let data = inputs[k].get(at * chain.operands[k].size()..).unwrap_or_default();
                Place { data, inner, row: if whole { 0 } else { row } }
            })
            .collect();
        let start = if whole { from } else { (index * w.rows + from) * w.n } * size;
        let len = rows * n * size;
        if start + len > base.1 {
            return;
        }
        // SAFETY: inside the result, as just checked; tasks have blocks of their own.
        let out = unsafe { std::slice::from_raw_parts_mut(base.0.add(start), len) };
        if let Err(e) = chain.run(tier, &places, out, rows, n) {
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    });
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}
