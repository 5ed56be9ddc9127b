//! Channels-last regions: convolutions, pools and what lies between them work on `[N, spatial…, C]`, where the reduction
//! of a convolution is contiguous. Transposes remain only where a region meets the rest.

use crate::channels_last::{RESIDUAL, channels_last, to_first, to_last};
use ir::{Attrs, DType, Def, Error, Graph, Kind, Node, NodeId, Output, Result, Tensor, ValueId};
use std::collections::{BTreeMap, BTreeSet};

mod blocks;

/// Where a value of the old graph is in the new one.
#[derive(Clone, Copy, Default)]
struct Twin {
    /// In its own layout.
    first: Option<ValueId>,
    /// With channels last.
    last: Option<ValueId>,
}

struct Rewriter<'a> {
    old: &'a Graph,
    new: Graph,
    twins: BTreeMap<ValueId, Twin>,
    /// Nodes that were done with one before them.
    done: BTreeSet<NodeId>,
}

/// The same graph with channels-last regions.
pub fn to_channels_last(graph: &Graph) -> Result<Graph> {
    let mut r =
        Rewriter { old: graph, new: Graph::new(&graph.name), twins: BTreeMap::new(), done: BTreeSet::new() };
    r.new.meta = graph.meta.clone();
    for &v in graph.inputs() {
        let new = r.new.add_input(graph.value_name(v), graph.ty(v).clone());
        r.twins.insert(v, Twin { first: Some(new), last: None });
    }
    for v in graph.values() {
        match graph.def(v) {
            Def::Initializer(t) => {
                let new = r.new.add_initializer(graph.value_name(v), t.clone());
                r.twins.insert(v, Twin { first: Some(new), last: None });
            }
            Def::Capture(i) => {
                let new = r.new.add_capture(graph.value_name(v), graph.ty(v).clone(), *i);
                r.twins.insert(v, Twin { first: Some(new), last: None });
            }
            _ => {}
        }
    }
    for id in graph.order()? {
        r.node(id)?;
    }
    let outputs = graph
        .outputs()
        .iter()
        .map(|o| Ok(Output { name: o.name.clone(), value: r.first(o.value)? }))
        .collect::<Result<_>>()?;
    r.new.set_outputs(outputs);
    r.new.prune();
    let mut g = r.new.compacted()?;
    ir::infer(&mut g)?;
    Ok(g)
}

