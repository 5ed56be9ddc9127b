//! What the errors of two layers do together.
//!
//! A layer that changes moves the output by δ; several move it by about the sum of theirs, whose power is Σ‖δᵢ‖² and twice
//! the products ⟨δᵢ, δⱼ⟩ of every pair: layers that feed one another or meet in a sum share directions, and their errors add
//! up or cancel. The moves are those that the gains were measured by, so that products cost no further run. Another
//! candidate of a layer moves the output along the measured direction as far as its weight error resembles the measured one.
//!
//! With amplitudes tᵢ(c), the parts along those directions, the distortion of a choice is Σaᵢ + tᵀGt, where G has cosines of
//! pairs and zeros on the diagonal. The search takes the tangent of the second part at one choice after the other: each is a
//! knapsack without pairs. For the least ρ with which G + ρ is a Gram matrix, Σ(aᵢ − ρtᵢ²) + tᵀ(G + ρ)t is the same and its
//! second part lies above its tangents: the Lagrangian bound of such a knapsack holds for the one with pairs.

use crate::knapsack::{self, Item, Solution};
use std::collections::BTreeSet;

/// Tangents taken, and how many at most where none of them gave a selection within the budget.
const ROUNDS: usize = 8;
const MOST: usize = 32;
/// Factor of the bound within which a selection is good enough. Where no tangent led there, the budget of a knapsack without
/// pairs is halved so often, and the last factor of two cut in so many parts.
const NEAR: f64 = 1.03;
const HALVINGS: i32 = 16;
const PARTS: i32 = 8;
/// Layers up to which ρ is looked for, in so many steps; it is at most 1, as moves have a Gram matrix.
const MANY: usize = 400;
const STEPS: usize = 10;

/// The moves of the layers, as [`crate::metric::Reference::change`] gives them; `None` for layers that were not moved.
pub type Moves = Vec<Option<Vec<f32>>>;

/// Products of moves at one choice.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Cosines between the moves of two layers; zero where one was not moved, and of a layer with itself.
    cosines: Vec<Vec<f64>>,
    /// Part of the amplitude of each column that lies along the measured move of its row.
    along: Vec<Vec<f64>>,
    /// The columns that were measured.
    at: Vec<usize>,
    /// What makes a Gram matrix of the cosines when it is added to their diagonal.
    convex: f64,
}

impl Pairs {
    /// From the moves of the columns `at`; `along` has a number of −1 to 1 for each column, which is 1 at those.
    pub fn of(moves: &Moves, along: Vec<Vec<f64>>, at: Vec<usize>) -> Pairs {
        let norms: Vec<f64> =
            moves.iter().map(|m| m.as_ref().map_or(0.0, |m| product(m, m).sqrt())).collect();
        let cosine = |i: usize, j: usize| match (&moves[i], &moves[j]) {
            (Some(a), Some(b)) if i != j && norms[i] * norms[j] > 0.0 => {
                (product(a, b) / (norms[i] * norms[j])).clamp(-1.0, 1.0)
            }
            _ => 0.0,
        };
        let mut cosines = vec![vec![0.0; moves.len()]; moves.len()];
        for i in 0..moves.len() {
            for j in 0..i {
                cosines[i][j] = cosine(i, j);
                cosines[j][i] = cosines[i][j];
            }
        }
        let convex = convex(&cosines);
        Pairs { cosines, along, at, convex }
    }

    /// What errors do together beyond their sum, in the unit of the items' errors.
    pub fn together(&self, items: &[Vec<Item>], choice: &[usize]) -> f64 {
        let t = self.amplitudes(items, choice);
        t.iter().zip(self.pulls(&t)).map(|(t, p)| t * p).sum()
    }

    /// The most that errors may do together beyond their sum.
    pub fn most(&self, items: &[Vec<Item>]) -> f64 {
        let row = |(r, row): (usize, &Vec<Item>)| {
            row.iter().enumerate().map(|(c, i)| self.amplitude(r, c, i.error).abs()).fold(0.0, f64::max)
        };
        let t: Vec<f64> = items.iter().enumerate().map(row).collect();
        let pull = |g: &Vec<f64>| g.iter().zip(&t).map(|(g, t)| g.abs() * t).sum::<f64>();
        self.cosines.iter().zip(&t).map(|(g, t)| t * pull(g)).sum()
    }

    fn amplitude(&self, row: usize, column: usize, error: f64) -> f64 {
        let along = self.along.get(row).and_then(|a| a.get(column)).copied().unwrap_or(0.0);
        if error.is_finite() && error > 0.0 { along * error.sqrt() } else { 0.0 }
    }

    fn amplitudes(&self, items: &[Vec<Item>], choice: &[usize]) -> Vec<f64> {
        let one = |(r, &c): (usize, &usize)| items[r].get(c).map_or(0.0, |i| self.amplitude(r, c, i.error));
        choice.iter().enumerate().map(one).collect()
    }

