//! How much of the data a search runs: where one run of the model takes many operations, fewer samples tell what a layer is
//! worth. Operations are counted, not timed, so that the answer depends on no clock.

use crate::goal::Samples;
use ir::{Feeds, Graph, Result, ValueType};

/// Operations of products and convolutions that one step of the search may take, where fewer samples can make up for more
/// layers.
const STEP: f64 = 5e13;
/// The same for all repairs of one search.
const REPAIRS: f64 = 4.0 * STEP;

/// What one run of the original takes, at the shapes of the first sample.
#[derive(Debug, Clone, Copy, Default)]
pub struct Effort {
    operations: f64,
}

impl Effort {
    /// Of layers in the graph itself; those whose shapes stay open count as nothing.
    pub fn of(graph: &Graph, samples: &dyn Samples) -> Result<Effort> {
        Ok(Effort { operations: operations(graph, &samples.feeds(0)?).unwrap_or(0.0) })
    }

    /// Samples for a step that runs the model `runs` times for each of them: at least two, at most `most`.
    pub fn samples(self, most: usize, runs: usize) -> usize {
        let fit = STEP / (self.operations * runs as f64);
        if fit >= most as f64 { most } else { (fit as usize).clamp(most.min(2), most) }
    }

    /// Repairs, each of so many runs: at least one, at most `most`.
    pub fn repairs(self, most: usize, runs: usize) -> usize {
        let fit = REPAIRS / (self.operations * runs as f64);
        if fit >= most as f64 { most } else { (fit as usize).max(1) }
    }
}

fn operations(graph: &Graph, feeds: &Feeds) -> Result<f64> {
    let mut g = graph.clone();
    ir::forget_shapes(&mut g);
    for v in g.inputs().to_vec() {
        if let Some(t) = feeds.get(g.value_name(v)).and_then(|x| x.tensor().ok()) {
            g.set_type(v, g.ty(v).merge(&ValueType::known(t.dtype(), t.shape()))?);
        }
    }
    ir::infer(&mut g)?;
    let of = |l: &lossy::Layer| -> Option<f64> {
        let node = g.get(l.node).filter(|_| l.path.is_empty())?;
        let made: f64 = g.ty(node.output(0)?).concrete()?.iter().map(|&d| d as f64).product();
        Some(2.0 * made * l.view.run as f64)
    };
    Ok(lossy::layers(graph).iter().filter_map(of).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::{Attrs, DType, Dim, Tensor, Value};

    struct One(Tensor);
    impl Samples for One {
        fn len(&self) -> usize {
            1
        }
        fn feeds(&self, _: usize) -> Result<Feeds> {
            Ok(Feeds::from([("x".to_string(), Value::Tensor(self.0.clone()))]))
        }
    }

    #[test]
    fn operations_follow_from_the_shapes_of_a_sample() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::tensor(DType::F32, vec![Dim::symbol("n"), Dim::from(64)]));
        let w = g.add_initializer("w", Tensor::new(&[64, 32], vec![0.5f32; 64 * 32]).unwrap());
        let y = g.apply("y", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, w]);
        g.add_output("y", y);
        let few = Effort::of(&g, &One(Tensor::new(&[3, 64], vec![0f32; 192]).unwrap())).unwrap();
        assert_eq!(few.operations, 2.0 * 3.0 * 64.0 * 32.0);
        assert_eq!((few.samples(8, 100), few.repairs(4, 1000)), (8, 4));
        let much = Effort { operations: 3e11 };
        assert_eq!((much.samples(8, 40), much.samples(8, 400), much.samples(1, 400)), (4, 2, 1));
        assert_eq!((much.repairs(4, 300), much.repairs(4, 3000)), (2, 1));
        assert_eq!(Effort::default().samples(128, 50), 128);
    }
}
