//! Interprets scalar expressions over whole arrays: the reference semantics of every element-wise operator.
//!
//! Doubles compute in f64, all other floats in f32 with one rounding at the end, integers in 64 bits cut to their width
//! after every step.

use crate::broadcast::{broadcast_shapes, broadcast_strides};
use ir::{Binary, DType, Error, Expr, Result, Tensor, Unary, budget};

/// Values of one subexpression for every element.
enum Lane {
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// Two's complement, wrapped to the width of the type; uint64 as its bits.
    Int(Vec<i64>),
    Bool(Vec<bool>),
}

/// A lane and the element type it stands for.
struct Typed(DType, Lane);

/// Evaluates `e` over `inputs` broadcast together.
pub fn evaluate(e: &Expr, inputs: &[&Tensor]) -> Result<Tensor> {
    let shapes: Vec<&[usize]> = inputs.iter().map(|t| t.shape()).collect();
    let shape = broadcast_shapes(&shapes)?;
    let n = budget::elements(&shape)?;
    budget::check(n.saturating_mul(8))?;
    if let (Expr::Binary(op, a, b), [x, y]) = (e, inputs)
        && matches!((&**a, &**b), (Expr::In(0), Expr::In(1)))
        && x.shape() == &shape[..]
        && (x.dtype(), y.dtype()) == (DType::F32, DType::F32)
        && let Some(out) = plain(*op, x, y)?
    {
        return Tensor::new(&shape, out);
    }
    let cx = Cx { inputs, shape: &shape, n };
    let Typed(dtype, lane) = cx.eval(e, None)?;
    match lane {
        Lane::F32(v) => Tensor::from_f32s(dtype, &shape, v),
        Lane::F64(v) => Tensor::new(&shape, v),
        Lane::Int(v) => Tensor::from_i64s(dtype, &shape, v),
        Lane::Bool(v) => Tensor::new(&shape, v),
    }
}

/// Basic arithmetic of float32 in one pass, `y` broadcast over `x`: what folding does to weights.
fn plain(op: Binary, x: &Tensor, y: &Tensor) -> Result<Option<Vec<f32>>> {
    match op {
        Binary::Add => rows(x, y, |a, b| a + b).map(Some),
        Binary::Sub => rows(x, y, |a, b| a - b).map(Some),
        Binary::Mul => rows(x, y, |a, b| a * b).map(Some),
        Binary::Div => rows(x, y, |a, b| a / b).map(Some),
        _ => Ok(None),
    }
}

fn rows(x: &Tensor, y: &Tensor, f: impl Fn(f32, f32) -> f32) -> Result<Vec<f32>> {
    // Weights of a file lie anywhere in it: they are read as they lie, and not copied first.
    let (a, b) = (x.bytes().as_chunks::<4>().0, y.data::<f32>()?);
    let mut out = budget::vec(a.len())?;
    if a.is_empty() {
        // Its other dims may be any number.
        return Ok(out);
    }
    let mut shape = vec![1; x.rank() - y.rank()];
    shape.extend_from_slice(y.shape());
    // Dims at the end over which `y` repeats one element, or has as many as `x`, are one run.
    let ends = |same: &dyn Fn(usize) -> bool| (0..shape.len()).rev().find(|&i| !same(i)).map_or(0, |i| i + 1);
    let at = match ends(&|i| shape[i] == 1) {
        all if all == shape.len() => ends(&|i| shape[i] == x.shape()[i]),
        at => at,
    };
    let (outer, inner) = x.shape().split_at(at);
    let (n, m) = (inner.iter().product::<usize>(), shape[at..].iter().product::<usize>());
    let mut lines = a.chunks(n.max(1));
    for_each_index(&shape[..at], outer, |i| {
        let line = lines.next().unwrap_or_default();
        match b.get(i * m..(i + 1) * m).unwrap_or_default() {
            [b] => out.extend(line.iter().map(|&a| f(f32::from_le_bytes(a), *b))),
            b => out.extend(line.iter().zip(b).map(|(&a, &b)| f(f32::from_le_bytes(a), b))),
        }
    });
    Ok(out)
}

struct Cx<'a> {
    inputs: &'a [&'a Tensor],
    shape: &'a [usize],
    n: usize,
}

