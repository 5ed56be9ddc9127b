//! Elementary functions over `f32` slices, 16 lanes at a time.
//!
//! Errors are stated for the fused tiers (AVX-512, AVX2), in units in the last place over all inputs, and are held
//! by tests; the portable tier rounds products apart and may add one. NaN gives NaN, infinities and signed zeros
//! give the mathematical limits, denormals are neither flushed on the way in nor on the way out. Functions written
//! as `x·g(x)` (silu, mish, gelu, hardswish) follow that formula at -∞, where it is NaN.

mod arc;
mod erf;
mod exp;
mod log;
mod pow;
mod trig;

pub(crate) use erf::gelu;
pub(crate) use exp::{exp, exp_term, gelu_tanh, sigmoid, sigmoid_ratio, silu, tanh, tanh_ratio};
pub(crate) use log::log;

use erf::erf;
use exp::{gated, mish};
use log::softplus;

use crate::dispatch::Tier;
use crate::epilogue::Activation;
use crate::error::{Error, same_length};
use crate::simd::{LANES, Simd, tiered};

/// A function of one vector. The one place where its formula stands.
pub(crate) trait Map: Copy {
    fn map<S: Simd>(self, s: S, x: S::F) -> S::F;
}

tiered! {
    /// `y[i] = f(x[i])`; `x` and `y` are the same or do not overlap.
    ///
    /// # Safety
    /// `x` is valid for reading and `y` for writing `n` elements.
    unsafe fn run<G: Map>(s: S; g: G, x: *const f32, y: *mut f32, n: usize) {
        let mut i = 0;
        while i + 2 * LANES <= n {
            let (a, b) = (s.load(x.add(i)), s.load(x.add(i + LANES)));
            s.store(y.add(i), g.map(s, a));
            s.store(y.add(i + LANES), g.map(s, b));
            i += 2 * LANES;
        }
        while i < n {
            let a = s.load_up_to(x.add(i), n - i);
            s.store_up_to(y.add(i), g.map(s, a), n - i);
            i += LANES;
        }
    }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident $({ $($p:ident),* })?, $ulp:expr, |$s:ident, $x:ident| $e:expr;)*) => {
        /// A unary function of `f32`, with its parameters.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Function { $($(#[$doc])* $name $({ $($p: f32),* })?,)* }

        impl Function {
            /// The largest error in units in the last place on the fused tiers; `None` where cancellation is part
            /// of the formula and the bound is absolute instead: see the variant.
            pub fn ulp(self) -> Option<f32> {
                match self { $(Function::$name { .. } => $ulp,)* }
            }

            /// # Safety
            /// As [`run`].
            pub(crate) unsafe fn run(self, tier: Tier, x: *const f32, y: *mut f32, n: usize) {
                match self {
                    $(Function::$name $({ $($p),* })? => {
                        #[derive(Clone, Copy)]
                        struct G { $($($p: f32,)*)? }
                        impl Map for G {
                            #[inline(always)]
                            fn map<S: Simd>(self, $s: S, $x: S::F) -> S::F {
                                $(let G { $($p),* } = self;)?
                                $e
                            }
                        }
                        // SAFETY: passed on.
                        unsafe { run(tier, G { $($($p,)*)? }, x, y, n) }
                    })*
                }
            }
        }
    };
}

