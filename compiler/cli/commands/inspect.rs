//! `compress inspect`: what a model is made of, and what of it is not supported.

use crate::args::InspectArgs;
use crate::exit::{Result, lines};
use crate::layers::{LayerRow, rows};
use crate::report::table::Table;
use crate::{limits, model};
use ir::Graph;
use serde_json::json;
use std::collections::BTreeMap;

pub fn run(args: InspectArgs) -> Result {
    limits::set(&args.model, &args.bounds)?;
    let opened = model::inspect(&args.model)?;
    if args.json {
        println!("{:#}", as_json(&args, &opened));
        return Ok(());
    }
    print!("{}", lines(&as_text(&args, &opened)));
    Ok(())
}

/// Names and types.
type Ports = Vec<(String, String)>;

fn ports(g: &Graph) -> (Ports, Ports) {
    let inputs = g.inputs().iter().map(|&v| (g.value_name(v).to_string(), g.ty(v).to_string())).collect();
    let outputs = g.outputs().iter().map(|o| (o.name.clone(), g.ty(o.value).to_string())).collect();
    (inputs, outputs)
}

fn op_counts(rows: &[LayerRow]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    rows.iter().for_each(|r| *counts.entry(r.op.as_str()).or_default() += 1);
    counts
}

fn dtype_bytes(g: &Graph) -> BTreeMap<&'static str, u64> {
    let mut bytes = BTreeMap::new();
    g.initializers()
        .for_each(|(_, t)| *bytes.entry(t.dtype().name()).or_default() += t.stored_bytes() as u64);
    for (_, n) in g.nodes() {
        for body in n.attrs.graphs() {
            dtype_bytes(body).into_iter().for_each(|(k, v)| *bytes.entry(k).or_default() += v);
        }
    }
    bytes
}

fn as_json(args: &InspectArgs, m: &model::Inspected) -> serde_json::Value {
    let Some(g) = &m.graph else {
        return json!({ "model": args.model, "file_bytes": m.file_bytes, "unsupported": m.unsupported });
    };
    let rows = rows(g);
    let (inputs, outputs) = ports(g);
    let port = |p: Ports| p.into_iter().map(|(n, t)| json!({"name": n, "type": t})).collect::<Vec<_>>();
    json!({
        "model": args.model,
        "file_bytes": m.file_bytes,
        "opset": g.meta.opset,
        "producer": g.meta.producer,
        "inputs": port(inputs),
        "outputs": port(outputs),
        "nodes": rows.len(),
        "operators": op_counts(&rows),
        "parameters": rows.iter().map(|r| r.parameters).sum::<u64>(),
        "initializer_bytes": dtype_bytes(g),
        "macs": rows.iter().filter_map(|r| r.macs).sum::<u64>(),
        "layers": rows,
        "unsupported": m.unsupported,
        "no_native_kernel": m.interpreted,
        "warnings": m.warnings,
    })
}

fn as_text(args: &InspectArgs, m: &model::Inspected) -> String {
    let mut s = format!("{}  {} bytes\n", args.model.display(), m.file_bytes);
    for u in &m.unsupported {
        s += &format!("unsupported: {u}\n");
    }
    let Some(g) = &m.graph else { return s };
    let rows = rows(g);
    let (inputs, outputs) = ports(g);
    s += &format!("opset {}  {} nodes  producer '{}'\n", g.meta.opset, rows.len(), g.meta.producer);
    inputs.iter().for_each(|(n, t)| s += &format!("input   {n}: {t}\n"));
    outputs.iter().for_each(|(n, t)| s += &format!("output  {n}: {t}\n"));
    let ops: Vec<String> = op_counts(&rows).iter().map(|(o, n)| format!("{o}×{n}")).collect();
    s += &format!("operators: {}\n\n", ops.join(" "));
    let mut table = Table::new(&["layer", "op", "output", "parameters", "bytes", "MACs", "dtype"]);
    for r in rows.iter().filter(|r| r.parameters > 0 || r.macs.is_some_and(|m| m > 0)) {
        let macs = r.macs.map_or("?".into(), |m| m.to_string());
        table.row(&[
            &r.name,
            &r.op,
            &r.output,
            &r.parameters.to_string(),
            &r.bytes.to_string(),
            &macs,
            &r.dtypes.join("+"),
        ]);
    }
    s += &table.to_string();
    let total = |f: fn(&LayerRow) -> u64| rows.iter().map(f).sum::<u64>();
    s += &format!(
        "total: {} parameters, {} bytes, {} MACs\n",
        total(|r| r.parameters),
        total(|r| r.bytes),
        total(|r| r.macs.unwrap_or(0))
    );
    if !m.interpreted.is_empty() {
        s += &format!("no native kernel (runs by reference semantics): {}\n", m.interpreted.join(" "));
    }
    m.warnings.iter().for_each(|w| s += &format!("warning: {w}\n"));
    s
}
