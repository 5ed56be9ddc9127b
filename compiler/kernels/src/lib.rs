//! Hand-written CPU kernels over slices, strides and packed layouts. The crate knows no graph, node or tensor.
//!
//! Every kernel exists for each [`Tier`] and gives the same bits for any number of threads: work is cut over rows
//! and columns of the result, never over a sum.

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod arg;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
pub mod chain;
mod columns_f32;
pub mod conv_bf16;
pub mod conv_f32;
pub mod conv_i8;
pub mod conv_shape;
pub mod conv_transpose_f32;
pub mod convert;
pub mod cumsum;
mod depthwise_f32;
mod depthwise_i8;
pub mod dispatch;
pub mod elements;
pub mod epilogue;
pub mod error;
pub mod gather;
pub mod gemm_bf16;
pub mod gemm_f32;
pub mod gemm_i8;
mod gemv_f32;
pub mod grid_sample;
mod hint;
mod indirect;
mod integers;
pub mod lrn;
mod matrix_rows;
mod memory;
mod narrow_f32;
pub mod norm;
mod pack;
pub mod pack_bf16;
pub mod pack_i8;
pub mod packed;
pub mod parallel;
mod partition;
pub mod pool_f32;
pub mod pool_i8;
mod portable;
pub mod probe;
mod quantizer;
pub mod reduce;
pub mod resize;
pub mod rnn;
pub mod roi_align;
pub mod rotary;
mod scratch;
mod simd;
pub mod softmax;
pub mod sparse_f32;
pub mod stored;
#[cfg(test)]
mod testing;
mod tile;
mod tile_bf16;
#[cfg(target_arch = "x86_64")]
use tile_bf16::native as tile_bf16_native;
mod tile_i8;
#[cfg(target_arch = "x86_64")]
mod tile_sums;
#[cfg(target_arch = "x86_64")]
use tile_sums::floats as tile_sums_floats;
pub mod topk;
pub mod transpose;
pub mod vecmath;
mod window_rows;
mod winograd_f32;

pub use bf16::native as has_bf16;
pub use conv_bf16::{PackedConvBf16, conv_bf16};
pub use conv_f32::{ConvLayout, PackedConv, conv_f32};
pub use conv_i8::{PackedConvI8, conv_i8};
pub use conv_shape::{ConvShape, Window};
pub use conv_transpose_f32::{ConvTransposeShape, PackedConvTranspose, conv_transpose_f32};
pub use dispatch::Tier;
pub use epilogue::{Activation, Affine, Epilogue, Residual};
pub use error::Error;
pub use gemm_bf16::gemm_bf16;
pub use gemm_f32::{GemmShape, Operand, gemm_dynamic_f32, gemm_dynamic_scratch, gemm_f32};
pub use gemm_i8::{Activations, Results, gemm_i8, quantizes_by_column};
pub use memory::Memory;
pub use pack::{PackedB, Strides};
pub use pack_bf16::PackedBf16;
pub use pack_i8::{PackedI8, Weights};
pub use packed::{Codes, PackedCodes, Precision, Zero, gemm_packed};
pub use parallel::{Pool, Serial};
pub use pool_f32::{Pooling, global_pool_f32, pool_f32};
pub use pool_i8::{Dequantization, global_average_i8, max_pool_i8};
pub use quantizer::Grid;
pub use sparse_f32::{SparseF32, gemm_sparse_f32};