functions! {
    /// `e^x`.
    Exp, Some(1.5), |s, x| exp(s, x);
    /// `ln x`.
    Log, Some(1.5), |s, x| log(s, x);
    /// `tanh x`.
    Tanh, Some(3.0), |s, x| tanh(s, x);
    /// `erf x`.
    Erf, Some(2.0), |s, x| erf(s, x);
    /// `1 / (1 + e^-x)`.
    Sigmoid, Some(3.0), |s, x| sigmoid(s, x);
    /// `x · sigmoid(x)`; the error is at most `2.5e-7·|x|`.
    Silu, None, |s, x| silu(s, x);
    /// `½x (1 + erf(x/√2))`; the error is at most `1.5e-7·|x|`.
    Gelu, None, |s, x| gelu(s, x);
    /// The tanh form of gelu; the error is at most `2.5e-7·|x|`.
    GeluTanh, None, |s, x| gelu_tanh(s, x);
    /// `x · sigmoid(alpha·x)`; the error is at most `2.5e-7·|x|`.
    QuickGelu { alpha }, None, |s, x| gated(s, x, s.mul(s.splat(alpha), x));
    /// `ln(1 + e^x)`.
    Softplus, Some(3.0), |s, x| softplus(s, x);
    /// `x · tanh(softplus(x))`; the error is at most `2.5e-7·|x|`.
    Mish, None, |s, x| mish(s, x);
    /// `x / (1 + |x|)`.
    Softsign, Some(1.5), |s, x| s.div(x, s.add(s.splat(1.0), s.abs(x)));
    /// `sin x`.
    Sin, Some(1.5), |s, x| trig::sin(s, x);
    /// `cos x`.
    Cos, Some(1.5), |s, x| trig::cos(s, x);
    /// `tan x`.
    Tan, Some(3.5), |s, x| trig::tan(s, x);
    /// `sinh x`.
    Sinh, Some(4.0), |s, x| exp::sinh(s, x);
    /// `cosh x`.
    Cosh, Some(4.0), |s, x| exp::cosh(s, x);
    /// `arcsin x`.
    Asin, Some(4.0), |s, x| arc::asin(s, x);
    /// `arccos x`.
    Acos, Some(4.0), |s, x| arc::acos(s, x);
    /// `arctan x`.
    Atan, Some(2.5), |s, x| arc::atan(s, x);
    /// `√x`, correctly rounded.
    Sqrt, Some(0.5), |s, x| s.sqrt(x);
    /// `1 / √x`.
    Rsqrt, Some(1.5), |s, x| s.div(s.splat(1.0), s.sqrt(x));
    /// `1 / x`, correctly rounded.
    Reciprocal, Some(0.5), |s, x| s.div(s.splat(1.0), x);
    /// `|x|`.
    Abs, Some(0.0), |s, x| s.abs(x);
    /// `-x`.
    Neg, Some(0.0), |s, x| s.neg(x);
    /// The largest integer not above `x`.
    Floor, Some(0.0), |s, x| s.floor(x);
    /// The smallest integer not below `x`.
    Ceil, Some(0.0), |s, x| s.ceil(x);
    /// The nearest integer, ties to even.
    Round, Some(0.0), |s, x| s.round(x);
    /// -1, 0 or 1.
    Sign, Some(0.0), |s, x| s.select(s.lt(s.zero(), s.abs(x)), s.xor_sign(s.splat(1.0), x), x);
    /// `max(0, x)`, NaN kept.
    Relu, Some(0.0), |s, x| s.max(s.zero(), x);
    /// `min(hi, max(lo, x))`, NaN kept.
    Clip { lo, hi }, Some(0.0), |s, x| s.min(s.splat(hi), s.max(s.splat(lo), x));
    /// `x < 0 ? slope·x : x`.
    LeakyRelu { slope }, Some(0.5), |s, x| s.select(s.lt(x, s.zero()), s.mul(s.splat(slope), x), x);
    /// `x > alpha ? x : 0`.
    ThresholdedRelu { alpha }, Some(0.0), |s, x| s.select(s.lt(s.splat(alpha), x), x, s.zero());
    /// `x < 0 ? alpha·(e^x - 1) : x`.
    Elu { alpha }, Some(3.5), |s, x| elu(s, x, alpha);
    /// `gamma · elu(x, alpha)`.
    Selu { alpha, gamma }, Some(4.5), |s, x| s.mul(s.splat(gamma), elu(s, x, alpha));
    /// `max(0, x) + min(0, alpha·(e^(x/alpha) - 1))`.
    Celu { alpha }, Some(4.5), |s, x| celu(s, x, alpha);
    /// `max(0, min(1, alpha·x + beta))`.
    HardSigmoid { alpha, beta }, None, |s, x| hard_sigmoid(s, x, alpha, beta);
    /// `x · hard_sigmoid(x, 1/6, 1/2)`.
    HardSwish, None, |s, x| s.mul(x, hard_sigmoid(s, x, 1.0 / 6.0, 0.5));
}

#[inline(always)]
fn elu<S: Simd>(s: S, x: S::F, alpha: f32) -> S::F {
    let below = s.mul(s.splat(alpha), exp::expm1(s, s.min(s.zero(), x)));
    s.select(s.lt(s.zero(), x), x, below)
}

#[inline(always)]
fn celu<S: Simd>(s: S, x: S::F, alpha: f32) -> S::F {
    let q = s.div(x, s.splat(alpha));
    let below = s.mul(s.splat(alpha), exp::expm1(s, s.min(s.splat(80.0), q)));
    s.add(s.max(s.zero(), x), s.min(s.zero(), below))
}

