//! Meaning-preserving rewrites: tables of rules on an e-graph, and the folding around it.
#![deny(unsafe_code)]

mod changed;
mod convert;
mod cost;
mod extract;
mod facts;
mod fold;
mod language;
mod loops;
mod pattern;
mod rule;
mod rules;
mod saturate;
mod slices;
mod widen;

pub use fold::Growth;
pub use rule::{Cx, Level, Right, Rule};
pub use rules::all as rules;
pub use widen::widen;

use egg::StopReason;
use ir::{Error, Graph, Result};
use std::collections::BTreeMap;

/// Saturation stops after this many rounds.
const ROUNDS: usize = 24;
/// Rewriting and folding alternate at most this often.
const PASSES: usize = 3;

/// What to rewrite for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub level: Level,
    pub growth: Growth,
}

impl Options {
    /// For a file that any runtime may load.
    pub const PORTABLE: Options = Options { level: Level::Portable, growth: Growth::Never };
    /// For running here and now.
    pub const RUNTIME: Options = Options { level: Level::Runtime, growth: Growth::Allowed };
}

/// What happened, for reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    pub nodes_before: usize,
    pub nodes_after: usize,
    /// Firings by rule name; firing does not mean the result was selected.
    pub fired: BTreeMap<&'static str, usize>,
    pub folded: usize,
    pub merged_initializers: usize,
    /// Why saturation stopped, when it was not saturation.
    pub stopped: Option<String>,
}

/// Rewrites `graph` into the cheapest equal graph found. Types are inferred on the way.
pub fn optimize(graph: &Graph, options: Options) -> Result<(Graph, Trace)> {
    let rules: Vec<&'static Rule> = rules().filter(|r| r.level <= options.level).collect();
    optimize_with(graph, options, &rules)
}

/// The graph with what its constants decide computed, also where that takes memory: a base for several runs of
/// [`optimize`] with [`Options::RUNTIME`].
pub fn folded(graph: &Graph) -> Result<Graph> {
    let mut g = graph.clone();
    let bounded = Options { growth: Growth::Bounded, ..Options::RUNTIME };
    simplify(&mut g, bounded, &mut Trace::default())?;
    let mut g = g.compacted()?;
    ir::infer(&mut g)?;
    Ok(g)
}

/// As [`optimize`] with a chosen set of rules.
pub fn optimize_with(graph: &Graph, options: Options, rules: &[&'static Rule]) -> Result<(Graph, Trace)> {
    let mut trace = Trace { nodes_before: graph.node_count(), ..Trace::default() };
    let mut g = graph.clone();
    for pass in 0..PASSES {
        let before = g.node_count();
        let bounded = Options { growth: options.growth.min(Growth::Bounded), ..options };
        simplify(&mut g, if pass == 0 { bounded } else { options }, &mut trace)?;
        if options.level == Level::Runtime {
            slices::of_splits(&mut g)?;
        }
        let saturated = rewrite(&mut g, rules, options.growth, &mut trace)?;
        let folded = simplify(&mut g, options, &mut trace)?;
        // All that the rules make of what was selected was there to select from, unless folding made constants of it.
        if g.node_count() == before || saturated && folded == 0 {
            break;
        }
    }
    if options.growth != Growth::Never {
        loops::constants_inward(&mut g)?;
    }
    fold::for_each_body(&mut g, &mut |body| {
        let (new, inner) = optimize_with(body, options, rules)?;
        *body = new;
        inner.fired.into_iter().for_each(|(k, v)| *trace.fired.entry(k).or_default() += v);
        Ok(())
    })?;
    let mut g = g.compacted()?;
    ir::infer(&mut g)?;
    trace.nodes_after = g.node_count();
    Ok((g, trace))
}

/// Everything that needs no e-graph, to a fixed point. Returns how many nodes went.
fn simplify(g: &mut Graph, options: Options, trace: &mut Trace) -> Result<usize> {
    let mut folded = 0;
    loop {
        let known = ir::infer_values(g)?;
        let mut changed = fold::fold_shapes(g, &known)?;
        changed += fold::drop_identities(g)?;
        changed += fold::fold_constants(g, options.growth)?;
        changed += fold::inline_branches(g)?;
        changed += loops::capture_invariants(g)?;
        trace.folded += changed;
        folded += changed;
        trace.merged_initializers += fold::merge_equal_initializers(g)?;
        g.prune();
        if changed == 0 {
            return Ok(folded);
        }
        *g = g.compacted()?;
    }
}

/// Replaces `g` by the cheapest graph that the rules make of it; whether they made all that they can.
fn rewrite(g: &mut Graph, rules: &[&'static Rule], growth: Growth, trace: &mut Trace) -> Result<bool> {
    let largest_leaf = if growth == Growth::Never { fold::SMALL_BYTES } else { usize::MAX };
    let mut entered = convert::enter(g, largest_leaf)?;
    let limit = 20_000 + 40 * entered.chosen.len();
    let stopped = saturate::saturate(&mut entered.egraph, rules, ROUNDS, limit)?;
    let saturated = matches!(stopped, StopReason::Saturated);
    if !saturated {
        trace.stopped = Some(format!("{stopped:?}"));
    }
    let egraph = entered.egraph;
    if let Some(c) = egraph.analysis.conflicts.first() {
        return Err(Error::internal(format!("a rewrite changed a type: {c}")));
    }
    for (name, n) in &egraph.analysis.fired {
        *trace.fired.entry(name).or_default() += n;
    }
    let selected = extract::extract(&egraph, &entered.roots, &entered.chosen);
    *g = convert::leave(g, &egraph, &entered.roots, &selected)?;
    Ok(saturated)
}

#[cfg(test)]
mod soundness;
