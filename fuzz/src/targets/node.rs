//! A member on the bench: an endpoint whose frames and time come from a target.

use std::collections::VecDeque;
use std::time::Duration;

use wadjet::buf::{Region, RegionOptions};
use wadjet::transport::{Addresses, Caps, Channel, ChannelId, Destination, Received};
use wadjet::{
    Address, Application, Config, Delivery, Endpoint, Event, Group, GroupId, GroupKey, Incarnation,
    LocalView, Member, Rank, RankSet, Shadow, Time, View, ViewId,
};

/// Small limits, so that few operations reach them.
fn config() -> Config {
    Config {
        shadow: Shadow::Panic,
        frame_bytes_max: FRAME_BYTES,
        window_frames: WINDOW_FRAMES,
        waiting_frames_max: 4,
        control_frames: 48,
        early_frames_max: 4,
        order_frames_max: 16,
        ..Config::default()
    }
}

pub(super) const FRAME_BYTES: usize = 512;
pub(super) const WINDOW_FRAMES: u64 = 8;

/// What one member was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By origin: the messages delivered from it, in order.
    pub(super) casts: Vec<Vec<Vec<u8>>>,
    pub(super) sends: Vec<Vec<Vec<u8>>>,
    pub(super) exited: bool,
}

impl Application for Told {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let messages = delivery.messages().map(<[u8]>::to_vec);
        self.casts[delivery.origin().index()].extend(messages);
        group.ack(delivery.id());
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let messages = delivery.messages().map(<[u8]>::to_vec);
        self.sends[delivery.origin().index()].extend(messages);
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        self.exited |= matches!(event, Event::Exit(_));
    }
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) to: RankSet,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) key: GroupKey,
    pub(super) told: Told,
    own: Rank,
    members: usize,
    received: Region,
    receive_frames: usize,
    now: Time,
}

impl Node {
    /// The member with `rank` of a view of `members` members.
    pub(super) fn new(rank: usize, members: usize, stack: &str, integrity: bool) -> Node {
        let incarnation = |rank: usize| Incarnation(0x1000 + rank as u64);
        let member =
            |rank| Member { incarnation: incarnation(rank), address: Address(format!("member {rank}")) };
        let view = View {
            group: GroupId::named("fuzz"),
            id: ViewId { counter: 1, coordinator: incarnation(0) },
            members: (0..members).map(member).collect(),
            spec: stack.to_owned(),
            wire_version: wadjet::wire::WIRE_VERSION,
            salt: 1,
            frame_bytes: 0,
        };
        let view = LocalView::new(view, incarnation(rank)).expect("the view is sound");
        let mut endpoint = Endpoint::new(config(), incarnation(rank)).expect("the configuration is sound");
        let options = endpoint.channel_options(members);
        let pool = |frames| {
            let options = RegionOptions {
                frames,
                link_headroom_bytes: 0,
                frame_bytes: FRAME_BYTES,
                reserve_frames: 0,
                huge_pages: false,
            };
            Region::pool(options).expect("memory for a few frames")
        };
        // A frame beyond what an endpoint may hold, for the one that is being handed over.
        let received = pool(options.receive_frames + 1);
        let channel = Channel {
            id: ChannelId(0),
            casts: pool(options.cast_frames),
            control: pool(options.control_frames),
            long: None,
        };
        let now = Time::from_nanos(1_000_000);
        let key = endpoint.install(view, channel, &caps(integrity), now).expect("the stack is sound");
        let told = Told { casts: vec![Vec::new(); members], sends: vec![Vec::new(); members], exited: false };
        let receive_frames = options.receive_frames;
        Node { endpoint, key, told, own: Rank::at(rank), members, received, receive_frames, now }
    }

    /// Hands over one frame.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        let mut frame = self.received.take(0).expect("an endpoint holds no more frames than it said");
        frame.extend(&bytes[..bytes.len().min(frame.room())]).expect("cut to fit");
        let frame = frame.freeze();
        let (from, to) = (frame.start(), frame.end());
        let received = Received { channel: ChannelId(0), frame, from, to };
        self.endpoint.receive(received, self.now, &mut self.told);
        let held = self.received.usage().lent;
        assert!(
            held <= self.receive_frames,
            "{held} received frames are held; {} were named",
            self.receive_frames
        );
    }

    /// One iteration of a driver, `later` than the last.
    pub(super) fn poll(&mut self, later: Duration) {
        self.now = self.now + later;
        self.endpoint.poll(self.now, &mut self.told);
    }

    pub(super) fn group(&mut self) -> Group<'_> {
        self.endpoint.group(self.key)
    }

    /// Takes all frames that are to go out; returns how many.
    pub(super) fn transmit(&mut self, wire: &mut VecDeque<InFlight>) -> usize {
        let mut count = 0;
        while let Some(transmit) = self.endpoint.transmit() {
            let mut to = match transmit.to {
                Destination::All => RankSet::all(self.members),
                Destination::One(rank) => RankSet::one(rank),
                Destination::Some(ranks) => ranks,
            };
            to.remove(self.own);
            let mut bytes = transmit.head.bytes().to_vec();
            bytes.extend(transmit.body.iter().flat_map(|body| body.bytes()));
            assert!(bytes.len() <= FRAME_BYTES, "a frame of {} bytes", bytes.len());
            wire.push_back(InFlight { to, bytes });
            count += 1;
        }
        count
    }
}

fn caps(integrity: bool) -> Caps {
    Caps {
        name: "fuzz",
        frame_bytes_max: FRAME_BYTES,
        multicast: true,
        integrity,
        loses: true,
        duplicates: true,
        reorders: true,
        zero_copy: false,
        segmentation: false,
        addresses: Addresses::Names,
        notes: Vec::new(),
    }
}
