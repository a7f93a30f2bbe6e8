//! Faults on purpose: a wrapper that loses, duplicates, delays and corrupts what another transport sends.
//!
//! Decisions come from a seeded generator and from nothing else, so one order of submissions always suffers the same
//! faults. Whatever is sent twice, late or changed is a copy in a frame of the control region; when there is none, or
//! too many are late already, the fault does not happen. The frame itself is always submitted, in its turn, if need be to nobody: regions that
//! hand out frames in order see every frame of theirs.

use std::task::Waker;
use std::time::Duration;

use super::{
    Caps, Channel, ChannelId, ChannelOptions, Destination, Full, Outside, Received, Transmit, Transport,
    TransportCounters, TransportError,
};
use crate::buf::{Frame, Region};
use crate::id::{GroupId, Rank, RankSet};
use crate::view::{Address, LocalView};

/// How often what goes wrong. Rates are per million frames; loss is decided for every destination apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultOptions {
    /// Chooses the faults.
    pub seed: u64,
    /// Frames lost on the way to one destination.
    pub lost_per_million: u32,
    /// Frames sent twice.
    pub duplicated_per_million: u32,
    /// Frames sent late.
    pub delayed_per_million: u32,
    /// By how many submissions they are late, at most.
    pub delay_submits_max: u32,
    /// Frames sent with one bit changed.
    pub corrupted_per_million: u32,
    /// Bytes of the longest frame that gets through: longer ones are lost on every way. Zero for no such limit.
    pub narrow_bytes: usize,
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Frames lost, counted once per destination.
    pub lost: u64,
    /// Frames sent twice.
    pub duplicated: u64,
    /// Frames sent late.
    pub delayed: u64,
    /// Frames sent with one bit changed.
    pub corrupted: u64,
}

/// A transport with faults.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    options: FaultOptions,
    generator: u64,
    ways: Vec<Way>,
    late: Vec<Late>,
    faults: FaultCounters,
}

/// Copies that may be on their way late at once.
const LATE_MAX: usize = 64;
/// After so many iterations without a submission a late copy goes all the same.
const LATE_REAPS: u32 = 1_000;

#[derive(Debug)]
struct Way {
    channel: ChannelId,
    others: RankSet,
    control: Region,
}

#[derive(Debug)]
struct Late {
    copy: Transmit,
    submits: u32,
    reaps: u32,
}

impl<T: Transport> Faulty<T> {
    /// The channel is open.
    fn pave(&mut self, view: &LocalView, channel: &Channel) {
        let others = view.others().collect();
        self.ways.push(Way { channel: channel.id, others, control: channel.control.clone() });
    }

    /// `inner`, with faults.
    pub fn new(inner: T, options: FaultOptions) -> Faulty<T> {
        let late = Vec::with_capacity(LATE_MAX);
        let faults = FaultCounters::default();
        Faulty { inner, options, generator: options.seed, ways: Vec::new(), late, faults }
    }

    /// The transport without faults.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// What went wrong so far.
    pub fn faults(&self) -> FaultCounters {
        self.faults
    }

    /// Takes the faults away, or brings others. What is late still comes.
    pub fn set_options(&mut self, options: FaultOptions) {
        self.options = options;
        self.generator = options.seed;
    }

