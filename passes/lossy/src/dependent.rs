//! Roundings that depend on each other: chains of dependent quantization down the rows of a column.
//!
//! The rows of a column are rounded before its error is spread over other columns, so that the best chain is that of least
//! squared error, found exactly by going through all states (Viterbi 1967). Bits do not count: a pull towards zero, where
//! integers are shorter, moves all outputs of a layer one way, which later layers amplify.

use crate::gptq::Policy;
use crate::quant::Grid;
use container::trellis::{BLOCK, STATES, State, value};

/// A grid of bytes, one scale for each row, with its integers in chains.
pub struct Chained<'a> {
    pub grid: &'a Grid,
}

impl Chained<'_> {
    /// One chain from row `first` on.
    fn chain(&self, first: usize, x: &[f32], out: &mut [(u8, f32)]) {
        let mut cost = [f32::INFINITY; STATES];
        cost[State::default().number()] = 0.0;
        let mut ways = [[Way::default(); STATES]; BLOCK];
        for (i, (&x, ways)) in x.iter().zip(&mut ways).enumerate() {
            let scale = self.grid.scales[[first + i, 0]];
            let y = if scale > 0.0 { x / scale } else { 0.0 };
            let sets = [false, true].map(|odd| nearest(y, odd).map(|p| (p, scale * scale * miss(y, p, odd))));
            let mut next = [f32::INFINITY; STATES];
            for from in State::all() {
                for (place, more) in sets[usize::from(from.is_odd())] {
                    let (to, cost) = (from.after(place).number(), cost[from.number()] + more);
                    if cost < next[to] {
                        next[to] = cost;
                        ways[to] = Way { from, place };
                    }
                }
            }
            cost = next;
        }
        let best = |a: &usize, b: &usize| cost[*a].total_cmp(&cost[*b]);
        let mut at = (0..STATES).min_by(best).unwrap_or(0);
        for i in (0..x.len()).rev() {
            let Way { from, place } = ways[i][at];
            let v = value(place, from.is_odd()).unwrap_or(0);
            let code = (i32::from(v) + self.grid.offset()) as u8;
            out[i] = (code, f32::from(v) * self.grid.scales[[first + i, 0]]);
            at = from.number();
        }
    }
}

impl Policy for Chained<'_> {
    fn round(&self, row: usize, col: usize, x: f32) -> (u8, f32) {
        self.grid.round(row, col, x)
    }

    fn together(&self) -> bool {
        true
    }

    fn column(&self, first: usize, _col: usize, x: &[f32], out: &mut [(u8, f32)]) {
        for (i, (x, out)) in x.chunks(BLOCK).zip(out.chunks_mut(BLOCK)).enumerate() {
            self.chain(first + i * BLOCK, x, out);
        }
    }
}

/// How a state is reached.
#[derive(Clone, Copy, Default)]
struct Way {
    from: State,
    place: i8,
}

/// Squared distance of the integer at a place.
fn miss(y: f32, place: i8, odd: bool) -> f32 {
    (y - f32::from(value(place, odd).unwrap_or(0))).powi(2)
}

/// Largest places of both parities whose integers have a negative too.
const LARGEST: [f32; 2] = [62.0, 63.0];

/// The places, one even and one odd, of the nearest integers in a set.
fn nearest(y: f32, odd: bool) -> [i8; 2] {
    let size = y.abs();
    [0usize, 1].map(|parity| {
        // The integers of one set and parity are four apart, but that zero lies beside three.
        let (first, least) = match (odd, parity) {
            (false, 0) => (0.0, 0.0),
            (false, _) => (1.0, 2.0),
            (true, 0) => (2.0, 3.0),
            (true, _) => (1.0, 1.0),
        };
        let steps = ((size - least) / 4.0).round_ties_even().max(0.0);
        let place = f32::min(first + 2.0 * steps, LARGEST[parity]);
        let place = if odd && parity == 0 && size < 1.5 { 0.0 } else { place };
        (if y < 0.0 { -place } else { place }) as i8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;
    use ndarray::Array2;

    fn grid(rows: usize, scale: f32) -> Grid {
        let scales = Array2::from_shape_fn((rows, 1), |(r, _)| scale * (1.0 + (r % 3) as f32 / 8.0));
        Grid { bits: 8, block: 1, scales, half: false, columns: Vec::new() }
    }

    #[test]
    fn the_nearest_of_each_parity_is_found() {
        for odd in [false, true] {
            for i in -9000..9000 {
                let y = i as f32 / 64.0;
                for (parity, place) in nearest(y, odd).into_iter().enumerate() {
                    assert_eq!(usize::from(place & 1 != 0), parity);
                    let best = (-63i8..=63)
                        .filter(|p| usize::from(p & 1 != 0) == parity)
                        .map(|p| miss(y, p, odd))
                        .fold(f32::INFINITY, f32::min);
                    assert_eq!(miss(y, place, odd), best, "{y} {odd} {parity}");
                }
            }
        }
    }

    #[test]
    fn no_other_chain_loses_less() {
        let grid = grid(4, 0.4);
        let policy = Chained { grid: &grid };
        for seed in 0..20 {
            let x: Vec<f32> = matrix(1, 4, seed).iter().copied().collect();
            let mut out = [(0, 0.0); 4];
            policy.column(0, 0, &x, &mut out);
            let found: f32 = x.iter().zip(&out).map(|(x, o)| (x - o.1).powi(2)).sum();
            let mut best = f32::INFINITY;
            for all in 0..13usize.pow(4) {
                let (mut state, mut loss) = (State::default(), 0.0);
                for (i, x) in x.iter().enumerate() {
                    let place = (all / 13usize.pow(i as u32) % 13) as i8 - 6;
                    let v = value(place, state.is_odd()).unwrap();
                    loss += (x - f32::from(v) * grid.scales[[i, 0]]).powi(2);
                    state = state.after(place);
                }
                best = f32::min(best, loss);
            }
            assert!((found - best).abs() <= 1e-5 * best, "{found} {best}");
        }
    }

    #[test]
    fn numbers_that_are_none_and_huge_ones_have_codes() {
        let grid = grid(70, 0.1);
        let policy = Chained { grid: &grid };
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0] {
            let mut out = [(1, f32::NAN); 70];
            policy.column(0, 0, &[x; 70], &mut out);
            assert!(out.iter().all(|o| o.1.is_finite()));
        }
    }
}
