//! The states of one member, and every small message in each of them.

use super::*;
use crate::accel::effects::Pending;

impl Stack {
    /// A copy that goes its own way. Both share regions, and the bytes of frames that are retained.
    pub(super) fn fork(&self) -> Stack {
        assert!(!self.open.is_open() && self.next.is_none(), "an open pack cannot be copied");
        let mut engine = self.engine.fork();
        let core = &mut engine.core;
        core.left_behind = self.engine.core.left_behind;
        core.loop_numbers = self.engine.core.loop_numbers.clone();
        core.loopback = self.engine.core.loopback.clone();
        core.looped_headers = self.engine.core.looped_headers.clone();
        let copied = |waiting: &Waiting| {
            let Waiting::Frame(Closed { frame, count, agreed }) = waiting else {
                panic!("only frames wait here")
            };
            let mut copy =
                self.casts.take(self.cast_header_room + PACK_ROOM_BYTES).expect("the region is large");
            copy.extend(frame.bytes()).expect("it has as much room");
            Waiting::Frame(Closed { frame: copy, count: *count, agreed: *agreed })
        };
        let early = |early: &Early| Early { received: early.received.clone(), ..*early };
        Stack {
            engine,
            plans: self.plans.clone(),
            casts: self.casts.clone(),
            time_outs: self.time_outs.clone(),
            open: OpenPack::default(),
            own_run: Vec::new(),
            waiting: self.waiting.iter().map(copied).collect(),
            large: self.large.fork(),
            divergences: Vec::new(),
            early: self.early.iter().map(early).collect(),
            releases: self.releases.clone(),
            prompted: self.prompted.clone(),
            unlike: Vec::new(),
            next: None,
            misses: Vec::new(),
            past: self.past.clone(),
            untold: self.untold.clone(),
            ..*self
        }
    }
}

impl Bench {
    pub(super) fn new(layer: &'static str, own: Rank, begin: Begin, wrong: Option<Wrong>) -> Bench {
        let registry = Registry::standard();
        let spec = smallest_stack(&registry, layer);
        Bench { spec, layer, incoming: region(0), registry, own, begin, wrong }
    }

    pub(super) fn config(&self) -> Config {
        let limit = if self.begin == Begin::FewNumbers { 1 } else { 1 << 40 };
        Config {
            shadow: Shadow::Off,
            pack: false,
            window_frames: WINDOW_FRAMES,
            frame_bytes_max: FRAME_BYTES,
            waiting_frames_max: 2,
            control_frames: 64,
            early_frames_max: 2,
            order_frames_max: 6,
            frame_number_limit: limit,
            send_number_limit: limit,
            ..Config::default()
        }
    }

    pub(super) fn view(&self) -> LocalView {
        let member =
            |own: u64| Member { incarnation: Incarnation(own), address: Address(format!("member {own}")) };
        let view = View {
            group: GroupId::named("bounded"),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: (1..=MEMBERS as u64).map(member).collect(),
            spec: self.spec.clone(),
            wire_version: WIRE_VERSION,
            salt: 7,
            frame_bytes: 0,
        };
        LocalView::new(view, Incarnation(1 + u64::from(self.own.0))).expect("it is one of the members")
    }

    /// The other members.
    pub(super) fn peers(&self) -> [Rank; MEMBERS - 1] {
        [1, 2].map(|after| Rank::at((self.own.index() + after) % MEMBERS))
    }

    /// Where the enumeration begins.
    pub(super) fn start(&self) -> Stack {
        let mut legacies = Vec::new();
        if self.begin == Begin::Guest {
            let mut before = self.install(Vec::new());
            let view = self.view().view().clone();
            let together = RankSet::one(self.own);
            let next = NextView { view, together, survivors: together, guest: true };
            let at = before.engine.layers.iter().position(|layer| layer.name() == self.layer);
            let below = at.expect("it is there") + 1;
            before.engine.core.emit_up(below, Up::NextView(Rc::new(next)));
            before.engine.run();
            legacies = before.bequeath().into_iter().filter(|(layer, _)| *layer == self.layer).collect();
        }
        let mut stack = self.install(legacies);
        match self.begin {
            Begin::Wrapping => self.until_wrap(&mut stack),
            Begin::Contested => self.contest(&mut stack),
            Begin::Fresh | Begin::FewNumbers | Begin::Guest => {}
        }
        stack
    }

