//! table
//! Signatures of the standard operators at their newest version: formal inputs, outputs and attributes, and the opset
//! versions at which each definition changed (ONNX operator specification, opset 28).

use ir::DType::*;
use ir::{Arity, AttrFormal, AttrKind, DType, Formal, Signature, Types};

const fn f(name: &'static str, type_name: &'static str, types: Types, arity: Arity) -> Formal {
    Formal { name, type_name, types, arity }
}
const fn a(name: &'static str, kind: AttrKind, required: bool) -> AttrFormal {
    AttrFormal { name, kind, required }
}

const T0: &[DType] = &[F32, U8, I8, U16, I16, I32, I64, F16, F64, U32, U64, BF16];
const T1: &[DType] = &[F32, F16, F64, BF16];
const T2: &[DType] = &[I64];
const T3: &[DType] = &[Bool];
const T4: &[DType] = &[F32, U8, I8, U16, I16, I32, I64, Bool, F16, F64, U32, U64, BF16];
const T5: &[DType] = &[
    F32, U8, I8, U16, I16, I32, I64, Bool, F16, F64, U32, U64, C64, C128, BF16, F8E4M3FN, F8E4M3FNUZ, F8E5M2,
    F8E5M2FNUZ, U4, I4, F4E2M1, F8E8M0, U2, I2,
];
const T6: &[DType] = &[U8, I8, U16, I16, I32, I64, U32, U64];
const T7: &[DType] = &[I32, I64];
const T8: &[DType] = &[
    F32, U8, I8, U16, I16, I32, I64, String, Bool, F16, F64, U32, U64, BF16, F8E4M3FN, F8E4M3FNUZ, F8E5M2,
    F8E5M2FNUZ, U4, I4, F4E2M1, F8E8M0, U2, I2,
];
const T9: &[DType] = &[F32, F16, BF16];
const T10: &[DType] = &[F32, U8, I8, U16, I16, I32, I64, String, Bool, F16, F64, U32, U64, C64, C128, BF16];
const T11: &[DType] = &[F32, U8, I8, U16, I16, I32, I64, String, Bool, F16, F64, U32, U64, C64, C128];
const T12: &[DType] = &[
    F32, U8, I8, U16, I16, I32, I64, String, Bool, F16, F64, U32, U64, C64, C128, BF16, F8E4M3FN, F8E4M3FNUZ,
    F8E5M2, F8E5M2FNUZ, U4, I4, F4E2M1, F8E8M0, U2, I2,
];
const T13: &[DType] = &[
    F32, U8, I8, U16, I16, I32, I64, Bool, F16, F64, U32, U64, BF16, F8E4M3FN, F8E4M3FNUZ, F8E5M2,
    F8E5M2FNUZ, U4, I4, F4E2M1, F8E8M0, U2, I2,
];
const T14: &[DType] = &[U8, I8];
const T15: &[DType] = &[I32];
const T16: &[DType] = &[F32, I32, I64, F16, F64, U32, U64, BF16];
const T17: &[DType] =
    &[U8, I8, U16, I16, I32, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, U4, I4, F4E2M1, U2, I2];
const T18: &[DType] = &[F32, F16, BF16, F8E8M0];
const T19: &[DType] = &[F32, F16, F64, BF16, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ];
const T20: &[DType] = &[F32];
const T21: &[DType] = &[U8];
const T22: &[DType] = &[F32, U8, I8, U16, I16, I32, I64, String, Bool, F16, F64, U32, U64, BF16];
const T23: &[DType] = &[F32, BF16];
const T24: &[DType] = &[F32, U8, I8, F16, F64, BF16];
const T25: &[DType] = &[F32, I8, I16, I32, I64, F16, F64, BF16];
const T26: &[DType] = &[F32, U8, I8, U16, I16, I32, I64, F16, F64, U32, U64];
const T27: &[DType] = &[F32, I32, I64, F16, F64, BF16];
const T28: &[DType] = &[U8, I8, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ];
const T29: &[DType] = &[F32, I32, F16, BF16];
const T30: &[DType] = &[F32, I32, F16, BF16, F8E8M0];
const T31: &[DType] = &[U8, I8, U16, I16, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, U4, I4, F4E2M1, U2, I2];
const T32: &[DType] = &[F32, I16, I32, I64, F16, F64, BF16];
const T33: &[DType] = &[F32, U8, I8, I32, I64, Bool, F16, F64, U32, U64, BF16];
const T34: &[DType] = &[String];
const T35: &[DType] = &[F32, F16, F64];
const T36: &[DType] = &[
    F32, U8, I8, U16, I16, I32, I64, String, Bool, F16, F64, U32, U64, C64, C128, BF16, F8E4M3FN, F8E4M3FNUZ,
    F8E5M2, F8E5M2FNUZ, U4, I4, F4E2M1, F8E8M0,
];
const T37: &[DType] = &[I32, I64, String];

