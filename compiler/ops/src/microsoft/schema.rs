//! table
//! Signatures of the operators of the "com.microsoft" domain (ONNX Runtime, ContribOperators.md).

use ir::DType::*;
use ir::{Arity, AttrFormal, AttrKind, DType, Formal, Signature, Types};

const fn f(name: &'static str, type_name: &'static str, types: Types, arity: Arity) -> Formal {
    Formal { name, type_name, types, arity }
}
const fn a(name: &'static str, kind: AttrKind, required: bool) -> AttrFormal {
    AttrFormal { name, kind, required }
}

const T0: &[DType] = &[F32, F16, BF16];
const T1: &[DType] = &[I32];
const T2: &[DType] = &[F32, F16];
const T3: &[DType] = &[F32, F16, BF16, F64];
const T4: &[DType] = &[Bool];
const T5: &[DType] = &[F32, F16, F64];
const T6: &[DType] = &[I8, U8, I16, U16, I32, I4, U4];
const T7: &[DType] = &[F32];
const T8: &[DType] = &[I8, U8];
const T9: &[DType] = &[F32, F16, F64, I8, U8, I16, U16, I32, U32, I64, U64, Bool, String, C64, C128];
const T10: &[DType] = &[F32, F16, F64, I32, U32, I64, U64];
const T11: &[DType] = &[U8, I4, U4, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F4E2M1];
const T12: &[DType] = &[I32, I64];
const T13: &[DType] = &[F32, F16, BF16, I8, U8, F8E4M3FN];
const T14: &[DType] = &[I64];
const T15: &[DType] = &[U8];
const T16: &[DType] = &[F32, F16, BF16, U8];
const T17: &[DType] = &[F32, I8, U8];
const T18: &[DType] = &[I8, U8, I16, U16, I4, U4];
const T19: &[DType] = &[F32, F64, I16, I32, I64];
const T20: &[DType] = &[I32, U32];
const T21: &[DType] = &[F32, F16, BF16, F64, I8, U8, I16, U16, I32, U32, I64, U64];
const T22: &[DType] = &[F32, F16, BF16, F64, I8, U8, I16, U16, I32, U32, I64, U64, Bool];

