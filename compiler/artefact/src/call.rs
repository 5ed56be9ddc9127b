//! table: kernel calls as data, their weights packed.

use kernels::attention::HeadStrides;
use kernels::chain::{Chain, Table};
use kernels::cumsum::CumSum;
use kernels::elements::{Along, Triangle};
use kernels::grid_sample::GridSample;
use kernels::lrn::Lrn;
use kernels::norm::Norm;
use kernels::reduce::{Extreme, Reduction};
use kernels::resize::Image;
use kernels::rnn::{Gate, PackedRecurrence};
use kernels::roi_align::RoiAlign;
use kernels::rotary::Rotary;
use kernels::softmax::Softmax;
use kernels::stored::{Reader, Stored, Writer};
use kernels::topk::TopK;
use kernels::transpose::Axis;
use kernels::vecmath::Function;
use kernels::{
    Activation, ConvShape, ConvTransposeShape, Dequantization, GemmShape, PackedB, PackedBf16, PackedCodes,
    PackedConv, PackedConvBf16, PackedConvI8, PackedConvTranspose, PackedI8, Pooling, Precision, SparseF32,
    Tier, Window, fields, variants,
};

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
    pub bias: Option<Vec<f32>>,
    pub residual: Option<Residual>,
    pub act: Activation,
    /// Factors and addends of the columns, last.
    pub affine: Option<(Vec<f32>, Vec<f32>)>,
    /// Behind all others, what quantization and dequantization leave of results.
    pub grid: Option<kernels::Grid>,
}

/// A strided copy from one of the inputs to one of the outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub input: usize,
    pub output: usize,
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
    pub guard: bool,
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub dim: usize,
    pub value_dim: usize,
}

/// A number known now or read from an input of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<T> {
    Known(T),
    Read(usize),
}

/// Zero points of weights: none, one, or one a column; or one read from an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Zero {
    Known(Vec<i32>),
    Read(usize),
}

/// What the results of an integer contraction are.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    Sums,
    Values,
    /// By one scale, or one for each column; `zeros` as [`kernels::Results::Bytes`] has them.
    Bytes {
        scale: Vec<f32>,
        zero: i32,
        zeros: Vec<i32>,
        signed: bool,
    },
}

/// How 8-bit numbers and their results are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Of activations and weights.
    pub signed: [bool; 2],
    pub x_scale: Scalar<f32>,
    pub x_zero: Scalar<u8>,
    /// One for each channel in place of `x_zero`, where they differ; else empty.
    pub x_zeros: Vec<i32>,
    /// Of the weights when they are one number.
    pub w_factor: Scalar<f32>,
    pub w_zero: Zero,
    pub output: Kept,
}

/// An integer product of two activations.
#[derive(Debug, Clone, PartialEq)]
pub struct BytePairs {
    pub shape: GemmShape,
    /// Which input is the right operand.
    pub right: usize,
    /// One right operand serves the whole batch.
    pub shared: bool,
}

/// Storage types of quantized numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stores {
    U8,
    I8,
    U16,
    I16,
}

/// Types of numbers that are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    F32,
    F64,
    I32,
    I64,
}

/// Weights of one direction of a recurrence.
pub enum Weights {
    Floats {
        projection: PackedB,
        recurrence: PackedRecurrence,
    },
    /// Of an LSTM whose inputs and states are quantized; both as `kernels::rnn::pack_gates` packs them.
    Bytes {
        projection: Box<PackedI8>,
        recurrence: Box<PackedI8>,
    },
}

/// One direction of a recurrence.
pub struct Pass {
    pub reverse: bool,
    /// Activations f, g and h.
    pub gates: [Gate; 3],
    pub weights: Weights,
    /// Of the projection.
    pub bias: Vec<f32>,
    pub peephole: Option<Vec<f32>>,
    /// Of the gate h after its product, for a GRU that resets there.
    pub hidden_bias: Option<Vec<f32>>,
}

/// A recurrent layer. First and last states and all outputs are operands, by number.
pub struct Recurrence {
    pub steps: usize,
    pub batch: usize,
    pub size: usize,
    pub hidden: usize,
    pub batch_first: bool,
    /// Infinity for none.
    pub clip: f32,
    pub input_forget: bool,
    pub passes: Vec<Pass>,
    /// Input with the length of each sequence, int32.
    pub lengths: Option<usize>,
    /// Inputs with the first state, and the first cell.
    pub first: [Option<usize>; 2],
    /// Outputs with all states, the last state and the last cell.
    pub last: [Option<usize>; 3],
}

