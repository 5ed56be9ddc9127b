//! A set of samples for a model: one file of arrays with samples along the first axis, or a folder with one file of arrays
//! or one image per sample.

use crate::folder::{self, Kind, Listing};
use crate::from_array;
use crate::images::{self, Recipe};
use crate::labels::{self, Labels};
use ir::{Bytes, DType, Error, Feeds, Graph, Result, Tensor, Value, budget};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Name of the optional array of integer labels.
const LABELS: &str = "labels";
/// Bytes of decoded images that are kept in memory.
const KEPT_PIXELS: usize = 128 << 20;
/// Arrays of this size are worth reading from elsewhere.
const LARGE: usize = 4 << 20;

type Arrays = BTreeMap<String, Tensor>;

/// Keeps bytes elsewhere and tells where to read them; `None` where it cannot.
pub type Put<'a> = &'a dyn Fn(&[u8]) -> Option<Arc<dyn Bytes>>;

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
    /// One image per sample; pixels that fit into memory are kept.
    Images { recipe: Box<Recipe>, files: Vec<(PathBuf, Option<Vec<u8>>)> },
}

/// What the user says about data beside its place.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub images: images::Options,
    /// A table of file names and labels.
    pub labels: Option<PathBuf>,
}

#[derive(Debug)]
struct Input {
    name: String,
    rank: Option<usize>,
    dtype: DType,
}

