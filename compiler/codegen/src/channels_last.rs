//! Operators on channels-last tensors: the standard or fused operator, seen through a permutation.
//!
//! They exist between the layout pass and lowering only. Their meaning is the standard operator's on transposed data, so
//! one wrapper serves every operator, and its reference semantics come for free.

use ir::{Dim, EvalCx, InferCx, Operator, Result, Signature, Tensor, Value, ValueType};
use ops::transpose::transpose;

/// The domain of wrapped operators.
pub const DOMAIN: &str = "ir.channels_last";

/// Input 0, the residual if there is one and the output have channels last; other inputs are as in the wrapped operator.
pub struct ChannelsLast(&'static str);

/// The residual of a fused operator.
pub const RESIDUAL: usize = 3;

/// Inputs with channels last.
fn moves(name: &str, i: usize) -> bool {
    i == 0 || (i == RESIDUAL && name.starts_with("Fused"))
}

macro_rules! wrapped {
    ($($name:literal),*) => { static ALL: &[ChannelsLast] = &[$(ChannelsLast($name)),*]; };
}
wrapped!(
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "FusedConvTranspose",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Resize",
    "LRN",
    "GridSample",
    "ConvInteger",
    "QuantizedConv"
);

/// The channels-last form of an operator.
pub fn channels_last(name: &str) -> Option<&'static dyn Operator> {
    ALL.iter().find(|w| w.0 == name).map(|w| w as &'static dyn Operator)
}

/// `[N, C, spatial…]` to `[N, spatial…, C]`.
pub fn to_last(rank: usize) -> Vec<usize> {
    let mut p = vec![0];
    p.extend(2..rank);
    p.push(1);
    p
}

/// `[N, spatial…, C]` to `[N, C, spatial…]`.
pub fn to_first(rank: usize) -> Vec<usize> {
    let mut p = vec![0, rank - 1];
    p.extend(1..rank - 1);
    p
}

fn inner(name: &str) -> Result<&'static dyn Operator> {
    use ir::Lookup;
    let found = ["", "ir.", ops::quantized::DOMAIN].iter().find_map(|d| ops::Standard.operator(d, name));
    found.map_or_else(|| ops::standard(name), Ok)
}

fn permuted(t: &ValueType, perm: fn(usize) -> Vec<usize>) -> ValueType {
    match (t.dtype(), t.shape()) {
        (Some(d), Some(s)) if s.len() > 2 => {
            ValueType::tensor(d, perm(s.len()).into_iter().map(|i| s[i].clone()).collect::<Vec<Dim>>())
        }
        _ => t.clone(),
    }
}

fn moved(t: &Tensor, perm: fn(usize) -> Vec<usize>) -> Result<Tensor> {
    if t.rank() > 2 { transpose(t, &perm(t.rank())) } else { Ok(t.clone()) }
}

impl Operator for ChannelsLast {
    fn name(&self) -> &'static str {
        self.0
    }
    fn domain(&self) -> &'static str {
        DOMAIN
    }
    fn signature(&self) -> &'static Signature {
        match inner(self.0) {
            Ok(op) => op.signature(),
            Err(_) => &Signature { since: &[], inputs: &[], outputs: &[], attrs: &[] },
        }
    }
    fn infer(&self, cx: &InferCx) -> Result<Vec<ValueType>> {
        let mut inputs = cx.inputs.to_vec();
        for x in
            inputs.iter_mut().enumerate().filter(|(i, _)| moves(self.0, *i)).filter_map(|(_, x)| x.as_mut())
        {
            *x = permuted(x, to_first);
        }
        let out = inner(self.0)?.infer(&InferCx { inputs: &inputs, ..*cx })?;
        Ok(out.iter().map(|t| permuted(t, to_last)).collect())
    }
    fn eval(&self, cx: &EvalCx) -> Result<Vec<Value>> {
        let mut inputs = cx.inputs.to_vec();
        for x in inputs.iter_mut().enumerate().filter(|(i, _)| moves(self.0, *i)).map(|(_, x)| x) {
            if let Some(Value::Tensor(x)) = x {
                *x = moved(x, to_first)?;
            }
        }
        let out = inner(self.0)?.eval(&EvalCx { inputs: &inputs, ..*cx })?;
        out.into_iter().map(|v| Ok(Value::Tensor(moved(v.tensor()?, to_last)?))).collect()
    }
}
