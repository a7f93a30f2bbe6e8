//! One member of a run, or in memory all of them: opens the channels, runs the blocks, tells what came of it.

use std::error::Error;
use std::time::Duration;

use wadjet::config::{Config, Shadow};
use wadjet::endpoint::Endpoint;
use wadjet::id::{GroupId, Incarnation, Rank, ViewId};
use wadjet::runtime::{Driver, DriverOptions, IdleStrategy, Loop, LoopOptions};
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};
use wadjet::transport::{ChannelOptions, Transport};
use wadjet::view::{Address, LocalView, Member, View};
use wadjet_xdp::XdpTransport;

use crate::allocations::allocations;
use crate::blocks::{Parties, Standstill, linger, run_block};
use crate::histogram::Latencies;
use crate::machine::resident_bytes;
use crate::party::{Account, Party};
use crate::plan::{Length, MemberReport, Plan, Seat, Side, Subject, TransportKind};
use crate::raw::RawEngine;
use crate::stack::{BenchApplication, StackParty};
use crate::workload::{BlockResult, Goal, Task, Workload};

/// The members this thread hosts, twice: without a stack and with one. Either may be empty.
pub struct Hosted {
    plan: Plan,
    raw: Parties,
    stack: Parties,
    notes: Vec<String>,
}

impl Hosted {
    /// All members of a run in memory.
    ///
    /// # Errors
    /// If a channel or a stack cannot be set up; the text says what to do.
    pub fn memory(seat: &Seat) -> Result<Hosted, Box<dyn Error>> {
        let mut hosted = Hosted::empty(&seat.plan);
        let (raw, stack) = (Hub::new(HubOptions::default()), Hub::new(HubOptions::default()));
        for rank in 0..seat.plan.members {
            let seat = Seat { rank, ..seat.clone() };
            hosted.seat(&seat, || Ok(raw.transport()), || Ok(stack.transport()))?;
        }
        Ok(hosted)
    }

    /// One member of a run over a transport between processes.
    ///
    /// # Errors
    /// If a channel or a stack cannot be set up; the text says what to do.
    pub fn one(seat: &Seat) -> Result<Hosted, Box<dyn Error>> {
        let mut hosted = Hosted::empty(&seat.plan);
        match seat.plan.transport {
            TransportKind::Memory => return Hosted::memory(seat),
            TransportKind::Shm => {
                let open = || Ok(Shm::new(ShmOptions::default()));
                hosted.seat(seat, open, open)?;
            }
            TransportKind::Udp => {
                let options = udp_options(&seat.plan);
                let open = || Ok(UdpTransport::new(options.clone())?);
                hosted.seat(seat, open, open)?;
            }
            TransportKind::Uring => {
                let options = UringOptions { udp: udp_options(&seat.plan) };
                let open = || Ok(UringTransport::new(options.clone())?);
                hosted.seat(seat, open, open)?;
            }
            TransportKind::Xdp => {
                let open = || Ok(XdpTransport::new(seat.plan.xdp.options())?);
                hosted.seat(seat, open, open)?;
            }
        }
        Ok(hosted)
    }

    fn empty(plan: &Plan) -> Hosted {
        Hosted { plan: plan.clone(), raw: Vec::new(), stack: Vec::new(), notes: Vec::new() }
    }

