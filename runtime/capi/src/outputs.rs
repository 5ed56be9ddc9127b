//! Results of a run.

use crate::session::{give, shared};
use crate::status::{argument, compress_status, guard};
use crate::tensor::{compress_tensor, name};
use ir::Value;
use runtime::Outputs;
use std::ffi::CString;

/// The outputs of one run, in the model's order.
pub struct compress_outputs {
    list: Vec<(CString, Value)>,
}

impl compress_outputs {
    pub(crate) fn new(outputs: &Outputs) -> compress_outputs {
        compress_outputs { list: outputs.iter().map(|(n, v)| (name(n), v.clone())).collect() }
    }
}

/// Output `index` as a tensor whose pointers are valid until the outputs are freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_outputs_get(
    outputs: *const compress_outputs,
    index: usize,
    tensor: *mut compress_tensor,
) -> compress_status {
    guard(|| {
        // SAFETY: the caller's contract.
        let list = &unsafe { shared(outputs, "the outputs") }?.list;
        let found = list.get(index).ok_or_else(|| argument(format!("index {index} of {}", list.len())))?;
        let t = found.1.tensor().map_err(|e| ir::Error::unsupported(e.message))?;
        if t.dtype() == ir::DType::String {
            return Err(ir::Error::unsupported("strings cannot be passed to C").into());
        }
        // SAFETY: as above.
        unsafe { give(tensor, compress_tensor::view(&found.0, t)) }
    })
}

/// Frees the outputs of a run; null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_outputs_free(outputs: *mut compress_outputs) {
    guard(|| {
        if !outputs.is_null() {
            // SAFETY: the caller's contract: it came from `Box::into_raw` and is freed once.
            drop(unsafe { Box::from_raw(outputs) });
        }
        Ok(())
    });
}