impl Cx<'_> {
    fn eval(&self, e: &Expr, hint: Option<DType>) -> Result<Typed> {
        match e {
            Expr::In(i) => self.load(*i),
            Expr::Const(c) => self.constant(*c, hint),
            Expr::Unary(op, a) => unary(*op, self.eval(a, hint)?),
            Expr::Binary(op, a, b) => {
                let (a, b) = self.pair(a, b, hint)?;
                binary(*op, a, b)
            }
            Expr::Select(c, a, b) => {
                let Typed(_, Lane::Bool(c)) = self.eval(c, None)? else {
                    return Err(Error::model("the condition must be boolean"));
                };
                let (a, b) = self.pair(a, b, hint)?;
                select(&c, a, b)
            }
            Expr::Cast(d, a) => cast(self.eval(a, None)?, *d),
        }
    }

    /// Two operands of one type; a constant takes the type of the other side.
    fn pair(&self, a: &Expr, b: &Expr, hint: Option<DType>) -> Result<(Typed, Typed)> {
        if is_constant(a) && !is_constant(b) {
            let b = self.eval(b, hint)?;
            return Ok((self.eval(a, Some(b.0))?, b));
        }
        let a = self.eval(a, hint)?;
        let b = self.eval(b, Some(a.0))?;
        if a.0 != b.0 {
            return Err(Error::model(format!("operands have types {} and {}", a.0, b.0)));
        }
        Ok((a, b))
    }

    fn load(&self, i: usize) -> Result<Typed> {
        let t = self.inputs.get(i).ok_or_else(|| Error::model(format!("input {i} is missing")))?;
        let dtype = t.dtype();
        let lane = match dtype {
            DType::F64 => Lane::F64(self.spread(t, t.data::<f64>()?.into_owned())?),
            d if d.is_float() => Lane::F32(self.spread(t, t.to_f32s()?)?),
            DType::Bool => Lane::Bool(self.spread(t, t.data::<bool>()?.into_owned())?),
            DType::U64 => Lane::Int(self.spread(t, t.data::<u64>()?.iter().map(|&x| x as i64).collect())?),
            d if d.is_int() => Lane::Int(self.spread(t, t.to_i64s()?)?),
            d => return Err(Error::unsupported(format!("arithmetic on {d}"))),
        };
        Ok(Typed(dtype, lane))
    }

    fn spread<T: Copy>(&self, t: &Tensor, v: Vec<T>) -> Result<Vec<T>> {
        if t.shape() == self.shape {
            return Ok(v);
        }
        let mut out = budget::vec(self.n)?;
        for_each_index(t.shape(), self.shape, |i| out.push(v[i]));
        Ok(out)
    }

    fn constant(&self, c: f64, hint: Option<DType>) -> Result<Typed> {
        let dtype = match hint {
            Some(d) => d,
            None => self.inputs.first().map_or(DType::F32, |t| t.dtype()),
        };
        let lane = match dtype {
            DType::F64 => Lane::F64(budget::filled(self.n, c)?),
            d if d.is_float() => Lane::F32(budget::filled(self.n, c as f32)?),
            DType::Bool => Lane::Bool(budget::filled(self.n, c != 0.0)?),
            d if d.is_int() => Lane::Int(budget::filled(self.n, c as i64)?),
            d => return Err(Error::unsupported(format!("arithmetic on {d}"))),
        };
        Ok(Typed(dtype, lane))
    }
}

/// Calls `f` with the element index in `from` for every element of `out`, in row-major order.
pub(crate) fn for_each_index(from: &[usize], out: &[usize], mut f: impl FnMut(usize)) {
    if out.contains(&0) {
        return;
    }
    let strides = broadcast_strides(from, out);
    let Some((&last, outer)) = out.split_last() else { return f(0) };
    let step = strides[out.len() - 1];
    let (mut index, mut base) = (vec![0usize; outer.len()], 0usize);
    loop {
        (0..last).for_each(|j| f(base + j * step));
        let mut d = outer.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            base += strides[d];
            if index[d] < outer[d] {
                break;
            }
            base -= strides[d] * outer[d];
            index[d] = 0;
        }
    }
}

