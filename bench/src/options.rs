//! The command line of `wadjet bench`, and what its combinations mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::plan::{Length, Order, Plan, Subject, TransportKind};
use crate::schedule::Arrivals;
use crate::workload::Pattern;
use crate::xdp::XdpArguments;

/// What to measure. Without arguments: every transport of this machine, raw and through the stack, side by side.
#[derive(Args, Clone, Debug, Default)]
pub struct BenchOptions {
    /// Over what; without it, over each
    #[arg(long, value_enum)]
    pub transport: Option<TransportKind>,
    /// The stack, top to bottom; see `wadjet explain` [default: the full virtually synchronous one, its members patient]
    #[arg(long, value_name = "SPEC")]
    pub stack: Option<String>,
    /// The default stack with that promise about the order of casts; several make a run of each
    #[arg(long, value_enum, value_name = "ORDER", value_delimiter = ',', conflicts_with_all = ["stack", "raw"])]
    pub order: Vec<Order>,
    /// Members of the view; several make a run of each [default: 2]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub members: Vec<usize>,
    /// Bytes of a message; several make a run of each [default: 64]
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    pub size: Vec<usize>,
    /// Who talks to whom; several make a run of each
    #[arg(long, value_enum, value_name = "PATTERN", value_delimiter = ',')]
    pub pattern: Vec<Pattern>,
    /// Open loop: each sender sends so many messages per second, on time whatever happened to those before
    #[arg(long, value_name = "MSGS_PER_S", group = "open")]
    pub rate: Option<f64>,
    /// Open loop at so many percent of the capacity, which is measured first, and almost unloaded; packed and unpacked
    /// [if no percentage is given: 10,50,90]
    #[arg(
        long,
        value_name = "PERCENT",
        value_delimiter = ',',
        num_args = 0..=1,
        default_missing_values = ["10", "50", "90"],
        conflicts_with_all = ["rate", "messages"], group = "open"
    )]
    pub open_loop: Vec<f64>,
    /// How the messages of an open loop are spread over time
    #[arg(long, value_enum, default_value = "even", requires = "open")]
    pub arrivals: Arrivals,
    /// How long each run measures [default: 3; at each load 1]
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,
    /// Soak: each sender casts so many messages, however long it takes
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub messages: Option<u64>,
    /// The cores members are pinned to, in turn [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// The transport's own baseline: same frames, same loop, no stack
    #[arg(long, conflicts_with_all = ["vs_raw", "no_accel", "no_pack", "stack"])]
    pub raw: bool,
    /// Short blocks of raw and stack in turn, and the median of their ratios
    #[arg(long)]
    pub vs_raw: bool,
    /// The same stack by its layers only, without compiled plans
    #[arg(long)]
    pub no_accel: bool,
    /// One message per frame, always
    #[arg(long)]
    pub no_pack: bool,
    /// udp, uring: every frame a datagram of its own, sent and received, without UDP_SEGMENT and UDP_GRO
    #[arg(long)]
    pub no_offload: bool,
    /// udp, uring, xdp: between the test hosts that `wadjet lab up N --label LABEL` made
    #[arg(long, value_name = "LABEL")]
    pub lab: Option<String>,
    /// How AF_XDP is used.
    #[command(flatten)]
    pub xdp: XdpArguments,
    /// Pairs of blocks of --vs-raw
    #[arg(long, value_name = "N", requires = "vs_raw", default_value_if("vs_raw", "true", "100"))]
    pub blocks: Option<usize>,
    /// Also write the figures as JSON; `-` for standard output, nothing else then printed there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Of the lists on the command line one value each.
#[derive(Clone, Copy)]
struct Traffic {
    pattern: Pattern,
    members: usize,
    size: usize,
}