#[inline(always)]
fn hard_sigmoid<S: Simd>(s: S, x: S::F, alpha: f32, beta: f32) -> S::F {
    let y = s.fma(s.splat(alpha), x, s.splat(beta));
    s.max(s.zero(), s.min(s.splat(1.0), y))
}

/// `y[i] = f(x[i])`.
pub fn map(f: Function, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    map_on(Tier::best(), f, x, y)
}

/// [`map`] on a chosen tier.
pub fn map_on(tier: Tier, f: Function, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    same_length("output", x.len(), y.len())?;
    // SAFETY: both slices hold `x.len()` elements and, one being mutable, do not overlap.
    unsafe { f.run(tier, x.as_ptr(), y.as_mut_ptr(), x.len()) };
    Ok(())
}

/// `x[i] = f(x[i])`.
pub fn map_in_place(f: Function, x: &mut [f32]) {
    let p = x.as_mut_ptr();
    // SAFETY: one slice, read and written in step.
    unsafe { f.run(Tier::best(), p, p, x.len()) };
}

/// The functions an activation names, in order; none for the identity.
fn functions(act: Activation) -> [Option<Function>; 2] {
    let one = match act {
        Activation::None => return [None; 2],
        Activation::LeakyFrom { slope, low } => {
            return [Function::LeakyRelu { slope }, Function::Clip { lo: low, hi: f32::INFINITY }].map(Some);
        }
        Activation::Relu => Function::Relu,
        Activation::Clip { lo, hi } => Function::Clip { lo, hi },
        Activation::LeakyRelu(slope) => Function::LeakyRelu { slope },
        Activation::HardSwish => Function::HardSwish,
        Activation::HardSigmoid { alpha, beta } => Function::HardSigmoid { alpha, beta },
        Activation::Sigmoid => Function::Sigmoid,
        Activation::Silu => Function::Silu,
        Activation::Tanh => Function::Tanh,
        Activation::GeluErf => Function::Gelu,
        Activation::GeluTanh => Function::GeluTanh,
    };
    [Some(one), None]
}

/// An activation that is too costly for the registers of a tile, of vectors one after the other; others change nothing.
#[inline(always)]
pub(crate) fn costly<S: Simd, const V: usize>(s: S, act: Activation, x: [S::F; V]) -> [S::F; V] {
    // No closure: what is not inlined has none of the tier's instructions.
    macro_rules! each {
        ($f:path) => {{
            let mut y = x;
            for v in 0..V {
                y[v] = $f(s, x[v]);
            }
            y
        }};
    }
    match act {
        Activation::Sigmoid => each!(sigmoid),
        Activation::Silu => each!(silu),
        Activation::Tanh => each!(tanh),
        Activation::GeluErf => each!(gelu),
        Activation::GeluTanh => each!(gelu_tanh),
        _ => x,
    }
}

/// `x[i] = act(x[i])`.
pub fn apply(act: Activation, x: &mut [f32]) {
    functions(act).into_iter().flatten().for_each(|f| map_in_place(f, x));
}

/// `out[i] = x[i]^y[i]`; `x` or `y` of one element is broadcast. The exponents 0, 1, 2, 3, 4, -1, -2 are products;
/// others are correct to 1 ulp.
pub fn pow(x: &[f32], y: &[f32], out: &mut [f32]) -> Result<(), Error> {
    pow_on(Tier::best(), x, y, out)
}

/// [`pow`] on a chosen tier.
pub fn pow_on(tier: Tier, x: &[f32], y: &[f32], out: &mut [f32]) -> Result<(), Error> {
    let n = out.len();
    let stride =
        |name, v: &[f32]| if v.len() == 1 { Ok(0) } else { same_length(name, n, v.len()).map(|()| 1) };
    let (dx, dy) = (stride("base", x)?, stride("exponent", y)?);
    if let (1, &[e]) = (dx, y)
        && let Some(easy) = pow::Easy::of(e)
    {
        // SAFETY: `x` and `out` hold `n` elements.
        unsafe { run(tier, easy, x.as_ptr(), out.as_mut_ptr(), n) };
        return Ok(());
    }
    // SAFETY: a stride of 1 goes with `n` elements, of 0 with one.
    unsafe { pow::pow_pairs(tier, x.as_ptr(), dx, y.as_ptr(), dy, out.as_mut_ptr(), n) };
    Ok(())
}