fn is_constant(e: &Expr) -> bool {
    match e {
        Expr::In(_) | Expr::Cast(..) => false,
        Expr::Const(_) => true,
        Expr::Unary(_, a) => is_constant(a),
        Expr::Binary(_, a, b) | Expr::Select(_, a, b) => is_constant(a) && is_constant(b),
    }
}

fn undefined(op: impl std::fmt::Debug, d: DType) -> Error {
    Error::unsupported(format!("{op:?} of {d}"))
}

/// Cuts 64-bit results to the width of the type.
fn wrap(d: DType, x: i64) -> i64 {
    let bits = d.bits() as u32;
    if bits >= 64 {
        return x;
    }
    let shift = 64 - bits;
    if d.is_signed_int() { (x << shift) >> shift } else { ((x as u64) << shift >> shift) as i64 }
}

fn unary(op: Unary, Typed(d, lane): Typed) -> Result<Typed> {
    use Unary::*;
    let lane = match (op, lane) {
        (IsNan, Lane::F32(v)) => {
            return Ok(Typed(DType::Bool, Lane::Bool(v.into_iter().map(f32::is_nan).collect())));
        }
        (IsNan, Lane::F64(v)) => {
            return Ok(Typed(DType::Bool, Lane::Bool(v.into_iter().map(f64::is_nan).collect())));
        }
        (IsInf, Lane::F32(v)) => {
            return Ok(Typed(DType::Bool, Lane::Bool(v.into_iter().map(f32::is_infinite).collect())));
        }
        (IsInf, Lane::F64(v)) => {
            return Ok(Typed(DType::Bool, Lane::Bool(v.into_iter().map(f64::is_infinite).collect())));
        }
        (Not, Lane::Bool(v)) => Lane::Bool(v.into_iter().map(|x| !x).collect()),
        (_, Lane::F32(mut v)) => {
            let f = float_fn::<f32>(op).ok_or_else(|| undefined(op, d))?;
            v.iter_mut().for_each(|x| *x = f(*x));
            Lane::F32(v)
        }
        (_, Lane::F64(mut v)) => {
            let f = float_fn::<f64>(op).ok_or_else(|| undefined(op, d))?;
            v.iter_mut().for_each(|x| *x = f(*x));
            Lane::F64(v)
        }
        (_, Lane::Int(v)) => Lane::Int(
            v.into_iter()
                .map(|x| int_unary(op, d, x))
                .collect::<Option<_>>()
                .ok_or_else(|| undefined(op, d))?,
        ),
        (_, Lane::Bool(_)) => return Err(undefined(op, d)),
    };
    Ok(Typed(d, lane))
}

/// The float functions, for both widths.
trait Float: Copy + PartialOrd {
    fn apply(op: Unary) -> Option<fn(Self) -> Self>;
}

macro_rules! float {
    ($t:ident) => {
        impl Float for $t {
            fn apply(op: Unary) -> Option<fn($t) -> $t> {
                use Unary::*;
                Some(match op {
                    Neg => |x| -x,
                    Abs => $t::abs,
                    Sign => |x| {
                        if x > 0.0 {
                            1.0
                        } else if x < 0.0 {
                            -1.0
                        } else {
                            x
                        }
                    },
                    Floor => $t::floor,
                    Ceil => $t::ceil,
                    Round => $t::round_ties_even,
                    Sqrt => $t::sqrt,
                    Reciprocal => $t::recip,
                    Exp => $t::exp,
                    Log => $t::ln,
                    Sin => $t::sin,
                    Cos => $t::cos,
                    Tan => $t::tan,
                    Asin => $t::asin,
                    Acos => $t::acos,
                    Atan => $t::atan,
                    Sinh => $t::sinh,
                    Cosh => $t::cosh,
                    Tanh => $t::tanh,
                    Asinh => $t::asinh,
                    Acosh => $t::acosh,
                    Atanh => $t::atanh,
                    Erf => |x| erf(f64::from(x)) as $t,
                    Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
                    Not | BitNot | IsNan | IsInf => return None,
                })
            }
        }
    };
}
float!(f32);
float!(f64);

fn float_fn<T: Float>(op: Unary) -> Option<fn(T) -> T> {
    T::apply(op)
}

