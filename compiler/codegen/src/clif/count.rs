//! Fuzz builds: blocks of generated code count how often they run.

use cranelift::codegen::ir::MemFlagsData as MemFlags;
use cranelift::prelude::*;

/// Adds one to the counter of block `number` of the loop that `what` describes; a full counter starts again.
pub fn block(b: &mut FunctionBuilder, what: &str, number: u64) {
    let place = tally::place(tally::Kind::Block, tally::key(&without_constants(what)), number);
    let flags = MemFlags::new().with_notrap();
    let p = b.ins().iconst(types::I64, place.counter as i64);
    let n = b.ins().load(types::I8, flags, p, 0);
    let n = b.ins().iadd_imm_s(n, 1);
    b.ins().store(flags, n, p, 0);
    let p = b.ins().iconst(types::I64, place.touched as i64);
    let one = b.ins().iconst(types::I8, 1);
    b.ins().store(flags, one, p, 0);
}

/// The same without the values of constants: loops that differ in them alone are the same code.
fn without_constants(what: &str) -> String {
    let mut parts = what.split("Const(");
    let mut text = parts.next().unwrap_or_default().to_string();
    for part in parts {
        text.push_str("Const");
        text.push_str(part.split_once(')').map_or("", |p| p.1));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_that_differ_in_constants_are_one() {
        assert_eq!(without_constants("Mul(In(0), Const(0.5))"), without_constants("Mul(In(0), Const(-3.0))"));
        assert_ne!(without_constants("Mul(In(0), Const(0.5))"), without_constants("Mul(In(1), Const(0.5))"));
        assert_eq!(without_constants("Add(Const(1.0), In(2))"), "Add(Const, In(2))");
    }
}
