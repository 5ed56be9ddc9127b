//! Rounds of matching and rewriting until nothing changes or a limit, a count and never a time, is reached.
//!
//! The first round looks everywhere, every later one only where the round before changed something within reach of a rule
//! (semi-naive evaluation): most of a graph is settled after two rounds.

use crate::changed::Changed;
use crate::facts::Egraph;
use crate::language::Symbol;
use crate::pattern::{Classes, Registers};
use crate::rule::{Compiled, Rule};
use egg::{Id, StopReason};
use ir::{Error, Result};
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// Matches after which the nodes are counted again: one rule's matches alone may be more than the limit.
const COUNTED: usize = 256;

/// How far below the classes that a left side binds right sides look.
const BELOW: usize = 3;

/// What matched in one round: class and bound classes.
type Matches = Vec<(Id, Registers)>;

/// Rules whose patterns are read when their root is first met.
struct Rules<'a> {
    rules: &'a [&'static Rule],
    roots: Vec<Symbol>,
    compiled: Vec<Option<Arc<Compiled>>>,
    /// Matches that were rewritten: by rule number, class and bound classes. Every round finds them again, and would only
    /// build again what is there. A match of classes that became one with others is a new match.
    done: FxHashSet<(usize, Id, Registers)>,
    /// The rule that fired last.
    #[cfg(feature = "counted")]
    before: u64,
}

/// Applies `rules` for at most `rounds` rounds while the e-graph has at most `nodes` nodes; why it stopped.
pub fn saturate(
    egraph: &mut Egraph,
    rules: &[&'static Rule],
    rounds: usize,
    nodes: usize,
) -> Result<StopReason> {
    let roots = rules.iter().map(|r| r.root()).collect::<Result<_, _>>().map_err(Error::internal)?;
    let mut rules = Rules {
        rules,
        roots,
        compiled: rules.iter().map(|_| None).collect(),
        done: FxHashSet::default(),
        #[cfg(feature = "counted")]
        before: 0,
    };
    // egg reads a clock for its logs, and the first reading calibrates it for up to 200 ms.
    quanta::with_clock(&quanta::Clock::mock().0, || {
        egraph.rebuild();
        let mut changed = Changed::everywhere();
        for _ in 0..rounds {
            egraph.analysis.touched.clear();
            if let Some(reason) = rules.round(egraph, &changed, nodes)? {
                debug_assert!(
                    !matches!(reason, StopReason::Saturated) || rules.settled(egraph, nodes)?,
                    "a rule looks further than {BELOW} levels below what it matched"
                );
                return Ok(reason);
            }
            changed = Changed::since(egraph, rules.reach());
        }
        Ok(StopReason::IterationLimit(rounds))
    })
}

impl Rules<'_> {
    /// Whether a round everywhere changes nothing either.
    fn settled(&mut self, egraph: &mut Egraph, limit: usize) -> Result<bool> {
        Ok(matches!(self.round(egraph, &Changed::everywhere(), limit)?, Some(StopReason::Saturated)))
    }

    /// The most levels below its root that a rule met so far reads.
    fn reach(&self) -> usize {
        self.compiled.iter().flatten().map(|r| r.left.depth()).max().unwrap_or(0) + BELOW
    }

    fn round(&mut self, egraph: &mut Egraph, changed: &Changed, limit: usize) -> Result<Option<StopReason>> {
        let (nodes, classes) = (egraph.total_size(), egraph.number_of_classes());
        let view = Classes::of(egraph);
        let count = self.rules.len();
        let found =
            (0..count).map(|i| self.search(egraph, &view, changed, i, limit)).collect::<Result<Vec<_>>>()?;
        let (mut merged, mut full) = (0, None);
        for (i, (rule, matches)) in self.compiled.iter().zip(found).enumerate() {
            let Some(rule) = rule else { continue };
            let mut applied = 0;
            for (n, (class, bound)) in matches.into_iter().enumerate() {
                if n % COUNTED == COUNTED - 1 && egraph.total_size() > limit {
                    break;
                }
                let result = rule.apply(egraph, class, &bound);
                applied += usize::from(result == Some(true));
                if result.is_some() {
                    self.done.insert((i, class, bound));
                }
            }
            if applied > 0 {
                #[cfg(feature = "counted")]
                {
                    let name = tally::key(rule.rule.name);
                    tally::hit(tally::Kind::Rule, name, std::mem::replace(&mut self.before, name));
                }
                *egraph.analysis.fired.entry(rule.rule.name).or_default() += applied;
            }
            merged += applied;
            if egraph.total_size() > limit {
                full = Some(StopReason::NodeLimit(egraph.total_size()));
                break;
            }
        }
        egraph.rebuild();
        let same = merged == 0 && egraph.total_size() == nodes && egraph.number_of_classes() == classes;
        Ok(full.or(same.then_some(StopReason::Saturated)))
    }

    /// Matches of one rule, at most about as many as there may be nodes.
    fn search(
        &mut self,
        egraph: &Egraph,
        view: &Classes,
        changed: &Changed,
        i: usize,
        most: usize,
    ) -> Result<Matches> {
        let Some(classes) = egraph.classes_for_op(&self.roots[i]) else { return Ok(Vec::new()) };
        if self.compiled[i].is_none() && classes.len() > 0 {
            self.compiled[i] = Some(self.rules[i].compiled().map_err(Error::internal)?);
        }
        let Some(rule) = &self.compiled[i] else { return Ok(Vec::new()) };
        let (mut found, mut here) = (Vec::new(), Vec::new());
        if !rule.left.possible(view) {
            return Ok(found);
        }
        let reach = rule.left.depth() + BELOW;
        for class in classes.filter(|&c| changed.within(c, reach)) {
            if found.len() >= most {
                break;
            }
            rule.left.matches(view, class, most, &mut here);
            for bound in here.drain(..) {
                let key = (i, class, bound);
                if !self.done.contains(&key) {
                    found.push((key.1, key.2));
                }
            }
        }
        Ok(found)
    }
}
