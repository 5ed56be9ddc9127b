//! Choosing for time: nanoseconds of every layer in every form, and selections by them.
//!
//! What a layer costs depends on its neighbours: between two layers with integer activations bytes are handed on and no
//! quantization stands alone. So weights are those of single changes to a selection; the knapsack is solved with them, its
//! answer is the next selection they are taken at, until it stays. The total of a selection is always counted exactly.

use crate::calibrate::concrete;
use crate::clock::{Clock, Piece};
use crate::decision::{LayerDecision, RunnerUp};
use crate::goal::{Progress, late};
use crate::knapsack::{Item, Solution, least_error, least_weight};
use crate::piece::{Ports, Quantized, Site, piece, quantized, site};
use crate::shelf::Shelf;
use crate::table::Row;
use ir::{Feeds, Graph, Result, Use, ValueId};
use lossy::{Replaces, Role};

/// A knapsack solved with weights by selection, and the lightest weight of all.
type Solve<'a> = &'a dyn Fn(&[Vec<Item>], f64) -> Option<Solution>;

/// Share of the time after which no more layers are timed.
const TIMED: f64 = 0.7;
/// Selections that one knapsack starts from another's.
const ROUNDS: usize = 4;
/// Sweeps of single changes over a selection.
const SWEEPS: usize = 3;
/// Weights that are only stored otherwise must be at least this much faster to count: where they are unpacked beforehand, a
/// difference is noise.
const WORTH: f64 = 0.85;

/// Nanoseconds that a byte counts for where it takes no time in a run: enough to prefer the smaller of two forms.
const PER_BYTE: f64 = 1e-4;

/// Time of one form of a layer, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cost {
    Floats(f64),
    /// By [`Ports::index`].
    Integers([f64; 4], Quantized),
}

/// One layer.
#[derive(Debug, Clone, Default)]
struct Timed {
    /// By column of the knapsack; `None` for what was not timed and stays as it is.
    columns: Vec<Option<Cost>>,
    /// Tables and other constants: no run takes longer for how they are stored.
    timeless: bool,
    /// The layer whose result this one reads.
    source: Option<usize>,
    /// Layers that read the result, when nothing else does.
    readers: Vec<usize>,
    /// Layers that read the same value, this one included.
    siblings: Vec<usize>,
}

/// Times of all layers.
#[derive(Debug, Clone)]
pub struct Costs {
    /// Nanoseconds of the original as a whole.
    whole: f64,
    rows: Vec<Timed>,
}

impl Costs {
    /// Times every form of every layer that can be timed; `None` when the model as a whole cannot.
    pub fn measure(
        graph: &Graph,
        rows: &[Row],
        feeds: &Feeds,
        shelf: &dyn Shelf,
        clock: &dyn Clock,
        progress: &dyn Progress,
    ) -> Result<Option<Costs>> {
        progress.stage("timing", rows.len());
        let Some(whole) = clock.race(&[graph], feeds).and_then(|s| s.first().copied()) else {
            return Ok(None);
        };
        let sized = concrete(graph, feeds);
        let sites: Vec<Option<Site>> = rows
            .iter()
            .map(|r| site(sized.as_ref()?, &r.layer).filter(|_| !r.candidates.is_empty()))
            .collect();
        let mut timed = linked(graph, rows, &sites);
        let mut done = 0;
        for ((row, site), t) in rows.iter().zip(&sites).zip(&mut timed) {
            crate::goal::check(progress)?;
            if let (Some(site), Some(sized), false) = (site, &sized, late(progress, TIMED)) {
                t.columns = columns(sized, row, site, t, shelf, clock)?;
            }
            done += usize::from(site.is_some() && !t.columns.is_empty());
            if site.is_none() && matches!(row.layer.role, Role::Embedding | Role::Constant) {
                let items = row.items();
                let stored = |c: usize| row.candidate(c).is_none_or(|o| o.head.replaces == Replaces::Weight);
                let cost = |c: usize| stored(c).then_some(Cost::Floats(PER_BYTE * items[c].weight as f64));
                (t.columns, t.timeless) = ((0..items.len()).map(cost).collect(), true);
            }
            t.columns.resize(row.candidates.len() + 1, None);
            progress.step();
        }
        let of = sites.iter().flatten().count();
        if done < of {
            progress.cut("layers timed", done, of);
        }
        Ok(Some(Costs { whole: whole.median_ms * 1e6, rows: timed }))
    }

