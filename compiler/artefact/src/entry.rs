//! The one function that generated code of an artefact calls.

use crate::loops::Code;
use crate::model::{Memory, Model};
use crate::plan::Plan;
use kernels::Serial;
use kernels::stored::{Bulk, Reader, Stored};
use std::sync::atomic::{AtomicPtr, Ordering::*};

/// Statuses of a run, as the header has them.
const OK: i32 = 0;
const BAD_POINTER: i32 = 1;
const BAD_CPU: i32 = 2;
const BAD_VALUE: i32 = 3;
const NOT_FIXED: i32 = 4;

/// Runs a model. `pointers` are the inputs, then the outputs; `state` holds the plan once it is read.
///
/// # Safety
/// Called by generated code only, with its own image; the pointers are of the sizes the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_artefact_run(
    plan: *const u8,
    plan_bytes: usize,
    constants: *const u8,
    constants_bytes: usize,
    code: *const *const u8,
    state: *const AtomicPtr<Model>,
    pointers: *const *mut u8,
    workspace: *mut u8,
) -> i32 {
    // SAFETY: the generated code passes its own cell.
    let state = unsafe { &*state };
    let mut model = state.load(Acquire);
    if model.is_null() {
        // SAFETY: the generated code passes its own plan and constants, which are there for good.
        let (stream, bulk) = unsafe {
            (std::slice::from_raw_parts(plan, plan_bytes), Bulk::new(constants, constants_bytes, None))
        };
        // What is written for wider instructions than this CPU has is not read.
        let read = Plan::take(&mut Reader { stream, bulk: bulk.clone() });
        let Some(made) = read.and_then(|p| Model::new(p, bulk)) else { return BAD_CPU };
        let made = Box::into_raw(Box::new(made));
        // Another thread may have been faster; its model is as good.
        model = match state.compare_exchange(std::ptr::null_mut(), made, AcqRel, Acquire) {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                other
            }
        };
    }
    // SAFETY: once there it stays.
    let model = unsafe { &*model };
    let plan = model.plan();
    // SAFETY: the generated code passes as many pointers as the plan has inputs and outputs.
    let pointers = unsafe { std::slice::from_raw_parts(pointers, plan.inputs.len() + plan.outputs.len()) };
    let aligned = |p: *mut u8, to: usize| !p.is_null() && (p as usize).is_multiple_of(to);
    let ports = plan.inputs.iter().chain(&plan.outputs);
    if !pointers.iter().zip(ports).all(|(p, port)| aligned(*p, port.align)) || !aligned(workspace, 64) {
        return BAD_POINTER;
    }
    let (inputs, outputs) = pointers.split_at(plan.inputs.len());
    for (i, value) in &plan.fixed {
        // SAFETY: the input has as many bytes as its port, which the plan was checked for.
        if unsafe { std::slice::from_raw_parts(inputs[*i].cast_const(), value.len()) } != &value[..] {
            return NOT_FIXED;
        }
    }
    let memory = Memory { workspace, inputs, outputs };
    // SAFETY: the table has an address for each loop.
    let code = unsafe { Code::new(std::slice::from_raw_parts(code, plan.loops)) };
    for i in 0..plan.steps.len() {
        // SAFETY: the caller's contract, as the header states it.
        if unsafe { model.step(i, &memory, code, &Serial) }.is_err() {
            return BAD_VALUE;
        }
    }
    OK
}

/// Frees the plan that runs of an object have read.
///
/// # Safety
/// `state` is the cell that an object's code passes to [`compress_artefact_run`]; no run of it is going on.
pub unsafe fn forget(state: *const AtomicPtr<Model>) {
    // SAFETY: the caller's contract; what the cell holds came from a box.
    unsafe {
        let model = (*state).swap(std::ptr::null_mut(), AcqRel);
        if !model.is_null() {
            drop(Box::from_raw(model));
        }
    }
}

/// The unwinder's functions, which the standard library names but a program that aborts on panic never needs: a walk
/// over the stack ends at once. With them an artefact needs the C library alone.
#[cfg(all(panic = "abort", not(test)))]
mod unwinder {
    macro_rules! never {
        ($($name:ident),*) => {$(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> usize {
                5 // _URC_END_OF_STACK
            }
        )*};
    }
    never!(
        _Unwind_Backtrace,
        _Unwind_GetDataRelBase,
        _Unwind_GetIP,
        _Unwind_GetIPInfo,
        _Unwind_GetLanguageSpecificData,
        _Unwind_GetRegionStart,
        _Unwind_GetTextRelBase,
        _Unwind_Resume,
        _Unwind_SetGR,
        _Unwind_SetIP
    );
}