    pub(super) fn install(&self, legacies: Legacies) -> Stack {
        let (config, view, caps) = (self.config(), self.view(), caps());
        let mut specs = Specs::new(self.registry.clone());
        let channel = Channel { id: ChannelId(0), casts: region(0), control: region(16), long: None };
        let neighbours = Rc::new(Neighbours::default());
        let start = Time::from_nanos(1_000_000);
        let mut stack =
            Stack::new(&config, &mut specs, Rc::new(view), neighbours, channel, &caps, legacies, start)
                .expect("the stack is valid");
        self.spoil(&mut stack);
        stack.drain(&mut Silent);
        clear(&mut stack);
        stack
    }

    /// Puts the wrong layer in place of the right one.
    pub(super) fn spoil(&self, stack: &mut Stack) {
        let Some(wrong) = self.wrong else { return };
        let mut compiled = self.compiled();
        let at = compiled.layers.iter().position(|layer| layer.name() == self.layer).expect("it is there");
        let layers = [&mut compiled.layers, &mut stack.engine.layers];
        for layers in layers {
            let inner = layers.remove(at);
            layers.insert(at, Box::new(Forgetful { inner, wrong }));
        }
        let (blueprint, layouts, layers) = (&compiled.blueprint, &compiled.layouts, &compiled.layers);
        let (mut plans, counted): (Plans, _) = Compiler { blueprint, layouts, layers }.compile();
        if let Wrong::Plan(kind, spoil) = wrong {
            spoil(plans[kind as usize].as_mut().expect("there is one to spoil"));
        }
        for plan in plans.iter_mut().flatten() {
            plan.cookie ^= stack.engine.core.cookies[self.own.index()][plan.kind.traffic() as usize];
        }
        let core = &mut stack.engine.core;
        if let Ok(plan) = &plans[Kind::CastDeliver as usize] {
            core.gossip.carried = Carried::new(MEMBERS, plan.shape.words(), plan.gossips());
        }
        core.pending_effects = Pending::new(&plans, MEMBERS);
        core.counted = counted.into();
        core.loop_layer = plans[Kind::CastSend as usize].as_ref().ok().and_then(|plan| plan.loop_layer);
        let step = |kind: Kind| plans[kind as usize].as_ref().ok();
        let deliver = step(Kind::CastDeliver).and_then(|plan| plan.deliver.as_ref());
        stack.releases = deliver.map_or(Vec::new(), |step| step.releases.clone());
        core.ways = Rc::new(Ways::new(&stack.engine.layers));
        stack.plans = plans;
        (0..MEMBERS).for_each(|rank| self.forget(stack, Rank::at(rank)));
    }

    pub(super) fn forget(&self, stack: &mut Stack, rank: Rank) {
        if let Some(Wrong::Guard(guard)) = self.wrong {
            Context { core: &mut stack.engine.core, layer: 0 }.open(guard, rank);
        }
    }

    pub(super) fn compiled(&self) -> Compiled {
        let view = self.view();
        let checked = Checked::new(&self.registry, &view.view().spec, network_properties(&caps()));
        compile(&Rc::new(checked.expect("the stack is valid")), &view, &self.config())
            .expect("the stack is valid")
    }

    /// Everybody casts and sends until numbers do not fit short gossip any more.
    pub(super) fn until_wrap(&self, stack: &mut Stack) {
        let [one, other] = self.peers();
        let pause = Action::Poll(Duration::from_micros(50));
        for _ in 0..CASTS_BEFORE_WRAP {
            let frame = |origin: Rank, traffic: Traffic| {
                Action::Arrives(Arrival { gossip: Says::Truth, ..Arrival::ordinary(origin, traffic) })
            };
            for action in [
                Action::Cast,
                Action::Send(RankSet::one(one)),
                frame(one, Traffic::Cast),
                frame(other, Traffic::Cast),
                frame(one, Traffic::Send),
                pause,
            ] {
                self.perform(stack, action);
            }
        }
    }

