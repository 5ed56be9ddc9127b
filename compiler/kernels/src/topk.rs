//! kernel: the largest or smallest elements of each line, in order, ONNX `TopK`.

use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};

/// Sizes of `[outer × n × inner]`, of which `k` elements along `n` are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopK {
    pub outer: usize,
    pub n: usize,
    pub inner: usize,
    pub k: usize,
    pub largest: bool,
}

/// Elements that a line is looked at together.
const BLOCK: usize = 16;
/// Room for candidates beside the `k` best so far: the more, the rarer they are sorted out.
const SPARE: usize = 64;

/// The `k` best of each line and their places, best first; of equals the first comes first. NaN is above all numbers, zeros
/// are equal.
pub fn top_k(
    pool: &dyn Pool,
    size: TopK,
    x: &[f32],
    values: &mut [f32],
    places: &mut [i64],
) -> Result<(), Error> {
    let TopK { outer, n, inner, k, largest } = size;
    let what = "top-k sizes overflow";
    same_length("top-k input", product(what, &[outer, n, inner])?, x.len())?;
    let picked = product(what, &[outer, k, inner])?;
    same_length("top-k values", picked, values.len())?;
    same_length("top-k places", picked, places.len())?;
    if k > n || u32::try_from(n).is_err() {
        return Err(Error::Shape { what: "top-k picks more elements than a line has, or of too many" });
    }
    if picked == 0 {
        return Ok(());
    }
    let (values, places) = (Parts::of(values), Parts::of(places));
    ranges(pool, outer * inner, GRAIN.div_ceil(n), &|range| {
        let (mut line, mut best) = (Vec::new(), Vec::new());
        for t in range {
            let (o, i) = (t / inner, t % inner);
            let from = &x[o * n * inner..(o + 1) * n * inner];
            let row: &[f32] = if inner == 1 {
                from
            } else {
                line.clear();
                line.extend(from[i..].iter().step_by(inner).copied());
                &line
            };
            pick(row, k, largest, &mut best);
            for (r, &candidate) in best.iter().enumerate() {
                let (to, at) = ((o * k + r) * inner + i, candidate as u32 as usize);
                // SAFETY: tasks have lines of their own.
                unsafe { (values.part(to..to + 1)[0], places.part(to..to + 1)[0]) = (row[at], at as i64) };
            }
        }
    });
    Ok(())
}

/// Ascending in rank: the element's key, turned around if the largest come first, then its place.
#[inline(always)]
fn candidate(x: f32, at: usize, largest: bool) -> u64 {
    let bits = if x == 0.0 { 0 } else { x.to_bits() };
    let key = if x.is_nan() { u32::MAX } else { bits ^ ((bits as i32 >> 31) as u32 | 1 << 31) };
    u64::from(if largest { !key } else { key }) << 32 | at as u64
}

/// Candidates of the `k` best elements, best first.
#[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN is to pass
fn pick(row: &[f32], k: usize, largest: bool, best: &mut Vec<u64>) {
    let most = k + k.max(SPARE);
    best.clear();
    let first = row.len().min(most);
    best.extend(row[..first].iter().enumerate().map(|(i, &x)| candidate(x, i, largest)));
    if first < row.len() {
        // What ranks behind the last of `k` candidates is none; a comparison with NaN lets all through.
        let mut bound = shrink(best, k);
        let mut limit = row[bound as u32 as usize];
        for (b, block) in row[first..].chunks(BLOCK).enumerate() {
            let some = if largest {
                block.iter().fold(false, |some, &x| some | !(x <= limit))
            } else {
                block.iter().fold(false, |some, &x| some | !(x >= limit))
            };
            if !some {
                continue;
            }
            for (i, &x) in block.iter().enumerate() {
                let c = candidate(x, first + b * BLOCK + i, largest);
                if c < bound {
                    best.push(c);
                }
            }
            if best.len() + BLOCK > most {
                bound = shrink(best, k);
                limit = row[bound as u32 as usize];
            }
        }
    }
    if best.len() > k {
        best.select_nth_unstable(k);
        best.truncate(k);
    }
    best.sort_unstable();
}

/// Leaves the `k` best; the last of them.
fn shrink(best: &mut Vec<u64>, k: usize) -> u64 {
    let (_, &mut last, _) = best.select_nth_unstable(k - 1);
    best.truncate(k);
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    /// All elements sorted.
    fn plain(line: &[f32], k: usize, largest: bool) -> Vec<i64> {
        let above = |a: f32, b: f32| a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        let mut order: Vec<usize> = (0..line.len()).collect();
        order.sort_by(|&p, &q| match above(line[p], line[q]) {
            Ordering::Equal => p.cmp(&q),
            o if largest => o.reverse(),
            o => o,
        });
        order[..k].iter().map(|&i| i as i64).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn picks_are_those_of_sorting(
            (outer, inner, largest) in (1usize..3, 1usize..4, any::<bool>()),
            n in 1usize..400,
            part in 0usize..=100,
            kinds in 1u32..60,
            seed in any::<u32>(),
        ) {
            let k = n * part / 100;
            let special = [f32::NAN, -f32::NAN, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1e-45, -1e-45];
            let mut state = seed;
            let x: Vec<f32> = (0..outer * n * inner).map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                let r = state >> 16;
                if r % 11 == 0 && kinds > 20 { special[r as usize / 11 % 8] } else { (r % kinds) as f32 - 9.0 }
            }).collect();
            let (mut values, mut places) = (vec![0.0; outer * k * inner], vec![0; outer * k * inner]);
            top_k(&Serial, TopK { outer, n, inner, k, largest }, &x, &mut values, &mut places).unwrap();
            for t in 0..outer * inner {
                let (o, i) = (t / inner, t % inner);
                let line: Vec<f32> = (0..n).map(|j| x[(o * n + j) * inner + i]).collect();
                for (r, want) in plain(&line, k, largest).into_iter().enumerate() {
                    let at = (o * k + r) * inner + i;
                    prop_assert_eq!(places[at], want);
                    prop_assert_eq!(values[at].to_bits(), line[want as usize].to_bits());
                }
            }
        }
    }

    #[test]
    fn more_than_there_are_is_refused() {
        let size = TopK { outer: 1, n: 2, inner: 1, k: 3, largest: true };
        assert!(top_k(&Serial, size, &[1.0, 2.0], &mut [0.0; 3], &mut [0; 3]).is_err());
        assert!(top_k(&Serial, TopK { outer: usize::MAX, ..size }, &[], &mut [], &mut []).is_err());
    }
}
