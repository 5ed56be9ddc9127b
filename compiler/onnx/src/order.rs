//! The order in which a file's nodes can be read: producers first, names read by subgraphs included.

use crate::import::MAX_DEPTH;
use crate::proto::{GraphProto, NodeProto};
use ir::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Indices of nodes so that producers come first, keeping the file's order where it is one. Names read by subgraphs count.
pub fn sorted(nodes: &[NodeProto]) -> Result<Vec<usize>> {
    let mut producer: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, n) in nodes.iter().enumerate() {
        for o in n.output.iter().filter(|o| !o.is_empty()) {
            producer.insert(o, i);
        }
    }
    let mut missing = vec![0usize; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        let mut reads = BTreeSet::new();
        free_names(n, &mut reads, 0)?;
        for p in reads.iter().filter_map(|r| producer.get(r)) {
            missing[i] += 1;
            users[*p].push(i);
        }
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|&i| missing[i] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &u in &users[i] {
            missing[u] -= 1;
            if missing[u] == 0 {
                ready.insert(u);
            }
        }
    }
    if order.len() < nodes.len() {
        let stuck: Vec<&str> =
            (0..nodes.len()).filter(|&i| missing[i] > 0).map(|i| nodes[i].name.as_str()).take(4).collect();
        return Err(Error::model(format!("the graph has a cycle through nodes {stuck:?}")));
    }
    Ok(order)
}

/// Every name a node reads, those included that its subgraphs read from around them.
fn free_names<'p>(n: &'p NodeProto, reads: &mut BTreeSet<&'p str>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::limit(format!("subgraphs nest deeper than {MAX_DEPTH}")));
    }
    reads.extend(n.input.iter().map(String::as_str));
    for g in n.attribute.iter().flat_map(|a| a.g.as_ref().into_iter().chain(&a.graphs)) {
        reads.extend(outer_names(g, depth)?);
    }
    Ok(())
}

fn outer_names(g: &GraphProto, depth: usize) -> Result<BTreeSet<&str>> {
    let mut reads: BTreeSet<&str> = g.output.iter().map(|o| o.name.as_str()).collect();
    for n in &g.node {
        free_names(n, &mut reads, depth + 1)?;
    }
    let own = g.input.iter().map(|i| i.name.as_str()).chain(g.initializer.iter().map(|t| t.name.as_str()));
    own.chain(g.node.iter().flat_map(|n| n.output.iter().map(String::as_str))).for_each(|name| {
        reads.remove(name);
    });
    Ok(reads)
}
