//! The network: decides what becomes of each frame on each link.

use crate::faults::{Damage, FaultCounters, Faults, LinkFaults};
use crate::random::Random;

/// One arrival of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: u64,
    pub(crate) damage: Option<Damage>,
}

/// A burst of losses ends after this time, however few frames there were.
const BURST_NS_MAX: u64 = 5_000_000;

/// The links between members, and the state they are in.
pub(crate) struct Network {
    members: usize,
    faults: Faults,
    states: Vec<LinkState>,
    random: Random,
    healed: bool,
    /// The network heals for these, bit by bit, and nothing passes between them and others.
    core: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct LinkState {
    /// Frames of the present burst that are still to be lost.
    burst_left: u32,
    burst_until: u64,
    /// The latest arrival so far of a frame that kept its place, and of any frame.
    in_order_at: u64,
    latest_at: u64,
}

impl Network {
    pub(crate) fn new(members: usize, faults: Faults, random: Random) -> Network {
        assert_eq!(faults.links.len(), members * members, "every pair has a link");
        Network {
            members,
            faults,
            states: vec![LinkState::default(); members * members],
            random,
            healed: false,
            core: None,
        }
    }

    /// From now on frames among the members of `core` are delayed, and nothing worse; none passes between them and
    /// others.
    pub(crate) fn heal_core(&mut self, core: u64) {
        self.core = Some(core);
    }

    /// Whether the link has healed.
    fn is_healed(&self, from: usize, to: usize) -> bool {
        self.healed || self.core.is_some_and(|core| core >> from & core >> to & 1 == 1)
    }

    /// From now on frames are delayed, and nothing worse.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
    }

