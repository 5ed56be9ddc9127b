//! Choosing one e-node per class: local search on the cost of the whole DAG, with reference counts.
//!
//! Tree cost doubles at each residual connection, so alternatives are compared by what the selected DAG as a whole would
//! cost: switching a class releases what only its old node used and adds what its new node needs. The search starts at the
//! original graph and only accepts improvements, so the result is never worse than the input.

use crate::cost::cost;
use crate::facts::Egraph;
use crate::language::ENode;
use egg::{Id, Language};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Sweeps over all classes; each stops early when nothing improves.
const SWEEPS: usize = 8;

/// Best selection found, for every class reachable from `roots`.
pub fn extract(egraph: &Egraph, roots: &[Id], start: &[(Id, ENode)]) -> BTreeMap<Id, ENode> {
    let mut s = Selection::new(egraph, start);
    for r in roots {
        let r = s.classes.at(egraph.find(*r));
        s.acquire(r);
    }
    s.cheapen();
    let mut several: Vec<usize> =
        (0..s.classes.nodes.len()).filter(|&c| s.classes.nodes[c].len() > 1).collect();
    several.sort_by_key(|&c| s.rank[c]);
    for _ in 0..SWEEPS {
        let improved = several.iter().filter(|&&c| s.improve(c)).count();
        if improved == 0 {
            break;
        }
    }
    s.selected()
}

/// The classes of an e-graph in id order, numbered densely, their nodes with children by these numbers.
struct Classes {
    ids: Vec<Id>,
    numbers: FxHashMap<Id, usize>,
    nodes: Vec<Vec<SmallVec<[usize; 6]>>>,
}

impl Classes {
    fn of(egraph: &Egraph) -> Classes {
        let mut ids: Vec<Id> = egraph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let numbers: FxHashMap<Id, usize> = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let children = |n: &ENode| n.children.iter().map(|&c| numbers[&egraph.find(c)]).collect();
        let nodes = ids.iter().map(|&id| egraph[id].nodes.iter().map(children).collect()).collect();
        Classes { ids, numbers, nodes }
    }

    fn at(&self, id: Id) -> usize {
        self.numbers[&id]
    }
}

const NONE: usize = usize::MAX;

struct Selection<'a> {
    egraph: &'a Egraph,
    classes: Classes,
    /// Number of the chosen node of each class, `NONE` before there is one.
    chosen: Vec<usize>,
    /// Order in which classes could first be computed.
    rank: Vec<usize>,
    settled: usize,
    uses: Vec<usize>,
    /// Price of each node of each class once it was asked for.
    prices: Vec<Vec<f64>>,
    /// Marks of the latest walks.
    seen: Vec<u32>,
    walk: u32,
}

