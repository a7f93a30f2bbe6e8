//! A member of a live group, and letters from outside its view: probes, requests to be let in, views, exclusions.

use std::time::Duration;

use wadjet::buf::{Region, RegionOptions};
use wadjet::endpoint::{Endpoint, GroupKey, Request};
use wadjet::layers::DEFAULT_STACK;
use wadjet::transport::{Addresses, Caps, Channel, ChannelId, ChannelOptions, OUTSIDE_BYTES_MAX, Received};
use wadjet::view::Neighbours;
use wadjet::wire::full::{Identification, PREFIX_BYTES};
use wadjet::wire::{Traffic, outside};
use wadjet::{
    Address, Application, Config, Delivery, Event, Group, GroupId, Incarnation, LocalView, Member, RankSet,
    Shadow, Time, View, ViewId,
};

use crate::Target;

/// MBRSHIP's letters.
pub(super) const LETTERS: Target = Target {
    name: "letters",
    what: "whatever letters say, and whoever is said to have written them: a member stays a member of its view, views \
        only ever follow each other upwards, and what it asks of its transport is bounded",
    weight: 100,
    seeds: || {
        let view = |members: &[u64], counter| {
            let member =
                |n: &u64| Member { incarnation: Incarnation(*n), address: Address(format!("member {n}")) };
            View {
                group: GroupId::named("fuzz"),
                id: id(counter, members[0]),
                members: members.iter().map(member).collect(),
                spec: DEFAULT_STACK.to_owned(),
                wire_version: wadjet::wire::WIRE_VERSION,
                salt: 3,
                frame_bytes: 0,
            }
        };
        let letter = |writer: u8, body: Vec<u8>| {
            let mut bytes = vec![LETTER | writer << 4];
            bytes.extend((body.len() as u16).to_le_bytes());
            bytes.extend(body);
            bytes
        };
        let other = view(&[30, 31], 4);
        let presence = |reply: u8, busy: u8| {
            let mut body = vec![0, reply, busy];
            body.extend(id_bytes(other.id));
            body.extend(5_u16.to_le_bytes());
            body.extend(2_u16.to_le_bytes());
            body.extend(member_bytes(&other.members[0]));
            body.extend(text_bytes(&terms(&other.spec)));
            body.push(other.wire_version);
            body
        };
        let mut merge = vec![1];
        merge.extend(id_bytes(id(9, 30)));
        merge.extend(AS_TOLD.to_le_bytes());
        merge.extend(text_bytes(&terms(DEFAULT_STACK)));
        merge.push(other.wire_version);
        merge.extend((FRAME_BYTES as u64).to_le_bytes());
        merge.extend(128_u16.to_le_bytes());
        merge.extend(2_u16.to_le_bytes());
        other.members.iter().for_each(|member| merge.extend(member_bytes(member)));
        let mut deny = vec![2];
        deny.extend(id_bytes(id(2, 1)));
        deny.push(1);
        deny.extend(text_bytes("no"));
        let told = |proposal: ViewId, next: &View| {
            let mut body = vec![3];
            body.extend(id_bytes(proposal));
            body.extend(next.group.0.to_le_bytes());
            body.extend(id_bytes(next.id));
            body.extend(next.salt.to_le_bytes());
            body.push(next.wire_version);
            body.extend(u64::from(next.frame_bytes).to_le_bytes());
            body.extend(text_bytes(&next.spec));
            body.extend((next.members.len() as u16).to_le_bytes());
            next.members.iter().for_each(|member| body.extend(member_bytes(member)));
            body
        };
        // It asks whether it is welcome, in a view that it founded by some proposal.
        let welcome: Vec<u8> = (1..9)
            .flat_map(|counter| {
                let mut body = vec![7];
                body.extend(id_bytes(id(counter, 1)));
                body.extend(5_u64.to_le_bytes());
                letter(2, body)
            })
            .collect();
        let next = view(&[30, 31, 1], LET_IN);
        let let_in: Vec<u8> =
            (1..9).flat_map(|counter| letter(2, told(id(counter, 1), &next))).chain([POLL, 9]).collect();
        let mut excluded = vec![5];
        excluded.extend(id_bytes(id(1, 1)));
        excluded.extend(2_u64.to_le_bytes());
        excluded.extend([1, 1]);
        vec![
            letter(2, presence(1, 0)),
            // Alone, it asks to be let in, is welcome, and is told the view that lets it in.
            [vec![SILENCE, SILENCE], letter(2, presence(0, 0)), welcome, vec![POLL, 1], let_in].concat(),
            [letter(2, merge.clone()), letter(2, merge), vec![POLL, 99, POLL, 99, POLL, 99, POLL, 99]]
                .concat(),
            [letter(2, presence(0, 0)), vec![POLL, 9], letter(2, deny), vec![POLL, 200]].concat(),
            [letter(0, told(id(1, 1), &view(&[1, 2], 7))), vec![POLL, 1]].concat(),
            [letter(1, vec![4]), vec![POLL, 1], letter(1, excluded), vec![POLL, 1]].concat(),
            vec![SILENCE, SILENCE, POLL, 200, POLL, 200, SILENCE, POLL, 9],
        ]
    },
    run: |script| {
        play(script);
    },
};

