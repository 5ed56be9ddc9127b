//! A set of samples for a model: one npz with samples along the first axis, one npy, or a directory of npz files.

use crate::{from_array, npy, npz};
use ir::{DType, Error, Feeds, Graph, Result, Tensor, Value, budget};
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Name of the optional array of integer labels.
const LABELS: &str = "labels";

type Arrays = BTreeMap<String, Tensor>;

/// Samples checked against a model's inputs.
#[derive(Debug)]
pub struct Samples {
    source: Source,
    labels: Option<Vec<i64>>,
    len: usize,
    /// In model order.
    inputs: Vec<Input>,
    notes: Vec<String>,
}

#[derive(Debug)]
enum Source {
    /// Arrays whose first axis counts samples; arrays without axes hold for all samples.
    Stacked(Arrays),
    /// One file of arrays per sample, read when asked for.
    Files(Vec<PathBuf>),
}

#[derive(Debug)]
struct Input {
    name: String,
    rank: Option<usize>,
    dtype: DType,
}

impl Samples {
    /// Opens data for `graph`. Errors name the file, the array and what the model wants.
    pub fn open(path: &Path, graph: &Graph) -> Result<Samples> {
        let named = |e: Error| Error { message: format!("{}: {}", path.display(), e.message), ..e };
        if path.is_dir() {
            return Samples::from_folder(path, graph);
        }
        let arrays = if path.extension().is_some_and(|e| e == "npy") {
            let inputs = inputs(graph)?;
            let [only] = inputs.as_slice() else {
                return Err(named(Error::data("an npy file fits models with one input only")));
            };
            let array = npy::read(&mut BufReader::new(npz::open(path)?)).map_err(named)?;
            BTreeMap::from([(only.name.clone(), array)])
        } else {
            npz::read(path)?
        };
        Samples::from_arrays(arrays, graph).map_err(named)
    }

    /// Samples along the first axis of each array; an array `labels` that is no input of the model holds the labels.
    pub fn from_arrays(mut arrays: Arrays, graph: &Graph) -> Result<Samples> {
        let inputs = inputs(graph)?;
        let labels = take_labels(&mut arrays, &inputs)?;
        let len = count(&arrays, &inputs)?;
        if let Some(l) = &labels
            && l.len() != len
        {
            return Err(Error::data(format!("{} labels for {len} samples", l.len())));
        }
        Samples { source: Source::Stacked(arrays), labels, len, inputs, notes: vec![] }.checked(graph)
    }

