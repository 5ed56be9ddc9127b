//! The table of the search: layers × candidates, each with stored bytes and layer error.

use crate::goal::{Options, Override, Progress, check, late};
use crate::kindred::Kindred;
use crate::knapsack::{Item, undominated};
use crate::shelf::Offer;
use crate::turns::in_turns;
use ir::{Error, Graph, Result};
use lossy::layer::subgraph;
use lossy::{Basis, Candidate, Context, Hopes, Layer, Method, Scope, Stats};
use rayon::prelude::*;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// A layer above this part of the memory is priced alone.
const LARGE: u64 = 48;
/// Share of the time after which layers get what is quick to make, and after which they get what is at hand.
pub const HURRY: f64 = 0.35;
const ENOUGH: f64 = 0.45;
/// What is quick to make, and what takes no time at all.
const QUICK: [&str; 3] = ["int8", "int8-weight", "float16"];
const INSTANT: &str = "float16";

/// Layers that are so few that their methods go side by side, each with memory of its own.
const FEW: usize = 8;

/// One layer with everything it may become. Column 0 of the knapsack is "keep"; candidate i is column i + 1.
#[derive(Clone)]
pub struct Row {
    pub layer: Layer,
    /// Bytes of the layer in the output when it stays as it is.
    pub bytes: u64,
    pub candidates: Arc<Vec<Offer>>,
    /// Method and reason, for methods that offer nothing here.
    pub refusals: Vec<(String, String)>,
    /// Output distortion per unit of layer error.
    pub gain: f64,
    /// E‖Wx‖²: the power of the layer's output, in the unit of the errors.
    pub power: f64,
    /// "Keep" is not allowed here: the user chose a method.
    pub forced: bool,
    /// Input vectors that calibrated this layer; 0 without data.
    pub vectors: u64,
    /// Output distortion of each candidate, where it was measured one by one.
    pub measured: Option<Vec<f64>>,
}

impl Row {
    /// The row's columns for the knapsack: keep, then candidates.
    pub fn items(&self) -> Vec<Item> {
        let keep = if self.forced { f64::INFINITY } else { 0.0 };
        std::iter::once(Item { weight: self.bytes, error: keep })
            .chain(
                self.candidates
                    .iter()
                    .enumerate()
                    .map(|(i, o)| Item { weight: o.head.bytes, error: self.distortion(i, o) }),
            )
            .collect()
    }

    /// Output distortion of a candidate: measured, or predicted from the layer's error.
    pub fn distortion(&self, at: usize, o: &Offer) -> f64 {
        let measured = self.measured.as_ref().and_then(|m| m.get(at)).copied();
        measured.unwrap_or(o.head.error * self.gain)
    }

    /// The row without what is shared with other layers.
    pub fn alone(&self) -> Row {
        let mut row = self.clone();
        if self.candidates.iter().any(|o| o.head.common.is_some()) {
            let own = self.candidates.iter().filter(|o| o.head.common.is_none());
            row.candidates = Arc::new(own.cloned().collect());
        }
        row
    }

    /// Takes what another pass made for the same layer.
    pub fn join(&mut self, more: Row) {
        let own = |offers: Arc<Vec<Offer>>| Arc::into_inner(offers).unwrap_or_default();
        let mut found = own(std::mem::take(&mut self.candidates));
        found.extend(own(more.candidates));
        self.candidates = Arc::new(sift(found, None, false));
        self.refusals.extend(more.refusals);
    }

    /// What a later run needs to do without pricing this layer.
    fn print(&self) -> Result<String> {
        let candidates = self.candidates.iter().map(Offer::print).collect::<Result<Vec<_>>>()?;
        Ok(json!({
            "candidates": candidates,
            "refusals": self.refusals,
            "power": self.power.to_bits(),
            "forced": self.forced,
            "vectors": self.vectors,
            "weight": fingerprint(&self.layer),
        })
        .to_string())
    }

    /// The inverse of [`Row::print`] for the same layer.
    fn read(text: &str, layer: &Layer, options: &Options) -> Option<Row> {
        let v: serde_json::Value = serde_json::from_str(text).ok()?;
        if v["weight"].as_u64()? != fingerprint(layer) {
            return None;
        }
        let read = |c| Offer::read(c, options.shelf.as_ref());
        Some(Row {
            layer: layer.clone(),
            bytes: options.layer_bytes(layer),
            candidates: Arc::new(v["candidates"].as_array()?.iter().map(read).collect::<Option<_>>()?),
            refusals: serde_json::from_value(v["refusals"].clone()).ok()?,
            gain: 1.0,
            power: f64::from_bits(v["power"].as_u64()?),
            forced: v["forced"].as_bool()?,
            vectors: v["vectors"].as_u64()?,
            measured: None,
        })
    }

