//! table: parameters of kernels as bytes.

use crate::attention::HeadStrides;
use crate::chain::{Arg, Binary, Chain, Format, Step};
use crate::cumsum::CumSum;
use crate::elements::{Along, Triangle};
use crate::grid_sample::{GridSample, Padding};
use crate::lrn::Lrn;
use crate::norm::Norm;
use crate::reduce::{Extreme, Reduction};
use crate::resize::Image;
use crate::rnn::Gate;
use crate::roi_align::RoiAlign;
use crate::rotary::Rotary;
use crate::softmax::Softmax;
use crate::topk::TopK;
use crate::transpose::Axis;
use crate::vecmath::Function;
use crate::{Activation, ConvShape, ConvTransposeShape, GemmShape, Pooling, Precision, Strides, Window};
use crate::{fields, variants};

fields! {
    Axis { len, from, to }
    Along { axis, data, indices }
    Triangle { height, width, diagonal, upper }
    CumSum { outer, n, inner, exclusive, reverse }
    GridSample { batch, channels, height, width, tall, wide, last, nearest, padding, align_corners }
    Lrn { batch, channels, inner, last, size, alpha, beta, bias }
    RoiAlign { batch, channels, height, width, boxes, tall, wide, samples, scale, half_pixel, largest }
    Rotary { batch, heads, length, size, heads_first, half, interleaved }
    TopK { outer, n, inner, k, largest }
    Chain { operands, steps, result, store }
    Image { batch, height, width, channels }
    HeadStrides { batch, head, position, lane }
    GemmShape { batch, m, n, k }
    Strides { row, col }
    ConvTransposeShape {
        batch, input, output, cin, cout, kernel, stride, dilation, pad_begin, groups,
    }
    ConvShape { batch, input, cin, cout, kernel, stride, dilation, pad_begin, pad_end, groups }
    Window { input, output, kernel, stride, dilation, pad }
}

variants! { Format { 0 = F32, 1 = Bytes { signed, scale, zero }, 2 = Words, 3 = Half } }

variants! { Precision { 0 = Float, 1 = Words, 2 = Bytes } }

variants! { Arg { 0 = Slot(slot), 1 = Const(number) } }

variants! { Binary { 0 = Add, 1 = Sub, 2 = Mul, 3 = Div, 4 = Min, 5 = Max, 6 = Leaky } }

variants! { Step { 0 = Binary(op, left, right), 1 = Map(function, of), 2 = Snap(format, of), 3 = Equal(left, right) } }

variants! { Padding { 0 = Zeros, 1 = Border, 2 = Reflection } }

variants! { Softmax { 0 = Plain, 1 = Log } }

variants! { Extreme { 0 = Max, 1 = Min } }

variants! { Reduction { 0 = Sum, 1 = Mean, 2 = Max, 3 = Min, 4 = Prod, 5 = SumSquare, 6 = L1, 7 = L2 } }

variants! { Norm { 0 = Layer { epsilon }, 1 = Rms { epsilon }, 2 = L2, 3 = L1 } }

variants! { Pooling { 0 = Max, 1 = Average, 2 = AverageWithPadding { pad_end } } }

variants! { Activation {
    0 = None, 1 = Relu, 2 = Clip { lo, hi }, 3 = LeakyRelu(slope), 4 = HardSwish, 5 = HardSigmoid { alpha, beta },
    6 = Sigmoid, 7 = Silu, 8 = Tanh, 9 = GeluErf, 10 = GeluTanh, 11 = LeakyFrom { slope, low },
} }

variants! { Gate {
    0 = Sigmoid, 1 = Tanh, 2 = Relu, 3 = Affine { alpha, beta }, 4 = LeakyRelu { alpha },
    5 = ThresholdedRelu { alpha }, 6 = ScaledTanh { alpha, beta }, 7 = HardSigmoid { alpha, beta },
    8 = Elu { alpha }, 9 = Softsign, 10 = Softplus,
} }

variants! { Function {
    0 = Exp, 1 = Log, 2 = Erf, 3 = Sin, 4 = Cos, 5 = Tan, 6 = Sinh, 7 = Cosh, 8 = Softplus, 9 = Mish, 10 = Sign,
    11 = Elu { alpha }, 12 = Selu { alpha, gamma }, 13 = Celu { alpha }, 14 = Sigmoid, 15 = Tanh, 16 = Silu, 17 = Gelu,
    18 = GeluTanh, 19 = QuickGelu { alpha }, 20 = Softsign, 21 = Sqrt, 22 = Rsqrt, 23 = Reciprocal, 24 = Abs, 25 = Neg,
    26 = Floor, 27 = Ceil, 28 = Round, 29 = Relu, 30 = Clip { lo, hi }, 31 = LeakyRelu { slope },
    32 = ThresholdedRelu { alpha }, 33 = HardSigmoid { alpha, beta }, 34 = HardSwish, 35 = Asin, 36 = Acos, 37 = Atan,
} }