    /// Splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn draw(&mut self) -> u64 {
        self.generator = self.generator.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.generator ^ (self.generator >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn happens(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.draw() % 1_000_000 < u64::from(per_million)
    }

    /// Those of `ranks` whom the frame reaches.
    fn spared(&mut self, ranks: RankSet) -> RankSet {
        let rate = self.options.lost_per_million;
        ranks.iter().filter(|_| !self.happens(rate)).collect()
    }

    /// Sends what is due; `submits` and `reaps` say what has happened since the last time.
    fn age(&mut self, submits: u32, reaps: u32) {
        let mut at = 0;
        while at < self.late.len() {
            let late = &mut self.late[at];
            late.submits = late.submits.saturating_sub(submits);
            late.reaps = late.reaps.saturating_sub(reaps);
            if late.submits > 0 && late.reaps > 0 {
                at += 1;
                continue;
            }
            let late = self.late.remove(at);
            if let Err(Full(copy)) = self.inner.submit(late.copy) {
                self.late.insert(at, Late { copy, ..late });
                return;
            }
        }
    }
}

impl<T: Transport> Transport for Faulty<T> {
    fn caps(&self) -> Caps {
        let inner = self.inner.caps();
        let FaultOptions { lost_per_million, duplicated_per_million, delayed_per_million, .. } = self.options;
        Caps {
            loses: inner.loses || lost_per_million > 0,
            duplicates: inner.duplicates || duplicated_per_million > 0,
            reorders: inner.reorders || delayed_per_million > 0,
            integrity: inner.integrity && self.options.corrupted_per_million == 0,
            ..inner
        }
    }

    fn notes_digest(&self) -> Option<u64> {
        self.inner.notes_digest()
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let channel = self.inner.open(view, options)?;
        self.pave(view, &channel);
        Ok(channel)
    }

    fn open_next(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let channel = self.inner.open_next(view, options)?;
        self.pave(view, &channel);
        Ok(channel)
    }

    fn room_for(&self, members: usize, options: &ChannelOptions) -> Result<(), TransportError> {
        self.inner.room_for(members, options)
    }

    fn close(&mut self, channel: ChannelId) {
        self.late.retain(|late| late.copy.channel != channel);
        self.ways.retain(|way| way.channel != channel);
        self.inner.close(channel);
    }

    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        self.inner.bind(group, address)
    }