    /// Another member asks for a turn, gets it, and ends it when two casts wait here.
    pub(super) fn contest(&self, stack: &mut Stack) {
        let [one, other] = self.peers();
        let mark = marks(&stack.engine.core, Traffic::Cast).first().copied();
        let truth = |origin| Arrival { gossip: Says::Truth, ..Arrival::ordinary(origin, Traffic::Cast) };
        for action in [
            Action::Control(one, CONTROLS - 1),
            Action::Poll(Duration::ZERO),
            Action::Poll(Duration::ZERO),
            Action::Arrives(truth(one)),
            Action::Arrives(truth(other)),
            Action::Cast,
            Action::Cast,
            Action::Poll(Duration::ZERO),
            Action::Arrives(Arrival { mark, ..truth(one) }),
        ] {
            self.perform(stack, action);
        }
    }

    /// Does it, if it can be done; says so.
    pub(super) fn perform(&self, stack: &mut Stack, action: Action) -> bool {
        let app = &mut Silent;
        let done = match action {
            Action::Cast => stack.cast(&[7]).is_ok(),
            Action::CastAgreed => stack.cast_agreed(|stack| stack.cast(&[7])).is_ok(),
            Action::CastPack => {
                let room = stack.waiting.is_empty() && stack.entry_open() && stack.numbers_left(1);
                if room {
                    let mut open = OpenPack::default();
                    let frame = stack.casts.take(stack.cast_header_room + PACK_ROOM_BYTES);
                    open.begin(frame.expect("the region is large"), 0, false);
                    for _ in 0..2 {
                        open.lend(3);
                        open.lent().copy_from_slice(&[1, 2, 3]);
                        open.commit();
                    }
                    let closed = open.close().expect("it is open");
                    stack.enter_closed(closed);
                }
                room
            }
            Action::Send(to) => stack.send(&to, &[8, 8]).is_ok(),
            Action::Poll(after) => {
                let now = stack.engine.core.now + after;
                stack.poll(now, app);
                true
            }
            Action::Ack(origin) => {
                stack.ack(origin, 1);
                true
            }
            Action::Control(origin, byte) => {
                let Some(control) = stack.engine.layers.iter().position(|layer| layer.name() == self.layer)
                else {
                    return false;
                };
                let mut frame = self.incoming.take(64).expect("the region is large");
                frame.extend(&[byte]).expect("it is small");
                let frame = frame.freeze();
                let (from, to) = (frame.start(), frame.end());
                let list = List::single(frame, from, to);
                let message = Message { control: control as u8, ..Message::data(Traffic::Raw, list) };
                stack.full_frame(origin, message, app);
                true
            }
            Action::Fails(rank) if stack.live => {
                stack.suspect(RankSet::one(rank));
                true
            }
            Action::Fails(rank) => {
                stack.engine.enter(Down::Flush(RankSet::one(rank)));
                true
            }
            // Where views are agreed on, it is the layer that does so that says it.
            Action::Cuts if stack.live => return false,
            Action::Cuts => {
                let core = &stack.engine.core;
                let frames = (0..MEMBERS).map(|rank| core.accepted(Rank::at(rank))).collect();
                let holders = vec![core.own; MEMBERS];
                stack.engine.enter(Down::Cut(Rc::new(Cut { frames, holders })));
                true
            }
            Action::Arrives(arrival) => match self.frame(stack, arrival) {
                None => false,
                Some((_, header)) if arrival.full => {
                    self.arrives_in_full(stack, arrival, header);
                    true
                }
                Some((received, _)) => {
                    let first = first_word(&received);
                    stack.fast_frame(arrival.traffic, arrival.origin, first, received, app);
                    true
                }
            },
        };
        stack.drain(app);
        clear(stack);
        done
    }

