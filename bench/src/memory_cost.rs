//! What the stack costs in memory: a cast from one endpoint to another and both upcalls, in one thread, on no
//! transport at all.
//!
//! *Warm*: batches of operations, the median of the batches' means. *Cold*: a walk over more memory than the caches
//! hold before each single operation, the median of those (data caches only: the walk leaves code and branch
//! predictors what they are). Both with everything that follows from a cast: own copy, reports, trimming.

use std::error::Error;
use std::hint::black_box;

use serde::{Deserialize, Serialize};
use wadjet::layers::{DEFAULT_STACK, DEFAULT_STACK_WITH_INTEGRITY};

use crate::fused::{FusedPair, Upcall};
use crate::histogram::median;
use crate::memory_stack::StackPair;
use crate::ticks::Ticks;

/// How a message is cast and delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// By two functions written by hand.
    #[default]
    Fused,
    /// By the compiled plans, each message in an iteration of its own: with its share of polls and post-processing.
    Fast,
    /// By the compiled plans, many messages to an iteration, one to a frame.
    Burst,
    /// By the compiled plans, many messages to a frame.
    Packed,
    /// By the layers, each message in an iteration of its own.
    Slow,
}

impl Path {
    /// The name in JSON and in names of scenarios.
    pub fn name(self) -> &'static str {
        match self {
            Path::Fused => "fused",
            Path::Fast => "fast",
            Path::Burst => "burst",
            Path::Packed => "packed",
            Path::Slow => "slow",
        }
    }
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryCost {
    /// The stack, top to bottom; empty for the hand-fused reference.
    pub stack: String,
    /// Its layers.
    pub layers: usize,
    /// Whether there is a checksum.
    pub checksum: bool,
    /// How.
    pub path: Path,
    /// Bytes of a message.
    pub size: usize,
    /// Messages cast at once.
    pub messages: u32,
    /// Nanoseconds per message, caches warm.
    pub warm_ns: f64,
    /// Nanoseconds per message, caches thrashed before each.
    pub cold_ns: f64,
}

/// Something that casts and delivers messages.
pub trait Operation {
    /// Does it once, with all that follows from it.
    fn once(&mut self);
    /// How many messages that is.
    fn messages(&self) -> u32 {
        1
    }
}

/// The reference as an operation.
#[derive(Debug)]
pub struct Fused {
    pair: FusedPair,
    here: Counter,
    there: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    messages: u64,
    bytes: u64,
}

impl Upcall for Counter {
    #[inline(never)]
    fn message(&mut self, _origin: usize, message: &[u8]) {
        self.messages += 1;
        self.bytes += message.len() as u64;
    }
}

impl Fused {
    /// With messages of 64 bytes.
    ///
    /// # Errors
    /// If there is no memory for the frames.
    pub fn new(checksum: bool) -> Result<Fused, wadjet::buf::MemoryError> {
        let pair = FusedPair::new(64, checksum)?;
        Ok(Fused { pair, here: Counter::default(), there: Counter::default() })
    }
}

impl Operation for Fused {
    #[inline]
    fn once(&mut self) {
        self.pair.cast(&mut self.here, &mut self.there);
        self.pair.settle();
    }
}

/// One thing to measure: the reference, or a stack on one of its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name, for instruction counts.
    pub name: String,
    /// The stack, top to bottom; empty for the reference.
    pub stack: String,
    /// Whether there is a checksum.
    pub checksum: bool,
    /// How.
    pub path: Path,
    /// Bytes of a message.
    pub size: usize,
    /// Messages cast at once.
    pub messages: u32,
}

impl Scenario {
    /// Layers of the stack.
    pub fn layers(&self) -> usize {
        self.stack.split(':').filter(|layer| !layer.is_empty()).count()
    }

    /// Makes it.
    ///
    /// # Errors
    /// If there is no memory for the frames, or the stack cannot be built.
    pub fn make(&self) -> Result<Box<dyn Operation>, Box<dyn Error>> {
        Ok(match self.path {
            Path::Fused => Box::new(Fused::new(self.checksum)?),
            _ => Box::new(StackPair::new(self)?),
        })
    }
}