/// Abs
pub static ABS: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("X", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// Acos
pub static ACOS: Signature = Signature {
    since: &[7, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Acosh
pub static ACOSH: Signature = Signature {
    since: &[9, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Add
pub static ADD: Signature = Signature {
    since: &[1, 6, 7, 13, 14],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// AffineGrid
pub static AFFINE_GRID: Signature = Signature {
    since: &[20],
    inputs: &[
        f("theta", "T1", Types::Of(T1), Arity::Required),
        f("size", "T2", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("grid", "T1", Types::Of(T1), Arity::Required)],
    attrs: &[a("align_corners", AttrKind::Int, false)],
};
/// And
pub static AND: Signature = Signature {
    since: &[1, 7],
    inputs: &[f("A", "T", Types::Of(T3), Arity::Required), f("B", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// ArgMax
pub static ARG_MAX: Signature = Signature {
    since: &[1, 11, 12, 13],
    inputs: &[f("data", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("reduced", "tensor(int64)", Types::Of(T2), Arity::Required)],
    attrs: &[
        a("axis", AttrKind::Int, false),
        a("keepdims", AttrKind::Int, false),
        a("select_last_index", AttrKind::Int, false),
    ],
};
/// ArgMin
pub static ARG_MIN: Signature = Signature {
    since: &[1, 11, 12, 13],
    inputs: &[f("data", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("reduced", "tensor(int64)", Types::Of(T2), Arity::Required)],
    attrs: &[
        a("axis", AttrKind::Int, false),
        a("keepdims", AttrKind::Int, false),
        a("select_last_index", AttrKind::Int, false),
    ],
};
/// Asin
pub static ASIN: Signature = Signature {
    since: &[7, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Asinh
pub static ASINH: Signature = Signature {
    since: &[9, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Atan
pub static ATAN: Signature = Signature {
    since: &[7, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Atanh
pub static ATANH: Signature = Signature {
    since: &[9, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Attention
pub static ATTENTION: Signature = Signature {
    since: &[23, 24, 25],
    inputs: &[
        f("Q", "T1", Types::Of(T1), Arity::Required),
        f("K", "T1", Types::Of(T1), Arity::Required),
        f("V", "T2", Types::Of(T1), Arity::Required),
        f("attn_mask", "U", Types::Of(T4), Arity::Optional),
        f("past_key", "T1", Types::Of(T1), Arity::Optional),
        f("past_value", "T2", Types::Of(T1), Arity::Optional),
        f("nonpad_kv_seqlen", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[
        f("Y", "T1", Types::Of(T1), Arity::Required),
        f("present_key", "T1", Types::Of(T1), Arity::Optional),
        f("present_value", "T2", Types::Of(T1), Arity::Optional),
        f("qk_matmul_output", "T1", Types::Of(T1), Arity::Optional),
    ],
    attrs: &[
        a("is_causal", AttrKind::Int, false),
        a("kv_num_heads", AttrKind::Int, false),
        a("left_window_size", AttrKind::Int, false),
        a("q_num_heads", AttrKind::Int, false),
        a("qk_matmul_output_mode", AttrKind::Int, false),
        a("right_window_size", AttrKind::Int, false),
        a("scale", AttrKind::Float, false),
        a("softcap", AttrKind::Float, false),
        a("softmax_precision", AttrKind::Int, false),
    ],
};
/// AveragePool
pub static AVERAGE_POOL: Signature = Signature {
    since: &[1, 7, 10, 11, 19, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("ceil_mode", AttrKind::Int, false),
        a("count_include_pad", AttrKind::Int, false),
        a("dilations", AttrKind::Ints, false),
        a("kernel_shape", AttrKind::Ints, true),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// BatchNormalization
pub static BATCH_NORMALIZATION: Signature = Signature {
    since: &[1, 6, 7, 9, 14, 15],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("scale", "T1", Types::Of(T1), Arity::Required),
        f("B", "T1", Types::Of(T1), Arity::Required),
        f("input_mean", "T2", Types::Of(T1), Arity::Required),
        f("input_var", "T2", Types::Of(T1), Arity::Required),
    ],
    outputs: &[
        f("Y", "T", Types::Of(T1), Arity::Required),
        f("running_mean", "T2", Types::Of(T1), Arity::Optional),
        f("running_var", "T2", Types::Of(T1), Arity::Optional),
    ],
    attrs: &[
        a("epsilon", AttrKind::Float, false),
        a("momentum", AttrKind::Float, false),
        a("training_mode", AttrKind::Int, false),
    ],
};
/// Bernoulli
pub static BERNOULLI: Signature = Signature {
    since: &[15, 22],
    inputs: &[f("input", "T1", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T4), Arity::Required)],
    attrs: &[a("dtype", AttrKind::Int, false), a("seed", AttrKind::Float, false)],
};
/// BitCast
pub static BIT_CAST: Signature = Signature {
    since: &[26],
    inputs: &[f("input", "T1", Types::Of(T5), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T5), Arity::Required)],
    attrs: &[a("to", AttrKind::Int, true)],
};
/// BitShift
pub static BIT_SHIFT: Signature = Signature {
    since: &[11, 28],
    inputs: &[f("X", "T", Types::Of(T6), Arity::Required), f("Y", "T", Types::Of(T6), Arity::Required)],
    outputs: &[f("Z", "T", Types::Of(T6), Arity::Required)],
    attrs: &[a("direction", AttrKind::Str, true)],
};
/// BitwiseAnd
pub static BITWISE_AND: Signature = Signature {
    since: &[18],
    inputs: &[f("A", "T", Types::Of(T6), Arity::Required), f("B", "T", Types::Of(T6), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T6), Arity::Required)],
    attrs: &[],
};
/// BitwiseNot
pub static BITWISE_NOT: Signature = Signature {
    since: &[18],
    inputs: &[f("X", "T", Types::Of(T6), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T6), Arity::Required)],
    attrs: &[],
};
/// BitwiseOr
pub static BITWISE_OR: Signature = Signature {
    since: &[18],
    inputs: &[f("A", "T", Types::Of(T6), Arity::Required), f("B", "T", Types::Of(T6), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T6), Arity::Required)],
    attrs: &[],
};
/// BitwiseXor
pub static BITWISE_XOR: Signature = Signature {
    since: &[18],
    inputs: &[f("A", "T", Types::Of(T6), Arity::Required), f("B", "T", Types::Of(T6), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T6), Arity::Required)],
    attrs: &[],
};
/// BlackmanWindow
pub static BLACKMAN_WINDOW: Signature = Signature {
    since: &[17],
    inputs: &[f("size", "T1", Types::Of(T7), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T0), Arity::Required)],
    attrs: &[a("output_datatype", AttrKind::Int, false), a("periodic", AttrKind::Int, false)],
};
/// Cast
pub static CAST: Signature = Signature {
    since: &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28],
    inputs: &[f("input", "T1", Types::Of(T8), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T8), Arity::Required)],
    attrs: &[
        a("round_mode", AttrKind::Str, false),
        a("saturate", AttrKind::Int, false),
        a("to", AttrKind::Int, true),
    ],
};
/// CastLike
pub static CAST_LIKE: Signature = Signature {
    since: &[15, 19, 21, 23, 24, 25],
    inputs: &[
        f("input", "T1", Types::Of(T8), Arity::Required),
        f("target_type", "T2", Types::Of(T8), Arity::Required),
    ],
    outputs: &[f("output", "T2", Types::Of(T8), Arity::Required)],
    attrs: &[a("round_mode", AttrKind::Str, false), a("saturate", AttrKind::Int, false)],
};
/// CausalConvWithState
pub static CAUSAL_CONV_WITH_STATE: Signature = Signature {
    since: &[27],
    inputs: &[
        f("input", "T", Types::Of(T9), Arity::Required),
        f("weight", "T", Types::Of(T9), Arity::Required),
        f("bias", "T", Types::Of(T9), Arity::Optional),
        f("past_state", "T", Types::Of(T9), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T9), Arity::Required),
        f("present_state", "T", Types::Of(T9), Arity::Required),
    ],
    attrs: &[a("activation", AttrKind::Str, false)],
};
/// Ceil
pub static CEIL: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Celu
pub static CELU: Signature = Signature {
    since: &[12, 28],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
/// CenterCropPad
pub static CENTER_CROP_PAD: Signature = Signature {
    since: &[18],
    inputs: &[
        f("input_data", "T", Types::Of(T10), Arity::Required),
        f("shape", "Tind", Types::Of(T7), Arity::Required),
    ],
    outputs: &[f("output_data", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("axes", AttrKind::Ints, false)],
};
/// Clip
pub static CLIP: Signature = Signature {
    since: &[1, 6, 11, 12, 13],
    inputs: &[
        f("input", "T", Types::Of(T0), Arity::Required),
        f("min", "T", Types::Of(T0), Arity::Optional),
        f("max", "T", Types::Of(T0), Arity::Optional),
    ],
    outputs: &[f("output", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// Col2Im
pub static COL2_IM: Signature = Signature {
    since: &[18],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("image_shape", "tensor(int64)", Types::Of(T2), Arity::Required),
        f("block_shape", "tensor(int64)", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[
        a("dilations", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// Compress
pub static COMPRESS: Signature = Signature {
    since: &[9, 11, 28],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("condition", "T1", Types::Of(T3), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// Concat
pub static CONCAT: Signature = Signature {
    since: &[1, 4, 11, 13],
    inputs: &[f("inputs", "T", Types::Of(T10), Arity::Variadic)],
    outputs: &[f("concat_result", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, true)],
};
/// ConcatFromSequence
pub static CONCAT_FROM_SEQUENCE: Signature = Signature {
    since: &[11],
    inputs: &[f("input_sequence", "S", Types::Any, Arity::Required)],
    outputs: &[f("concat_result", "T", Types::Of(T11), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, true), a("new_axis", AttrKind::Int, false)],
};
/// Constant
pub static CONSTANT: Signature = Signature {
    since: &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25],
    inputs: &[],
    outputs: &[f("output", "T", Types::Of(T12), Arity::Required)],
    attrs: &[
        a("value", AttrKind::Tensor, false),
        a("value_float", AttrKind::Float, false),
        a("value_floats", AttrKind::Floats, false),
        a("value_int", AttrKind::Int, false),
        a("value_ints", AttrKind::Ints, false),
        a("value_string", AttrKind::Str, false),
        a("value_strings", AttrKind::Strs, false),
    ],
};
/// ConstantOfShape
pub static CONSTANT_OF_SHAPE: Signature = Signature {
    since: &[9, 20, 21, 23, 24, 25],
    inputs: &[f("input", "T1", Types::Of(T2), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T13), Arity::Required)],
    attrs: &[a("value", AttrKind::Tensor, false)],
};
/// Conv
pub static CONV: Signature = Signature {
    since: &[1, 11, 22],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// ConvInteger
pub static CONV_INTEGER: Signature = Signature {
    since: &[10],
    inputs: &[
        f("x", "T1", Types::Of(T14), Arity::Required),
        f("w", "T2", Types::Of(T14), Arity::Required),
        f("x_zero_point", "T1", Types::Of(T14), Arity::Optional),
        f("w_zero_point", "T2", Types::Of(T14), Arity::Optional),
    ],
    outputs: &[f("y", "T3", Types::Of(T15), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// ConvTranspose
pub static CONV_TRANSPOSE: Signature = Signature {
    since: &[1, 11, 22],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("output_padding", AttrKind::Ints, false),
        a("output_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// Cos
pub static COS: Signature = Signature {
    since: &[7, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Cosh
pub static COSH: Signature = Signature {
    since: &[9, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// CumProd
pub static CUM_PROD: Signature = Signature {
    since: &[26],
    inputs: &[f("x", "T", Types::Of(T16), Arity::Required), f("axis", "T2", Types::Of(T7), Arity::Required)],
    outputs: &[f("y", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("exclusive", AttrKind::Int, false), a("reverse", AttrKind::Int, false)],
};
/// CumSum
pub static CUM_SUM: Signature = Signature {
    since: &[11, 14],
    inputs: &[f("x", "T", Types::Of(T16), Arity::Required), f("axis", "T2", Types::Of(T7), Arity::Required)],
    outputs: &[f("y", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("exclusive", AttrKind::Int, false), a("reverse", AttrKind::Int, false)],
};
/// DFT
pub static DFT: Signature = Signature {
    since: &[17, 20],
    inputs: &[
        f("input", "T1", Types::Of(T1), Arity::Required),
        f("dft_length", "T2", Types::Of(T7), Arity::Optional),
        f("axis", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("output", "T1", Types::Of(T1), Arity::Required)],
    attrs: &[a("inverse", AttrKind::Int, false), a("onesided", AttrKind::Int, false)],
};
/// DeformConv
pub static DEFORM_CONV: Signature = Signature {
    since: &[19, 22],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("offset", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
        f("mask", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("offset_group", AttrKind::Int, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// DepthToSpace
pub static DEPTH_TO_SPACE: Signature = Signature {
    since: &[1, 11, 13, 28],
    inputs: &[f("input", "T", Types::Of(T10), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("blocksize", AttrKind::Int, true), a("mode", AttrKind::Str, false)],
};
/// DequantizeLinear
pub static DEQUANTIZE_LINEAR: Signature = Signature {
    since: &[10, 13, 19, 21, 23, 24, 25, 28],
    inputs: &[
        f("x", "T1", Types::Of(T17), Arity::Required),
        f("x_scale", "T2", Types::Of(T18), Arity::Required),
        f("x_zero_point", "T1", Types::Of(T17), Arity::Optional),
    ],
    outputs: &[f("y", "T3", Types::Of(T9), Arity::Required)],
    attrs: &[
        a("axis", AttrKind::Int, false),
        a("block_size", AttrKind::Int, false),
        a("output_dtype", AttrKind::Int, false),
    ],
};
/// Det
pub static DET: Signature = Signature {
    since: &[11, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Div
pub static DIV: Signature = Signature {
    since: &[1, 6, 7, 13, 14],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// Dropout
pub static DROPOUT: Signature = Signature {
    since: &[1, 6, 7, 10, 12, 13, 22],
    inputs: &[
        f("data", "T", Types::Of(T19), Arity::Required),
        f("ratio", "T1", Types::Of(T19), Arity::Optional),
        f("training_mode", "T2", Types::Of(T3), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T19), Arity::Required),
        f("mask", "T2", Types::Of(T3), Arity::Optional),
    ],
    attrs: &[a("seed", AttrKind::Int, false)],
};
/// DynamicQuantizeLinear
pub static DYNAMIC_QUANTIZE_LINEAR: Signature = Signature {
    since: &[11],
    inputs: &[f("x", "T1", Types::Of(T20), Arity::Required)],
    outputs: &[
        f("y", "T2", Types::Of(T21), Arity::Required),
        f("y_scale", "tensor(float)", Types::Of(T20), Arity::Required),
        f("y_zero_point", "T2", Types::Of(T21), Arity::Required),
    ],
    attrs: &[],
};
/// Einsum
pub static EINSUM: Signature = Signature {
    since: &[12, 28],
    inputs: &[f("Inputs", "T", Types::Of(T0), Arity::Variadic)],
    outputs: &[f("Output", "T", Types::Of(T0), Arity::Required)],
    attrs: &[a("equation", AttrKind::Str, true)],
};
/// Elu
pub static ELU: Signature = Signature {
    since: &[1, 6, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
/// Equal
pub static EQUAL: Signature = Signature {
    since: &[1, 7, 11, 13, 19],
    inputs: &[f("A", "T", Types::Of(T22), Arity::Required), f("B", "T", Types::Of(T22), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// Erf
pub static ERF: Signature = Signature {
    since: &[9, 13],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Exp
pub static EXP: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Expand
pub static EXPAND: Signature = Signature {
    since: &[8, 13],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("shape", "tensor(int64)", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[],
};
/// EyeLike
pub static EYE_LIKE: Signature = Signature {
    since: &[9, 22],
    inputs: &[f("input", "T1", Types::Of(T4), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T4), Arity::Required)],
    attrs: &[a("dtype", AttrKind::Int, false), a("k", AttrKind::Int, false)],
};
/// Flatten
pub static FLATTEN: Signature = Signature {
    since: &[1, 9, 11, 13, 21, 23, 24, 25],
    inputs: &[f("input", "T", Types::Of(T12), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T12), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// Floor
pub static FLOOR: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// GRU
pub static GRU: Signature = Signature {
    since: &[1, 3, 7, 14, 22],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("R", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
        f("sequence_lens", "T1", Types::Of(T15), Arity::Optional),
        f("initial_h", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Optional), f("Y_h", "T", Types::Of(T1), Arity::Optional)],
    attrs: &[
        a("activation_alpha", AttrKind::Floats, false),
        a("activation_beta", AttrKind::Floats, false),
        a("activations", AttrKind::Strs, false),
        a("clip", AttrKind::Float, false),
        a("direction", AttrKind::Str, false),
        a("hidden_size", AttrKind::Int, false),
        a("layout", AttrKind::Int, false),
        a("linear_before_reset", AttrKind::Int, false),
    ],
};
/// Gather
pub static GATHER: Signature = Signature {
    since: &[1, 11, 13],
    inputs: &[
        f("data", "T", Types::Of(T10), Arity::Required),
        f("indices", "Tind", Types::Of(T7), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// GatherElements
pub static GATHER_ELEMENTS: Signature = Signature {
    since: &[11, 13],
    inputs: &[
        f("data", "T", Types::Of(T10), Arity::Required),
        f("indices", "Tind", Types::Of(T7), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// GatherND
pub static GATHER_ND: Signature = Signature {
    since: &[11, 12, 13],
    inputs: &[
        f("data", "T", Types::Of(T10), Arity::Required),
        f("indices", "tensor(int64)", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("batch_dims", AttrKind::Int, false)],
};
/// Gelu
pub static GELU: Signature = Signature {
    since: &[20],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("approximate", AttrKind::Str, false)],
};
/// Gemm
pub static GEMM: Signature = Signature {
    since: &[1, 6, 7, 9, 11, 13],
    inputs: &[
        f("A", "T", Types::Of(T16), Arity::Required),
        f("B", "T", Types::Of(T16), Arity::Required),
        f("C", "T", Types::Of(T16), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T16), Arity::Required)],
    attrs: &[
        a("alpha", AttrKind::Float, false),
        a("beta", AttrKind::Float, false),
        a("transA", AttrKind::Int, false),
        a("transB", AttrKind::Int, false),
    ],
};
/// GlobalAveragePool
pub static GLOBAL_AVERAGE_POOL: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// GlobalLpPool
pub static GLOBAL_LP_POOL: Signature = Signature {
    since: &[1, 2, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("p", AttrKind::Int, false)],
};
/// GlobalMaxPool
pub static GLOBAL_MAX_POOL: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Greater
pub static GREATER: Signature = Signature {
    since: &[1, 7, 9, 13],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// GreaterOrEqual
pub static GREATER_OR_EQUAL: Signature = Signature {
    since: &[12, 16],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// GridSample
pub static GRID_SAMPLE: Signature = Signature {
    since: &[16, 20, 22],
    inputs: &[f("X", "T1", Types::Of(T10), Arity::Required), f("grid", "T2", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T1", Types::Of(T10), Arity::Required)],
    attrs: &[
        a("align_corners", AttrKind::Int, false),
        a("mode", AttrKind::Str, false),
        a("padding_mode", AttrKind::Str, false),
    ],
};
/// GroupNormalization
pub static GROUP_NORMALIZATION: Signature = Signature {
    since: &[18, 21],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("scale", "T", Types::Of(T1), Arity::Required),
        f("bias", "T", Types::Of(T1), Arity::Required),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("epsilon", AttrKind::Float, false),
        a("num_groups", AttrKind::Int, true),
        a("stash_type", AttrKind::Int, false),
    ],
};
/// HammingWindow
pub static HAMMING_WINDOW: Signature = Signature {
    since: &[17],
    inputs: &[f("size", "T1", Types::Of(T7), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T0), Arity::Required)],
    attrs: &[a("output_datatype", AttrKind::Int, false), a("periodic", AttrKind::Int, false)],
};
/// HannWindow
pub static HANN_WINDOW: Signature = Signature {
    since: &[17],
    inputs: &[f("size", "T1", Types::Of(T7), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T0), Arity::Required)],
    attrs: &[a("output_datatype", AttrKind::Int, false), a("periodic", AttrKind::Int, false)],
};
/// HardSigmoid
pub static HARD_SIGMOID: Signature = Signature {
    since: &[1, 6, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false), a("beta", AttrKind::Float, false)],
};
/// HardSwish
pub static HARD_SWISH: Signature = Signature {
    since: &[14, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Hardmax
pub static HARDMAX: Signature = Signature {
    since: &[1, 11, 13],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// Identity
pub static IDENTITY: Signature = Signature {
    since: &[1, 13, 14, 16, 19, 21, 23, 24, 25],
    inputs: &[f("input", "V", Types::Any, Arity::Required)],
    outputs: &[f("output", "V", Types::Any, Arity::Required)],
    attrs: &[],
};
/// If
pub static IF: Signature = Signature {
    since: &[1, 11, 13, 16, 19, 21, 23, 24, 25],
    inputs: &[f("cond", "B", Types::Of(T3), Arity::Required)],
    outputs: &[f("outputs", "V", Types::Any, Arity::Variadic)],
    attrs: &[a("else_branch", AttrKind::Graph, true), a("then_branch", AttrKind::Graph, true)],
};
/// ImageDecoder
pub static IMAGE_DECODER: Signature = Signature {
    since: &[20],
    inputs: &[f("encoded_stream", "T1", Types::Of(T21), Arity::Required)],
    outputs: &[f("image", "T2", Types::Of(T21), Arity::Required)],
    attrs: &[a("pixel_format", AttrKind::Str, false)],
};
/// InstanceNormalization
pub static INSTANCE_NORMALIZATION: Signature = Signature {
    since: &[1, 6, 22],
    inputs: &[
        f("input", "T", Types::Of(T1), Arity::Required),
        f("scale", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("epsilon", AttrKind::Float, false)],
};
/// ir.Attention
pub static IR_ATTENTION: Signature = Signature {
    since: &[],
    inputs: &[
        f("Q", "T", Types::Of(T1), Arity::Required),
        f("K", "T", Types::Of(T1), Arity::Required),
        f("V", "T", Types::Of(T1), Arity::Required),
        f("mask", "U", Types::Of(T4), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("fill", AttrKind::Float, false),
        a("k_perm", AttrKind::Ints, true),
        a("q_perm", AttrKind::Ints, true),
        a("scale", AttrKind::Float, false),
        a("v_perm", AttrKind::Ints, true),
        a("y_perm", AttrKind::Ints, true),
    ],
};
/// ir.FusedConv
pub static IR_FUSED_CONV: Signature = Signature {
    since: &[],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
        f("residual", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("act_alpha", AttrKind::Float, false),
        a("act_beta", AttrKind::Float, false),
        a("activation", AttrKind::Str, false),
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("residual_last", AttrKind::Int, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// ir.FusedConvTranspose
pub static IR_FUSED_CONV_TRANSPOSE: Signature = Signature {
    since: &[],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
        f("residual", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("act_alpha", AttrKind::Float, false),
        a("act_beta", AttrKind::Float, false),
        a("activation", AttrKind::Str, false),
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("output_padding", AttrKind::Ints, false),
        a("output_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("residual_last", AttrKind::Int, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// ir.FusedGemm
pub static IR_FUSED_GEMM: Signature = Signature {
    since: &[],
    inputs: &[
        f("A", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Required),
        f("C", "T", Types::Of(T1), Arity::Optional),
        f("residual", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("act_alpha", AttrKind::Float, false),
        a("act_beta", AttrKind::Float, false),
        a("activation", AttrKind::Str, false),
        a("alpha", AttrKind::Float, false),
        a("beta", AttrKind::Float, false),
        a("residual_last", AttrKind::Int, false),
        a("transA", AttrKind::Int, false),
        a("transB", AttrKind::Int, false),
    ],
};
/// ir.FusedMatMul
pub static IR_FUSED_MAT_MUL: Signature = Signature {
    since: &[],
    inputs: &[
        f("A", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Required),
        f("bias", "T", Types::Of(T1), Arity::Optional),
        f("residual", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("act_alpha", AttrKind::Float, false),
        a("act_beta", AttrKind::Float, false),
        a("activation", AttrKind::Str, false),
        a("residual_last", AttrKind::Int, false),
    ],
};
/// IsInf
pub static IS_INF: Signature = Signature {
    since: &[10, 20],
    inputs: &[f("X", "T1", Types::Of(T19), Arity::Required)],
    outputs: &[f("Y", "T2", Types::Of(T3), Arity::Required)],
    attrs: &[a("detect_negative", AttrKind::Int, false), a("detect_positive", AttrKind::Int, false)],
};
/// IsNaN
pub static IS_NA_N: Signature = Signature {
    since: &[9, 13, 20],
    inputs: &[f("X", "T1", Types::Of(T19), Arity::Required)],
    outputs: &[f("Y", "T2", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// LRN
pub static LRN: Signature = Signature {
    since: &[1, 13],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("alpha", AttrKind::Float, false),
        a("beta", AttrKind::Float, false),
        a("bias", AttrKind::Float, false),
        a("size", AttrKind::Int, true),
    ],
};
/// LSTM
pub static LSTM: Signature = Signature {
    since: &[1, 7, 14, 22],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("R", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
        f("sequence_lens", "T1", Types::Of(T15), Arity::Optional),
        f("initial_h", "T", Types::Of(T1), Arity::Optional),
        f("initial_c", "T", Types::Of(T1), Arity::Optional),
        f("P", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[
        f("Y", "T", Types::Of(T1), Arity::Optional),
        f("Y_h", "T", Types::Of(T1), Arity::Optional),
        f("Y_c", "T", Types::Of(T1), Arity::Optional),
    ],
    attrs: &[
        a("activation_alpha", AttrKind::Floats, false),
        a("activation_beta", AttrKind::Floats, false),
        a("activations", AttrKind::Strs, false),
        a("clip", AttrKind::Float, false),
        a("direction", AttrKind::Str, false),
        a("hidden_size", AttrKind::Int, false),
        a("input_forget", AttrKind::Int, false),
        a("layout", AttrKind::Int, false),
    ],
};
/// LayerNormalization
pub static LAYER_NORMALIZATION: Signature = Signature {
    since: &[17],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("Scale", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[
        f("Y", "T", Types::Of(T1), Arity::Required),
        f("Mean", "U", Types::Of(T23), Arity::Optional),
        f("InvStdDev", "U", Types::Of(T23), Arity::Optional),
    ],
    attrs: &[
        a("axis", AttrKind::Int, false),
        a("epsilon", AttrKind::Float, false),
        a("stash_type", AttrKind::Int, false),
    ],
};
/// LeakyRelu
pub static LEAKY_RELU: Signature = Signature {
    since: &[1, 6, 16],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
/// Less
pub static LESS: Signature = Signature {
    since: &[1, 7, 9, 13],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// LessOrEqual
pub static LESS_OR_EQUAL: Signature = Signature {
    since: &[12, 16],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// LinearAttention
pub static LINEAR_ATTENTION: Signature = Signature {
    since: &[27],
    inputs: &[
        f("query", "T", Types::Of(T9), Arity::Required),
        f("key", "T", Types::Of(T9), Arity::Required),
        f("value", "T", Types::Of(T9), Arity::Required),
        f("past_state", "S", Types::Of(T9), Arity::Optional),
        f("decay", "T", Types::Of(T9), Arity::Optional),
        f("beta", "T", Types::Of(T9), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T9), Arity::Required),
        f("present_state", "S", Types::Of(T9), Arity::Required),
    ],
    attrs: &[
        a("chunk_size", AttrKind::Int, false),
        a("kv_num_heads", AttrKind::Int, true),
        a("q_num_heads", AttrKind::Int, true),
        a("scale", AttrKind::Float, false),
        a("update_rule", AttrKind::Str, false),
    ],
};
/// Log
pub static LOG: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// LogSoftmax
pub static LOG_SOFTMAX: Signature = Signature {
    since: &[1, 11, 13],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// Loop
pub static LOOP: Signature = Signature {
    since: &[1, 11, 13, 16, 19, 21, 23, 24, 25],
    inputs: &[
        f("M", "I", Types::Of(T2), Arity::Optional),
        f("cond", "B", Types::Of(T3), Arity::Optional),
        f("v_initial", "V", Types::Any, Arity::Variadic),
    ],
    outputs: &[f("v_final_and_scan_outputs", "V", Types::Any, Arity::Variadic)],
    attrs: &[a("body", AttrKind::Graph, true)],
};
/// LpNormalization
pub static LP_NORMALIZATION: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false), a("p", AttrKind::Int, false)],
};
/// LpPool
pub static LP_POOL: Signature = Signature {
    since: &[1, 2, 11, 18, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("ceil_mode", AttrKind::Int, false),
        a("dilations", AttrKind::Ints, false),
        a("kernel_shape", AttrKind::Ints, true),
        a("p", AttrKind::Int, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// MatMul
pub static MAT_MUL: Signature = Signature {
    since: &[1, 9, 13],
    inputs: &[f("A", "T", Types::Of(T16), Arity::Required), f("B", "T", Types::Of(T16), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T16), Arity::Required)],
    attrs: &[],
};
/// MatMulInteger
pub static MAT_MUL_INTEGER: Signature = Signature {
    since: &[10],
    inputs: &[
        f("A", "T1", Types::Of(T14), Arity::Required),
        f("B", "T2", Types::Of(T14), Arity::Required),
        f("a_zero_point", "T1", Types::Of(T14), Arity::Optional),
        f("b_zero_point", "T2", Types::Of(T14), Arity::Optional),
    ],
    outputs: &[f("Y", "T3", Types::Of(T15), Arity::Required)],
    attrs: &[],
};
/// Max
pub static MAX: Signature = Signature {
    since: &[1, 6, 8, 12, 13],
    inputs: &[f("data_0", "T", Types::Of(T0), Arity::Variadic)],
    outputs: &[f("max", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// MaxPool
pub static MAX_POOL: Signature = Signature {
    since: &[1, 8, 10, 11, 12, 22],
    inputs: &[f("X", "T", Types::Of(T24), Arity::Required)],
    outputs: &[
        f("Y", "T", Types::Of(T24), Arity::Required),
        f("Indices", "I", Types::Of(T2), Arity::Optional),
    ],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("ceil_mode", AttrKind::Int, false),
        a("dilations", AttrKind::Ints, false),
        a("kernel_shape", AttrKind::Ints, true),
        a("pads", AttrKind::Ints, false),
        a("storage_order", AttrKind::Int, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// MaxRoiPool
pub static MAX_ROI_POOL: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required), f("rois", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("pooled_shape", AttrKind::Ints, true), a("spatial_scale", AttrKind::Float, false)],
};
/// MaxUnpool
pub static MAX_UNPOOL: Signature = Signature {
    since: &[9, 11, 22],
    inputs: &[
        f("X", "T1", Types::Of(T1), Arity::Required),
        f("I", "T2", Types::Of(T2), Arity::Required),
        f("output_shape", "T2", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("output", "T1", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("kernel_shape", AttrKind::Ints, true),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// Mean
pub static MEAN: Signature = Signature {
    since: &[1, 6, 8, 13],
    inputs: &[f("data_0", "T", Types::Of(T1), Arity::Variadic)],
    outputs: &[f("mean", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// MeanVarianceNormalization
pub static MEAN_VARIANCE_NORMALIZATION: Signature = Signature {
    since: &[9, 13],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("axes", AttrKind::Ints, false)],
};
/// MelWeightMatrix
pub static MEL_WEIGHT_MATRIX: Signature = Signature {
    since: &[17],
    inputs: &[
        f("num_mel_bins", "T1", Types::Of(T7), Arity::Required),
        f("dft_length", "T1", Types::Of(T7), Arity::Required),
        f("sample_rate", "T1", Types::Of(T7), Arity::Required),
        f("lower_edge_hertz", "T2", Types::Of(T1), Arity::Required),
        f("upper_edge_hertz", "T2", Types::Of(T1), Arity::Required),
    ],
    outputs: &[f("output", "T3", Types::Of(T0), Arity::Required)],
    attrs: &[a("output_datatype", AttrKind::Int, false)],
};
/// Min
pub static MIN: Signature = Signature {
    since: &[1, 6, 8, 12, 13],
    inputs: &[f("data_0", "T", Types::Of(T0), Arity::Variadic)],
    outputs: &[f("min", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// Mish
pub static MISH: Signature = Signature {
    since: &[18, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Mod
pub static MOD: Signature = Signature {
    since: &[10, 13, 28],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T0), Arity::Required)],
    attrs: &[a("fmod", AttrKind::Int, false)],
};
/// Mul
pub static MUL: Signature = Signature {
    since: &[1, 6, 7, 13, 14],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// Multinomial
pub static MULTINOMIAL: Signature = Signature {
    since: &[7, 22],
    inputs: &[f("input", "T1", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T7), Arity::Required)],
    attrs: &[
        a("dtype", AttrKind::Int, false),
        a("sample_size", AttrKind::Int, false),
        a("seed", AttrKind::Float, false),
    ],
};
/// Neg
pub static NEG: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("X", "T", Types::Of(T25), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T25), Arity::Required)],
    attrs: &[],
};
/// NegativeLogLikelihoodLoss
pub static NEGATIVE_LOG_LIKELIHOOD_LOSS: Signature = Signature {
    since: &[12, 13, 22],
    inputs: &[
        f("input", "T", Types::Of(T1), Arity::Required),
        f("target", "Tind", Types::Of(T7), Arity::Required),
        f("weight", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("loss", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("ignore_index", AttrKind::Int, false), a("reduction", AttrKind::Str, false)],
};
/// NonMaxSuppression
pub static NON_MAX_SUPPRESSION: Signature = Signature {
    since: &[10, 11],
    inputs: &[
        f("boxes", "tensor(float)", Types::Of(T20), Arity::Required),
        f("scores", "tensor(float)", Types::Of(T20), Arity::Required),
        f("max_output_boxes_per_class", "tensor(int64)", Types::Of(T2), Arity::Optional),
        f("iou_threshold", "tensor(float)", Types::Of(T20), Arity::Optional),
        f("score_threshold", "tensor(float)", Types::Of(T20), Arity::Optional),
    ],
    outputs: &[f("selected_indices", "tensor(int64)", Types::Of(T2), Arity::Required)],
    attrs: &[a("center_point_box", AttrKind::Int, false)],
};
/// NonZero
pub static NON_ZERO: Signature = Signature {
    since: &[9, 13],
    inputs: &[f("X", "T", Types::Of(T10), Arity::Required)],
    outputs: &[f("Y", "tensor(int64)", Types::Of(T2), Arity::Required)],
    attrs: &[],
};
/// Not
pub static NOT: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// OneHot
pub static ONE_HOT: Signature = Signature {
    since: &[9, 11, 28],
    inputs: &[
        f("indices", "T1", Types::Of(T26), Arity::Required),
        f("depth", "T2", Types::Of(T26), Arity::Required),
        f("values", "T3", Types::Of(T10), Arity::Required),
    ],
    outputs: &[f("output", "T3", Types::Of(T10), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// Optional
pub static OPTIONAL: Signature = Signature {
    since: &[15, 28],
    inputs: &[f("input", "V", Types::Any, Arity::Optional)],
    outputs: &[f("output", "O", Types::Any, Arity::Required)],
    attrs: &[a("type", AttrKind::Type, false)],
};
/// OptionalGetElement
pub static OPTIONAL_GET_ELEMENT: Signature = Signature {
    since: &[15, 18, 28],
    inputs: &[f("input", "O", Types::Any, Arity::Required)],
    outputs: &[f("output", "V", Types::Any, Arity::Required)],
    attrs: &[],
};
/// OptionalHasElement
pub static OPTIONAL_HAS_ELEMENT: Signature = Signature {
    since: &[15, 18, 28],
    inputs: &[f("input", "O", Types::Any, Arity::Optional)],
    outputs: &[f("output", "B", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// Or
pub static OR: Signature = Signature {
    since: &[1, 7],
    inputs: &[f("A", "T", Types::Of(T3), Arity::Required), f("B", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
/// PRelu
pub static P_RELU: Signature = Signature {
    since: &[1, 6, 7, 9, 16],
    inputs: &[f("X", "T", Types::Of(T16), Arity::Required), f("slope", "T", Types::Of(T16), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T16), Arity::Required)],
    attrs: &[],
};
/// Pad
pub static PAD: Signature = Signature {
    since: &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25],
    inputs: &[
        f("data", "T", Types::Of(T12), Arity::Required),
        f("pads", "tensor(int64)", Types::Of(T2), Arity::Required),
        f("constant_value", "T", Types::Of(T12), Arity::Optional),
        f("axes", "Tind", Types::Of(T7), Arity::Optional),
    ],
    outputs: &[f("output", "T", Types::Of(T12), Arity::Required)],
    attrs: &[a("mode", AttrKind::Str, false)],
};
/// Pow
pub static POW: Signature = Signature {
    since: &[1, 7, 12, 13, 15],
    inputs: &[f("X", "T", Types::Of(T27), Arity::Required), f("Y", "T1", Types::Of(T0), Arity::Required)],
    outputs: &[f("Z", "T", Types::Of(T27), Arity::Required)],
    attrs: &[],
};
/// QLinearConv
pub static Q_LINEAR_CONV: Signature = Signature {
    since: &[10],
    inputs: &[
        f("x", "T1", Types::Of(T14), Arity::Required),
        f("x_scale", "tensor(float)", Types::Of(T20), Arity::Required),
        f("x_zero_point", "T1", Types::Of(T14), Arity::Required),
        f("w", "T2", Types::Of(T14), Arity::Required),
        f("w_scale", "tensor(float)", Types::Of(T20), Arity::Required),
        f("w_zero_point", "T2", Types::Of(T14), Arity::Required),
        f("y_scale", "tensor(float)", Types::Of(T20), Arity::Required),
        f("y_zero_point", "T3", Types::Of(T14), Arity::Required),
        f("B", "T4", Types::Of(T15), Arity::Optional),
    ],
    outputs: &[f("y", "T3", Types::Of(T14), Arity::Required)],
    attrs: &[
        a("auto_pad", AttrKind::Str, false),
        a("dilations", AttrKind::Ints, false),
        a("group", AttrKind::Int, false),
        a("kernel_shape", AttrKind::Ints, false),
        a("pads", AttrKind::Ints, false),
        a("strides", AttrKind::Ints, false),
    ],
};
/// QLinearMatMul
pub static Q_LINEAR_MAT_MUL: Signature = Signature {
    since: &[10, 21],
    inputs: &[
        f("a", "T1", Types::Of(T28), Arity::Required),
        f("a_scale", "TS", Types::Of(T9), Arity::Required),
        f("a_zero_point", "T1", Types::Of(T28), Arity::Required),
        f("b", "T2", Types::Of(T28), Arity::Required),
        f("b_scale", "TS", Types::Of(T9), Arity::Required),
        f("b_zero_point", "T2", Types::Of(T28), Arity::Required),
        f("y_scale", "TS", Types::Of(T9), Arity::Required),
        f("y_zero_point", "T3", Types::Of(T28), Arity::Required),
    ],
    outputs: &[f("y", "T3", Types::Of(T28), Arity::Required)],
    attrs: &[],
};
/// QuantizeLinear
pub static QUANTIZE_LINEAR: Signature = Signature {
    since: &[10, 13, 19, 21, 23, 24, 25, 28],
    inputs: &[
        f("x", "T1", Types::Of(T29), Arity::Required),
        f("y_scale", "T2", Types::Of(T30), Arity::Required),
        f("y_zero_point", "T3", Types::Of(T31), Arity::Optional),
    ],
    outputs: &[f("y", "T3", Types::Of(T31), Arity::Required)],
    attrs: &[
        a("axis", AttrKind::Int, false),
        a("block_size", AttrKind::Int, false),
        a("output_dtype", AttrKind::Int, false),
        a("precision", AttrKind::Int, false),
        a("saturate", AttrKind::Int, false),
    ],
};
/// RMSNormalization
pub static RMS_NORMALIZATION: Signature = Signature {
    since: &[23],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required), f("scale", "V", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "V", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("axis", AttrKind::Int, false),
        a("epsilon", AttrKind::Float, false),
        a("stash_type", AttrKind::Int, false),
    ],
};
/// RNN
pub static RNN: Signature = Signature {
    since: &[1, 7, 14, 22],
    inputs: &[
        f("X", "T", Types::Of(T1), Arity::Required),
        f("W", "T", Types::Of(T1), Arity::Required),
        f("R", "T", Types::Of(T1), Arity::Required),
        f("B", "T", Types::Of(T1), Arity::Optional),
        f("sequence_lens", "T1", Types::Of(T15), Arity::Optional),
        f("initial_h", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Optional), f("Y_h", "T", Types::Of(T1), Arity::Optional)],
    attrs: &[
        a("activation_alpha", AttrKind::Floats, false),
        a("activation_beta", AttrKind::Floats, false),
        a("activations", AttrKind::Strs, false),
        a("clip", AttrKind::Float, false),
        a("direction", AttrKind::Str, false),
        a("hidden_size", AttrKind::Int, false),
        a("layout", AttrKind::Int, false),
    ],
};
/// RandomNormal
pub static RANDOM_NORMAL: Signature = Signature {
    since: &[1, 22],
    inputs: &[],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("dtype", AttrKind::Int, false),
        a("mean", AttrKind::Float, false),
        a("scale", AttrKind::Float, false),
        a("seed", AttrKind::Float, false),
        a("shape", AttrKind::Ints, true),
    ],
};
/// RandomNormalLike
pub static RANDOM_NORMAL_LIKE: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("input", "T1", Types::Of(T10), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("dtype", AttrKind::Int, false),
        a("mean", AttrKind::Float, false),
        a("scale", AttrKind::Float, false),
        a("seed", AttrKind::Float, false),
    ],
};
/// RandomUniform
pub static RANDOM_UNIFORM: Signature = Signature {
    since: &[1, 22],
    inputs: &[],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("dtype", AttrKind::Int, false),
        a("high", AttrKind::Float, false),
        a("low", AttrKind::Float, false),
        a("seed", AttrKind::Float, false),
        a("shape", AttrKind::Ints, true),
    ],
};
/// RandomUniformLike
pub static RANDOM_UNIFORM_LIKE: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("input", "T1", Types::Of(T10), Arity::Required)],
    outputs: &[f("output", "T2", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("dtype", AttrKind::Int, false),
        a("high", AttrKind::Float, false),
        a("low", AttrKind::Float, false),
        a("seed", AttrKind::Float, false),
    ],
};
/// Range
pub static RANGE: Signature = Signature {
    since: &[11, 27],
    inputs: &[
        f("start", "T", Types::Of(T32), Arity::Required),
        f("limit", "T", Types::Of(T32), Arity::Required),
        f("delta", "T", Types::Of(T32), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T32), Arity::Required)],
    attrs: &[a("stash_type", AttrKind::Int, false)],
};
/// Reciprocal
pub static RECIPROCAL: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// ReduceL1
pub static REDUCE_L1: Signature = Signature {
    since: &[1, 11, 13, 18],
    inputs: &[
        f("data", "T", Types::Of(T16), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceL2
pub static REDUCE_L2: Signature = Signature {
    since: &[1, 11, 13, 18],
    inputs: &[
        f("data", "T", Types::Of(T16), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceLogSum
pub static REDUCE_LOG_SUM: Signature = Signature {
    since: &[1, 11, 13, 18, 28],
    inputs: &[
        f("data", "T", Types::Of(T1), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceLogSumExp
pub static REDUCE_LOG_SUM_EXP: Signature = Signature {
    since: &[1, 11, 13, 18, 28],
    inputs: &[
        f("data", "T", Types::Of(T1), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceMax
pub static REDUCE_MAX: Signature = Signature {
    since: &[1, 11, 12, 13, 18, 20],
    inputs: &[
        f("data", "T", Types::Of(T33), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T33), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceMean
pub static REDUCE_MEAN: Signature = Signature {
    since: &[1, 11, 13, 18],
    inputs: &[
        f("data", "T", Types::Of(T16), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceMin
pub static REDUCE_MIN: Signature = Signature {
    since: &[1, 11, 12, 13, 18, 20],
    inputs: &[
        f("data", "T", Types::Of(T33), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T33), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceProd
pub static REDUCE_PROD: Signature = Signature {
    since: &[1, 11, 13, 18],
    inputs: &[
        f("data", "T", Types::Of(T16), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceSum
pub static REDUCE_SUM: Signature = Signature {
    since: &[1, 11, 13],
    inputs: &[
        f("data", "T", Types::Of(T16), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// ReduceSumSquare
pub static REDUCE_SUM_SQUARE: Signature = Signature {
    since: &[1, 11, 13, 18],
    inputs: &[
        f("data", "T", Types::Of(T16), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("reduced", "T", Types::Of(T16), Arity::Required)],
    attrs: &[a("keepdims", AttrKind::Int, false), a("noop_with_empty_axes", AttrKind::Int, false)],
};
/// RegexFullMatch
pub static REGEX_FULL_MATCH: Signature = Signature {
    since: &[20],
    inputs: &[f("X", "T1", Types::Of(T34), Arity::Required)],
    outputs: &[f("Y", "T2", Types::Of(T3), Arity::Required)],
    attrs: &[a("pattern", AttrKind::Str, false)],
};
/// Relu
pub static RELU: Signature = Signature {
    since: &[1, 6, 13, 14],
    inputs: &[f("X", "T", Types::Of(T25), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T25), Arity::Required)],
    attrs: &[],
};
/// Reshape
pub static RESHAPE: Signature = Signature {
    since: &[1, 5, 13, 14, 19, 21, 23, 24, 25],
    inputs: &[
        f("data", "T", Types::Of(T12), Arity::Required),
        f("shape", "tensor(int64)", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("reshaped", "T", Types::Of(T12), Arity::Required)],
    attrs: &[a("allowzero", AttrKind::Int, false)],
};
/// Resize
pub static RESIZE: Signature = Signature {
    since: &[10, 11, 13, 18, 19],
    inputs: &[
        f("X", "T1", Types::Of(T10), Arity::Required),
        f("roi", "T2", Types::Of(T35), Arity::Optional),
        f("scales", "tensor(float)", Types::Of(T20), Arity::Optional),
        f("sizes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("Y", "T1", Types::Of(T10), Arity::Required)],
    attrs: &[
        a("antialias", AttrKind::Int, false),
        a("axes", AttrKind::Ints, false),
        a("coordinate_transformation_mode", AttrKind::Str, false),
        a("cubic_coeff_a", AttrKind::Float, false),
        a("exclude_outside", AttrKind::Int, false),
        a("extrapolation_value", AttrKind::Float, false),
        a("keep_aspect_ratio_policy", AttrKind::Str, false),
        a("mode", AttrKind::Str, false),
        a("nearest_mode", AttrKind::Str, false),
    ],
};
/// ReverseSequence
pub static REVERSE_SEQUENCE: Signature = Signature {
    since: &[10, 28],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("sequence_lens", "tensor(int64)", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("Y", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("batch_axis", AttrKind::Int, false), a("time_axis", AttrKind::Int, false)],
};
/// RoiAlign
pub static ROI_ALIGN: Signature = Signature {
    since: &[10, 16, 22],
    inputs: &[
        f("X", "T1", Types::Of(T1), Arity::Required),
        f("rois", "T1", Types::Of(T1), Arity::Required),
        f("batch_indices", "T2", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("Y", "T1", Types::Of(T1), Arity::Required)],
    attrs: &[
        a("coordinate_transformation_mode", AttrKind::Str, false),
        a("mode", AttrKind::Str, false),
        a("output_height", AttrKind::Int, false),
        a("output_width", AttrKind::Int, false),
        a("sampling_ratio", AttrKind::Int, false),
        a("spatial_scale", AttrKind::Float, false),
    ],
};
/// RotaryEmbedding
pub static ROTARY_EMBEDDING: Signature = Signature {
    since: &[23],
    inputs: &[
        f("X", "T", Types::Of(T9), Arity::Required),
        f("cos_cache", "T", Types::Of(T9), Arity::Required),
        f("sin_cache", "T", Types::Of(T9), Arity::Required),
        f("position_ids", "M", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("Y", "T", Types::Of(T9), Arity::Required)],
    attrs: &[
        a("interleaved", AttrKind::Int, false),
        a("num_heads", AttrKind::Int, false),
        a("rotary_embedding_dim", AttrKind::Int, false),
    ],
};
/// Round
pub static ROUND: Signature = Signature {
    since: &[11, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// STFT
pub static STFT: Signature = Signature {
    since: &[17],
    inputs: &[
        f("signal", "T1", Types::Of(T1), Arity::Required),
        f("frame_step", "T2", Types::Of(T7), Arity::Required),
        f("window", "T1", Types::Of(T1), Arity::Optional),
        f("frame_length", "T2", Types::Of(T7), Arity::Optional),
    ],
    outputs: &[f("output", "T1", Types::Of(T1), Arity::Required)],
    attrs: &[a("onesided", AttrKind::Int, false)],
};
/// Scan
pub static SCAN: Signature = Signature {
    since: &[8, 9, 11, 16, 19, 21, 23, 24, 25],
    inputs: &[f("initial_state_and_scan_inputs", "V", Types::Of(T12), Arity::Variadic)],
    outputs: &[f("final_state_and_scan_outputs", "V", Types::Of(T12), Arity::Variadic)],
    attrs: &[
        a("body", AttrKind::Graph, true),
        a("num_scan_inputs", AttrKind::Int, true),
        a("scan_input_axes", AttrKind::Ints, false),
        a("scan_input_directions", AttrKind::Ints, false),
        a("scan_output_axes", AttrKind::Ints, false),
        a("scan_output_directions", AttrKind::Ints, false),
    ],
};
/// ScatterElements
pub static SCATTER_ELEMENTS: Signature = Signature {
    since: &[11, 13, 16, 18],
    inputs: &[
        f("data", "T", Types::Of(T10), Arity::Required),
        f("indices", "Tind", Types::Of(T7), Arity::Required),
        f("updates", "T", Types::Of(T10), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false), a("reduction", AttrKind::Str, false)],
};
/// ScatterND
pub static SCATTER_ND: Signature = Signature {
    since: &[11, 13, 16, 18],
    inputs: &[
        f("data", "T", Types::Of(T10), Arity::Required),
        f("indices", "tensor(int64)", Types::Of(T2), Arity::Required),
        f("updates", "T", Types::Of(T10), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("reduction", AttrKind::Str, false)],
};
/// Selu
pub static SELU: Signature = Signature {
    since: &[1, 6, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false), a("gamma", AttrKind::Float, false)],
};
/// SequenceAt
pub static SEQUENCE_AT: Signature = Signature {
    since: &[11],
    inputs: &[
        f("input_sequence", "S", Types::Any, Arity::Required),
        f("position", "I", Types::Of(T7), Arity::Required),
    ],
    outputs: &[f("tensor", "T", Types::Of(T11), Arity::Required)],
    attrs: &[],
};
/// SequenceConstruct
pub static SEQUENCE_CONSTRUCT: Signature = Signature {
    since: &[11],
    inputs: &[f("inputs", "T", Types::Of(T11), Arity::Variadic)],
    outputs: &[f("output_sequence", "S", Types::Any, Arity::Required)],
    attrs: &[],
};
/// SequenceEmpty
pub static SEQUENCE_EMPTY: Signature = Signature {
    since: &[11],
    inputs: &[],
    outputs: &[f("output", "S", Types::Any, Arity::Required)],
    attrs: &[a("dtype", AttrKind::Int, false)],
};
/// SequenceErase
pub static SEQUENCE_ERASE: Signature = Signature {
    since: &[11],
    inputs: &[
        f("input_sequence", "S", Types::Any, Arity::Required),
        f("position", "I", Types::Of(T7), Arity::Optional),
    ],
    outputs: &[f("output_sequence", "S", Types::Any, Arity::Required)],
    attrs: &[],
};
/// SequenceInsert
pub static SEQUENCE_INSERT: Signature = Signature {
    since: &[11],
    inputs: &[
        f("input_sequence", "S", Types::Any, Arity::Required),
        f("tensor", "T", Types::Of(T11), Arity::Required),
        f("position", "I", Types::Of(T7), Arity::Optional),
    ],
    outputs: &[f("output_sequence", "S", Types::Any, Arity::Required)],
    attrs: &[],
};
/// SequenceLength
pub static SEQUENCE_LENGTH: Signature = Signature {
    since: &[11],
    inputs: &[f("input_sequence", "S", Types::Any, Arity::Required)],
    outputs: &[f("length", "I", Types::Of(T2), Arity::Required)],
    attrs: &[],
};
/// SequenceMap
pub static SEQUENCE_MAP: Signature = Signature {
    since: &[17],
    inputs: &[
        f("input_sequence", "S", Types::Any, Arity::Required),
        f("additional_inputs", "V", Types::Any, Arity::Variadic),
    ],
    outputs: &[f("out_sequence", "S", Types::Any, Arity::Variadic)],
    attrs: &[a("body", AttrKind::Graph, true)],
};
/// Shape
pub static SHAPE: Signature = Signature {
    since: &[1, 13, 15, 19, 21, 23, 24, 25],
    inputs: &[f("data", "T", Types::Of(T12), Arity::Required)],
    outputs: &[f("shape", "T1", Types::Of(T2), Arity::Required)],
    attrs: &[a("end", AttrKind::Int, false), a("start", AttrKind::Int, false)],
};
/// Shrink
pub static SHRINK: Signature = Signature {
    since: &[9],
    inputs: &[f("input", "T", Types::Of(T26), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T26), Arity::Required)],
    attrs: &[a("bias", AttrKind::Float, false), a("lambd", AttrKind::Float, false)],
};
/// Sigmoid
pub static SIGMOID: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Sign
pub static SIGN: Signature = Signature {
    since: &[9, 13],
    inputs: &[f("input", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// Sin
pub static SIN: Signature = Signature {
    since: &[7, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Sinh
pub static SINH: Signature = Signature {
    since: &[9, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Size
pub static SIZE: Signature = Signature {
    since: &[1, 13, 19, 21, 23, 24, 25],
    inputs: &[f("data", "T", Types::Of(T12), Arity::Required)],
    outputs: &[f("size", "T1", Types::Of(T2), Arity::Required)],
    attrs: &[],
};
/// Slice
pub static SLICE: Signature = Signature {
    since: &[1, 10, 11, 13],
    inputs: &[
        f("data", "T", Types::Of(T10), Arity::Required),
        f("starts", "Tind", Types::Of(T7), Arity::Required),
        f("ends", "Tind", Types::Of(T7), Arity::Required),
        f("axes", "Tind", Types::Of(T7), Arity::Optional),
        f("steps", "Tind", Types::Of(T7), Arity::Optional),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[],
};
/// Softmax
pub static SOFTMAX: Signature = Signature {
    since: &[1, 11, 13],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false)],
};
/// SoftmaxCrossEntropyLoss
pub static SOFTMAX_CROSS_ENTROPY_LOSS: Signature = Signature {
    since: &[12, 13],
    inputs: &[
        f("scores", "T", Types::Of(T1), Arity::Required),
        f("labels", "Tind", Types::Of(T7), Arity::Required),
        f("weights", "T", Types::Of(T1), Arity::Optional),
    ],
    outputs: &[
        f("output", "T", Types::Of(T1), Arity::Required),
        f("log_prob", "T", Types::Of(T1), Arity::Optional),
    ],
    attrs: &[a("ignore_index", AttrKind::Int, false), a("reduction", AttrKind::Str, false)],
};
/// Softplus
pub static SOFTPLUS: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Softsign
pub static SOFTSIGN: Signature = Signature {
    since: &[1, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// SpaceToDepth
pub static SPACE_TO_DEPTH: Signature = Signature {
    since: &[1, 13, 28],
    inputs: &[f("input", "T", Types::Of(T10), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("blocksize", AttrKind::Int, true), a("mode", AttrKind::Str, false)],
};
/// Split
pub static SPLIT: Signature = Signature {
    since: &[1, 2, 11, 13, 18],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("split", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("outputs", "T", Types::Of(T10), Arity::Variadic)],
    attrs: &[a("axis", AttrKind::Int, false), a("num_outputs", AttrKind::Int, false)],
};
/// SplitToSequence
pub static SPLIT_TO_SEQUENCE: Signature = Signature {
    since: &[11, 24],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("split", "I", Types::Of(T7), Arity::Optional),
    ],
    outputs: &[f("output_sequence", "S", Types::Any, Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false), a("keepdims", AttrKind::Int, false)],
};
/// Sqrt
pub static SQRT: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Squeeze
pub static SQUEEZE: Signature = Signature {
    since: &[1, 11, 13, 21, 23, 24, 25],
    inputs: &[
        f("data", "T", Types::Of(T12), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("squeezed", "T", Types::Of(T12), Arity::Required)],
    attrs: &[],
};
/// StringConcat
pub static STRING_CONCAT: Signature = Signature {
    since: &[20],
    inputs: &[f("X", "T", Types::Of(T34), Arity::Required), f("Y", "T", Types::Of(T34), Arity::Required)],
    outputs: &[f("Z", "T", Types::Of(T34), Arity::Required)],
    attrs: &[],
};
/// StringNormalizer
pub static STRING_NORMALIZER: Signature = Signature {
    since: &[10],
    inputs: &[f("X", "tensor(string)", Types::Of(T34), Arity::Required)],
    outputs: &[f("Y", "tensor(string)", Types::Of(T34), Arity::Required)],
    attrs: &[
        a("case_change_action", AttrKind::Str, false),
        a("is_case_sensitive", AttrKind::Int, false),
        a("locale", AttrKind::Str, false),
        a("stopwords", AttrKind::Strs, false),
    ],
};
/// StringSplit
pub static STRING_SPLIT: Signature = Signature {
    since: &[20],
    inputs: &[f("X", "T1", Types::Of(T34), Arity::Required)],
    outputs: &[f("Y", "T2", Types::Of(T34), Arity::Required), f("Z", "T3", Types::Of(T2), Arity::Required)],
    attrs: &[a("delimiter", AttrKind::Str, false), a("maxsplit", AttrKind::Int, false)],
};
/// Sub
pub static SUB: Signature = Signature {
    since: &[1, 6, 7, 13, 14],
    inputs: &[f("A", "T", Types::Of(T0), Arity::Required), f("B", "T", Types::Of(T0), Arity::Required)],
    outputs: &[f("C", "T", Types::Of(T0), Arity::Required)],
    attrs: &[],
};
/// Sum
pub static SUM: Signature = Signature {
    since: &[1, 6, 8, 13],
    inputs: &[f("data_0", "T", Types::Of(T1), Arity::Variadic)],
    outputs: &[f("sum", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// SwiGLU
pub static SWI_GLU: Signature = Signature {
    since: &[28],
    inputs: &[f("A", "T", Types::Of(T1), Arity::Required), f("B", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
/// Swish
pub static SWISH: Signature = Signature {
    since: &[24],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
/// Tan
pub static TAN: Signature = Signature {
    since: &[7, 22],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// Tanh
pub static TANH: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[f("input", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("output", "T", Types::Of(T1), Arity::Required)],
    attrs: &[],
};
/// TensorScatter
pub static TENSOR_SCATTER: Signature = Signature {
    since: &[24],
    inputs: &[
        f("past_cache", "T", Types::Of(T36), Arity::Required),
        f("update", "T", Types::Of(T36), Arity::Required),
        f("write_indices", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("present_cache", "T", Types::Of(T36), Arity::Required)],
    attrs: &[a("axis", AttrKind::Int, false), a("mode", AttrKind::Str, false)],
};
/// TfIdfVectorizer
pub static TF_IDF_VECTORIZER: Signature = Signature {
    since: &[9],
    inputs: &[f("X", "T", Types::Of(T37), Arity::Required)],
    outputs: &[f("Y", "T1", Types::Of(T20), Arity::Required)],
    attrs: &[
        a("max_gram_length", AttrKind::Int, true),
        a("max_skip_count", AttrKind::Int, true),
        a("min_gram_length", AttrKind::Int, true),
        a("mode", AttrKind::Str, true),
        a("ngram_counts", AttrKind::Ints, true),
        a("ngram_indexes", AttrKind::Ints, true),
        a("pool_int64s", AttrKind::Ints, false),
        a("pool_strings", AttrKind::Strs, false),
        a("weights", AttrKind::Floats, false),
    ],
};
/// ThresholdedRelu
pub static THRESHOLDED_RELU: Signature = Signature {
    since: &[10, 22],
    inputs: &[f("X", "T", Types::Of(T1), Arity::Required)],
    outputs: &[f("Y", "T", Types::Of(T1), Arity::Required)],
    attrs: &[a("alpha", AttrKind::Float, false)],
};
/// Tile
pub static TILE: Signature = Signature {
    since: &[1, 6, 13],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("repeats", "T1", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[],
};
/// TopK
pub static TOP_K: Signature = Signature {
    since: &[1, 10, 11, 24],
    inputs: &[
        f("X", "T", Types::Of(T0), Arity::Required),
        f("K", "tensor(int64)", Types::Of(T2), Arity::Required),
    ],
    outputs: &[
        f("Values", "T", Types::Of(T0), Arity::Required),
        f("Indices", "I", Types::Of(T2), Arity::Required),
    ],
    attrs: &[
        a("axis", AttrKind::Int, false),
        a("largest", AttrKind::Int, false),
        a("sorted", AttrKind::Int, false),
    ],
};
/// Transpose
pub static TRANSPOSE: Signature = Signature {
    since: &[1, 13, 21, 23, 24, 25],
    inputs: &[f("data", "T", Types::Of(T12), Arity::Required)],
    outputs: &[f("transposed", "T", Types::Of(T12), Arity::Required)],
    attrs: &[a("perm", AttrKind::Ints, false)],
};
/// Trilu
pub static TRILU: Signature = Signature {
    since: &[14],
    inputs: &[
        f("input", "T", Types::Of(T10), Arity::Required),
        f("k", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[a("upper", AttrKind::Int, false)],
};
/// Unique
pub static UNIQUE: Signature = Signature {
    since: &[11, 28],
    inputs: &[f("X", "T", Types::Of(T10), Arity::Required)],
    outputs: &[
        f("Y", "T", Types::Of(T10), Arity::Required),
        f("indices", "tensor(int64)", Types::Of(T2), Arity::Optional),
        f("inverse_indices", "tensor(int64)", Types::Of(T2), Arity::Optional),
        f("counts", "tensor(int64)", Types::Of(T2), Arity::Optional),
    ],
    attrs: &[a("axis", AttrKind::Int, false), a("sorted", AttrKind::Int, false)],
};
/// Unsqueeze
pub static UNSQUEEZE: Signature = Signature {
    since: &[1, 11, 13, 21, 23, 24, 25],
    inputs: &[
        f("data", "T", Types::Of(T12), Arity::Required),
        f("axes", "tensor(int64)", Types::Of(T2), Arity::Required),
    ],
    outputs: &[f("expanded", "T", Types::Of(T12), Arity::Required)],
    attrs: &[],
};
/// Where
pub static WHERE: Signature = Signature {
    since: &[9, 16],
    inputs: &[
        f("condition", "B", Types::Of(T3), Arity::Required),
        f("X", "T", Types::Of(T10), Arity::Required),
        f("Y", "T", Types::Of(T10), Arity::Required),
    ],
    outputs: &[f("output", "T", Types::Of(T10), Arity::Required)],
    attrs: &[],
};
/// Xor
pub static XOR: Signature = Signature {
    since: &[1, 7],
    inputs: &[f("A", "T", Types::Of(T3), Arity::Required), f("B", "T", Types::Of(T3), Arity::Required)],
    outputs: &[f("C", "T1", Types::Of(T3), Arity::Required)],
    attrs: &[],
};
