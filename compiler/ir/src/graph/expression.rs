//! What is computed from initializers alone.

use super::{Graph, NodeId, ValueId};
use crate::Accuracy;
use std::collections::BTreeSet;

/// Most nodes of an expression.
const MOST_NODES: usize = 64;

impl Graph {
    /// The nodes that compute `v` from initializers alone, producers first. `None` when they read anything else or are
    /// many, and for a value that no node makes.
    pub fn expression(&self, v: ValueId) -> Option<Vec<NodeId>> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        let mut stack = vec![(self.producer(v)?, false)];
        while let Some((id, done)) = stack.pop() {
            if done {
                order.push(id);
                continue;
            }
            if !seen.insert(id) {
                continue;
            }
            let n = self.get(id)?;
            let pure = n.op.accuracy() != Accuracy::Random && n.attrs.graphs().is_empty();
            if !pure || !n.captures().is_empty() || n.inputs().is_empty() || seen.len() > MOST_NODES {
                return None;
            }
            stack.push((id, true));
            for &x in n.inputs().iter().flatten().filter(|x| self.constant(**x).is_none()) {
                stack.push((self.producer(x)?, false));
            }
        }
        Some(order)
    }
}
