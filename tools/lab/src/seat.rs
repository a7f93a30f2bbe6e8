//! What a member's process is told at its start, and what it reports: one line of JSON each.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wadjet::runtime::OpenError;
use wadjet::stack::explain::explain;
use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::Registry;

/// Over what real processes talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// UDP sockets.
    Udp,
    /// UDP through io_uring.
    Uring,
    /// AF_XDP sockets, on test hosts; takes root.
    Xdp,
    /// Shared memory of one host.
    Shm,
}

impl Carrier {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Udp => "udp",
            Carrier::Uring => "uring",
            Carrier::Xdp => "xdp",
            Carrier::Shm => "shm",
        }
    }

    /// The stack for live groups over it.
    pub fn stack(self) -> &'static str {
        match self {
            Carrier::Udp | Carrier::Uring | Carrier::Xdp => wadjet::layers::DEFAULT_STACK,
            Carrier::Shm => wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY,
        }
    }

    /// Whether members of a live group can have this stack over it.
    ///
    /// # Errors
    /// If it is refused, or agrees on no views; the text says what is missing.
    pub fn check_live(self, stack: &str, members: usize) -> Result<(), Box<dyn Error>> {
        let explanation = explain(&Registry::standard(), stack, members, !self.has_network())?;
        let top = explanation.layers.first().map_or(Properties::NONE, |layer| layer.above);
        if !top.contains(Property::ConsistentViews) {
            return Err(OpenError::NotLive { spec: stack.to_owned() }.into());
        }
        Ok(())
    }

    /// Whether members are joined by a network, which can be taken down and lose packets.
    pub fn has_network(self) -> bool {
        self != Carrier::Shm
    }

    /// Whether every member needs a test host of its own.
    pub fn needs_hosts(self) -> bool {
        self == Carrier::Xdp
    }
}

/// What a member casts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    /// One cast when a view is installed, and nothing else.
    Idle,
    /// So many casts per second, in short bursts.
    Rate(u32),
    /// As much as the group takes.
    Full,
}

/// How a member's loop waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Waiting {
    /// Blocks in the transport.
    Park,
    /// Spins while the core is its own, yields when others want it.
    Adaptive,
}

/// What members do beside casting what [`Load`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// With each burst something is sent to one other member, now and then to all others.
    pub sends: bool,
    /// Now and then a cast has so many bytes; zero: never.
    pub large_bytes: usize,
    /// Where the stack has XFER, the state that a member gives to another one has so many bytes beside its digest.
    pub state_bytes: usize,
}

/// A member's place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seat {
    /// Which process: it keeps its number over restarts.
    pub process: u32,
    /// Which life.
    pub incarnation: u64,
    /// The group.
    pub group: String,
    /// Over what.
    pub carrier: Carrier,
    /// The stack, top to bottom.
    pub stack: String,
    /// Where it is reached.
    pub address: String,
    /// Where others may be.
    pub contacts: Vec<String>,
    /// What it casts.
    pub load: Load,
    /// Bytes of a cast; 16 at least.
    pub bytes: usize,
    /// What it does beside casting.
    pub extras: Extras,
    /// How its loop waits.
    pub waiting: Waiting,
    /// Where its history is written, if it is.
    pub history: Option<PathBuf>,
    /// It ends by itself after so long.
    pub life: Duration,
}

impl Seat {
    /// Whether the stack has a layer of that name.
    pub fn has_layer(&self, layer: &str) -> bool {
        self.stack.split(':').any(|named| named.split('(').next() == Some(layer))
    }
}

/// What the conductor says to a member, one line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Cast nothing any more; say [`Word::Settled`] with this number when nothing more is delivered.
    Quiet(u32),
    /// The history ends here.
    Close,
    /// Leave the group.
    Leave,
    /// Say how the stack stands, as [`Word::Stack`].
    Tell,
}

/// The id of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ViewName {
    /// Its counter.
    pub counter: u64,
    /// The incarnation that proposed it.
    pub coordinator: u64,
}

/// What a member reports; times are nanoseconds on the host's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// It is about to join.
    Joining {
        /// When.
        at: u64,
    },
    /// A view is installed.
    View {
        /// When.
        at: u64,
        /// Which.
        view: ViewName,
        /// The incarnations of its members, by rank.
        members: Vec<u64>,
    },
    /// The first cast of another member in a view is delivered.
    First {
        /// When.
        at: u64,
        /// In which.
        view: ViewName,
    },
    /// Members are suspected.
    Suspect {
        /// When.
        at: u64,
        /// Their incarnations.
        members: Vec<u64>,
        /// Who has found that out, and how.
        why: String,
    },
    /// After [`Order::Tell`], how its stack stands.
    Stack {
        /// When.
        at: u64,
        /// A line for each layer that has something to say, and what the membership has counted so far.
        lines: Vec<String>,
    },
    /// Something is wrong but survived.
    Problem(String),
    /// The group is over for it.
    Exit {
        /// When.
        at: u64,
        /// Why.
        reason: String,
    },
    /// After [`Order::Quiet`] of that number, nothing was delivered for a while.
    Settled(u32),
    /// After [`Order::Close`], the history is whole.
    Closed,
    /// It ends in good order.
    End {
        /// Messages it cast.
        casts: u64,
        /// Messages delivered to it.
        delivered: u64,
        /// Gaps in which its loop did not run.
        pauses: u64,
        /// The longest such gap, in nanoseconds.
        pause_longest: u64,
        /// What the layers and the stack counted.
        counts: Vec<(String, u64)>,
    },
    /// It could not begin, or not go on.
    Failed(String),
}