impl Rewriter<'_> {
    fn twin(&self, v: ValueId) -> Twin {
        self.twins.get(&v).copied().unwrap_or_default()
    }

    fn rank(&self, v: ValueId) -> Option<usize> {
        self.old.ty(v).rank()
    }

    fn f32_of_rank(&self, v: ValueId) -> Option<usize> {
        let t = self.old.ty(v);
        if t.dtype() == Some(DType::F32) { self.ranked(v) } else { None }
    }

    fn ranked(&self, v: ValueId) -> Option<usize> {
        let t = self.old.ty(v);
        t.concrete()?;
        t.rank().filter(|r| (3..=5).contains(r))
    }

    /// The value in its own layout, transposed back if a region made it.
    fn first(&mut self, v: ValueId) -> Result<ValueId> {
        let t = self.twin(v);
        match (t.first, t.last) {
            (Some(f), _) => Ok(f),
            (None, Some(l)) => {
                let f = self.transpose(l, &to_first(self.rank(v).unwrap_or(4)), self.old.value_name(v))?;
                self.twins.insert(v, Twin { first: Some(f), last: Some(l) });
                Ok(f)
            }
            _ => Err(Error::internal(format!("value '{}' is not in the new graph", self.old.value_name(v)))),
        }
    }

    /// The value with channels last.
    fn last(&mut self, v: ValueId) -> Result<ValueId> {
        let t = self.twin(v);
        match (t.last, t.first) {
            (Some(l), _) => Ok(l),
            (None, Some(f)) => {
                let perm = to_last(self.rank(v).unwrap_or(4));
                let l = match self.new.constant(f).cloned() {
                    Some(c) => {
                        let c = ops::transpose::transpose(&c, &perm)?;
                        self.new.add_initializer("constant", c)
                    }
                    None => self.transpose(f, &perm, self.old.value_name(v))?,
                };
                self.twins.insert(v, Twin { first: Some(f), last: Some(l) });
                Ok(l)
            }
            _ => Err(Error::internal(format!("value '{}' is not in the new graph", self.old.value_name(v)))),
        }
    }

    fn transpose(&mut self, v: ValueId, perm: &[usize], name: &str) -> Result<ValueId> {
        let perm: Vec<i64> = perm.iter().map(|&d| d as i64).collect();
        let attrs = Attrs::new().with("perm", perm);
        let id = self.new.add_node(
            &format!("{name}/layout"),
            ops::standard("Transpose")?,
            attrs,
            &[Some(v)],
            &[name],
        );
        drop(ir::infer_node(&mut self.new, id));
        self.new.node(id)?.output(0).ok_or_else(|| Error::internal("a transpose without output"))
    }

    /// Only the channels-last form exists: a region made it.
    fn resident(&self, v: ValueId) -> bool {
        let t = self.twin(v);
        t.last.is_some() && t.first.is_none()
    }

    fn node(&mut self, id: NodeId) -> Result<()> {
        if self.done.remove(&id) {
            return Ok(());
        }
        let n = self.old.node(id)?;
        if self.anchor(n)?
            || self.batch_norm(n)?
            || self.elementwise(n)?
            || self.concat(n)?
            || self.slice(n)?
            || self.split(n)?
            || self.transposed(n)?
            || self.reshaped(n)?
            || self.shuffled(n)?
            || self.blocks(n)?
            || self.reduce(n)?
            || self.pad(n)?
            || self.quantization(n)?
            || self.dynamic_quantization(n)?
        {
            return Ok(());
        }
        self.plain(n)
    }

    fn plain(&mut self, n: &Node) -> Result<()> {
        let inputs =
            n.inputs().iter().map(|v| v.map(|v| self.first(v)).transpose()).collect::<Result<Vec<_>>>()?;
        let captures = n.captures().iter().map(|&v| self.first(v)).collect::<Result<Vec<_>>>()?;
        let id = self.emit(n, n.op, n.attrs.clone(), &inputs)?;
        if !captures.is_empty() {
            self.new.set_captures(id, &captures);
        }
        let outs = self.new.node(id)?.outputs().to_vec();
        for (old, new) in n.outputs().iter().zip(outs) {
            if let (Some(o), Some(v)) = (old, new) {
                self.new.set_type(v, self.old.ty(*o).clone());
                self.twins.insert(*o, Twin { first: Some(v), last: None });
            }
        }
        Ok(())
    }

    fn emit(
        &mut self,
        n: &Node,
        op: &'static dyn ir::Operator,
        attrs: Attrs,
        inputs: &[Option<ValueId>],
    ) -> Result<NodeId> {
        let names: Vec<&str> = n.outputs().iter().map(|o| o.map_or("", |v| self.old.value_name(v))).collect();
        Ok(self.new.add_node(&n.name, op, attrs, inputs, &names))
    }

    /// Adds a node of the region; its single output has channels last.
    fn region(
        &mut self,
        n: &Node,
        op: &'static dyn ir::Operator,
        attrs: Attrs,
        inputs: &[Option<ValueId>],
    ) -> Result<bool> {
        let id = self.emit(n, op, attrs, inputs)?;
        ir::infer_node(&mut self.new, id)?;
        let (Some(new), Some(old)) = (self.new.node(id)?.output(0), n.output(0)) else {
            return Err(Error::internal("a region node without output"));
        };
        self.twins.insert(old, Twin { first: None, last: Some(new) });
        Ok(true)
    }

    fn one_output(n: &Node) -> bool {
        n.outputs().len() == 1 && n.output(0).is_some()
    }

    /// Operators that start a region.
    fn anchor(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0) else { return Ok(false) };
        let wrapped = channels_last(n.op.name())
            .filter(|_| matches!(n.op.domain(), "" | "ir.") || n.op.domain() == ops::quantized::DOMAIN);
        let ranked = match n.op.name() {
            "ConvInteger" | "QuantizedConv" => self.ranked(x),
            "MaxPool" if matches!(self.old.dtype(x), Some(DType::U8 | DType::I8)) => self.ranked(x),
            "Resize" if n.attrs.str_or("mode", "nearest")? == "nearest" => self.ranked(x),
            _ => self.f32_of_rank(x),
        };
        let (Some(op), Some(rank), true) = (wrapped, ranked, Self::one_output(n)) else {
            return Ok(false);
        };
        let fits = match n.op.name() {
            "QuantizedConv" => n.input(3).is_some_and(|w| self.old.constant(w).is_some()),
            "Conv" | "ConvTranspose" | "FusedConv" | "FusedConvTranspose" | "ConvInteger" => {
                let known = |w: ValueId| self.old.constant(w).is_some() || self.old.expression(w).is_some();
                n.input(1).is_some_and(known)
            }
            // Elsewhere the standard order is as good.
            "Resize" | "GridSample" => rank == 4 && self.resident(x),
            "LRN" => self.resident(x),
            _ => true,
        };
        if !fits {
            return Ok(false);
        }
        let mut inputs = vec![Some(self.last(x)?)];
        for (i, v) in n.inputs().iter().enumerate().skip(1) {
            let residual = i == RESIDUAL && n.op.name().starts_with("Fused");
            inputs.push(v.map(|v| if residual { self.last(v) } else { self.first(v) }).transpose()?);
        }
        self.region(n, op, n.attrs.clone(), &inputs)
    }

    /// Element-wise operators join a region when what they read from it is there already and the rest can follow.
    fn elementwise(&mut self, n: &Node) -> Result<bool> {
        let joins = matches!(n.op.kind(&n.attrs), Kind::Elementwise(_)) && Self::one_output(n);
        let Some(rank) = n.output(0).and_then(|o| self.old.ty(o).rank()).filter(|r| (3..=5).contains(r))
        else {
            return Ok(false);
        };
        if !joins || !n.inputs().iter().flatten().any(|&v| self.resident(v)) {
            return Ok(false);
        }
        let mut inputs = Vec::new();
        for v in n.inputs() {
            let Some(v) = *v else {
                inputs.push(None);
                continue;
            };
            let Some(shape) = self.old.ty(v).concrete() else { return Ok(false) };
            inputs.push(Some(if shape.iter().all(|&d| d == 1) && shape.len() <= 1 {
                self.first(v)?
            } else if shape.len() == rank {
                self.last(v)?
            } else if let Some(t) = self.old.constant(v) {
                let mut full = vec![1; rank - shape.len()];
                full.extend_from_slice(&shape);
                let t = ops::transpose::transpose(&t.reshaped(&full)?, &to_last(rank))?;
                self.new.add_initializer("constant", t)
            } else {
                return Ok(false);
            }));
        }
        self.region(n, n.op, n.attrs.clone(), &inputs)
    }

    /// A batch normalisation that no contraction took in is a product and a sum by constants, in either layout.
    fn batch_norm(&mut self, n: &Node) -> Result<bool> {
        let vectors: Option<Vec<Vec<f64>>> = (1..5)
            .map(|i| {
                let t =
                    self.old.constant(n.input(i)?).filter(|t| t.dtype() == DType::F32 && t.rank() == 1)?;
                Some(t.to_f32s().ok()?.into_iter().map(f64::from).collect())
            })
            .collect();
        let (Some(x), Some(vectors)) = (n.input(0), vectors) else { return Ok(false) };
        let (Some(rank), Some(dtype)) = (self.rank(x), self.old.dtype(x)) else { return Ok(false) };
        let [scale, bias, mean, variance] = &vectors[..] else { return Ok(false) };
        let plain = n.is("BatchNormalization")
            && n.attrs.int_or("training_mode", 0)? == 0
            && (dtype, rank >= 2) == (DType::F32, true)
            && vectors.iter().all(|v| v.len() == scale.len());
        if !plain || !Self::one_output(n) {
            return Ok(false);
        }
        let epsilon = f64::from(n.attrs.float_or("epsilon", 1e-5)?);
        let factor: Vec<f64> = scale.iter().zip(variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let shift = factor.iter().zip(mean).zip(bias).map(|((f, m), b)| (b - m * f) as f32).collect();
        let resident = self.resident(x);
        let mut shape = vec![scale.len()];
        shape.resize(if resident { 1 } else { rank - 1 }, 1);
        let mut constant = |v: Vec<f32>| -> Result<Option<ValueId>> {
            Ok(Some(self.new.add_initializer("constant", Tensor::new(&shape, v)?)))
        };
        let (factor, shift) = (constant(factor.into_iter().map(|f| f as f32).collect())?, constant(shift)?);
        let input = if resident { self.last(x)? } else { self.first(x)? };
        let (mul, name) = (ops::standard("Mul")?, format!("{}/scale", n.name));
        let scaled = self.new.add_node(&name, mul, Attrs::new(), &[Some(input), factor], &["scaled"]);
        ir::infer_node(&mut self.new, scaled)?;
        let scaled = self.new.node(scaled)?.output(0);
        let id = self.emit(n, ops::standard("Add")?, Attrs::new(), &[scaled, shift])?;
        ir::infer_node(&mut self.new, id)?;
        if let (Some(old), Some(new)) = (n.output(0), self.new.node(id)?.output(0)) {
            let (first, last) = if resident { (None, Some(new)) } else { (Some(new), None) };
            self.twins.insert(old, Twin { first, last });
        }
        Ok(true)
    }

    /// Quantization, either way, stays in the region; the axis of its scales moves.
    fn quantization(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        let (Some(rank), Some(scales)) = (self.rank(x), n.input(1).and_then(|s| self.old.ty(s).concrete()))
        else {
            return Ok(false);
        };
        if !(n.is("QuantizeLinear") || n.is("DequantizeLinear"))
            || scales.len() > 1
            || n.attrs.int_or("block_size", 0)? != 0
        {
            return Ok(false);
        }
        let mut attrs = n.attrs.clone();
        if scales.iter().any(|&d| d != 1) {
            let axis = ops::broadcast::axis(attrs.int_or("axis", 1)?, rank)?;
            let axis = to_last(rank).iter().position(|&d| d == axis).unwrap_or(axis);
            attrs = attrs.with("axis", axis as i64);
        }
        let mut inputs = vec![Some(self.last(x)?)];
        for v in &n.inputs()[1..] {
            inputs.push(v.map(|v| self.first(v)).transpose()?);
        }
        self.region(n, n.op, attrs, &inputs)
    }

    /// The range of all values has no axis at all.
    fn dynamic_quantization(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        if !n.is("DynamicQuantizeLinear") {
            return Ok(false);
        }
        let x = self.last(x)?;
        let id = self.emit(n, n.op, n.attrs.clone(), &[Some(x)])?;
        ir::infer_node(&mut self.new, id)?;
        let outs = self.new.node(id)?.outputs().to_vec();
        for (i, (old, new)) in n.outputs().iter().zip(outs).enumerate() {
            if let (Some(old), Some(new)) = (*old, new) {
                let twin = match i {
                    0 => Twin { first: None, last: Some(new) },
                    _ => Twin { first: Some(new), last: None },
                };
                self.twins.insert(old, twin);
            }
        }
        Ok(true)
    }

    fn concat(&mut self, n: &Node) -> Result<bool> {
        let Some(rank) = n.output(0).and_then(|o| self.old.ty(o).rank()).filter(|r| (3..=5).contains(r))
        else {
            return Ok(false);
        };
        if !n.is("Concat") || !n.inputs().iter().flatten().any(|&v| self.resident(v)) {
            return Ok(false);
        }
        let axis = ops::broadcast::axis(n.attrs.require_int("axis")?, rank)?;
        let axis = to_last(rank).iter().position(|&d| d == axis).unwrap_or(axis);
        let inputs =
            n.inputs().iter().map(|v| v.map(|v| self.last(v)).transpose()).collect::<Result<Vec<_>>>()?;
        self.region(n, n.op, n.attrs.clone().with("axis", axis as i64), &inputs)
    }

    /// Slices of what is in the region, their axes renumbered.
    fn slice(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        let Some(rank) = self.rank(x) else { return Ok(false) };
        let ints = |i: usize| n.input(i).and_then(|v| self.old.constant(v)).map(|t| t.to_i64s()).transpose();
        if !n.is("Slice") || !Self::one_output(n) || (n.input(4).is_some() && ints(4)?.is_none()) {
            return Ok(false);
        }
        let (Some(starts), Some(_)) = (ints(1)?, ints(2)?) else { return Ok(false) };
        let axes = match n.input(3) {
            None => (0..starts.len() as i64).collect(),
            Some(_) => match ints(3)? {
                Some(axes) => axes,
                None => return Ok(false),
            },
        };
        let last = to_last(rank);
        let moved = |&a: &i64| Ok(place(&last, ops::broadcast::axis(a, rank)?));
        let moved = axes.iter().map(moved).collect::<Result<Vec<i64>>>()?;
        let axes = self.new.add_initializer("axes", Tensor::vector(moved));
        let mut inputs = vec![Some(self.last(x)?), None, None, Some(axes), None];
        for i in [1, 2, 4] {
            inputs[i] = n.input(i).map(|v| self.first(v)).transpose()?;
        }
        self.region(n, n.op, n.attrs.clone(), &inputs)
    }

    /// Pieces of what is in the region along any axis.
    fn split(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        let Some(rank) = self.rank(x) else { return Ok(false) };
        if !n.is("Split") {
            return Ok(false);
        }
        let axis = ops::broadcast::axis(n.attrs.int_or("axis", 0)?, rank)?;
        let attrs = n.attrs.clone().with("axis", place(&to_last(rank), axis));
        let mut inputs = vec![Some(self.last(x)?)];
        for v in &n.inputs()[1..] {
            inputs.push(v.map(|v| self.first(v)).transpose()?);
        }
        let id = self.emit(n, n.op, attrs, &inputs)?;
        ir::infer_node(&mut self.new, id)?;
        let made = self.new.node(id)?.outputs().to_vec();
        for (old, new) in n.outputs().iter().zip(made) {
            if let (Some(old), Some(new)) = (*old, new) {
                self.twins.insert(old, Twin { first: None, last: Some(new) });
            }
        }
        Ok(true)
    }

    /// A transpose of what is in the region reads it as it lies there, which may leave nothing to move; one of what has its
    /// channels last, for those who want it so, is nothing.
    fn transposed(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|_| n.is("Transpose") && Self::one_output(n)) else {
            return Ok(false);
        };
        let (Some(rank), Some(y)) = (self.rank(x), n.output(0)) else { return Ok(false) };
        if !self.resident(x) {
            // The order that others want comes from this one at what it takes now.
            if self.f32_of_rank(y).is_none() || !self.starts(y, true) {
                return Ok(false);
            }
            let Some(shape) = self.old.ty(x).concrete() else { return Ok(false) };
            let perm = ops::transpose::perm(&n.attrs, rank)?;
            let order: Vec<usize> = to_last(rank).into_iter().map(|d| perm[d]).collect();
            if !order.iter().filter(|&&d| shape[d] != 1).is_sorted() || shape.contains(&0) {
                return Ok(false);
            }
            let last = self.first(x)?;
            if order.is_sorted() {
                self.twins.insert(y, Twin { first: None, last: Some(last) });
                return Ok(true);
            }
            // Dims of 1 move past others without moving data.
            let dims: Vec<i64> = order.iter().map(|&d| shape[d] as i64).collect();
            let dims = self.new.add_initializer("shape", Tensor::vector(dims));
            return self.region(n, ops::standard("Reshape")?, Attrs::new(), &[Some(last), Some(dims)]);
        }
        let last = to_last(rank);
        let perm = ops::transpose::perm(&n.attrs, rank)?;
        let perm: Vec<i64> = perm.into_iter().map(|d| place(&last, d)).collect();
        let input = self.last(x)?;
        let id = self.emit(n, n.op, Attrs::new().with("perm", perm), &[Some(input)])?;
        ir::infer_node(&mut self.new, id)?;
        if let (Some(old), Some(new)) = (n.output(0), self.new.node(id)?.output(0)) {
            self.twins.insert(old, Twin { first: Some(new), last: None });
        }
        Ok(true)
    }

    /// Whether an operator that starts a region reads `y`, or reads it `through` a change of its spatial dims.
    fn starts(&self, y: ValueId, through: bool) -> bool {
        self.old.consumers(y).into_iter().filter_map(|id| self.old.get(id)).any(|n| {
            let reads = n.input(0) == Some(y);
            let passes =
                || through && self.is_spatial(n) && n.output(0).is_some_and(|o| self.starts(o, false));
            reads && (channels_last(n.op.name()).is_some() || passes())
        })
    }

    /// Whether a node only merges, splits, puts in or leaves out spatial dims.
    fn is_spatial(&self, n: &Node) -> bool {
        let shape = |v: Option<ValueId>| v.and_then(|v| self.old.ty(v).concrete());
        let (Some(from), Some(to)) = (shape(n.input(0)), shape(n.output(0))) else { return false };
        let named = n.is("Reshape") || n.is("Squeeze") || n.is("Unsqueeze");
        let kept = (3..=5).contains(&to.len()) && from.len() >= 3 && from[..2] == to[..2];
        named && kept && !to.contains(&0) && Self::one_output(n)
    }

    /// Where only spatial dims are merged, split, put in or left out, the same happens to them with channels last.
    fn reshaped(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        if !self.is_spatial(n) {
            return Ok(false);
        }
        let to = n.output(0).and_then(|o| self.old.ty(o).concrete()).unwrap_or_default();
        let dims: Vec<i64> = to_last(to.len()).into_iter().map(|d| to[d] as i64).collect();
        let shape = self.new.add_initializer("shape", Tensor::vector(dims));
        let x = self.last(x)?;
        self.region(n, ops::standard("Reshape")?, Attrs::new(), &[Some(x), Some(shape)])
    }

    /// Reductions over known axes; those over all spatial dims without keeping them leave the region for free.
    fn reduce(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        let Some(rank) = self.rank(x) else { return Ok(false) };
        if !n.op.name().starts_with("Reduce") || !n.op.domain().is_empty() {
            return Ok(false);
        }
        let Some(axes) = n.input(1).and_then(|a| self.old.constant(a)).map(|t| t.to_i64s()).transpose()?
        else {
            return Ok(false);
        };
        let axes: Vec<usize> = axes.iter().map(|&a| ops::broadcast::axis(a, rank)).collect::<Result<_>>()?;
        let keep = n.attrs.int_or("keepdims", 1)? != 0;
        let spatial = axes.len() == rank - 2 && !axes.contains(&0) && !axes.contains(&1);
        if axes.is_empty() || (!keep && !spatial) {
            return Ok(false);
        }
        let last = to_last(rank);
        let mapped: Vec<i64> =
            axes.iter().filter_map(|a| last.iter().position(|d| d == a)).map(|p| p as i64).collect();
        let axes = self.new.add_initializer("axes", Tensor::vector(mapped));
        let x = self.last(x)?;
        let inputs = [Some(x), Some(axes)];
        if keep {
            return self.region(n, n.op, n.attrs.clone(), &inputs);
        }
        let id = self.emit(n, n.op, n.attrs.clone(), &inputs)?;
        ir::infer_node(&mut self.new, id)?;
        if let (Some(old), Some(new)) = (n.output(0), self.new.node(id)?.output(0)) {
            self.twins.insert(old, Twin { first: Some(new), last: None });
        }
        Ok(true)
    }

    fn pad(&mut self, n: &Node) -> Result<bool> {
        let Some(x) = n.input(0).filter(|&x| self.resident(x)) else { return Ok(false) };
        let Some(rank) = self.rank(x) else { return Ok(false) };
        if !n.is("Pad") || n.input(3).is_some() {
            return Ok(false);
        }
        let Some(pads) = n.input(1).and_then(|p| self.old.constant(p)).map(|t| t.to_i64s()).transpose()?
        else {
            return Ok(false);
        };
        if pads.len() != 2 * rank {
            return Ok(false);
        }
        let last = to_last(rank);
        let moved: Vec<i64> =
            last.iter().map(|&d| pads[d]).chain(last.iter().map(|&d| pads[rank + d])).collect();
        let pads = self.new.add_initializer("pads", Tensor::vector(moved));
        let value = n.input(2).map(|v| self.first(v)).transpose()?;
        let x = self.last(x)?;
        self.region(n, n.op, n.attrs.clone(), &[Some(x), Some(pads), value])
    }
}

/// Where a dim stands in a permuted order.
fn place(order: &[usize], dim: usize) -> i64 {
    order.iter().position(|&d| d == dim).unwrap_or(dim) as i64
}