    /// The header goes through the layers.
    pub(super) fn arrives_in_full(&self, stack: &mut Stack, arrival: Arrival, header: Header) {
        let Some(list) = self.payload(arrival.body) else { return };
        let header = Header { gossip: Header::ZERO.gossip, ..header };
        let message = Message { control: NO_CONTROL, header, ..Message::data(arrival.traffic, list) };
        stack.full_frame(arrival.origin, message, &mut Silent);
    }

    pub(super) fn payload(&self, body: Body) -> Option<List> {
        let bytes = bytes_of(body);
        let mut frame = self.incoming.take(64).expect("the region is large");
        frame.extend(&bytes).expect("it is small");
        let frame = frame.freeze();
        frame.submit();
        let (from, to) = (frame.start(), frame.end());
        List::parse(frame, from, to, body.is_packed()).ok()
    }

    /// The frame as it comes in, and what its header says; `None` if this stack has no such frames.
    pub(super) fn frame(&self, stack: &Stack, arrival: Arrival) -> Option<(Received, Header)> {
        let core = &stack.engine.core;
        let layout = &core.layouts[arrival.traffic as usize];
        let number_at = layout.frame_number();
        let origin = arrival.origin;
        let mut header = Header::ZERO;
        let mut number = 0;
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            let handle = crate::stack::build::Field { traffic: arrival.traffic, index: at as u8 };
            header.values[at] = match field.class {
                Class::ConnectionId => field.constant,
                Class::Protocol if !field.bound => {
                    core.expected(handle, origin).checked_add_signed(arrival.ahead)?
                }
                Class::Exception if arrival.exceptional => low_bits(field.bits).min(2),
                _ => 0,
            };
            if number_at == Some(at) {
                number = header.values[at];
            }
        }
        if let Some((odd, by)) = arrival.odd {
            header.values[odd] = header.values[odd].checked_add_signed(by)?;
            if number_at == Some(odd) {
                number = header.values[odd];
            }
        }
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            if field.bound {
                header.values[at] = number;
            }
        }
        if let Some(mark) = arrival.mark {
            header.values[mark] = 1;
        }
        let about = match arrival.traffic {
            Traffic::Cast => crate::stack::gossip::subject(origin, number, MEMBERS),
            _ => core.own,
        };
        let riding = core.gossip.definitions.iter().filter(|gossip| gossip.rides_on == Some(arrival.traffic));
        for (short, gossip) in header.gossip.iter_mut().zip(riding) {
            let known = core.reported(gossip.matrix, origin, about);
            if arrival.gossip == Says::Stale && known != core.slots.pair(gossip.matrix, origin, about) {
                // What is not merged yet is that of the last frame: what members say only grows from frame to frame.
                return None;
            }
            *short = match arrival.gossip {
                Says::Known => known,
                Says::Stale => known.wrapping_sub(1),
                Says::Truth => core.own_value(gossip.source, about).max(known),
                Says::Nonsense => known + 0x7ff0,
            } as u16;
        }
        let payload = bytes_of(arrival.body);
        let packed = arrival.body.is_packed();
        let cookie = core.cookies[origin.index()][arrival.traffic as usize];
        let exception = layout.exception(&header);
        for at in (0..layout.fields().len()).rev() {
            if layout.fields()[at].0.class == Class::Message {
                let words = layout.compress(&header);
                header.values[at] =
                    layout.filter(at, cookie, packed, NO_CONTROL, exception, &words, &payload);
            }
        }
        if let Some(damaged) = arrival.damaged {
            header.values[damaged] ^= 1;
        }
        let words = layout.compress(&header);
        let mut bytes = (cookie | if packed { PACK_FLAG } else { 0 }).to_le_bytes().to_vec();
        words[..layout.words()].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.extend(payload);
        bytes.truncate(bytes.len() - arrival.cut);
        if bytes.len() < 8 {
            // Nobody knows whose it is.
            return None;
        }
        let mut frame = self.incoming.take(0).expect("the region is large");
        frame.extend(&bytes).expect("it is small");
        let frame = frame.freeze();
        frame.submit();
        let (from, to) = (frame.start(), frame.end());
        // What a compressed header does not say, a full one does.
        let mut full = layout.expand(&words);
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            if field.class == Class::Exception {
                full.values[at] = header.values[at];
            }
        }
        Some((Received { channel: ChannelId(0), frame, from, to }, full))
    }

    /// Steps that lead from one state to the next.
    pub(super) fn steps(&self, stack: &Stack) -> Vec<Action> {
        let core = &stack.engine.core;
        let [one, other] = self.peers();
        let mut steps = vec![
            Action::Cast,
            Action::Send(RankSet::one(one)),
            Action::Fails(one),
            Action::Cuts,
            Action::Poll(Duration::ZERO),
            Action::Poll(Duration::from_millis(2)),
        ];
        steps.extend(core.services.map(|_| Action::CastAgreed));
        steps.extend((0..CONTROLS).map(|byte| Action::Control(one, byte)));
        let mut arrives = |arrival: Arrival| steps.push(Action::Arrives(arrival));
        for traffic in [Traffic::Cast, Traffic::Send] {
            let ordinary = Arrival::ordinary(one, traffic);
            arrives(ordinary);
            arrives(Arrival { gossip: Says::Truth, ..ordinary });
            arrives(Arrival { full: true, ..ordinary });
            // A gap: the layers see it, or the frame waits.
            arrives(Arrival { ahead: 1, full: true, ..ordinary });
            arrives(Arrival { ahead: 1, ..ordinary });
            if has_exceptions(core, traffic) {
                arrives(Arrival { exceptional: true, full: true, ..ordinary });
            }
            for mark in marks(core, traffic) {
                arrives(Arrival { mark: Some(mark), ..ordinary });
            }
        }
        if !stack.prompted.is_empty() {
            let ordinary = Arrival::ordinary(one, Traffic::Cast);
            let mark = marks(core, Traffic::Cast).first().copied();
            NOTES_TAKEN
                .into_iter()
                .for_each(|note| arrives(Arrival { body: Body::Blank(note), mark, ..ordinary }));
        }
        arrives(Arrival { gossip: Says::Truth, ..Arrival::ordinary(other, Traffic::Cast) });
        steps
    }

    /// Every small message, in a state.
    pub(super) fn messages(&self, stack: &Stack) -> Vec<Action> {
        let core = &stack.engine.core;
        let peers = self.peers();
        let mut messages = vec![
            Action::Cast,
            Action::CastPack,
            Action::Send(RankSet::one(peers[0])),
            Action::Send(RankSet::one(peers[1])),
            Action::Send(peers.into_iter().collect()),
            Action::Poll(Duration::ZERO),
            Action::Poll(Duration::from_micros(300)),
            Action::Ack(peers[0]),
        ];
        messages.extend(stack.engine.core.services.map(|_| Action::CastAgreed));
        for origin in peers {
            for traffic in [Traffic::Cast, Traffic::Send] {
                messages.extend(self.arrivals(core, origin, traffic).into_iter().map(Action::Arrives));
            }
        }
        messages
    }

    pub(super) fn arrivals(&self, core: &Core, origin: Rank, traffic: Traffic) -> Vec<Arrival> {
        let ordinary = Arrival::ordinary(origin, traffic);
        let layout = &core.layouts[traffic as usize];
        let mut all = Vec::new();
        for ahead in [-1, 0, 1, 2] {
            for gossip in [Says::Known, Says::Truth, Says::Stale, Says::Nonsense] {
                all.push(Arrival { ahead, gossip, ..ordinary });
            }
            for body in [Body::Empty, Body::Pack, Body::Broken] {
                all.push(Arrival { ahead, body, gossip: Says::Truth, ..ordinary });
            }
            for full in [false, true] {
                all.push(Arrival { ahead, full, ..ordinary });
                for mark in marks(core, traffic) {
                    all.push(Arrival { ahead, full, mark: Some(mark), ..ordinary });
                }
            }
        }
        for note in NOTES {
            let blank = Arrival { body: Body::Blank(note), ..ordinary };
            let marked = marks(core, traffic).into_iter().map(|mark| Arrival { mark: Some(mark), ..blank });
            all.extend(marked.chain([blank]).flat_map(|blank| [blank, Arrival { full: true, ..blank }]));
        }
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            match field.class {
                Class::Protocol if !field.bound => {
                    // Alone, near and at the far end of what it can say.
                    let end = low_bits(field.bits) as i64;
                    all.extend([-1, 1, end].map(|by| Arrival { odd: Some((at, by)), ..ordinary }));
                }
                Class::Message => all.push(Arrival { damaged: Some(at), ..ordinary }),
                _ => {}
            }
        }
        if has_exceptions(core, traffic) {
            all.push(Arrival { exceptional: true, full: true, ..ordinary });
        }
        all.extend([1, 9].map(|cut| Arrival { cut, ..ordinary }));
        all
    }

    /// All states within the bound; `found` gets each and what leads to it, and says whether to go on.
    pub(super) fn states(&self, depth: usize, mut found: impl FnMut(&State) -> bool) {
        let start = State { stack: self.start(), path: String::new() };
        let mut known = HashSet::from([digest(&start.stack)]);
        if !found(&start) {
            return;
        }
        let mut frontier = vec![start];
        for level in 1..=depth {
            let mut next = Vec::new();
            for state in &frontier {
                for step in self.steps(&state.stack) {
                    let mut stack = state.stack.fork();
                    if !self.perform(&mut stack, step) || stack.exited.is_some() || stack.next.is_some() {
                        continue;
                    }
                    if known.insert(digest(&stack)) {
                        let reached = State { stack, path: format!("{} | {step:?}", state.path) };
                        if !found(&reached) {
                            return;
                        }
                        if level < depth {
                            next.push(reached);
                        }
                    }
                }
            }
            frontier = next;
        }
    }

    /// Gives a state every message; what is wrong.
    pub(super) fn check(&self, state: &State, counted: &mut Counted) -> Option<String> {
        counted.states += 1;
        for message in self.messages(&state.stack) {
            let mut stack = state.stack.fork();
            stack.shadow = Shadow::Record;
            stack.plans.iter_mut().flatten().for_each(|plan| plan.straight = false);
            let before = stack.fast;
            if !self.perform(&mut stack, message) {
                continue;
            }
            counted.messages += 1;
            let ran = |fast: &crate::stats::FastPath| fast.send_hit + fast.deliver_hit + fast.deliver_early;
            let missed = |fast: &crate::stats::FastPath| fast.send_miss + fast.deliver_miss;
            counted.hits += ran(&stack.fast) - ran(&before);
            counted.misses += missed(&stack.fast) - missed(&before);
            if ran(&stack.fast) > ran(&before) {
                let kind = match message {
                    Action::Cast | Action::CastAgreed | Action::CastPack => Kind::CastSend,
                    Action::Send(_) => Kind::SendSend,
                    Action::Arrives(arrival) => kind_of(arrival.traffic),
                    Action::Poll(_)
                    | Action::Ack(_)
                    | Action::Fails(_)
                    | Action::Cuts
                    | Action::Control(..) => Kind::SelfDeliver,
                };
                counted.ran[kind as usize] = true;
            }
            let wrong = stack.divergences.first().cloned();
            let wrong =
                wrong.or_else(|| self.straight_differs(state, message, &mut stack)).or_else(
                    || match message {
                        Action::Arrives(arrival) if !arrival.full => {
                            self.miss_is_harmless(&state.stack, arrival)
                        }
                        _ => None,
                    },
                );
            if let Some(wrong) = wrong {
                return Some(format!("{:?}{}, then {message:?}: {wrong}", self.begin, state.path));
            }
        }
        None
    }

    /// Where nothing is compared, plans run by shorter ways: these lead where the compared ones lead, but for what depends on
    /// when post-processing comes, which is at once after each that is compared.
    fn straight_differs(&self, state: &State, message: Action, compared: &mut Stack) -> Option<String> {
        if matches!(message, Action::Poll(_)) || !state.stack.early.is_empty() {
            return None;
        }
        let mut straight = state.stack.fork();
        straight.shadow = Shadow::Off;
        straight.plans.iter_mut().flatten().for_each(|plan| plan.straight = plan.last.is_none());
        self.perform(&mut straight, message);
        for stack in [&mut straight, compared] {
            // What one pass sends through the layers, or what it lets out of the order queue, may be reason for another.
            for _ in 0..PASSES {
                stack.engine.post();
                stack.drain(&mut Silent);
            }
            stack.engine.core.catch_up();
            stack.nothing_due();
            clear(stack);
        }
        (digest(&straight) != digest(compared)).then(|| "what is not compared did something else".to_string())
    }

    /// A plan that is missed has changed nothing, and the frame does to the layers what its full form does.
    pub(super) fn miss_is_harmless(&self, stack: &Stack, arrival: Arrival) -> Option<String> {
        let kind = kind_of(arrival.traffic);
        let mut missed = stack.fork();
        let (received, header) = self.frame(&missed, arrival)?;
        let Ok(plan) = missed.plans[kind as usize].clone() else { return None };
        let (first, origin) = (first_word(&received), arrival.origin);
        let before = digest(&missed);
        let outcome = execute::accept(&mut missed.engine.core, &plan, origin, first, received.bytes());
        match outcome {
            Outcome::Hit { .. } => return None,
            Outcome::Early(_) => {
                return (digest(&missed) != before).then(|| "an early frame left a trace".to_string());
            }
            Outcome::Miss(_) if digest(&missed) != before => return Some("a miss left a trace".into()),
            Outcome::Miss(_) => {}
        }
        if arrival.cut > 0 || !stack.early.is_empty() {
            // It has no full form; or frames ahead of it are tried again at another time.
            return None;
        }
        let mut in_full = stack.fork();
        missed.fast_frame(arrival.traffic, origin, first, received, &mut Silent);
        self.arrives_in_full(&mut in_full, arrival, header);
        clear(&mut missed);
        clear(&mut in_full);
        (digest(&missed) != digest(&in_full)).then(|| "expanded, a frame did something else".to_string())
    }

    /// Checks all states; what was counted, and what is wrong if anything is.
    pub(super) fn run(&self, depth: usize) -> (Counted, Option<String>) {
        let mut counted = Counted::default();
        let mut wrong = None;
        self.states(depth, |state| {
            wrong = self.check(state, &mut counted);
            wrong.is_none()
        });
        (counted, wrong)
    }
}

