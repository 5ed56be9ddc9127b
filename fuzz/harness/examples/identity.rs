//! Reads every model below a folder, writes it, reads that back: the graph must be the same, and written again the file.
//! `cargo run --release -p compress-harness --example identity -- FOLDER`, for instance on the backend tests of the onnx
//! package. Prints how many models were the same, differed, or cannot be read.

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

/// Why the model is not the same after a round trip; `None` when it cannot be read.
fn trip(path: &Path) -> Option<Result<(), String>> {
    let first = onnx::open(path, &ops::Standard).ok()?.graph;
    let check = || -> Result<(), String> {
        let text = |e: ir::Error| e.to_string();
        let file = onnx::to_bytes(&first, &ops::Standard).map_err(text)?;
        let second = onnx::from_bytes(file.clone(), &ops::Standard).map_err(text)?.graph;
        let again = onnx::to_bytes(&second, &ops::Standard).map_err(text)?;
        if again != file {
            return Err("written again, the file is another one".into());
        }
        let (a, b) = (first.compacted().map_err(text)?, second.compacted().map_err(text)?);
        let (a, b) = (ir::text::print(&a).map_err(text)?, ir::text::print(&b).map_err(text)?);
        // The header says which opset was read and which is the oldest that holds the operators.
        let body = |t: &str| t.split_once('\n').map_or(String::new(), |(_, b)| b.to_string());
        if body(&a) == body(&b) { Ok(()) } else { Err("the graph is another one".into()) }
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
