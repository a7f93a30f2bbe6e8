//! Processes whose views are agreed on, over the in-memory transport, driven by hand with a clock of their own.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::rc::Rc;
use std::time::Duration;

use wadjet::endpoint::{Endpoint, GroupKey, Request};
use wadjet::group::{Application, Delivery, Event, Grounds, Group, Snapshot, StatePart};
use wadjet::stack::event::{MessageId, Slow, Suspicion};
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::transport::{ChannelId, Destination, Full, Outside, Received, Transmit, Transport};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, GroupId, Incarnation, LocalView, Member, RankSet, Time, View, ViewId};

/// What an application sees, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    View(ViewId, Vec<u64>),
    Transitional(Vec<u16>),
    /// Origin's incarnation and message.
    Cast(u64, Vec<u8>),
    Send(u64, Vec<u8>),
    Block,
    Writable,
    Suspect(Suspicion),
    Paused(Duration),
    Left(u16),
    Slow(Slow),
    StateLost(bool),
    Lost,
    Problem(String),
    Exit(String),
}

#[derive(Default)]
pub struct Diary {
    pub seen: Vec<Seen>,
    members: Vec<u64>,
    /// Of all casts, and of all sends.
    pub ids: [Vec<MessageId>; 2],
    /// What was written to others outside a view.
    pub letters: Vec<Vec<u8>>,
    /// A state, if the application has one.
    pub replica: Option<Replica>,
    /// What is answered to who asks whether it is behind.
    pub behind: bool,
    /// Sends every cast back to who cast it, and how often that was taken.
    pub answers: bool,
    pub answered: usize,
}

impl Diary {
    /// Parts of a state that it has taken in.
    fn parts(&self) -> u32 {
        self.replica.as_ref().map_or(0, |replica| replica.parts)
    }
}

impl Application for Diary {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let origin = self.members[delivery.origin().index()];
        assert_eq!(
            group.view().member(delivery.origin()).incarnation.0,
            origin,
            "ranks of the view told last"
        );
        if self.answers {
            for message in delivery.messages() {
                let sent = group.send(&wadjet::RankSet::one(delivery.origin()), message);
                self.answered += usize::from(sent.is_ok());
            }
        }
        self.ids[0].push(delivery.id());
        if let Some(replica) = &mut self.replica {
            delivery.messages().for_each(|message| replica.apply(origin, message));
        }
        self.seen.extend(delivery.messages().map(|message| Seen::Cast(origin, message.to_vec())));
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let origin = self.members[delivery.origin().index()];
        self.ids[1].push(delivery.id());
        self.seen.extend(delivery.messages().map(|message| Seen::Send(origin, message.to_vec())));
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        let ranks = |ranks: &wadjet::RankSet| ranks.iter().map(|rank| rank.0).collect::<Vec<_>>();
        let seen = match event {
            Event::View(view) => {
                self.members = view.view().members.iter().map(|member| member.incarnation.0).collect();
                if let Some(replica) = &mut self.replica {
                    replica.at_views.push((view.view().id, replica.state.clone()));
                }
                Seen::View(view.view().id, self.members.clone())
            }
            Event::Transitional(together) => Seen::Transitional(ranks(together)),
            Event::Suspect(suspicion) => Seen::Suspect(*suspicion),
            Event::Paused(lasting) => Seen::Paused(*lasting),
            Event::Left(rank) => Seen::Left(rank.0),
            Event::Slow(slow) => Seen::Slow(*slow),
            Event::StateLost { goes_on } => Seen::StateLost(*goes_on),
            Event::Block => Seen::Block,
            Event::Writable => Seen::Writable,
            Event::LostMessage { .. } => Seen::Lost,
            Event::Problem(problem) => Seen::Problem(problem.what.to_string()),
            Event::Exit(reason) => Seen::Exit(reason.to_string()),
            _ => return,
        };
        self.seen.push(seen);
    }

    fn is_behind(&mut self) -> bool {
        self.behind
    }

    fn snapshot(&mut self, _group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        let replica = self.replica.as_mut()?;
        replica.snapshots += 1;
        let bytes = Cursor::new(replica.encode());
        let most = |bytes: Option<usize>| bytes.unwrap_or(usize::MAX);
        let (left, ready) = (most(replica.readable), most(replica.ready));
        Some(Box::new(Readable { bytes, left, ready, kept_back: Rc::clone(&replica.kept_back) }))
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        self.replica.as_mut().ok_or("no replica here")?.install(part)
    }

    fn is_ready_for_state(&mut self, bytes: usize) -> bool {
        let Some(replica) = self.replica.as_mut() else { return true };
        replica.asked += 1;
        replica.bytes_asked = replica.bytes_asked.max(bytes);
        replica.reluctant == 0 || replica.asked.is_multiple_of(replica.reluctant)
    }
}

