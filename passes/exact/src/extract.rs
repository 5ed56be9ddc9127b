//! Choosing one e-node per class: local search on the cost of the whole DAG, with reference counts.
//!
//! Tree cost doubles at each residual connection, so alternatives are compared by what the selected DAG as a whole would
//! cost: switching a class releases what only its old node used and adds what its new node needs. The search starts at the
//! original graph and only accepts improvements, so the result is never worse than the input.

use crate::cost::cost;
use crate::facts::Egraph;
use crate::language::ENode;
use egg::{Id, Language};
use std::collections::{BTreeMap, BTreeSet};

/// Sweeps over all classes; each stops early when nothing improves.
const SWEEPS: usize = 8;

/// Best selection found, for every class reachable from `roots`.
pub fn extract(egraph: &Egraph, roots: &[Id], start: &[(Id, ENode)]) -> BTreeMap<Id, ENode> {
    let mut s = Selection::new(egraph, start);
    let roots: Vec<Id> = roots.iter().map(|&r| egraph.find(r)).collect();
    roots.iter().for_each(|&r| {
        s.acquire(r);
    });
    let mut classes: Vec<Id> = egraph.classes().filter(|c| c.nodes.len() > 1).map(|c| c.id).collect();
    classes.sort_by_key(|c| s.rank.get(c).copied().unwrap_or(usize::MAX));
    for _ in 0..SWEEPS {
        let improved = classes.iter().filter(|&&c| s.improve(c)).count();
        if improved == 0 {
            break;
        }
    }
    s.chosen
}

struct Selection<'a> {
    egraph: &'a Egraph,
    chosen: BTreeMap<Id, ENode>,
    /// Order in which classes could first be computed.
    rank: BTreeMap<Id, usize>,
    uses: BTreeMap<Id, usize>,
}

impl<'a> Selection<'a> {
    /// Starts with the given nodes and, for classes that rules made, the first computable node. Acyclic by construction.
    fn new(egraph: &'a Egraph, start: &[(Id, ENode)]) -> Selection<'a> {
        let mut s =
            Selection { egraph, chosen: BTreeMap::new(), rank: BTreeMap::new(), uses: BTreeMap::new() };
        for (id, node) in start {
            let node = node.clone().map_children(|c| egraph.find(c));
            s.settle(egraph.find(*id), node);
            // Leaves that the start list does not name (attributes, absent inputs).
            s.settle_leaves();
        }
        let mut classes: Vec<&egg::EClass<ENode, _>> = egraph.classes().collect();
        classes.sort_by_key(|c| c.id);
        loop {
            let before = s.chosen.len();
            for c in &classes {
                if !s.chosen.contains_key(&c.id)
                    && let Some(n) = c
                        .nodes
                        .iter()
                        .find(|n| n.children.iter().all(|x| s.chosen.contains_key(&egraph.find(*x))))
                {
                    s.settle(c.id, n.clone().map_children(|x| egraph.find(x)));
                }
            }
            if s.chosen.len() == before {
                return s;
            }
        }
    }

    fn settle(&mut self, id: Id, node: ENode) {
        if !self.chosen.contains_key(&id) {
            self.rank.insert(id, self.chosen.len());
            self.chosen.insert(id, node);
        }
    }

    fn settle_leaves(&mut self) {
        if self.rank.len() > 1 {
            return;
        }
        for c in self.egraph.classes() {
            if let Some(n) = c.nodes.iter().find(|n| n.children.is_empty()) {
                self.settle(c.id, n.clone());
            }
        }
    }

    /// Adds one use of a class; the cost this adds to the DAG.
    fn acquire(&mut self, root: Id) -> f64 {
        let (mut added, mut stack) = (0.0, vec![root]);
        while let Some(id) = stack.pop() {
            let n = self.uses.entry(id).or_default();
            *n += 1;
            if *n == 1
                && let Some(node) = self.chosen.get(&id)
            {
                added += cost(self.egraph, id, node);
                stack.extend(node.children.iter().copied());
            }
        }
        added
    }

    /// Removes one use of a class; the cost this saves.
    fn release(&mut self, root: Id) -> f64 {
        let (mut saved, mut stack) = (0.0, vec![root]);
        while let Some(id) = stack.pop() {
            let n = self.uses.entry(id).or_default();
            *n = n.saturating_sub(1);
            if *n == 0
                && let Some(node) = self.chosen.get(&id)
            {
                saved += cost(self.egraph, id, node);
                stack.extend(node.children.iter().copied());
            }
        }
        saved
    }

    /// Whether computing `from` would need `target`.
    fn needs(&self, from: &[Id], target: Id) -> bool {
        let (mut seen, mut stack) = (BTreeSet::new(), from.to_vec());
        while let Some(id) = stack.pop() {
            if id == target {
                return true;
            }
            if seen.insert(id)
                && let Some(n) = self.chosen.get(&id)
            {
                stack.extend(n.children.iter().copied());
            }
        }
        false
    }

    /// Switches a class in use to its best alternative; true when that lowered the cost.
    fn improve(&mut self, id: Id) -> bool {
        if self.uses.get(&id).copied().unwrap_or(0) == 0 {
            return false;
        }
        let egraph = self.egraph;
        let mut improved = false;
        for node in &egraph[id].nodes {
            let node = node.clone().map_children(|c| egraph.find(c));
            let complete = node.children.iter().all(|c| self.chosen.contains_key(c));
            if !complete || self.chosen.get(&id) == Some(&node) || self.needs(&node.children, id) {
                continue;
            }
            improved |= self.try_switch(id, node);
        }
        improved
    }

    fn try_switch(&mut self, id: Id, node: ENode) -> bool {
        let Some(old) = self.chosen.get(&id).cloned() else { return false };
        let own = cost(self.egraph, id, &node) - cost(self.egraph, id, &old);
        let added: f64 = node.children.iter().map(|&c| self.acquire(c)).sum();
        let saved: f64 = old.children.iter().map(|&c| self.release(c)).sum();
        if own + added - saved < -1e-9 {
            self.chosen.insert(id, node);
            return true;
        }
        old.children.iter().for_each(|&c| {
            self.acquire(c);
        });
        node.children.iter().for_each(|&c| {
            self.release(c);
        });
        false
    }
}
