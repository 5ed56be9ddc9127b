//! What is made of sums before they are given out: the post transforms of the "ai.onnx.ml" domain.

use ir::{Attrs, Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Post {
    Plain,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl Post {
    pub fn read(attrs: &Attrs) -> Result<Post> {
        Ok(match attrs.str_or("post_transform", "NONE")? {
            "NONE" => Post::Plain,
            "LOGISTIC" => Post::Logistic,
            "SOFTMAX" => Post::Softmax,
            "SOFTMAX_ZERO" => Post::SoftmaxZero,
            "PROBIT" => Post::Probit,
            p => return Err(Error::model(format!("post_transform '{}' is not known", p.escape_debug()))),
        })
    }

    /// The scores of one row, where there are several.
    pub fn row(self, scores: &mut [f64]) {
        match self {
            Post::Plain => {}
            Post::Logistic => scores.iter_mut().for_each(|x| *x = logistic(*x)),
            Post::Softmax => crate::softmax::softmax(scores),
            Post::SoftmaxZero => softmax_zero(scores),
            Post::Probit => scores.iter_mut().for_each(|x| *x = probit(*x)),
        }
    }
}

pub fn logistic(x: f64) -> f64 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

/// √2 times the inverse of the error function, by Winitzki's formula: what everybody computes here.
pub const WINITZKI: f64 = 0.147;
pub use std::f64::consts::PI;

pub fn probit(p: f64) -> f64 {
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (PI * WINITZKI) + 0.5 * log;
    let root = (-v + (v * v - log / WINITZKI).sqrt()).sqrt();
    std::f64::consts::SQRT_2 * if x < 0.0 { -root } else { root }
}

/// Below this a score counts as zero, which a softmax of this kind leaves zero.
pub const ZERO: f64 = 1e-7;

fn softmax_zero(scores: &mut [f64]) {
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let mut sum = 0.0;
    for x in scores.iter_mut() {
        if x.abs() > ZERO {
            *x = (*x - most).exp();
            sum += *x;
        } else {
            *x *= (-most).exp();
        }
    }
    scores.iter_mut().for_each(|x| *x /= sum);
}
