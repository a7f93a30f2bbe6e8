//! The command line of `wadjet bench`, and what its combinations mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::plan::{Length, Plan, Subject, TransportKind};
use crate::workload::Pattern;

/// What to measure. Without arguments: every transport of this machine, raw and through the stack, side by side.
#[derive(Args, Clone, Debug, Default)]
pub struct BenchOptions {
    /// Over what; without it, over each
    #[arg(long, value_enum)]
    pub transport: Option<TransportKind>,
    /// The stack, top to bottom; see `wadjet explain`
    #[arg(long, value_name = "SPEC")]
    pub stack: Option<String>,
    /// Members of the view [default: 2]
    #[arg(long, value_name = "N")]
    pub members: Option<usize>,
    /// Bytes of a message [default: 64]
    #[arg(long, value_name = "BYTES")]
    pub size: Option<usize>,
    /// Who talks to whom
    #[arg(long, value_enum)]
    pub pattern: Option<Pattern>,
    /// Open loop: each sender sends so many messages per second, on time whatever happened to those before
    #[arg(long, value_name = "MSGS_PER_S")]
    pub rate: Option<f64>,
    /// How long each run measures [default: 3]
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
    /// Pairs of blocks of --vs-raw
    #[arg(long, value_name = "N", requires = "vs_raw", default_value_if("vs_raw", "true", "100"))]
    pub blocks: Option<usize>,
    /// Also write the figures as JSON; `-` for standard output, nothing else then printed there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A combination that makes no sense. The text says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl BenchOptions {
    /// Whether this is `wadjet bench` as such: no run was described.
    pub fn everything(&self) -> bool {
        let BenchOptions { transport, stack, members, size, pattern, rate, messages, .. } = self;
        transport.is_none()
            && stack.is_none()
            && members.is_none()
            && size.is_none()
            && pattern.is_none()
            && rate.is_none()
            && messages.is_none()
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
            None if self.no_offload => vec![TransportKind::Udp, TransportKind::Uring],
            None => vec![
                TransportKind::Memory,
                TransportKind::Shm,
                TransportKind::Udp,
                TransportKind::Uring,
                TransportKind::Xdp,
            ],
        };
        let default = if self.messages.is_some() { Pattern::AllToAll } else { Pattern::Pingpong };
        Ok(transports
            .into_iter()
            .map(|transport| self.plan(transport, self.pattern.unwrap_or(default)))
            .collect())
    }

    /// The cores to use.
    pub fn cores(&self) -> Vec<usize> {
        if self.cores.is_empty() { wadjet::runtime::cores() } else { self.cores.clone() }
    }

    fn plan(&self, transport: TransportKind, pattern: Pattern) -> Plan {
        let length = match (self.messages, self.duration) {
            (Some(messages), _) => Length::Messages(messages),
            (None, Some(seconds)) => Length::Time(Duration::from_secs_f64(seconds)),
            (None, None) => Length::Time(DEFAULT_TIME),
        };
        let subject = match (self.raw, self.vs_raw) {
            (true, _) => Subject::Raw,
            (false, true) => Subject::Versus { blocks: self.blocks.unwrap_or(BLOCKS_DEFAULT) },
            (false, false) => Subject::Stack,
        };
        Plan {
            transport,
            subject,
            stack: self.stack.clone().unwrap_or_else(|| transport.default_stack().into()),
            accel: !self.no_accel,
            pack: !self.no_pack,
            offload: !self.no_offload,
            members: self.members.unwrap_or(2),
            size: self.size.unwrap_or(64),
            pattern,
            rate: self.rate,
            length,
            cores: self.cores(),
        }
    }

    fn check(&self) -> Result<(), Refused> {
        let refuse = |why: &str| Err(Refused(why.to_owned()));
        let pattern = self.pattern.unwrap_or(Pattern::Pingpong);
        if self.rate.is_some() && pattern == Pattern::Pingpong && self.messages.is_none() {
            return refuse(
                "--rate makes no sense with ping-pong, which sends when it is answered; add --pattern stream or all-to-all",
            );
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
            return refuse("--rate must be above 0 and at most 1000000000 messages per second");
        }
        if self.rate.is_some() && self.vs_raw {
            return refuse(
                "--rate with --vs-raw would compare two idle loops; choose --rate, or --vs-raw as fast as it goes",
            );
        }
        if self.rate.is_some() && self.size.is_some_and(|size| size < 16) {
            return refuse(
                "--rate needs messages of 16 bytes at least: they carry the time they were to be sent at",
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
        if self.messages == Some(0) {
            return refuse("--messages must be at least 1");
        }
        if self.members.is_some_and(|members| !(2..=MEMBERS_MAX).contains(&members)) {
            return Err(Refused(format!("--members must be between 2 and {MEMBERS_MAX}")));
        }
        if self.size == Some(0) {
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

const DEFAULT_TIME: Duration = Duration::from_secs(3);
const BLOCKS_DEFAULT: usize = 100;
/// Fewer pairs say nothing on a shared machine.
const BLOCKS_MIN: usize = 50;
const BLOCKS_MAX: usize = 4000;
const MEMBERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_combinations_are_refused_in_words() {
        let refused = |options: BenchOptions| options.plans().unwrap_err().to_string();
        let rate = BenchOptions { rate: Some(1000.0), ..BenchOptions::default() };
        assert!(refused(rate.clone()).contains("ping-pong"));
        assert!(BenchOptions { pattern: Some(Pattern::Stream), ..rate.clone() }.plans().is_ok());
        let short = BenchOptions { size: Some(8), pattern: Some(Pattern::Stream), ..rate };
        assert!(refused(short).contains("16 bytes"));
        assert!(
            refused(BenchOptions { members: Some(1), ..BenchOptions::default() }).contains("between 2 and")
        );
        assert!(refused(BenchOptions { cores: vec![9999], ..BenchOptions::default() }).contains("core 9999"));
        assert!(
            refused(BenchOptions { duration: Some(0.0), ..BenchOptions::default() }).contains("--duration")
        );
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
