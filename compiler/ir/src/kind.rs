//! The five lowering kinds, and the scalar language in which an element-wise operator is described once.

use crate::DType;

/// All that code generation asks of an operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// One scalar expression per element over inputs broadcast together (ONNX multidirectional broadcasting).
    Elementwise(Expr),
    /// A reduction along axes, softmax and normalisations included.
    Reduce,
    /// Multiply-accumulate over shared dims: matrix products, convolutions, recurrences.
    Contract,
    /// Moves or copies elements without computing on them.
    Movement,
    /// Runs subgraphs.
    Control,
    /// Anything else: generated code calls the reference semantics.
    Opaque,
}

/// A scalar expression. Types follow the operands: both sides of a binary have one type; comparisons give booleans.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// The element of the n-th input.
    In(usize),
    /// A constant of the type of its context (integers truncate).
    Const(f64),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// `if c { a } else { b }` with a boolean `c`.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Conversion with the semantics of ONNX Cast (float → int truncates toward zero).
    Cast(DType, Box<Expr>),
}

/// Unary scalar functions; floats follow IEEE 754, integers wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    Neg,
    Abs,
    /// −1, 0 or 1; NaN stays NaN.
    Sign,
    Floor,
    Ceil,
    /// Half to even.
    Round,
    Sqrt,
    Reciprocal,
    Exp,
    Log,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// 1 / (1 + e^−x).
    Sigmoid,
    /// Boolean negation.
    Not,
    BitNot,
    IsNan,
    /// +∞ or −∞.
    IsInf,
}

/// Binary scalar functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// Integer division truncates; by zero gives zero rather than a trap.
    Div,
    Pow,
    /// C `fmod` for floats; sign of the dividend.
    Rem,
    /// Python `%`: sign of the divisor; integers by zero give zero.
    Mod,
    /// NaN if either is NaN.
    Min,
    /// NaN if either is NaN.
    Max,
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Xor,
    BitAnd,
    BitOr,
    BitXor,
    Shl,
    Shr,
}

impl Expr {
    pub fn unary(op: Unary, a: Expr) -> Expr {
        Expr::Unary(op, Box::new(a))
    }
    pub fn binary(op: Binary, a: Expr, b: Expr) -> Expr {
        Expr::Binary(op, Box::new(a), Box::new(b))
    }
    pub fn select(c: Expr, a: Expr, b: Expr) -> Expr {
        Expr::Select(Box::new(c), Box::new(a), Box::new(b))
    }
    pub fn cast(d: DType, a: Expr) -> Expr {
        Expr::Cast(d, Box::new(a))
    }
    pub fn lt(self, b: Expr) -> Expr {
        Expr::binary(Binary::Lt, self, b)
    }
    pub fn min(self, b: Expr) -> Expr {
        Expr::binary(Binary::Min, self, b)
    }
    pub fn max(self, b: Expr) -> Expr {
        Expr::binary(Binary::Max, self, b)
    }
    /// Replaces every `In(i)` by `f(i)`.
    pub fn substitute(&self, f: &dyn Fn(usize) -> Expr) -> Expr {
        let go = |e: &Expr| Box::new(e.substitute(f));
        match self {
            Expr::In(i) => f(*i),
            Expr::Const(c) => Expr::Const(*c),
            Expr::Unary(o, a) => Expr::Unary(*o, go(a)),
            Expr::Binary(o, a, b) => Expr::Binary(*o, go(a), go(b)),
            Expr::Select(c, a, b) => Expr::Select(go(c), go(a), go(b)),
            Expr::Cast(d, a) => Expr::Cast(*d, go(a)),
        }
    }
}

macro_rules! arithmetic {
    ($($t:ident $m:ident),*) => {$(
        impl std::ops::$t for Expr { type Output = Expr; fn $m(self, b: Expr) -> Expr { Expr::binary(Binary::$t, self, b) } }
    )*};
}
arithmetic!(Add add, Sub sub, Mul mul, Div div);

impl std::ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        Expr::unary(Unary::Neg, self)
    }
}