    /// Nanoseconds of the whole model with this selection.
    pub fn total(&self, choice: &[usize]) -> f64 {
        let kept = vec![0; choice.len()];
        let change = |r: usize| match self.rows[r].columns[0] {
            Some(_) => self.of(r, choice) - self.of(r, &kept),
            None => 0.0,
        };
        self.whole + (0..choice.len()).map(change).sum::<f64>()
    }

    /// Least time with total error at most `budget`.
    pub fn least(&self, items: &[Vec<Item>], budget: f64) -> Option<Solution> {
        let solve = |linear: &[Vec<Item>], _| least_weight(linear, budget);
        let fits = |s: &Solution| s.error <= budget * (1.0 + 1e-9);
        let better = |a: &Solution, b: &Solution| (a.weight, a.error) < (b.weight, b.error);
        self.settle(items, &solve, &fits, &better)
    }

    /// Least error with a total time of at most `nanoseconds`.
    pub fn least_error(&self, items: &[Vec<Item>], nanoseconds: f64) -> Option<Solution> {
        let solve = |linear: &[Vec<Item>], lightest: f64| {
            let room = nanoseconds - lightest;
            (room >= 0.0).then(|| least_error(linear, room as u64))?
        };
        let fits = |s: &Solution| s.weight as f64 <= nanoseconds;
        let better = |a: &Solution, b: &Solution| (a.error, a.weight) < (b.error, b.weight);
        self.settle(items, &solve, &fits, &better)
    }

    /// Solves with the weights at a selection, and again at the answer, until that stays; the best of all that fit.
    fn settle(
        &self,
        items: &[Vec<Item>],
        solve: Solve,
        fits: &dyn Fn(&Solution) -> bool,
        better: &dyn Fn(&Solution, &Solution) -> bool,
    ) -> Option<Solution> {
        let mut best: Option<Solution> = None;
        let integers = |r: usize| {
            let integer = |&c: &usize| matches!(self.rows[r].columns[c], Some(Cost::Integers(..)));
            let error = |&c: &usize| items[r][c].error;
            (0..items[r].len()).filter(integer).min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(0)
        };
        for start in [(0..items.len()).map(integers).collect(), vec![0; items.len()]] {
            let mut at: Vec<usize> = start;
            for _ in 0..ROUNDS {
                let (linear, lightest) = self.linear(items, &at);
                let Some(found) = solve(&linear, lightest) else { break };
                let s = self.polished(items, found.choice, fits, better);
                if fits(&s) && best.as_ref().is_none_or(|b| better(&s, b)) {
                    best = Some(s.clone());
                }
                if s.choice == at {
                    break;
                }
                at = s.choice;
            }
        }
        best
    }

    /// The selection after single changes that make it better.
    fn polished(
        &self,
        items: &[Vec<Item>],
        choice: Vec<usize>,
        fits: &dyn Fn(&Solution) -> bool,
        better: &dyn Fn(&Solution, &Solution) -> bool,
    ) -> Solution {
        let mut now = self.solution(items, choice);
        for _ in 0..SWEEPS {
            let before = now.choice.clone();
            for r in 0..items.len() {
                for c in self.open(items, r) {
                    let mut choice = now.choice.clone();
                    choice[r] = c;
                    let change = self.change(r, &now.choice, c);
                    let s = Solution {
                        weight: (now.weight as f64 + change).max(0.0) as u64,
                        error: now.error - items[r][now.choice[r]].error + items[r][c].error,
                        choice,
                        bound: 0.0,
                    };
                    let repairs = !fits(&now) && s.error.is_finite();
                    if c != now.choice[r] && fits(&s) && (repairs || better(&s, &now)) {
                        now = s;
                    }
                }
            }
            now = self.solution(items, now.choice);
            if now.choice == before {
                break;
            }
        }
        now
    }

    fn solution(&self, items: &[Vec<Item>], choice: Vec<usize>) -> Solution {
        let error = items.iter().zip(&choice).map(|(r, &c)| r[c].error).sum();
        Solution { weight: self.total(&choice).max(0.0) as u64, error, choice, bound: 0.0 }
    }

