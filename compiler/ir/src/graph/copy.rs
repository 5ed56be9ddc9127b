//! Copies of graphs, into another graph and without dead ids; and what is dead.

use super::{Def, Graph, Node, NodeId, Output, ValueId};
use crate::{Error, Result, ValueType};
use petgraph::stable_graph::NodeIndex;
use std::collections::BTreeSet;

impl Graph {
    /// Copies this graph's nodes into `target`, reading `inputs` in place of the graph inputs and `captures` in place of
    /// captures; returns the values of the outputs there.
    pub fn inline_into(
        &self,
        target: &mut Graph,
        inputs: &[ValueId],
        captures: &[ValueId],
    ) -> Result<Vec<ValueId>> {
        let mut map: Vec<Option<ValueId>> = vec![None; self.value_bound()];
        for v in self.values() {
            let new = match self.def(v) {
                Def::Input(i) => {
                    *inputs.get(*i).ok_or_else(|| Error::model(format!("input {i} is missing")))?
                }
                Def::Capture(i) => {
                    *captures.get(*i).ok_or_else(|| Error::internal(format!("capture {i} is missing")))?
                }
                Def::Initializer(t) => {
                    let data = &self.values[v.index()];
                    target.add_shared(&data.name, ValueType::of(t), Def::Initializer(t.clone()))
                }
                Def::Node(..) | Def::Dead => continue,
            };
            map[v.index()] = Some(new);
        }
        for id in self.order()? {
            let n = self.node(id)?;
            let at = |v: ValueId| {
                map[v.index()].ok_or_else(|| Error::internal(format!("no value '{}'", self.value_name(v))))
            };
            let ins: Vec<_> = n.inputs.iter().map(|v| v.map(at).transpose()).collect::<Result<_>>()?;
            let caps: Vec<_> = n.captures.iter().map(|v| at(*v)).collect::<Result<_>>()?;
            let names: Vec<&str> = n.outputs.iter().map(|o| o.map_or("", |v| self.value_name(v))).collect();
            let new = target.add_node(&n.name, n.op, n.attrs.clone(), &ins, &names);
            if !caps.is_empty() {
                target.set_captures(new, &caps);
            }
            for (i, o) in n.outputs.iter().enumerate() {
                if let (Some(old), Some(v)) = (o, target.node(new)?.output(i)) {
                    target.set_type(v, self.ty(*old).clone());
                    map[old.index()] = Some(v);
                }
            }
        }
        self.outputs
            .iter()
            .map(|o| {
                map[o.value.index()]
                    .ok_or_else(|| Error::internal(format!("output '{}' has no value", o.name)))
            })
            .collect()
    }

    /// A copy without dead ids, nodes in topological order: what passes hand on. Names are kept.
    pub fn compacted(&self) -> Result<Graph> {
        let mut g = Graph { name: self.name.clone(), meta: self.meta.clone(), ..Graph::default() };
        let inputs: Vec<ValueId> =
            self.inputs.iter().map(|&v| g.add_input(self.value_name(v), self.ty(v).clone())).collect();
        let captures = self.capture_count();
        let caps: Vec<ValueId> = (0..captures)
            .map(|i| {
                let old = self.values().find(|&v| *self.def(v) == Def::Capture(i));
                let (name, ty) =
                    old.map_or(("capture", ValueType::Unknown), |v| (self.value_name(v), self.ty(v).clone()));
                g.add_capture(name, ty, i)
            })
            .collect();
        let outs = self.inline_into(&mut g, &inputs, &caps)?;
        g.outputs =
            self.outputs.iter().zip(outs).map(|(o, v)| Output { name: o.name.clone(), value: v }).collect();
        Ok(g)
    }

    /// Removes nodes and initializers that no output depends on, and captures no subgraph reads. Inputs stay.
    pub fn prune(&mut self) -> usize {
        let mut live = vec![false; self.values.len()];
        let mut stack: Vec<ValueId> = self.outputs.iter().map(|o| o.value).collect();
        let mut keep = BTreeSet::new();
        while let Some(v) = stack.pop() {
            if std::mem::replace(&mut live[v.index()], true) {
                continue;
            }
            if let Some(n) = self.producer(v)
                && keep.insert(n)
            {
                stack.extend(self.get(n).into_iter().flat_map(Node::reads));
            }
        }
        let dead: Vec<NodeId> = self.nodes().map(|(id, _)| id).filter(|id| !keep.contains(id)).collect();
        for &id in &dead {
            self.disconnect(id);
            let outputs =
                self.nodes[NodeIndex::new(id.index())].take().map(|n| n.outputs).unwrap_or_default();
            outputs.into_iter().flatten().for_each(|v| self.kill(v));
        }
        for i in 0..self.values.len() {
            if !live[i] && matches!(self.values[i].def, Def::Initializer(_)) {
                self.kill(ValueId(i as u32));
            }
        }
        dead.len()
    }
}
