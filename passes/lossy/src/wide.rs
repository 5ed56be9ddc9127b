//! Weights as integers of 9, 10 and 12 bits with a scale per output row: between 8 bits and half floats.
//!
//! A code is 8 high bits, stored as int8, and 1, 2 or 4 low bits: `w = s·(unit·high + low)`. Layers that lose too much at 8 bits
//! would take 16 as floats. Rounding is error-compensated when calibration data exist; bound: |w − ŵ| ≤ s/2 otherwise.

use crate::candidate::Candidate;
use crate::factor::Order;
use crate::fragment::{Build, low_bits, scaled};
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::quant::grid;
use crate::rounding::round;
use ir::{DType, Result, Tensor};

/// Integers of 8 bits and `low` more.
pub struct Wide {
    name: &'static str,
    low: u32,
}

pub static INT9: Wide = Wide { name: "int9", low: 1 };
pub static INT10: Wide = Wide { name: "int10", low: 2 };
pub static INT12: Wide = Wide { name: "int12", low: 4 };

impl Method for Wide {
    fn name(&self) -> &'static str {
        self.name
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        // Four bits are stored together.
        if !layer.view.len().is_multiple_of(4 / self.low.min(2) as usize) {
            return Err(Refusal::new("the number of elements does not pack"));
        }
        if layer.role == Role::Constant && layer.view.rows == 1 {
            return Err(Refusal::new("a vector has one range for all entries"));
        }
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let (view, unit) = (&cx.layer.view, 1i32 << self.low);
        let grid = grid(cx.matrix.view(), 8 + self.low, cx.matrix.ncols(), None, false);
        let values = round(cx.matrix, cx.sweep(), Order::Activity, &grid).values;
        let of = |r: usize, v: f32| {
            let s = grid.scales[[r, 0]];
            if s > 0.0 { (v / s).round() as i32 } else { 0 }
        };
        let mut codes = values.mapv(|_| 0i32);
        codes.indexed_iter_mut().for_each(|((r, c), q)| *q = of(r, values[[r, c]]));
        let codes = view.stored(&codes);
        let high = codes.iter().map(|q| q.div_euclid(unit) as i8).collect();
        let low: Vec<u8> = codes.iter().map(|q| q.rem_euclid(unit) as u8).collect();
        let mut b = Build::new(&cx.layer.weight);
        let shape = view.stored_shape();
        let q = b.constant("q", Tensor::new::<i8>(&shape, high)?);
        let q = b.cast(q, DType::F32, "qf")?;
        let u = b.constant("u", Tensor::scalar(unit as f32));
        let q = b.op("Mul", "h", Default::default(), &[q, u])?;
        let low = low_bits(&mut b, &shape, &low, self.low)?;
        let sum = b.op("Add", "c", Default::default(), &[q, low])?;
        let w = scaled(&mut b, view, &grid, sum)?;
        Ok(vec![cx.weight(self.name, self.name.into(), b.finish(&[w])?, &values)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::layers;
    use crate::method::Hopes;
    use crate::testing::matrix;
    use ir::{Attrs, Graph, ValueType};

    #[test]
    fn each_more_bit_takes_three_quarters_of_the_error() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::known(DType::F32, &[1, 64]));
        let w =
            g.add_initializer("w", Tensor::new(&[64, 48], matrix(48, 64, 1).into_iter().collect()).unwrap());
        let y = g.apply("m", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, w]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let layer = layers(&g).remove(0);
        let matrix = layer.view.matrix(&layer.tensor).unwrap();
        let cx = Context {
            graph: &g,
            layer: &layer,
            matrix: &matrix,
            stats: None,
            measure: None,
            compensate: true,
            hopes: Hopes::ALL,
            bases: &[],
        };
        let of = |m: &dyn Method| m.candidates(&cx).unwrap().remove(0);
        let (eight, nine) = (of(&crate::integer::INT8_WEIGHT), of(&INT9));
        let (ten, twelve) = (of(&INT10), of(&INT12));
        assert!(nine.error < eight.error / 3.0 && ten.error < nine.error / 3.0);
        assert!(twelve.error < ten.error / 12.0 && nine.bytes < 64 * 48 * 9 / 8 + 1300);
        assert!(ten.bytes < 64 * 48 * 5 / 4 + 1300 && twelve.bytes < 64 * 48 * 3 / 2 + 1300);
        let decoded = layer.view.matrix(&ten.decode().unwrap()).unwrap();
        assert!((cx.error(&decoded) / ten.error - 1.0).abs() < 1e-6);
    }
}