pub static ATTENTION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("input", "T", Types::Of(T0), Arity::Required),
        f("weights", "T", Types::Of(T0), Arity::Required),
        f("bias", "T", Types::Of(T0), Arity::Optional),
        f("mask_index", "M", Types::Of(T1), Arity::Optional),
        f("past", "T", Types::Of(T0), Arity::Optional),
        f("attention_bias", "T", Types::Of(T0), Arity::Optional),
        f("past_sequence_length", "M", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T0), Arity::Required),
        f("present", "T", Types::Of(T0), Arity::Optional),
    ],
    attrs: &[
        a("do_rotary", AttrKind::Int, false),
        a("mask_filter_value", AttrKind::Float, false),
        a("num_heads", AttrKind::Int, true),
        a("past_present_share_buffer", AttrKind::Int, false),
        a("qkv_hidden_sizes", AttrKind::Ints, false),
        a("rotary_embedding_dim", AttrKind::Int, false),
        a("scale", AttrKind::Float, false),
        a("unidirectional", AttrKind::Int, false),
    ],
};
pub static BIAS_ADD: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T2), Arity::Required),
        f("bias", "T", Types::Of(T2), Arity::Required),
        f("skip", "T", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("Y", "T", Types::Of(T2), Arity::Required)],
    attrs: &[],
};
pub static BIAS_DROPOUT: Signature = Signature {
    since: &[1],
    inputs: &[
        f("data", "T", Types::Of(T3), Arity::Required),
        f("bias", "T", Types::Of(T3), Arity::Required),
        f("residual", "T", Types::Of(T3), Arity::Optional),
        f("ratio", "T1", Types::Of(T3), Arity::Optional),
        f("training_mode", "T2", Types::Of(T4), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T3), Arity::Required),
        f("mask", "T2", Types::Of(T4), Arity::Optional),
    ],
    attrs: &[a("seed", AttrKind::Int, false)],
};
pub static BIAS_GELU: Signature = Signature {
    since: &[1],
    inputs: &[f("A", "T", Types::Of(T3), Arity::Required), f("B", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
pub static BIAS_SOFTMAX: Signature = Signature {
    since: &[1],
    inputs: &[f("data", "T", Types::Of(T5), Arity::Required), f("bias", "T", Types::Of(T5), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T5), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false), a("is_inner_broadcast", AttrKind::Int, true)],
};
pub static BIAS_SPLIT_GELU: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", Types::Of(T2), Arity::Required), f("bias", "T", Types::Of(T2), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T2), Arity::Required)],
    attrs: &[],
};
pub static DEQUANTIZE_LINEAR: Signature = Signature {
    since: &[1],
    inputs: &[
        f("x", "T1", Types::Of(T6), Arity::Required),
        f("x_scale", "T2", Types::Of(T2), Arity::Required),
        f("x_zero_point", "T1", Types::Of(T6), Arity::Optional),
    ],
    outputs: &[f("y", "T2", Types::Of(T2), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
pub static DYNAMIC_QUANTIZE_LSTM: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T7), Arity::Required),
        f("W", "T2", Types::Of(T8), Arity::Required),
        f("R", "T2", Types::Of(T8), Arity::Required),
        f("B", "T", Types::Of(T7), Arity::Optional),
        f("sequence_lens", "T1", Types::Of(T1), Arity::Optional),
        f("initial_h", "T", Types::Of(T7), Arity::Optional),
        f("initial_c", "T", Types::Of(T7), Arity::Optional),
        f("P", "T", Types::Of(T7), Arity::Optional),
        f("W_scale", "T", Types::Of(T7), Arity::Required),
        f("W_zero_point", "T2", Types::Of(T8), Arity::Required),
        f("R_scale", "T", Types::Of(T7), Arity::Required),
        f("R_zero_point", "T2", Types::Of(T8), Arity::Required),
    ],
    outputs: &[
        f("Y", "T", Types::Of(T7), Arity::Optional),
        f("Y_h", "T", Types::Of(T7), Arity::Optional),
        f("Y_c", "T", Types::Of(T7), Arity::Optional),
    ],
    attrs: &[
        a("activation_alpha", AttrKind::Floats, false),
        a("activation_beta", AttrKind::Floats, false),
        a("activations", AttrKind::Strs, false),
        a("clip", AttrKind::Float, false),
        a("direction", AttrKind::Str, false),
        a("hidden_size", AttrKind::Int, false),
        a("input_forget", AttrKind::Int, false),
    ],
};
pub static DYNAMIC_QUANTIZE_MAT_MUL: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "T1", Types::Of(T7), Arity::Required),
        f("B", "T2", Types::Of(T8), Arity::Required),
        f("b_scale", "T1", Types::Of(T7), Arity::Required),
        f("b_zero_point", "T2", Types::Of(T8), Arity::Optional),
        f("bias", "T1", Types::Of(T7), Arity::Optional),
    ],
    outputs: &[f("Y", "T1", Types::Of(T7), Arity::Required)],
    attrs: &[],
};
pub static EMBED_LAYER_NORMALIZATION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("input_ids", "T1", Types::Of(T1), Arity::Required),
        f("segment_ids", "T1", Types::Of(T1), Arity::Optional),
        f("word_embedding", "T", Types::Of(T2), Arity::Required),
        f("position_embedding", "T", Types::Of(T2), Arity::Required),
        f("segment_embedding", "T", Types::Of(T2), Arity::Optional),
        f("gamma", "T", Types::Of(T2), Arity::Required),
        f("beta", "T", Types::Of(T2), Arity::Required),
        f("mask", "T1", Types::Of(T1), Arity::Optional),
        f("position_ids", "T1", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T2), Arity::Required),
        f("mask_index", "T1", Types::Of(T1), Arity::Optional),
        f("embedding_sum", "T", Types::Of(T2), Arity::Optional),
    ],
    attrs: &[a("epsilon", AttrKind::Float, false), a("mask_index_type", AttrKind::Int, false)],
};
pub static EXPAND_DIMS: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T9), Arity::Required),
        f("axis", "tensor(int32)", Types::Of(T1), Arity::Required),
    ],
    outputs: &[f("Y", "T", Types::Of(T9), Arity::Required)],
    attrs: &[],
};
pub static FAST_GELU: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", Types::Of(T3), Arity::Required), f("bias", "T", Types::Of(T3), Arity::Optional)],
    outputs: &[f("Y", "T", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
pub static FUSED_CONV: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T5), Arity::Required),
        f("W", "T", Types::Of(T5), Arity::Required),
        f("B", "T", Types::Of(T5), Arity::Optional),
        f("Z", "T", Types::Of(T5), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T5), Arity::Required)],
    attrs: &[
        a("activation", AttrKind::Str, false),
        a("activation_params", AttrKind::Floats, false),
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
pub static FUSED_GEMM: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "T", Types::Of(T10), Arity::Required),
        f("B", "T", Types::Of(T10), Arity::Required),
        f("C", "T", Types::Of(T10), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T10), Arity::Required)],
    attrs: &[
        a("activation", AttrKind::Str, false),
        a("activation_alpha", AttrKind::Float, false),
        a("activation_beta", AttrKind::Float, false),
        a("activation_gamma", AttrKind::Float, false),
        a("alpha", AttrKind::Float, false),
        a("beta", AttrKind::Float, false),
        a("transA", AttrKind::Int, false),
        a("transB", AttrKind::Int, false),
    ],
};
pub static FUSED_MAT_MUL: Signature = Signature {
    since: &[1],
    inputs: &[f("A", "T", Types::Of(T3), Arity::Required), f("B", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T3), Arity::Required)],
    attrs: &[
        a("alpha", AttrKind::Float, false),
        a("transA", AttrKind::Int, false),
        a("transB", AttrKind::Int, false),
        a("transBatchA", AttrKind::Int, false),
        a("transBatchB", AttrKind::Int, false),
    ],
};
pub static FUSED_MAT_MUL_ACTIVATION: Signature = Signature {
    since: &[1],
    inputs: &[f("A", "T", Types::Of(T3), Arity::Required), f("B", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T3), Arity::Required)],
    attrs: &[
        a("activation", AttrKind::Str, true),
        a("activation_alpha", AttrKind::Float, false),
        a("activation_axis", AttrKind::Int, false),
        a("activation_beta", AttrKind::Float, false),
        a("activation_gamma", AttrKind::Float, false),
        a("alpha", AttrKind::Float, false),
        a("transA", AttrKind::Int, false),
        a("transB", AttrKind::Int, false),
        a("transBatchA", AttrKind::Int, false),
        a("transBatchB", AttrKind::Int, false),
    ],
};
pub static GATHER_BLOCK_QUANTIZED: Signature = Signature {
    since: &[1],
    inputs: &[
        f("data", "T1", Types::Of(T11), Arity::Required),
        f("indices", "Tind", Types::Of(T12), Arity::Required),
        f("scales", "T2", Types::Of(T0), Arity::Required),
        f("zero_points", "T1", Types::Of(T11), Arity::Optional),
    ],
    outputs: &[f("output", "T2", Types::Of(T0), Arity::Required)],
    attrs: &[
        a("bits", AttrKind::Int, false),
        a("block_size", AttrKind::Int, false),
        a("gather_axis", AttrKind::Int, false),
        a("quantize_axis", AttrKind::Int, false),
    ],
};
pub static GATHER_ND: Signature = Signature {
    since: &[1],
    inputs: &[
        f("data", "T", Types::Of(T9), Arity::Required),
        f("indices", "Tind", Types::Of(T12), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T9), Arity::Required)],
    attrs: &[],
};
pub static GELU: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
pub static GEMM_FAST_GELU: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T0), Arity::Required),
        f("W", "T", Types::Of(T0), Arity::Required),
        f("bias", "T", Types::Of(T0), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
pub static GROUP_NORM: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T2), Arity::Required),
        f("gamma", "M", Types::Of(T2), Arity::Required),
        f("beta", "M", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("Y", "T", Types::Of(T2), Arity::Required)],
    attrs: &[
        a("activation", AttrKind::Int, true),
        a("channels_last", AttrKind::Int, false),
        a("epsilon", AttrKind::Float, false),
        a("groups", AttrKind::Int, true),
    ],
};
pub static GROUP_QUERY_ATTENTION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("query", "T", Types::Of(T0), Arity::Required),
        f("key", "T", Types::Of(T0), Arity::Optional),
        f("value", "T", Types::Of(T0), Arity::Optional),
        f("past_key", "T_CACHE", Types::Of(T13), Arity::Optional),
        f("past_value", "T_CACHE", Types::Of(T13), Arity::Optional),
        f("seqlens_k", "M", Types::Of(T1), Arity::Required),
        f("total_sequence_length", "M", Types::Of(T1), Arity::Required),
        f("cos_cache", "T", Types::Of(T0), Arity::Optional),
        f("sin_cache", "T", Types::Of(T0), Arity::Optional),
        f("position_ids", "tensor(int64)", Types::Of(T14), Arity::Optional),
        f("attention_bias", "T", Types::Of(T0), Arity::Optional),
        f("head_sink", "T", Types::Of(T0), Arity::Optional),
        f("k_scale", "T_KV_SCALE", Types::Of(T7), Arity::Optional),
        f("v_scale", "T_KV_SCALE", Types::Of(T7), Arity::Optional),
        f("q_norm_weight", "T", Types::Of(T0), Arity::Optional),
        f("k_norm_weight", "T", Types::Of(T0), Arity::Optional),
        f("query_seqlens", "M", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T0), Arity::Required),
        f("present_key", "T_CACHE", Types::Of(T13), Arity::Optional),
        f("present_value", "T_CACHE", Types::Of(T13), Arity::Optional),
        f("output_qk", "T", Types::Of(T0), Arity::Optional),
    ],
    attrs: &[
        a("causal", AttrKind::Int, false),
        a("do_rotary", AttrKind::Int, false),
        a("k_norm_epsilon", AttrKind::Float, false),
        a("k_quant_type", AttrKind::Str, false),
        a("kv_cache_bit_width", AttrKind::Int, false),
        a("kv_num_heads", AttrKind::Int, true),
        a("local_window_size", AttrKind::Int, false),
        a("num_heads", AttrKind::Int, true),
        a("q_norm_epsilon", AttrKind::Float, false),
        a("qk_norm_epsilon", AttrKind::Float, false),
        a("qk_output", AttrKind::Int, false),
        a("rotary_interleaved", AttrKind::Int, false),
        a("scale", AttrKind::Float, false),
        a("sliding_window_cache", AttrKind::Int, false),
        a("smooth_softmax", AttrKind::Int, false),
        a("softcap", AttrKind::Float, false),
        a("v_quant_type", AttrKind::Str, false),
    ],
};
pub static IS_ALL_FINITE: Signature = Signature {
    since: &[1],
    inputs: &[f("input", "V", Types::Of(T3), Arity::Variadic)],
    outputs: &[f("output", "T", Types::Of(T4), Arity::Required)],
    attrs: &[a("isinf_only", AttrKind::Int, false), a("isnan_only", AttrKind::Int, false)],
};
pub static MAT_MUL_INTEGER_TO_FLOAT: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "T1", Types::Of(T8), Arity::Required),
        f("B", "T2", Types::Of(T8), Arity::Required),
        f("a_scale", "T3", Types::Of(T2), Arity::Required),
        f("b_scale", "T3", Types::Of(T2), Arity::Required),
        f("a_zero_point", "T1", Types::Of(T8), Arity::Optional),
        f("b_zero_point", "T2", Types::Of(T8), Arity::Optional),
        f("bias", "T3", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("Y", "T3", Types::Of(T2), Arity::Required)],
    attrs: &[],
};
pub static MAT_MUL_N_BITS: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "T1", Types::Of(T0), Arity::Required),
        f("B", "T2", Types::Of(T15), Arity::Required),
        f("scales", "T1", Types::Of(T0), Arity::Required),
        f("zero_points", "T3", Types::Of(T16), Arity::Optional),
        f("g_idx", "T4", Types::Of(T1), Arity::Optional),
        f("bias", "T1", Types::Of(T0), Arity::Optional),
    ],
    outputs: &[f("Y", "T1", Types::Of(T0), Arity::Required)],
    attrs: &[
        a("K", AttrKind::Int, true),
        a("N", AttrKind::Int, true),
        a("accuracy_level", AttrKind::Int, false),
        a("bits", AttrKind::Int, false),
        a("block_size", AttrKind::Int, true),
        a("weight_prepacked", AttrKind::Int, false),
    ],
};
pub static MUL_INTEGER: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "T", Types::Of(T8), Arity::Required),
        f("A_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("B", "T", Types::Of(T8), Arity::Required),
        f("B_zero_point", "T", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("C", "T1", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
pub static MULTI_HEAD_ATTENTION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("query", "T", Types::Of(T0), Arity::Required),
        f("key", "T", Types::Of(T0), Arity::Optional),
        f("value", "T", Types::Of(T0), Arity::Optional),
        f("bias", "T", Types::Of(T0), Arity::Optional),
        f("key_padding_mask", "M", Types::Of(T1), Arity::Optional),
        f("attention_bias", "T", Types::Of(T0), Arity::Optional),
        f("past_key", "T", Types::Of(T0), Arity::Optional),
        f("past_value", "T", Types::Of(T0), Arity::Optional),
        f("past_sequence_length", "M", Types::Of(T1), Arity::Optional),
        f("cache_indirection", "M", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T0), Arity::Required),
        f("present_key", "T", Types::Of(T0), Arity::Optional),
        f("present_value", "T", Types::Of(T0), Arity::Optional),
        f("qk", "QK", Types::Of(T0), Arity::Optional),
    ],
    attrs: &[
        a("mask_filter_value", AttrKind::Float, false),
        a("num_heads", AttrKind::Int, true),
        a("scale", AttrKind::Float, false),
        a("unidirectional", AttrKind::Int, false),
    ],
};
pub static NHWC_CONV: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T5), Arity::Required),
        f("W", "T", Types::Of(T5), Arity::Required),
        f("B", "T", Types::Of(T5), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T5), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
