//! Selections in which several layers store something together: what one of them pays depends on who else uses it.
//!
//! Items are priced as if all members used what is common, so no selection takes fewer bytes than the knapsack's bound says.
//! If the answer at these prices uses nothing common, it is the answer. Otherwise what it uses is paid in advance, members pay
//! what is their own, and the least used of it is given up again while the whole gets better; without any of it the
//! knapsack is solved too.

use crate::knapsack::{self, Item, Solution};
use crate::pairs::Pairs;
use crate::table::Row;
use std::collections::{BTreeMap, BTreeSet};

/// Selections with less in common that are looked at.
const TRIES: usize = 8;

/// Which columns use something common: what, and the part of it in their price.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    of: BTreeMap<(usize, usize), (usize, u64)>,
    /// Bytes of each.
    bytes: Vec<u64>,
}

type Set = BTreeSet<usize>;

impl Shares {
    pub fn of(rows: &[Row]) -> Shares {
        let (mut ids, mut shares) = (BTreeMap::new(), Shares::default());
        for (r, row) in rows.iter().enumerate() {
            for (c, o) in row.candidates.iter().enumerate() {
                let Some(common) = o.head.common else { continue };
                let which = *ids.entry(common.id).or_insert_with(|| {
                    shares.bytes.push(common.bytes);
                    shares.bytes.len() - 1
                });
                shares.of.insert((r, c + 1), (which, common.part()));
            }
        }
        shares
    }

    fn uses<'a>(&'a self, choice: &'a [usize]) -> impl Iterator<Item = (usize, u64)> + 'a {
        choice.iter().enumerate().filter_map(|(r, &c)| self.of.get(&(r, c)).copied())
    }

    fn used(&self, choice: &[usize]) -> Set {
        self.uses(choice).map(|u| u.0).collect()
    }

    fn total(&self, which: &Set) -> u64 {
        which.iter().map(|&b| self.bytes[b]).sum()
    }

    /// Bytes of a selection, what is common once.
    pub fn weight(&self, items: &[Vec<Item>], choice: &[usize]) -> u64 {
        let all: u64 = items.iter().zip(choice).filter_map(|(r, &c)| r.get(c)).map(|i| i.weight).sum();
        let parts: u64 = self.uses(choice).map(|u| u.1).sum();
        all - parts + self.total(&self.used(choice))
    }

    /// Items where these are paid and no others may be used.
    fn paid(&self, items: &[Vec<Item>], open: &Set) -> Vec<Vec<Item>> {
        let mut items = items.to_vec();
        for (&(r, c), &(which, part)) in &self.of {
            let Some(i) = items.get_mut(r).and_then(|row| row.get_mut(c)) else { continue };
            i.weight = i.weight.saturating_sub(part);
            if !open.contains(&which) {
                i.error = f64::INFINITY;
            }
        }
        items
    }

    /// Items without those that use something common.
    pub fn none(&self, items: &[Vec<Item>]) -> Vec<Vec<Item>> {
        self.paid(items, &Set::new())
    }

    /// Least bytes within an error, with what errors do together where that is known.
    pub fn least_weight(&self, items: &[Vec<Item>], budget: f64, pairs: Option<&Pairs>) -> Option<Solution> {
        let solve = |items: &[Vec<Item>]| match pairs {
            Some(p) => p.least_weight(items, budget),
            None => knapsack::least_weight(items, budget),
        };
        self.best(items, |items, _| solve(items), |s| (s.weight as f64, s.error))
    }

    /// Least error within bytes.
    pub fn least_error(&self, items: &[Vec<Item>], bytes: u64) -> Option<Solution> {
        let solve = |items: &[Vec<Item>], paid| knapsack::least_error(items, bytes.checked_sub(paid)?);
        self.best(items, solve, |s| (s.error, s.weight as f64))
    }

    /// The best of `solve` for items of which so many bytes are paid already.
    fn best(
        &self,
        items: &[Vec<Item>],
        solve: impl Fn(&[Vec<Item>], u64) -> Option<Solution>,
        rank: impl Fn(&Solution) -> (f64, f64),
    ) -> Option<Solution> {
        let first = solve(items, 0)?;
        let mut open = self.used(&first.choice);
        if open.is_empty() {
            return Some(first);
        }
        let with = |open: &Set| {
            let s = solve(&self.paid(items, open), self.total(open))?;
            let weight = self.weight(items, &s.choice);
            Some(Solution { weight, ..s })
        };
        let better = |a: &Option<Solution>, b: &Option<Solution>| match (a, b) {
            (Some(a), Some(b)) => rank(a) < rank(b),
            (a, _) => a.is_some(),
        };
        let none = with(&Set::new());
        let (mut best, mut step) = (with(&open), open.len());
        for _ in 0..TRIES {
            // What was paid and not used leaves room.
            let left = match &best {
                Some(s) if self.used(&s.choice).len() < open.len() => self.used(&s.choice),
                _ if step > 0 => self.without_least(&open, best.as_ref().unwrap_or(&first), step),
                _ => break,
            };
            let found = with(&left);
            if better(&found, &best) {
                (best, open) = (found, left);
                step = step.min(open.len());
            } else {
                step /= 2;
            }
        }
        let s = if better(&none, &best) { none } else { best }?;
        // Prices were least at first.
        Some(Solution { bound: first.bound.min(rank(&s).0), ..s })
    }

