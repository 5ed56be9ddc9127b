//! Channel removal in the search: a model with fewer channels is searched again, and wins only if its file is smaller.
//!
//! The first search says what each layer's bytes and errors are worth: the slope of its knapsack is a price in bytes per
//! unit of distortion. At that price every group of tied layers is offered fewer channels, and what pays is taken. Far from
//! there other choices may be better, so as many channels as quality allows are taken too. Layers that changed are calibrated
//! and priced again, all others keep their rows.

use crate::bisect::Bisection;
use crate::confidence::Level;
use crate::cut::{Bench, Known, Pick, batches, consumers, cut_graph, options_of};
use crate::goal::{Goal, Override, Repairs, check, late};
use crate::knapsack::{Item, least_error, least_weight};
use crate::polish::repairable;
use crate::sensitivity::outputs;
use crate::shares::Shares;
use crate::table::{self, Pass, Row};
use crate::{Decision, MARGIN, Outcome, Search, Size, Status, calibrate, judged};
use ir::{Graph, Result, ValueId};
use lossy::channels::{self, Cut, Group, RATIOS, kept};
use lossy::{Hopes, Layer, Method, Scope};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A second search must promise to save this share of all layers.
const WORTH: f64 = 0.01;
/// Share of the spent distortion that may go to removed channels.
const SHARE: f64 = 0.6;
/// Evaluations of the true metric that tell how many channels quality allows to remove.
const TRIALS: usize = 8;
/// Share of the time that must be left for a second search.
const SECOND: f64 = 0.45;

/// A group with its cuts; distortions are those of the model's output.
struct Priced<'a> {
    group: &'a Group,
    cuts: Vec<(Cut, f64)>,
}

/// Runs the search, then again with fewer channels if that promises smaller files.
pub fn run(mut wide: Search, size: Size) -> Result<Outcome> {
    if matches!(wide.options.repairs, Repairs::Again { .. }) && repairable(wide.options.goal) {
        return wide.again(size);
    }
    let mut base = wide.run(size)?;
    if wide.options.goal.timed() {
        return Ok(base);
    }
    if late(wide.progress, SECOND) || !wide.options.methods.iter().any(|m| m.scope() == Scope::Group) {
        if late(wide.progress, SECOND) {
            wide.progress.cut("searches with fewer channels", 0, 1);
        }
        let base = wide.polished(&base, size)?.unwrap_or(base);
        return wide.rivalled(base, size);
    }
    let (groups, refused) = channels::groups(wide.graph);
    let reasons: BTreeMap<ValueId, String> = refused.into_iter().map(|(v, r)| (v, r.0)).collect();
    for (row, l) in wide.rows.iter().zip(&mut base.decision.layers) {
        if let Some(why) = reasons.get(&row.layer.value).filter(|_| row.layer.path.is_empty()) {
            l.refusals.push(("channels".into(), why.clone()));
        }
    }
    let groups: Vec<Group> = groups.into_iter().filter(|g| wide.may_change(g)).collect();
    let slim = wide.slimmed(&groups, &base.decision, size)?;
    // Only the best of all is repaired.
    if let Some(mut narrow) = wide.narrowest(&slim, &base.decision)? {
        let found = narrow.run(size)?;
        if wins(wide.options.goal, &found, &base, size)? {
            let found = narrow.polished(&found, size)?.unwrap_or(found);
            return narrow.rivalled(found, size);
        }
        let looks = narrow.looks;
        drop(narrow);
        wide.looks = looks;
    }
    let base = with_reasons(wide.polished(&base, size)?, base);
    let mut found = wide.rivalled(base, size)?;
    if !slim.is_empty() {
        found.decision.notes.push("a model with fewer channels was searched too and was not better".into());
    }
    Ok(found)
}

/// The repaired outcome where there is one, with the refusals that the base noted.
fn with_reasons(polished: Option<Outcome>, base: Outcome) -> Outcome {
    let Some(mut found) = polished else { return base };
    for (l, old) in found.decision.layers.iter_mut().zip(base.decision.layers) {
        l.refusals = old.refusals;
    }
    found
}

