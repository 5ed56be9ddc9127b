//! What float32 contractions with constant weights compute in.

use ir::{DType, Graph, ValueId};
use kernels::has_bf16;

/// Input channels of a convolution below which rounding the input costs more than the products gain.
const FEW_CHANNELS: usize = 16;

/// Rows of a product up to which the time is that of reading the weights.
const FEW_ROWS: usize = 4;

/// Asked for by the user; a model that is bfloat16 itself asks for that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// Float32, unless operands are bfloat16 numbers anyway; rows of products whose weights their file stores in at most 8
    /// bits are rounded to 16 bits, with a scale for each 256 elements or fewer, where the product has many rows and that is
    /// faster: within `2⁻¹⁶ · max|x| · Σ|w|` of float32, a hundredth and less of what such weights were rounded by.
    #[default]
    Automatic,
    /// As `Automatic`, but nothing is rounded to 16 bits.
    Float32,
    /// Operands rounded to bfloat16, products summed in float32: within `2.01 · 2⁻⁸ · Σ|x·w|` of float32.
    Bf16,
}

impl Precision {
    /// Whether a contraction of `x` with constant weights `w` runs in bfloat16. A model asks for it where both operands
    /// already are bfloat16 numbers, so that nothing is rounded; there only if the CPU multiplies them itself.
    pub(crate) fn rounds(self, graph: &Graph, x: ValueId, w: ValueId) -> bool {
        self == Precision::Bf16 || (has_bf16() && widened(graph, x) && exact(graph, w))
    }

    /// How `m` rows meet weights that stay packed: few rows wait for the weights, however precise they are.
    pub(crate) fn packed(self, m: usize) -> kernels::Precision {
        match self {
            Precision::Automatic if m > FEW_ROWS => kernels::Precision::Words,
            _ => kernels::Precision::Float,
        }
    }

    /// Whether a convolution of so many channels of a group gains.
    pub(crate) fn pays(channels: usize) -> bool {
        channels >= FEW_CHANNELS
    }
}

/// Cast from bfloat16, through what moves elements only.
fn widened(graph: &Graph, mut v: ValueId) -> bool {
    loop {
        let Some(n) = graph.producer(v).and_then(|id| graph.get(id)) else { return false };
        let Some(from) = n.input(0) else { return false };
        match n.op.name() {
            "Cast" => return graph.dtype(from) == Some(DType::BF16),
            "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Identity" => v = from,
            _ => return false,
        }
    }
}

/// Constants whose lower halves are zero.
fn exact(graph: &Graph, v: ValueId) -> bool {
    let Some(t) = graph.constant(v).filter(|t| t.dtype() == DType::F32) else { return false };
    t.bytes().chunks_exact(4).all(|b| b[..2] == [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile_with;
    use ir::{Evaluate, Feeds, Value};
    use kernels::{Serial, Tier};

    fn kinds(g: &Graph, precision: Precision) -> Vec<&'static str> {
        compile_with(g, Tier::best(), precision).unwrap().steps().iter().map(|s| s.kind).collect()
    }

    fn product(cast: bool, w: &str) -> Graph {
        let (ty, cast) = if cast { ("bfloat16", "h = Cast <to = 1> (x)") } else { ("float", "h = Neg (x)") };
        let text = format!(
            "<ir_version: 10, opset_import: [\"\": 21]>
            case ({ty}[3,2] x) => (float[3,2] y) <float[2,2] w = {{{w}}}> {{ {cast}
                y = MatMul (h, w) }}"
        );
        let mut g = ir::text::parse(&text, &ops::Standard).unwrap();
        ir::infer(&mut g).unwrap();
        g
    }

    #[test]
    fn bf16_runs_where_the_model_or_the_user_asks() {
        let (exact, inexact) = ("1.0, -0.5, 3.0, 0.25", "1.0, -0.5, 3.0, 0.2");
        let has = |g: &Graph, p: Precision| kinds(g, p).contains(&"bf16 product");
        assert_eq!(has(&product(true, exact), Precision::Float32), has_bf16());
        assert!(!has(&product(true, inexact), Precision::Float32));
        assert!(!has(&product(false, exact), Precision::Float32));
        assert!(has(&product(false, inexact), Precision::Bf16));
    }

    #[test]
    fn a_bfloat16_model_is_as_the_reference_has_it() {
        let g = product(true, "1.0, -0.5, 3.0, 0.25");
        let bits = [1.0f32, 2.5, -3.0, 0.125, 7.0, -0.75].map(|x| (x.to_bits() >> 16) as u16);
        let bytes = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let x: Value = ir::Tensor::from_bytes(DType::BF16, &[3, 2], bytes).unwrap().into();
        let feeds: Feeds = [("x".to_string(), x.clone())].into_iter().collect();
        let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs;
        let found = compile_with(&g, Tier::best(), Precision::Float32).unwrap().run(&[x], &Serial).unwrap();
        assert_eq!(found, want);
    }
}
