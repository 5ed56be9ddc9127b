//! Hand-written CPU kernels over slices, strides and packed layouts. The crate knows no graph, node or tensor.
//!
//! Every kernel exists for each [`Tier`] and gives the same bits for any number of threads: work is cut over rows
//! and columns of the result, never over a sum.

pub mod attention;
pub mod dispatch;
pub mod epilogue;
pub mod error;
pub mod norm;
pub mod parallel;
mod partition;
pub mod reduce;
mod scratch;
mod simd;
pub mod softmax;
pub mod transpose;
pub mod vecmath;

pub use dispatch::Tier;
pub use epilogue::{Activation, Epilogue, Residual};
pub use error::Error;
pub use parallel::{Pool, Serial};