    /// Columns of a row that may be chosen: those that were timed, or what the user asked for.
    fn open<'a>(&'a self, items: &'a [Vec<Item>], r: usize) -> impl Iterator<Item = usize> + 'a {
        let forced = items[r].first().is_none_or(|keep| !keep.error.is_finite());
        (0..items[r].len()).filter(move |&c| {
            items[r][c].error.is_finite() && (c == 0 || forced || self.rows[r].columns[c].is_some())
        })
    }

    /// Every column with the nanoseconds that choosing it adds to the lightest of its row, the others as in `at`; and the
    /// total time of the lightest columns.
    fn linear(&self, items: &[Vec<Item>], at: &[usize]) -> (Vec<Vec<Item>>, f64) {
        let mut lightest = self.total(at);
        let mut linear = Vec::new();
        for (r, row) in items.iter().enumerate() {
            let mut changes = vec![f64::INFINITY; row.len()];
            self.open(items, r).for_each(|c| changes[c] = self.change(r, at, c));
            let least = changes.iter().copied().fold(f64::INFINITY, f64::min);
            let least = if least.is_finite() { least } else { 0.0 };
            lightest += least;
            linear.push(
                row.iter()
                    .zip(changes)
                    .map(|(i, change)| match change.is_finite() {
                        true => Item { weight: (change - least).round() as u64, error: i.error },
                        false => Item { weight: 0, error: f64::INFINITY },
                    })
                    .collect(),
            );
        }
        (linear, lightest)
    }

    /// What choosing column `c` in row `r` of the selection `at` changes, neighbours included.
    fn change(&self, r: usize, at: &[usize], c: usize) -> f64 {
        let t = &self.rows[r];
        let mut near: Vec<usize> = t.source.into_iter().chain(t.readers.iter().copied()).collect();
        near.extend(t.siblings.iter().copied());
        // Whether the source hands on bytes decides for all that read it, and these are the siblings.
        near.push(r);
        near.sort_unstable();
        near.dedup();
        let mut with = at.to_vec();
        with[r] = c;
        near.iter().map(|&n| self.of(n, &with) - self.of(n, at)).sum()
    }

    /// Nanoseconds of row `r` in a selection.
    fn of(&self, r: usize, choice: &[usize]) -> f64 {
        let t = &self.rows[r];
        match t.columns[choice[r]] {
            None => 0.0,
            Some(Cost::Floats(ns)) => ns,
            Some(Cost::Integers(ns, q)) => {
                let bytes_out = self.gives_bytes(r, choice);
                let at = |bytes_in: bool| ns[Ports { bytes_in, bytes_out }.index()];
                if t.source.is_some_and(|s| self.gives_bytes(s, choice)) {
                    return at(true);
                }
                // One quantization serves all that read the value by the same scale.
                let sharing = t.siblings.iter().filter(|&&s| self.reads(s, choice) == Some(q)).count();
                at(true) + (at(false) - at(true)) / sharing.max(1) as f64
            }
        }
    }

    /// The quantization of what row `r` reads, when it computes with integers.
    fn reads(&self, r: usize, choice: &[usize]) -> Option<Quantized> {
        match self.rows[r].columns[choice[r]] {
            Some(Cost::Integers(_, q)) => Some(q),
            _ => None,
        }
    }

    /// Whether row `r` stores its result as bytes: an integer layer all of whose readers take them by one scale.
    fn gives_bytes(&self, r: usize, choice: &[usize]) -> bool {
        let mut wanted = self.rows[r].readers.iter().map(|&n| self.reads(n, choice));
        let Some(Some(q)) = wanted.next() else { return false };
        self.reads(r, choice).is_some() && wanted.all(|w| w == Some(q))
    }

