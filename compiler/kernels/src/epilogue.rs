//! What happens to a contraction's sums before they are stored.

/// An element-wise function applied to a finished sum. NaN stays NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, lo), hi)`.
    Clip { lo: f32, hi: f32 },
    /// `x < 0 ? slope·x : x`.
    LeakyRelu(f32),
    /// `x · max(0, min(1, x/6 + 1/2))`.
    HardSwish,
    /// `max(0, min(1, alpha·x + beta))`.
    HardSigmoid { alpha: f32, beta: f32 },
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x · sigmoid(x)`.
    Silu,
    /// `tanh x`.
    Tanh,
    /// `x/2 · (1 + erf(x/√2))`.
    GeluErf,
    /// The tanh form of gelu.
    GeluTanh,
}

/// A second operand added to the result, laid out as the result.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Rows of as many elements as the result has columns.
    pub data: &'a [f32],
    /// Elements between the starts of two rows.
    pub row_stride: usize,
    /// `act(acc + bias) + residual` instead of `act(acc + bias + residual)`.
    pub after_activation: bool,
}

/// `act(acc + bias + residual)`, fused into the kernel that makes `acc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One addend for each column (output channel).
    pub bias: Option<&'a [f32]>,
    /// A matrix to add.
    pub residual: Option<Residual<'a>>,
    /// One negative slope for each column: PRelu. `act` must be [`Activation::None`].
    pub slope: Option<&'a [f32]>,
    /// The function applied last, or before the residual is added.
    pub act: Activation,
}
