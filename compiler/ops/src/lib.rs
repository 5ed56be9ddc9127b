//! compress-ops