/// Smaller for a goal of quality; nearer to the original for a goal of size.
fn wins(goal: Goal, found: &Outcome, base: &Outcome, size: Size) -> Result<bool> {
    if found.decision.status != Status::Met {
        return Ok(false);
    }
    if base.decision.status != Status::Met {
        return Ok(true);
    }
    let rank = |o: &Outcome| o.decision.selection.map(|m| (m.drop, m.distortion));
    Ok(match goal {
        Goal::MaxDrop(_) | Goal::Fastest(_) => size(&found.graph)? < size(&base.graph)?,
        Goal::TargetBytes(_) | Goal::TargetLatency(_) | Goal::TargetSparsity(_) => rank(found) < rank(base),
    })
}

/// The graph with the channels gone that the user asked to remove, and notes about those that cannot go.
pub fn forced(graph: &Graph, overrides: &[Override], bench: Bench) -> Result<(Option<Graph>, Vec<String>)> {
    let wanted: Vec<(&Override, (usize, usize))> =
        overrides.iter().filter_map(|o| Some((o, o.channels()?))).collect();
    if wanted.is_empty() {
        return Ok((None, Vec::new()));
    }
    let (groups, refused) = channels::groups(graph);
    let named = |v: ValueId| lossy::layer::layer(graph, v).map(|l| l.name);
    let asked = |v: ValueId| {
        let layer = lossy::layer::layer(graph, v)?;
        wanted.iter().rev().find(|(o, _)| o.names(&layer)).map(|w| w.1)
    };
    let mut notes: Vec<String> = refused
        .iter()
        .filter(|(v, _)| asked(*v).is_some())
        .filter_map(|(v, why)| Some(format!("{} keeps its channels: {}", named(*v)?, why.0)))
        .collect();
    let mut targets: Vec<(&Group, usize)> = Vec::new();
    for g in &groups {
        if let Some(share) = g.producers.iter().find_map(|&v| asked(v)) {
            let exact = share.1 == g.count;
            targets.push((g, if exact { share.0 } else { kept(g.count, share) }));
        }
    }
    let of: Vec<&Group> = targets.iter().map(|t| t.0).collect();
    let mut picks = Vec::new();
    for part in batches(graph, &of) {
        let stats = consumers(graph, &part, bench)?;
        for (group, stats) in part.into_iter().zip(stats) {
            let target = targets.iter().find(|t| std::ptr::eq(t.0, group)).map_or(group.count, |t| t.1);
            let even = |_, power: f64| 1.0 / power.max(1e-300);
            let cuts = stats.and_then(|s| options_of(graph, group, &s, &[target], &even, &|_| f64::INFINITY));
            match cuts.and_then(|mut c| c.pop()) {
                Some((cut, _)) => picks.push(Pick { group, keep: cut.keep }),
                None if target < group.count => {
                    let name = group.producers.first().and_then(|&v| named(v)).unwrap_or_default();
                    notes.push(format!("{name} keeps its channels: a consumer is too wide or was not seen"));
                }
                None => {}
            }
        }
    }
    let slim = if picks.is_empty() { None } else { Some(cut_graph(graph, &picks, bench)?) };
    Ok((slim, notes))
}

impl<'a> Search<'a> {
    fn bench<'k>(&'k self, known: &'k Known) -> Bench<'k> {
        Bench {
            known: Some(known),
            samples: Some(self.samples),
            calibration: &self.split.calibration,
            evaluate: self.evaluate,
            memory: self.options.memory,
            progress: self.progress,
        }
    }

    /// No member's method or number of channels is fixed by the user.
    fn may_change(&self, group: &Group) -> bool {
        let pinned = |l: Layer| self.options.overrides.iter().any(|o| o.names(&l));
        !members(self.graph, group).filter_map(|v| lossy::layer::layer(self.graph, v)).any(pinned)
    }

