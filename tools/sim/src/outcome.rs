//! What a run came to: violations, a digest, counts.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use wadjet_oracle::{History, Traffic};

use crate::faults::{FaultCounters, counters};
use crate::scenario::World;

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// A property of the oracle, or `panic`, `livelock`, `liveness`, `frames-return`, `replay`, `acceleration`.
    pub property: String,
    /// What happened.
    pub what: String,
    /// The events concerned, one per line.
    pub excerpt: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}: {}", self.property, self.what)?;
        formatter.write_str(&self.excerpt)
    }
}

counters! {
    /// What the applications of a run did.
    WorkCounters {
        /// Runs counted here.
        runs,
        /// Of them, accelerated ones.
        accelerated_runs,
        /// And of those, with members that have no plans.
        partly_accelerated_runs,
        /// With packing.
        packing_runs,
        /// With the shadow.
        shadow_runs,
        /// In place.
        in_place_runs,
        /// In which views follow each other.
        views_runs,
        /// Casts accepted.
        casts,
        /// Sends accepted.
        sends,
        /// Casts delivered, own copies included.
        casts_delivered,
        /// Sends delivered.
        sends_delivered,
        /// Casts from inside an upcall.
        replies,
        /// Sends from inside an upcall.
        echoes,
        /// Casts and sends larger than a frame.
        large,
        /// Casts that were agreed where others were safe.
        agreed,
        /// Casts written in place.
        reserved,
        /// Reservations dropped without commit.
        abandoned,
        /// Messages refused because they were too long.
        oversized,
        /// Messages refused for the time being.
        postponed,
        /// Casts refused because the numbers of the view were used up.
        used_up,
        /// Acknowledgements.
        acknowledged,
        /// Reports that something is held.
        held_reports,
        /// Reports that something was seen.
        seen_reports,
        /// Views installed, at each member.
        views,
        /// Snapshots asked for.
        snapshots,
        /// Of them, those that could not be read to their end.
        torn_states,
        /// States taken in.
        states,
        /// Members that were told that nobody has the state any more.
        lost_states,
        /// Members that left because more was cast than they may hold before the state was there.
        full_leaves,
        /// Views of which an application was never told, for want of the state.
        passed_views,
        /// Views of which an application was told when the endpoint had gone on from them: the state came over a view change.
        late_views,
        /// Parts of a state that an application was not ready for.
        late_parts,
        /// Members told to stop casting.
        blocks,
        /// Members told that the group is over for them.
        exits,
        /// Of them, those that were expelled because they held the senders up.
        expulsions,
        /// Runs in which a core of all processes became one view in the end.
        whole_cores,
        /// Runs in which a part of them did.
        part_cores,
        /// Cores in which some cast all they could.
        strains,
        /// Driver iterations.
        iterations,
        /// Microseconds of simulated time.
        microseconds,
    }
}

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// What the world did.
    pub faults: FaultCounters,
    /// What the applications did.
    pub work: WorkCounters,
    /// What the endpoints say of their paths and drops, by name.
    pub endpoint: BTreeMap<String, u64>,
}

impl Counters {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Counters) {
        self.faults.add(&other.faults);
        self.work.add(&other.work);
        for (name, count) in &other.endpoint {
            *self.endpoint.entry(name.clone()).or_default() += count;
        }
    }
}

/// What one member delivered of one stream of one origin: how many messages, and a hash of them in order.
pub type Streams = BTreeMap<(usize, u16, Traffic, u16), (u64, u64)>;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Its scenario.
    pub scenario: &'static str,
    /// Its world.
    pub world: World,
    /// What went wrong; empty if nothing did.
    pub violations: Vec<Violation>,
    /// A hash of every delivery and its time: equal if and only if the run was the same.
    pub digest: u64,
    /// How often what happened.
    pub counters: Counters,
    /// What happened at the interface.
    pub history: History,
    /// What arrived where, independently of time; of fixed views only.
    pub streams: Streams,
    /// What happened beside, if that was asked for: each before the event of that index.
    pub notes: Vec<(usize, String)>,
}
