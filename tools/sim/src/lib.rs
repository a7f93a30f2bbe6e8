//! The simulator: endpoints on a simulated clock and a faulty network, judged by the oracle (design section 10).
//!
//! It drives the very endpoints that run in production. Everything else (time, network, transport, applications) is
//! drawn from a seed, and one seed gives the same run bit for bit, on every machine. A seed first draws a world (which
//! faults there are and how hard, which stack, how many members, what they do), then the run goes through three
//! phases: the workload; the healing of the network, unless the scenario keeps it broken; and quiescence, in which
//! everything must arrive. Then the [oracle](wadjet_oracle) judges what happened at the interface.
//!
//! ```no_run
//! use wadjet_sim::{Overrides, Scenario, run};
//!
//! let scenario = Scenario::named("loss").unwrap();
//! let outcome = run(42, scenario, &Overrides::default());
//! assert!(outcome.violations.is_empty(), "{}", outcome.violations[0]);
//! ```

mod agenda;
mod build;
mod command;
mod desk;
mod faults;
mod ledger;
mod member;
mod network;
mod outcome;
mod random;
mod scenario;
mod swarm;
mod views;
mod workload;
mod world;

pub use command::{SimArgs, Switch, command};
pub use faults::{FaultCounters, Faults, LinkFaults, Partition};
pub use outcome::{Counters, Outcome, Streams, Violation, WorkCounters};
pub use random::Random;
pub use scenario::{Driver, MEMBERS_MAX, Medium, NUMBERS, Overrides, SCENARIOS, Scenario, Setup, World};
pub use swarm::{Check, Failure, SwarmOptions, SwarmReport, replay_command, run_checked, swarm};
pub use views::{
    Bounds, Chaos, Choice, Explored, Expulsion, Fate, Load, Misstep, Seldom, Shrunk, State, ViewsSetup,
    explore, run_views, shrink,
};
pub use workload::{Lengths, Workload};
pub use world::{run, run_setup};
