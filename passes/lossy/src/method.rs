//! The trait of all compression methods.

use crate::basis::Basis;
use crate::candidate::{Candidate, Replaces, graph_bytes};
use crate::layer::{Bias, Layer};
use crate::stats::Stats;
use ir::{Graph, Result};
use ndarray::Array2;
use std::borrow::Cow;

/// Why a method offers nothing for a layer; printed in reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    pub fn new(why: impl Into<String>) -> Refusal {
        Refusal(why.into())
    }
}

/// What a method sees of a layer.
pub struct Context<'a> {
    /// The graph the layer is in (the body, for layers of subgraphs).
    pub graph: &'a Graph,
    pub layer: &'a Layer,
    /// The weight, rows × columns.
    pub matrix: &'a Array2<f32>,
    pub stats: Option<&'a Stats>,
    /// The statistics that errors are measured by: centered when the layer's bias can absorb the mean.
    pub measure: Option<&'a Stats>,
    /// Rounding and removal make up for their errors in the weights still free; without, each weight is on its own.
    pub compensate: bool,
    /// What is known of errors here before all candidates are made.
    pub hopes: Hopes<'a>,
    /// Factors that layers of this shape may share.
    pub bases: &'a [Basis],
}

/// Error of factors as int8, as a share of that of 5-bit integers, from which rounding is a small part of it: three factors
/// lose about a twentieth.
const FLOATS: f64 = 0.2;

/// Which candidates are worth making.
#[derive(Clone, Copy)]
pub struct Hopes<'a> {
    /// The error of 5-bit integers with a scale per row; 0 where it is not known.
    pub five_bits: f64,
    /// Above this no candidate can be chosen.
    pub most: f64,
    /// Tells when the time for candidates is over: those that are not made yet stay out.
    pub late: Option<&'a (dyn Fn() -> bool + Sync)>,
}

impl Hopes<'_> {
    /// Nothing is known: every candidate is worth making.
    pub const ALL: Hopes<'static> = Hopes { five_bits: 0.0, most: f64::INFINITY, late: None };

    /// Whether there is time for another candidate.
    pub fn in_time(&self) -> bool {
        !self.late.is_some_and(|late| late())
    }

    /// Whether factors stored as floats may be worth their bytes, when as int8 they lose this much: not where what the
    /// factors leave out is far more than what their rounding loses.
    pub fn floats(&self, int8: f64) -> bool {
        self.five_bits <= 0.0 || int8 < FLOATS * self.five_bits
    }

    /// Whether a form whose error is at least `times` that of 5-bit integers may be chosen.
    pub fn allow(&self, times: f64) -> bool {
        times * self.five_bits <= self.most
    }
}

/// What one decision of a method is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One layer: [`Method::candidates`] prices it.
    Layer,
    /// Several layers that must change together; see [`crate::channels`].
    Group,
}

/// What a method may save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Bytes of the file; the layer does not run faster than in floats.
    Bytes,
    /// Time of a run; another method stores as few bytes with less error.
    Time,
    Both,
}

/// A compression method: one file, one row in [`crate::methods::METHODS`].
pub trait Method: Sync {
    /// The word in `--methods` and `--layer`.
    fn name(&self) -> &'static str;
    fn scope(&self) -> Scope {
        Scope::Layer
    }
    /// Whether the method can offer anything here.
    fn applies(&self, layer: &Layer, stats: bool) -> Result<(), Refusal>;
    /// Whether it can pay in a plain ONNX file; the others are for entropy-coded containers.
    fn plain(&self) -> bool {
        true
    }
    /// Which goals a layer in this form may serve.
    fn serves(&self) -> Serves {
        Serves::Bytes
    }
    /// All parameter choices worth pricing.
    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>>;
    /// Whether it is tried only when it is named.
    fn on_request(&self) -> bool {
        false
    }
    /// The one of this recipe, for weights and statistics other than those that were priced.
    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        Ok(self.candidates(cx)?.into_iter().find(|c| c.recipe == recipe))
    }
    /// Whether its candidates need what several layers share: [`Context::bases`].
    fn shares(&self) -> bool {
        false
    }
    /// A recipe like this one that takes about so many bits of each weight less, of methods whose recipes say how many.
    fn narrower(&self, _recipe: &str, _less: f64) -> Option<String> {
        None
    }
}

impl Context<'_> {
    /// E‖(W − Ŵ)x‖² after bias correction; without data, the plain squared error of the weights.
    pub fn error(&self, decoded: &Array2<f32>) -> f64 {
        self.difference(self.measure, decoded)
    }

    fn difference(&self, stats: Option<&Stats>, decoded: &Array2<f32>) -> f64 {
        match stats {
            Some(s) => s.error(&(self.matrix - decoded)),
            None => self.matrix.iter().zip(decoded).map(|(&a, &b)| f64::from(a - b).powi(2)).sum(),
        }
    }

    /// What to add to the bias so that the mean output stays.
    pub fn correction(&self, decoded: &Array2<f32>) -> Option<Vec<f32>> {
        self.layer.bias?;
        let shift = self.stats?.shift(&(self.matrix - decoded));
        shift.iter().all(|x| x.is_finite()).then_some(shift)
    }

    /// The statistics to compensate by.
    pub fn sweep(&self) -> Option<&Stats> {
        self.measure.filter(|_| self.compensate)
    }

    /// The statistics for candidates that replace the node: only a constant bias can take their mean error.
    pub fn node_stats(&self) -> Option<&Stats> {
        if self.fixable() { self.measure } else { self.stats }
    }

    /// E‖Wx‖² as [`Context::node`] measures errors.
    pub fn node_power(&self) -> f64 {
        self.difference(self.node_stats(), &Array2::zeros(self.matrix.raw_dim()))
    }

    fn fixable(&self) -> bool {
        matches!(self.layer.bias, Some(Bias::Constant(_)))
    }

    /// A candidate that replaces the node and computes with `decoded` in place of the weight.
    pub fn node(
        &self,
        method: &'static str,
        recipe: String,
        fragment: Graph,
        decoded: &Array2<f32>,
    ) -> Candidate {
        let error = self.difference(self.node_stats(), decoded);
        Candidate {
            method,
            recipe,
            replaces: Replaces::Node,
            bytes: graph_bytes(&fragment),
            fragment,
            bias: if self.fixable() { self.correction(decoded) } else { None },
            common: None,
            error,
        }
    }

    /// Diagonals of H per group, when there are statistics.
    pub fn diagonals(&self) -> Option<Cow<'_, [Vec<f64>]>> {
        self.measure.map(|s| Cow::Owned(s.diagonals()))
    }

    /// A candidate that stores the weight as `fragment`, which decodes to `decoded`.
    pub fn weight(
        &self,
        method: &'static str,
        recipe: String,
        fragment: Graph,
        decoded: &Array2<f32>,
    ) -> Candidate {
        let bias = self.correction(decoded);
        let extra = match (self.layer.bias, &bias) {
            (Some(Bias::Absent(_)), Some(b)) => b.len() as u64 * 4 + 40,
            _ => 0,
        };
        Candidate {
            method,
            recipe,
            replaces: Replaces::Weight,
            bytes: graph_bytes(&fragment) + extra,
            common: None,
            error: self.error(decoded),
            fragment,
            bias,
        }
    }
}
