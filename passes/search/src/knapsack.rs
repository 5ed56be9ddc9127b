//! The multiple-choice knapsack: one candidate per row, least weight within an error budget or least error within
//! a budget of weight. A weight is whatever adds up: stored bytes, or nanoseconds.
//!
//! Dynamic programming over a scaled budget after dominated candidates are dropped. A Lagrangian lower bound tells how
//! far the answer can be from the best. Pure: numbers in, choice out. (Layer-adaptive pruning as a knapsack, extended
//! to every method.)

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// What is minimised or bounded: stored bytes, or nanoseconds of one run.
    pub weight: u64,
    /// Expected distortion of the model output.
    pub error: f64,
}

/// The chosen column of each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    pub choice: Vec<usize>,
    pub weight: u64,
    pub error: f64,
    /// No selection does better than this in the minimised quantity.
    pub bound: f64,
}

impl Solution {
    /// How far the answer can be from the best, as a share of the answer.
    pub fn gap(&self, minimised: f64) -> f64 {
        if minimised <= 0.0 { 0.0 } else { ((minimised - self.bound) / minimised).max(0.0) }
    }
}

/// Cells of the budget axis. Weights are rounded up and errors too, so a budget is never broken.
const CELLS: usize = 20_000;

/// Least weight with total error at most `budget`; `None` when even the least error exceeds it.
pub fn least_weight(rows: &[Vec<Item>], budget: f64) -> Option<Solution> {
    let costs = |i: &Item| i.error;
    let (choice, exact) = solve(rows, budget, costs, |i| i.weight as f64)?;
    let bound = lagrange(rows, budget, costs, |i| i.weight as f64);
    Some(finish(rows, choice, bound, exact, |s| s.weight as f64))
}

/// Least error with total weight at most `budget`; `None` when even the lightest selection is heavier.
pub fn least_error(rows: &[Vec<Item>], budget: u64) -> Option<Solution> {
    let costs = |i: &Item| i.weight as f64;
    let (choice, exact) = solve(rows, budget as f64, costs, |i| i.error)?;
    let bound = lagrange(rows, budget as f64, costs, |i| i.error);
    Some(finish(rows, choice, bound, exact, |s| s.error))
}

/// No selection with total error at most `budget` weighs less.
pub fn bound_of_weight(rows: &[Vec<Item>], budget: f64) -> f64 {
    lagrange(rows, budget, |i| i.error, |i| i.weight as f64)
}

/// As [`least_weight`], by steps of least price alone.
pub fn greedy_weight(rows: &[Vec<Item>], budget: f64) -> Option<Solution> {
    let costs = |i: &Item| i.error;
    let choice = greedy(rows, budget, &costs, &|i| i.weight as f64)?;
    let bound = lagrange(rows, budget, costs, |i| i.weight as f64);
    Some(finish(rows, choice, bound, false, |s| s.weight as f64))
}

/// As [`least_error`], by steps of least price alone.
pub fn greedy_error(rows: &[Vec<Item>], budget: u64) -> Option<Solution> {
    let costs = |i: &Item| i.weight as f64;
    let choice = greedy(rows, budget as f64, &costs, &|i| i.error)?;
    let bound = lagrange(rows, budget as f64, costs, |i| i.error);
    Some(finish(rows, choice, bound, false, |s| s.error))
}

fn greedy(
    rows: &[Vec<Item>],
    budget: f64,
    cost: &dyn Fn(&Item) -> f64,
    value: &dyn Fn(&Item) -> f64,
) -> Option<Vec<usize>> {
    let kept: Vec<Vec<usize>> = rows.iter().map(|r| frontier(r, cost, value)).collect();
    if kept.iter().any(Vec::is_empty) {
        return None;
    }
    let least: f64 = rows.iter().zip(&kept).map(|(r, k)| cost(&r[k[0]])).sum();
    (least <= budget).then(|| by_price(rows, &kept, budget, cost, value))
}

fn finish(
    rows: &[Vec<Item>],
    choice: Vec<usize>,
    bound: f64,
    exact: bool,
    value: impl Fn(&Solution) -> f64,
) -> Solution {
    let picked = || rows.iter().zip(&choice).map(|(r, &c)| &r[c]);
    let (weight, error) = (picked().map(|i| i.weight).sum(), picked().map(|i| i.error).sum());
    let mut s = Solution { choice, weight, error, bound };
    let v = value(&s);
    s.bound = if exact { v } else { bound.min(v) };
    s
}

/// Columns of a row that no other column beats in both quantities, by ascending cost (descending value).
pub fn undominated(row: &[Item]) -> Vec<usize> {
    frontier(row, &|i| i.weight as f64, &|i| i.error)
}

fn frontier(row: &[Item], cost: &dyn Fn(&Item) -> f64, value: &dyn Fn(&Item) -> f64) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..row.len()).filter(|&i| cost(&row[i]).is_finite() && value(&row[i]).is_finite()).collect();
    order.sort_by(|&a, &b| {
        cost(&row[a])
            .total_cmp(&cost(&row[b]))
            .then(value(&row[a]).total_cmp(&value(&row[b])))
            .then(a.cmp(&b))
    });
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.last().is_none_or(|&k| value(&row[i]) < value(&row[k])) {
            kept.push(i);
        }
    }
    kept
}