/// A combination that makes no sense. The text says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl BenchOptions {
    /// Whether this is `wadjet bench` as such: no run was described.
    pub fn everything(&self) -> bool {
        let BenchOptions {
            transport, stack, order, members, size, pattern, rate, open_loop, messages, ..
        } = self;
        transport.is_none()
            && stack.is_none()
            && order.is_empty()
            && members.is_empty()
            && size.is_empty()
            && pattern.is_empty()
            && rate.is_none()
            && open_loop.is_empty()
            && messages.is_none()
            && self.lab.is_none()
            && self.xdp == XdpArguments::default()
            && !(self.raw || self.vs_raw || self.no_accel || self.no_pack || self.no_offload)
    }

    /// The runs that were described.
    ///
    /// # Errors
    /// [`Refused`], for what makes no sense together.
    pub fn plans(&self) -> Result<Vec<Plan>, Refused> {
        self.check()?;
        let transports = match self.transport {
            Some(transport) => vec![transport],
            None if self.no_offload || self.lab.is_some() => vec![TransportKind::Udp, TransportKind::Uring],
            None => vec![
                TransportKind::Memory,
                TransportKind::Shm,
                TransportKind::Udp,
                TransportKind::Uring,
                TransportKind::Xdp,
            ],
        };
        let default = match (self.messages.is_some(), self.open_loop.is_empty()) {
            (true, _) => Pattern::AllToAll,
            (false, false) => Pattern::Stream,
            (false, true) => Pattern::Pingpong,
        };
        let patterns = if self.pattern.is_empty() { vec![default] } else { self.pattern.clone() };
        let members = if self.members.is_empty() { vec![2] } else { self.members.clone() };
        let sizes = if self.size.is_empty() { vec![SIZE_DEFAULT] } else { self.size.clone() };
        let mut plans = Vec::new();
        for transport in transports {
            let stacks = match (&self.stack, self.order.is_empty()) {
                (Some(stack), _) => vec![(stack.clone(), false)],
                (None, true) => vec![(Order::Fifo.stack(transport), false)],
                (None, false) => self
                    .order
                    .iter()
                    .map(|order| (order.stack(transport), *order == Order::AgreedUnderSafe))
                    .collect(),
            };
            for pattern in &patterns {
                for members in &members {
                    for size in &sizes {
                        let traffic = Traffic { pattern: *pattern, members: *members, size: *size };
                        let plan = |(stack, agreed): &(String, bool)| Plan {
                            agreed: *agreed,
                            ..self.plan(transport, traffic, stack)
                        };
                        plans.extend(stacks.iter().map(plan));
                    }
                }
            }
        }
        if !self.open_loop.is_empty() && !self.no_pack && !self.raw {
            plans = plans.into_iter().flat_map(|plan| [plan.clone(), Plan { pack: false, ..plan }]).collect();
        }
        Ok(plans)
    }

    /// The loads of an open loop in percent of the capacity, the lightest first; empty if there is none.
    pub fn loads(&self) -> Vec<f64> {
        if self.open_loop.is_empty() {
            return Vec::new();
        }
        let mut loads = self.open_loop.clone();
        loads.push(UNLOADED_PERCENT);
        loads.sort_by(f64::total_cmp);
        loads.dedup();
        loads
    }

    /// The cores to use.
    pub fn cores(&self) -> Vec<usize> {
        if self.cores.is_empty() { wadjet::runtime::cores() } else { self.cores.clone() }
    }

    fn plan(&self, transport: TransportKind, traffic: Traffic, stack: &str) -> Plan {
        let length = match (self.messages, self.duration) {
            (Some(messages), _) => Length::Messages(messages),
            (None, Some(seconds)) => Length::Time(Duration::from_secs_f64(seconds)),
            (None, None) => Length::Time(if self.open_loop.is_empty() { DEFAULT_TIME } else { LOAD_TIME }),
        };
        let subject = match (self.raw, self.vs_raw) {
            (true, _) => Subject::Raw,
            (false, true) => Subject::Versus { blocks: self.blocks.unwrap_or(BLOCKS_DEFAULT) },
            (false, false) => Subject::Stack,
        };
        Plan {
            transport,
            subject,
            stack: stack.to_owned(),
            agreed: false,
            accel: !self.no_accel,
            pack: !self.no_pack,
            offload: !self.no_offload,
            lab: self.lab.clone(),
            xdp: self.xdp.clone(),
            members: traffic.members,
            size: traffic.size,
            pattern: traffic.pattern,
            rate: self.rate,
            arrivals: self.arrivals,
            load: None,
            length,
            cores: self.cores(),
        }
    }

    fn check(&self) -> Result<(), Refused> {
        let refuse = |why: &str| Err(Refused(why.to_owned()));
        let open = self.rate.is_some() || !self.open_loop.is_empty();
        let pings = self.pattern.contains(&Pattern::Pingpong)
            || (self.rate.is_some() && self.pattern.is_empty() && self.messages.is_none());
        if open && pings {
            return refuse(
                "--rate and --open-loop make no sense with ping-pong, which sends when it is answered; add --pattern stream, all-to-all or alternating",
            );
        }
        if self.open_loop.iter().any(|percent| !(0.1..=200.0).contains(percent)) {
            return refuse("--open-loop must be between 0.1 and 200 percent of the capacity");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
            return refuse("--rate must be above 0 and at most 1000000000 messages per second");
        }
        if open && self.size.iter().any(|size| *size < 16) {
            return refuse(
                "--rate and --open-loop need messages of 16 bytes at least: they carry the time they were to be sent at",
            );
        }
        if self.duration.is_some_and(|seconds| !(0.05..=3600.0).contains(&seconds)) {
            return refuse("--duration must be between 0.05 and 3600 seconds");
        }
        if self.no_offload && self.transport.is_some_and(|transport| !transport.is_ip()) {
            return refuse(
                "--no-offload is about UDP_SEGMENT and UDP_GRO; give --transport udp or uring with it",
            );
        }
        if self.lab.is_some()
            && self.transport.is_some_and(|transport| !transport.is_ip() && transport != TransportKind::Xdp)
        {
            return refuse(
                "--lab is for members of several hosts; give --transport udp, uring or xdp with it",
            );
        }
        if self.lab.is_some() && self.vs_raw && self.transport == Some(TransportKind::Xdp) {
            return refuse(
                "--vs-raw over xdp needs two interfaces on each host, and test hosts have one; leave out --lab",
            );
        }
        self.xdp.check(self.transport == Some(TransportKind::Xdp)).map_err(Refused)?;
        if self.xdp.interface.is_some() && self.vs_raw {
            return refuse(
                "--interface names one interface, and --vs-raw over xdp needs two on each host; leave one of them out",
            );
        }
        if self.messages == Some(0) {
            return refuse("--messages must be at least 1");
        }
        if self.members.iter().any(|members| !(2..=MEMBERS_MAX).contains(members)) {
            return Err(Refused(format!("--members must be between 2 and {MEMBERS_MAX}")));
        }
        if self.size.contains(&0) {
            return refuse("--size must be at least 1: a message carries its number");
        }
        if self.blocks.is_some_and(|blocks| !(BLOCKS_MIN..=BLOCKS_MAX).contains(&blocks)) {
            return Err(Refused(format!("--blocks must be between {BLOCKS_MIN} and {BLOCKS_MAX}")));
        }
        let available = wadjet::runtime::cores();
        if let Some(missing) = self.cores.iter().find(|core| !available.contains(core)) {
            return Err(Refused(format!(
                "core {missing} is not among those this process may use: {available:?}"
            )));
        }
        Ok(())
    }
}