/// A constant matrix as a kernel reads it.
pub enum Matrix {
    Dense(PackedB),
    Coded(PackedCodes, Precision),
}

/// Two products in a row whose middle is narrow.
pub struct Pair {
    pub m: usize,
    /// Of the first product and the second.
    pub weights: [Matrix; 2],
    pub alpha: [f32; 2],
    /// Of the second.
    pub finish: Finish,
}

/// One convolution of [`Bands`]. The input of a residual is one of the step.
pub struct Stage {
    pub shape: ConvShape,
    pub weights: PackedConv,
    pub finish: Finish,
}

/// Convolutions in a row that run in bands of lines, so that what lies between them stays in the cache.
pub struct Bands {
    pub stages: Vec<Stage>,
    /// Lines of the last result in a band.
    pub lines: usize,
}

/// One kernel call. The first input is operand 0 unless a field says otherwise.
pub enum Call {
    Copy,
    Conv {
        shape: ConvShape,
        weights: PackedConv,
        finish: Finish,
    },
    Product {
        m: usize,
        alpha: f32,
        weights: PackedB,
        finish: Finish,
    },
    /// As `Product`, with weights of few bits.
    CodedProduct {
        m: usize,
        alpha: f32,
        weights: PackedCodes,
        precision: Precision,
        finish: Finish,
    },
    /// A product without the zeros of its weights.
    SparseProduct {
        m: usize,
        alpha: f32,
        weights: SparseF32,
        finish: Finish,
    },
    Pair(Box<Pair>),
    Bands(Bands),
    /// As `Conv`, operands rounded to bfloat16.
    HalfConv {
        shape: ConvShape,
        weights: PackedConvBf16,
        finish: Finish,
    },
    /// As `Product`, operands rounded to bfloat16.
    HalfProduct {
        m: usize,
        alpha: f32,
        weights: PackedBf16,
        finish: Finish,
    },
    /// A product of two activations.
    Products {
        tier: Tier,
        shape: GemmShape,
        /// Elements between the operands of two products, left and right.
        steps: [usize; 2],
        finish: Finish,
    },
    ConvTranspose {
        shape: ConvTransposeShape,
        weights: PackedConvTranspose,
        finish: Finish,
    },
    ByteConv {
        shape: ConvShape,
        weights: Box<PackedConvI8>,
        scaling: Scaling,
        finish: Finish,
    },
    ByteProduct {
        m: usize,
        weights: PackedI8,
        scaling: Scaling,
        finish: Finish,
    },
    ByteProducts {
        tier: Tier,
        of: BytePairs,
        scaling: Scaling,
        finish: Finish,
    },
    Pool {
        tier: Tier,
        kind: Pooling,
        window: Window,
        batch: usize,
        channels: usize,
    },
    GlobalPool {
        tier: Tier,
        kind: Pooling,
        batch: usize,
        positions: usize,
        channels: usize,
    },
    /// The largest of bytes.
    BytePool {
        tier: Tier,
        signed: bool,
        window: Window,
        batch: usize,
        channels: usize,
    },
    /// Means of dequantized bytes.
    GlobalAverage {
        tier: Tier,
        by: Dequantization,
        batch: usize,
        positions: usize,
        channels: usize,
    },
    Softmax {
        kind: Softmax,
        outer: usize,
        size: usize,
        inner: usize,
    },
    Map {
        function: Function,
    },
    /// 16-bit floats to float32: bfloat16, or float16.
    Widen {
        brain: bool,
    },
    /// And back.
    Narrow {
        brain: bool,
    },
    /// Powers: of input 0, or of one known base; by the next input, or by one known exponent.
    Power {
        base: Option<f32>,
        exponent: Option<f32>,
    },
    /// Outputs: the elements, and their places as int64.
    TopK(TopK),
    /// `ln Σ e^x` over rows of `size`.
    LogSumExp {
        size: usize,
    },
    Reduce {
        op: Reduction,
        outer: usize,
        size: usize,
        inner: usize,
    },
    /// The position of an extreme, int64.
    Arg {
        which: Extreme,
        select_last: bool,
        outer: usize,
        size: usize,
        inner: usize,
    },
    Normalize {
        norm: Norm,
        size: usize,
        gamma: Option<Vec<f32>>,
        beta: Option<Vec<f32>>,
    },
    NormalizeGroups {
        batch: usize,
        channels: usize,
        inner: usize,
        groups: usize,
        gamma: Vec<f32>,
        beta: Vec<f32>,
        epsilon: f32,
    },
    /// Rows of a table, which needs no alignment where `width` is 1.
    Gather {
        width: usize,
        wide: bool,
        outer: usize,
        rows: usize,
        run: usize,
    },
    /// Slices of a table by tuples of int64 indices, its input 1.
    Tuples {
        width: usize,
        batch: usize,
        dims: Vec<usize>,
        run: usize,
    },
    /// Elements picked by the indices of input 1, `wide` ones int64, others int32.
    Elements {
        width: usize,
        wide: bool,
        along: Along,
    },
    /// Elements of input 2 placed in a copy of input 0 by the indices of input 1.
    ScatterElements {
        width: usize,
        wide: bool,
        along: Along,
    },
    /// Slices of input 2 placed in a copy of input 0 by the tuples of input 1, int64.
    ScatterTuples {
        width: usize,
        dims: Vec<usize>,
        run: usize,
    },
    Triangle {
        width: usize,
        of: Triangle,
    },
    /// By the tables of inputs 1 and 2, in rows that input 3, int64, names if it is there.
    Rotary {
        tier: Tier,
        of: Rotary,
    },
    Lrn {
        tier: Tier,
        of: Lrn,
    },
    /// At the positions of input 1.
    GridSample {
        tier: Tier,
        of: GridSample,
    },
    /// In the boxes of input 1, of the images that input 2, int64, names.
    RoiAlign {
        tier: Tier,
        of: RoiAlign,
    },
    CumSum {
        numbers: Numbers,
        of: CumSum,
    },
    /// Input 0 are indices, input 1 what stands elsewhere and what stands there.
    OneHot {
        width: usize,
        wide: bool,
        depth: usize,
        inner: usize,
    },
    /// Strided copies; output 0 is filled first if there is a value of `width` bytes for it.
    Moves {
        width: usize,
        fill: Option<Vec<u8>>,
        outputs: usize,
        list: Vec<Move>,
    },
    Permute {
        width: usize,
        shape: Vec<usize>,
        perm: Vec<usize>,
    },
    Nearest {
        width: usize,
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
    /// To quantized numbers: scales are input 1, zero points, if there are any, input 2.
    Quantize {
        to: Stores,
        zero: bool,
        inner: usize,
    },
    Dequantize {
        from: Stores,
        zero: bool,
        inner: usize,
    },
    /// Outputs: bytes, their scale and their zero point.
    QuantizeDynamic,
    Recur(Box<Recurrence>),
    /// Generated loop `code` over rows of float32; see `Walk` in code generation.
    Rows {
        code: usize,
        outer: Vec<(usize, Vec<i64>)>,
        rows: usize,
        strides: Vec<i64>,
        /// Whether each input moves along a row.
        moving: Vec<bool>,
        n: usize,
    },
    /// Element-wise steps over bytes and float32, walked as `Rows`, strides those of float32.
    /// Each byte looked up.
    LookUp {
        tier: Tier,
        table: Table,
    },
    Chain {
        tier: Tier,
        chain: Chain,
        outer: Vec<(usize, Vec<i64>)>,
        rows: usize,
        strides: Vec<i64>,
        moving: Vec<bool>,
        n: usize,
    },
    /// Generated loop `code` over `units`, of any element types.
    Typed {
        code: usize,
        units: usize,
        elements: usize,
    },
}

impl Call {
    /// Whether constant operand `i` may lie at any address.
    pub fn takes_unaligned(&self, i: usize) -> bool {
        matches!(self, Call::Gather { width: 1, .. }) && i == 0
    }