/// By origin's incarnation: how many messages were applied, and a hash of them in their order.
pub type State = BTreeMap<u64, (u64, u64)>;

/// A state that everything delivered changes, with ballast that depends on it.
#[derive(Default)]
pub struct Replica {
    pub state: State,
    pub ballast_bytes: usize,
    /// The state when each view was told.
    pub at_views: Vec<(ViewId, State)>,
    pub snapshots: usize,
    /// Its snapshots can be read so far, in bytes; to their end if none.
    pub readable: Option<usize>,
    /// And are ready to be read so far.
    pub ready: Option<usize>,
    /// None of them, also of those that were taken before, is ready to be read as long as this is so.
    pub kept_back: Rc<Cell<bool>>,
    /// Refuses the part that goes beyond so many bytes.
    pub refuse_beyond: Option<u64>,
    /// Takes a part in every so many times that it is asked; how often it was asked. Zero: at once.
    pub reluctant: usize,
    pub asked: usize,
    pub bytes_asked: usize,
    /// What has come of another's state, and how often one began.
    pub received: Vec<u8>,
    pub begun: usize,
    pub installed: usize,
    pub parts: u32,
}

/// A snapshot on a medium that fails behind so many bytes more.
struct Readable {
    bytes: Cursor<Vec<u8>>,
    left: usize,
    ready: usize,
    kept_back: Rc<Cell<bool>>,
}

impl Snapshot for Readable {
    fn is_ready(&mut self, bytes: usize) -> bool {
        !self.kept_back.get() && self.bytes.position() as usize + bytes <= self.ready
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, String> {
        let most = into.len().min(self.left);
        if most == 0 && !into.is_empty() {
            return Err("the disk is damaged".into());
        }
        let count = self.bytes.read(&mut into[..most])?;
        self.left -= count;
        Ok(count)
    }
}

impl Replica {
    fn apply(&mut self, origin: u64, message: &[u8]) {
        let (count, hash) = self.state.entry(origin).or_default();
        *count += 1;
        for byte in message {
            *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.state.len() as u64).to_le_bytes().to_vec();
        for (origin, (count, hash)) in &self.state {
            [*origin, *count, *hash].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        }
        let seed = self.state.values().fold(0, |sum: u64, (_, hash)| sum.wrapping_add(*hash));
        bytes.extend((0..self.ballast_bytes as u64).map(|at| (seed.wrapping_add(at * 0x9e37) >> 3) as u8));
        bytes
    }

