//! compress-codegen