    fn discovers(&self) -> Result<(), &'static str> {
        self.inner.discovers()
    }

    /// Lost, duplicated and damaged as often as frames are; never late.
    fn send_outside(&mut self, group: GroupId, to: &Outside, bytes: &[u8]) {
        if self.happens(self.options.lost_per_million) {
            self.faults.lost += 1;
            return;
        }
        if self.happens(self.options.corrupted_per_million) {
            let mut changed = bytes.to_vec();
            let place = self.draw() as usize;
            if let Some(byte) = changed.get_mut((place >> 3) % bytes.len().max(1)) {
                *byte ^= 1 << (place & 7);
            }
            self.faults.corrupted += 1;
            self.inner.send_outside(group, to, &changed);
            return;
        }
        if self.happens(self.options.duplicated_per_million) {
            self.faults.duplicated += 1;
            self.inner.send_outside(group, to, bytes);
        }
        self.inner.send_outside(group, to, bytes);
    }

    fn exclude(&mut self, channel: ChannelId, rank: Rank) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.channel == channel) {
            way.others.remove(rank);
        }
        self.inner.exclude(channel, rank);
    }

    fn gone(&self, channel: ChannelId) -> RankSet {
        self.inner.gone(channel)
    }

    fn starved(&self, channel: ChannelId) -> RankSet {
        self.inner.starved(channel)
    }

    fn parted(&self, channel: ChannelId) -> RankSet {
        self.inner.parted(channel)
    }

    fn intact(&self, channel: ChannelId, frame: &Frame) -> bool {
        self.inner.intact(channel, frame)
    }

    fn prepare(&mut self, options: &ChannelOptions) {
        self.inner.prepare(options);
    }

    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        let Some(way) = self.ways.iter().position(|way| way.channel == transmit.channel) else {
            return self.inner.submit(transmit);
        };
        let others = self.ways[way].others;
        let named = match transmit.to {
            Destination::All => others,
            Destination::One(rank) => RankSet::one(rank),
            Destination::Some(ranks) => ranks,
        };
        let named: RankSet = named.iter().filter(|rank| others.contains(*rank)).collect();
        let narrow = self.options.narrow_bytes;
        let too_long = narrow > 0 && transmit.len() > narrow;
        let spared = if too_long { RankSet::EMPTY } else { self.spared(named) };
        let to = if spared == named { transmit.to } else { Destination::Some(spared) };
        let corrupted = self.happens(self.options.corrupted_per_million);
        let duplicated = self.happens(self.options.duplicated_per_million);
        let delayed = self.happens(self.options.delayed_per_million);
        let copied = (corrupted || duplicated || delayed) && self.late.len() < LATE_MAX;
        let copy = if copied { copy(&self.ways[way].control, &transmit) } else { None };
        let Some(mut frame) = copy else {
            let back = transmit.to;
            let refused = self.inner.submit(Transmit { to, ..transmit });
            refused.map_err(|Full(transmit)| Full(Transmit { to: back, ..transmit }))?;
            self.faults.lost += (named.len() - spared.len()) as u64;
            self.age(1, 0);
            return Ok(());
        };
        if corrupted {
            let mut changed = frame.thaw().expect("nobody else has seen it");
            let place = self.draw() as usize;
            let bytes = changed.bytes_mut();
            if let Some(byte) = bytes.get_mut((place >> 3) % bytes.len().max(1)) {
                *byte ^= 1 << (place & 7);
            }
            frame = changed.freeze();
        }
        let copy = Transmit { channel: transmit.channel, to, head: frame, body: None };
        // A frame that is sent twice goes itself; one that is late or changed goes to nobody, and its copy later.
        let back = transmit.to;
        let itself = if duplicated { to } else { Destination::Some(RankSet::EMPTY) };
        let refused = self.inner.submit(Transmit { to: itself, ..transmit });
        refused.map_err(|Full(transmit)| Full(Transmit { to: back, ..transmit }))?;
        self.faults.lost += (named.len() - spared.len()) as u64;
        self.faults.corrupted += u64::from(corrupted);
        self.faults.duplicated += u64::from(duplicated);
        self.faults.delayed += u64::from(delayed);
        self.age(1, 0);
        let submits = if delayed {
            1 + (self.draw() % u64::from(self.options.delay_submits_max.max(1))) as u32
        } else {
            0
        };
        self.late.push(Late { copy, submits, reaps: LATE_REAPS });
        self.age(0, 0);
        Ok(())
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn reap(&mut self) {
        self.inner.reap();
        if !self.late.is_empty() {
            self.age(0, 1);
            self.inner.flush();
        }
    }

    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        self.inner.receive(budget, sink)
    }

    fn more(&self) -> bool {
        self.inner.more()
    }

    fn busy(&self, channel: ChannelId) -> bool {
        self.inner.busy(channel)
    }

    fn wait(&mut self, timeout: Duration) {
        // A late copy goes when the loop has turned often enough: it must turn.
        let timeout = if self.late.is_empty() { timeout } else { timeout.min(Duration::from_micros(50)) };
        self.inner.wait(timeout);
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn counters(&self) -> TransportCounters {
        self.inner.counters()
    }
}

