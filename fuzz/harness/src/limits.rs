//! Bounds of what one input may take.

/// Limits under which one input is looked at, so that none takes the machine: tensors, all of them, turns of loops, their work.
pub fn set_limits() {
    ir::budget::set_tensor_limit(64 << 20);
    ir::budget::set_total_limit(512 << 20);
    ir::budget::set_step_limit(1_000);
    ir::budget::set_work_limit(2_000_000);
}
