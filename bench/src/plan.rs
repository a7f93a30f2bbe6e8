//! What one run of a benchmark is: made by the command line, carried to the members' processes.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::histogram::Recorded;
use crate::party::Account;
use crate::payload::Faults;
use crate::schedule::Arrivals;
use crate::workload::{BlockResult, Pattern};
use crate::xdp::XdpArguments;

/// A transport, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// All members in one thread.
    Memory,
    /// Shared memory of one host.
    Shm,
    /// UDP sockets, on the loopback interface.
    Udp,
    /// UDP through io_uring, on the loopback interface.
    Uring,
    /// AF_XDP sockets, on test hosts that are made for the run: takes root.
    Xdp,
}

impl TransportKind {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            TransportKind::Memory => "memory",
            TransportKind::Shm => "shm",
            TransportKind::Udp => "udp",
            TransportKind::Uring => "uring",
            TransportKind::Xdp => "xdp",
        }
    }

    /// Whether members have IP addresses.
    pub fn is_ip(self) -> bool {
        matches!(self, TransportKind::Udp | TransportKind::Uring)
    }

    /// Whether the bytes need no checksum above it.
    pub fn has_integrity(self) -> bool {
        matches!(self, TransportKind::Memory | TransportKind::Shm)
    }

    /// The default stack over it: the full virtually synchronous one, with the same heartbeats and more patience. Nothing fails
    /// here, and members may be kept off their cores by others, or by blocks of raw frames.
    pub fn default_stack(self) -> String {
        let stack = if self.has_integrity() {
            wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY
        } else {
            wadjet::layers::DEFAULT_STACK
        };
        stack.replace("SUSPECT", PATIENT)
    }
}

const PATIENT: &str = "SUSPECT(least_ms=5000,busy_ms=5000,most_ms=10000,first_ms=10000)";

/// What a stack promises about the order of casts, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Each sender's casts in the order in which it cast them.
    Fifo,
    /// All casts in one order everywhere: TOTAL.
    Agreed,
    /// The same, and not before every member of the view holds them: SAFE over TOTAL.
    Safe,
    /// All casts agreed, in the stack where they could be safe: each message says which it is.
    AgreedUnderSafe,
    /// All casts in one order everywhere, which one member makes: SEQUENCER.
    Sequenced,
    /// The same, and not before every member of the view holds them: SAFE over SEQUENCER.
    SafeSequenced,
}

impl Order {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Order::Fifo => "fifo",
            Order::Agreed => "agreed",
            Order::Safe => "safe",
            Order::AgreedUnderSafe => "agreed-under-safe",
            Order::Sequenced => "sequenced",
            Order::SafeSequenced => "safe-sequenced",
        }
    }

    /// Whether all members deliver all casts in one order.
    pub fn is_total(self) -> bool {
        self != Order::Fifo
    }

    /// The default stack of that order over a transport.
    pub fn stack(self, transport: TransportKind) -> String {
        let above = match self {
            Order::Fifo => "",
            Order::Agreed => "TOTAL:",
            Order::Safe | Order::AgreedUnderSafe => "SAFE:TOTAL:",
            Order::Sequenced => "SEQUENCER:",
            Order::SafeSequenced => "SAFE:SEQUENCER:",
        };
        format!("{above}{}", transport.default_stack())
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// The transport alone.
    Raw,
    /// The stack.
    Stack,
    /// Both, in turn, in so many pairs of short blocks.
    Versus {
        /// Pairs.
        blocks: usize,
    },
}

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Length {
    /// Seconds of measuring, all blocks together.
    Time(Duration),
    /// Messages by each sender (rounds of a ping-pong).
    Messages(u64),
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Over what.
    pub transport: TransportKind,
    /// What is measured.
    pub subject: Subject,
    /// The stack, top to bottom.
    pub stack: String,
    /// Whether casts are agreed that the stack would make safe else.
    pub agreed: bool,
    /// Whether the plans compiled from the stack are used.
    pub accel: bool,
    /// Whether messages are packed while the way is busy.
    pub pack: bool,
    /// Whether UDP may send and receive runs of frames as one.
    pub offload: bool,
    /// The test hosts that members run on, if they stand already.
    pub lab: Option<String>,
    /// How AF_XDP is used, over xdp.
    pub xdp: XdpArguments,
    /// Members of the view.
    pub members: usize,
    /// Bytes of a message.
    pub size: usize,
    /// Who talks to whom.
    pub pattern: Pattern,
    /// Open loop: messages per second by each sender; without it, as fast as it goes. Raw blocks beside a stack's send as
    /// many messages as the stack's block before sent frames.
    pub rate: Option<f64>,
    /// How they are spread over time.
    pub arrivals: Arrivals,
    /// Percent of the measured capacity that this rate is; without a rate, the run that measures the capacity (100).
    pub load: Option<f64>,
    /// How long.
    pub length: Length,
    /// The cores members are pinned to, in turn; empty: not pinned.
    pub cores: Vec<usize>,
}

