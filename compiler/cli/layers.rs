//! What a model consists of, per node: parameters, bytes, multiply-accumulates.

use ir::{Graph, Node, NodeId, ValueType, qualified};

/// One node's share of the model.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LayerRow {
    pub name: String,
    pub op: String,
    /// Type of the first output.
    pub output: String,
    /// Elements of the initializers this node is the first to read.
    pub parameters: u64,
    pub bytes: u64,
    /// Multiply-accumulates of one run; `None` when shapes are not known.
    pub macs: Option<u64>,
    pub dtypes: Vec<String>,
}

/// Rows for all nodes, bodies of control flow included (named `outer/inner`).
pub fn rows(graph: &Graph) -> Vec<LayerRow> {
    let mut seen = vec![false; graph.value_bound()];
    let mut rows = Vec::new();
    for id in graph.order().unwrap_or_default() {
        let Some(n) = graph.get(id) else { continue };
        rows.push(row(graph, id, n, &mut seen));
        for body in n.attrs.graphs() {
            rows.extend(
                self::rows(body)
                    .into_iter()
                    .map(|r| LayerRow { name: format!("{}/{}", n.name, r.name), ..r }),
            );
        }
    }
    rows
}

fn row(graph: &Graph, _id: NodeId, n: &Node, seen: &mut [bool]) -> LayerRow {
    let (mut parameters, mut bytes, mut dtypes) = (0u64, 0u64, Vec::new());
    for v in n.reads() {
        let Some(t) = graph.constant(v) else { continue };
        if !std::mem::replace(&mut seen[v.index()], true) {
            parameters += t.len() as u64;
            bytes += t.stored_bytes() as u64;
            dtypes.push(t.dtype().name().to_string());
        }
    }
    dtypes.sort();
    dtypes.dedup();
    LayerRow {
        name: n.name.clone(),
        op: qualified(n.op),
        output: n.output(0).map_or(String::new(), |v| graph.ty(v).to_string()),
        parameters,
        bytes,
        macs: macs(graph, n),
        dtypes,
    }
}

/// Elements with symbolic dims counted as 1 (one sample, one step).
fn elements(t: &ValueType) -> Option<u64> {
    Some(t.shape()?.iter().map(|d| d.known().unwrap_or(1) as u64).product())
}

fn macs(graph: &Graph, n: &Node) -> Option<u64> {
    let ty = |i: usize| n.input(i).map(|v| graph.ty(v));
    let out = || elements(graph.ty(n.output(0)?));
    let dims = |i: usize| ty(i)?.concrete();
    match n.op.name() {
        "Conv" | "FusedConv" | "ConvInteger" => {
            let w = dims(1)?;
            Some(out()? * w.iter().skip(1).map(|&d| d as u64).product::<u64>())
        }
        "QLinearConv" => Some(out()? * dims(3)?.iter().skip(1).map(|&d| d as u64).product::<u64>()),
        "ConvTranspose" => {
            Some(elements(ty(0)?)? * dims(1)?.iter().skip(1).map(|&d| d as u64).product::<u64>())
        }
        "MatMul" | "MatMulInteger" | "FusedMatMul" => {
            Some(out()? * ty(0)?.shape()?.last()?.known().unwrap_or(1) as u64)
        }
        "Gemm" => {
            let a = ty(0)?.shape()?;
            let k = if n.attrs.int_or("transA", 0).ok()? != 0 { a.first()? } else { a.last()? };
            Some(out()? * k.known().unwrap_or(1) as u64)
        }
        "LSTM" | "GRU" | "RNN" => {
            let steps =
                ty(0)?.shape()?.iter().take(2).map(|d| d.known().unwrap_or(1) as u64).product::<u64>();
            Some(steps * (elements(ty(1)?)? + elements(ty(2)?)?))
        }
        _ => Some(0),
    }
}
