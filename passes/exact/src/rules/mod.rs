//! The rule tables, by theme.

mod algebra;
mod fuse;
mod layout;
mod recognise;
mod runtime;

use crate::Rule;

/// Every rule, in a fixed order.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [algebra::RULES, layout::RULES, fuse::RULES, recognise::RULES, runtime::RULES].into_iter().flatten()
}