    /// Graphs with fewer channels that are worth a search: without those that do not pay at the margin of the first search,
    /// and, as far from there other choices are better, without as many as quality allows.
    fn slimmed(&self, groups: &[Group], base: &Decision, size: Size) -> Result<Vec<Graph>> {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let price = if base.status == Status::Met { self.price_of_distortion(base) } else { 0.0 };
        let known = Known::default();
        let bench = self.bench(&known);
        let priced = self.priced(groups, base, price, bench)?;
        let paying = if price > 0.0 { self.paying(&priced, base, price, bench)? } else { None };
        let further = match self.options.goal {
            Goal::MaxDrop(drop) | Goal::Fastest(drop) => self.bisected(&priced, base, drop, bench)?,
            Goal::TargetBytes(bytes) if price == 0.0 && base.status == Status::NotReached => {
                let fixed = size(self.graph)?.saturating_sub(self.rows.iter().map(|r| r.bytes).sum());
                let items = self.items_of(&priced, base);
                let whole: u64 = items.iter().filter_map(|r| r.first()).map(|i| i.weight).sum();
                let over = (fixed + base.bytes_after).saturating_sub(bytes);
                let s = whole.checked_sub(over).and_then(|room| least_error(&items, room));
                let picks = s.map_or(Vec::new(), |s| picked(&priced, &s.choice));
                if picks.is_empty() { None } else { Some(cut_graph(self.graph, &picks, bench)?) }
            }
            Goal::TargetBytes(_) | Goal::TargetLatency(_) | Goal::TargetSparsity(_) => None,
        };
        Ok(paying.into_iter().chain(further).collect())
    }

