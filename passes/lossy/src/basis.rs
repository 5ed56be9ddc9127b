//! Factors that several layers of one shape share, as they are stored.

use crate::candidate::{Candidate, Common, graph_bytes};
use crate::fragment::Build;
use crate::replace::emit;
use crate::tucker::pointwise;
use ir::{Error, Graph, Result, Tensor, ValueId};
use ndarray::Array2;
use std::collections::BTreeMap;

/// A first and a last factor, stored once for all layers that use them.
pub struct Basis {
    /// Gives both factors, as weights of convolutions of 1×1.
    graph: Graph,
    pub common: Common,
    /// r₁ × inputs, as stored.
    pub inp: Array2<f32>,
    /// Outputs × r₂, as stored.
    pub out: Array2<f32>,
    pub int8: bool,
    /// Share of its output's power that each layer loses by them, about, by weight.
    pub left_out: BTreeMap<ValueId, f64>,
}

impl Basis {
    /// Stores these factors for `members` layers with weights of so many axes; `name` is that of one of them.
    pub fn store(
        name: &str,
        members: usize,
        axes: usize,
        [inp, out]: [Array2<f32>; 2],
        int8: bool,
    ) -> Result<Basis> {
        let mut b = Build::new(&format!("{name}.joint"));
        let (i, inp) = emit(&mut b, "i", &pointwise(axes, inp.nrows(), inp.ncols()), inp, int8)?;
        let (o, out) = emit(&mut b, "o", &pointwise(axes, out.nrows(), out.ncols()), out, int8)?;
        let graph = b.finish(&[i, o])?;
        let common = Common { id: fingerprint(&graph), members, bytes: graph_bytes(&graph) };
        Ok(Basis { graph, common, inp, out, int8, left_out: BTreeMap::new() })
    }

    /// That of a candidate which has one.
    pub fn of(c: &Candidate) -> Result<Option<Basis>> {
        let (Some(common), Some(graph)) = (c.common, c.common_graph()?) else { return Ok(None) };
        let values = ir::run_subgraph(&graph, Vec::new(), &[])?;
        let factors = values.iter().map(|v| matrix(v.tensor()?)).collect::<Result<Vec<_>>>()?;
        let [inp, out] =
            <[_; 2]>::try_from(factors).map_err(|_| Error::internal("a basis is two factors"))?;
        let common = Common { bytes: graph_bytes(&graph), ..common };
        let int8 = c.recipe.ends_with("int8");
        Ok(Some(Basis { graph, common, inp, out, int8, left_out: BTreeMap::new() }))
    }

    /// Both factors as values of a fragment.
    pub fn emit(&self, b: &mut Build) -> Result<[ValueId; 2]> {
        let found = self.graph.inline_into(&mut b.graph, &[], &[])?;
        <[_; 2]>::try_from(found).map_err(|_| Error::internal("a basis is two factors"))
    }

    /// Ranks towards inputs and outputs.
    pub fn ranks(&self) -> [usize; 2] {
        [self.inp.nrows(), self.out.ncols()]
    }
}

fn matrix(t: &Tensor) -> Result<Array2<f32>> {
    let shape = (t.shape().first().copied().unwrap_or(1), t.shape().get(1).copied().unwrap_or(1));
    Array2::from_shape_vec(shape, t.to_f32s()?).map_err(|_| Error::internal("a factor is a matrix"))
}

/// FNV-1a over names and values of all constants.
fn fingerprint(g: &Graph) -> u64 {
    let mix = |h: u64, &b: &u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    g.initializers().fold(0xcbf2_9ce4_8422_2325, |h, (v, t)| {
        t.bytes().iter().fold(g.value_name(v).as_bytes().iter().fold(h, mix), mix)
    })
}