/// erf(x) = 2/√π · x·e^(−x²) · Σ (2x²)ⁿ / (1·3·…·(2n+1)): all terms positive, so no cancellation.
pub(crate) fn erf(x: f64) -> f64 {
    if x.is_nan() || x == 0.0 {
        return x;
    }
    if x.abs() > 6.0 {
        return 1f64.copysign(x);
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

fn int_unary(op: Unary, d: DType, x: i64) -> Option<i64> {
    use Unary::*;
    let y = match op {
        Neg => x.wrapping_neg(),
        Abs if d.is_signed_int() => x.wrapping_abs(),
        Abs => x,
        Sign if d.is_signed_int() => x.signum(),
        Sign => i64::from(x != 0),
        Floor | Ceil | Round => x,
        BitNot => !x,
        _ => return None,
    };
    Some(wrap(d, y))
}

fn binary(op: Binary, Typed(d, a): Typed, Typed(_, b): Typed) -> Result<Typed> {
    use Binary::*;
    let compares = matches!(op, Eq | Lt | Le | Gt | Ge);
    let result = match (a, b) {
        (Lane::F32(a), Lane::F32(b)) if compares => Lane::Bool(zip(a, b, |x, y| compare(op, x, y))),
        (Lane::F64(a), Lane::F64(b)) if compares => Lane::Bool(zip(a, b, |x, y| compare(op, x, y))),
        (Lane::Int(a), Lane::Int(b)) if compares && d == DType::U64 => {
            Lane::Bool(zip(a, b, |x, y| compare(op, x as u64, y as u64)))
        }
        (Lane::Int(a), Lane::Int(b)) if compares => Lane::Bool(zip(a, b, |x, y| compare(op, x, y))),
        (Lane::Bool(a), Lane::Bool(b)) => Lane::Bool(match op {
            And | BitAnd | Mul | Min => zip(a, b, |x, y| x & y),
            Or | BitOr | Add | Max => zip(a, b, |x, y| x | y),
            Xor | BitXor => zip(a, b, |x, y| x ^ y),
            Eq => zip(a, b, |x, y| x == y),
            _ => return Err(undefined(op, d)),
        }),
        (Lane::F32(a), Lane::F32(b)) => {
            let f = f32_binary(op).ok_or_else(|| undefined(op, d))?;
            Lane::F32(zip(a, b, f))
        }
        (Lane::F64(a), Lane::F64(b)) => {
            let f = f64_binary(op).ok_or_else(|| undefined(op, d))?;
            Lane::F64(zip(a, b, f))
        }
        (Lane::Int(a), Lane::Int(b)) => {
            let f = int_binary(op, d).ok_or_else(|| undefined(op, d))?;
            Lane::Int(zip(a, b, |x, y| wrap(d, f(x, y))))
        }
        _ => return Err(Error::internal("operands of one type in different lanes")),
    };
    let out = if matches!(result, Lane::Bool(_)) { DType::Bool } else { d };
    Ok(Typed(out, result))
}

fn zip<T: Copy, U>(a: Vec<T>, b: Vec<T>, f: impl Fn(T, T) -> U) -> Vec<U> {
    a.into_iter().zip(b).map(|(x, y)| f(x, y)).collect()
}

fn compare<T: PartialOrd>(op: Binary, x: T, y: T) -> bool {
    match op {
        Binary::Eq => x == y,
        Binary::Lt => x < y,
        Binary::Le => x <= y,
        Binary::Gt => x > y,
        _ => x >= y,
    }
}

macro_rules! float_binary {
    ($name:ident, $t:ident) => {
        fn $name(op: Binary) -> Option<fn($t, $t) -> $t> {
            use Binary::*;
            Some(match op {
                Add => |x, y| x + y,
                Sub => |x, y| x - y,
                Mul => |x, y| x * y,
                Div => |x, y| x / y,
                Pow => $t::powf,
                Rem => |x, y| x % y,
                Mod => |x, y| {
                    let r = x % y;
                    if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
                },
                Min => |x, y| if x < y || x.is_nan() { x } else { y },
                Max => |x, y| if x > y || x.is_nan() { x } else { y },
                _ => return None,
            })
        }
    };
}
float_binary!(f32_binary, f32);
float_binary!(f64_binary, f64);

fn int_binary(op: Binary, d: DType) -> Option<fn(i64, i64) -> i64> {
    use Binary::*;
    let unsigned = d == DType::U64;
    Some(match op {
        Add => i64::wrapping_add,
        Sub => i64::wrapping_sub,
        Mul => i64::wrapping_mul,
        Div if unsigned => |x, y| (x as u64).checked_div(y as u64).unwrap_or(0) as i64,
        Div => |x, y| if y == 0 { 0 } else { x.wrapping_div(y) },
        Rem | Mod if unsigned => |x, y| (x as u64).checked_rem(y as u64).unwrap_or(0) as i64,
        Rem => |x, y| if y == 0 { 0 } else { x.wrapping_rem(y) },
        Mod => |x, y| {
            if y == 0 {
                return 0;
            }
            let r = x.wrapping_rem(y);
            if r != 0 && (r < 0) != (y < 0) { r + y } else { r }
        },
        Pow => |x, y| match u32::try_from(y) {
            Ok(e) => x.wrapping_pow(e),
            Err(_) => (x as f64).powf(y as f64) as i64,
        },
        Min if unsigned => |x, y| (x as u64).min(y as u64) as i64,
        Max if unsigned => |x, y| (x as u64).max(y as u64) as i64,
        Min => Ord::min,
        Max => Ord::max,
        BitAnd => |x, y| x & y,
        BitOr => |x, y| x | y,
        BitXor => |x, y| x ^ y,
        Shl => |x, y| if (0..64).contains(&y) { x << y } else { 0 },
        Shr if d.is_unsigned_int() => |x, y| if (0..64).contains(&y) { (x as u64 >> y) as i64 } else { 0 },
        // Shifting everything out leaves the sign.
        Shr => |x, y| if (0..64).contains(&y) { x >> y } else { x >> 63 },
        _ => return None,
    })
}

fn select(c: &[bool], Typed(d, a): Typed, Typed(_, b): Typed) -> Result<Typed> {
    fn pick<T: Copy>(c: &[bool], a: Vec<T>, b: Vec<T>) -> Vec<T> {
        c.iter().zip(a.into_iter().zip(b)).map(|(&c, (x, y))| if c { x } else { y }).collect()
    }
    let lane = match (a, b) {
        (Lane::F32(a), Lane::F32(b)) => Lane::F32(pick(c, a, b)),
        (Lane::F64(a), Lane::F64(b)) => Lane::F64(pick(c, a, b)),
        (Lane::Int(a), Lane::Int(b)) => Lane::Int(pick(c, a, b)),
        (Lane::Bool(a), Lane::Bool(b)) => Lane::Bool(pick(c, a, b)),
        _ => return Err(Error::internal("branches of one type in different lanes")),
    };
    Ok(Typed(d, lane))
}

fn cast(Typed(from, lane): Typed, to: DType) -> Result<Typed> {
    let as_f64: Vec<f64> = match (lane, to) {
        (Lane::Int(v), t) if t.is_int() => {
            return Ok(Typed(t, Lane::Int(v.into_iter().map(|x| wrap(t, x)).collect())));
        }
        (Lane::Int(v), _) if from == DType::U64 => v.into_iter().map(|x| x as u64 as f64).collect(),
        (Lane::Int(v), _) => v.into_iter().map(|x| x as f64).collect(),
        (Lane::F32(v), _) => v.into_iter().map(f64::from).collect(),
        (Lane::F64(v), _) => v,
        (Lane::Bool(v), _) => v.into_iter().map(|x| f64::from(u8::from(x))).collect(),
    };
    let lane = match to {
        DType::F64 => Lane::F64(as_f64),
        t if t.is_float() => Lane::F32(as_f64.into_iter().map(|x| x as f32).collect()),
        DType::Bool => Lane::Bool(as_f64.into_iter().map(|x| x != 0.0).collect()),
        t if t.is_int() => Lane::Int(as_f64.into_iter().map(|x| wrap(t, x as i64)).collect()),
        t => return Err(Error::unsupported(format!("arithmetic on {t}"))),
    };
    Ok(Typed(to, lane))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(e: Expr, t: &[&Tensor]) -> Vec<f64> {
        evaluate(&e, t).unwrap().to_f64s().unwrap()
    }

    #[test]
    fn integers_wrap_and_never_trap() {
        let (x, y) = (Tensor::vector(vec![i64::MIN, 5]), Tensor::vector(vec![-1i64, 0]));
        let r = evaluate(&(Expr::In(0) / Expr::In(1)), &[&x, &y]).unwrap();
        assert_eq!(r.to_i64s().unwrap(), [i64::MIN, 0]);
        let a = Tensor::vector(vec![200u8]);
        assert_eq!(run(Expr::In(0) + Expr::In(0), &[&a]), [144.0]);
    }

    #[test]
    fn lines_without_elements_take_no_time() {
        let x = Tensor::new(&[1 << 40, 0], Vec::<f32>::new()).unwrap();
        let y = evaluate(&(Expr::In(0) + Expr::In(1)), &[&x, &Tensor::scalar(1f32)]).unwrap();
        assert_eq!(y.shape(), x.shape());
    }

    #[test]
    fn broadcasting_repeats() {
        let (x, y) =
            (Tensor::new(&[2, 1], vec![1f32, 2.0]).unwrap(), Tensor::vector(vec![10f32, 20.0, 30.0]));
        assert_eq!(run(Expr::In(0) + Expr::In(1), &[&x, &y]), [11.0, 21.0, 31.0, 12.0, 22.0, 32.0]);
    }

    #[test]
    fn one_pass_gives_what_the_interpreter_gives() {
        let x = Tensor::new(&[2, 3, 4], (0..24).map(|i| i as f32 * 0.7 - 3.0).collect::<Vec<f32>>()).unwrap();
        for shape in [&[] as &[usize], &[1], &[4], &[3, 1], &[2, 1, 1], &[2, 1, 4], &[2, 3, 4], &[1, 3, 1]] {
            let n: usize = shape.iter().product();
            let y = Tensor::new(shape, (0..n).map(|i| 0.3 + i as f32).collect::<Vec<f32>>()).unwrap();
            for op in [Binary::Add, Binary::Mul, Binary::Sub, Binary::Div] {
                let fast = run(Expr::binary(op, Expr::In(0), Expr::In(1)), &[&x, &y]);
                // The same values as another expression.
                let slow = run(Expr::binary(op, Expr::In(0).max(Expr::In(0)), Expr::In(1)), &[&x, &y]);
                assert_eq!(fast, slow, "{op:?} {shape:?}");
            }
        }
        let empty = Tensor::new::<f32>(&[0, 3], vec![]).unwrap();
        assert!(run(Expr::In(0) * Expr::In(1), &[&empty, &Tensor::scalar(2f32)]).is_empty());
    }

    #[test]
    fn nan_wins_in_max() {
        let x = Tensor::vector(vec![f32::NAN, -1.0]);
        let r = run(Expr::In(0).max(Expr::Const(0.0)), &[&x]);
        assert!(r[0].is_nan() && r[1] == 0.0);
    }

    #[test]
    fn erf_matches_known_values() {
        for (x, y) in
            [(0.5, 0.520_499_877_813_046_5), (1.0, 0.842_700_792_949_714_9), (-2.0, -0.995_322_265_018_952_7)]
        {
            assert!((erf(x) - y).abs() < 1e-15, "{x}");
        }
    }

    proptest! {
        #[test]
        fn python_modulo_has_the_sign_of_the_divisor(x in any::<i32>(), y in any::<i32>()) {
            let (a, b) = (Tensor::scalar(x), Tensor::scalar(y));
            let r = evaluate(&Expr::binary(Binary::Mod, Expr::In(0), Expr::In(1)), &[&a, &b]).unwrap().to_i64s().unwrap()[0];
            if y == 0 {
                prop_assert_eq!(r, 0);
            } else {
                prop_assert_eq!(r, i64::from(x).rem_euclid(i64::from(y)) + if y < 0 && i64::from(x).rem_euclid(i64::from(y)) != 0 { i64::from(y) } else { 0 });
            }
        }
    }
}