    /// The search of the graph that promises most.
    fn narrowest<'s>(&self, slim: &'s [Graph], base: &Decision) -> Result<Option<Search<'s>>>
    where
        'a: 's,
    {
        let ([_, _, ..], Goal::MaxDrop(drop)) = (slim, self.options.goal) else {
            return slim.first().map(|g| self.narrowed(g, base)).transpose();
        };
        let mut best: Option<(u64, Search)> = None;
        for (i, g) in slim.iter().enumerate() {
            if best.is_some() && late(self.progress, SECOND) {
                self.progress.cut("searches with fewer channels", i, slim.len());
                break;
            }
            let mut search = self.narrowed(g, base)?;
            let bytes = search.promises(drop)?.unwrap_or(u64::MAX);
            if best.as_ref().is_none_or(|b| bytes < b.0) {
                best = Some((bytes, search));
            }
        }
        Ok(best.map(|b| b.1))
    }

    /// Cuts of every group whose consumers could be seen, as far as they may pay at this price of distortion.
    fn priced<'g>(
        &self,
        groups: &'g [Group],
        base: &Decision,
        price: f64,
        bench: Bench,
    ) -> Result<Vec<Priced<'g>>> {
        let now = self.now(base);
        self.progress.stage("channels", groups.len());
        let gains: BTreeMap<ValueId, f64> = self
            .rows
            .iter()
            .filter(|r| r.layer.path.is_empty() && !r.candidates.is_empty())
            .map(|r| (r.layer.value, r.gain))
            .collect();
        // A layer without a gain shows as much as the median layer, relative to its power.
        let mut relative: Vec<f64> =
            self.rows.iter().filter(|r| !r.candidates.is_empty()).map(|r| r.gain * r.power).collect();
        relative.sort_by(f64::total_cmp);
        let usual = relative.get(relative.len() / 2).copied().filter(|&g| g > 0.0).unwrap_or(1.0);
        let gain = |v: ValueId, power: f64| gains.get(&v).copied().unwrap_or(usual / power.max(1e-300));
        let mut all = Vec::new();
        let of: Vec<&Group> = groups.iter().collect();
        for part in batches(self.graph, &of) {
            let stats = consumers(self.graph, &part, bench)?;
            let found: Vec<Option<Priced>> = part
                .into_par_iter()
                .zip(stats)
                .map(|(group, stats)| {
                    check(self.progress)?;
                    let Some(stats) = stats else { return Ok(None) };
                    let targets: Vec<usize> = RATIOS.iter().map(|&r| kept(group.count, r)).collect();
                    let (bytes, error) = weight_of(self.graph, group, &now);
                    let all = if price > 0.0 { bytes / price + error } else { f64::INFINITY };
                    let worth = |keep: usize| all * (1.0 - keep as f64 / group.count as f64);
                    let cuts = options_of(self.graph, group, &stats, &targets, &gain, &worth);
                    self.progress.step();
                    Ok(cuts.map(|cuts| Priced { group, cuts }))
                })
                .collect::<Result<_>>()?;
            all.extend(found.into_iter().flatten());
        }
        Ok(all)
    }

    /// Bytes saved per unit of distortion at the margin of the first search.
    fn price_of_distortion(&self, base: &Decision) -> f64 {
        let spent = base.predicted;
        let bytes = |budget: f64| least_weight(&self.items, budget).map_or(0.0, |s| s.weight as f64);
        if spent > 0.0 { (bytes(spent) - bytes(1.25 * spent)).max(0.0) / (0.25 * spent) } else { 0.0 }
    }

    /// What every member of a group takes now: bytes and distortion.
    fn now(&self, base: &Decision) -> BTreeMap<ValueId, (f64, f64)> {
        let main = self.rows.iter().zip(&base.layers).filter(|(r, _)| r.layer.path.is_empty());
        main.map(|(r, l)| (r.layer.value, (l.bytes_after as f64, l.error))).collect()
    }

    /// The graph cut where it pays, if what that really does to the output is still worth a second search.
    fn paying(&self, priced: &[Priced], base: &Decision, price: f64, bench: Bench) -> Result<Option<Graph>> {
        let least = WORTH * base.bytes_after as f64;
        let (picks, saved, predicted) = self.worthwhile(priced, base, price);
        if picks.is_empty() || saved - price * predicted < least {
            return Ok(None);
        }
        let slim = cut_graph(self.graph, &picks, bench)?;
        let found = outputs(&slim, self.samples, &self.split.selection, self.evaluate, self.progress);
        self.evaluate.forget();
        let m = self.selection.measure(&found?, self.margins.as_deref(), Level::look(1));
        Ok((saved - price * m.distortion >= least).then_some(slim))
    }

    /// The best cut of every group at this price, the bytes that saves (the worth of errors that go with the channels
    /// included) and the distortion it causes.
    fn worthwhile<'g>(
        &self,
        priced: &'g [Priced<'g>],
        base: &Decision,
        price: f64,
    ) -> (Vec<Pick<'g>>, f64, f64) {
        let mut now = self.now(base);
        let (mut picks, mut spent, mut saved) = (Vec::new(), 0.0, 0.0);
        let best = |p: &'g Priced<'g>, now: &BTreeMap<ValueId, (f64, f64)>| {
            let (bytes, error) = weight_of(self.graph, p.group, now);
            p.cuts
                .iter()
                .map(|(cut, d)| {
                    let gone = 1.0 - cut.keep.len() as f64 / p.group.count as f64;
                    (gone * (bytes + price * error) - price * d, cut, *d)
                })
                .max_by(|a, b| a.0.total_cmp(&b.0))
        };
        let mut order: Vec<&Priced> = priced.iter().collect();
        order.sort_by(|a, b| {
            let worth = |p: &'g Priced<'g>| best(p, &now).map_or(0.0, |b| b.0);
            worth(b).total_cmp(&worth(a))
        });
        for p in order {
            let Some((gain, cut, d)) = best(p, &now).filter(|b| b.0 > 0.0) else { continue };
            if spent + d > SHARE * base.predicted {
                continue;
            }
            spent += d;
            saved += gain + price * d;
            let share = cut.keep.len() as f64 / p.group.count as f64;
            for v in members(self.graph, p.group) {
                now.entry(v).and_modify(|n| *n = (n.0 * share, n.1 * share));
            }
            picks.push(Pick { group: p.group, keep: cut.keep.clone() });
        }
        (picks, saved, spent)
    }

    /// The columns of every group for the knapsack: all channels, then the cuts.
    fn items_of(&self, priced: &[Priced], base: &Decision) -> Vec<Vec<Item>> {
        let now = self.now(base);
        let row = |p: &Priced| {
            let (bytes, _) = weight_of(self.graph, p.group, &now);
            let item = |keep: usize, error: f64| Item {
                weight: (bytes * keep as f64 / p.group.count as f64) as u64,
                error,
            };
            std::iter::once(item(p.group.count, 0.0))
                .chain(p.cuts.iter().map(|(c, d)| item(c.keep.len(), *d)))
                .collect()
        };
        priced.iter().map(row).collect()
    }

    /// With nothing else to trade against: as many channels as the true metric allows.
    fn bisected(&self, priced: &[Priced], base: &Decision, drop: f64, bench: Bench) -> Result<Option<Graph>> {
        let items = self.items_of(priced, base);
        let ceiling: f64 = items.iter().map(|r| crate::largest(r)).sum();
        let mut b = Bisection::new(1e-2, 1e-9, ceiling.max(1e-9));
        let (mut best, mut known) = (None, BTreeMap::<Vec<usize>, bool>::new());
        self.progress.stage("fewer channels", TRIALS);
        for i in 0..TRIALS {
            if late(self.progress, SECOND) {
                self.progress.cut("models with fewer channels tried", i, TRIALS);
                break;
            }
            let Some(budget) = b.next() else { break };
            let Some(s) = least_weight(&items, budget) else { break };
            let picks = picked(priced, &s.choice);
            let passed = match known.get(&s.choice) {
                Some(&passed) => passed,
                None if picks.is_empty() => true,
                None => {
                    let slim = cut_graph(self.graph, &picks, bench)?;
                    let passed = self.passes(&slim, drop)?;
                    if passed {
                        best = Some(slim);
                    }
                    passed
                }
            };
            known.insert(s.choice, passed);
            b.record(budget, passed, f64::NAN);
            self.progress.step();
        }
        Ok(best)
    }

    /// On the samples that select: held-back ones must not know the graph that they judge.
    fn passes(&self, slim: &Graph, drop: f64) -> Result<bool> {
        if let Some(judge) = &self.options.judge {
            return Ok(judged(judge.as_ref(), self.base, slim)?.expected_within(drop * MARGIN));
        }
        let found = outputs(slim, self.samples, &self.split.selection, self.evaluate, self.progress);
        self.evaluate.forget();
        let m = self.selection.measure(&found?, self.margins.as_deref(), Level::look(1));
        Ok(m.expected_within(drop * MARGIN))
    }

    /// The search on the slim graph: rows of layers that changed are new, with the methods that mattered and the gains
    /// of the first search.
    fn narrowed<'s>(&self, slim: &'s Graph, base: &Decision) -> Result<Search<'s>>
    where
        'a: 's,
    {
        let same = |row: &Row, l: &Layer| row.layer.path == l.path && row.layer.value == l.value;
        let old = |l: &Layer| self.rows.iter().position(|r| same(r, l));
        let unchanged =
            |l: &Layer| old(l).is_some_and(|i| self.rows[i].layer.tensor.shape() == l.tensor.shape());
        let all = lossy::layers(slim);
        let changed: Vec<Layer> = all.iter().filter(|l| !unchanged(l)).cloned().collect();
        // A second search of all layers would find others of one shape, so here none share.
        let apart = |m: &&'static dyn Method| m.scope() == Scope::Layer && !m.shares();
        let methods: Vec<&'static dyn Method> = self.options.methods.iter().copied().filter(apart).collect();
        let stats = calibrate::calibrate(
            slim,
            &changed,
            self.samples,
            [&self.split.calibration, &self.split.selection],
            self.evaluate,
            self.options.memory,
            self.progress,
        )?;
        // Layers with fewer channels are much like they were.
        let hopes: Vec<Hopes> = changed
            .iter()
            .map(|l| old(l).map_or(Hopes::ALL, |i| self.rows[i].hopes(base.predicted)))
            .collect();
        let pass = Pass { methods: &methods, hopes: &hopes, second: false };
        let mut fresh = table::build(slim, changed, stats, pass, self.options, self.progress)?;
        for row in &mut fresh {
            let known = old(&row.layer).map(|i| self.rows[i].gain);
            row.gain = known.unwrap_or(if row.power > 0.0 { 1.0 / row.power } else { 0.0 });
        }
        let mut rows = Vec::new();
        let mut fresh = fresh.into_iter().peekable();
        for l in &all {
            match fresh.next_if(|r| same(r, l)) {
                Some(r) => rows.push(r),
                None => rows.extend(self.rows.iter().find(|r| same(r, l)).map(Row::alone)),
            }
        }
        let mut search = Search {
            originals: self.originals,
            graph: slim,
            samples: self.samples,
            options: self.options,
            evaluate: self.evaluate,
            progress: self.progress,
            split: self.split.clone(),
            items: rows.iter().map(Row::items).collect(),
            shares: Shares::default(),
            rows,
            earlier: Vec::new(),
            pairs: None,
            selection: Arc::clone(&self.selection),
            margins: self.margins.clone(),
            fixed: 0.0,
            trials: Vec::new(),
            seen: BTreeMap::new(),
            last: None,
            looks: self.looks,
            base: self.base,
            costs: None,
            start: base.predicted.max(1e-9),
            settled: None,
        };
        search.fix()?;
        Ok(search)
    }
}