    /// What becomes of a frame of `from` to `to`: no arrival, one, or several.
    pub(crate) fn carry(
        &mut self,
        from: usize,
        to: usize,
        now: u64,
        counters: &mut FaultCounters,
        arrive: &mut impl FnMut(Arrival),
    ) {
        counters.frames += 1;
        let at = from * self.members + to;
        let healed = self.is_healed(from, to);
        if self.core.is_some_and(|core| (core >> from ^ core >> to) & 1 == 1) {
            counters.divided += 1;
            return;
        }
        let calm;
        let link = match &self.faults.links[at] {
            LinkFaults { delay_ns, jitter_ns, .. } if healed => {
                calm = LinkFaults { delay_ns: *delay_ns, jitter_ns: *jitter_ns, ..LinkFaults::default() };
                &calm
            }
            link => link,
        };
        let (state, random) = (&mut self.states[at], &mut self.random);
        let cut = |cut: &&(usize, usize, u64, u64)| {
            (cut.0, cut.1) == (from, to) && (cut.2..cut.2 + cut.3).contains(&now)
        };
        if !healed && self.faults.cuts.iter().find(cut).is_some() {
            counters.cut += 1;
            return;
        }
        if !healed && self.faults.partitions.iter().any(|partition| partition.divides(from, to, now)) {
            counters.divided += 1;
            return;
        }
        if state.burst_left == 0 && random.chance(link.burst) {
            state.burst_left = random.between(1, u64::from(link.burst_frames) * 2) as u32;
            state.burst_until = now + BURST_NS_MAX;
        }
        if state.burst_left > 0 && now < state.burst_until && link.burst > 0 {
            state.burst_left -= 1;
            counters.lost_in_burst += 1;
            return;
        }
        state.burst_left = 0;
        if random.chance(link.loss) {
            counters.lost += 1;
            return;
        }
        if random.chance(link.spike) {
            counters.spikes += 1;
            state.in_order_at = state.in_order_at.max(now + random.between(1, link.spike_ns));
        }
        let travel = link.delay_ns + if link.jitter_ns > 0 { random.below(link.jitter_ns) } else { 0 };
        let in_order = (now + travel).max(state.in_order_at);
        let arrival = if random.chance(link.reorder) {
            in_order + random.between(1, link.reorder_ns)
        } else {
            state.in_order_at = in_order;
            in_order
        };
        if arrival < state.latest_at {
            counters.reordered += 1;
        }
        state.latest_at = state.latest_at.max(arrival);
        let damage = random.chance(link.corrupt).then(|| Damage::draw(random));
        counters.corrupted += u64::from(damage.is_some());
        arrive(Arrival { at: arrival, damage });
        if random.chance(link.duplicate) {
            counters.duplicated += 1;
            let gap = random.between(0, link.reorder_ns.max(1000));
            arrive(Arrival { at: arrival + gap, damage: None });
        }
        if random.chance(link.stale) {
            counters.stale += 1;
            arrive(Arrival { at: arrival + random.between(1, link.stale_ns), damage: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: LinkFaults = LinkFaults {
        loss: 0,
        burst: 0,
        burst_frames: 0,
        duplicate: 0,
        stale: 0,
        stale_ns: 0,
        reorder: 0,
        reorder_ns: 0,
        spike: 0,
        spike_ns: 0,
        corrupt: 0,
        delay_ns: 5_000,
        jitter_ns: 3_000,
    };

    fn network(link: LinkFaults) -> Network {
        let faults = Faults { links: vec![link; 4], ..Faults::default() };
        Network::new(2, faults, Random::new(11, "network"))
    }

    /// Carries `count` frames, one a microsecond; returns (frame, arrival) in order of sending, and the counters.
    fn carried(network: &mut Network, count: u64) -> (Vec<(u64, Arrival)>, FaultCounters) {
        let (mut arrivals, mut counters) = (Vec::new(), FaultCounters::default());
        for frame in 0..count {
            network.carry(0, 1, frame * 1000, &mut counters, &mut |arrival| arrivals.push((frame, arrival)));
        }
        (arrivals, counters)
    }

    #[test]
    fn a_calm_link_delivers_all_in_order_within_its_bounds() {
        let (arrivals, counters) = carried(&mut network(CALM), 10_000);
        assert_eq!(arrivals.len(), 10_000);
        assert!(arrivals.windows(2).all(|pair| pair[0].1.at <= pair[1].1.at));
        assert!(arrivals.iter().all(|(frame, arrival)| {
            (5_000..8_000).contains(&(arrival.at - frame * 1000)) && arrival.damage.is_none()
        }));
        assert_eq!(counters, FaultCounters { frames: 10_000, ..FaultCounters::default() });
    }

    #[test]
    fn each_fault_happens_as_often_as_it_should() {
        let about = |count: u64, expected: u64| assert!(count.abs_diff(expected) < expected / 5, "{count}");
        let (arrivals, counters) = carried(&mut network(LinkFaults { loss: 300_000, ..CALM }), 10_000);
        about(counters.lost, 3_000);
        assert_eq!(arrivals.len() as u64 + counters.lost, 10_000);
        let (arrivals, counters) = carried(&mut network(LinkFaults { duplicate: 100_000, ..CALM }), 10_000);
        about(counters.duplicated, 1_000);
        assert_eq!(arrivals.len() as u64, 10_000 + counters.duplicated);
        let link = LinkFaults { reorder: 100_000, reorder_ns: 20_000, ..CALM };
        let (arrivals, counters) = carried(&mut network(link), 10_000);
        assert!(counters.reordered > 1_000);
        assert!(arrivals.windows(2).any(|pair| pair[0].1.at > pair[1].1.at));
        let (arrivals, counters) = carried(&mut network(LinkFaults { corrupt: 50_000, ..CALM }), 10_000);
        about(counters.corrupted, 500);
        assert_eq!(arrivals.iter().filter(|(_, a)| a.damage.is_some()).count() as u64, counters.corrupted);
        let link = LinkFaults { burst: 2_000, burst_frames: 50, ..CALM };
        let (_, counters) = carried(&mut network(link), 100_000);
        assert!((5_000..15_000).contains(&counters.lost_in_burst), "{}", counters.lost_in_burst);
        let link = LinkFaults { stale: 10_000, stale_ns: 500_000_000, ..CALM };
        let (arrivals, counters) = carried(&mut network(link), 10_000);
        about(counters.stale, 100);
        assert!(arrivals.iter().any(|(frame, a)| a.at - frame * 1000 > 100_000_000));
    }

    #[test]
    fn a_spike_delays_what_follows_and_keeps_its_order() {
        let link = LinkFaults { spike: 1_000, spike_ns: 10_000_000, ..CALM };
        let (arrivals, counters) = carried(&mut network(link), 20_000);
        assert!(counters.spikes > 5);
        assert!(arrivals.windows(2).all(|pair| pair[0].1.at <= pair[1].1.at));
        assert!(arrivals.iter().any(|(frame, arrival)| arrival.at - frame * 1000 > 1_000_000));
    }

    #[test]
    fn a_cut_link_carries_nothing_while_it_is_cut_and_in_one_direction() {
        let mut network = network(CALM);
        network.faults.cuts = vec![(0, 1, 2_000_000, 3_000_000)];
        let (arrivals, counters) = carried(&mut network, 10_000);
        assert_eq!((arrivals.len(), counters.cut), (7_000, 3_000));
        let mut back = 0;
        network.carry(1, 0, 3_000_000, &mut FaultCounters::default(), &mut |_| back += 1);
        assert_eq!(back, 1);
    }

    #[test]
    fn a_healed_network_only_delays() {
        let link = LinkFaults { loss: 900_000, burst: 100_000, burst_frames: 9, corrupt: 500_000, ..CALM };
        let mut network = network(link);
        network.faults.cuts = vec![(0, 1, 0, u64::MAX)];
        network.heal();
        let (arrivals, counters) = carried(&mut network, 1_000);
        assert_eq!(arrivals.len(), 1_000);
        assert_eq!(counters, FaultCounters { frames: 1_000, ..FaultCounters::default() });
    }

    #[test]
    fn one_seed_is_one_network() {
        let link = LinkFaults {
            loss: 100_000,
            duplicate: 100_000,
            reorder: 100_000,
            reorder_ns: 9_000,
            corrupt: 9_000,
            ..CALM
        };
        assert_eq!(carried(&mut network(link), 5_000), carried(&mut network(link), 5_000));
    }
}