/// Does what the script says; the last view the application was told of, and whether its group is over.
fn play(script: &[u8]) -> (ViewId, bool) {
    let mut member = Lone::new();
    let mut script = script.iter().copied().take(BYTES_MAX);
    while let Some(operation) = script.next() {
        let mut operand = || script.next().unwrap_or(0);
        match operation & 0xf {
            LETTER => {
                let length = u16::from_le_bytes([operand(), operand()]);
                let body: Vec<u8> = script.by_ref().take(usize::from(length)).collect();
                member.letter(operation >> 4, &body);
            }
            SILENCE => (0..SILENT_POLLS).for_each(|_| member.poll(Duration::from_micros(1_500))),
            _ => member.poll(Duration::from_micros(50) * u32::from(operand())),
        }
    }
    (member.witness.last, member.witness.exited)
}

/// A letter follows: its length as two bytes, and its body; who has written it is in the upper half.
const LETTER: u8 = 0;
const POLL: u8 = 1;
const WINDOW_FRAMES: u64 = 4;

/// What members must have in common, as their letters say it.
fn terms(spec: &str) -> String {
    let bytes = wadjet::Config::default().message_bytes_max;
    format!("{spec}, windows of {WINDOW_FRAMES} frames, messages of {bytes} bytes")
}

/// Long enough for other members to be suspected.
const SILENCE: u8 = 2;
const SILENT_POLLS: usize = 100;

/// In a letter that asks to be let in, where the token stands: the one that was asked for last.
const AS_TOLD: u64 = u64::MAX;
const TOKEN_AT: std::ops::Range<usize> = 17..25;

const BYTES_MAX: usize = 4096;
/// The counter of the view that lets it in.
const LET_IN: u64 = 12;
const FRAME_BYTES: usize = 512;
/// Of a letter, before what it says.
const CHUNK_HEADER_BYTES: usize = 10;
/// What one iteration may ask of the transport: some letters to everybody known.
const REQUESTS_MAX: usize = 2000;

fn id(counter: u64, coordinator: u64) -> ViewId {
    ViewId { counter, coordinator: Incarnation(coordinator) }
}

fn id_bytes(id: ViewId) -> Vec<u8> {
    [id.counter.to_le_bytes(), id.coordinator.0.to_le_bytes()].concat()
}

fn text_bytes(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

fn member_bytes(member: &Member) -> Vec<u8> {
    [&member.incarnation.0.to_le_bytes()[..], &text_bytes(&member.address.0)].concat()
}

/// Sees to it that views are sound and follow each other.
struct Witness {
    own: Incarnation,
    last: ViewId,
    exited: bool,
}

impl Application for Witness {
    fn cast(&mut self, _delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        panic!("nobody casts");
    }

    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        assert!(!self.exited, "{event:?} after the end");
        match event {
            Event::View(view) => {
                assert!(view.view().id >= self.last, "{} after {}", view.view().id, self.last);
                self.last = view.view().id;
                assert!(view.rank_of(self.own).is_some(), "{:?}", view.view().members);
            }
            Event::Block => group.block_ok(),
            Event::Exit(_) => self.exited = true,
            _ => {}
        }
    }
}

/// A member of a view of two that hears nothing but letters.
struct Lone {
    endpoint: Endpoint,
    key: GroupKey,
    witness: Witness,
    letters: Region,
    channels: u32,
    written: u32,
    token: [u8; 8],
    now: Time,
}

fn pool(frames: usize, frame_bytes: usize) -> Region {
    let options =
        RegionOptions { frames, link_headroom_bytes: 0, frame_bytes, reserve_frames: 0, huge_pages: false };
    Region::pool(options).expect("memory for a few frames")
}

fn channel(id: u32, options: &ChannelOptions) -> Channel {
    let [casts, control] =
        [options.cast_frames, options.control_frames].map(|frames| pool(frames, FRAME_BYTES));
    Channel { id: ChannelId(id), casts, control, long: None }
}

fn caps() -> Caps {
    Caps {
        name: "fuzz",
        frame_bytes_max: FRAME_BYTES,
        multicast: true,
        integrity: false,
        loses: true,
        duplicates: true,
        reorders: true,
        zero_copy: false,
        segmentation: false,
        addresses: Addresses::Names,
        notes: Vec::new(),
    }
}