pub static NHWC_FUSED_CONV: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T2), Arity::Required),
        f("W", "T", Types::Of(T2), Arity::Required),
        f("B", "T", Types::Of(T2), Arity::Optional),
        f("Z", "T", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T2), Arity::Required)],
    attrs: &[
        a("activation", AttrKind::Str, false),
        a("activation_params", AttrKind::Floats, false),
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
pub static NHWC_MAX_POOL: Signature = Signature {
    since: &[1],
    inputs: &[f("x", "T", Types::Of(T8), Arity::Required)],
    outputs: &[f("y", "T", Types::Of(T8), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("ceil_mode", AttrKind::Int, false),
        a("dilations", AttrKind::Ints, false),
        a("kernel_shape", AttrKind::Ints, true),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
pub static PAD: Signature = Signature {
    since: &[1],
    inputs: &[
        f("data", "T", Types::Of(T5), Arity::Required),
        f("pads", "tensor(int64)", Types::Of(T14), Arity::Required),
        f("value", "T", Types::Of(T5), Arity::Optional),
    ],
    outputs: &[f("output", "T", Types::Of(T5), Arity::Required)],
    attrs: &[a("mode", AttrKind::Str, false)],
};
pub static Q_ATTENTION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("input", "T1", Types::Of(T8), Arity::Required),
        f("weight", "T2", Types::Of(T8), Arity::Required),
        f("bias", "T3", Types::Of(T2), Arity::Required),
        f("input_scale", "T3", Types::Of(T2), Arity::Required),
        f("weight_scale", "T3", Types::Of(T2), Arity::Required),
        f("mask_index", "T4", Types::Of(T1), Arity::Optional),
        f("input_zero_point", "T1", Types::Of(T8), Arity::Optional),
        f("weight_zero_point", "T2", Types::Of(T8), Arity::Optional),
        f("past", "T3", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[
        f("output", "T3", Types::Of(T2), Arity::Required),
        f("present", "T3", Types::Of(T2), Arity::Optional),
    ],
    attrs: &[
        a("do_rotary", AttrKind::Int, false),
        a("mask_filter_value", AttrKind::Float, false),
        a("num_heads", AttrKind::Int, true),
        a("past_present_share_buffer", AttrKind::Int, false),
        a("scale", AttrKind::Float, false),
        a("unidirectional", AttrKind::Int, false),
    ],
};
pub static Q_GEMM: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "TA", Types::Of(T8), Arity::Required),
        f("a_scale", "T", Types::Of(T7), Arity::Required),
        f("a_zero_point", "TA", Types::Of(T8), Arity::Required),
        f("B", "TB", Types::Of(T8), Arity::Required),
        f("b_scale", "T", Types::Of(T7), Arity::Required),
        f("b_zero_point", "TB", Types::Of(T8), Arity::Required),
        f("C", "TC", Types::Of(T1), Arity::Optional),
        f("y_scale", "T", Types::Of(T7), Arity::Optional),
        f("y_zero_point", "TYZ", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("Y", "TY", Types::Of(T17), Arity::Required)],
    attrs: &[
        a("alpha", AttrKind::Float, false),
        a("transA", AttrKind::Int, false),
        a("transB", AttrKind::Int, false),
    ],
};
pub static Q_LINEAR_ADD: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "T", Types::Of(T8), Arity::Required),
        f("A_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("A_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("B", "T", Types::Of(T8), Arity::Required),
        f("B_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("B_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("C_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("C_zero_point", "T", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("C", "T", Types::Of(T8), Arity::Required)],
    attrs: &[],
};
pub static Q_LINEAR_AVERAGE_POOL: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T8), Arity::Required),
        f("x_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("x_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("y_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("y_zero_point", "T", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T8), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("ceil_mode", AttrKind::Int, false),
        a("channels_last", AttrKind::Int, false),
        a("count_include_pad", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, true),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
pub static Q_LINEAR_CONCAT: Signature = Signature {
    since: &[1],
    inputs: &[
        f("Y_scale", "TF", Types::Of(T7), Arity::Required),
        f("Y_zero_point", "T8", Types::Of(T8), Arity::Required),
        f("inputs", "TV", Types::Of(T17), Arity::Variadic),
    ],
    outputs: &[f("Y", "T8", Types::Of(T8), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, true)],
};
pub static Q_LINEAR_CONV: Signature = Signature {
    since: &[1],
    inputs: &[
        f("x", "T1", Types::Of(T8), Arity::Required),
        f("x_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("x_zero_point", "T1", Types::Of(T8), Arity::Required),
        f("w", "T2", Types::Of(T8), Arity::Required),
        f("w_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("w_zero_point", "T2", Types::Of(T8), Arity::Required),
        f("y_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("y_zero_point", "T3", Types::Of(T8), Arity::Required),
        f("B", "T4", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("y", "T3", Types::Of(T8), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("channels_last", AttrKind::Int, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
pub static Q_LINEAR_GLOBAL_AVERAGE_POOL: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T8), Arity::Required),
        f("x_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("x_zero_point", "T", Types::Of(T8), Arity::Required),
        f("y_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("y_zero_point", "T", Types::Of(T8), Arity::Required),
    ],
    outputs: &[f("Y", "T", Types::Of(T8), Arity::Required)],
    attrs: &[a("channels_last", AttrKind::Int, false)],
};
pub static Q_LINEAR_LEAKY_RELU: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T8), Arity::Required),
        f("X_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("X_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("Y_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("Y_zero_point", "T", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T8), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
pub static Q_LINEAR_MUL: Signature = Signature {
    since: &[1],
    inputs: &[
        f("A", "T", Types::Of(T8), Arity::Required),
        f("A_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("A_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("B", "T", Types::Of(T8), Arity::Required),
        f("B_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("B_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("C_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("C_zero_point", "T", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("C", "T", Types::Of(T8), Arity::Required)],
    attrs: &[],
};
pub static Q_LINEAR_REDUCE_MEAN: Signature = Signature {
    since: &[1],
    inputs: &[
        f("data", "T", Types::Of(T8), Arity::Required),
        f("data_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("data_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("reduced_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("reduced_zero_point", "T", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T8), Arity::Required)],
    attrs: &[a("axes", AttrKind::Ints, true), a("keepdims", AttrKind::Int, true)],
};
pub static Q_LINEAR_SIGMOID: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T8), Arity::Required),
        f("X_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("X_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("Y_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("Y_zero_point", "T", Types::Of(T8), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T8), Arity::Required)],
    attrs: &[],
};
pub static Q_LINEAR_SOFTMAX: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T8), Arity::Required),
        f("X_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("x_zero_point", "T", Types::Of(T8), Arity::Optional),
        f("y_scale", "tensor(float)", Types::Of(T7), Arity::Required),
        f("y_zero_point", "T", Types::Of(T8), Arity::Required),
    ],
    outputs: &[f("Y", "T", Types::Of(T8), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false), a("opset", AttrKind::Int, true)],
};
pub static Q_LINEAR_WHERE: Signature = Signature {
    since: &[1],
    inputs: &[
        f("condition", "B", Types::Of(T4), Arity::Required),
        f("X", "T", Types::Of(T8), Arity::Required),
        f("x_scale", "TF", Types::Of(T7), Arity::Required),
        f("x_zero_point", "T", Types::Of(T8), Arity::Required),
        f("Y", "T", Types::Of(T8), Arity::Required),
        f("y_scale", "TF", Types::Of(T7), Arity::Required),
        f("y_zero_point", "T", Types::Of(T8), Arity::Required),
        f("z_scale", "TF", Types::Of(T7), Arity::Required),
        f("z_zero_point", "T", Types::Of(T8), Arity::Required),
    ],
    outputs: &[f("Z", "T", Types::Of(T8), Arity::Required)],
    attrs: &[],
};
pub static QUANTIZE_LINEAR: Signature = Signature {
    since: &[1],
    inputs: &[
        f("x", "T1", Types::Of(T2), Arity::Required),
        f("y_scale", "T1", Types::Of(T2), Arity::Required),
        f("y_zero_point", "T2", Types::Of(T18), Arity::Optional),
    ],
    outputs: &[f("y", "T2", Types::Of(T18), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
pub static QUICK_GELU: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T3), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
pub static RANGE: Signature = Signature {
    since: &[1],
    inputs: &[
        f("start", "T", Types::Of(T19), Arity::Required),
        f("limit", "T", Types::Of(T19), Arity::Required),
        f("delta", "T", Types::Of(T19), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T19), Arity::Required)],
    attrs: &[],
};
pub static REDUCE_SUM_INTEGER: Signature = Signature {
    since: &[1],
    inputs: &[f("data", "T1", Types::Of(T8), Arity::Required)],
    outputs: &[f("reduced", "T2", Types::Of(T20), Arity::Required)],
    attrs: &[a("axes", AttrKind::Ints, true), a("keepdims", AttrKind::Int, true)],
};
pub static ROTARY_EMBEDDING: Signature = Signature {
    since: &[1],
    inputs: &[
        f("input", "T", Types::Of(T0), Arity::Required),
        f("position_ids", "M", Types::Of(T14), Arity::Required),
        f("cos_cache", "T", Types::Of(T0), Arity::Required),
        f("sin_cache", "T", Types::Of(T0), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T0), Arity::Required)],
    attrs: &[
        a("interleaved", AttrKind::Int, false),
        a("is_packed_batching", AttrKind::Int, false),
        a("num_heads", AttrKind::Int, false),
        a("rotary_embedding_dim", AttrKind::Int, false),
        a("scale", AttrKind::Float, false),
    ],
};
pub static SKIP_GROUP_NORM: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T2), Arity::Required),
        f("gamma", "M", Types::Of(T2), Arity::Required),
        f("beta", "M", Types::Of(T2), Arity::Required),
        f("skip", "T", Types::Of(T2), Arity::Required),
        f("bias", "T", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T2), Arity::Required), f("S", "T", Types::Of(T2), Arity::Optional)],
    attrs: &[
        a("activation", AttrKind::Int, true),
        a("channels_last", AttrKind::Int, false),
        a("epsilon", AttrKind::Float, false),
        a("groups", AttrKind::Int, true),
    ],
};
pub static SKIP_LAYER_NORMALIZATION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("input", "T", Types::Of(T0), Arity::Required),
        f("skip", "T", Types::Of(T0), Arity::Required),
        f("gamma", "T", Types::Of(T0), Arity::Required),
        f("beta", "T", Types::Of(T0), Arity::Optional),
        f("bias", "T", Types::Of(T0), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T0), Arity::Required),
        f("mean", "U", Types::Of(T7), Arity::Optional),
        f("inv_std_var", "U", Types::Of(T7), Arity::Optional),
        f("input_skip_bias_sum", "T", Types::Of(T0), Arity::Optional),
    ],
    attrs: &[a("epsilon", AttrKind::Float, false)],
};
pub static SKIP_SIMPLIFIED_LAYER_NORMALIZATION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("input", "T", Types::Of(T0), Arity::Required),
        f("skip", "T", Types::Of(T0), Arity::Required),
        f("gamma", "T", Types::Of(T0), Arity::Required),
        f("bias", "T", Types::Of(T0), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T0), Arity::Required),
        f("mean", "U", Types::Of(T7), Arity::Optional),
        f("inv_std_var", "U", Types::Of(T7), Arity::Optional),
        f("input_skip_bias_sum", "T", Types::Of(T0), Arity::Optional),
    ],
    attrs: &[a("epsilon", AttrKind::Float, false)],
};
pub static TORCH_EMBEDDING: Signature = Signature {
    since: &[1],
    inputs: &[
        f("weight", "T", Types::Of(T21), Arity::Required),
        f("indices", "tensor(int64)", Types::Of(T14), Arity::Required),
        f("padding_idx", "tensor(int64)", Types::Of(T14), Arity::Optional),
        f("scale_grad_by_freq", "tensor(bool)", Types::Of(T4), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T21), Arity::Required)],
    attrs: &[],
};
pub static TRANSPOSE_MAT_MUL: Signature = Signature {
    since: &[1],
    inputs: &[f("A", "T", Types::Of(T3), Arity::Required), f("B", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T3), Arity::Required)],
    attrs: &[
        a("alpha", AttrKind::Float, false),
        a("transA", AttrKind::Int, false),
        a("transB", AttrKind::Int, false),
    ],
};
pub static TRILU: Signature = Signature {
    since: &[1],
    inputs: &[
        f("X", "T", Types::Of(T22), Arity::Required),
        f("k", "tensor(int64)", Types::Of(T14), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T22), Arity::Required)],
    attrs: &[a("upper", AttrKind::Int, false)],
};