/// All that is measured: the reference, and stacks by number of layers, fast and slow.
pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let mut add = |path: Path, layers: usize, checksum: bool| {
        let stack = if path == Path::Fused { String::new() } else { stack_of(layers, checksum) };
        let number = if layers > 0 { format!("-{layers}") } else { String::new() };
        let name = format!("{}{number}{}", path.name(), if checksum { "-crc" } else { "" });
        let (size, messages) = match path {
            Path::Fused | Path::Fast | Path::Slow => (64, 1),
            Path::Burst => (64, 16),
            Path::Packed => (1, 256),
        };
        scenarios.push(Scenario { name, stack, checksum, path, size, messages });
    };
    for checksum in [false, true] {
        let counts: &[usize] = if checksum { &[8] } else { &[5, 8, 12, 16, 20] };
        add(Path::Fused, 0, checksum);
        for path in [Path::Burst, Path::Fast, Path::Slow] {
            counts.iter().for_each(|layers| add(path, *layers, checksum));
        }
        add(Path::Packed, 8, checksum);
    }
    // Twenty layers of which ten have effects, and eight of which one has a field of its own that travels.
    for (name, like, stack) in [
        ("burst-20-effects", "burst-20", stack_with_effects()),
        ("fast-20-effects", "fast-20", stack_with_effects()),
        ("burst-8-field", "burst-8", stack_of(8, false).replace("CHK_FIFO", "CHK_FIFO(wire=yes)")),
        ("fast-8-field", "fast-8", stack_of(8, false).replace("CHK_FIFO", "CHK_FIFO(wire=yes)")),
    ] {
        if let Some(plain) = scenarios.iter().find(|scenario| scenario.name == like) {
            let Scenario { checksum, path, size, messages, .. } = *plain;
            scenarios.push(Scenario { name: name.into(), stack, checksum, path, size, messages });
        }
    }
    // The full virtually synchronous stack.
    for (name, like, stack) in [
        ("burst-live", "burst-8", DEFAULT_STACK_WITH_INTEGRITY),
        ("fast-live", "fast-8", DEFAULT_STACK_WITH_INTEGRITY),
        ("packed-live", "packed-8", DEFAULT_STACK_WITH_INTEGRITY),
        ("burst-live-crc", "burst-8-crc", DEFAULT_STACK),
    ] {
        if let Some(plain) = scenarios.iter().find(|scenario| scenario.name == like) {
            let Scenario { checksum, path, size, messages, .. } = *plain;
            scenarios.push(Scenario {
                name: name.into(),
                stack: stack.into(),
                checksum,
                path,
                size,
                messages,
            });
        }
    }
    // The stack of eight layers with total order on top, by the member whose turn it is, or who orders.
    for (name, like, order) in [
        ("burst-total", "burst-8", "TOTAL"),
        ("fast-total", "fast-8", "TOTAL"),
        ("packed-total", "packed-8", "TOTAL"),
        ("fast-sequencer", "fast-8", "SEQUENCER"),
    ] {
        if let Some(plain) = scenarios.iter().find(|scenario| scenario.name == like) {
            let stack = format!("{order}:FIXED:{}", plain.stack);
            let Scenario { checksum, path, size, messages, .. } = *plain;
            scenarios.push(Scenario { name: name.into(), stack, checksum, path, size, messages });
        }
    }
    scenarios
}

/// A stack of so many layers: those of a reliable multicast, then flow control, then counters, checkers and a tracer in
/// turn. Of the extra layers all but the tracer declare a count or a field, which plans have for nothing: those that cost
/// something are in [`stack_with_effects`].
fn stack_of(layers: usize, checksum: bool) -> String {
    let mut names = vec!["STABLE", "UNICAST", "LOCAL", "NAK", "COM"];
    if checksum {
        names.insert(4, "CHKSUM");
    }
    if layers > names.len() {
        names.insert(1, "FC");
    }
    let more = layers.saturating_sub(names.len());
    let extra = ["COUNT", "CHK_FIFO", "COUNT", "COUNT", "CHK_FIFO", "TRACE"];
    extra.into_iter().cycle().take(more).chain(names).collect::<Vec<_>>().join(":")
}

/// A stack of twenty layers: of the fifteen beyond the five of a reliable multicast ten change words with every message, two
/// for one that is cast and three for one that is delivered.
fn stack_with_effects() -> String {
    let meters = "METER:".repeat(5);
    format!("{meters}CHK_FIFO:COUNT:{meters}CHK_FIFO:TRACE:STABLE:FC:UNICAST:LOCAL:NAK:COM")
}

/// Measures all scenarios.
///
/// # Errors
/// If there is no memory for the frames, or a stack cannot be built.
pub fn measure_all() -> Result<Vec<MemoryCost>, Box<dyn Error>> {
    let row = |scenario: Scenario| {
        let (warm_ns, cold_ns) = measure(&mut *scenario.make()?);
        let (layers, path) = (scenario.layers(), scenario.path);
        let Scenario { stack, checksum, size, messages, .. } = scenario;
        Ok(MemoryCost { stack, layers, checksum, path, size, messages, warm_ns, cold_ns })
    };
    scenarios().into_iter().map(row).collect()
}

/// Nanoseconds per message, warm and cold.
pub fn measure(operation: &mut dyn Operation) -> (f64, f64) {
    let ticks = Ticks::new();
    let messages = f64::from(operation.messages());
    (warm(operation, &ticks) / messages, cold(operation, &ticks) / messages)
}

fn warm(operation: &mut dyn Operation, ticks: &Ticks) -> f64 {
    let batch_operations = BATCH_MESSAGES.div_ceil(operation.messages());
    (0..20 * batch_operations).for_each(|_| operation.once());
    let batch = |_| {
        let begun = ticks.now();
        (0..batch_operations).for_each(|_| operation.once());
        ticks.nanoseconds(begun, ticks.now()) as f64 / f64::from(batch_operations)
    };
    median((0..BATCHES).map(batch).collect())
}

fn cold(operation: &mut dyn Operation, ticks: &Ticks) -> f64 {
    let mut walk = vec![1_u64; COLD_BYTES / 8];
    let mut timed = |run: &mut dyn FnMut()| {
        for word in walk.iter_mut().step_by(8) {
            *word = word.wrapping_add(1);
        }
        black_box(&mut walk);
        let begun = ticks.now();
        run();
        ticks.nanoseconds(begun, ticks.now()) as f64
    };
    let nothing = median((0..COLD_OPERATIONS).map(|_| timed(&mut || {})).collect());
    let something = median((0..COLD_OPERATIONS).map(|_| timed(&mut || operation.once())).collect());
    (something - nothing).max(0.0)
}

const BATCH_MESSAGES: u32 = 1000;
const BATCHES: u32 = 200;
/// More than a second-level cache; what the third level is left with depends on the neighbours.
const COLD_BYTES: usize = 8 << 20;
const COLD_OPERATIONS: u32 = 200;
