//! The one function that generated code of an artefact calls.

use crate::Plan;
use crate::codec::Field;
use crate::ready::{Image, Memory, Model};
use std::sync::atomic::{AtomicPtr, Ordering::*};

/// Statuses of a run, as the header has them.
const OK: i32 = 0;
const BAD_POINTER: i32 = 1;
const BAD_PLAN: i32 = 2;
const FAILED: i32 = 3;

/// Runs a model. `pointers` are the inputs, then the outputs; `state` holds the packed model once it is made.
///
/// # Safety
/// Called by generated code only, with its own image; the pointers are of the sizes the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn compress_artefact_run(
    plan: *const u8,
    plan_bytes: usize,
    constants: *const u8,
    code: *const *const u8,
    state: *const AtomicPtr<Model>,
    pointers: *const *mut u8,
    workspace: *mut u8,
) -> i32 {
    // SAFETY: the generated code passes its own cell.
    let state = unsafe { &*state };
    let mut model = state.load(Acquire);
    if model.is_null() {
        // SAFETY: the generated code passes its own plan.
        let mut bytes = unsafe { std::slice::from_raw_parts(plan, plan_bytes) };
        let made = Plan::take(&mut bytes).and_then(|p| Model::new(p, Image { constants, code }).ok());
        let Some(made) = made else { return BAD_PLAN };
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
    let (inputs, ports) = model.ports();
    // SAFETY: the generated code passes as many pointers as the plan has inputs and outputs.
    let pointers = unsafe { std::slice::from_raw_parts(pointers, ports.len()) };
    let aligned = |p: &*mut u8, to: usize| !p.is_null() && (*p as usize).is_multiple_of(to);
    if !pointers.iter().zip(ports).all(|(p, &to)| aligned(p, to)) || !aligned(&workspace, 64) {
        return BAD_POINTER;
    }
    let memory = Memory { workspace, inputs: &pointers[..inputs], outputs: &pointers[inputs..] };
    // SAFETY: the caller's contract, as the header states it.
    if unsafe { model.run(&memory) }.is_ok() { OK } else { FAILED }
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
