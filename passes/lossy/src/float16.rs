//! Weights as half-precision floats, read through a Cast. Bound: relative error 2⁻¹¹ inside half's normal range.

use crate::candidate::Candidate;
use crate::fragment::Build;
use crate::layer::Layer;
use crate::method::{Context, Method, Refusal};
use half::f16;
use ir::{DType, Result, Tensor};

pub struct Float16;

impl Method for Float16 {
    fn name(&self) -> &'static str {
        "float16"
    }

    fn applies(&self, _layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        if cx.matrix.iter().any(|x| x.abs() > f16::MAX.to_f32()) {
            return Ok(Vec::new());
        }
        let rounded = cx.matrix.mapv(|x| f16::from_f32(x).to_f32());
        let stored = cx.layer.view.stored(&rounded).into_iter().map(f16::from_f32).collect();
        let mut b = Build::new(&cx.layer.weight);
        let h = b.constant("h", Tensor::new::<f16>(&cx.layer.view.shape, stored)?);
        let w = b.cast(h, DType::F32, "f")?;
        Ok(vec![cx.weight("float16", "float16".into(), b.finish(&[w])?, &rounded)])
    }
}