impl Plan {
    /// The core of a member.
    pub fn core(&self, rank: usize) -> Option<usize> {
        (!self.cores.is_empty()).then(|| self.cores[rank % self.cores.len()])
    }

    /// Whether members share cores.
    pub fn shares_cores(&self) -> bool {
        let cores = if self.cores.is_empty() { wadjet::runtime::cores().len() } else { self.cores.len() };
        self.transport != TransportKind::Memory && self.members > cores
    }

    /// Whether the stack has a layer of that name.
    pub fn has_layer(&self, name: &str) -> bool {
        self.stack.split(':').any(|layer| layer.split('(').next() == Some(name))
    }

    /// What the stack promises about order.
    pub fn order(&self) -> Order {
        match (self.has_layer("SAFE"), self.has_layer("TOTAL"), self.has_layer("SEQUENCER")) {
            (true, _, true) => Order::SafeSequenced,
            (false, _, true) => Order::Sequenced,
            (true, _, false) if self.agreed => Order::AgreedUnderSafe,
            (true, _, false) => Order::Safe,
            (false, true, false) => Order::Agreed,
            (false, false, false) => Order::Fifo,
        }
    }

    /// Layers of the stack.
    pub fn layers(&self) -> usize {
        self.stack.split(':').filter(|layer| !layer.is_empty()).count()
    }

    /// When a member's process gives up, whatever happens.
    pub fn time_limit(&self) -> Duration {
        match self.length {
            Length::Time(time) => time * 3 + Duration::from_secs(20),
            // Slower than anything measured on shared cores.
            Length::Messages(count) => Duration::from_secs(60 + count / 20_000),
        }
    }
}

/// What a member's process needs beside the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seat {
    /// The run.
    pub plan: Plan,
    /// This member.
    pub rank: usize,
    /// Tells runs apart: enters group names, incarnations and addresses.
    pub run: u64,
    /// Where the members are reached by the stack, in rank order.
    pub stack_addresses: Vec<String>,
    /// Where they are reached without.
    pub raw_addresses: Vec<String>,
}

/// What one member says of raw or stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// All blocks together.
    pub total: BlockResult,
    /// The latencies of all blocks.
    pub latencies: Recorded,
    /// Block by block.
    pub blocks: Vec<BlockResult>,
    /// Messages this member cast.
    pub sent: u64,
    /// What was done while measuring.
    pub account: Account,
    /// Allocations while measuring; `None` if not counted.
    pub allocations: Option<u64>,
    /// What went wrong, warm-up included.
    pub faults: Faults,
    /// A digest of the sequence in which the messages of all members came, warm-up included.
    pub sequence: u64,
    /// What the transport could not give, in words.
    pub notes: Vec<String>,
}

/// What one member says at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Which.
    pub rank: usize,
    /// Without a stack.
    pub raw: Option<Side>,
    /// With one.
    pub stack: Option<Side>,
    /// Resident memory before and after measuring, in bytes.
    pub resident_bytes: (u64, u64),
    /// Whether the member found others on its core.
    pub crowded: bool,
    /// Why the run did not end well, in words.
    pub failure: Option<String>,
}