    fn install(&mut self, part: &StatePart<'_>) -> Result<(), String> {
        if part.at == 0 {
            self.received.clear();
            self.begun += 1;
        }
        self.parts += 1;
        assert_eq!(part.at, self.received.len() as u64, "parts come in order and without gaps");
        self.received.extend(part.bytes);
        if self.refuse_beyond.is_some_and(|most| self.received.len() as u64 > most) {
            return Err("the disk is full".into());
        }
        if part.last {
            let word = |at: usize| u64::from_le_bytes(self.received[8 * at..8 * at + 8].try_into().unwrap());
            let entries = word(0) as usize;
            self.state =
                (0..entries).map(|n| (word(1 + 3 * n), (word(2 + 3 * n), word(3 + 3 * n)))).collect();
            self.ballast_bytes = self.received.len() - 8 - 24 * entries;
            assert!(self.encode() == self.received, "the ballast is that of this state");
            self.installed += 1;
        }
        Ok(())
    }
}

pub struct Process {
    pub endpoint: Endpoint,
    pub transport: MemoryTransport,
    pub key: GroupKey,
    pub channels: Vec<ChannelId>,
    /// Of its channels.
    pub views: Vec<(ChannelId, LocalView)>,
    pub diary: Diary,
    /// Does nothing, as a stopped process.
    pub stopped: bool,
    /// Takes in one frame in so many iterations; zero is as many as there are.
    pub dull: u32,
    /// For how many iterations a cast keeps its application busy, and until which one the last does.
    pub work: u32,
    /// The same of a part of the state.
    pub part_work: u32,
    pub busy_until: u32,
    /// What its transport says of who waits for a processor.
    pub starved: RankSet,
    /// What it says of who has parted with this one.
    pub parted: RankSet,
}

impl Process {
    /// The members of the view it is in.
    pub fn view(&mut self) -> (ViewId, Vec<u64>) {
        let group = self.endpoint.group(self.key);
        let view = group.view().view();
        (view.id, view.members.iter().map(|member| member.incarnation.0).collect())
    }

    /// How many members the view has that its endpoint is in.
    pub fn endpoint_view_members(&mut self) -> usize {
        self.endpoint.group(self.key).endpoint_view().size()
    }

    /// The casts it delivered in each of its views.
    pub fn casts_by_view(&self) -> Vec<(ViewId, Casts)> {
        let mut views: Vec<(ViewId, Casts)> = Vec::new();
        for seen in &self.diary.seen {
            match seen {
                Seen::View(id, _) => views.push((*id, Vec::new())),
                Seen::Cast(origin, message) => {
                    views.last_mut().expect("a view comes first").1.push((*origin, message.clone()));
                }
                _ => {}
            }
        }
        views
    }
}

/// Origins' incarnations and messages.
pub type Casts = Vec<(u64, Vec<u8>)>;

/// Says whether a frame is lost on its way to a process.
pub type Lose = Box<dyn FnMut(usize, &Received) -> bool>;

pub struct Town {
    pub hub: Hub,
    pub config: Config,
    pub spec: String,
    pub processes: Vec<Process>,
    pub now: Time,
    pub lose: Lose,
    /// Processes that nothing reaches but what comes from each other, by their incarnations.
    pub apart: Vec<u64>,
    next: u64,
    steps: u32,
}

pub const STEP: Duration = Duration::from_micros(20);

impl Town {
    pub fn new(spec: &str, config: &Config) -> Town {
        let hub = Hub::new(HubOptions { queue_frames_max: 1 << 14, ..HubOptions::default() });
        let (config, spec) = (config.clone(), spec.to_owned());
        let lose: Lose = Box::new(|_, _| false);
        Town {
            hub,
            config,
            spec,
            processes: Vec::new(),
            now: Time::from_nanos(1000),
            lose,
            apart: Vec::new(),
            next: 1,
            steps: 0,
        }
    }

    /// A group of `members` that starts in one view.
    pub fn of(members: u64, spec: &str, config: &Config) -> Town {
        Town::of_each(members, spec, |_| config.clone())
    }

    /// The same, of processes each with a configuration of its own, by incarnation; who joins has the last one's.
    pub fn of_each(members: u64, spec: &str, config: impl Fn(u64) -> Config) -> Town {
        let mut town = Town::new(spec, &config(1));
        let all: Vec<Member> = (1..=members).map(member).collect();
        for own in 1..=members {
            town.config = config(own);
            let view = View::fixed(group(), all.clone(), spec);
            town.start(view, own, Neighbours::default());
        }
        town.next = members + 1;
        town
    }

    /// A new process that looks for the group at the process `contact`.
    pub fn join(&mut self, contacts: &[u64]) -> usize {
        let own = self.next;
        self.next += 1;
        let spec = self.spec.clone();
        let contacts = contacts.iter().map(|contact| member(*contact).address).collect();
        self.start(View::alone(group(), member(own), &spec), own, Neighbours { contacts, discover: false })
    }

