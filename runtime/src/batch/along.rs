//! Along which axis a value holds the items of a batch, where no item's result depends on another item.
//!
//! The analysis runs on a graph whose batch is a symbol. It says yes only where a rule below says why: what has no rule
//! (control flow, random numbers, statistics over all items) makes a model run as a whole.

use ir::{Attrs, Dim, Graph, Kind, Node, Result, ValueId};
use std::collections::BTreeMap;

/// What a value has to do with the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Along {
    /// The same whatever the batch holds.
    Same,
    /// Computed from the number of items alone.
    Size,
    /// Item `i` of this axis comes from item `i` of the inputs.
    Axis(usize),
}
use Along::{Axis, Same, Size};

/// Whether every output holds the items of the batch `symbol` along its first axis, each computed from the same item of
/// the inputs. Types must be inferred; inputs are part of the batch where their first dim is the symbol.
pub fn separable(graph: &Graph, symbol: &Dim) -> Result<bool> {
    let cx = Cx { graph, symbol };
    let mut along: BTreeMap<ValueId, Along> = BTreeMap::new();
    for &v in graph.inputs() {
        along.insert(v, if cx.axis(v) == Some(0) { Axis(0) } else { Same });
    }
    for id in graph.order()? {
        let node = graph.node(id)?;
        let of = |v: &ValueId| along.get(v).copied().unwrap_or(Same);
        let reads: Vec<Along> = node.reads().map(|v| of(&v)).collect();
        let operands: Vec<Option<Along>> = node.inputs().iter().map(|v| v.as_ref().map(of)).collect();
        let batched = reads.iter().any(|a| matches!(a, Axis(_)));
        let sized = reads.contains(&Size);
        for (i, o) in node.outputs().iter().enumerate() {
            let Some(o) = *o else { continue };
            let found = match (batched, sized) {
                (false, false) => Some(Same),
                (false, true) => Some(cx.uniform(node, &operands, o)),
                (true, _) => cx.rule(node, &operands, i, o),
            };
            // The type must say the same.
            match found {
                Some(Axis(a)) if cx.axis(o) != Some(a) => return Ok(false),
                Some(a) => drop(along.insert(o, a)),
                None => return Ok(false),
            }
        }
    }
    // Parts of an output are put together byte by byte.
    let whole = |v: ValueId| graph.dtype(v).is_some_and(|d| d.bits() >= 8);
    Ok(graph.outputs().iter().all(|o| along.get(&o.value) == Some(&Axis(0)) && whole(o.value)))
}

struct Cx<'a> {
    graph: &'a Graph,
    symbol: &'a Dim,
}

