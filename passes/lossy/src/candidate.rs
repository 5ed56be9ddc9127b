//! Candidates: what a method offers for a layer, with its price and its error.

use crate::layer::Layer;
use ir::{Error, Graph, Result, Tensor};

/// What the fragment stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// The weight: a graph without inputs whose output is the tensor that every user reads.
    Weight,
    /// The user node: inputs are the node's inputs without the weight, outputs are the node's.
    Node,
}

/// What candidates of several layers store together: the outputs of their fragments behind the node's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Common {
    /// Tells it from what others store together.
    pub id: u64,
    /// Layers that may use it.
    pub members: usize,
    /// Its bytes in the file, where it is once.
    pub bytes: u64,
}

impl Common {
    /// The bytes that each of all members pays.
    pub fn part(&self) -> u64 {
        self.bytes / self.members.max(1) as u64
    }
}

/// One way to store a layer.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Name of the method.
    pub method: &'static str,
    /// The method with its parameters, as shown in reports: "int4 block 32".
    pub recipe: String,
    pub replaces: Replaces,
    pub fragment: Graph,
    /// Added to the layer's bias: the mean of the error, taken back.
    pub bias: Option<Vec<f32>>,
    /// Bytes of the fragment in a plain ONNX file; of what is common only a part, as if all members used it.
    pub bytes: u64,
    pub common: Option<Common>,
    /// E‖y − ŷ‖² of the layer's output vectors, after bias correction.
    pub error: f64,
}

/// Bytes of a tensor in a file: its data, name and header.
pub fn tensor_bytes(t: &Tensor) -> u64 {
    t.stored_bytes() as u64 + 40
}

/// Bytes of a graph's constants and nodes in a file.
pub fn graph_bytes(g: &Graph) -> u64 {
    let nodes: usize = g
        .nodes()
        .map(|(_, n)| {
            let names: usize = n
                .reads()
                .chain(n.outputs().iter().flatten().copied())
                .map(|v| g.value_name(v).len() + 2)
                .sum();
            24 + n.name.len() + n.op.name().len() + names + n.attrs.len() * 24
        })
        .sum();
    let constants: u64 = g.initializers().map(|(v, t)| tensor_bytes(t) + g.value_name(v).len() as u64).sum();
    nodes as u64 + constants
}

impl Candidate {
    /// Bytes of what no other layer uses.
    pub fn own_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.common.map_or(0, |c| c.part()))
    }

    /// What is common as a graph of its own, without inputs.
    pub fn common_graph(&self) -> Result<Option<Graph>> {
        if self.common.is_none() {
            return Ok(None);
        }
        let mut g = self.fragment.clone();
        g.set_outputs(g.outputs().iter().skip(1).cloned().collect());
        g.prune();
        for i in (0..g.inputs().len()).rev() {
            g.remove_input(i)?;
        }
        Ok(Some(g.compacted()?))
    }

    /// The same codes with the scales of each row times a factor (missing ones are 1); `None` where rows have no scales of
    /// their own.
    pub fn rescaled(&self, layer: &Layer, factors: &[f32]) -> Option<Candidate> {
        if self.replaces != Replaces::Weight {
            return None;
        }
        let scales = self.fragment.find(&format!("{}.s", layer.weight))?;
        let t = self.fragment.constant(scales)?;
        let axis = if layer.view.transposed { t.rank().checked_sub(1)? } else { 0 };
        let rows = *t.shape().get(axis).filter(|&&d| d == layer.view.rows && d > 0)?;
        let inner: usize = t.shape()[axis + 1..].iter().product();
        let factor = |i: usize| factors.get(i / inner.max(1) % rows).copied().unwrap_or(1.0);
        let data = t.to_f32s().ok()?.iter().enumerate().map(|(i, s)| s * factor(i)).collect();
        let t = Tensor::from_f32s(t.dtype(), t.shape(), data).ok()?;
        let mut new = self.clone();
        new.fragment.set_constant(scales, t);
        Some(new)
    }

    /// The dense tensor that a weight fragment decodes to, by the reference semantics.
    pub fn decode(&self) -> Result<Tensor> {
        if self.replaces != Replaces::Weight {
            return Err(Error::internal(format!("{} replaces a node, not a weight", self.recipe)));
        }
        let values = ir::run_subgraph(&self.fragment, Vec::new(), &[])?;
        let first = values.first().ok_or_else(|| Error::internal("a fragment without output"))?;
        Ok(first.tensor()?.clone())
    }
}