impl Arrival {
    /// What is expected next.
    pub(super) fn ordinary(origin: Rank, traffic: Traffic) -> Arrival {
        Arrival {
            origin,
            traffic,
            ahead: 0,
            odd: None,
            mark: None,
            gossip: Says::Known,
            body: Body::One,
            exceptional: false,
            damaged: None,
            full: false,
            cut: 0,
        }
    }
}

pub(super) fn kind_of(traffic: Traffic) -> Kind {
    if traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver }
}

pub(super) fn first_word(received: &Received) -> u64 {
    crate::wire::word(received.bytes(), 0).expect("a frame begins with a cookie")
}

pub(super) fn bytes_of(body: Body) -> Vec<u8> {
    match body {
        Body::Empty => Vec::new(),
        Body::One => vec![5],
        Body::Pack | Body::Broken => {
            // One run of two messages of one byte; or of which there are not so many bytes.
            let mut bytes = crate::wire::pack::run_header(2, 1).to_vec();
            bytes.extend(if body == Body::Pack { &[6, 6][..] } else { &[6][..] });
            bytes
        }
        Body::Blank(note) => [&crate::wire::pack::run_header(0, note.len() as u16)[..], note].concat(),
    }
}

pub(super) fn marks(core: &Core, traffic: Traffic) -> Vec<usize> {
    let fields = core.layouts[traffic as usize].fields().iter().enumerate();
    fields.filter(|(_, (field, _))| field.class == Class::Mark).map(|(at, _)| at).collect()
}

