//! One file per command.

mod ahead;
mod bench;
mod big;
mod cache;
mod compress;
mod data;
mod diff;
mod dynamic;
mod fuzz;
mod hostile;
mod inspect;
mod optimize;
mod pack;
mod pareto;
mod promise;
mod run;
mod speed;
