//! One file per command.

pub mod bench;
pub mod build;
pub mod compress;
pub mod diff;
pub mod inspect;
pub mod optimize;
pub mod run;
