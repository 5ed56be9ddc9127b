//! Weights whose integers are rounded in chains, for files whose weights are entropy-coded (`container::trellis`).
//!
//! As `coded`, with integers that lie twice as dense, of which each may be one of every other: at the same coded bytes up
//! to a fifth less error where the inputs of a layer are hardly correlated. Where they are, single roundings that make up
//! for each other gain as much, and chains leave them little freedom.

use crate::candidate::Candidate;
use crate::coded;
use crate::dependent::Chained;
use crate::layer::Layer;
use crate::method::{Context, Method, Refusal};
use container::trellis::BLOCK;
use ir::Result;

pub struct Trellis;

/// About the coded bits per weight that candidates are made for, between those of `coded`.
const BITS: &[f64] =
    &[2.125, 2.375, 2.625, 2.875, 3.125, 3.375, 3.625, 3.875, 4.125, 4.375, 4.625, 4.875, 5.125, 5.625];
/// How many times denser the integers of chains lie than others that take as many bits.
const DENSER: f64 = 1.92;
/// Fewer rows are hardly a chain.
const LEAST_ROWS: usize = 8;

impl Method for Trellis {
    fn name(&self) -> &'static str {
        "trellis"
    }

    fn applies(&self, layer: &Layer, stats: bool) -> Result<(), Refusal> {
        coded::Coded.applies(layer, stats)?;
        let rows = layer.view.rows / layer.view.groups.max(1);
        if rows < LEAST_ROWS {
            return Err(Refusal::new("too few rows for a chain"));
        }
        if layer.view.groups > 1 && !rows.is_multiple_of(BLOCK) {
            return Err(Refusal::new("groups of rows cut its chains"));
        }
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let Some(entropy) = coded::entropy(cx.matrix) else { return Ok(Vec::new()) };
        let bits = BITS.iter().take_while(|_| cx.hopes.in_time());
        bits.map(|&bits| candidate(cx, bits, entropy)).collect()
    }

    fn plain(&self) -> bool {
        false
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        match (coded::bits("trellis", recipe), coded::entropy(cx.matrix)) {
            (Some(bits), Some(entropy)) => candidate(cx, bits, entropy).map(Some),
            _ => Ok(None),
        }
    }

    fn narrower(&self, recipe: &str, less: f64) -> Option<String> {
        coded::narrower("trellis", recipe, less)
    }
}

fn candidate(cx: &Context, bits: f64, entropy: f64) -> Result<Candidate> {
    let grid = coded::grid(cx.matrix, ((entropy - bits).exp2() / DENSER) as f32);
    coded::candidate(cx, "trellis", bits, &grid, &Chained { grid: &grid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gram::Gram;
    use crate::method::Hopes;
    use crate::stats::Stats;
    use crate::testing::{correlated, matrix};
    use container::{Element, coded_len};
    use ir::{Attrs, DType, Graph, Tensor, ValueType};
    use ndarray::Array2;

    /// A product with a weight of so many rows and columns, which it stores transposed or not.
    fn product(w: &Array2<f32>) -> Graph {
        let mut g = Graph::new("g");
        let t = Tensor::new(&[w.ncols(), w.nrows()], w.t().iter().copied().collect::<Vec<f32>>()).unwrap();
        let (x, t) =
            (g.add_input("x", ValueType::known(DType::F32, &[1, w.ncols()])), g.add_initializer("w", t));
        let y = g.apply("y", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, t]);
        g.add_output("y", y);
        g
    }

    /// Coded bytes of the integers of a candidate.
    fn bytes(c: &Candidate) -> usize {
        let codes = c.fragment.initializers().map(|(_, t)| t).find(|t| t.dtype() == DType::I8).unwrap();
        coded_len(codes.bytes(), Element::Byte, codes.shape())
    }

    #[test]
    fn white_inputs_lose_less_at_the_same_bytes() {
        let w = matrix(256, 256, 5);
        let g = product(&w);
        let layer = crate::layers(&g).remove(0);
        let stats = Stats::of(vec![Gram::identity(256)]);
        let cx = Context {
            graph: &g,
            layer: &layer,
            matrix: &w,
            stats: Some(&stats),
            measure: Some(&stats),
            compensate: true,
            hopes: Hopes::ALL,
            bases: &[],
        };
        Trellis.applies(&layer, true).unwrap();
        for bits in ["2.5", "3.5", "4.5"] {
            let [a, b] = [&coded::Coded as &dyn Method, &Trellis]
                .map(|m| m.candidate(&cx, &format!("{} {bits} bits", m.name())).unwrap().unwrap());
            // One bit is worth a factor of four.
            let more = 8.0 * (bytes(&b) as f64 - bytes(&a) as f64) / w.len() as f64;
            let ratio = b.error / a.error * 4f64.powf(more);
            assert!(ratio < 0.9, "{bits}: {ratio}, {more} bits more");
        }
    }

    #[test]
    fn recipes_give_one_candidate_in_chains_and_narrower_ones_lose_more() {
        let w = matrix(72, 64, 5);
        let g = product(&w);
        let layer = crate::layers(&g).remove(0);
        let mut gram = Gram::new(64, 4096);
        gram.push(correlated(400, 64, 6).view());
        let stats = Stats::of(vec![gram]);
        for stats in [None, Some(&stats)] {
            let cx = Context {
                graph: &g,
                layer: &layer,
                matrix: &w,
                stats,
                measure: stats,
                compensate: true,
                hopes: Hopes::ALL,
                bases: &[],
            };
            for c in Trellis.candidates(&cx).unwrap() {
                let again = Trellis.candidate(&cx, &c.recipe).unwrap().unwrap();
                assert_eq!((&again.recipe, again.error), (&c.recipe, c.error));
                assert_eq!(again.decode().unwrap(), c.decode().unwrap());
                let codes =
                    c.fragment.initializers().map(|(_, t)| t).find(|t| t.dtype() == DType::I8).unwrap();
                let along = [64, 72];
                assert_eq!(codes.shape(), along);
                assert!(bytes(&c) < coded_len(codes.bytes(), Element::Byte, &[32, 144]), "{}", c.recipe);
                let less = Trellis.narrower(&c.recipe, 0.3).unwrap();
                assert!(Trellis.candidate(&cx, &less).unwrap().unwrap().error > c.error, "{less}");
            }
        }
        assert!(
            Trellis.narrower("trellis 1.25 bits", 2.0).is_none()
                && Trellis.narrower("coded 3 bits", 1.0).is_none()
        );
    }
}
