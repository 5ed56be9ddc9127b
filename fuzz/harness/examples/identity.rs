//! Reads every model below a folder, writes it, reads that back: inputs, outputs and what computes them must be the same,
//! node by node, and once nodes have the names that reading gives them the file must stay the same to the byte. Equal
//! constants are stored once, and what nobody reads is not written, so names and number of constants are not compared.
//! `cargo run --release -p compress-harness --example identity -- FOLDER`, for instance on the backend tests of the onnx
//! package. Prints how many models were the same, differed, or cannot be read.

use ir::{Attr, Def, Graph, ValueId};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn models(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            models(&path, found);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
}

/// Numbers for computations: the same number, the same operators over the same inputs and constants.
#[derive(Default)]
struct Numbers(BTreeMap<String, usize>);

impl Numbers {
    fn of(&mut self, computation: String) -> usize {
        let next = self.0.len();
        *self.0.entry(computation).or_insert(next)
    }

    /// Inputs with their types, and outputs with types and numbers. `captures` are the numbers of a body's outer values; a
    /// file holds no shapes of what a body gives.
    fn signature(&mut self, g: &Graph, captures: Option<&[usize]>) -> Result<String, String> {
        let mut known: BTreeMap<ValueId, usize> = BTreeMap::new();
        for id in g.order().map_err(|e| e.to_string())? {
            let n = g.node(id).map_err(|e| e.to_string())?;
            let read: Vec<Option<usize>> =
                n.inputs().iter().map(|v| v.map(|v| self.value(g, v, &known, captures))).collect();
            let outer: Vec<usize> =
                n.captures().iter().map(|&v| self.value(g, v, &known, captures)).collect();
            // An output that is a constant goes through Identity in a file.
            if n.is("Identity") && n.inputs().iter().flatten().all(|&v| g.constant(v).is_some()) {
                let (from, to) = (read.first().copied().flatten(), n.output(0));
                known.extend(to.zip(from));
                continue;
            }
            let mut attrs = String::new();
            for (name, a) in n.attrs.iter() {
                let text = match a {
                    Attr::Graph(body) => self.signature(body, Some(&outer))?,
                    other => format!("{other:?}"),
                };
                attrs += &format!(" {name}={text}");
            }
            let node = self.of(format!("{}::{} {read:?}{attrs}", n.op.domain(), n.op.name()));
            for (k, v) in n.outputs().iter().enumerate() {
                if let Some(v) = v {
                    known.insert(*v, self.of(format!("output {k} of {node}")));
                }
            }
        }
        let inputs = g.inputs().iter().map(|&v| format!("{}: {}", g.value_name(v), g.ty(v)));
        let inputs: Vec<String> = inputs.collect();
        let outputs = g.outputs().iter().map(|o| {
            let (ty, number) = (g.ty(o.value), self.value(g, o.value, &known, captures));
            let ty = if captures.is_some() { format!("{:?}", ty.dtype()) } else { ty.to_string() };
            format!("{}: {ty} {number}", o.name)
        });
        let outputs: Vec<String> = outputs.collect();
        Ok(format!("{inputs:?} {outputs:?}"))
    }

    fn value(
        &mut self,
        g: &Graph,
        v: ValueId,
        known: &BTreeMap<ValueId, usize>,
        captures: Option<&[usize]>,
    ) -> usize {
        if let Some(t) = g.constant(v) {
            let mut content = DefaultHasher::new();
            match t.string_data() {
                Ok(strings) => strings.hash(&mut content),
                Err(_) => t.bytes().hash(&mut content),
            }
            return self.of(format!("constant {t:?} {}", content.finish()));
        }
        match g.def(v) {
            Def::Input(i) => self.of(format!("input {i} of {}", g.name)),
            Def::Capture(i) => captures.and_then(|c| c.get(*i)).copied().unwrap_or(usize::MAX),
            _ => known.get(&v).copied().unwrap_or(usize::MAX),
        }
    }
}

/// Why the model is not the same after a round trip; `None` when it cannot be read.
fn trip(path: &Path) -> Option<Result<(), String>> {
    let first = onnx::open(path, &ops::Standard).ok()?.graph;
    let check = || -> Result<(), String> {
        let text = |e: ir::Error| e.to_string();
        let file = onnx::to_bytes(&first, &ops::Standard).map_err(text)?;
        let second = onnx::from_bytes(file, &ops::Standard).map_err(text)?.graph;
        let again = onnx::to_bytes(&second, &ops::Standard).map_err(text)?;
        let third = onnx::from_bytes(again.clone(), &ops::Standard).map_err(text)?.graph;
        let last = onnx::to_bytes(&third, &ops::Standard).map_err(text)?;
        if let Some(d) = compress_harness::bytes::difference(&again, &last) {
            return Err(format!("written again, the file is another one: {d}"));
        }
        let mut numbers = Numbers::default();
        let (a, b) = (numbers.signature(&first, None)?, numbers.signature(&second, None)?);
        if a == b {
            return Ok(());
        }
        let (a, b) = (ir::text::print(&first).map_err(text)?, ir::text::print(&second).map_err(text)?);
        Err(format!("the graph is another one:\n{a}became\n{b}"))
    };
    Some(check())
}

fn main() {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: identity FOLDER");
        std::process::exit(2);
    };
    let mut all = Vec::new();
    models(Path::new(&folder), &mut all);
    all.sort();
    let (mut same, mut other, mut unread) = (0, 0, 0);
    for path in &all {
        match trip(path) {
            None => unread += 1,
            Some(Ok(())) => same += 1,
            Some(Err(why)) => {
                other += 1;
                println!("{}: {why}", path.display());
            }
        }
    }
    println!("{} models: {same} the same, {other} differ, {unread} cannot be read", all.len());
    std::process::exit(i32::from(other > 0 || same == 0));
}
