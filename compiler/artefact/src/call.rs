//! Kernel calls as data.

use crate::{fields, variants};
use kernels::ConvTransposeShape;
use kernels::attention::HeadStrides;
use kernels::norm::Norm;
use kernels::reduce::Reduction;
use kernels::resize::Image;
use kernels::transpose::Axis;
use kernels::vecmath::Function;
use kernels::{Activation, ConvShape, Pooling, Window};

/// Bytes of the artefact's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    pub offset: usize,
    pub bytes: usize,
}

/// What is added to the sums of a contraction beside its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residual {
    /// Which input of the step.
    pub input: usize,
    pub after_activation: bool,
}

/// What follows the sums of a contraction.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    pub bias: Option<Blob>,
    pub residual: Option<Residual>,
    pub act: Activation,
}

/// A product with constant weights, `[k, n]` or, transposed, `[n, k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Contraction {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub transposed: bool,
    pub alpha: f32,
}

/// A strided copy from one of the inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub input: usize,
    pub from: usize,
    pub to: usize,
    pub axes: Vec<Axis>,
}

/// Taps along one axis of a linear resize.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub low: Vec<usize>,
    pub high: Vec<usize>,
    pub weight: Vec<f32>,
}

/// The mask of an attention, its input 3.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Over batch, head, query and key.
    pub strides: [usize; 4],
    /// Its elements are booleans; otherwise they are added.
    pub truth: bool,
    pub fill: Option<f32>,
}

/// An attention over queries, keys and values, inputs 0 to 2.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub q: HeadStrides,
    pub k: HeadStrides,
    pub v: HeadStrides,
    pub y: HeadStrides,
    pub mask: Option<Mask>,
    pub causal: Option<isize>,
    pub scale: f32,
    pub softcap: f32,
    pub unseen: f32,
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub dim: usize,
    pub value_dim: usize,
}

/// One kernel call. The first input is operand 0 unless a field says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Copy,
    Conv {
        shape: ConvShape,
        weights: Blob,
        finish: Finish,
    },
    Product {
        of: Contraction,
        weights: Blob,
        finish: Finish,
    },
    Pool {
        kind: Pooling,
        window: Window,
        batch: usize,
        channels: usize,
    },
    GlobalPool {
        kind: Pooling,
        batch: usize,
        positions: usize,
        channels: usize,
    },
    Softmax {
        log: bool,
        outer: usize,
        size: usize,
        inner: usize,
    },
    Map {
        function: Function,
    },
    Reduce {
        op: Reduction,
        outer: usize,
        size: usize,
        inner: usize,
    },
    Normalize {
        norm: Norm,
        size: usize,
        gamma: Option<Blob>,
        beta: Option<Blob>,
    },
    ConvTranspose {
        shape: ConvTransposeShape,
        weights: Blob,
        finish: Finish,
    },
    Gather {
        width: usize,
        wide: bool,
        outer: usize,
        rows: usize,
        run: usize,
    },
    /// Strided copies into the output, which is filled first if there is a value of `width` bytes for it.
    Moves {
        width: usize,
        fill: Option<Vec<u8>>,
        list: Vec<Move>,
    },
    Nearest {
        image: Image,
        rows: Vec<usize>,
        columns: Vec<usize>,
    },
    Linear {
        image: Image,
        rows: Line,
        columns: Line,
    },
    Attention(Scores),
    /// Generated loop `code` over rows; see `RowLoop` in code generation.
    Rows {
        code: usize,
        outer: Vec<(usize, Vec<i64>)>,
        rows: usize,
        strides: Vec<i64>,
        n: usize,
    },
    /// Generated loop `code` over `units`.
    Typed {
        code: usize,
        units: usize,
    },
    Permute {
        width: usize,
        shape: Vec<usize>,
        perm: Vec<usize>,
    },
}

/// Where an operand lies, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// At this offset of the workspace.
    Workspace {
        at: usize,
        bytes: usize,
    },
    Input {
        at: usize,
        bytes: usize,
    },
    Output {
        at: usize,
        bytes: usize,
    },
    Constant {
        at: usize,
        bytes: usize,
    },
}

/// A call and its operands, inputs first.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub call: Call,
    pub inputs: usize,
    pub operands: Vec<Operand>,
}

/// All steps of a model, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub inputs: usize,
    /// Alignment in bytes of every input and output.
    pub ports: Vec<usize>,
    pub steps: Vec<Step>,
}

fields! {
    Move { input, from, to, axes }
    Line { low, high, weight }
    Mask { strides, truth, fill }
    Scores {
        q, k, v, y, mask, causal, scale, softcap, unseen, batch, heads, kv_heads, queries, keys, dim, value_dim,
    }
    Blob { offset, bytes }
    Residual { input, after_activation }
    Finish { bias, residual, act }
    Contraction { m, k, n, transposed, alpha }
    Step { call, inputs, operands }
    Plan { inputs, ports, steps }
}

variants! { Call {
    0 = Copy,
    1 = Conv { shape, weights, finish },
    2 = Product { of, weights, finish },
    3 = Pool { kind, window, batch, channels },
    4 = GlobalPool { kind, batch, positions, channels },
    5 = Softmax { log, outer, size, inner },
    6 = Map { function },
    7 = Rows { code, outer, rows, strides, n },
    8 = Typed { code, units },
    9 = Permute { width, shape, perm },
    10 = Reduce { op, outer, size, inner },
    11 = Normalize { norm, size, gamma, beta },
    12 = ConvTranspose { shape, weights, finish },
    13 = Gather { width, wide, outer, rows, run },
    14 = Moves { width, fill, list },
    15 = Nearest { image, rows, columns },
    16 = Linear { image, rows, columns },
    17 = Attention(scores),
} }

variants! { Operand {
    0 = Workspace { at, bytes }, 1 = Input { at, bytes }, 2 = Output { at, bytes }, 3 = Constant { at, bytes },
} }