/// What generated code calls: `n` elements from `x` to `y`, which are the same or do not overlap.
pub type Entry = unsafe extern "C" fn(x: *const f32, y: *mut f32, n: usize);

/// As [`Entry`] with two parameters of the function, ignored past those it has, in the order of its fields.
pub type EntryWith = unsafe extern "C" fn(x: *const f32, y: *mut f32, n: usize, a: f32, b: f32);

macro_rules! entries {
    ($($symbol:ident = $f:expr;)*) => {
        $(
            /// Raw form of [`map`].
            ///
            /// # Safety
            /// `x` is valid for reading and `y` for writing `n` elements; they are the same or do not overlap.
            pub unsafe extern "C" fn $symbol(x: *const f32, y: *mut f32, n: usize) {
                // SAFETY: passed on.
                unsafe { $f.run(Tier::best(), x, y, n) }
            }
        )*
        /// Symbol and address of every parameterless function.
        pub static ENTRIES: &[(&str, Function, Entry)] = &[$((stringify!($symbol), $f, $symbol),)*];
    };
}

entries! {
    vec_exp = Function::Exp;
    vec_log = Function::Log;
    vec_tanh = Function::Tanh;
    vec_erf = Function::Erf;
    vec_sigmoid = Function::Sigmoid;
    vec_silu = Function::Silu;
    vec_gelu = Function::Gelu;
    vec_gelu_tanh = Function::GeluTanh;
    vec_softplus = Function::Softplus;
    vec_mish = Function::Mish;
    vec_softsign = Function::Softsign;
    vec_sin = Function::Sin;
    vec_cos = Function::Cos;
    vec_tan = Function::Tan;
    vec_sinh = Function::Sinh;
    vec_cosh = Function::Cosh;
    vec_asin = Function::Asin;
    vec_acos = Function::Acos;
    vec_atan = Function::Atan;
    vec_sqrt = Function::Sqrt;
    vec_rsqrt = Function::Rsqrt;
    vec_reciprocal = Function::Reciprocal;
    vec_abs = Function::Abs;
    vec_neg = Function::Neg;
    vec_floor = Function::Floor;
    vec_ceil = Function::Ceil;
    vec_round = Function::Round;
    vec_sign = Function::Sign;
    vec_relu = Function::Relu;
    vec_hard_swish = Function::HardSwish;
}

macro_rules! entries_with {
    ($($symbol:ident($a:ident, $b:ident) = $f:expr;)*) => {
        $(
            /// Raw form of [`map`] for a function with parameters.
            ///
            /// # Safety
            /// `x` is valid for reading and `y` for writing `n` elements; they are the same or do not overlap.
            pub unsafe extern "C" fn $symbol(x: *const f32, y: *mut f32, n: usize, $a: f32, $b: f32) {
                // SAFETY: passed on.
                unsafe { $f.run(Tier::best(), x, y, n) }
            }
        )*
        /// Symbol and address of every function with parameters.
        pub static ENTRIES_WITH: &[(&str, EntryWith)] = &[$((stringify!($symbol), $symbol),)*];
    };
}

entries_with! {
    vec_quick_gelu(alpha, _b) = Function::QuickGelu { alpha };
    vec_clip(lo, hi) = Function::Clip { lo, hi };
    vec_leaky_relu(slope, _b) = Function::LeakyRelu { slope };
    vec_thresholded_relu(alpha, _b) = Function::ThresholdedRelu { alpha };
    vec_elu(alpha, _b) = Function::Elu { alpha };
    vec_selu(alpha, gamma) = Function::Selu { alpha, gamma };
    vec_celu(alpha, _b) = Function::Celu { alpha };
    vec_hard_sigmoid(alpha, beta) = Function::HardSigmoid { alpha, beta };
}

/// Raw form of [`pow`]: `out[i] = x[i·dx]^y[i·dy]`, strides 0 or 1.
///
/// # Safety
/// The pointers are valid for the `n` elements their strides reach; `out` is one of the inputs or overlaps none.
pub unsafe extern "C" fn vec_pow(
    x: *const f32,
    dx: usize,
    y: *const f32,
    dy: usize,
    out: *mut f32,
    n: usize,
) {
    // SAFETY: passed on.
    unsafe { pow::pow_pairs(Tier::best(), x, dx, y, dy, out, n) }
}

#[cfg(test)]
mod tests;