impl Cx<'_> {
    fn dims(&self, v: ValueId) -> Option<&[Dim]> {
        self.graph.ty(v).shape()
    }

    fn rank(&self, v: ValueId) -> Option<usize> {
        self.graph.ty(v).rank()
    }

    /// The only axis of the batch's size, all others being known.
    fn axis(&self, v: ValueId) -> Option<usize> {
        let dims = self.dims(v)?;
        let at = dims.iter().position(|d| d == self.symbol)?;
        dims.iter().enumerate().all(|(i, d)| i == at || d.known().is_some()).then_some(at)
    }

    /// Product of the dims before an axis.
    fn before(&self, v: ValueId, axis: usize) -> Option<usize> {
        self.dims(v)?[..axis].iter().try_fold(1usize, |n, d| n.checked_mul(d.known()?))
    }

    /// What depends on the number of items only: one value repeated for each item is like any other.
    fn uniform(&self, node: &Node, operands: &[Option<Along>], out: ValueId) -> Along {
        let repeats = match node.op.name() {
            "ConstantOfShape" => true,
            "Expand" => operands.first() == Some(&Some(Same)) && self.repeated(node, out),
            _ => false,
        };
        self.axis(out).filter(|_| repeats).map_or(Size, Axis)
    }

    /// The first operand has one element, or no axis, where the output has the batch.
    fn repeated(&self, node: &Node, out: ValueId) -> bool {
        let sizes = || {
            let (dims, rank, at) = (self.dims(node.input(0)?)?, self.rank(out)?, self.axis(out)?);
            Some((at + dims.len()).checked_sub(rank).is_none_or(|i| dims[i] == Dim::Known(1)))
        };
        sizes() == Some(true)
    }

    /// The axis of output `i` for a node that reads items.
    fn rule(&self, node: &Node, operands: &[Option<Along>], i: usize, out: ValueId) -> Option<Along> {
        let name = node.op.name();
        if matches!(name, "Shape" | "Size") {
            return Some(Size);
        }
        if let Kind::Elementwise(_) = node.op.kind(&node.attrs) {
            return self.broadcast(node, operands, self.rank(out)?).map(Axis);
        }
        let first = match operands.first()? {
            Some(Axis(a)) => Some(*a),
            _ => None,
        };
        let others = operands.get(1..).unwrap_or_default().iter().flatten();
        let alone = others.clone().all(|a| *a == Same);
        let rank = self.rank(node.input(0)?)?;
        let attrs = &node.attrs;
        let axis = match name {
            // Each item by itself, weights beside.
            "Conv"
            | "ConvTranspose"
            | "ConvInteger"
            | "QLinearConv"
            | "MaxPool"
            | "AveragePool"
            | "LpPool"
            | "GlobalMaxPool"
            | "GlobalAveragePool"
            | "GlobalLpPool"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "LRN"
            | "DepthToSpace"
            | "SpaceToDepth" => first.filter(|&a| a == 0 && alone)?,
            "Resize" => {
                let sizes =
                    |(k, a): (usize, &Option<Along>)| k == 0 || k == 3 || matches!(a, None | Some(Same));
                first.filter(|&a| a == 0 && operands.iter().enumerate().all(sizes))?
            }
            "GridSample" => first.filter(|&a| a == 0 && operands.get(1) == Some(&Some(Axis(0))))?,
            "BatchNormalization" => {
                first.filter(|&a| a == 0 && alone && attrs.int_or("training_mode", 0) == Ok(0))?
            }
            "Gemm" => {
                let row = node.input(2).is_none_or(|c| self.one_row(c));
                first.filter(|&a| a == 0 && alone && row && attrs.int_or("transA", 0) == Ok(0))?
            }
            "MatMul" | "MatMulInteger" => self.product(node, operands, self.rank(out)?)?,
            "Softmax" | "LogSoftmax" | "Hardmax" | "LpNormalization" => {
                first.filter(|a| self.attr_axis(attrs, -1, rank).is_some_and(|x| x != *a))?
            }
            "LayerNormalization" | "RMSNormalization" => {
                // A scale of the rank of the input may differ from item to item.
                let shared = |a: usize| {
                    let more = node.inputs().get(1..).unwrap_or_default();
                    more.iter().flatten().all(|&v| self.is_one_at(v, a, rank))
                };
                let within = |a: usize| self.attr_axis(attrs, -1, rank).is_some_and(|x| x > a);
                first.filter(|&a| alone && within(a) && shared(a))?
            }
            "ArgMax" | "ArgMin" => {
                let axis = self.attr_axis(attrs, 0, rank)?;
                without(first?, &[axis], attrs.int_or("keepdims", 1).ok()? != 0)?
            }
            "TopK" => first.filter(|a| alone && self.attr_axis(attrs, -1, rank).is_some_and(|x| x != *a))?,
            "CumSum" => {
                first.filter(|a| alone && self.list(node, 1, rank).is_some_and(|x| !x.contains(a)))?
            }
            n if n.starts_with("Reduce") => {
                // Without axes all are reduced.
                let axes = self.list(node, 1, rank).filter(|a| !a.is_empty())?;
                without(first?, &axes, attrs.int_or("keepdims", 1).ok()? != 0)?
            }
            "Transpose" => {
                let from = i64::try_from(first?).ok()?;
                match attrs.ints("perm").ok()? {
                    Some(p) => p.iter().position(|&p| p == from)?,
                    None => rank.checked_sub(1 + first?)?,
                }
            }
            // Row-major order stays: the batch is where as many elements lie before it.
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let to = self.axis(out)?;
                (self.before(node.input(0)?, first?)? == self.before(out, to)?).then_some(to)?
            }
            "Concat" => {
                let all = operands.iter().flatten().all(|a| *a == Axis(first.unwrap_or(usize::MAX)));
                first.filter(|a| all && self.attr_axis(attrs, 0, rank).is_some_and(|x| x != *a))?
            }
            "Split" => first.filter(|a| alone && self.attr_axis(attrs, 0, rank).is_some_and(|x| x != *a))?,
            "Slice" => first.filter(|a| alone && self.whole(node, *a, rank) == Some(true))?,
            "Pad" => first.filter(|a| alone && self.unpadded(node, *a, rank) == Some(true))?,
            "Tile" => {
                let repeats = self.graph.constant(node.input(1)?)?.to_i64s().ok()?;
                first.filter(|&a| repeats.get(a) == Some(&1))?
            }
            "Expand" => first? + self.rank(out)?.checked_sub(rank)?,
            "Gather" => {
                let axis = self.attr_axis(attrs, 0, rank)?;
                let indices = self.rank(node.input(1)?)?;
                match (first, operands.get(1)?.as_ref()?) {
                    (Some(a), Same) if a < axis => a,
                    (Some(a), Same) if a > axis => (a + indices).checked_sub(1)?,
                    (None, Axis(i)) if operands[0] == Some(Same) => axis + i,
                    _ => return None,
                }
            }
            "QuantizeLinear" | "DequantizeLinear" => {
                let scalar = self.rank(node.input(1)?)? == 0;
                let blocks = attrs.int_or("block_size", 0).ok()? != 0;
                let other = self.attr_axis(attrs, 1, rank).is_some_and(|x| Some(x) != first);
                first.filter(|_| alone && !blocks && (scalar || other))?
            }
            "LSTM" | "GRU" | "RNN" => self.recurrent(node, operands, i)?,
            _ => return None,
        };
        Some(Axis(axis))
    }

    /// The axis after broadcasting: all items meet at one axis, and what is the same for all has one element there.
    fn broadcast(&self, node: &Node, operands: &[Option<Along>], rank: usize) -> Option<usize> {
        let mut at = None;
        for (v, along) in node.inputs().iter().zip(operands) {
            let (Some(v), Some(Axis(a))) = (v, along) else { continue };
            let here = a + rank.checked_sub(self.rank(*v)?)?;
            if *at.get_or_insert(here) != here {
                return None;
            }
        }
        let at = at?;
        let fits = node.inputs().iter().zip(operands).all(|(v, along)| match (v, along) {
            (Some(v), Some(Same)) => self.is_one_at(*v, at, rank),
            (_, Some(Size)) => false,
            _ => true,
        });
        fits.then_some(at)
    }

    /// Whether an operand has one element, or no axis, where a result of this rank has axis `at`.
    fn is_one_at(&self, v: ValueId, at: usize, rank: usize) -> bool {
        self.dims(v).is_some_and(|d| (at + d.len()).checked_sub(rank).is_none_or(|i| d[i] == Dim::Known(1)))
    }

    /// Rows of a left side, or matrices of a stack of them.
    fn product(&self, node: &Node, operands: &[Option<Along>], rank: usize) -> Option<usize> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        if operands.get(2..).unwrap_or_default().iter().flatten().any(|z| *z != Same) {
            return None;
        }
        let (ra, rb) = (self.rank(a)?, self.rank(b)?);
        if ra < 2 || rb < 2 {
            return None;
        }
        let place = |x: usize, r: usize| x + rank.saturating_sub(r);
        match (operands[0]?, operands[1]?) {
            (Axis(x), Same) if x + 1 < ra => {
                let at = place(x, ra);
                (x + 2 == ra || self.is_one_at(b, at, rank)).then_some(at)
            }
            (Same, Axis(y)) if y + 2 < rb => {
                let at = place(y, rb);
                self.is_one_at(a, at, rank).then_some(at)
            }
            (Axis(x), Axis(y)) if x + 2 < ra && y + 2 < rb && place(x, ra) == place(y, rb) => {
                Some(place(x, ra))
            }
            _ => None,
        }
    }

    /// Items lie along the second axis of what a recurrence reads.
    fn recurrent(&self, node: &Node, operands: &[Option<Along>], output: usize) -> Option<usize> {
        if node.attrs.int_or("layout", 0).ok()? != 0 {
            return None;
        }
        let fits = operands.iter().enumerate().all(|(i, a)| match (i, a) {
            (_, None) => true,
            (0 | 5 | 6, Some(a)) => *a == Axis(1),
            (4, Some(a)) => *a == Axis(0),
            (_, Some(a)) => *a == Same,
        });
        fits.then_some(if output == 0 { 2 } else { 1 })
    }

    fn one_row(&self, c: ValueId) -> bool {
        self.dims(c).is_some_and(|d| d.len() < 2 || d[0] == Dim::Known(1))
    }

    fn attr_axis(&self, attrs: &Attrs, default: i64, rank: usize) -> Option<usize> {
        place(attrs.int_or("axis", default).ok()?, rank)
    }

    /// Axes of a constant operand.
    fn list(&self, node: &Node, i: usize, rank: usize) -> Option<Vec<usize>> {
        let axes = self.graph.constant(node.input(i)?)?.to_i64s().ok()?;
        axes.iter().map(|&a| place(a, rank)).collect()
    }

    /// Whether a slice takes all there is along an axis.
    fn whole(&self, node: &Node, axis: usize, rank: usize) -> Option<bool> {
        let list = |i: usize| self.graph.constant(node.input(i)?)?.to_i64s().ok();
        let (from, to) = (list(1)?, list(2)?);
        let steps = match node.input(4) {
            Some(_) => list(4)?,
            None => vec![1; from.len()],
        };
        let axes = match node.input(3) {
            Some(_) => self.list(node, 3, rank)?,
            None => (0..from.len()).collect(),
        };
        let last = i64::from(i32::MAX);
        let all = |k: usize| {
            (from.get(k), steps.get(k)) == (Some(&0), Some(&1)) && to.get(k).is_some_and(|&to| to >= last)
        };
        Some(axes.iter().enumerate().all(|(k, a)| *a != axis || all(k)))
    }

    fn unpadded(&self, node: &Node, axis: usize, rank: usize) -> Option<bool> {
        let pads = self.graph.constant(node.input(1)?)?.to_i64s().ok()?;
        let axes = match node.input(3) {
            Some(_) => self.list(node, 3, rank)?,
            None => (0..rank).collect(),
        };
        let at = |k: usize| axes.get(k % axes.len().max(1)) == Some(&axis);
        Some(pads.len() == 2 * axes.len() && pads.iter().enumerate().all(|(k, &p)| p == 0 || !at(k)))
    }
}

fn place(axis: i64, rank: usize) -> Option<usize> {
    let r = i64::try_from(rank).ok()?;
    usize::try_from(if axis < 0 { axis + r } else { axis }).ok().filter(|&a| a < rank)
}

/// Where an axis is after others were reduced.
fn without(axis: usize, reduced: &[usize], kept: bool) -> Option<usize> {
    let before = reduced.iter().filter(|&&a| a < axis).count();
    (!reduced.contains(&axis)).then_some(if kept { axis } else { axis - before })
}