    /// Σⱼ Gᵢⱼ tⱼ over the others.
    fn pulls(&self, t: &[f64]) -> Vec<f64> {
        self.cosines.iter().map(|g| g.iter().zip(t).map(|(g, t)| g * t).sum()).collect()
    }

    /// Items whose errors add up to the distortion near `t`, and what the sum has too much: a row's own error as it is, the
    /// pairs by their tangent. `below`: by a tangent that is nowhere above the distortion.
    fn tangent(&self, items: &[Vec<Item>], t: &[f64], below: bool) -> (Vec<Vec<Item>>, f64) {
        let own = if below { self.convex } else { 0.0 };
        let pulls = self.pulls(t);
        let row = |(r, row): (usize, &Vec<Item>)| {
            let one = |(c, i): (usize, &Item)| {
                let here = self.amplitude(r, c, i.error);
                let error = i.error - own * here * here + 2.0 * here * (pulls[r] + own * t[r]);
                Item { error, ..*i }
            };
            row.iter().enumerate().map(one).collect()
        };
        let much = t.iter().zip(&pulls).map(|(t, p)| t * (p + own * t)).sum();
        (items.iter().enumerate().map(row).collect(), much)
    }

    fn with_pairs(&self, items: &[Vec<Item>], choice: Vec<usize>) -> Solution {
        let mut s = crate::allocate::solution(items, choice);
        s.error = (s.error + self.together(items, &s.choice)).max(0.0);
        s
    }

    /// As [`knapsack::least_weight`], with pairs.
    pub fn least_weight(&self, items: &[Vec<Item>], budget: f64) -> Option<Solution> {
        let mut t = self.amplitudes(items, &self.at);
        let (mut best, mut seen, mut bound, mut over) = (None::<Solution>, BTreeSet::new(), 0.0, 0.0);
        for round in 0..MOST {
            if round >= ROUNDS && best.as_ref().is_some_and(|b| b.error <= budget) {
                break;
            }
            let (tangent, much) = self.tangent(items, &t, true);
            bound = f64::max(bound, knapsack::bound_of_weight(&tangent, budget + much));
            let (tangent, much) = self.tangent(items, &t, false);
            let Some(s) = knapsack::least_weight(&tangent, budget + much - over) else { break };
            let next = self.amplitudes(items, &s.choice);
            // What swings to and fro is damped.
            let damped = round >= ROUNDS;
            t.iter_mut().zip(next).for_each(|(t, n)| *t = if damped { 0.5 * (*t + n) } else { n });
            let s = self.with_pairs(items, s.choice);
            // The pairs between here and there count for less than they do: less room is left.
            over += (s.error - budget).max(0.0);
            let new = seen.insert(s.choice.clone());
            let rank = |s: &Solution| ((s.error - budget).max(0.0), s.weight);
            if best.as_ref().is_none_or(|b| rank(&s) < rank(b)) {
                best = Some(s);
            } else if !new && best.as_ref().is_some_and(|b| b.error <= budget) {
                break;
            }
        }
        let found = best.filter(|s| s.error <= budget);
        let near = |s: &Solution| s.weight as f64 <= NEAR * bound;
        let other = if found.as_ref().is_some_and(near) { None } else { self.shrunk(items, budget) };
        let s = found.into_iter().chain(other).min_by_key(|s| s.weight)?;
        Some(Solution { bound: bound.min(s.weight as f64), ..s })
    }

    /// What a knapsack without pairs gives for the largest part of the budget whose errors fit in it together; else the
    /// least errors.
    fn shrunk(&self, items: &[Vec<Item>], budget: f64) -> Option<Solution> {
        let fitting = |part: f64| {
            let s = knapsack::least_weight(items, budget * part)?;
            Some(self.with_pairs(items, s.choice)).filter(|s| s.error <= budget)
        };
        let found = (0..=HALVINGS).find_map(|n| Some((0.5f64.powi(n), fitting(0.5f64.powi(n))?)));
        if let Some((part, mut best)) = found {
            for n in 1..PARTS {
                let more = fitting(part * 2f64.powf(f64::from(n) / f64::from(PARTS)));
                best = more.filter(|m| m.weight < best.weight).unwrap_or(best);
            }
            return Some(best);
        }
        let rank = |i: &Item, j: &Item| i.error.total_cmp(&j.error).then(i.weight.cmp(&j.weight));
        let row = |r: &Vec<Item>| (0..r.len()).min_by(|&a, &b| rank(&r[a], &r[b]));
        let least = self.with_pairs(items, items.iter().map(row).collect::<Option<_>>()?);
        Some(least).filter(|s| s.error <= budget)
    }
}

