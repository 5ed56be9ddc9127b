//! Fuzz builds: blocks of generated code count how often they run.

use cranelift::codegen::ir::MemFlagsData as MemFlags;
use cranelift::prelude::*;

/// Adds one to the counter of block `number` of the loop that `what` describes; a full counter starts again.
pub fn block(b: &mut FunctionBuilder, what: &str, number: u64) {
    let address = tally::address(tally::Kind::Block, tally::key(what), number) as usize;
    let flags = MemFlags::new().with_notrap();
    let p = b.ins().iconst(types::I64, address as i64);
    let n = b.ins().load(types::I8, flags, p, 0);
    let n = b.ins().iadd_imm_s(n, 1);
    b.ins().store(flags, n, p, 0);
}