impl<'a> Selection<'a> {
    /// Starts with the given nodes and, for classes that rules made, the first computable node. Acyclic by construction.
    fn new(egraph: &'a Egraph, start: &[(Id, ENode)]) -> Selection<'a> {
        let classes = Classes::of(egraph);
        let n = classes.ids.len();
        let prices = classes.nodes.iter().map(|nodes| vec![f64::NAN; nodes.len()]).collect();
        let mut s = Selection {
            egraph,
            classes,
            chosen: vec![NONE; n],
            rank: vec![NONE; n],
            settled: 0,
            uses: vec![0; n],
            prices,
            seen: vec![0; n],
            walk: 0,
        };
        for (i, (id, node)) in start.iter().enumerate() {
            let node = node.clone().map_children(|c| egraph.find(c));
            let id = egraph.find(*id);
            if let Ok(number) = egraph[id].nodes.binary_search(&node) {
                s.settle(s.classes.at(id), number);
            }
            if i == 0 {
                s.settle_leaves();
            }
        }
        let constant: Vec<usize> =
            (0..n).filter(|&c| egraph[s.classes.ids[c]].data.constant && s.chosen[c] == NONE).collect();
        s.settle_computable(&constant);
        let rest: Vec<usize> = (0..n).filter(|&c| s.chosen[c] == NONE).collect();
        s.settle_computable(&rest);
        s
    }

    /// The first computable node for each of these classes that can be computed.
    fn settle_computable(&mut self, classes: &[usize]) {
        loop {
            let before = self.settled;
            for &c in classes {
                if self.chosen[c] == NONE
                    && let Some(first) = (0..self.classes.nodes[c].len()).find(|&k| self.complete(c, k))
                {
                    self.settle(c, first);
                }
            }
            if self.settled == before {
                return;
            }
        }
    }

    /// Of classes that nothing uses, which are those that rules made or found equal to others, the node that is cheapest as a
    /// tree: a switch to one of them is judged by what it may become.
    fn cheapen(&mut self) {
        let mut order: Vec<usize> = (0..self.chosen.len()).filter(|&c| self.chosen[c] != NONE).collect();
        order.sort_unstable_by_key(|&c| self.rank[c]);
        let mut trees = vec![0.0; self.chosen.len()];
        // Every selected node comes after those it reads, so that there is no cycle to look for.
        let mut ordered = true;
        let tree = |s: &mut Self, trees: &[f64], c: usize, node: usize| {
            s.price(c, node) + s.classes.nodes[c][node].iter().map(|&child| trees[child]).sum::<f64>()
        };
        for _ in 0..SWEEPS {
            let mut cheaper = false;
            for &c in &order {
                trees[c] = tree(self, &trees, c, self.chosen[c]);
                if self.uses[c] > 0 {
                    continue;
                }
                for node in 0..self.classes.nodes[c].len() {
                    if node == self.chosen[c] || !self.complete(c, node) {
                        continue;
                    }
                    let cost = tree(self, &trees, c, node);
                    if cost >= trees[c] - 1e-9 {
                        continue;
                    }
                    let children = &self.classes.nodes[c][node];
                    let before = children.iter().all(|&child| self.rank[child] < self.rank[c]);
                    if ordered && before || !self.cyclic(c, node) {
                        ordered &= before;
                        (self.chosen[c], trees[c], cheaper) = (node, cost, true);
                    }
                }
            }
            if !cheaper {
                return;
            }
        }
    }

    /// Every child of the node has a selection.
    fn complete(&self, class: usize, node: usize) -> bool {
        self.classes.nodes[class][node].iter().all(|&c| self.chosen[c] != NONE)
    }

    fn settle(&mut self, class: usize, node: usize) {
        if self.chosen[class] == NONE {
            self.rank[class] = self.settled;
            self.settled += 1;
            self.chosen[class] = node;
        }
    }

    /// Leaves that the start list does not name (attributes, absent inputs).
    fn settle_leaves(&mut self) {
        for class in self.egraph.classes() {
            if let Some(k) = class.nodes.iter().position(|n| n.children.is_empty()) {
                self.settle(self.classes.at(class.id), k);
            }
        }
    }

    fn price(&mut self, class: usize, node: usize) -> f64 {
        let known = self.prices[class][node];
        if !known.is_nan() {
            return known;
        }
        let id = self.classes.ids[class];
        let price = cost(self.egraph, id, &self.egraph[id].nodes[node]);
        self.prices[class][node] = price;
        price
    }

    /// Adds one use of a class; the cost this adds to the DAG.
    fn acquire(&mut self, root: usize) -> f64 {
        let (mut added, mut stack) = (0.0, vec![root]);
        while let Some(c) = stack.pop() {
            self.uses[c] += 1;
            if self.uses[c] == 1 && self.chosen[c] != NONE {
                added += self.price(c, self.chosen[c]);
                stack.extend_from_slice(&self.classes.nodes[c][self.chosen[c]]);
            }
        }
        added
    }

    /// Removes one use of a class; the cost this saves.
    fn release(&mut self, root: usize) -> f64 {
        let (mut saved, mut stack) = (0.0, vec![root]);
        while let Some(c) = stack.pop() {
            self.uses[c] = self.uses[c].saturating_sub(1);
            if self.uses[c] == 0 && self.chosen[c] != NONE {
                saved += self.price(c, self.chosen[c]);
                stack.extend_from_slice(&self.classes.nodes[c][self.chosen[c]]);
            }
        }
        saved
    }

    /// Whether computing this node would need its own class.
    fn cyclic(&mut self, class: usize, node: usize) -> bool {
        self.walk += 1;
        let mut stack = self.classes.nodes[class][node].to_vec();
        while let Some(c) = stack.pop() {
            if c == class {
                return true;
            }
            if self.seen[c] != self.walk && self.chosen[c] != NONE {
                self.seen[c] = self.walk;
                stack.extend_from_slice(&self.classes.nodes[c][self.chosen[c]]);
            }
        }
        false
    }

    /// Switches a class in use to its best alternative; true when that lowered the cost.
    fn improve(&mut self, class: usize) -> bool {
        if self.uses[class] == 0 {
            return false;
        }
        let mut improved = false;
        for node in 0..self.classes.nodes[class].len() {
            if self.chosen[class] != node && self.complete(class, node) {
                improved |= self.try_switch(class, node);
            }
        }
        improved
    }

    fn try_switch(&mut self, class: usize, node: usize) -> bool {
        let old = self.chosen[class];
        let own = self.price(class, node) - self.price(class, old);
        let added = self.each_child(class, node, Self::acquire);
        let saved = self.each_child(class, old, Self::release);
        // Few switches promise a gain, so the walk for cycles comes last.
        if own + added - saved < -1e-9 && !self.cyclic(class, node) {
            self.chosen[class] = node;
            return true;
        }
        self.each_child(class, old, Self::acquire);
        self.each_child(class, node, Self::release);
        false
    }

    fn each_child(&mut self, class: usize, node: usize, f: fn(&mut Self, usize) -> f64) -> f64 {
        let count = self.classes.nodes[class][node].len();
        (0..count).map(|i| f(self, self.classes.nodes[class][node][i])).sum()
    }

    fn selected(&self) -> BTreeMap<Id, ENode> {
        let node = |(c, &k): (usize, &usize)| {
            let id = self.classes.ids[c];
            (k != NONE).then(|| (id, self.egraph[id].nodes[k].clone()))
        };
        self.chosen.iter().enumerate().filter_map(node).collect()
    }
}

#[cfg(test)]
mod tests {
    /// Two scales and shifts become one, though one switch to the shared product gains nothing while that product is computed
    /// as it was first made. Regression: with a Concat before them they stayed, in every layer of a DenseNet.
    #[test]
    fn a_switch_is_judged_by_what_it_may_become() {
        let text = "<ir_version: 10, opset_import: [\"\": 21]>
            case (float[1,2,5] a, float[1,2,5] b) => (float[1,4,5] z)
            <float[4] s = {1.0, 2.0, 0.5, 1.5}, float[4] t = {0.1, 0.2, 0.3, 0.4}, float[4] m = {0.5, 0.25, 0.5, 1.0},
             float[4] v = {1.0, 2.0, 3.0, 4.0}, float[4,1] w = {0.5, 1.5, 2.5, 3.5}, float[4,1] c = {1.0, 2.0, 3.0, 4.0}> {
                x = Concat <axis = 1> (a, b)
                n = BatchNormalization (x, s, t, m, v)
                p = Mul (n, w)
                q = Add (p, c)
                z = Relu (q)
            }";
        let g = ir::text::parse(text, &ops::Standard).unwrap();
        let (h, _) = crate::optimize(&g, crate::Options::RUNTIME).unwrap();
        let names: Vec<&str> = h.nodes().map(|(_, n)| n.op.name()).collect();
        assert_eq!(names, ["Concat", "Mul", "Add", "Relu"], "{}", ir::text::print(&h).unwrap());
    }