pub(super) fn has_exceptions(core: &Core, traffic: Traffic) -> bool {
    core.layouts[traffic as usize].fields().iter().any(|(field, _)| field.class == Class::Exception)
}

/// What left the stack has left it.
pub(super) fn clear(stack: &mut Stack) {
    let core = &mut stack.engine.core;
    core.clear_outbox();
    core.outside.clear();
    core.excluded.clear();
    core.hint_wanted = false;
    core.traced.clear();
}

/// A hash of everything that decides what a stack does next: what plan and layers agree on, and what waits.
pub(super) fn digest(stack: &Stack) -> u64 {
    let mut hasher = Hasher64::new(0x626f_756e_6473);
    let core = &stack.engine.core;
    core.digest_contents(&mut hasher);
    stack.engine.layers.iter().for_each(|layer| layer.digest(&mut hasher));
    hasher.word(core.now.as_nanos());
    hasher.word(u64::from(core.work) << 1 | u64::from(core.casts_waiting));
    for looped in core.all_looped() {
        hasher.word(looped.number << 1 | u64::from(looped.slow));
        hasher.bytes(looped.list.payload());
    }
    for early in &stack.early {
        hasher.word(u64::from(early.origin.0) << 8 | early.traffic as u64);
        hasher.bytes(early.received.bytes());
    }
    hasher.word((stack.waiting.len() as u64) << 1 | u64::from(core.prompt_wanted));
    hasher.finish()
}

