//! compress-ir
