//! Every operator, described once: `ls` of this folder is the operator list, one family a file.
#![deny(unsafe_code)]

pub mod arith;
pub mod attention;
mod binary;
pub mod broadcast;
mod cache;
pub mod cast;
pub mod concat;
mod constant;
mod control;
pub mod conv;
pub mod conv_transpose;
mod cumulative;
mod deform_conv;
mod det;
pub mod einsum;
pub mod expr;
mod fft;
mod function;
pub mod gather;
mod glu;
mod grid;
mod image;
mod index;
mod integer;
mod linear_attention;
mod logic;
mod loss;
pub mod matmul;
mod microsoft;
mod ml;
pub mod movement;
pub mod normalize;
mod op;
pub mod packed;
pub mod pad;
pub mod pool;
mod preview;
mod quantize;
pub mod quantized;
mod random;
pub mod reduce;
mod reshape;
pub mod resize;
pub mod rnn;
mod roi;
mod rotary;
mod scatter;
#[allow(dead_code)] // one row per operator of the specification, including those without semantics here yet
mod schema;
mod select;
mod sequence;
mod shape;
mod signal;
pub mod slice;
pub mod softmax;
mod sort;
mod strings;
#[cfg(test)]
mod testing;
mod tfidf;
pub mod transpose;
mod trees;
mod typing;
mod unary;
mod unpool;
mod variadic;
pub mod window;

pub use op::Op;

use ir::{Lookup, Operator};
use rustc_hash::FxHashMap;
use std::sync::LazyLock;

/// All operators, by family.
pub static FAMILIES: &[&[&dyn Operator]] = &[
    unary::PLAIN,
    unary::OPERATORS,
    binary::OPERATORS,
    logic::OPERATORS,
    select::OPERATORS,
    variadic::OPERATORS,
    cast::OPERATORS,
    quantize::OPERATORS,
    integer::OPERATORS,
    quantized::OPERATORS,
    random::OPERATORS,
    strings::OPERATORS,
    microsoft::OPERATORS,
    preview::OPERATORS,
    ml::OPERATORS,
    ml::linear::OPERATORS,
    ml::labels::OPERATORS,
    ml::svm::OPERATORS,
    ml::forest::OPERATORS,
    trees::OPERATORS,
    tfidf::OPERATORS,
    matmul::OPERATORS,
    einsum::OPERATORS,
    conv::OPERATORS,
    conv_transpose::OPERATORS,
    deform_conv::OPERATORS,
    pool::OPERATORS,
    unpool::OPERATORS,
    normalize::OPERATORS,
    softmax::OPERATORS,
    reduce::OPERATORS,
    cumulative::OPERATORS,
    attention::OPERATORS,
    rotary::OPERATORS,
    linear_attention::OPERATORS,
    cache::OPERATORS,
    glu::OPERATORS,
    rnn::OPERATORS,
    loss::OPERATORS,
    image::OPERATORS,
    grid::OPERATORS,
    roi::OPERATORS,
    det::OPERATORS,
    resize::OPERATORS,
    packed::OPERATORS,
    shape::OPERATORS,
    reshape::OPERATORS,
    slice::OPERATORS,
    concat::OPERATORS,
    gather::OPERATORS,
    scatter::OPERATORS,
    pad::OPERATORS,
    transpose::OPERATORS,
    sort::OPERATORS,
    constant::OPERATORS,
    control::OPERATORS,
    sequence::OPERATORS,
    signal::OPERATORS,
];

/// The operators of this crate, found by name.
pub struct Standard;

static INDEX: LazyLock<FxHashMap<(&'static str, &'static str), &'static dyn Operator>> =
    LazyLock::new(|| FAMILIES.iter().flat_map(|f| f.iter()).map(|&o| ((o.domain(), o.name()), o)).collect());

impl Lookup for Standard {
    fn operator(&self, domain: &str, name: &str) -> Option<&'static dyn Operator> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        INDEX.get(&(domain, name)).copied()
    }
}

/// A standard operator by name, for code that builds graphs.
pub fn standard(name: &str) -> ir::Result<&'static dyn Operator> {
    Standard.require("", name)
}

/// An internal operator ("ir." domain) by name.
pub fn internal(name: &str) -> ir::Result<&'static dyn Operator> {
    Standard.require("ir.", name)
}
