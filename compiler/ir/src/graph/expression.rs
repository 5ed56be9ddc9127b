//! What is computed from initializers alone.

use super::{Graph, NodeId, ValueId};
use crate::{Accuracy, Error, EvalCx, Tensor, Value};
use std::collections::{BTreeMap, BTreeSet};

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

    /// The value of an initializer or an expression; `None` too where a step of it fails.
    pub fn evaluate(&self, v: ValueId) -> Option<Tensor> {
        if let Some(t) = self.constant(v) {
            return Some(t.clone());
        }
        let order = self.expression(v)?;
        let mut left: BTreeMap<ValueId, usize> = BTreeMap::new();
        for &id in &order {
            self.get(id)?.inputs().iter().flatten().for_each(|&x| *left.entry(x).or_default() += 1);
        }
        let mut made: BTreeMap<ValueId, Tensor> = BTreeMap::new();
        for id in order {
            let n = self.get(id)?;
            let value = |x: ValueId| self.constant(x).or_else(|| made.get(&x)).cloned().map(Value::Tensor);
            let inputs: Vec<Option<Value>> = n
                .inputs()
                .iter()
                .map(|x| x.map_or(Some(None), |x| value(x).map(Some)))
                .collect::<Option<_>>()?;
            // What is read for the last time is freed while the node runs.
            for x in n.inputs().iter().flatten() {
                let count = left.entry(*x).or_default();
                *count -= 1;
                if *count == 0 {
                    made.remove(x);
                }
            }
            let none = |_: &Graph, _: Vec<Value>| Err(Error::internal("no subgraph"));
            let cx = EvalCx {
                node: &n.name,
                attrs: &n.attrs,
                inputs: &inputs,
                captures: &[],
                outputs: n.outputs().len(),
                subgraph: &none,
            };
            for (y, t) in n.outputs().iter().zip(n.op.eval(&cx).ok()?) {
                if let (Some(y), Value::Tensor(t)) = (y, t) {
                    made.insert(*y, t);
                }
            }
        }
        made.remove(&v)
    }
}
