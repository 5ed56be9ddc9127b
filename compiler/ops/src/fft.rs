//! kernel
//! Discrete Fourier transforms of any length in f64: direct for short signals, radix 2 for powers of two, and Bluestein's
//! chirp-z algorithm (L. Bluestein, "A linear filtering approach to the computation of discrete Fourier transform",
//! 1970) for the rest.

use ir::{Error, Result, budget};
use std::f64::consts::PI;

/// A complex number: real and imaginary part.
pub(crate) type Complex = [f64; 2];

/// Up to this length the definition is summed directly.
const DIRECT: usize = 32;

fn mul(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// e^(2πi · k / n), exact at the quarter turns.
fn root(k: usize, n: usize) -> Complex {
    let turn = |a: f64| [a.cos(), a.sin()];
    let eighth = 8 * (k as u128);
    let n = n as u128;
    match (eighth.is_multiple_of(2 * n), eighth / (2 * n) % 4) {
        (true, 0) => [1.0, 0.0],
        (true, 1) => [0.0, 1.0],
        (true, 2) => [-1.0, 0.0],
        (true, _) => [0.0, -1.0],
        _ => turn(2.0 * PI * k as f64 / n as f64),
    }
}

fn roots(n: usize, count: usize) -> Result<Vec<Complex>> {
    let mut v = budget::vec(count)?;
    v.extend((0..count).map(|k| root(k, n)));
    Ok(v)
}

enum Method {
    /// roots[k] = e^(2πi k/n)
    Direct {
        roots: Vec<Complex>,
    },
    Radix2 {
        roots: Vec<Complex>,
    },
    /// chirp[k] = e^(πi k²/n); `filter` is the transform of the conjugate chirp, laid out circularly.
    Bluestein {
        chirp: Vec<Complex>,
        filter: Vec<Complex>,
        inner: Box<Fourier>,
    },
}

/// The transform of one length, with its tables.
pub(crate) struct Fourier {
    n: usize,
    method: Method,
}

impl Fourier {
    /// Tables for signals of length `n` > 0.
    pub fn new(n: usize) -> Result<Fourier> {
        if n == 0 {
            return Err(Error::model("the transform of an empty signal is not defined"));
        }
        let method = if n <= DIRECT {
            Method::Direct { roots: roots(n, n)? }
        } else if n.is_power_of_two() {
            Method::Radix2 { roots: roots(n, n / 2)? }
        } else {
            Self::bluestein(n)?
        };
        Ok(Fourier { n, method })
    }

    fn bluestein(n: usize) -> Result<Method> {
        let m = n
            .checked_mul(2)
            .and_then(usize::checked_next_power_of_two)
            .ok_or_else(|| Error::limit("the signal is too long"))?;
        let mut chirp = budget::vec(n)?;
        // k² modulo 2n keeps the angle small and exact.
        chirp.extend((0..n as u128).map(|k| root((k * k % (2 * n as u128)) as usize, 2 * n)));
        let inner = Box::new(Fourier::new(m)?);
        let mut filter: Vec<Complex> = budget::filled(m, [0.0; 2])?;
        for (k, &c) in chirp.iter().enumerate() {
            filter[k] = c;
            filter[(m - k) % m] = c;
        }
        inner.forward(&mut filter)?;
        Ok(Method::Bluestein { chirp, filter, inner })
    }

    /// y[k] = Σ x[j] e^(−2πi jk/n), in place; `x` has length n.
    pub fn forward(&self, x: &mut [Complex]) -> Result<()> {
        match &self.method {
            Method::Direct { roots } => direct(x, roots),
            Method::Radix2 { roots } => {
                radix2(x, roots);
                Ok(())
            }
            Method::Bluestein { chirp, filter, inner } => convolve(x, chirp, filter, inner),
        }
    }

    /// The inverse of [`Fourier::forward`], with its factor 1/n.
    pub fn inverse(&self, x: &mut [Complex]) -> Result<()> {
        x.iter_mut().for_each(|c| c[1] = -c[1]);
        self.forward(x)?;
        let n = self.n as f64;
        x.iter_mut().for_each(|c| *c = [c[0] / n, -c[1] / n]);
        Ok(())
    }
}

fn direct(x: &mut [Complex], roots: &[Complex]) -> Result<()> {
    let n = x.len();
    let mut out: Vec<Complex> = budget::vec(n)?;
    for k in 0..n {
        let mut sum = [0.0; 2];
        for (j, &v) in x.iter().enumerate() {
            let w = roots[j * k % n];
            let p = mul(v, [w[0], -w[1]]);
            sum = [sum[0] + p[0], sum[1] + p[1]];
        }
        out.push(sum);
    }
    x.copy_from_slice(&out);
    Ok(())
}

fn radix2(x: &mut [Complex], roots: &[Complex]) {
    let n = x.len();
    let bits = n.trailing_zeros();
    for i in 0..n {
        let j = i.reverse_bits() >> (usize::BITS - bits);
        if i < j {
            x.swap(i, j);
        }
    }
    let mut half = 1;
    while half < n {
        let stride = n / (2 * half);
        for block in x.chunks_exact_mut(2 * half) {
            let (lo, hi) = block.split_at_mut(half);
            for (k, (a, b)) in lo.iter_mut().zip(hi).enumerate() {
                let w = roots[k * stride];
                let t = mul(*b, [w[0], -w[1]]);
                (*a, *b) = ([a[0] + t[0], a[1] + t[1]], [a[0] - t[0], a[1] - t[1]]);
            }
        }
        half *= 2;
    }
}

fn convolve(x: &mut [Complex], chirp: &[Complex], filter: &[Complex], inner: &Fourier) -> Result<()> {
    let conj = |c: Complex| [c[0], -c[1]];
    let mut work: Vec<Complex> = budget::filled(inner.n, [0.0; 2])?;
    for ((w, &v), &c) in work.iter_mut().zip(x.iter()).zip(chirp) {
        *w = mul(v, conj(c));
    }
    inner.forward(&mut work)?;
    work.iter_mut().zip(filter).for_each(|(w, &f)| *w = mul(*w, f));
    inner.inverse(&mut work)?;
    for ((v, &w), &c) in x.iter_mut().zip(&work).zip(chirp) {
        *v = mul(w, conj(c));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_agrees_with_the_definition_and_inverts() {
        for n in [1, 2, 7, 32, 33, 64, 100, 127, 360] {
            let x: Vec<Complex> = (0..n).map(|i| [(i as f64 * 0.7).sin(), (i as f64 * 1.3).cos()]).collect();
            let f = Fourier::new(n).unwrap();
            let mut y = x.clone();
            f.forward(&mut y).unwrap();
            let mut want = x.clone();
            direct(&mut want, &roots(n, n).unwrap()).unwrap();
            for (a, b) in y.iter().zip(&want) {
                assert!((a[0] - b[0]).abs() + (a[1] - b[1]).abs() < 1e-9, "length {n}: {a:?} {b:?}");
            }
            f.inverse(&mut y).unwrap();
            assert!(y.iter().zip(&x).all(|(a, b)| (a[0] - b[0]).abs() + (a[1] - b[1]).abs() < 1e-12));
        }
        assert!(Fourier::new(0).is_err());
    }
}
