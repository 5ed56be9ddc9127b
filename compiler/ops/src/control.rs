use ir::Operator;

pub static OPERATORS: &[&dyn Operator] = &[];