impl Lone {
    fn new() -> Lone {
        let own = Incarnation(1);
        let config = Config {
            shadow: Shadow::Panic,
            frame_bytes_max: FRAME_BYTES,
            window_frames: WINDOW_FRAMES,
            waiting_frames_max: 4,
            control_frames: 48,
            early_frames_max: 4,
            order_frames_max: 16,
            linger_delay: Duration::from_millis(1),
            ..Config::default()
        };
        let members = [1, 2];
        let member = |n: u64| Member { incarnation: Incarnation(n), address: Address(format!("member {n}")) };
        let view = View::fixed(GroupId::named("fuzz"), members.map(member).to_vec(), DEFAULT_STACK);
        let last = view.id;
        let view = LocalView::new(view, own).expect("the view is sound");
        let mut endpoint = Endpoint::new(config, own).expect("the configuration is sound");
        let options = endpoint.channel_options(members.len());
        let now = Time::from_nanos(1_000_000);
        let neighbours = Neighbours { contacts: vec![Address("member 30".to_owned())], discover: true };
        let key = endpoint
            .install_among(view, neighbours, channel(0, &options), &caps(), now)
            .expect("the stack is sound");
        let witness = Witness { own, last, exited: false };
        Lone {
            endpoint,
            key,
            witness,
            letters: pool(64, OUTSIDE_BYTES_MAX),
            channels: 1,
            written: 0,
            token: [0; 8],
            now,
        }
    }

    /// A letter of the other member, or of somebody else, who is in this view, the one before, or another.
    fn letter(&mut self, writer: u8, body: &[u8]) {
        let group = self.endpoint.group(self.key);
        let current = group.view().view().id;
        let (origin, view) = match writer {
            0 => (2, current),
            1 => (2, id(1, 1)),
            2 => (30, id(4, 30)),
            3 => (31, current),
            4 => (1, current),
            _ => (u64::from(writer), id(0, u64::from(writer))),
        };
        self.written += 1;
        let mut body = body.to_vec();
        if let (Some(1), Some(token)) = (body.first(), body.get(TOKEN_AT))
            && *token == AS_TOLD.to_le_bytes()
        {
            body[TOKEN_AT].copy_from_slice(&self.token);
        }
        let group = GroupId::named("fuzz");
        let identification = Identification { group, view, origin: Incarnation(origin), stack: 0 };
        for bytes in outside::split(identification, Traffic::Raw, self.written, &body) {
            let mut frame = self.letters.take(0).expect("letters are not held");
            frame.extend(&bytes).expect("a datagram");
            let frame = frame.freeze();
            let (from, to) = (frame.start(), frame.end());
            let received = Received { channel: ChannelId::OUTSIDE, frame, from, to };
            self.endpoint.receive(received, self.now, &mut self.witness);
        }
        self.poll(Duration::ZERO);
    }

    fn poll(&mut self, later: Duration) {
        self.now = self.now + later;
        self.endpoint.poll(self.now, &mut self.witness);
        let mut requests = 0;
        while let Some(request) = self.endpoint.request() {
            requests += 1;
            assert!(requests < REQUESTS_MAX, "it asks for ever");
            match request {
                Request::Open { group, options, .. } => {
                    let opened = Ok((channel(self.channels, &options), caps()));
                    self.channels += 1;
                    self.endpoint.opened(group, opened, self.now, &mut self.witness);
                }
                Request::Exclude { group, channel, rank } => {
                    self.endpoint.excluded(group, channel, rank, &|_| true);
                }
                Request::Hint { group, channel } => {
                    self.endpoint.gone(group, channel, RankSet::EMPTY, &mut self.witness);
                }
                Request::Outside { bytes, .. } => {
                    let body = bytes.get(PREFIX_BYTES + CHUNK_HEADER_BYTES..).unwrap_or_default();
                    if let (Some(7), Some(token)) = (body.first(), body.get(TOKEN_AT)) {
                        self.token.copy_from_slice(token);
                    }
                }
                Request::Close(_) => {}
            }
        }
        while self.endpoint.transmit().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_reach_a_view_that_lets_it_in_one_of_its_own_with_guests_and_the_end() {
        let ends: Vec<(ViewId, bool)> = (LETTERS.seeds)().iter().map(|seed| play(seed)).collect();
        assert!(ends.iter().any(|(view, _)| *view == id(LET_IN, 30)), "{ends:?}");
        assert!(ends.iter().any(|(_, exited)| *exited), "{ends:?}");
        assert!(ends.iter().any(|(view, _)| view.counter > 1 && view.coordinator.0 == 1), "{ends:?}");
    }
}