    pub fn start(&mut self, view: View, own: u64, neighbours: Neighbours) -> usize {
        self.start_at(view, own, &member(own).address, neighbours)
    }

    /// A process whose address is not that of its incarnation.
    pub fn start_at(&mut self, view: View, own: u64, address: &Address, neighbours: Neighbours) -> usize {
        let mut endpoint = Endpoint::new(self.config.clone(), Incarnation(own)).unwrap();
        let mut transport = self.hub.transport();
        transport.bind(group(), address).unwrap();
        let view = LocalView::new(view, Incarnation(own)).unwrap();
        let channel = transport.open(&view, &endpoint.channel_options(view.size())).unwrap();
        let (id, caps) = (channel.id, transport.caps());
        let views = vec![(id, view.clone())];
        let key = endpoint.install_among(view, neighbours, channel, &caps, self.now).unwrap();
        let channels = vec![id];
        let diary = Diary::default();
        self.processes.push(Process {
            endpoint,
            transport,
            key,
            channels,
            views,
            diary,
            stopped: false,
            dull: 0,
            work: 0,
            part_work: 0,
            busy_until: 0,
            starved: RankSet::EMPTY,
            parted: RankSet::EMPTY,
        });
        self.processes.len() - 1
    }

    pub fn cast(&mut self, at: usize, message: &[u8]) {
        let process = &mut self.processes[at];
        process.endpoint.group(process.key).cast(message).unwrap();
    }

    /// One iteration of every process.
    pub fn step(&mut self) {
        self.now = self.now + STEP;
        self.steps += 1;
        let (now, steps) = (self.now, self.steps);
        for at in 0..self.processes.len() {
            if self.processes[at].stopped {
                continue;
            }
            let own = self.processes[at].endpoint.incarnation().0;
            let apart = |other: u64| self.apart.contains(&own) != self.apart.contains(&other);
            let process = &mut self.processes[at];
            let Process { endpoint, transport, channels, views, diary, dull, starved, parted, .. } = process;
            // At work on what it has taken in.
            if *dull > 0 && steps % *dull != 0 || steps < process.busy_until {
                continue;
            }
            transport.reap();
            let lose = &mut self.lose;
            let one_by_one = *dull > 0 || process.work > 0;
            let (budget, casts) = (if *dull > 0 { 1 } else { 64 }, diary.ids[0].len());
            let parts = diary.parts();
            let mut received = 0;
            while received < budget && diary.ids[0].len() == casts {
                let some = transport.receive(if one_by_one { 1 } else { budget }, &mut |received| {
                    if !lose(at, &received) {
                        endpoint.receive(received, now, diary);
                    }
                });
                received += some;
                if some == 0 || !one_by_one {
                    break;
                }
            }
            let delivered = diary.ids[0].len() - casts;
            if received >= budget || delivered > 0 && process.work > 0 {
                endpoint.more_has_come(now);
            }
            for channel in channels.iter() {
                endpoint.set_busy(*channel, transport.busy(*channel));
            }
            endpoint.poll(now, diary);
            let (casts, parts) = (diary.ids[0].len() - casts, diary.parts() - parts);
            process.busy_until = steps + process.work * casts as u32 + process.part_work * parts;
            while let Some(request) = endpoint.request() {
                match request {
                    Request::Open { group, view, options } => {
                        let channel = transport.open_next(&view, &options).unwrap();
                        channels.push(channel.id);
                        views.push((channel.id, view));
                        endpoint.opened(group, Ok((channel, transport.caps())), now, diary);
                    }
                    Request::Close(channel) => {
                        channels.retain(|open| *open != channel);
                        views.retain(|(of, _)| *of != channel);
                        transport.close(channel);
                    }
                    Request::Exclude { group, channel, rank } => {
                        transport.exclude(channel, rank);
                        endpoint.excluded(group, channel, rank, &|frame| transport.intact(channel, frame));
                    }
                    Request::Hint { group, channel } => {
                        endpoint.gone(group, channel, transport.gone(channel), diary);
                        endpoint.starved(group, channel, *starved, diary);
                        endpoint.parted(group, channel, *parted, diary);
                    }
                    // As in a network, an address is one whatever group it is used for.
                    Request::Outside { to: Outside::To(address), .. }
                        if address.0[1..].parse().is_ok_and(apart) => {}
                    Request::Outside { to, bytes, .. } => {
                        transport.send_outside(group(), &to, &bytes);
                        diary.letters.push(bytes);
                    }
                }
            }
            while let Some(mut transmit) = endpoint.transmit() {
                if !self.apart.is_empty() {
                    cut(views, &mut transmit, |other| !apart(other));
                }
                if let Err(Full(transmit)) = transport.submit(transmit) {
                    endpoint.give_back(transmit);
                    break;
                }
            }
            transport.flush();
        }
    }