    /// Adds one member.
    fn seat<T: Transport + 'static>(
        &mut self,
        seat: &Seat,
        raw: impl FnOnce() -> Result<T, Box<dyn Error>>,
        stack: impl FnOnce() -> Result<T, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let subject = seat.plan.subject;
        if subject != Subject::Stack {
            let transport = raw()?;
            self.raw.push(Box::new(raw_party(seat, transport)?));
        }
        if subject != Subject::Raw {
            let transport = stack()?;
            let (party, notes) = stack_party(seat, transport)?;
            self.notes = notes;
            self.stack.push(Box::new(party));
        }
        Ok(())
    }

    /// Runs the plan. Whatever happens, there is a report for each member hosted.
    pub fn run(&mut self) -> Vec<MemberReport> {
        let members = self.raw.len().max(self.stack.len());
        let mut reports = vec![MemberReport::default(); members];
        let outcome = self.measure(&mut reports);
        for (at, report) in reports.iter_mut().enumerate() {
            report.failure = outcome.as_ref().err().map(ToString::to_string);
            report.crowded = [&self.raw, &self.stack]
                .iter()
                .any(|parties| parties.get(at).is_some_and(|party| party.crowded()));
        }
        reports
    }

    /// Serves the other members until told to stop.
    pub fn linger(&mut self, limit: Duration, stop: impl FnMut() -> bool) {
        let mut all: Parties = self.raw.drain(..).chain(self.stack.drain(..)).collect();
        linger(&mut all, limit, stop);
    }

    fn measure(&mut self, reports: &mut [MemberReport]) -> Result<(), Standstill> {
        let (warm, goal, blocks) = self.schedule();
        // The stack first: at a rate, its frames are what the raw blocks send.
        let subjects: &[bool] = match self.plan.subject {
            Subject::Raw => &[true],
            Subject::Stack => &[false],
            Subject::Versus { .. } => &[false, true],
        };
        let mut frames = Frames::of(&self.stack);
        for raw in subjects {
            self.block(*raw, warm)?;
            frames.pace(self.plan.rate, &self.stack, &mut self.raw);
        }
        let mut sums = [true, false].map(|raw| Sum::begin(if raw { &self.raw } else { &self.stack }));
        let resident = resident_bytes();
        let mut outcome = Ok(());
        'blocks: for block in 0..blocks {
            for turn in 0..subjects.len() {
                // Which goes first alternates: a drift of the machine is in both.
                let raw = subjects[(turn + block) % subjects.len()];
                let before = allocations();
                outcome = self.block(raw, goal);
                let sum = &mut sums[usize::from(!raw)];
                sum.take(if raw { &self.raw } else { &self.stack }, before);
                if outcome.is_err() {
                    break 'blocks;
                }
                frames.pace(self.plan.rate, &self.stack, &mut self.raw);
            }
        }
        for raw in subjects {
            let sides =
                sums[usize::from(!raw)].finish(if *raw { &self.raw } else { &self.stack }, &self.notes);
            for (report, side) in reports.iter_mut().zip(sides) {
                report.resident_bytes = (resident, resident_bytes());
                *(if *raw { &mut report.raw } else { &mut report.stack }) = Some(side);
            }
        }
        outcome
    }

    fn block(&mut self, raw: bool, goal: Goal) -> Result<(), Standstill> {
        let (parties, bystanders) =
            if raw { (&mut self.raw, &mut self.stack) } else { (&mut self.stack, &mut self.raw) };
        run_block(parties, bystanders, goal)
    }

    /// The goal of the warm-up, of a block, and the number of blocks.
    fn schedule(&self) -> (Goal, Goal, usize) {
        let blocks = match self.plan.subject {
            Subject::Versus { blocks } => blocks,
            _ => 1,
        };
        let (sides, count) = (if blocks > 1 { 2 } else { 1 }, blocks as u64);
        match self.plan.length {
            Length::Messages(messages) => (
                Goal::Messages((messages / 20).clamp(1, 100_000)),
                Goal::Messages(messages.div_ceil(count)),
                blocks,
            ),
            Length::Time(time) => {
                let block = time / (sides * blocks as u32);
                (Goal::Time(WARM_UP.min(time / 4)), Goal::Time(block), blocks)
            }
        }
    }
}

fn udp_options(plan: &Plan) -> UdpOptions {
    UdpOptions { segmentation: plan.offload, coalescing: plan.offload, ..UdpOptions::default() }
}

/// Frames and messages that each member's stack has cast, to let raw blocks send as many frames.
struct Frames {
    cast: Vec<(u64, u64)>,
}

impl Frames {
    fn of(stack: &Parties) -> Frames {
        let cast = |party: &dyn Party| (party.account().cast_frames, party.workload().sent());
        Frames { cast: stack.iter().map(|party| cast(&**party)).collect() }
    }

    /// After a block. If it was the stack's, and it cast at a rate, the raw member beside it casts at the rate of its frames.
    fn pace(&mut self, rate: Option<f64>, stack: &Parties, raw: &mut Parties) {
        let Some(rate) = rate.filter(|_| !raw.is_empty() && !stack.is_empty()) else { return };
        let now = Frames::of(stack);
        for ((before, now), raw) in self.cast.iter().zip(&now.cast).zip(raw) {
            let (frames, messages) = (now.0 - before.0, now.1 - before.1);
            if frames > 0 && messages > 0 {
                raw.pace(rate * frames as f64 / messages as f64);
            }
        }
        self.cast = now.cast;
    }
}

/// Collects what the blocks of one kind came to, at each member hosted.
struct Sum {
    members: Vec<MemberSum>,
}

struct MemberSum {
    begun: Account,
    latencies: Latencies,
    blocks: Vec<BlockResult>,
    allocations: Option<u64>,
}

impl Sum {
    fn begin(parties: &Parties) -> Sum {
        Sum {
            members: parties
                .iter()
                .map(|party| MemberSum {
                    begun: party.account(),
                    latencies: Latencies::new(),
                    blocks: Vec::with_capacity(BLOCKS_MAX),
                    allocations: Some(0),
                })
                .collect(),
        }
    }

    /// After a block; `before` is the count of allocations before it.
    fn take(&mut self, parties: &Parties, before: Option<u64>) {
        let during = before.zip(allocations()).map(|(before, after)| after - before);
        for (sum, party) in self.members.iter_mut().zip(parties) {
            sum.allocations = sum.allocations.zip(during).map(|(sum, during)| sum + during);
            sum.latencies.add(party.workload().latencies());
            sum.blocks.push(party.workload().result());
        }
    }

