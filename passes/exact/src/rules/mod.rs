//! The rule tables, by theme.

mod algebra;
mod attention;
mod concat;
mod einsum;
mod epilogue;
mod fuse;
mod layout;
mod lookup;
mod moved_bytes;
mod quantized;
mod recognise;
mod runtime;
mod statistics;
mod unit_dims;

use crate::Rule;

/// Every rule, in a fixed order.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    let layout = layout::UNARY
        .iter()
        .chain(layout::BINARY.as_flattened())
        .chain(layout::BLOCKS)
        .chain(layout::COLUMNS)
        .chain(layout::RULES);
    algebra::RULES
        .iter()
        .chain(layout)
        .chain(fuse::RULES)
        .chain(einsum::RULES)
        .chain(statistics::KEEP)
        .chain(statistics::RULES)
        .chain(recognise::RULES)
        .chain(attention::RULES)
        .chain(quantized::RULES)
        .chain(moved_bytes::RULES)
        .chain(concat::RULES)
        .chain(lookup::UNARY)
        .chain(lookup::BINARY.as_flattened())
        .chain(lookup::RULES)
        .chain(runtime::RULES)
        .chain(epilogue::EPILOGUES.as_flattened())
        .chain(epilogue::RULES)
        .chain(unit_dims::ACTIVATIONS)
        .chain(unit_dims::RULES)
}
