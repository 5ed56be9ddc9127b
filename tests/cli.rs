//! One file per command.

mod ahead;
mod bench;
mod compress;
mod diff;
mod dynamic;
mod hostile;
mod inspect;
mod optimize;
mod run;
