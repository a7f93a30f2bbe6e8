//! Wadjet: microsecond group communication.
//!
//! Processes form groups. Casts are delivered reliably and in order through a stack of small layers named at run time,
//! whose ordinary messages take a fast path compiled from the layers.

pub mod accel;
pub mod buf;
pub mod config;
pub mod endpoint;
pub mod group;
pub mod id;
pub mod layers;
pub mod runtime;
pub mod stack;
pub mod stats;
pub mod time;
pub mod transport;
pub mod view;
pub mod wire;

pub use config::{Config, Shadow};
pub use endpoint::{Endpoint, GroupKey};
pub use group::{Application, CastError, Delivery, Event, Group, SendError, Snapshot, StatePart, Ticket};
pub use id::{GroupId, Incarnation, Life, Rank, RankSet, ViewId};
pub use runtime::{Driver, DriverOptions, JoinOptions};
pub use stack::event::ExitReason;
pub use stack::run::InstallError;
pub use time::Time;
pub use view::{Address, LocalView, Member, Neighbours, View};

/// The examples in the documents, compiled and run like all others.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../docs/guide.md")]
    struct Guide;
    #[doc = include_str!("../docs/layers.md")]
    struct Layers;
}
