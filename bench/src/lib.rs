//! Microsecond benchmarks of wadjet: stacks and the transports beneath them, side by side.
//!
//! [`bench`](fn@bench) is the whole of `wadjet bench`. What it measures, and how a run is made up, stands in the modules:
//! [`workload`] and [`schedule`] (the traffic), [`blocks`] and [`member`] (runs), [`processes`] (members in processes of
//! their own), [`raw`] (the baseline), [`floor`] (the bare ring), [`memory_cost`] (the stack alone), [`report`] and
//! [`table`].
//!
//! `unsafe` is used in one place, [`allocations`], because counting allocations needs it.

pub mod allocations;
pub mod blocks;
pub mod contract;
pub mod floor;
pub mod fused;
pub mod histogram;
pub mod lines;
pub mod machine;
pub mod member;
pub mod memory_cost;
pub mod memory_stack;
pub mod options;
pub mod party;
pub mod payload;
pub mod performance;
pub mod plan;
pub mod processes;
pub mod raw;
pub mod report;
pub mod schedule;
pub mod stack;
pub mod suite;
pub mod table;
pub mod ticks;
pub mod workload;
pub mod xdp;

pub use options::BenchOptions;
pub use performance::{PerformanceOptions, performance};
pub use suite::bench;