    /// One npz file per sample, in the order of their names.
    fn from_folder(path: &Path, graph: &Graph) -> Result<Samples> {
        let list = std::fs::read_dir(path)
            .map_err(|e| Error::data(format!("cannot read {}: {e}", path.display())))?;
        let mut files: Vec<PathBuf> =
            list.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "npz")).collect();
        files.sort();
        if files.is_empty() {
            return Err(Error::data(format!("{} holds no npz files", path.display())));
        }
        let inputs = inputs(graph)?;
        let labels = labels_of(&files, &inputs)?;
        let len = files.len();
        Samples { source: Source::Files(files), labels, len, inputs, notes: vec![] }.checked(graph)
    }

    /// The first sample must fit; what is converted on the way is noted.
    fn checked(mut self, graph: &Graph) -> Result<Samples> {
        self.feeds(0, graph)?;
        let arrays = self.sample(0)?;
        let converted = self.inputs.iter().filter_map(|i| {
            let have = arrays.get(&i.name)?.dtype();
            let note = format!("input '{}': {have} values are converted to {}", i.name, i.dtype);
            (have != i.dtype).then_some(note)
        });
        self.notes = converted.collect();
        Ok(self)
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
    /// What the reader should know, such as conversions of element types.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Sample `i` as the model takes it: a batch of 1 where the model has one axis more than the sample.
    pub fn feeds(&self, i: usize, graph: &Graph) -> Result<Feeds> {
        let named = |e: Error| match &self.source {
            Source::Files(f) => {
                let file = f.get(i).map(|p| p.display().to_string()).unwrap_or_default();
                Error { message: format!("{file}: {}", e.message), ..e }
            }
            Source::Stacked(_) => e,
        };
        self.fitted(i, graph).map_err(named)
    }

    fn fitted(&self, i: usize, graph: &Graph) -> Result<Feeds> {
        let arrays = self.sample(i)?;
        let mut feeds = Feeds::new();
        for (input, &v) in self.inputs.iter().zip(graph.inputs()) {
            let t = arrays.get(&input.name).ok_or_else(|| missing(&input.name, &arrays))?;
            let at = |e: Error| e.tensor(input.name.as_str());
            let t = from_array(&batched(t, input.rank).map_err(at)?, input.dtype).map_err(at)?;
            let want = graph.ty(v);
            want.merge(&ir::ValueType::of(&t)).map_err(|_| {
                at(Error::data(format!(
                    "sample {i} of shape {:?} does not fit the model's {want}",
                    t.shape()
                )))
            })?;
            feeds.insert(input.name.clone(), Value::Tensor(t));
        }
        Ok(feeds)
    }

    /// The arrays of sample `i` that the model reads.
    fn sample(&self, i: usize) -> Result<Arrays> {
        match &self.source {
            Source::Files(files) => {
                let path = files.get(i).ok_or_else(|| Error::data(format!("there is no sample {i}")))?;
                npz::from_reader(BufReader::new(npz::open(path)?))
            }
            Source::Stacked(arrays) => {
                let wanted: BTreeSet<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
                let read = arrays.iter().filter(|(name, _)| wanted.contains(name.as_str()));
                read.map(|(name, t)| Ok((name.clone(), slice(t, i).map_err(|e| e.tensor(name))?))).collect()
            }
        }
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

fn missing(name: &str, arrays: &Arrays) -> Error {
    let given: Vec<&str> = arrays.keys().map(String::as_str).collect();
    Error::data(format!("no array for the model's input '{name}'; the data has {given:?}"))
}

fn take_labels(arrays: &mut Arrays, inputs: &[Input]) -> Result<Option<Vec<i64>>> {
    if inputs.iter().any(|i| i.name == LABELS) {
        return Ok(None);
    }
    let Some(t) = arrays.remove(LABELS) else { return Ok(None) };
    if t.shape().get(1..).is_some_and(|s| s.iter().any(|&d| d != 1)) {
        let shape = t.shape();
        return Err(
            Error::data(format!("one integer per sample is wanted, got shape {shape:?}")).tensor(LABELS)
        );
    }
    t.to_i64s().map(Some).map_err(|e| Error { blame: ir::Blame::Data, ..e.tensor(LABELS) })
}

/// The labels of single samples; data is labelled when every file is.
fn labels_of(files: &[PathBuf], inputs: &[Input]) -> Result<Option<Vec<i64>>> {
    if inputs.iter().any(|i| i.name == LABELS) {
        return Ok(None);
    }
    let mut labels = Vec::new();
    for f in files {
        let Some(t) = npz::read_one(f, LABELS)? else { return Ok(None) };
        labels.extend(t.to_i64s()?.first().copied());
    }
    Ok((labels.len() == files.len()).then_some(labels))
}

/// Number of samples, the same for every input.
fn count(arrays: &Arrays, inputs: &[Input]) -> Result<usize> {
    let mut found: Option<(usize, &str)> = None;
    for i in inputs {
        let t = arrays.get(&i.name).ok_or_else(|| missing(&i.name, arrays))?;
        let Some(&n) = t.shape().first() else { continue };
        match found {
            Some((m, other)) if m != n => {
                return Err(
                    Error::data(format!("{n} samples where '{other}' has {m}")).tensor(i.name.as_str())
                );
            }
            _ => found = Some((n, &i.name)),
        }
    }
    match found {
        Some((0, _)) => Err(Error::data("there are no samples")),
        Some((n, _)) => Ok(n),
        // Only values that hold for all samples: one sample.
        None => Ok(1),
    }
}

/// Element `i` along the first axis; an array without axes is the same for all.
fn slice(t: &Tensor, i: usize) -> Result<Tensor> {
    let none = || Error::data(format!("there is no sample {i}"));
    let Some(inner) = t.shape().get(1..) else { return Ok(t.clone()) };
    let n = budget::elements(inner)?;
    let from = i.checked_mul(n).ok_or_else(none)?;
    if t.dtype() == DType::String {
        let part = t.string_data()?.get(from..from.saturating_add(n)).ok_or_else(none)?;
        return Tensor::strings(inner, part.to_vec());
    }
    let width = t.dtype().bits() / 8;
    let (at, len) = (from.checked_mul(width).ok_or_else(none)?, n.saturating_mul(width));
    let part = t.bytes().get(at..at.saturating_add(len)).ok_or_else(none)?;
    Tensor::from_bytes(t.dtype(), inner, part.to_vec())
}

/// Adds a leading 1 when the sample has one axis less than the model's input.
fn batched(t: &Tensor, rank: Option<usize>) -> Result<Tensor> {
    match rank {
        Some(r) if t.rank() + 1 == r => {
            let shape: Vec<usize> = std::iter::once(1).chain(t.shape().iter().copied()).collect();
            t.reshaped(&shape)
        }
        // A scalar input may come as an array of one element.
        Some(0) if t.len() == 1 => t.reshaped(&[]),
        _ => Ok(t.clone()),
    }
}

#[cfg(test)]
mod tests;
