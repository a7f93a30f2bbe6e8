//! The laboratory: test hosts, and groups of real processes to which things happen.
//!
//! - [`hosts`]: network namespaces on a bridge, whose ports go down and lose packets. Traffic never leaves them.
//! - [`member`]: a member in a process of its own, which casts, writes its history, and reports its views.
//! - [`crew`]: the conductor's side: starts members, kills, stops and continues them, follows what they report.
//! - [`chaos`]: faults at random, one after the other; the histories are judged by the oracle afterwards ([`judge`]).
//! - [`failure`]: what a failure costs: from the fault to the next view, and to the first cast in it.
//! - [`reliability`]: the document of the figures, made from the reports of both.
//!
//! Nothing outlives its conductor: a member asks the system to be killed when its parent dies, and ends by itself
//! when its time is over. Only processes that the conductor has started are ever signalled, by their handles.

pub mod chaos;
pub mod clock;
pub mod command;
pub mod crew;
pub mod failure;
pub mod judge;
pub mod member;
pub mod reliability;
pub mod seat;

pub use wadjet_hosts as hosts;

pub use command::{ChaosOptions, JudgeOptions, LabOptions, ReliabilityOptions};
pub use failure::FailureOptions;
