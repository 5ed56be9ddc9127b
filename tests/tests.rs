//! Tests from outside: the real binary, its exit codes, its files.

mod cli;
mod harness;
mod hostile;
mod tidy;
