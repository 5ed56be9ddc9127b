//! Numbers and records as little-endian bytes.

use kernels::ConvTransposeShape;
use kernels::attention::HeadStrides;
use kernels::norm::Norm;
use kernels::reduce::Reduction;
use kernels::resize::Image;
use kernels::transpose::Axis;
use kernels::vecmath::Function;
use kernels::{Activation, ConvShape, Pooling, Window};

/// A value that is written by the compiler and read in the artefact.
pub trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);
    /// The value at the front of `bytes`, which moves behind it.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Field for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (first, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(<$t>::from_le_bytes(*first))
            }
        }
    )*};
}
numbers!(u8, i64, u64, f32);

impl Field for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u64::take(bytes)?.try_into().ok()
    }
}

impl Field for isize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as i64).put(out);
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        i64::take(bytes)?.try_into().ok()
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(u8::take(bytes)? != 0)
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|x| x.put(out));
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        if bool::take(bytes)? { T::take(bytes).map(Some) } else { Some(None) }
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        self.iter().for_each(|x| x.put(out));
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let n = usize::take(bytes)?;
        (0..n).map(|_| T::take(bytes)).collect()
    }
}

impl<const N: usize> Field for [usize; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|x| x.put(out));
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut all = [0; N];
        for x in &mut all {
            *x = usize::take(bytes)?;
        }
        Some(all)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::take(bytes)?, B::take(bytes)?))
    }
}

/// Records and enumerations, field by field.
#[macro_export]
macro_rules! fields {
    ($($t:ident { $($f:ident),* $(,)? })*) => {$(
        impl $crate::Field for $t {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$f.put(out);)*
            }
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some($t { $($f: $crate::Field::take(bytes)?),* })
            }
        }
    )*};
}

/// Enumerations with numbered variants.
#[macro_export]
macro_rules! variants {
    ($t:ident { $($n:literal = $v:ident $({ $($f:ident),* })? $(($($p:ident),*))?),* $(,)? }) => {
        impl $crate::Field for $t {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($t::$v $({ $($f),* })? $(($($p),*))? => {
                        <u8 as $crate::Field>::put(&$n, out);
                        $($($f.put(out);)*)?
                        $($($p.put(out);)*)?
                    })*
                }
            }
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some(match <u8 as $crate::Field>::take(bytes)? {
                    $($n => $t::$v
                        $({ $($f: $crate::Field::take(bytes)?),* })?
                        $(($({ let $p = $crate::Field::take(bytes)?; $p }),*))?,)*
                    _ => return None,
                })
            }
        }
    };
}

fields! {
    Axis { len, from, to }
    Image { batch, height, width, channels }
    HeadStrides { batch, head, position, lane }
    ConvTransposeShape {
        batch, input, output, cin, cout, kernel, stride, dilation, pad_begin, groups,
    }
    ConvShape { batch, input, cin, cout, kernel, stride, dilation, pad_begin, pad_end, groups }
    Window { input, output, kernel, stride, dilation, pad }
}

variants! { Reduction { 0 = Sum, 1 = Mean, 2 = Max, 3 = Min, 4 = Prod, 5 = SumSquare, 6 = L1, 7 = L2 } }

variants! { Norm { 0 = Layer { epsilon }, 1 = Rms { epsilon }, 2 = L2, 3 = L1 } }

variants! { Pooling { 0 = Max, 1 = Average, 2 = AverageWithPadding { pad_end } } }

variants! { Activation {
    0 = None, 1 = Relu, 2 = Clip { lo, hi }, 3 = LeakyRelu(slope), 4 = HardSwish, 5 = HardSigmoid { alpha, beta },
    6 = Sigmoid, 7 = Silu, 8 = Tanh, 9 = GeluErf, 10 = GeluTanh,
} }

variants! { Function {
    0 = Exp, 1 = Log, 2 = Erf, 3 = Sin, 4 = Cos, 5 = Tan, 6 = Sinh, 7 = Cosh, 8 = Softplus, 9 = Mish, 10 = Sign,
    11 = Elu { alpha }, 12 = Selu { alpha, gamma }, 13 = Celu { alpha }, 14 = Sigmoid, 15 = Tanh, 16 = Silu, 17 = Gelu,
    18 = GeluTanh, 19 = QuickGelu { alpha }, 20 = Softsign, 21 = Sqrt, 22 = Rsqrt, 23 = Reciprocal, 24 = Abs, 25 = Neg,
    26 = Floor, 27 = Ceil, 28 = Round, 29 = Relu, 30 = Clip { lo, hi }, 31 = LeakyRelu { slope },
    32 = ThresholdedRelu { alpha }, 33 = HardSigmoid { alpha, beta }, 34 = HardSwish,
} }

#[cfg(test)]
mod tests {
    use super::*;

    fn again<T: Field + PartialEq + std::fmt::Debug>(x: T) {
        let mut bytes = Vec::new();
        x.put(&mut bytes);
        assert_eq!(T::take(&mut &bytes[..]), Some(x));
        for cut in 0..bytes.len() {
            assert!(T::take(&mut &bytes[..cut]).is_none());
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_refused() {
        again(vec![(1usize, vec![-3i64, 4]), (7, vec![])]);
        again(Some(Activation::Clip { lo: -1.0, hi: 6.5 }));
        again(Activation::LeakyRelu(0.1));
        again(Pooling::AverageWithPadding { pad_end: [1, 2, 3] });
    }
}