    /// Bytes that are quantized again by the scale they have are only repeated. Regression: the float values before and after
    /// the second quantization are one class, so nothing used the bytes between, which kept being made of those values.
    #[test]
    fn what_is_found_equal_and_not_used_is_judged_by_its_cheapest_form() {
        let text = "<ir_version: 10, opset_import: [\"\": 21]>
            case (float[1,8,9,9] x, float[1,8,18,18] y) => (float[1,8,18,18] z)
            <float s = {0.5}, int8 n = {0}, float[4] by = {1.0, 1.0, 2.0, 2.0}> {
                q = QuantizeLinear (x, s, n)
                d = DequantizeLinear (q, s, n)
                r = Resize <mode = \"nearest\", nearest_mode = \"floor\"> (d, , by)
                p = QuantizeLinear (r, s, n)
                e = DequantizeLinear (p, s, n)
                z = Add (y, e)
            }";
        let g = ir::text::parse(text, &ops::Standard).unwrap();
        let (h, _) = crate::optimize(&g, crate::Options::RUNTIME).unwrap();
        let names: Vec<&str> = h.nodes().map(|(_, n)| n.op.name()).collect();
        let wanted = ["QuantizeLinear", "Resize", "DequantizeLinear", "Add"];
        assert_eq!(names, wanted, "{}", ir::text::print(&h).unwrap());
    }
}
