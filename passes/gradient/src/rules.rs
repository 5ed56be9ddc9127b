//! The table of vector-Jacobian products: one row per operator that is not element-wise.

mod linear;
mod movement;
mod normalize;
mod pool;
mod reduce;
mod resize;

use crate::build::Build;
use ir::{Error, Node, Result, Shape, Tensor, ValueId};

/// Outputs in order, `None` where a node has no such form.
pub type Written = Result<Option<Vec<Option<ValueId>>>>;

/// How an operator is differentiated.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Gradients for the inputs, from those for the outputs.
    Pull(fn(&mut Cx) -> Result<Vec<Option<ValueId>>>),
    /// The same meaning in operators that have a rule; outputs in order.
    Write(fn(&mut Build, &Node) -> Written),
}

/// A node on the way back.
pub struct Cx<'a> {
    pub b: &'a mut Build,
    pub node: Node,
    /// Gradients for the outputs.
    pub outputs: Vec<Option<ValueId>>,
    /// Which inputs want one.
    pub needs: Vec<bool>,
}

use Rule::{Pull, Write};

/// By name, in the standard domain.
pub static RULES: &[(&str, Rule)] = &[
    ("MatMul", Pull(linear::matmul)),
    ("Gemm", Pull(linear::gemm)),
    ("Conv", Pull(linear::conv)),
    ("ConvTranspose", Pull(linear::conv_transpose)),
    ("Einsum", Pull(linear::einsum)),
    ("AveragePool", Pull(pool::average)),
    ("MaxPool", Pull(pool::max)),
    ("GlobalAveragePool", Write(pool::global_average)),
    ("GlobalMaxPool", Write(pool::global_max)),
    ("BatchNormalization", Write(normalize::batch)),
    ("InstanceNormalization", Write(normalize::instance)),
    ("GroupNormalization", Write(normalize::group)),
    ("LayerNormalization", Write(normalize::layer)),
    ("RMSNormalization", Write(normalize::rms)),
    ("MeanVarianceNormalization", Write(normalize::mean_variance)),
    ("LpNormalization", Write(normalize::lp)),
    ("Softmax", Pull(normalize::softmax)),
    ("LogSoftmax", Pull(normalize::log_softmax)),
    ("ReduceSum", Pull(reduce::sum)),
    ("ReduceMean", Pull(reduce::mean)),
    ("ReduceMax", Pull(reduce::extreme)),
    ("ReduceMin", Pull(reduce::extreme)),
    ("ReduceProd", Pull(reduce::product)),
    ("ReduceLogSumExp", Pull(reduce::log_sum_exp)),
    ("ReduceSumSquare", Pull(reduce::sum_square)),
    ("ReduceL1", Pull(reduce::l1)),
    ("ReduceL2", Pull(reduce::l2)),
    ("ReduceLogSum", Pull(reduce::log_sum)),
    ("CumSum", Pull(reduce::cumulative)),
    ("Identity", Pull(movement::reshaped)),
    ("Dropout", Pull(movement::dropout)),
    ("Reshape", Pull(movement::reshaped)),
    ("Flatten", Pull(movement::reshaped)),
    ("Squeeze", Pull(movement::reshaped)),
    ("Unsqueeze", Pull(movement::reshaped)),
    ("Transpose", Pull(movement::transposed)),
    ("Expand", Pull(movement::expanded)),
    ("Concat", Pull(movement::concat)),
    ("Split", Pull(movement::split)),
    ("Slice", Pull(movement::slice)),
    ("Pad", Pull(movement::pad)),
    ("Tile", Pull(movement::moved)),
    ("DepthToSpace", Pull(movement::moved)),
    ("SpaceToDepth", Pull(movement::moved)),
    ("Trilu", Pull(movement::moved)),
    ("Gather", Pull(movement::gather)),
    ("GatherElements", Pull(movement::gather_elements)),
    ("GatherND", Pull(movement::gather_nd)),
    ("Resize", Pull(resize::resize)),
    ("CastLike", Pull(movement::cast_like)),
    ("DequantizeLinear", Pull(linear::dequantize)),
];

pub fn find(node: &Node) -> Option<Rule> {
    let standard = node.op.domain().is_empty();
    RULES.iter().find(|(name, _)| standard && *name == node.op.name()).map(|r| r.1)
}

impl Cx<'_> {
    /// The gradient for the first output, when no other has one.
    pub fn g(&self) -> Result<ValueId> {
        if self.outputs.iter().skip(1).any(Option::is_some) {
            return Err(Error::unsupported("no derivative is known of any output but the first"));
        }
        self.outputs.first().copied().flatten().ok_or_else(|| Error::internal("no gradient came back"))
    }

    pub fn x(&self, i: usize) -> Result<ValueId> {
        self.node.input(i).ok_or_else(|| Error::model(format!("input {i} is missing")))
    }

    pub fn y(&self) -> Result<ValueId> {
        self.node.output(0).ok_or_else(|| Error::internal("no output"))
    }

    pub fn shape(&self, i: usize) -> Result<Shape> {
        self.b.shape(self.x(i)?)
    }

    pub fn output_shape(&self, i: usize) -> Result<Shape> {
        let v = self.node.output(i).ok_or_else(|| Error::internal("no output"))?;
        self.b.shape(v)
    }

    pub fn need(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }

    /// A constant input.
    pub fn constant(&self, i: usize) -> Result<Option<Tensor>> {
        self.node.input(i).map(|v| constant(self.b, v)).transpose()
    }

    pub fn ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        self.constant(i)?.map(|t| t.to_i64s()).transpose()
    }

    /// One gradient, for the first input.
    pub fn first(&self, grad: ValueId) -> Vec<Option<ValueId>> {
        let mut all = vec![None; self.needs.len()];
        if let Some(a) = all.first_mut() {
            *a = Some(grad);
        }
        all
    }
}

/// The value of an input that must be known.
pub fn constant(b: &Build, v: ValueId) -> Result<Tensor> {
    let t = b.graph.constant(v).cloned();
    t.ok_or_else(|| {
        let name = b.graph.value_name(v);
        Error::unsupported("the derivative needs this input to be a constant").tensor(name)
    })
}

/// A possibly negative axis as a position.
pub fn axis(a: i64, rank: usize) -> Result<usize> {
    let r = rank as i64;
    let at = if a < 0 { a + r } else { a };
    usize::try_from(at)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| Error::model(format!("axis {a} of rank {rank}")))
}
