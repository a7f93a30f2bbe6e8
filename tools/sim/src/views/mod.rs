//! Worlds in which views follow each other: processes start alone and find each other, leave, crash, stand still, are cut
//! off, and come back under their old address with a new incarnation.
//!
//! A run has a phase of faults, and then one of liveness: faults stop for a *core* of the processes, the rest stays broken
//! for ever, and within a bounded time the core must be one view of exactly its members, and deliver everything.

mod desk;
mod exclusions;
mod expulsions;
mod home;
mod ledger;
mod partings;
mod pools;
mod setup;
mod shrink;
mod state;
mod wakes;
mod world;

pub use setup::{Chaos, Expulsion, Fate, Load, Seldom, ViewsSetup};
pub use shrink::{Shrunk, shrink};
pub use state::State;
pub use world::{Bounds, Choice, Explored, Misstep, explore, run_views};
