//! Operators of the "com.microsoft" domain (ONNX Runtime, ContribOperators.md), as functions of standard operators: import
//! writes them out, so that passes and kernels see one form, and files hold the standard one.

mod attention;
mod dense;
mod lstm;
mod moved;
mod norm;
mod quantized;
mod schema;
#[cfg(test)]
mod tests;
mod weights;

use crate::Op;
use crate::function::Function;
use ir::{Accuracy, Operator};

pub const DOMAIN: &str = "com.microsoft";

macro_rules! functions {
    ($($name:literal $signature:ident $build:path,)*) => {
        &[
            $(&Function { domain: DOMAIN, name: $name, signature: &schema::$signature, build: $build },)*
            &Op::new("DynamicQuantizeLSTM", &schema::DYNAMIC_QUANTIZE_LSTM, lstm::infer, lstm::eval)
                .domain(DOMAIN)
                .accuracy(Accuracy::Accumulated),
        ]
    };
}

pub static OPERATORS: &[&dyn Operator] = functions! {
    "Attention" ATTENTION attention::attention,
    "BiasAdd" BIAS_ADD dense::bias_add,
    "BiasDropout" BIAS_DROPOUT dense::bias_dropout,
    "BiasGelu" BIAS_GELU dense::bias_gelu,
    "BiasSoftmax" BIAS_SOFTMAX dense::bias_softmax,
    "BiasSplitGelu" BIAS_SPLIT_GELU dense::bias_split_gelu,
    "DequantizeLinear" DEQUANTIZE_LINEAR moved::dequantize_linear,
    "DynamicQuantizeMatMul" DYNAMIC_QUANTIZE_MAT_MUL quantized::dynamic_matmul,
    "EmbedLayerNormalization" EMBED_LAYER_NORMALIZATION norm::embed,
    "ExpandDims" EXPAND_DIMS moved::expand_dims,
    "FastGelu" FAST_GELU dense::fast_gelu,
    "FusedConv" FUSED_CONV dense::fused_conv,
    "FusedGemm" FUSED_GEMM dense::fused_gemm,
    "FusedMatMul" FUSED_MAT_MUL dense::fused_matmul,
    "FusedMatMulActivation" FUSED_MAT_MUL_ACTIVATION dense::fused_matmul,
    "GatherBlockQuantized" GATHER_BLOCK_QUANTIZED weights::gather,
    "GatherND" GATHER_ND moved::gather_nd,
    "Gelu" GELU dense::gelu,
    "GemmFastGelu" GEMM_FAST_GELU dense::gemm_fast_gelu,
    "GroupNorm" GROUP_NORM norm::group,
    "GroupQueryAttention" GROUP_QUERY_ATTENTION attention::grouped,
    "IsAllFinite" IS_ALL_FINITE moved::is_all_finite,
    "MatMulIntegerToFloat" MAT_MUL_INTEGER_TO_FLOAT quantized::matmul_to_float,
    "MatMulNBits" MAT_MUL_N_BITS weights::matmul,
    "MulInteger" MUL_INTEGER quantized::mul_integer,
    "MultiHeadAttention" MULTI_HEAD_ATTENTION attention::multi_head,
    "NhwcConv" NHWC_CONV dense::nhwc_conv,
    "NhwcFusedConv" NHWC_FUSED_CONV dense::nhwc_conv,
    "NhwcMaxPool" NHWC_MAX_POOL moved::nhwc_max_pool,
    "Pad" PAD moved::pad,
    "QAttention" Q_ATTENTION attention::quantized,
    "QGemm" Q_GEMM quantized::gemm,
    "QLinearAdd" Q_LINEAR_ADD quantized::add,
    "QLinearAveragePool" Q_LINEAR_AVERAGE_POOL quantized::average_pool,
    "QLinearConcat" Q_LINEAR_CONCAT quantized::concat,
    "QLinearConv" Q_LINEAR_CONV quantized::conv,
    "QLinearGlobalAveragePool" Q_LINEAR_GLOBAL_AVERAGE_POOL quantized::global_average_pool,
    "QLinearLeakyRelu" Q_LINEAR_LEAKY_RELU quantized::leaky_relu,
    "QLinearMul" Q_LINEAR_MUL quantized::mul,
    "QLinearReduceMean" Q_LINEAR_REDUCE_MEAN quantized::reduce_mean,
    "QLinearSigmoid" Q_LINEAR_SIGMOID quantized::sigmoid,
    "QLinearSoftmax" Q_LINEAR_SOFTMAX quantized::softmax,
    "QLinearWhere" Q_LINEAR_WHERE quantized::choose,
    "QuantizeLinear" QUANTIZE_LINEAR moved::quantize_linear,
    "QuickGelu" QUICK_GELU dense::quick_gelu,
    "Range" RANGE moved::range,
    "ReduceSumInteger" REDUCE_SUM_INTEGER quantized::reduce_sum,
    "RotaryEmbedding" ROTARY_EMBEDDING attention::rotary,
    "SkipGroupNorm" SKIP_GROUP_NORM norm::skip_group,
    "SkipLayerNormalization" SKIP_LAYER_NORMALIZATION norm::skip_layer,
    "SkipSimplifiedLayerNormalization" SKIP_SIMPLIFIED_LAYER_NORMALIZATION norm::skip_rms,
    "TorchEmbedding" TORCH_EMBEDDING moved::torch_embedding,
    "TransposeMatMul" TRANSPOSE_MAT_MUL dense::fused_matmul,
    "Trilu" TRILU moved::trilu,
};
