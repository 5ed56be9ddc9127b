//! A set of samples for a model: one npz with samples along the first axis, one npy, or a directory of npz.

use crate::{from_array, npy, npz};
use ir::{Error, Feeds, Graph, Result, Tensor, Value, budget};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the optional array of integer labels.
const LABELS: &str = "labels";

/// Samples checked against a model's inputs.
#[derive(Debug)]
pub struct Samples {
    source: Source,
    labels: Option<Vec<i64>>,
    len: usize,
    /// Input names with their rank, in model order.
    inputs: Vec<Input>,
}

#[derive(Debug)]
enum Source {
    /// Arrays whose first axis counts samples.
    Stacked(BTreeMap<String, Tensor>),
    /// One set of arrays per sample.
    Ragged(Vec<BTreeMap<String, Tensor>>),
}

#[derive(Debug)]
struct Input {
    name: String,
    rank: Option<usize>,
    dtype: ir::DType,
}

impl Samples {
    /// Opens data for `graph`. Errors name the file, the array and what the model wants.
    pub fn open(path: &Path, graph: &Graph) -> Result<Samples> {
        let named = |e: Error| Error { message: format!("{}: {}", path.display(), e.message), ..e };
        let inputs = inputs(graph)?;
        let (source, labels) = if path.is_dir() {
            read_directory(path)?
        } else {
            let mut arrays = if path.extension().is_some_and(|e| e == "npy") {
                let bytes = std::fs::read(path)
                    .map_err(|e| Error::data(format!("cannot read {}: {e}", path.display())))?;
                let [only] = inputs.as_slice() else {
                    return Err(Error::data(format!(
                        "{}: an npy file fits models with one input",
                        path.display()
                    )));
                };
                BTreeMap::from([(only.name.clone(), npy::parse(&bytes).map_err(named)?)])
            } else {
                npz::read(path)?
            };
            let labels = arrays
                .remove(LABELS)
                .map(|t| t.to_i64s())
                .transpose()
                .map_err(|e| named(e.tensor(LABELS)))?;
            (Source::Stacked(arrays), labels)
        };
        let mut s = Samples { source, labels, len: 0, inputs };
        s.len = s.count().map_err(named)?;
        if let Some(l) = &s.labels
            && l.len() < s.len
        {
            return Err(named(Error::data(format!("{} labels for {} samples", l.len(), s.len))));
        }
        s.feeds(0, graph).map_err(named)?;
        Ok(s)
    }

    fn count(&self) -> Result<usize> {
        let n = match &self.source {
            Source::Ragged(v) => v.len(),
            Source::Stacked(arrays) => {
                let mut n = None;
                for i in &self.inputs {
                    let t = arrays.get(&i.name).ok_or_else(|| missing(&i.name, arrays))?;
                    let first = *t
                        .shape()
                        .first()
                        .ok_or_else(|| Error::data("a scalar has no sample axis").tensor(i.name.as_str()))?;
                    if n.is_some_and(|n| n != first) {
                        return Err(Error::data(format!(
                            "{first} samples where other inputs have {}",
                            n.unwrap_or(0)
                        ))
                        .tensor(i.name.as_str()));
                    }
                    n = Some(first);
                }
                n.unwrap_or(0)
            }
        };
        if n == 0 { Err(Error::data("there are no samples")) } else { Ok(n) }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The label of each sample, if the data has labels.
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// Sample `i` as the model takes it: a batch of 1 where the model has a batch axis.
    pub fn feeds(&self, i: usize, graph: &Graph) -> Result<Feeds> {
        let mut feeds = Feeds::new();
        for (input, &v) in self.inputs.iter().zip(graph.inputs()) {
            let t = match &self.source {
                Source::Stacked(a) => slice(a.get(&input.name).ok_or_else(|| missing(&input.name, a))?, i)?,
                Source::Ragged(all) => {
                    let a = all.get(i).ok_or_else(|| Error::data(format!("there is no sample {i}")))?;
                    a.get(&input.name).ok_or_else(|| missing(&input.name, a))?.clone()
                }
            };
            let at = |e: Error| e.tensor(input.name.as_str());
            let t = from_array(&batched(t, input.rank)?, input.dtype).map_err(at)?;
            let want = graph.ty(v);
            want.merge(&ir::ValueType::of(&t)).map_err(|_| {
                at(Error::data(format!("a sample of shape {:?} does not fit the model's {want}", t.shape())))
            })?;
            feeds.insert(input.name.clone(), Value::Tensor(t));
        }
        Ok(feeds)
    }
}

fn inputs(graph: &Graph) -> Result<Vec<Input>> {
    graph
        .inputs()
        .iter()
        .map(|&v| {
            let (name, ty) = (graph.value_name(v), graph.ty(v));
            let dtype = ty.dtype().ok_or_else(|| {
                Error::unsupported(format!("input of type {ty} cannot come from arrays")).tensor(name)
            })?;
            Ok(Input { name: name.to_string(), rank: ty.rank(), dtype })
        })
        .collect()
}

fn missing(name: &str, arrays: &BTreeMap<String, Tensor>) -> Error {
    let given: Vec<&str> = arrays.keys().map(String::as_str).collect();
    Error::data(format!("no array for the model's input '{name}'; the data has {given:?}"))
}

/// Element `i` along the first axis.
fn slice(t: &Tensor, i: usize) -> Result<Tensor> {
    let inner = t.shape().get(1..).unwrap_or_default();
    let bytes = t.dtype().storage_bytes(budget::elements(inner)?);
    let part = i.checked_mul(bytes).and_then(|at| t.bytes().get(at..at + bytes));
    Tensor::from_bytes(
        t.dtype(),
        inner,
        part.ok_or_else(|| Error::data(format!("there is no sample {i}")))?.to_vec(),
    )
}

/// Adds a leading 1 when the sample has one dim less than the model's input.
fn batched(t: Tensor, rank: Option<usize>) -> Result<Tensor> {
    match rank {
        Some(r) if t.rank() + 1 == r => {
            let shape: Vec<usize> = std::iter::once(1).chain(t.shape().iter().copied()).collect();
            t.reshaped(&shape)
        }
        // A scalar input may come as a vector of one element.
        Some(0) if t.len() == 1 => t.reshaped(&[]),
        _ => Ok(t),
    }
}

fn read_directory(path: &Path) -> Result<(Source, Option<Vec<i64>>)> {
    let list =
        std::fs::read_dir(path).map_err(|e| Error::data(format!("cannot read {}: {e}", path.display())))?;
    let mut files: Vec<_> =
        list.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "npz")).collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::data(format!("{} holds no npz files", path.display())));
    }
    let (mut samples, mut labels) = (Vec::new(), Vec::new());
    for f in &files {
        let mut arrays = npz::read(f)?;
        if let Some(l) = arrays.remove(LABELS).or_else(|| arrays.remove("label")) {
            labels.extend(l.to_i64s()?.first().copied());
        }
        samples.push(arrays);
    }
    let labels = (labels.len() == samples.len()).then_some(labels);
    Ok((Source::Ragged(samples), labels))
}