    fn finish(&mut self, parties: &Parties, notes: &[String]) -> Vec<Side> {
        let side = |(sum, party): (&mut MemberSum, &dyn Party)| Side {
            total: BlockResult {
                delivered: sum.blocks.iter().map(|block| block.delivered).sum(),
                seconds: sum.blocks.iter().map(|block| block.seconds).sum(),
                latency: sum.latencies.summary(),
            },
            latencies: sum.latencies.recorded(),
            blocks: std::mem::take(&mut sum.blocks),
            sent: party.workload().sent(),
            account: party.account().since(&sum.begun),
            allocations: sum.allocations,
            faults: party.workload().verifier().faults(),
            sequence: party.workload().verifier().sequence(),
            notes: notes.to_vec(),
        };
        self.members.iter_mut().zip(parties.iter().map(|party| &**party)).map(side).collect()
    }
}

fn view(seat: &Seat, raw: bool) -> Result<LocalView, Box<dyn Error>> {
    let plan = &seat.plan;
    let incarnation = |rank: usize| Incarnation(seat.run.wrapping_add(rank as u64));
    let addresses = if raw { &seat.raw_addresses } else { &seat.stack_addresses };
    let view = View {
        group: GroupId::named(&format!("wadjet bench {} {}", seat.run, if raw { "raw" } else { "stack" })),
        id: ViewId { counter: 1, coordinator: incarnation(0) },
        members: addresses
            .iter()
            .enumerate()
            .map(|(rank, address)| Member {
                incarnation: incarnation(rank),
                address: Address(address.clone()),
            })
            .collect(),
        spec: plan.stack.clone(),
        wire_version: wadjet::wire::WIRE_VERSION,
        salt: seat.run,
        frame_bytes: 0,
    };
    Ok(LocalView::new(view, incarnation(seat.rank))?)
}

fn task(seat: &Seat, raw: bool, loses: bool) -> Task {
    let plan = &seat.plan;
    Task {
        pattern: plan.pattern,
        members: plan.members,
        rank: Rank::at(seat.rank),
        size: plan.size,
        rate: plan.rate,
        arrivals: plan.arrivals,
        every_latency: plan.rate.is_some() || plan.load.is_some(),
        own_copies: !raw && plan.has_layer("LOCAL"),
        repeat_marks: raw && loses,
    }
}

fn loop_options(plan: &Plan) -> LoopOptions {
    let idle = if plan.shares_cores() { IdleStrategy::Adaptive } else { IdleStrategy::Spin };
    LoopOptions { idle, ..LoopOptions::default() }
}

fn raw_party<T: Transport>(seat: &Seat, transport: T) -> Result<Loop<T, RawEngine>, Box<dyn Error>> {
    let (plan, caps) = (&seat.plan, transport.caps());
    let workload = Workload::new(task(seat, true, caps.loses));
    let engine = RawEngine::new(Rank::at(seat.rank), plan.members, plan.size, &caps, workload);
    let mut looping = Loop::new(transport, engine, loop_options(plan));
    let channel = looping.open(&view(seat, true)?, &RAW_CHANNEL)?;
    if plan.size + crate::raw::RAW_HEADER_BYTES > channel.casts.frame_bytes() {
        let most = channel.casts.frame_bytes() - crate::raw::RAW_HEADER_BYTES;
        return Err(format!(
            "a raw message of {} bytes does not fit a frame of {}; choose --size {most} or less",
            plan.size,
            plan.transport.name()
        )
        .into());
    }
    looping.engine_mut().install(channel);
    Ok(looping)
}

fn stack_party<T: Transport>(
    seat: &Seat,
    transport: T,
) -> Result<(StackParty<T>, Vec<String>), Box<dyn Error>> {
    let plan = &seat.plan;
    let incarnation = Incarnation(seat.run.wrapping_add(seat.rank as u64));
    let config = Config {
        accelerate: plan.accel,
        pack: plan.pack,
        shadow: Shadow::Off,
        ..Config::for_stack(&plan.stack)
    };
    let endpoint = Endpoint::new(config, incarnation)?;
    let workload = Workload::new(task(seat, false, false));
    let application = BenchApplication { workload, trouble: None, agreed: seat.plan.agreed };
    let options = DriverOptions { looping: loop_options(plan), ..DriverOptions::default() };
    let mut driver = Driver::new(endpoint, application, transport, options);
    let view = view(seat, false)?;
    // Who was stopped asks the others, outside the view, whether they have gone on without it.
    driver.bind(view.view().group, &view.member(view.rank()).address)?;
    let key = driver.open(view)?;
    // Some say only now what they got.
    let notes = driver.inner().transport().caps().notes;
    Ok((StackParty { driver, key }, notes))
}

/// What a raw member asks of its channel: as much as a stack's.
const RAW_CHANNEL: ChannelOptions = ChannelOptions {
    cast_frames: 4096,
    control_frames: 512,
    receive_frames: 4096,
    frame_bytes: 2048,
    huge_pages: false,
};
const WARM_UP: Duration = Duration::from_millis(200);
const BLOCKS_MAX: usize = 4096;