    /// Adds times to the report's layers: as they were, as they are, and of every candidate beside these neighbours.
    pub fn annotate(&self, rows: &[Row], choice: &[usize], layers: &mut [LayerDecision]) {
        let kept = vec![0; choice.len()];
        for (r, (row, l)) in rows.iter().zip(layers).enumerate() {
            let t = &self.rows[r];
            if t.columns[0].is_none() || t.timeless {
                continue;
            }
            let form = |c: usize| {
                let mut with = choice.to_vec();
                with[r] = c;
                t.columns[c].map(|_| self.of(r, &with))
            };
            l.ns_before = Some(self.of(r, &kept));
            l.ns_after = form(choice[r]);
            l.candidates_ns = (1..t.columns.len()).map(form).collect();
            let now = l.ns_after.unwrap_or(f64::INFINITY);
            let cheaper = (1..t.columns.len())
                .filter_map(|c| Some((form(c)?, c)))
                .filter(|(ns, c)| *ns < now && *c != choice[r])
                .max_by(|a, b| a.0.total_cmp(&b.0));
            l.runner_up = cheaper.and_then(|(ns, c)| {
                let head = &row.candidate(c)?.head;
                let extra_error = head.error * row.gain - l.error;
                Some(RunnerUp { recipe: head.recipe.clone(), bytes: head.bytes, extra_error, ns: Some(ns) })
            });
        }
    }
}

/// Rows with their neighbours, nothing timed yet.
fn linked(graph: &Graph, rows: &[Row], sites: &[Option<Site>]) -> Vec<Timed> {
    let reading = |v: ValueId| -> Vec<usize> {
        (0..rows.len()).filter(|&i| sites[i].as_ref().is_some_and(|s| s.input == v)).collect()
    };
    let of = |site: &Option<Site>| {
        let Some(site) = site else { return Timed::default() };
        let siblings = reading(site.input);
        let source = (0..rows.len()).find(|&i| sites[i].as_ref().is_some_and(|s| s.output == site.input));
        let readers = reading(site.output);
        let alone = graph.uses(site.output).iter().all(|u| match u {
            Use::Input(n, 0) => readers.iter().any(|&r| rows[r].layer.node == *n),
            _ => false,
        });
        Timed {
            columns: Vec::new(),
            source,
            readers: if alone { readers } else { Vec::new() },
            siblings,
            timeless: false,
        }
    };
    sites.iter().map(of).collect()
}