/// The least ρ, about, with which ρ on the diagonal makes a Gram matrix: Cholesky's factors exist.
fn convex(cosines: &[Vec<f64>]) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    if cosines.len() > MANY {
        return high;
    }
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if is_gram(cosines, middle) { high = middle } else { low = middle }
    }
    high
}

fn is_gram(cosines: &[Vec<f64>], diagonal: f64) -> bool {
    let n = cosines.len();
    let mut l = vec![vec![0.0f64; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
            if i == j {
                let pivot = diagonal - sum;
                if pivot < 1e-9 {
                    return false;
                }
                l[i][i] = pivot.sqrt();
            } else {
                l[i][j] = (cosines[i][j] - sum) / l[j][j];
            }
        }
    }
    true
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choices(items: &[Vec<Item>]) -> Vec<Vec<usize>> {
        items.iter().fold(vec![Vec::new()], |all, row| {
            all.iter().flat_map(|c| (0..row.len()).map(move |i| [&c[..], &[i]].concat())).collect()
        })
    }

    prop_compose! {
        fn problem()(n in 2usize..5)(
            items in prop::collection::vec(prop::collection::vec((0u64..60, 1u32..60), 2..4), n),
            along in prop::collection::vec(prop::collection::vec(-1.0f64..1.0, 4), n),
            moves in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 3), n),
        ) -> (Vec<Vec<Item>>, Pairs) {
            let item = |&(weight, e): &(u64, u32)| Item { weight, error: f64::from(e) };
            let items: Vec<Vec<Item>> = items.iter().map(|r| r.iter().map(item).collect()).collect();
            let at = vec![0; items.len()];
            let mut along = along;
            along.iter_mut().for_each(|a| a[0] = 1.0);
            let moves = moves.into_iter().map(Some).collect();
            (items, Pairs::of(&moves, along, at))
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_for_every_choice((items, pairs) in problem(), budget in 1u32..150) {
            let all: Vec<Solution> =
                choices(&items).into_iter().map(|c| pairs.with_pairs(&items, c)).collect();
            let allowed = f64::from(budget);
            let best = all.iter().filter(|s| s.error <= allowed).map(|s| s.weight).min();
            if let Some(s) = pairs.least_weight(&items, allowed) {
                prop_assert!(s.error <= allowed && s.bound <= best.unwrap() as f64 + 1e-6, "{} {best:?}", s.bound);
            }
        }

        /// Of many layers whose errors all add up, all in the one form that fits is no worse than what is found.
        #[test]
        fn layers_that_share_a_direction_are_not_all_kept(budget in -14f64..2.0, shared in 0.3f32..1.0) {
            let forms = [(16, 0.0), (8, 0.0), (6, 1e-4), (5, 1.6e-3), (4, 2.5e-2), (3, 0.4)];
            let row: Vec<Item> = forms.map(|(weight, error)| Item { weight, error }).to_vec();
            let (n, budget) = (24, budget.exp());
            let items = vec![row; n];
            let own = |i: usize| (0..n).map(move |j| if i == j { 1.0 - shared } else { 0.0 });
            let moves = (0..n).map(|i| Some(own(i).chain([shared]).collect())).collect();
            let pairs = Pairs::of(&moves, vec![vec![1.0; forms.len()]; n], vec![4; n]);
            let found = pairs.least_weight(&items, budget).unwrap();
            let even = (1..forms.len()).map(|c| pairs.with_pairs(&items, vec![c; n]));
            let best = even.filter(|s| s.error <= budget).map(|s| s.weight).min().unwrap();
            prop_assert!(found.error <= budget && found.weight <= best, "{} {best}", found.weight);
        }

        #[test]
        fn without_pairs_it_is_the_knapsack((items, _) in problem(), budget in 1u32..150) {
            let (none, at) = (vec![None; items.len()], vec![0; items.len()]);
            let pairs = Pairs::of(&none, vec![vec![1.0; 4]; items.len()], at);
            let plain = knapsack::least_weight(&items, f64::from(budget));
            let found = pairs.least_weight(&items, f64::from(budget));
            prop_assert_eq!(found.map(|s| s.choice), plain.map(|s| s.choice));
        }
    }

    #[test]
    fn errors_that_cancel_are_taken_together() {
        // Each of two layers may lose 4; alone that is too much, together nothing is lost.
        let row = || vec![Item { weight: 10, error: 0.0 }, Item { weight: 5, error: 4.0 }];
        let items = vec![row(), row()];
        let moves = vec![Some(vec![1.0, 0.0]), Some(vec![-1.0, 0.0])];
        let pairs = Pairs::of(&moves, vec![vec![0.0, 1.0]; 2], vec![1, 1]);
        let s = pairs.least_weight(&items, 1.0).unwrap();
        assert_eq!((s.choice, s.error), (vec![1, 1], 0.0));
        assert_eq!(knapsack::least_weight(&items, 1.0).unwrap().choice, [0, 0]);
    }
}