    /// The candidate of a column, `None` for keep.
    pub fn candidate(&self, column: usize) -> Option<&Offer> {
        self.candidates.get(column.checked_sub(1)?)
    }
}

/// FNV-1a over words spread over the weight: tells apart what training or a mix-up makes different.
fn fingerprint(layer: &Layer) -> u64 {
    const SAMPLES: usize = 1 << 11;
    let words = layer.tensor.bytes().chunks(8);
    let step = (words.len() / SAMPLES).max(1);
    words
        .step_by(step)
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Which candidates are made.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    pub methods: &'a [&'static dyn Method],
    /// By layer; where it is empty all candidates are worth making.
    pub hopes: &'a [Hopes<'a>],
    /// After another pass, which made what the user chose and left notes of its own.
    pub second: bool,
}

impl<'a> Pass<'a> {
    pub fn all(methods: &'a [&'static dyn Method]) -> Pass<'a> {
        Pass { methods, hopes: &[], second: false }
    }
}

/// Prices every candidate of every layer; statistics are dropped as soon as their layers are done.
pub fn build(
    graph: &Graph,
    layers: Vec<Layer>,
    stats: Vec<Option<Arc<Stats>>>,
    pass: Pass,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<Row>> {
    let kindred = Kindred::find(&layers, &stats, pass, options, progress)?;
    progress.stage("candidates", layers.len());
    let (count, cut) = (layers.len(), AtomicUsize::new(0));
    let few = count <= FEW;
    let large = |layer: &Layer| options.memory.is_some_and(|m| layer.bytes() > m / LARGE);
    let one = |i: usize, layer: Layer, stats: Option<Arc<Stats>>, key: String| -> Result<Row> {
        check(progress)?;
        let of_stats = stats.as_deref();
        let noted = options.shelf.noted(&key).and_then(|text| Row::read(&text, &layer, options));
        let row = match noted {
            Some(r) => r,
            None => {
                let skipped = AtomicBool::new(false);
                let wanted = |m: &dyn Method| {
                    let quick = QUICK.contains(&m.name()) && !late(progress, ENOUGH);
                    let wanted = m.name() == INSTANT || quick || !late(progress, HURRY);
                    skipped.fetch_or(!wanted, Relaxed);
                    wanted
                };
                let over = || {
                    let over = late(progress, ENOUGH);
                    skipped.fetch_or(over, Relaxed);
                    over
                };
                let hopes = pass.hopes.get(i).copied().unwrap_or(Hopes::ALL);
                let hopes = Hopes { late: Some(&over), ..hopes };
                let bases = kindred.of(i);
                let r = row(graph, layer, of_stats, bases, pass, hopes, options, few, &wanted)?;
                if skipped.into_inner() {
                    cut.fetch_add(1, Relaxed);
                } else if let Ok(text) = r.print() {
                    options.shelf.note(&key, &text);
                }
                r
            }
        };
        if let Some(s) = of_stats {
            s.forget();
        }
        // The fingerprint has read pages of the weight again.
        row.layer.tensor.release();
        progress.step();
        Ok(row)
    };
    // A second search on a slimmer model has notes of its own.
    let total: u64 = layers.iter().map(Layer::bytes).sum();
    // One that takes much memory has it alone; the others go side by side.
    let mut rows: Vec<Option<Row>> = layers.iter().map(|_| None).collect();
    let mut rest = Vec::new();
    for (i, (layer, stats)) in layers.into_iter().zip(stats).enumerate() {
        let key = format!("{}{total}/{i} {}", if pass.second { "+" } else { "" }, layer.name);
        if large(&layer) {
            rows[i] = Some(one(i, layer, stats, key)?);
        } else {
            rest.push((i, layer, stats, key));
        }
    }
    // Large ones first: time may end before all are done.
    rest.sort_by_key(|r| std::cmp::Reverse(r.1.bytes()));
    let rest = in_turns(rest, |(i, layer, stats, key)| Ok((i, one(i, layer, stats, key)?)))?;
    rest.into_iter().for_each(|(i, r)| rows[i] = Some(r));
    let cut = cut.into_inner();
    if cut > 0 {
        progress.cut("layers with all their candidates", count - cut, count);
    }
    Ok(rows.into_iter().flatten().collect())
}

fn row(
    graph: &Graph,
    layer: Layer,
    stats: Option<&Stats>,
    bases: &[Basis],
    pass: Pass,
    hopes: Hopes,
    options: &Options,
    side_by_side: bool,
    in_time: &(dyn Fn(&dyn Method) -> bool + Sync),
) -> Result<Row> {
    let wanted = options.overrides.iter().rev().find(|o| o.fixes(&layer));
    let keep = wanted.is_some_and(|o| o.recipe == "keep");
    let one: Vec<&'static dyn Method>;
    let methods = match wanted {
        Some(_) if pass.second => &[],
        Some(o) => {
            one = lossy::methods::find(o.method()).into_iter().collect();
            &one[..]
        }
        None => pass.methods,
    };
    let body = subgraph(graph, &layer.path).ok_or_else(|| Error::internal("a layer without its graph"))?;
    let matrix = layer.view.matrix(&layer.tensor)?;
    layer.tensor.release();
    let mut row = Row {
        bytes: options.layer_bytes(&layer),
        candidates: Arc::default(),
        refusals: Vec::new(),
        gain: 1.0,
        power: 0.0,
        forced: wanted.is_some() && !keep,
        vectors: stats.map_or(0, Stats::count),
        measured: None,
        layer,
    };
    if matrix.iter().any(|x| !x.is_finite()) {
        row.refusals.push(("all".into(), "the weight holds values that are not finite".into()));
        row.forced = false;
        return Ok(row);
    }
    let measure = match (stats, row.layer.bias) {
        (Some(s), Some(_)) => Some(s.centered()),
        (s, _) => s,
    };
    let cx = Context {
        graph: body,
        layer: &row.layer,
        matrix: &matrix,
        stats,
        measure,
        compensate: options.compensate,
        // What the user chose is made however long it takes.
        hopes: if wanted.is_some() { Hopes::ALL } else { hopes },
        bases,
    };
    row.power = match stats {
        Some(s) => s.error(&matrix),
        None => matrix.iter().map(|&x| f64::from(x).powi(2)).sum(),
    };
    let (mut found, mut refusals) = (Vec::new(), Vec::new());
    let asked: Vec<&dyn Method> =
        methods.iter().copied().filter(|m| !keep && m.scope() == Scope::Layer).collect();
    // The offers of a method; why it has none; or neither, where there is no time.
    let of = |m: &&dyn Method| -> Result<(Vec<Candidate>, Option<String>)> {
        if wanted.is_none() && !in_time(*m) {
            return Ok((Vec::new(), None));
        }
        if let Err(r) = m.applies(&row.layer, stats.is_some()) {
            return Ok((Vec::new(), Some(r.0)));
        }
        if m.shares() && bases.is_empty() {
            return Ok((
                Vec::new(),
                Some("no other layer of this shape, or all of them are too large".into()),
            ));
        }
        let smaller = |c: &Candidate| c.error.is_finite() && (wanted.is_some() || c.bytes < row.bytes);
        let all = m.candidates(&cx)?.into_iter().map(|c| options.counted(c)).collect::<Result<Vec<_>>>()?;
        Ok((all.into_iter().filter(smaller).collect(), None))
    };
    let mut take = |m: &dyn Method, (offers, refusal): (Vec<Candidate>, Option<String>)| {
        refusals.extend(refusal.map(|why| (m.name().to_string(), why)));
        found.extend(offers.into_iter().map(|c| Offer::put(c, options.shelf.as_ref())));
    };
    if side_by_side {
        let all = asked.par_iter().map(of).collect::<Result<Vec<_>>>()?;
        asked.iter().zip(all).for_each(|(m, offers)| take(*m, offers));
    } else {
        for m in &asked {
            take(*m, of(m)?);
        }
    }
    row.candidates = Arc::new(sift(found, wanted, options.goal.timed()));
    row.refusals = refusals;
    row.forced &= !row.candidates.is_empty();
    Ok(row)
}

/// Drops candidates that another beats in bytes and error; where time counts, another of the same method. What is priced as if
/// other layers were stored alike beats only its like.
fn sift(mut found: Vec<Offer>, wanted: Option<&Override>, timed: bool) -> Vec<Offer> {
    if let Some(o) = wanted.filter(|o| o.recipe.contains(' ')) {
        found.retain(|c| c.head.recipe == o.recipe);
    }
    let mut methods: Vec<&str> = found.iter().map(|o| if timed { o.head.method } else { "" }).collect();
    let of = methods.clone();
    methods.dedup();
    let mut kept = Vec::new();
    for m in methods {
        let here: Vec<usize> = (0..found.len()).filter(|&i| of[i] == m).collect();
        let item = |&i: &usize| Item { weight: found[i].head.bytes, error: found[i].head.error };
        let best = |of: &[usize]| -> Vec<usize> {
            let items: Vec<Item> = of.iter().map(item).collect();
            undominated(&items).into_iter().map(|i| of[i]).collect()
        };
        let alone = |i: &usize| found[*i].head.common.is_none();
        let mut here_kept = best(&here.iter().copied().filter(alone).collect::<Vec<_>>());
        here_kept.extend(best(&here).into_iter().filter(|i| !alone(i)));
        here_kept.sort_by_key(|&i| found[i].head.bytes);
        kept.extend(here_kept);
    }
    let mut slots: Vec<Option<Offer>> = found.into_iter().map(Some).collect();
    kept.into_iter().filter_map(|i| slots[i].take()).collect()
}
