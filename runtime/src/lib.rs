//! Opens, compiles and runs ONNX models on the CPU.
//!
//! A [`Session`] compiles the model for each set of input shapes it meets and keeps the programs. Arrays go in by name,
//! borrowed; results come back as tensors with array views. Nothing is copied on the way when the arrays are contiguous.
//!
//! ```
//! use compress_runtime::{Session, inputs, ndarray::Array4};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/mnist-cnn.onnx");
//! let session = Session::open(path)?;
//! let image = Array4::<f32>::zeros((1, 1, 28, 28));
//! let outputs = session.run(&inputs! { "image" => &image })?;
//! let logits = outputs.view::<f32>("logits")?;
//! assert_eq!(logits.shape(), [1, 10]);
//! # Ok::<(), compress_runtime::Error>(())
//! ```
//!
//! # Threads, and the first run
//!
//! [`Session::options`] sets the number of threads; results do not depend on it, to the bit. The first run with new
//! shapes compiles a program for them. [`Session::warm_up`] does that beforehand:
//!
//! ```
//! # use compress_runtime::{Session, inputs, ndarray::Array4};
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/mnist-cnn.onnx");
//! let session = Session::options().threads(2).open(path)?;
//! let batch = Array4::<f32>::zeros((8, 1, 28, 28));
//! session.warm_up(&inputs! { "image" => &batch })?;
//! let outputs = session.run(&inputs! { "image" => &batch })?; // compiles nothing
//! assert_eq!(outputs.view::<f32>(0)?.shape(), [8, 10]);
//! # Ok::<(), compress_runtime::Error>(())
//! ```
//!
//! # What the model takes, and what is wrong with what it got
//!
//! A session knows its [inputs](Session::inputs) and [outputs](Session::outputs). An [`Error`] says in
//! [`blame`](Error::blame) who has to act, and names node, operator and tensor where they are known:
//!
//! ```
//! # use compress_runtime::{Blame, DType, Session, inputs, ndarray::Array2};
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/mnist-cnn.onnx");
//! let session = Session::open(path)?;
//! let port = session.inputs().next().expect("one input");
//! assert_eq!((port.name, port.dtype), ("image", Some(DType::F32)));
//!
//! let flat = Array2::<f32>::zeros((28, 28));
//! let error = session.run(&inputs! { "image" => &flat }).unwrap_err();
//! assert_eq!((error.blame, error.tensor.as_deref()), (Blame::Data, Some("image")));
//! # Ok::<(), compress_runtime::Error>(())
//! ```
//!
//! For other languages, `runtime/capi` offers the same through C, with the header `include/compress.h`. [`Jit`] offers
//! the engine to searches as [`ir::Evaluate`].

mod ahead;
mod batch;
mod cache;
mod evaluate;
mod inputs;
mod lend;
mod memory;
mod options;
mod outputs;
mod pool;
mod prepare;
mod profile;
mod roof;
mod session;
mod source;

pub use ahead::{Ahead, Tier, compile_ahead};
pub use batch::one_by_one;
pub use codegen::{Artefact, Precision};
pub use evaluate::Jit;
pub use inputs::Input;
pub use ir::{Blame, DType, Dim, Error, Feeds, Graph, Result, Tensor, Value};
pub use memory::{one_heap, return_freed_blocks};
pub use ndarray;
pub use options::Options;
pub use outputs::{Outputs, Which};
pub use pool::ThreadPool;
pub use profile::{Profile, Step};
pub use roof::{Roof, Roofs};
pub use session::{Port, Session};