/// Times of every form of one layer, by column; empty when the layer as it is does not run.
fn columns(
    graph: &Graph,
    row: &Row,
    site: &Site,
    t: &Timed,
    shelf: &dyn Shelf,
    clock: &dyn Clock,
) -> Result<Vec<Option<Cost>>> {
    let make = |c: usize, ports: Ports| piece(graph, &row.layer, site, row.candidate(c), ports, shelf);
    let stored = |c: usize| row.candidate(c).is_some_and(|o| o.head.replaces == Replaces::Weight);
    // Weights that are only stored otherwise run the same products, or are read packed: one of them tells.
    let probe = (1..=row.candidates.len()).find(|&c| stored(c));
    let (mut pieces, mut forms): (Vec<Piece>, Vec<(usize, Ports)>) = (Vec::new(), Vec::new());
    for c in 0..=row.candidates.len() {
        if stored(c) && Some(c) != probe {
            continue;
        }
        let integer = row.candidate(c).and_then(quantized).is_some();
        let chained = t.source.is_some() || t.siblings.len() > 1;
        for ports in Ports::ALL {
            let possible = (!ports.bytes_in || chained) && (!ports.bytes_out || !t.readers.is_empty());
            if ports == Ports::FLOATS || (integer && possible) {
                pieces.push(make(c, ports)?);
                forms.push((c, ports));
            }
        }
    }
    let mut times = clock.pieces(&pieces);
    let Some(Some(keep)) = times.first().copied() else { return Ok(Vec::new()) };
    let of_probe =
        forms.iter().position(|f| Some(f.0) == probe).and_then(|i| times.get(i).copied().flatten());
    if of_probe.is_some_and(|ns| ns < WORTH * keep) {
        let others: Vec<usize> =
            (1..=row.candidates.len()).filter(|&c| stored(c) && Some(c) != probe).collect();
        let more: Vec<Piece> = others.iter().map(|&c| make(c, Ports::FLOATS)).collect::<Result<_>>()?;
        times.extend(clock.pieces(&more));
        forms.extend(others.into_iter().map(|c| (c, Ports::FLOATS)));
    }
    let mut columns: Vec<Option<Cost>> = vec![None; row.candidates.len() + 1];
    for ((c, ports), ns) in forms.into_iter().zip(times) {
        let Some(ns) = ns.filter(|&ns| !stored(c) || ns < WORTH * keep) else { continue };
        match (row.candidate(c).and_then(quantized), &mut columns[c]) {
            (Some(_), Some(Cost::Integers(by, _))) => {
                // Forms that were not timed cost what the nearest one does.
                by[ports.index()] = ns;
                if ports.bytes_in && !ports.bytes_out {
                    by[Ports::ALL[3].index()] = ns;
                }
            }
            (Some(q), slot) => *slot = Some(Cost::Integers([ns; 4], q)),
            (None, slot) => *slot = Some(Cost::Floats(ns)),
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: Quantized = Quantized { scale: 1.0, zero: 0 };

    /// A chain of `n` layers: floats take 100, integers by themselves 105, with bytes on one side 80, on both 50.
    fn chain(n: usize) -> (Costs, Vec<Vec<Item>>) {
        let row = |i: usize| Timed {
            columns: vec![
                Some(Cost::Floats(100.0)),
                Some(Cost::Integers([105.0, 80.0, 80.0, 50.0], Q)),
                Some(Cost::Floats(95.0)),
            ],
            source: i.checked_sub(1),
            readers: if i + 1 < n { vec![i + 1] } else { Vec::new() },
            siblings: vec![i],
            timeless: false,
        };
        let costs = Costs { whole: 100.0 * n as f64 + 7.0, rows: (0..n).map(row).collect() };
        let item = |error: f64| Item { weight: 0, error };
        (costs, vec![vec![item(0.0), item(1.0), item(0.5)]; n])
    }

    #[test]
    fn totals_count_what_neighbours_do() {
        let (costs, _) = chain(3);
        assert_eq!(costs.total(&[0, 0, 0]), 307.0);
        assert_eq!(costs.total(&[1, 0, 0]), 312.0);
        assert_eq!(costs.total(&[1, 1, 1]), 80.0 + 50.0 + 80.0 + 7.0);
        assert_eq!(costs.change(1, &[1, 0, 1], 1), 210.0 - 310.0);
    }

    #[test]
    fn chains_of_integers_are_found_although_each_alone_is_slower() {
        let (costs, items) = chain(6);
        let every = |budget: f64| {
            let mut best = f64::INFINITY;
            for n in 0..3usize.pow(6) {
                let choice: Vec<usize> = (0..6u32).map(|i| n / 3usize.pow(i) % 3).collect();
                let error: f64 = choice.iter().map(|&c| [0.0, 1.0, 0.5][c]).sum();
                if error <= budget {
                    best = best.min(costs.total(&choice));
                }
            }
            best
        };
        for budget in [0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0] {
            let s = costs.least(&items, budget).unwrap();
            assert!(s.error <= budget, "{budget} {s:?}");
            assert_eq!(s.weight as f64, costs.total(&s.choice));
            assert!(s.weight as f64 <= 1.08 * every(budget), "{budget} {s:?} {}", every(budget));
        }
        assert_eq!(costs.least(&items, 6.0).unwrap().choice, [1; 6]);
        let s = costs.least_error(&items, costs.total(&[1; 6])).unwrap();
        assert_eq!((s.choice, s.error), (vec![1; 6], 6.0));
        assert_eq!(costs.least_error(&items, 607.0).unwrap().error, 0.0);
        assert!(costs.least_error(&items, 300.0).is_none());
    }

    #[test]
    fn what_was_not_timed_stays_and_what_the_user_asked_for_is_taken() {
        let (mut costs, mut items) = chain(3);
        costs.rows[1].columns = vec![None; 3];
        assert_eq!(costs.least(&items, 6.0).unwrap().choice[1], 0);
        items[1][0].error = f64::INFINITY;
        assert_eq!(costs.least(&items, 6.0).unwrap().choice[1], 2);
    }

    #[test]
    fn one_quantization_serves_all_that_read_a_value() {
        let (mut costs, _) = chain(2);
        for r in 0..2 {
            costs.rows[r] =
                Timed { source: None, readers: Vec::new(), siblings: vec![0, 1], ..costs.rows[r].clone() };
        }
        assert_eq!(costs.total(&[1, 0]), 7.0 + 105.0 + 100.0);
        assert_eq!(costs.total(&[1, 1]), 7.0 + 2.0 * (80.0 + 12.5));
    }
}