    /// The number of the generated loop it runs.
    pub fn code(&self) -> Option<usize> {
        match self {
            Call::Rows { code, .. } | Call::Typed { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl<T: Stored> Stored for Scalar<T> {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        match self {
            Scalar::Known(x) => {
                out.stream.push(0);
                x.put(out);
            }
            Scalar::Read(i) => {
                out.stream.push(1);
                i.put(out);
            }
        }
    }
    fn take(from: &mut Reader) -> Option<Self> {
        match u8::take(from)? {
            0 => T::take(from).map(Scalar::Known),
            1 => usize::take(from).map(Scalar::Read),
            _ => None,
        }
    }
}

fields! {
    Move { input, output, from, to, axes }
    Line { low, high, weight }
    Mask { strides, truth, fill }
    Scores {
        q, k, v, y, mask, causal, scale, softcap, unseen, guard, batch, heads, kv_heads, queries, keys, dim,
        value_dim,
    }
    Residual { input, after_activation }
    Finish { bias, residual, act, affine, grid }
    Scaling { signed, x_scale, x_zero, x_zeros, w_factor, w_zero, output }
    BytePairs { shape, right, shared }
    Pass { reverse, gates, weights, bias, peephole, hidden_bias }
    Pair { m, weights, alpha, finish }
    Stage { shape, weights, finish }
    Bands { stages, lines }
    Recurrence { steps, batch, size, hidden, batch_first, clip, input_forget, passes, lengths, first, last }
}

variants! { Zero { 0 = Known(all), 1 = Read(at) } }

variants! { Weights { 0 = Floats { projection, recurrence }, 1 = Bytes { projection, recurrence } } }

variants! { Matrix { 0 = Dense(weights), 1 = Coded(weights, precision) } }

variants! { Kept { 0 = Sums, 1 = Values, 2 = Bytes { scale, zero, zeros, signed } } }

variants! { Stores { 0 = U8, 1 = I8, 2 = U16, 3 = I16 } }

variants! { Numbers { 0 = F32, 1 = F64, 2 = I32, 3 = I64 } }

variants! { Call {
    0 = Copy,
    1 = Conv { shape, weights, finish },
    2 = Product { m, alpha, weights, finish },
    3 = Products { tier, shape, steps, finish },
    4 = ConvTranspose { shape, weights, finish },
    5 = ByteConv { shape, weights, scaling, finish },
    6 = ByteProduct { m, weights, scaling, finish },
    7 = ByteProducts { tier, of, scaling, finish },
    8 = Pool { tier, kind, window, batch, channels },
    9 = GlobalPool { tier, kind, batch, positions, channels },
    10 = Softmax { kind, outer, size, inner },
    11 = Map { function },
    12 = Reduce { op, outer, size, inner },
    13 = Arg { which, select_last, outer, size, inner },
    14 = Normalize { norm, size, gamma, beta },
    15 = NormalizeGroups { batch, channels, inner, groups, gamma, beta, epsilon },
    16 = Gather { width, wide, outer, rows, run },
    17 = Moves { width, fill, outputs, list },
    18 = Permute { width, shape, perm },
    19 = Nearest { width, image, rows, columns },
    20 = Linear { image, rows, columns },
    21 = Attention(scores),
    22 = Quantize { to, zero, inner },
    23 = Dequantize { from, zero, inner },
    24 = QuantizeDynamic,
    25 = Recur(recurrence),
    26 = Rows { code, outer, rows, strides, moving, n },
    27 = Typed { code, units, elements },
    28 = CodedProduct { m, alpha, weights, precision, finish },
    29 = Pair(pair),
    30 = Chain { tier, chain, outer, rows, strides, moving, n },
    31 = LookUp { tier, table },
    32 = SparseProduct { m, alpha, weights, finish },
    33 = Tuples { width, batch, dims, run },
    34 = HalfConv { shape, weights, finish },
    35 = HalfProduct { m, alpha, weights, finish },
    36 = Widen { brain },
    37 = Narrow { brain },
    40 = Power { base, exponent },
    41 = TopK(size),
    42 = LogSumExp { size },
    43 = Elements { width, wide, along },
    44 = ScatterElements { width, wide, along },
    45 = ScatterTuples { width, dims, run },
    46 = Triangle { width, of },
    47 = OneHot { width, wide, depth, inner },
    48 = Rotary { tier, of },
    49 = GlobalAverage { tier, by, batch, positions, channels },
    50 = Lrn { tier, of },
    51 = GridSample { tier, of },
    52 = CumSum { numbers, of },
    53 = BytePool { tier, signed, window, batch, channels },
    54 = RoiAlign { tier, of },
    55 = Bands(bands),
} }