fn copy(control: &Region, transmit: &Transmit) -> Option<Frame> {
    let mut frame = control.take(0).ok()?;
    frame.extend(transmit.head.bytes()).ok()?;
    if let Some(body) = &transmit.body {
        frame.extend(body.bytes()).ok()?;
    }
    Some(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, Incarnation, ViewId};
    use crate::transport::memory::{Hub, HubOptions, MemoryTransport};
    use crate::view::{Address, Member, View};

    const FRAMES: usize = 20_000;

    /// What two receivers got of numbered casts, and what went wrong.
    fn run(options: FaultOptions) -> ([Vec<Vec<u8>>; 2], FaultCounters) {
        let hub = Hub::new(HubOptions::default());
        let members = (0..3)
            .map(|rank| Member { incarnation: Incarnation(rank), address: Address(rank.to_string()) })
            .collect();
        let view = View {
            group: GroupId::named("faulty"),
            id: ViewId { counter: 1, coordinator: Incarnation(0) },
            members,
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        let channel_options = ChannelOptions {
            cast_frames: 16,
            control_frames: 80,
            receive_frames: 16,
            frame_bytes: 64,
            huge_pages: false,
        };
        let mut members: Vec<(Faulty<MemoryTransport>, Channel)> = (0..3)
            .map(|own| {
                let mut transport = Faulty::new(hub.transport(), options);
                let view = LocalView::new(view.clone(), Incarnation(own)).unwrap();
                let channel = transport.open(&view, &channel_options).unwrap();
                (transport, channel)
            })
            .collect();
        let mut got = [Vec::new(), Vec::new()];
        for at in 0..FRAMES + LATE_REAPS as usize {
            let (transport, channel) = &mut members[0];
            if at < FRAMES {
                let mut frame = channel.casts.take(0).unwrap();
                frame.extend(&(at as u64).to_le_bytes()).unwrap();
                frame.extend(&[0x55; 8]).unwrap();
                let (channel, head) = (channel.id, frame.freeze());
                transport.submit(Transmit { channel, to: Destination::All, head, body: None }).unwrap();
                transport.flush();
            }
            transport.reap();
            for (rank, got) in got.iter_mut().enumerate() {
                let receiver = &mut members[rank + 1].0;
                receiver.receive(100, &mut |received| got.push(received.bytes().to_vec()));
            }
        }
        let (transport, channel) = &members[0];
        assert_eq!((channel.casts.usage().lent, channel.control.usage().lent), (0, 0), "frames out");
        (got, transport.faults())
    }

    fn numbers(got: &[Vec<u8>]) -> Vec<u64> {
        got.iter().map(|bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap())).collect()
    }

    #[test]
    fn every_kind_of_fault_happens_about_as_often_as_asked_and_is_counted_exactly() {
        let (got, faults) = run(FaultOptions { seed: 1, lost_per_million: 100_000, ..Default::default() });
        assert_eq!(got[0].len() + got[1].len() + faults.lost as usize, 2 * FRAMES);
        assert!((3_000..5_000).contains(&faults.lost), "{faults:?}");
        assert_ne!(numbers(&got[0]), numbers(&got[1]), "loss is decided for every destination apart");

        let rate = FaultOptions { seed: 2, duplicated_per_million: 50_000, ..Default::default() };
        let (got, faults) = run(rate);
        let mut unique = numbers(&got[0]);
        unique.dedup();
        assert_eq!(got[0].len() - unique.len(), faults.duplicated as usize);
        assert!((800..1_200).contains(&faults.duplicated), "{faults:?}");

        let rate = FaultOptions { seed: 3, corrupted_per_million: 50_000, ..Default::default() };
        let (got, faults) = run(rate);
        let changed = (0..FRAMES as u64).zip(&got[1]).filter(|(at, bytes)| {
            let sound = [at.to_le_bytes(), [0x55; 8]].concat();
            let bits: u32 = sound.iter().zip(*bytes).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert!(bits <= 1 && bytes.len() == 16);
            bits == 1
        });
        assert_eq!(changed.count() as u64, faults.corrupted);
        assert!((800..1_200).contains(&faults.corrupted), "{faults:?}");

        let rate =
            FaultOptions { seed: 4, delayed_per_million: 50_000, delay_submits_max: 5, ..Default::default() };
        let (got, faults) = run(rate);
        let got = numbers(&got[0]);
        for (at, number) in got.iter().enumerate() {
            assert!((at as u64).abs_diff(*number) <= 6, "{number} at place {at}");
        }
        assert!(!got.is_sorted() && (800..1_200).contains(&faults.delayed), "{faults:?}");
        let mut sorted = got;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..FRAMES as u64), "late, but all of them, the last included");
    }

    #[test]
    fn one_seed_brings_the_same_faults_and_another_brings_others() {
        let options = FaultOptions {
            seed: 9,
            lost_per_million: 100_000,
            duplicated_per_million: 100_000,
            delayed_per_million: 100_000,
            delay_submits_max: 20,
            corrupted_per_million: 100_000,
            ..Default::default()
        };
        assert_eq!(run(options), run(options));
        assert_ne!(run(options).0, run(FaultOptions { seed: 10, ..options }).0);
    }
}