pub(super) fn caps() -> Caps {
    Caps {
        name: "bounded",
        frame_bytes_max: FRAME_BYTES,
        multicast: true,
        integrity: true,
        loses: true,
        duplicates: true,
        reorders: true,
        zero_copy: true,
        segmentation: false,
        addresses: Addresses::Names,
        notes: Vec::new(),
    }
}

/// A region that no enumeration uses up.
pub(super) fn region(reserve_frames: usize) -> Region {
    Region::pool(RegionOptions {
        frames: 1 << 13,
        link_headroom_bytes: 0,
        frame_bytes: FRAME_BYTES,
        reserve_frames,
        huge_pages: false,
    })
    .expect("there is memory for it")
}

/// The smallest stack in which `layer` can stand: beneath it the cheapest providers of what it requires, and theirs.
pub(super) fn smallest_stack(registry: &Registry, layer: &'static str) -> String {
    fn put(registry: &Registry, name: &'static str, stack: &mut Vec<&'static str>, have: &mut Properties) {
        let entry = registry.get(name).expect("it is registered");
        let mut required: Vec<Property> = entry.requires.iter().collect();
        // Those that others build on come first. Where one layer provides two of them it is needed once.
        required.sort_by_key(|property| provider(registry, *property, name).map_or(0, |(cost, _)| cost));
        for property in &required {
            let of_another = required.iter().any(|other| {
                let named = |property| provider(registry, property, name).map(|(_, name)| name);
                let other = named(*other).filter(|other| Some(*other) != named(*property));
                other.and_then(|other| registry.get(other)).is_some_and(|o| o.provides.contains(*property))
            });
            if of_another {
                continue;
            }
            if !have.contains(*property) {
                let (_, name) = provider(registry, *property, name).expect("some layer provides it");
                put(registry, name, stack, have);
            }
        }
        stack.insert(0, name);
        *have = have.without(entry.destroys).with(entry.provides);
    }
    fn provider(registry: &Registry, property: Property, but: &str) -> Option<(u32, &'static str)> {
        let providers =
            registry.iter().filter(|entry| entry.provides.contains(property) && entry.name != but);
        providers.map(|entry| (entry.cost, entry.name)).min()
    }
    let mut stack = Vec::new();
    let mut have = network_properties(&caps());
    if layer != "COM" {
        put(registry, "COM", &mut stack, &mut have);
    }
    put(registry, layer, &mut stack, &mut have);
    // Turns as short as can be without all casts being the last of one.
    stack.join(":").replace("TOTAL", "TOTAL(burst=2)")
}
