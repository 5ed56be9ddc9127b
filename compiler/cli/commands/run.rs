//! `compress run`: one inference, npz in, npz out.

use crate::args::{Precision, RunArgs};
use crate::exit::{Failure, Result};
use crate::{files, limits, model};
use ir::{Evaluate, Feeds, Graph, Tensor, Value};

pub fn run(args: RunArgs) -> Result {
    limits::set(&args.model, &args.bounds)?;
    files::check_target(&args.outputs, Some(&args.inputs), true)?;
    let (names, outputs) = if args.reference { reference(&args)? } else { generated(&args)? };
    let mut arrays = Vec::new();
    for (name, v) in names.into_iter().zip(&outputs) {
        let array = data::to_array(as_tensor(&name, v)?)?;
        arrays.push((name, array));
    }
    files::Pending::write(&args.outputs, |w| data::npz::write(w, &arrays))?.commit()
}

/// Names and values of all outputs.
type Results = (Vec<String>, Vec<Value>);

fn reference(args: &RunArgs) -> Result<Results> {
    let graph = model::open(&args.model)?.graph;
    // Models of half-float weights round at their borders only, here as in generated code.
    let graph = exact::widen(&graph)?.unwrap_or(graph);
    let feeds = read_inputs(&graph, &args.inputs)?;
    let outcome = ir::Reference.run(&graph, &feeds, &[])?;
    Ok((graph.outputs().iter().map(|o| o.name.clone()).collect(), outcome.outputs))
}

fn generated(args: &RunArgs) -> Result<Results> {
    let session = model::session(&args.model, args.threads.max(1), args.cache.as_deref())?;
    let session = Precision::set(args.precision, session);
    let feeds = read_inputs(&session.declared(), &args.inputs)?;
    let outputs = session.evaluate(&feeds)?;
    Ok((session.outputs().map(|o| o.name.to_string()).collect(), outputs))
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
        Value::Tensor(t) => Ok(t),
        other => Err(Failure::bad(format!(
            "output '{name}' is a {}, which an npz file cannot hold",
            other.value_type()
        ))),
    }
}
