//! The fault model: what can go wrong, how often, and how often it did.

use serde::Serialize;

use crate::random::Random;

/// What the network does to frames on one link. Chances are per million frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFaults {
    /// Lost.
    pub loss: u32,
    /// A spell of losing everything begins; it lasts `burst_frames` on average, and 5 ms at most.
    pub burst: u32,
    /// Mean length of such a spell.
    pub burst_frames: u32,
    /// Arrives a second time.
    pub duplicate: u32,
    /// A copy arrives very late: up to `stale_ns` after.
    pub stale: u32,
    /// The most a stale copy is late.
    pub stale_ns: u64,
    /// Is overtaken by frames of the next `reorder_ns`.
    pub reorder: u32,
    /// The most it is held up.
    pub reorder_ns: u64,
    /// The link stands still for `spike_ns`: nothing overtakes, all is late.
    pub spike: u32,
    /// How long at most.
    pub spike_ns: u64,
    /// Arrives damaged.
    pub corrupt: u32,
    /// The shortest time of travel.
    pub delay_ns: u64,
    /// Drawn evenly on top of it, order kept.
    pub jitter_ns: u64,
}

/// What goes wrong in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Links by origin and destination: `links[from * members + to]`.
    pub links: Vec<LinkFaults>,
    /// Members that stand still: who, from when, for how long, in nanoseconds.
    pub pauses: Vec<(usize, u64, u64)>,
    /// Links that are cut: from whom, to whom, from when, for how long, in nanoseconds.
    pub cuts: Vec<(usize, usize, u64, u64)>,
    /// Times at which the network is in two parts.
    pub partitions: Vec<Partition>,
    /// Frames that belong to others, or to nobody, injected during the workload: when, and at whom.
    pub intruders: Vec<(u64, usize)>,
    /// Members one word of whose slot file is scrambled, and when: no scenario draws this. It shows that slots are what
    /// layers and plans use, and that the oracle notices.
    pub poisons: Vec<(usize, u64)>,
    /// The network heals when the workload is over. Else losses, duplicates and the like go on for ever.
    pub heals: bool,
}

/// For a while the members of one side are apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From when, in nanoseconds.
    pub at: u64,
    /// Until when.
    pub until: u64,
    /// The members of the side, bit by bit.
    pub side: u64,
    /// Only what they send is lost; they hear the others.
    pub one_way: bool,
}

impl Partition {
    /// Whether a frame from one member to another is lost to it.
    pub(crate) fn divides(&self, from: usize, to: usize, now: u64) -> bool {
        let on_side = |member: usize| self.side >> member & 1 == 1;
        let crosses = match self.one_way {
            true => on_side(from) && !on_side(to),
            false => on_side(from) != on_side(to),
        };
        crosses && (self.at..self.until).contains(&now)
    }
}

/// How a frame is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    kind: DamageKind,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DamageKind {
    /// One to eight bits anywhere.
    Flip,
    /// One to three bits among the first 48 bytes.
    FlipHeader,
    /// The end is missing.
    Truncate,
    /// Something follows the end.
    Extend,
    /// A stretch is zero.
    Zero,
    /// Another frame's length, nothing of its bytes.
    Rubbish,
}

impl Damage {
    pub(crate) fn draw(random: &mut Random) -> Damage {
        use DamageKind::*;
        let kind = *random.pick(&[Flip, Flip, FlipHeader, FlipHeader, Truncate, Extend, Zero, Rubbish]);
        Damage { kind, seed: random.word() }
    }

    /// Damages `bytes`; the result differs from what was there.
    pub(crate) fn apply(self, bytes: &mut Vec<u8>, limit: usize) {
        let mut random = Random::new(self.seed, "damage");
        let before = bytes.clone();
        let length = bytes.len();
        match self.kind {
            DamageKind::Flip => flip(bytes, length, 8, &mut random),
            DamageKind::FlipHeader => flip(bytes, length.min(48), 3, &mut random),
            DamageKind::Truncate => bytes.truncate(random.below(length.max(1) as u64) as usize),
            DamageKind::Extend => {
                let more = random.between(1, 64).min(limit.saturating_sub(length) as u64);
                bytes.extend((0..more).map(|_| random.word() as u8));
            }
            DamageKind::Zero if length > 0 => {
                let from = random.below(length as u64) as usize;
                let to = (from + random.between(1, 64) as usize).min(length);
                bytes[from..to].fill(0);
            }
            DamageKind::Zero | DamageKind::Rubbish => {
                let length = random.below(limit as u64 + 1);
                bytes.clear();
                bytes.extend((0..length).map(|_| random.word() as u8));
            }
        }
        if *bytes == before {
            match bytes.first_mut() {
                Some(first) => *first ^= 0x40,
                None => bytes.push(0x40),
            }
        }
    }
}

fn flip(bytes: &mut [u8], within: usize, most: u64, random: &mut Random) {
    if within > 0 {
        for _ in 0..random.between(1, most) {
            bytes[random.below(within as u64) as usize] ^= 1 << random.below(8);
        }
    }
}

macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct $name {
            $($(#[$field_about])* pub $field: u64,)*
        }

        impl $name {
            /// Adds another run's counts.
            pub fn add(&mut self, other: &$name) {
                $(self.$field += other.$field;)*
            }

            /// Every count under its name.
            pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// What the simulated world did to the members of a run.
    FaultCounters {
        /// Frames submitted, once per destination.
        frames,
        /// Lost one by one.
        lost,
        /// Lost in a burst.
        lost_in_burst,
        /// Lost on a link that was cut.
        cut,
        /// Delivered a second time.
        duplicated,
        /// Delivered again long after.
        stale,
        /// Overtaken by a later frame.
        reordered,
        /// Late because the link stood still.
        spikes,
        /// Lost because the network was in two parts.
        divided,
        /// Damaged.
        corrupted,
        /// Of another group, another view, or nobody's.
        intruders,
        /// Dropped because the receiver's queue was full.
        overflowed,
        /// Dropped because the receiver had no frame to put it in.
        no_frame,
        /// Given back to the sender because its queue was full.
        full,
        /// Members stopped for a while.
        pauses,
        /// All processes stopped at once.
        standstills,
        /// Processes that died.
        crashes,
        /// Processes that began another life.
        restarts,
        /// Processes that left of their own accord.
        leaves,
        /// Members that their application took for failed.
        accusations,
        /// Driver iterations of members that read less than there was.
        slow_reads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_always_changes_the_frame_and_respects_the_limit() {
        let mut random = Random::new(3, "damage");
        for round in 0..20_000 {
            let length = random.below(200) as usize;
            let frame: Vec<u8> = (0..length).map(|_| (random.word() & round) as u8).collect();
            let mut damaged = frame.clone();
            Damage::draw(&mut random).apply(&mut damaged, 200);
            assert_ne!(damaged, frame);
            assert!(damaged.len() <= 200);
        }
    }

    #[test]
    fn damage_can_be_repeated() {
        let damage = Damage::draw(&mut Random::new(5, "damage"));
        let (mut one, mut other) = (vec![1; 100], vec![1; 100]);
        damage.apply(&mut one, 1500);
        damage.apply(&mut other, 1500);
        assert_eq!(one, other);
    }
}