/// Every weight whose size follows the number of channels, once.
fn members<'a>(graph: &'a Graph, group: &'a Group) -> impl Iterator<Item = ValueId> + 'a {
    let own = group.producers.iter().copied().chain(group.carriers(graph));
    own.chain(group.consumers.iter().map(|c| c.weight)).collect::<BTreeSet<_>>().into_iter()
}

/// Bytes and distortion of all members together.
fn weight_of(graph: &Graph, group: &Group, now: &BTreeMap<ValueId, (f64, f64)>) -> (f64, f64) {
    members(graph, group).filter_map(|v| now.get(&v)).fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y))
}

/// The cuts that a knapsack over [`Search::items_of`] chose.
fn picked<'g>(priced: &'g [Priced<'g>], choice: &[usize]) -> Vec<Pick<'g>> {
    let chosen = |(p, &c): (&'g Priced<'g>, &usize)| {
        let (cut, _) = p.cuts.get(c.checked_sub(1)?)?;
        Some(Pick { group: p.group, keep: cut.keep.clone() })
    };
    priced.iter().zip(choice).filter_map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::{Noise, redundant, size};
    use crate::goal::{Options, Silent};
    use crate::originals::Originals;

    #[test]
    fn of_the_cuts_the_one_that_promises_fewest_bytes_is_searched() {
        let (g, data, drop) = (redundant(), Noise::new(300), 0.05);
        let options = Options::new(Goal::MaxDrop(drop));
        let originals = Originals::look(&g, &data, &ir::Reference, &Silent).unwrap();
        let mut wide =
            Search::prepare(&originals, &g, &options, &ir::Reference, &Silent, Some(&size)).unwrap();
        let base = wide.run(&size).unwrap().decision;
        let slim = wide.slimmed(&channels::groups(&g).0, &base, &size).unwrap();
        assert_eq!(slim.len(), 2);
        let promise = |g: &Graph| wide.narrowed(g, &base).unwrap().promises(drop).unwrap().unwrap();
        let fewest = slim.iter().map(promise).min().unwrap();
        let mut narrow = wide.narrowest(&slim, &base).unwrap().unwrap();
        let settled = narrow.settled.as_ref().and_then(|b| b.passed).unwrap();
        let found = narrow.least(settled).unwrap();
        assert_eq!(narrow.bytes(&found), fewest);
        assert!(fewest < base.bytes_after, "{fewest} {}", base.bytes_after);
        // What the held-back samples are asked afterwards counts as one more look.
        narrow.looks = wide.looks;
        assert_eq!(narrow.run(&size).unwrap().decision.status, Status::Met);
    }
}
