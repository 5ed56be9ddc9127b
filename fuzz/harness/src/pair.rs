//! What is fuzzed: a graph and the passes over it, together; and inputs made from a seed.

use crate::generate::Case;
use crate::passes::Pipeline;
use crate::random::Random;
use ir::{DType, Feeds, Graph, Result, Tensor};

/// A graph and what is done to it.
#[derive(Debug, Clone)]
pub struct Pair {
    pub graph: Graph,
    pub pipeline: Pipeline,
}

const MAGIC: &[u8; 4] = b"PAIR";
/// Largest pair in a file.
const LARGEST: usize = 4 << 20;

impl Pair {
    /// The pair as bytes: magic, length of the pipeline's text, the text, the model file.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let text = self.pipeline.print();
        let mut out = MAGIC.to_vec();
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
        out.extend(onnx::to_bytes(&self.graph, &ops::Standard)?);
        Ok(out)
    }

    /// The pair that [`Pair::encode`] wrote, if it is one.
    pub fn decode(bytes: &[u8]) -> Option<Pair> {
        let rest = bytes.strip_prefix(MAGIC).filter(|r| r.len() < LARGEST)?;
        let (n, rest) = rest.split_first_chunk::<4>()?;
        let (text, model) = rest.split_at_checked(u32::from_le_bytes(*n) as usize)?;
        let pipeline = Pipeline::parse(std::str::from_utf8(text).ok()?).ok()?;
        let graph = onnx::from_bytes(model.to_vec(), &ops::Standard).ok()?.graph;
        Some(Pair { graph, pipeline })
    }

    /// Inputs for the graph, from the pipeline's seed.
    pub fn feeds(&self) -> Feeds {
        feeds(&self.graph, self.pipeline.seed)
    }
}

impl From<(Case, Pipeline)> for Pair {
    fn from((case, pipeline): (Case, Pipeline)) -> Pair {
        Pair { graph: case.graph, pipeline }
    }
}

/// Floats where rounding and special cases live.
pub const EDGES: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e-40,
    1e12,
    -1e12,
    1e-8,
    3.4e38,
    65504.0,
    127.5,
    -128.5,
];

/// Values for every input; open dims are 2. A third of the seeds have edges among the floats.
pub fn feeds(graph: &Graph, seed: u64) -> Feeds {
    let mut feeds = Feeds::new();
    for (i, &v) in graph.inputs().iter().enumerate() {
        let ty = graph.ty(v);
        let shape: Vec<usize> =
            ty.shape().map(|s| s.iter().map(|d| d.known().unwrap_or(2)).collect()).unwrap_or_default();
        let mut r = Random(seed ^ (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let edges = seed.is_multiple_of(3);
        if let Some(t) = ty.dtype().and_then(|d| tensor(d, &shape, edges, &mut r)) {
            feeds.insert(graph.value_name(v).to_string(), t.into());
        }
    }
    feeds
}

/// Values between −2 and 2, whole ranges of bytes, small integers.
pub fn tensor(dtype: DType, shape: &[usize], edges: bool, r: &mut Random) -> Option<Tensor> {
    let n = ir::budget::elements(shape).ok().filter(|&n| n <= 1 << 22)?;
    if dtype == DType::String {
        return Tensor::strings(shape, vec![String::from("a"); n]).ok();
    }
    if dtype.is_float() {
        let mut f = || match r.bits() {
            h if h & 31 == 0 && edges => EDGES[(h >> 8) as usize % EDGES.len()],
            h if h & 15 == 1 => 0.0,
            h if h & 15 == 2 => 1.0,
            h => ((h >> 16) & 0xffff) as f64 / 16384.0 - 2.0,
        };
        return Tensor::from_f64s(dtype, shape, (0..n).map(|_| f()).collect()).ok();
    }
    let (low, high) = match dtype {
        DType::Bool => (0, 1),
        DType::U8 => (0, 255),
        DType::I8 => (-128, 127),
        DType::U16 => (0, 255),
        DType::U32 | DType::U64 => (0, 20),
        DType::I32 | DType::I64 | DType::I16 => (-9, 9),
        _ => (0, 1),
    };
    let span = (high - low + 1) as usize;
    Tensor::from_i64s(dtype, shape, (0..n).map(|_| low + r.below(span) as i64).collect()).ok()
}
