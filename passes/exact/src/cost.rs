//! Cost of one operator, in units of one float moved: element traffic plus arithmetic, with a fixed price per node.

use crate::facts::{Egraph, attrs_of, operator};
use crate::language::{ENode, Symbol};
use ir::{DType, Dim, ValueType};
use ops::einsum::Equation;
use std::collections::BTreeMap;

/// Fixed price of a node: dispatch, and one more intermediate to keep.
const NODE: f64 = 400.0;
/// Size assumed for a dimension that is not known.
const UNKNOWN: f64 = 64.0;
/// Multiply-adds that take as long as moving one float.
const FLOPS_PER_MOVE: f64 = 8.0;
/// How much faster 8-bit products are.
const INTEGER: f64 = 3.0;

fn elements(t: Option<&ValueType>) -> f64 {
    let Some(shape) = t.and_then(ValueType::shape) else { return UNKNOWN * UNKNOWN };
    shape.iter().enumerate().map(|(i, d)| dim(d, i)).product()
}

/// Elements, of which narrow ones count by what they fill of a float.
fn traffic(t: Option<&ValueType>) -> f64 {
    let bits = t.and_then(ValueType::dtype).map_or(32, DType::bits).clamp(8, 32);
    bits as f64 / 32.0 * elements(t)
}

fn dim(d: &Dim, position: usize) -> f64 {
    match d {
        Dim::Known(n) => *n as f64,
        _ if position == 0 => 1.0,
        _ => UNKNOWN,
    }
}

/// Price of an e-node by itself; what only depends on constants is computed once and nearly free.
pub fn cost(egraph: &Egraph, id: egg::Id, node: &ENode) -> f64 {
    let Some(op) = operator(node) else {
        return if matches!(node.symbol, Symbol::Opaque(_)) { NODE } else { 0.0 };
    };
    let out = egraph[id].data.types.first();
    if egraph[id].data.constant {
        return 1.0 + 1e-6 * elements(out);
    }
    let types: Vec<Option<&ValueType>> =
        node.children[1..].iter().map(|&c| egraph[c].data.types.first()).collect();
    let variable = |i: usize| node.children.get(i + 1).is_some_and(|&c| !egraph[c].data.constant);
    let read = types.iter().enumerate().filter(|(i, _)| variable(*i)).map(|(_, t)| traffic(*t)).sum::<f64>();
    let moved = traffic(out) + read;
    let work = match op.name() {
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Identity" | "Shape" | "Size" => 0.0,
        "Transpose" => 3.0 * moved,
        // Mostly what reads the values makes them of the bytes.
        "DequantizeLinear" => read + traffic(out) / 2.0,
        "Mul" if scales_bytes(egraph, node) => moved / 2.0,
        "Pow" | "Exp" | "Log" | "Erf" | "Tanh" | "Sigmoid" | "Softmax" | "Gelu" | "Div" | "Sqrt" => {
            2.0 * moved
        }
        // Their parts have kernels; they have not.
        "QLinearConv" => 4.0 * (NODE + moved) + contraction(out, types.get(3).copied().flatten()),
        "QLinearMatMul" => 4.0 * (NODE + moved) + matrix(out, types.first().copied().flatten()),
        "Conv" | "FusedConv" | "ConvTranspose" | "FusedConvTranspose" => {
            moved + contraction(out, types.get(1).copied().flatten())
        }
        "ConvInteger" => moved + contraction(out, types.get(1).copied().flatten()) / INTEGER,
        "MatMulInteger" => moved + matrix(out, types.first().copied().flatten()) / INTEGER,
        "QuantizedConv" => moved + contraction(out, types.get(3).copied().flatten()) / INTEGER,
        "QuantizedMatMul" => moved + matrix(out, types.first().copied().flatten()) / INTEGER,
        "MatMul" | "Gemm" | "FusedMatMul" | "FusedGemm" => {
            moved + matrix(out, types.first().copied().flatten())
        }
        // So has this: the same product between movements.
        "Einsum" => 16.0 * (NODE + moved) + products(egraph, node),
        "Attention" => moved + attention(egraph, node, op.domain() == "ir."),
        _ => moved,
    };
    // Of equal forms the one whose missing margin is stated.
    let stated = op.name() == "Conv" && attrs_of(egraph, node).is_some_and(|a| a.get("auto_pad").is_some());
    NODE + work - if stated { 0.5 } else { 0.0 }
}

/// Whether a node multiplies what bytes stand for, by constants or by each other, which is done as they are dequantized.
fn scales_bytes(egraph: &Egraph, node: &ENode) -> bool {
    let bytes = |c: egg::Id| {
        egraph[c].nodes.iter().any(|n| operator(n).is_some_and(|op| op.name() == "DequantizeLinear"))
    };
    node.children[1..].iter().all(|&c| egraph[c].data.constant || bytes(c))
}

/// Convolution: every output element reads one filter.
fn contraction(out: Option<&ValueType>, weight: Option<&ValueType>) -> f64 {
    let filters = weight.and_then(ValueType::shape).and_then(|s| s.first()).map_or(UNKNOWN, |d| dim(d, 1));
    elements(out) * (elements(weight) / filters.max(1.0)) / FLOPS_PER_MOVE
}

fn matrix(out: Option<&ValueType>, a: Option<&ValueType>) -> f64 {
    let inner = a.and_then(ValueType::shape).and_then(|s| s.last()).map_or(UNKNOWN, |d| dim(d, 1));
    elements(out) * inner / FLOPS_PER_MOVE
}

/// One multiplication for each combination of an equation's labels.
fn products(egraph: &Egraph, node: &ENode) -> f64 {
    let shapes: Option<Vec<_>> =
        node.children[1..].iter().map(|&c| egraph[c].data.types.first()?.shape()).collect();
    let attrs = attrs_of(egraph, node).unwrap_or_default();
    let (Some(shapes), Ok(Some(equation))) = (shapes, attrs.str("equation")) else { return 0.0 };
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let Ok(equation) = Equation::parse(equation, &ranks) else { return 0.0 };
    let mut sizes = BTreeMap::new();
    for (labels, shape) in equation.inputs.iter().zip(shapes) {
        for (l, d) in labels.iter().zip(shape) {
            let size = sizes.entry(*l).or_insert(1.0);
            *size = dim(d, 1).max(*size);
        }
    }
    sizes.values().product::<f64>() / FLOPS_PER_MOVE
}

/// Both products and the softmax between them, which stays in the cache.
fn attention(egraph: &Egraph, node: &ENode, permuted: bool) -> f64 {
    let attrs = attrs_of(egraph, node).unwrap_or_default();
    // Size along an axis of an operand, `i` from the end, seen through its permutation.
    let size = |operand: usize, perm: &str, i: usize| {
        let ty = node.children.get(operand + 1).and_then(|&c| egraph[c].data.types.first());
        let Some(shape) = ty.and_then(ValueType::shape) else { return UNKNOWN };
        let at = shape.len().wrapping_sub(i);
        let axis = match attrs.ints(perm) {
            Ok(Some(p)) if permuted => p.get(at).and_then(|&d| usize::try_from(d).ok()).unwrap_or(at),
            _ => at,
        };
        shape.get(axis).map_or(UNKNOWN, |d| dim(d, 1))
    };
    let width = size(0, "q_perm", 1).max(1.0);
    let q = elements(node.children.get(1).and_then(|&c| egraph[c].data.types.first()));
    let scores = q / width * size(1, "k_perm", 2);
    scores * ((width + size(2, "v_perm", 1)) / FLOPS_PER_MOVE + 1.0)
}
