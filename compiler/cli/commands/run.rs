//! `compress run`: one inference, npz in, npz out.

use crate::args::RunArgs;
use crate::exit::{Failure, Result};
use crate::{engine, files, limits, model};
use ir::{DType, Feeds, Graph, Tensor, Value};

pub fn run(args: RunArgs) -> Result {
    limits::set(&args.model, &args.bounds)?;
    files::check_target(&args.outputs, Some(&args.inputs), true)?;
    let opened = model::open(&args.model)?;
    let feeds = read_inputs(&opened.graph, &args.inputs)?;
    let outcome = engine::engine(args.threads, args.reference).run(&opened.graph, &feeds, &[])?;
    let mut arrays = Vec::new();
    for (o, v) in opened.graph.outputs().iter().zip(&outcome.outputs) {
        arrays.push((o.name.clone(), data::to_array(as_tensor(&o.name, v)?)?));
    }
    files::Pending::write(&args.outputs, |w| data::npz::write(w, &arrays))?.commit()
}

/// Arrays of an npz file as the model's inputs, bit patterns decoded by the model's element types.
pub fn read_inputs(graph: &Graph, path: &std::path::Path) -> Result<Feeds> {
    let names: Vec<&str> = graph.inputs().iter().map(|&v| graph.value_name(v)).collect();
    let arrays = data::read(path, &names)?;
    let mut feeds = Feeds::new();
    for &v in graph.inputs() {
        let name = graph.value_name(v);
        let Some(t) = arrays.get(name) else { continue };
        let want = graph.ty(v).dtype().unwrap_or(t.dtype());
        feeds.insert(name.to_string(), Value::Tensor(data::from_array(t, want).map_err(|e| e.tensor(name))?));
    }
    for &v in graph.inputs() {
        let name = graph.value_name(v);
        if !feeds.contains_key(name) {
            let given: Vec<&str> = arrays.keys().map(String::as_str).collect();
            return Err(Failure::bad(format!(
                "{}: no array for input '{name}' ({}); the file has {given:?}",
                path.display(),
                graph.ty(v)
            )));
        }
    }
    Ok(feeds)
}

fn as_tensor<'a>(name: &str, v: &'a Value) -> Result<&'a Tensor> {
    match v {
        Value::Tensor(t) if t.dtype() != DType::String => Ok(t),
        other => Err(Failure::bad(format!(
            "output '{name}' is a {}, which an npz file cannot hold",
            other.value_type()
        ))),
    }
}