impl Samples {
    /// Opens data for `graph`. Errors name the file, the array and what the model wants.
    pub fn open(path: &Path, graph: &Graph, options: &Options) -> Result<Samples> {
        let named = |e: Error| Error { message: format!("{}: {}", path.display(), e.message), ..e };
        if path.is_dir() {
            return Samples::from_folder(path, graph, options);
        }
        if options.labels.is_some() || !options.images.is_default() {
            return Err(named(Error::data(
                "labels from a table and options for images need a folder of files",
            )));
        }
        Samples::from_arrays(arrays_of(path, &inputs(graph)?)?, graph).map_err(named)
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

    /// One file per sample. Bad files are left out and named in the notes.
    fn from_folder(path: &Path, graph: &Graph, options: &Options) -> Result<Samples> {
        let named = |e: Error| Error { message: format!("{}: {}", path.display(), e.message), ..e };
        let inputs = inputs(graph)?;
        let Listing { kind, files, mut notes } = folder::list(path)?;
        let mut found = match kind {
            Kind::Arrays if !options.images.is_default() => {
                return Err(named(Error::data("holds arrays; options for images do not apply")));
            }
            Kind::Arrays => folder::each(&files, |_, f| Ok((None, own_label(f, &inputs, graph)?))),
            Kind::Images => {
                let recipe = recipe(&inputs, graph, &options.images).map_err(named)?;
                notes.push(recipe.describe(&options.images));
                let kept = AtomicUsize::new(0);
                let read = |f: &Path| {
                    let pixels = recipe.pixels(f)?;
                    let keep = kept.fetch_add(pixels.len(), Relaxed) < KEPT_PIXELS;
                    Ok((keep.then_some(pixels), None))
                };
                folder::each(&files, |_, f| read(f))
            }
        };
        let given = match &options.labels {
            Some(table) => Some(labels::from_table(table, path, &files)?),
            // Labels inside the files come before those of folders.
            None if found.iter().flatten().any(|(_, own)| own.is_some()) => None,
            None => labels::from_folders(path, &files),
        };
        if let Some(Labels { of, note }) = given {
            notes.push(note);
            for (f, label) in found.iter_mut().zip(of) {
                match f {
                    Ok(_) if options.labels.is_some() && label.is_none() => {
                        *f = Err(Error::data("has no label in the table"));
                    }
                    Ok((_, own)) => *own = label,
                    Err(_) => {}
                }
            }
        }
        let (total, mut bad, mut good, mut labels) = (files.len(), vec![], vec![], vec![]);
        for (file, f) in files.into_iter().zip(found) {
            match f {
                Ok((pixels, label)) => {
                    good.push((file, pixels));
                    labels.push(label);
                }
                Err(e) => bad.push((file, e)),
            }
        }
        if let (true, Some((first, e))) = (good.is_empty(), bad.first()) {
            let why = format!("none of {total} files can be used; {}: {}", first.display(), e.message);
            return Err(named(Error { message: why, ..e.clone() }));
        }
        notes.extend(folder::skipped(&bad, total));
        let unlabelled = labels.iter().filter(|l| l.is_none()).count();
        if unlabelled > 0 && unlabelled < labels.len() {
            notes.push(format!("labels are not used: {unlabelled} of {} samples have none", labels.len()));
        }
        let source = match kind {
            Kind::Arrays => Source::Files(good.into_iter().map(|(f, _)| f).collect()),
            Kind::Images => {
                let recipe = Box::new(recipe(&inputs, graph, &options.images)?);
                Source::Images { recipe, files: good }
            }
        };
        let len = labels.len();
        Samples { source, labels: labels.into_iter().collect(), len, inputs, notes }.checked(graph)
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
        let converted: Vec<String> = converted.collect();
        self.notes.extend(converted);
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
    /// Puts large arrays of many samples elsewhere: `put` takes their bytes and tells where to read them.
    pub fn put_away(&mut self, put: Put) {
        let Source::Stacked(arrays) = &mut self.source else { return };
        for t in arrays.values_mut().filter(|t| t.dtype() != DType::String && t.stored_bytes() >= LARGE) {
            let away = put(t.bytes()).and_then(|b| Tensor::mapped(t.dtype(), t.shape(), b, 0).ok());
            if let Some(away) = away {
                *t = away;
            }
        }
    }

    /// What the reader should know, such as conversions of element types.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Sample `i` as the model takes it: a batch of 1 where the model has one axis more than the sample.
    pub fn feeds(&self, i: usize, graph: &Graph) -> Result<Feeds> {
        let file = match &self.source {
            Source::Files(f) => f.get(i),
            Source::Images { files, .. } => files.get(i).map(|(f, _)| f),
            Source::Stacked(_) => None,
        };
        let named = |e: Error| match file {
            Some(f) => Error { message: format!("{}: {}", f.display(), e.message), ..e },
            None => e,
        };
        fit(&self.sample(i).map_err(named)?, &self.inputs, graph).map_err(|e| {
            let e = named(e);
            Error { message: format!("sample {i}: {}", e.message), ..e }
        })
    }

    /// The arrays of sample `i` that the model reads.
    fn sample(&self, i: usize) -> Result<Arrays> {
        let none = || Error::data(format!("there is no sample {i}"));
        match &self.source {
            Source::Files(files) => arrays_of(files.get(i).ok_or_else(none)?, &self.inputs),
            Source::Images { recipe, files } => {
                let (path, pixels) = files.get(i).ok_or_else(none)?;
                let t = match pixels {
                    Some(p) => recipe.tensor(p)?,
                    None => recipe.tensor(&recipe.pixels(path)?)?,
                };
                Ok(self.inputs.iter().map(|input| (input.name.clone(), t.clone())).collect())
            }
            Source::Stacked(arrays) => {
                let wanted: BTreeSet<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
                let read = arrays.iter().filter(|(name, _)| wanted.contains(name.as_str()));
                let one = |(name, t): (&String, &Tensor)| {
                    let sample = slice(t, i).map_err(|e| e.tensor(name))?;
                    t.release();
                    Ok((name.clone(), sample))
                };
                read.map(one).collect()
            }
        }
    }
}

/// The arrays of a file by name: npz, safetensors, or an npy, which is the model's only input.
fn arrays_of(path: &Path, inputs: &[Input]) -> Result<Arrays> {
    let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
    crate::read(path, &names)
}

/// The label inside a file whose arrays fit the model.
fn own_label(path: &Path, inputs: &[Input], graph: &Graph) -> Result<Option<i64>> {
    let mut arrays = arrays_of(path, inputs)?;
    let label = take_labels(&mut arrays, inputs)?;
    fit(&arrays, inputs, graph)?;
    Ok(label.and_then(|l| l.first().copied()))
}

/// How images become the model's only input.
fn recipe(inputs: &[Input], graph: &Graph, options: &images::Options) -> Result<Recipe> {
    match (inputs, graph.inputs()) {
        ([only], &[v]) => Recipe::new(options, graph.ty(v)).map_err(|e| e.tensor(only.name.as_str())),
        _ => Err(Error::data(format!("images fit models with one input, this one has {}", inputs.len()))),
    }
}

/// One sample's arrays as the model takes them.
fn fit(arrays: &Arrays, inputs: &[Input], graph: &Graph) -> Result<Feeds> {
    let mut feeds = Feeds::new();
    for (input, &v) in inputs.iter().zip(graph.inputs()) {
        let t = arrays.get(&input.name).ok_or_else(|| missing(&input.name, arrays))?;
        let at = |e: Error| e.tensor(input.name.as_str());
        let t = from_array(&batched(t, input.rank).map_err(at)?, input.dtype).map_err(at)?;
        let want = graph.ty(v);
        want.merge(&ir::ValueType::of(&t))
            .map_err(|_| at(Error::data(format!("shape {:?} does not fit the model's {want}", t.shape()))))?;
        feeds.insert(input.name.clone(), Value::Tensor(t));
    }
    Ok(feeds)
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
