//! Two endpoints in one thread that hand each other their frames: the stack without any transport.

use std::error::Error;
use std::time::Duration;

use wadjet::buf::{Region, RegionOptions};
use wadjet::config::{Config, Shadow};
use wadjet::endpoint::{Endpoint, GroupKey};
use wadjet::group::{Application, Delivery, Group};
use wadjet::id::{GroupId, Incarnation, ViewId};
use wadjet::time::Time;
use wadjet::transport::{Addresses, Caps, Channel, ChannelId, Received};
use wadjet::view::{Address, LocalView, Member, View};

use crate::memory_cost::{Operation, Path, Scenario};
use crate::party::FastPath;

/// Two members, of whom the first casts.
pub struct StackPair {
    sender: Side,
    receiver: Side,
    now: Time,
    size: usize,
    /// Messages cast per operation.
    messages: u32,
}

struct Side {
    endpoint: Endpoint,
    key: GroupKey,
    count: Count,
    /// Frames on their way to this member.
    arrived: Vec<Received>,
}

#[derive(Default)]
struct Count {
    messages: u64,
    bytes: u64,
}

impl Application for Count {
    #[inline(never)]
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        delivery.messages().for_each(|message| {
            self.messages += 1;
            self.bytes += message.len() as u64;
        });
    }
}

impl StackPair {
    /// A pair over a scenario's stack.
    ///
    /// # Errors
    /// If there is no memory for the frames, or the stack cannot be built.
    pub fn new(scenario: &Scenario) -> Result<StackPair, Box<dyn Error>> {
        Ok(StackPair {
            sender: Side::new(scenario, 0)?,
            receiver: Side::new(scenario, 1)?,
            now: Time::ZERO,
            size: scenario.size,
            messages: scenario.messages,
        })
    }

    /// Lets the last pack go, which waits to be filled as long as the way is busy.
    pub fn settle(&mut self) {
        self.sender.endpoint.set_busy(ChannelId(0), false);
        for _ in 0..2 {
            self.exchange();
        }
    }

    #[inline]
    fn exchange(&mut self) {
        self.sender.endpoint.poll(self.now, &mut self.sender.count);
        self.sender.hand_to(&mut self.receiver, self.now);
        self.receiver.endpoint.poll(self.now, &mut self.receiver.count);
        self.receiver.hand_to(&mut self.sender, self.now);
    }

    /// Messages delivered to the sender's own application and to the receiver's.
    pub fn delivered(&self) -> (u64, u64) {
        (self.sender.count.messages, self.receiver.count.messages)
    }

    /// How the plans of both members did.
    pub fn fast_path(&self) -> FastPath {
        let of = |side: &Side| {
            let fast = side.endpoint.stats(side.key).fast_path;
            FastPath {
                send_hit: fast.send_hit,
                send_miss: fast.send_miss,
                deliver_hit: fast.deliver_hit,
                deliver_early: fast.deliver_early,
                deliver_miss: fast.deliver_miss,
            }
        };
        of(&self.sender).plus(&of(&self.receiver))
    }
}

impl Operation for StackPair {
    #[inline]
    fn once(&mut self) {
        self.now = self.now + BETWEEN_OPERATIONS;
        let mut group = self.sender.endpoint.group(self.sender.key);
        for _ in 0..self.messages {
            let mut room = group.reserve(self.size).expect("the receiver keeps up, so there is credit");
            room.fill(7);
            room.commit();
        }
        self.exchange();
    }

    fn messages(&self) -> u32 {
        self.messages
    }
}

impl Side {
    fn new(scenario: &Scenario, rank: u64) -> Result<Side, Box<dyn Error>> {
        let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("member {n}")) };
        let view = View {
            group: GroupId::named("the stack in memory"),
            id: ViewId { counter: 1, coordinator: Incarnation(0) },
            members: vec![member(0), member(1)],
            spec: scenario.stack.clone(),
            wire_version: wadjet::wire::WIRE_VERSION,
            frame_bytes: 0,
            salt: 0,
        };
        let view = LocalView::new(view, Incarnation(rank))?;
        let (accelerate, pack) = (scenario.path != Path::Slow, scenario.path == Path::Packed);
        let config = Config { accelerate, pack, shadow: Shadow::Off, ..Config::for_stack(&scenario.stack) };
        let mut endpoint = Endpoint::new(config, Incarnation(rank))?;
        let options = endpoint.channel_options(2);
        let pool = |frames| {
            Region::pool(RegionOptions {
                frames,
                link_headroom_bytes: 0,
                frame_bytes: options.frame_bytes,
                reserve_frames: 0,
                huge_pages: false,
            })
        };
        let channel = Channel {
            id: ChannelId(0),
            casts: pool(options.cast_frames)?,
            control: pool(options.control_frames)?,
            long: None,
        };
        let caps = Caps {
            name: "none",
            frame_bytes_max: options.frame_bytes,
            multicast: true,
            integrity: true,
            loses: false,
            duplicates: false,
            reorders: false,
            zero_copy: true,
            segmentation: false,
            addresses: Addresses::Names,
            notes: Vec::new(),
        };
        let key = endpoint.install(view, channel, &caps, Time::ZERO)?;
        endpoint.set_busy(ChannelId(0), pack && rank == 0);
        Ok(Side { endpoint, key, count: Count::default(), arrived: Vec::new() })
    }

    /// Gives what this member sends to the other, in place.
    #[inline]
    fn hand_to(&mut self, other: &mut Side, now: Time) {
        while let Some(transmit) = self.endpoint.transmit() {
            assert!(transmit.body.is_none(), "nothing is lost here, so nothing is sent again");
            transmit.head.submit();
            let (from, to) = (transmit.head.start(), transmit.head.end());
            other.arrived.push(Received { channel: ChannelId(0), frame: transmit.head, from, to });
        }
        if !other.arrived.is_empty() {
            other.endpoint.receive_all(&mut other.arrived, now, &mut other.count);
        }
    }
}

/// What passes between two operations as far as the endpoints know.
const BETWEEN_OPERATIONS: Duration = Duration::from_nanos(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_cost::scenarios;

    #[test]
    fn every_measured_stack_delivers_everything_on_the_path_it_is_measured_on() {
        for scenario in scenarios().iter().filter(|scenario| scenario.path != Path::Fused) {
            let accelerate = scenario.path != Path::Slow;
            let mut pair = StackPair::new(scenario).unwrap();
            (0..2000).for_each(|_| pair.once());
            pair.settle();
            let all = 2000 * u64::from(scenario.messages);
            assert_eq!(pair.delivered(), (all, all), "{}", scenario.name);
            let fast = pair.fast_path();
            let rate = fast.hit_rate().unwrap_or(0.0);
            assert!(if accelerate { rate > 0.999 } else { rate == 0.0 }, "{}: {fast:?}", scenario.name);
        }
    }
}