    /// Runs for a time, or until `done`; whether it was.
    pub fn until(&mut self, limit: Duration, mut done: impl FnMut(&mut Town) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            self.step();
            if done(self) {
                return true;
            }
        }
        false
    }

    /// Whom the process at `at` was told to have failed, and why.
    pub fn suspicions(&self, at: usize) -> Vec<(u16, Grounds)> {
        let suspicion = |seen: &Seen| match seen {
            Seen::Suspect(suspicion) => Some((suspicion.member.0, suspicion.why)),
            _ => None,
        };
        self.processes[at].diary.seen.iter().filter_map(suspicion).collect()
    }

    pub fn run(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    /// Whether all processes named are in one view of exactly them.
    pub fn together(&mut self, whom: &[usize]) -> bool {
        let views: Vec<_> = whom.iter().map(|at| self.processes[*at].view()).collect();
        let mut members = views[0].1.clone();
        members.sort_unstable();
        let mut wanted: Vec<u64> =
            whom.iter().map(|at| self.processes[*at].endpoint.incarnation().0).collect();
        wanted.sort_unstable();
        views.iter().all(|view| *view == views[0]) && members == wanted
    }

    /// How often a layer of the process has counted this, in its present view.
    pub fn counted(&self, at: usize, what: &str) -> u64 {
        let process = &self.processes[at];
        let counts = process.endpoint.stats(process.key).counts;
        counts.iter().filter(|count| count.what == what).map(|count| count.count).sum()
    }

    /// Why the process is in the group no more, in words.
    pub fn exit(&self, at: usize) -> Option<&str> {
        self.processes[at].diary.seen.iter().find_map(|seen| match seen {
            Seen::Exit(why) => Some(why.as_str()),
            _ => None,
        })
    }

    /// Panics with what everybody is at, if they are not together within `limit`.
    pub fn meet(&mut self, whom: &[usize], limit: Duration) -> Duration {
        let begun = self.now;
        if !self.until(limit, |town| town.together(whom)) {
            let mut text = String::new();
            for at in whom {
                let process = &mut self.processes[*at];
                text += &format!(
                    "{at}: {:?} {:#?}\n",
                    process.view(),
                    process.endpoint.group(process.key).dump()
                );
                text +=
                    &format!("{:?}\n{:?}\n", process.endpoint.stats(process.key).counts, process.diary.seen);
            }
            panic!("{whom:?} are not in one view after {limit:?}\n{text}");
        }
        self.now.since(begun)
    }
}

/// What goes out reaches those that `reaches` says, and nobody else.
fn cut(views: &[(ChannelId, LocalView)], transmit: &mut Transmit, reaches: impl Fn(u64) -> bool) {
    let (_, view) = views.iter().find(|(id, _)| *id == transmit.channel).expect("it was opened");
    let to: RankSet = match transmit.to {
        Destination::All => view.others().collect(),
        Destination::One(rank) => RankSet::one(rank),
        Destination::Some(ranks) => ranks,
    };
    let reached = to.iter().filter(|rank| reaches(view.member(*rank).incarnation.0));
    transmit.to = Destination::Some(reached.collect());
}

pub fn group() -> GroupId {
    GroupId::named("town")
}

pub fn member(own: u64) -> Member {
    Member { incarnation: Incarnation(own), address: Address(format!("p{own}")) }
}
