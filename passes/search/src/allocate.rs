//! How layers share a budget: by dynamic programming, or by what it is compared with.

use crate::Search;
use crate::knapsack::{self, Item, Solution};
use crate::table::Row;
use std::collections::BTreeSet;

/// How layers share a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocation {
    /// The multiple-choice knapsack.
    #[default]
    Dynamic,
    /// Steps of least price, one after the other.
    Greedy,
    /// One recipe for all layers that have it.
    Uniform,
    /// For a sparsity: one threshold on the magnitude of all weights.
    Global,
}

impl Allocation {
    pub const NAMED: &[(&str, Allocation)] =
        &[("greedy", Allocation::Greedy), ("uniform", Allocation::Uniform), ("global", Allocation::Global)];
}

impl Search<'_> {
    /// Least bytes within an error.
    pub(crate) fn least_bytes(&self, budget: f64) -> Option<Solution> {
        match self.options.allocation {
            Allocation::Dynamic => self.shares.least_weight(&self.items, budget, self.pairs.as_deref()),
            Allocation::Greedy => knapsack::greedy_weight(&self.shares.none(&self.items), budget),
            Allocation::Uniform | Allocation::Global => {
                let fit = self.uniform().into_iter().filter(|s| s.error <= budget);
                fit.min_by(|a, b| a.weight.cmp(&b.weight).then(a.error.total_cmp(&b.error)))
            }
        }
    }

    /// Least error within bytes, by the sum alone: with large errors a search through products that few samples measured finds
    /// the ones that are off (efficientnet-lite0 at 3.1 MB agrees on 0.850 with them, on 0.879 without).
    pub(crate) fn least_error(&self, bytes: u64) -> Option<Solution> {
        match self.options.allocation {
            Allocation::Dynamic => self.shares.least_error(&self.items, bytes),
            Allocation::Greedy => knapsack::greedy_error(&self.shares.none(&self.items), bytes),
            Allocation::Uniform | Allocation::Global => {
                let fit = self.uniform().into_iter().filter(|s| s.weight <= bytes);
                fit.min_by(|a, b| a.error.total_cmp(&b.error).then(a.weight.cmp(&b.weight)))
            }
        }
    }

    /// The sums of a choice, with what its errors do together; nothing is known of how good it is.
    pub(crate) fn solution(&self, choice: Vec<usize>) -> Solution {
        let together = self.pairs.as_ref().map_or(0.0, |p| p.together(&self.items, &choice));
        let s = solution(&self.items, choice);
        let weight = self.shares.weight(&self.items, &s.choice);
        Solution { error: (s.error + together).max(0.0), weight, ..s }
    }

    /// Every recipe in all layers that have it; the others take the next larger candidate of its method, or stay.
    pub(crate) fn uniform(&self) -> Vec<Solution> {
        let all: BTreeSet<(&str, &str)> = self
            .rows
            .iter()
            .flat_map(|r| r.candidates.iter().map(|o| (o.head.recipe.as_str(), o.head.method)))
            .collect();
        let column = |r: &Row, (recipe, method): (&str, &str)| {
            let exact = r.candidates.iter().position(|o| o.head.recipe == recipe);
            let same = || {
                let of = (0..r.candidates.len()).filter(|&i| r.candidates[i].head.method == method);
                of.min_by(|&a, &b| r.candidates[a].head.error.total_cmp(&r.candidates[b].head.error))
            };
            exact.or_else(same).map_or(0, |i| i + 1)
        };
        let kept = vec![0; self.rows.len()];
        let of = |recipe| self.rows.iter().map(|r| column(r, recipe)).collect::<Vec<usize>>();
        all.into_iter().map(of).chain([kept]).map(|choice| self.solution(choice)).collect()
    }
}

/// The sums of a choice; nothing is known of how good it is.
pub fn solution(items: &[Vec<Item>], choice: Vec<usize>) -> Solution {
    let picked = || items.iter().zip(&choice).filter_map(|(r, &c)| r.get(c));
    let (weight, error) = (picked().map(|i| i.weight).sum(), picked().map(|i| i.error).sum());
    Solution { choice, weight, error, bound: 0.0 }
}
