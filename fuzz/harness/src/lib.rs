//! Generators and oracles shared by tests and fuzzers: one `check` per target, driven by libFuzzer, by `cargo test` for a
//! second, and by replay.
#![deny(unsafe_code)]

pub mod generate;
pub mod oracle;
pub mod targets;
