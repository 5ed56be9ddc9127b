//! Contractions of 8-bit integers from their descriptions.

use crate::call::{BytePairs, Finish, Kept, Scalar, Scaling, Zero};
use crate::io::{Io, Plain};
use kernels::{Activations, ConvShape, Error, PackedConvI8, PackedI8, Results, Strides, Tier, Weights};
use kernels::{conv_i8, gemm_i8};

fn byte(b: u8, signed: bool) -> i32 {
    if signed { i32::from(b as i8) } else { i32::from(b) }
}

impl<T: Plain + Default> Scalar<T> {
    fn get(self, io: &Io) -> T {
        match self {
            Scalar::Known(x) => x,
            Scalar::Read(i) => io.input::<T>(i).first().copied().unwrap_or_default(),
        }
    }
}

impl Scaling {
    fn activations<'a>(&'a self, io: &'a Io) -> Activations<'a> {
        Activations {
            data: io.input::<u8>(0),
            signed: self.signed[0],
            zero: byte(self.x_zero.get(io), self.signed[0]),
            zeros: &self.x_zeros,
            scale: self.x_scale.get(io) * self.w_factor.get(io),
        }
    }

    fn results<'a>(&'a self, io: &'a Io) -> Results<'a> {
        match &self.output {
            Kept::Sums => Results::Sums(io.output(0)),
            Kept::Values => Results::F32(io.output(0)),
            &Kept::Bytes { ref scale, zero, ref zeros, signed } => {
                Results::Bytes { data: io.output(0), signed, scale, zero, zeros }
            }
        }
    }

    pub fn conv(&self, io: &Io, shape: &ConvShape, w: &PackedConvI8, f: &Finish) -> Result<(), Error> {
        let e = f.epilogue(io, shape.cout);
        conv_i8(io.pool, shape, &self.activations(io), w, &mut self.results(io), &e)
    }

    pub fn product(&self, io: &Io, m: usize, w: &PackedI8, f: &Finish) -> Result<(), Error> {
        let e = f.epilogue(io, w.n());
        gemm_i8(io.pool, m, &self.activations(io), w, &mut self.results(io), &e)
    }

    /// Both operands are activations: the right one is packed in every run.
    pub fn products(&self, io: &Io, tier: Tier, of: &BytePairs, f: &Finish) -> Result<(), Error> {
        let (batch, m, k, n) = (of.shape.batch, of.shape.m, of.shape.k, of.shape.n);
        let zero = match &self.w_zero {
            Zero::Known(z) => z.clone(),
            &Zero::Read(i) => io.input::<u8>(i).iter().map(|&z| byte(z, self.signed[1])).collect(),
        };
        let e = f.epilogue(io, n);
        let (x, w) = (self.activations(io), io.input::<u8>(of.right));
        let mut y = self.results(io);
        let mut packed = None;
        for i in 0..batch {
            let step = if of.shared { 0 } else { k * n };
            if packed.is_none() || step > 0 {
                let data = &w[i * step..i * step + k * n];
                let weights = Weights { data, signed: self.signed[1], zero: &zero, scale: &[] };
                packed = Some(PackedI8::from_strided(tier, &weights, Strides::kn(n), k, n)?);
            }
            let Some(packed) = &packed else { continue };
            let x = Activations { data: &x.data[i * m * k..(i + 1) * m * k], ..x };
            gemm_i8(io.pool, m, &x, packed, &mut part(&mut y, i * m * n, m * n), &e)?;
        }
        Ok(())
    }
}

/// `len` results from `start` on.
fn part<'a>(y: &'a mut Results, start: usize, len: usize) -> Results<'a> {
    match y {
        Results::Sums(y) => Results::Sums(&mut y[start..start + len]),
        Results::F32(y) => Results::F32(&mut y[start..start + len]),
        Results::Bytes { data, signed, scale, zero, zeros } => {
            let data = &mut data[start..start + len];
            Results::Bytes { data, signed: *signed, scale, zero: *zero, zeros }
        }
    }
}