const SIZE_DEFAULT: usize = 64;
const DEFAULT_TIME: Duration = Duration::from_secs(3);
/// Of each load.
const LOAD_TIME: Duration = Duration::from_secs(1);
/// A load under which a message finds everything idle: what latencies under load are compared with.
pub const UNLOADED_PERCENT: f64 = 1.0;
const BLOCKS_DEFAULT: usize = 100;
/// Fewer pairs say nothing on a shared machine.
const BLOCKS_MIN: usize = 50;
const BLOCKS_MAX: usize = 4000;
const MEMBERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn senseless_combinations_are_refused_in_words() {
        let refused = |options: BenchOptions| options.plans().unwrap_err().to_string();
        let rate = BenchOptions { rate: Some(1000.0), ..BenchOptions::default() };
        assert!(refused(rate.clone()).contains("ping-pong"));
        assert!(BenchOptions { pattern: vec![Pattern::Stream], ..rate.clone() }.plans().is_ok());
        let short = BenchOptions { size: vec![64, 8], pattern: vec![Pattern::Stream], ..rate };
        assert!(refused(short).contains("16 bytes"));
        assert!(
            refused(BenchOptions { members: vec![2, 1], ..BenchOptions::default() })
                .contains("between 2 and")
        );
        assert!(refused(BenchOptions { cores: vec![9999], ..BenchOptions::default() }).contains("core 9999"));
        let socket = XdpArguments { queue: Some(1), ..XdpArguments::default() };
        for transport in [None, Some(TransportKind::Udp)] {
            let options = BenchOptions { transport, xdp: socket.clone(), ..BenchOptions::default() };
            assert!(refused(options).contains("--queue"));
        }
        let transport = Some(TransportKind::Xdp);
        let options = BenchOptions { transport, xdp: socket.clone(), ..BenchOptions::default() };
        assert_eq!(options.plans().unwrap()[0].xdp, socket);
        let wire = XdpArguments { interface: Some("lan0".into()), ..XdpArguments::default() };
        let options = BenchOptions { transport, xdp: wire, vs_raw: true, ..BenchOptions::default() };
        assert!(refused(options).contains("--interface"));
        assert!(
            refused(BenchOptions { duration: Some(0.0), ..BenchOptions::default() }).contains("--duration")
        );
    }

    #[test]
    fn several_members_patterns_and_orders_make_a_run_of_each() {
        let options = BenchOptions {
            transport: Some(TransportKind::Shm),
            members: vec![2, 3],
            pattern: vec![Pattern::Stream, Pattern::AllToAll, Pattern::Alternating],
            size: vec![16, 1024],
            order: Order::value_variants().to_vec(),
            ..BenchOptions::default()
        };
        let plans = options.plans().unwrap();
        assert_eq!(plans.len(), 2 * 3 * 2 * Order::value_variants().len());
        for order in Order::value_variants() {
            let of = |plan: &&Plan| plan.order() == *order && plan.members == 3 && plan.size == 1024;
            assert_eq!(plans.iter().filter(of).count(), 3, "{}", order.name());
        }
        let loaded = BenchOptions { open_loop: vec![50.0], ..options };
        assert_eq!(loaded.plans().unwrap().len(), 2 * plans.len(), "packed and unpacked");
        assert_eq!(loaded.loads(), [UNLOADED_PERCENT, 50.0]);
        let unpacked = BenchOptions { no_pack: true, ..loaded };
        assert!(unpacked.plans().unwrap().iter().all(|plan| !plan.pack));
    }

    #[test]
    fn a_described_run_is_made_over_each_transport() {
        let options = BenchOptions { vs_raw: true, ..BenchOptions::default() };
        assert!(!options.everything() && BenchOptions::default().everything());
        let plans = options.plans().unwrap();
        assert_eq!(plans.len(), 5);
        assert!(plans.iter().all(|plan| plan.subject == Subject::Versus { blocks: 100 }));
        assert!([2, 3].iter().all(|at| plans[*at].has_layer("CHKSUM")) && !plans[1].has_layer("CHKSUM"));
    }
}
