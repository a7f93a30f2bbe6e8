//! What can be taken out of a world, to see whether it still fails.

use super::{Chaos, Fate, ViewsSetup};
use crate::faults::LinkFaults;
use crate::scenario::NUMBERS;

impl ViewsSetup {
    /// How many things that can be taken out there are.
    pub(crate) fn parts(&self) -> usize {
        PLAIN_PARTS
            + self.processes
            + self.chaos.len()
            + self.faults.partitions.len()
            + self.faults.cuts.len()
    }

    /// The world without some of its parts, by number.
    pub(crate) fn without(&self, parts: &[usize]) -> ViewsSetup {
        let gone = |part: usize| parts.contains(&part);
        let mut setup = self.clone();
        let base = PLAIN_PARTS;
        let process_gone = |process: usize| gone(base + process);
        let base = base + self.processes;
        let numbered = |base: usize| move |at: usize| base + at;
        let (chaos, partitions) = (numbered(base), numbered(base + self.chaos.len()));
        let cuts = numbered(base + self.chaos.len() + self.faults.partitions.len());
        setup.chaos = (self.chaos.iter().enumerate())
            .filter(|(at, (_, what))| !gone(chaos(*at)) && !what.process().is_some_and(process_gone))
            .map(|(_, what)| *what)
            .collect();
        setup.faults.partitions = (self.faults.partitions.iter().enumerate())
            .filter(|(at, _)| !gone(partitions(*at)))
            .map(|(_, what)| *what)
            .collect();
        setup.faults.cuts = (self.faults.cuts.iter().enumerate())
            .filter(|(at, _)| !gone(cuts(*at)))
            .map(|(_, what)| *what)
            .collect();
        for process in (0..self.processes).filter(|process| process_gone(*process)) {
            setup.fates[process] = Fate::Crashed;
            setup.chaos.insert(0, (0, Chaos::Crash { process, back_ns: None }));
        }
        for link in &mut setup.faults.links {
            let LinkFaults { loss, burst, duplicate, stale, reorder, spike, corrupt, jitter_ns, .. } = link;
            let faults = [loss, burst, duplicate, stale, reorder, spike, corrupt];
            for (part, chance) in faults.into_iter().enumerate() {
                if gone(part) {
                    *chance = 0;
                }
            }
            if gone(7) {
                *jitter_ns = 0;
            }
        }
        if gone(8) {
            setup.load.gaps_ns.fill(0);
        }
        if gone(9) {
            (setup.load.burst, setup.load.reply, setup.load.acknowledge) = (1, 0, 0);
        }
        if gone(10) {
            setup.load.sends = 0;
        }
        if gone(11) {
            (setup.scarcity, setup.number_limit) = (1, NUMBERS);
        }
        if gone(12) {
            setup.accelerated = false;
        }
        if gone(13) {
            setup.packing = false;
        }
        if gone(14) {
            setup.hints = false;
        }
        if gone(15) {
            setup.load.gaps_ns.iter_mut().for_each(|gap| *gap *= 8);
        }
        if gone(16) {
            (setup.load.large, setup.load.large_bytes) = (0, 0);
            setup.without_layer("FRAG");
        }
        if gone(17) {
            setup.without_layer("XFER");
        }
        if gone(18) {
            setup.load.late_state = 0;
        }
        if gone(19) {
            setup.greedy = 0;
        }
        if gone(20) {
            setup.load.torn_state = 0;
        }
        if gone(21) {
            setup.expulsion = None;
        }
        if gone(22) {
            setup.without_plans = 0;
        }
        if gone(23) {
            setup.seldom.senior_ms = None;
        }
        if gone(24) {
            setup.seldom.leaves_full = false;
        }
        if gone(25) {
            setup.seldom.goes_on = false;
        }
        setup
    }

    /// The world without one of the layers that are drawn last.
    fn without_layer(&mut self, layer: &str) {
        let layers = self.stack.split(':').filter(|named| named.split('(').next() != Some(layer));
        self.stack = layers.collect::<Vec<_>>().join(":");
    }
}

/// Faults of links, workload and the like.
const PLAIN_PARTS: usize = 26;