/// Columns on the lower convex hull of (cost, value): the only ones a price per unit of cost can select.
fn hull(
    row: &[Item],
    kept: &[usize],
    cost: &dyn Fn(&Item) -> f64,
    value: &dyn Fn(&Item) -> f64,
) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    for &i in kept {
        while let [.., a, b] = hull[..] {
            let cross = (cost(&row[b]) - cost(&row[a])) * (value(&row[i]) - value(&row[a]))
                - (value(&row[b]) - value(&row[a])) * (cost(&row[i]) - cost(&row[a]));
            if cross > 0.0 {
                break;
            }
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

fn solve(
    rows: &[Vec<Item>],
    budget: f64,
    cost: impl Fn(&Item) -> f64,
    value: impl Fn(&Item) -> f64,
) -> Option<(Vec<usize>, bool)> {
    let kept: Vec<Vec<usize>> = rows.iter().map(|r| frontier(r, &cost, &value)).collect();
    if kept.iter().any(Vec::is_empty) {
        return None;
    }
    let least: f64 = rows.iter().zip(&kept).map(|(r, k)| cost(&r[k[0]])).sum();
    if least > budget {
        return None;
    }
    let most: f64 = rows.iter().zip(&kept).map(|(r, k)| k.last().map_or(0.0, |&l| cost(&r[l]))).sum();
    if most <= budget {
        return Some((kept.iter().map(|k| k[k.len() - 1]).collect(), true));
    }
    let greedy = by_price(rows, &kept, budget, &cost, &value);
    let dynamic = by_cells(rows, &kept, budget, least, &cost, &value);
    let total = |c: &Vec<usize>| rows.iter().zip(c).map(|(r, &i)| value(&r[i])).sum::<f64>();
    let best = match dynamic {
        Some(d) if total(&d) <= total(&greedy) => d,
        _ => greedy,
    };
    Some((best, false))
}

/// Table over the budget above the least selection: `best[b]` is the least value within `b` cells.
fn by_cells(
    rows: &[Vec<Item>],
    kept: &[Vec<usize>],
    budget: f64,
    least: f64,
    cost: &dyn Fn(&Item) -> f64,
    value: &dyn Fn(&Item) -> f64,
) -> Option<Vec<usize>> {
    // Costs are counted above each row's cheapest column; rounding up stays inside the budget.
    let whole = rows.iter().flatten().all(|i| cost(i).fract() == 0.0) && budget - least <= CELLS as f64;
    let cell = if whole { 1.0 } else { (budget - least) / CELLS as f64 };
    let cells = if cell > 0.0 { ((budget - least) / cell).floor() as usize } else { 0 };
    let mut best = vec![0.0f64; cells + 1];
    let mut picks: Vec<Vec<u16>> = Vec::with_capacity(rows.len());
    for (row, columns) in rows.iter().zip(kept) {
        let base = cost(&row[columns[0]]);
        let mut next = vec![f64::MAX; cells + 1];
        let mut pick = vec![0u16; cells + 1];
        for (p, &c) in columns.iter().enumerate().take(usize::from(u16::MAX)) {
            let over = cost(&row[c]) - base;
            let w = if over <= 0.0 {
                0
            } else if cell > 0.0 {
                (over / cell - 1e-9).ceil().max(0.0) as usize
            } else {
                cells + 1
            };
            let v = value(&row[c]);
            for b in w..=cells {
                let total = best[b - w] + v;
                if total < next[b] {
                    next[b] = total;
                    pick[b] = p as u16;
                }
            }
        }
        best = next;
        picks.push(pick);
    }
    let mut b = cells;
    let mut choice = vec![0; rows.len()];
    for (r, row) in rows.iter().enumerate().rev() {
        let c = kept[r][usize::from(picks[r][b])];
        choice[r] = c;
        let over = cost(&row[c]) - cost(&row[kept[r][0]]);
        let w = if over <= 0.0 { 0 } else { (over / cell - 1e-9).ceil().max(0.0) as usize };
        b = b.checked_sub(w)?;
    }
    let spent: f64 = rows.iter().zip(&choice).map(|(r, &c)| cost(&r[c])).sum();
    (spent <= budget * (1.0 + 1e-12)).then_some(choice)
}

/// Takes hull steps in order of value gained per cost until the budget is used.
fn by_price(
    rows: &[Vec<Item>],
    kept: &[Vec<usize>],
    budget: f64,
    cost: &dyn Fn(&Item) -> f64,
    value: &dyn Fn(&Item) -> f64,
) -> Vec<usize> {
    let mut choice: Vec<usize> = kept.iter().map(|k| k[0]).collect();
    let mut spent: f64 = rows.iter().zip(&choice).map(|(r, &c)| cost(&r[c])).sum();
    let mut steps: Vec<(f64, usize, usize, usize)> = Vec::new();
    for (r, row) in rows.iter().enumerate() {
        for pair in hull(row, &kept[r], cost, value).windows(2) {
            let (from, to) = (&row[pair[0]], &row[pair[1]]);
            steps.push(((value(from) - value(to)) / (cost(to) - cost(from)), r, pair[0], pair[1]));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, r, from, to) in steps {
        let extra = cost(&rows[r][to]) - cost(&rows[r][from]);
        if choice[r] == from && spent + extra <= budget {
            spent += extra;
            choice[r] = to;
        }
    }
    choice
}

/// max over prices λ ≥ 0 of `Σ min_c (value + λ·cost) − λ·budget`: no selection within the budget has less value.
fn lagrange(
    rows: &[Vec<Item>],
    budget: f64,
    cost: impl Fn(&Item) -> f64,
    value: impl Fn(&Item) -> f64,
) -> f64 {
    let dual = |price: f64| -> f64 {
        let total: f64 = rows
            .iter()
            .map(|r| {
                r.iter().map(|i| value(i) + price * cost(i)).filter(|v| !v.is_nan()).fold(f64::MAX, f64::min)
            })
            .sum();
        total - price * budget
    };
    // The dual is concave; its maximum is where the price passes one of the hull's slopes.
    let mut prices: Vec<f64> = vec![0.0];
    for row in rows {
        let kept = frontier(row, &cost, &value);
        for p in hull(row, &kept, &cost, &value).windows(2) {
            prices.push((value(&row[p[0]]) - value(&row[p[1]])) / (cost(&row[p[1]]) - cost(&row[p[0]])));
        }
    }
    prices.sort_by(f64::total_cmp);
    let (mut lo, mut hi) = (0, prices.len() - 1);
    while lo < hi {
        let mid = (lo + hi) / 2;
        if dual(prices[mid]) < dual(prices[mid + 1]) { lo = mid + 1 } else { hi = mid }
    }
    // Equal neighbours can stall a search on slopes; look around.
    let around = lo.saturating_sub(2)..(lo + 3).min(prices.len());
    around.map(|i| dual(prices[i])).fold(dual(0.0), f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(rows: &[Vec<Item>]) -> Vec<(u64, f64)> {
        rows.iter().fold(vec![(0, 0.0)], |acc, r| {
            acc.iter().flat_map(|a| r.iter().map(move |i| (a.0 + i.weight, a.1 + i.error))).collect()
        })
    }

    fn table() -> impl Strategy<Value = Vec<Vec<Item>>> {
        let item = (0u64..60, 0u32..60).prop_map(|(weight, e)| Item { weight, error: f64::from(e) });
        prop::collection::vec(prop::collection::vec(item, 1..5), 1..6)
    }

    proptest! {
        #[test]
        fn least_error_equals_brute_force(rows in table(), budget in 0u64..200) {
            let best = all(&rows).into_iter().filter(|s| s.0 <= budget).map(|s| s.1).min_by(f64::total_cmp);
            match least_error(&rows, budget) {
                None => prop_assert!(best.is_none()),
                Some(s) => {
                    prop_assert_eq!(Some(s.error), best);
                    prop_assert!(s.weight <= budget);
                    prop_assert!(s.bound <= s.error + 1e-9);
                }
            }
        }

        #[test]
        fn least_weight_equals_brute_force(rows in table(), budget in 0u32..200) {
            let budget = f64::from(budget);
            let best = all(&rows).into_iter().filter(|s| s.1 <= budget).map(|s| s.0).min();
            match least_weight(&rows, budget) {
                None => prop_assert!(best.is_none()),
                Some(s) => {
                    prop_assert_eq!(Some(s.weight), best);
                    prop_assert!(s.error <= budget + 1e-9);
                    prop_assert!(s.bound <= s.weight as f64 + 1e-6);
                }
            }
        }
    }

    #[test]
    fn scaled_budgets_stay_within_the_gap() {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as f64 / f64::from(1u32 << 31)
        };
        let rows: Vec<Vec<Item>> = (0..60)
            .map(|_| {
                let (size, gain) = (1e3 + 1e6 * next(), next());
                (2..9u32)
                    .map(|b| Item {
                        weight: (size * f64::from(b) / 8.0) as u64,
                        error: gain * 0.25f64.powi(b as i32),
                    })
                    .collect()
            })
            .collect();
        let s = least_weight(&rows, 1e-3).unwrap();
        assert!(s.error <= 1e-3);
        assert!(s.gap(s.weight as f64) < 0.01, "{}", s.gap(s.weight as f64));
        let e = least_error(&rows, s.weight).unwrap();
        assert!(e.error <= s.error * (1.0 + 1e-9) && e.gap(e.error) < 0.05);
    }

    #[test]
    fn impossible_and_empty() {
        assert_eq!(least_error(&[vec![Item { weight: 5, error: 0.0 }]], 4), None);
        assert_eq!(least_weight(&[vec![]], 1.0), None);
        assert_eq!(least_weight(&[], 1.0).unwrap().weight, 0);
    }
}
