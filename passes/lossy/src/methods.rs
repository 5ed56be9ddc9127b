//! The table of all compression methods.

use crate::channels::Channels;
use crate::codebook::Codebook;
use crate::coded::Coded;
use crate::float16::Float16;
use crate::int8::Int8;
use crate::int8_dynamic::Int8Dynamic;
use crate::integer::{INT2, INT3, INT3_COLUMNS, INT4, INT4_COLUMNS, INT5, INT6, INT7, INT8_WEIGHT};
use crate::joint::Joint;
use crate::low_rank::LowRank;
use crate::method::Method;
use crate::nm::TwoOfFour;
use crate::prune::Prune;
use crate::separable::Separable;
use crate::sparse::Sparse;
use crate::trellis::Trellis;
use crate::tucker::Tucker;
use crate::wide::{INT9, INT10, INT12};

/// Every method, in the order reports list them.
pub static METHODS: &[&dyn Method] = &[
    &Int8,
    &Int8Dynamic,
    &Float16,
    &INT12,
    &INT10,
    &INT9,
    &INT8_WEIGHT,
    &INT7,
    &INT6,
    &INT5,
    &INT4,
    &INT3,
    &INT2,
    &INT4_COLUMNS,
    &INT3_COLUMNS,
    &Codebook,
    &Coded,
    &Trellis,
    &LowRank,
    &Tucker,
    &Joint,
    &Separable,
    &Prune,
    &TwoOfFour,
    &Sparse,
    &Channels,
];

/// The method of this name.
pub fn find(name: &str) -> Option<&'static dyn Method> {
    METHODS.iter().copied().find(|m| m.name() == name)
}