    /// Without the `n` that fewest layers use.
    fn without_least(&self, open: &Set, s: &Solution, n: usize) -> Set {
        let mut users: BTreeMap<usize, usize> = open.iter().map(|&b| (b, 0)).collect();
        self.uses(&s.choice).for_each(|(b, _)| *users.entry(b).or_default() += 1);
        let mut order: Vec<(usize, usize)> = users.into_iter().map(|(b, n)| (n, b)).collect();
        order.sort_unstable();
        order.into_iter().skip(n).map(|(_, b)| b).collect()
    }
}

#[cfg(test)]
mod on_a_model;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        /// Rows of a column to keep and some others, of which the last two may use one of two things in common.
        fn problem()(n in 1usize..5)(
            rows in prop::collection::vec(prop::collection::vec((1u64..40, 1u32..40), 4), n),
            bytes in prop::collection::vec(0u64..60, 2),
        ) -> (Vec<Vec<Item>>, Shares) {
            let (mut shares, members) = (Shares { bytes, ..Shares::default() }, rows.len() as u64);
            let mut items = Vec::new();
            for (r, row) in rows.iter().enumerate() {
                let mut of = vec![Item { weight: 60, error: 0.0 }];
                for (c, &(weight, e)) in row.iter().enumerate() {
                    let part = if c < 2 { 0 } else { shares.bytes[c - 2] / members };
                    of.push(Item { weight: weight + part, error: f64::from(e) });
                    if c >= 2 {
                        shares.of.insert((r, c + 1), (c - 2, part));
                    }
                }
                items.push(of);
            }
            (items, shares)
        }
    }

    fn choices(items: &[Vec<Item>]) -> Vec<Vec<usize>> {
        items.iter().fold(vec![Vec::new()], |all, row| {
            all.iter().flat_map(|c| (0..row.len()).map(move |i| [&c[..], &[i]].concat())).collect()
        })
    }

    proptest! {
        #[test]
        fn bounds_hold_and_nothing_common_is_never_better((items, shares) in problem(), budget in 1u32..150) {
            let allowed = f64::from(budget);
            let error = |c: &[usize]| items.iter().zip(c).map(|(r, &c)| r[c].error).sum::<f64>();
            let fit = choices(&items).into_iter().filter(|c| error(c) <= allowed);
            let least = fit.map(|c| shares.weight(&items, &c)).min().unwrap();
            let s = shares.least_weight(&items, allowed, None).unwrap();
            prop_assert!(s.weight == shares.weight(&items, &s.choice) && error(&s.choice) <= allowed);
            prop_assert!(s.bound <= least as f64 + 1e-6 && least <= s.weight);
            let none = knapsack::least_weight(&shares.none(&items), allowed).unwrap();
            prop_assert!(s.weight <= none.weight);
        }

        #[test]
        fn a_size_is_kept((items, shares) in problem(), bytes in 1u64..300) {
            let all = choices(&items);
            let fit = all.iter().filter(|c| shares.weight(&items, c) <= bytes).count();
            match shares.least_error(&items, bytes) {
                Some(s) => {
                    let none = knapsack::least_error(&shares.none(&items), bytes);
                    prop_assert!(s.weight <= bytes && none.is_none_or(|n| s.error <= n.error));
                }
                None => prop_assert!(knapsack::least_error(&shares.none(&items), bytes).is_none() || fit == 0),
            }
        }
    }

    #[test]
    fn what_one_layer_alone_would_pay_is_not_bought() {
        // Two layers: the common form takes 2 bytes and 20 for both, the other one 10.
        let row = |common: f64| {
            vec![
                Item { weight: 50, error: 0.0 },
                Item { weight: 15, error: 1.0 },
                Item { weight: 12, error: common },
            ]
        };
        let mut shares = Shares { bytes: vec![20], ..Shares::default() };
        shares.of.extend([((0, 2), (0, 10)), ((1, 2), (0, 10))]);
        let both = shares.least_weight(&[row(1.0), row(1.0)], 2.0, None).unwrap();
        assert_eq!((both.choice, both.weight), (vec![2, 2], 24));
        let one = shares.least_weight(&[row(1.0), row(9.0)], 2.0, None).unwrap();
        assert_eq!((one.choice, one.weight), (vec![1, 1], 30));
    }
}
