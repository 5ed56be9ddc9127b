//! What a written model says of how it was made, and the room that this takes in its file.

use ir::{Graph, Result};
use search::{Decision, Size};

/// Keys of a model's properties.
const RECIPE: &str = "compress.recipe";
const INPUT: &str = "compress.input_blake3";

/// What layers may become, of usual lengths.
const USUAL: [&str; 5] =
    ["tucker 24×16 int8", "codebook 16 int8", "low-rank 37 int8", "int4 block 128", "prune 62% int8"];

/// The properties of a model that was made with this goal.
pub fn properties(goal: &str, seed: u64, hash: &str, decision: &Decision) -> [(&'static str, String); 2] {
    let layers: Vec<String> =
        decision.layers.iter().map(|l| format!("{}={}", l.layer, l.summary())).collect();
    told(goal, seed, hash, &layers)
}

/// Those of a model whose layers are not decided yet.
pub fn expected(goal: &str, seed: u64, hash: &str, graph: &Graph) -> [(&'static str, String); 2] {
    let layers = lossy::layers(graph);
    let usual = USUAL.iter().cycle();
    let layers: Vec<String> =
        layers.iter().zip(usual).map(|(l, what)| format!("{}={what}", l.name)).collect();
    told(goal, seed, hash, &layers)
}

fn told(goal: &str, seed: u64, hash: &str, layers: &[String]) -> [(&'static str, String); 2] {
    let recipe =
        format!("compress {}; {goal}; seed {seed}; {}", env!("CARGO_PKG_VERSION"), layers.join(", "));
    [(RECIPE, recipe), (INPUT, hash.to_string())]
}

/// Bytes of the file of a graph with these properties.
pub fn size(size: Size, graph: &Graph, properties: &[(&str, String)]) -> Result<u64> {
    let mut g = graph.clone();
    g.meta.properties.extend(properties.iter().map(|(k, v)| (k.to_string(), v.clone())));
    size(&g)
}
