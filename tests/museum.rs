//! The museum of broken layers. One exhibit uses every power of the layer interface correctly; each fault spoils one
//! thing. The shadow must see it, or, where it cannot, the deliveries and events must differ from those of a run without
//! acceleration. With no fault nothing may be seen: so the museum itself can fail.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::World;
use wadjet::accel::case::{CommonCase, Operation, Source, Target};
use wadjet::id::{Hasher64, RankSet};
use wadjet::stack::build::{Build, Closes, Field, Guard, GuardKind, TimerId};
use wadjet::stack::event::{Down, Message, Up};
use wadjet::stack::layer::{Context, Fast, Kind, Layer};
use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::{LayerEntry, Registry};
use wadjet::stack::slots::{MemberSlot, Slot, Tally};
use wadjet::wire::Traffic;
use wadjet::wire::layout::Filter;
use wadjet::{Config, Event, Rank, Shadow};

/// Who notices a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    /// The shadow: plan and layers disagree.
    Shadow,
    /// The shadow cannot: what the application sees differs from the run without acceleration.
    Application,
    /// The compiler: it refuses the declaration, and that kind of traffic has no plan.
    Compiler,
}

const FAULTS: &[(&str, &str, By)] = &[
    ("effect", "the fast path adds 2 where the slow path adds 1", By::Shadow),
    ("operation", "the fast path stores what the slow path raises", By::Shadow),
    ("send_effect", "the effect of casting is declared for delivery only", By::Shadow),
    ("guard", "no guard is closed although the slow path does something else", By::Shadow),
    ("opens", "the guard is opened on the slow path of sending only after the limit", By::Shadow),
    ("limit", "the slow path closes its guard one number later than the plan", By::Shadow),
    ("no_limit", "the limit is not declared", By::Shadow),
    ("field", "a protocol field is set and checked, but not declared for casting", By::Shadow),
    ("field_up", "a protocol field is declared for casting, not for delivery", By::Shadow),
    ("slow_field", "the slow path advances a field by two", By::Shadow),
    ("bound", "a field is declared bound, and the slow path sends something else", By::Shadow),
    ("not_bound", "a field of its own is declared bound in the common case", By::Compiler),
    ("count", "a count is not declared", By::Shadow),
    ("count_slow", "a count is declared and not bumped on the slow path", By::Shadow),
    ("filter", "a checked length is not declared for casting", By::Shadow),
    ("retain", "what the slow path retains is not declared", By::Shadow),
    ("timer", "a timer is armed in `down`", By::Shadow),
    ("emit", "a message is emitted on the slow path", By::Shadow),
    ("drop", "the slow path drops some messages and says it is transparent", By::Shadow),
    ("change", "the slow path delivers part of a message", By::Shadow),
    ("state", "ordinary messages change state outside slots", By::Shadow),
    ("hidden", "the same, and the state is not in the digest", By::Application),
    ("send_side", "the effect of a send is declared with another source", By::Shadow),
    ("anybody", "the effect of casting is on a word of some member", By::Compiler),
    ("late_limit", "a limit is declared for deliveries", By::Compiler),
    ("opaque", "nothing is declared", By::Compiler),
];

const SPEC: &str = "EXHIBIT(fault=FAULT):FC:UNICAST:LOCAL:NAK:CHKSUM:COM";

fn entry() -> LayerEntry {
    LayerEntry {
        name: "EXHIBIT",
        about: "uses every power of the layer interface",
        requires: Properties::of(&[Property::FifoMulticast]),
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 1,
        parameters: &[("fault", "what is wrong with it")],
        make: |parameters| {
            let mut choices = vec!["none"];
            choices.extend(FAULTS.iter().map(|(name, ..)| *name));
            let fault = parameters.choice("fault", &choices)?;
            Ok(Box::new(Exhibit { fault, handles: None, heard: 0, told: 0 }))
        },
    }
}

#[derive(Clone)]
struct Exhibit {
    fault: &'static str,
    handles: Option<Handles>,
    /// Casts heard: state outside slots, that no honest layer lets ordinary messages change.
    heard: u64,
    /// Own casts that the timer has told of.
    told: u64,
}

#[derive(Clone, Copy)]
struct Handles {
    /// Own casts, twice: by effect on a word of the stack.
    cast: Slot,
    /// Per origin: bytes delivered, the newest number, how many; how many of them were special.
    bytes: MemberSlot,
    newest: MemberSlot,
    ones: MemberSlot,
    special: MemberSlot,
    /// Per peer: bytes sent.
    sent: MemberSlot,
    /// A number of its own, one that equals the frame number, the length.
    number: Field,
    echo: Field,
    length: Field,
    casts: Tally,
    delivered: Tally,
    /// Every 20th own cast takes the slow path, which raises the limit.
    quota: Guard,
    quota_limit: Slot,
    /// After every 25th cast of an origin, the next one takes the slow path, which marks it as special.
    marks: Guard,
    tell: TimerId,
}

const QUOTA: u64 = 20;
const MARK: u64 = 25;

impl Exhibit {
    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    fn is(&self, fault: &str) -> bool {
        self.fault == fault
    }

    fn cast(&mut self, context: &mut Context<'_>, mut message: Message) {
        let h = self.handles();
        let own = context.rank();
        let number = context.sending(h.number, own);
        message.set_field(h.number, number);
        let echo = context.next_frame_number() + u64::from(self.is("bound"));
        message.set_field(h.echo, echo);
        context.set(h.cast, context.get(h.cast) + 1);
        context.advance_sending(h.number, own);
        if self.is("slow_field") {
            context.advance_sending(h.number, own);
        }
        if !self.is("count_slow") {
            context.bump(h.casts, own);
        }
        if context.is_closed(h.quota, own) {
            context.set(h.quota_limit, context.get(h.quota_limit) + QUOTA);
            context.open(h.quota, own);
        }
        let late = u64::from(self.is("limit"));
        if number + 1 >= context.get(h.quota_limit) + late {
            context.close(h.quota, own);
        }
        if self.is("opens") {
            context.set(h.quota_limit, number + QUOTA);
        }
        if self.is("timer") {
            context.arm(h.tell, context.now() + Duration::from_millis(3));
        }
        if self.is("emit") {
            self.tell(context);
        }
        context.down(Down::Cast(message));
    }

    fn deliver(&mut self, context: &mut Context<'_>, origin: Rank, message: Message) {
        let h = self.handles();
        let number = message.field(h.number);
        let echo = message.field(h.echo);
        let length = message.field(h.length);
        if number != context.expected(h.number, origin) || echo != message.number {
            context.problem(Some(origin), "a field is not what it should be");
        }
        context.advance_expected(h.number, origin);
        context.set_of(h.bytes, origin, context.of(h.bytes, origin) + message.list.payload().len() as u64);
        context.set_of(h.newest, origin, context.of(h.newest, origin).max(message.number));
        context.set_of(h.ones, origin, context.of(h.ones, origin) + 1);
        context.bump(h.delivered, origin);
        if context.of(h.ones, origin) % MARK == 1 && context.of(h.ones, origin) > 1 {
            context.set_of(h.special, origin, context.of(h.special, origin) + 1);
            context.open(h.marks, origin);
        }
        if origin != context.rank() {
            context.retain_cast(origin, &message);
        }
        if length != message.list.payload().len() as u64 {
            context.problem(Some(origin), "the length is not what it should be");
        }
        if self.is("state") || self.is("hidden") {
            self.heard += 1;
            if self.heard == 40 {
                context.problem(Some(origin), "heard forty");
            }
        }
        if self.is("drop") && message.number % 16 == 5 {
            return;
        }
        if self.is("change") && message.list.payload().len() > 12 {
            let list = &message.list;
            let part =
                wadjet::stack::event::List::single(list.frame().clone(), list.from(), list.from() + 12);
            context.up(Up::Cast(origin, Message { list: part, ..message }));
            return;
        }
        context.up(Up::Cast(origin, message));
    }

    /// A raw message to all others; it says nothing.
    fn tell(&self, context: &mut Context<'_>) {
        let others: RankSet = context.view().others().collect();
        let mut body = context.control_frame().expect("the region is large");
        body.extend(b"told").expect("it fits");
        context.send_raw(others, body);
    }
}

impl Layer for Exhibit {
    fn name(&self) -> &'static str {
        "EXHIBIT"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.handles = Some(Handles {
            cast: build.slot(),
            bytes: build.member_slot(),
            newest: build.member_slot(),
            ones: build.member_slot(),
            special: build.member_slot(),
            sent: build.member_slot(),
            number: build.protocol_field(Traffic::Cast, "number", 20),
            echo: build.bound_field(Traffic::Cast, "echo", 40),
            length: build.message_field(Traffic::Cast, "length", 16, Filter::Length),
            casts: build.tally(GuardKind::CastSend, "casts"),
            delivered: build.tally(GuardKind::CastDeliver, "delivered"),
            quota: build.guard(GuardKind::CastSend, "quota", Closes::FastPath),
            quota_limit: build.slot(),
            marks: build.guard(GuardKind::CastDeliver, "marks", Closes::FastPath),
            tell: build.timer("tell"),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        context.set(self.handles().quota_limit, QUOTA);
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        match event {
            Down::Cast(message) => self.cast(context, message),
            Down::Send(to, message) => {
                let sent = self.handles().sent;
                for peer in to.iter().filter(|_| !message.is_control()) {
                    context.set_of(sent, peer, context.of(sent, peer) + message.list.payload().len() as u64);
                }
                context.down(Down::Send(to, message));
            }
            event => context.down(event),
        }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::Cast(origin, message) => self.deliver(context, origin, message),
            event => context.up(event),
        }
    }

    fn control(&mut self, context: &mut Context<'_>, _origin: Rank, _message: &Message) {
        context.count("told");
    }

    fn timer(&mut self, context: &mut Context<'_>, _timer: TimerId) {
        self.tell(context);
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let h = self.handles();
        for origin in (0..context.view().size()).map(Rank::at) {
            let ones = context.of(h.ones, origin);
            let marked = context.of(h.special, origin);
            if ones / MARK > marked && ones.is_multiple_of(MARK) && !self.is("guard") {
                context.close(h.marks, origin);
            }
            if origin != context.rank() {
                context.trim_casts(origin, context.accepted(origin).saturating_sub(8));
            }
        }
        let cast = context.get(h.cast);
        if cast >= self.told + 10 {
            self.told = cast;
            context.arm_if_idle(h.tell, context.now() + Duration::from_millis(1));
        }
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let h = self.handles();
        let one = Source::Constant(1 + u64::from(self.is("effect")));
        match kind {
            _ if self.is("opaque") => return Fast::Opaque("it is a test"),
            Kind::CastSend => {
                if !self.is("send_effect") {
                    case.effect(Operation::Add, Target::Own(h.cast), Source::Constant(1));
                }
                if !self.is("field") {
                    case.advance(h.number);
                }
                case.bound(if self.is("not_bound") { h.number } else { h.echo });
                if !self.is("filter") {
                    case.filter(h.length);
                }
                if !self.is("count") {
                    case.count(h.casts);
                }
                if self.is("anybody") {
                    case.effect(Operation::Add, Target::Member(h.bytes), Source::PayloadBytes);
                }
                if !self.is("no_limit") {
                    case.limit(h.number, Target::Own(h.quota_limit), h.quota);
                }
            }
            Kind::CastDeliver | Kind::SelfDeliver => {
                if !self.is("field_up") {
                    case.advance(h.number);
                }
                case.bound(h.echo);
                case.filter(h.length);
                case.effect(Operation::Add, Target::Member(h.bytes), Source::PayloadBytes);
                let raise = if self.is("operation") { Operation::Add } else { Operation::Raise };
                case.effect(raise, Target::Member(h.newest), Source::FrameNumber);
                case.effect(Operation::Add, Target::Member(h.ones), one);
                case.count(h.delivered);
                if kind == Kind::CastDeliver && !self.is("retain") {
                    case.retain();
                }
                if self.is("late_limit") {
                    case.limit(h.number, Target::Member(h.ones), h.marks);
                }
            }
            Kind::SendSend => {
                let source = if self.is("send_side") { Source::Messages } else { Source::PayloadBytes };
                case.effect(Operation::Add, Target::Member(h.sent), source);
            }
            Kind::SendDeliver => return Fast::Transparent,
        }
        Fast::Declared
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        digest.word(self.told);
        if !self.is("hidden") {
            digest.word(self.heard);
        }
    }
}

/// What became of a run.
struct Run {
    divergences: Vec<String>,
    misses: Vec<String>,
    hits: u64,
    /// What each application saw: casts per origin, sends, problems.
    seen: Vec<String>,
}

/// Three members cast and send; a run ends at the first divergence.
fn run(fault: &str, accelerate: bool) -> Run {
    let config = Config { accelerate, shadow: Shadow::Record, ..Config::default() };
    let spec = SPEC.replace("FAULT", fault);
    let mut world = World::with_registry(3, &spec, &config, &Registry::standard().with(entry()));
    let diverged = |world: &World| {
        let of = |node: &common::Node| node.endpoint.divergences(node.key).to_vec();
        world.nodes.iter().flat_map(of).collect::<Vec<_>>()
    };
    for round in 0..120 {
        for node in 0..3 {
            world.cast(node, format!("{node} casts message {round}").as_bytes());
            if round % 3 == 0 {
                let node = &mut world.nodes[node];
                node.endpoint.group(node.key).send(&RankSet::one(Rank(1)), &[round; 20]).unwrap();
            }
        }
        world.step();
        if !diverged(&world).is_empty() {
            break;
        }
    }
    if diverged(&world).is_empty() {
        world.steps(3000);
    }
    let seen = |node: &common::Node| {
        let problems = node.log.events.iter().filter(|event| matches!(event, Event::Problem(_))).count();
        let casts: Vec<Vec<&Vec<u8>>> = (0..3)
            .map(|origin| node.log.casts.iter().filter(|(from, _)| *from == origin).map(|(_, m)| m).collect())
            .collect();
        let sends: Vec<&Vec<u8>> = node.log.sends.iter().map(|(_, message)| message).collect();
        format!("{problems} {casts:?} {sends:?}")
    };
    let misses = world.nodes[0].stats().misses;
    Run {
        divergences: diverged(&world),
        misses: misses.iter().map(|miss| format!("{} {}", miss.layer, miss.reason)).collect(),
        hits: world.nodes.iter().map(|node| node.stats().fast_path.send_hit).sum(),
        seen: world.nodes.iter().map(seen).collect(),
    }
}

#[test]
fn the_exhibit_without_a_fault_is_clean_and_uses_everything() {
    let fast = run("none", true);
    assert_eq!(fast.divergences, [] as [String; 0]);
    assert_eq!(fast.seen, run("none", false).seen);
    assert!(fast.hits > 200, "{}", fast.hits);
    for seldom in ["EXHIBIT guard quota", "EXHIBIT guard marks"] {
        assert!(fast.misses.iter().any(|miss| miss == seldom), "{seldom} was used: {:?}", fast.misses);
    }
    assert!(fast.seen[0].starts_with("0 "), "no problems: {}", &fast.seen[0][..200]);
}

/// Whether there was no plan because of the exhibit; a guard or a field of it may stop a plan now and then.
fn refused(miss: &str) -> bool {
    miss.starts_with("EXHIBIT ") && !miss.contains("guard") && !miss.ends_with("differs")
}

#[test]
fn every_fault_is_noticed() {
    let mut unnoticed = Vec::new();
    for (fault, what, by) in FAULTS {
        let noticed = match catch_unwind(AssertUnwindSafe(|| run(fault, true))) {
            Err(_) => None,
            Ok(run) if !run.divergences.is_empty() => Some(By::Shadow),
            Ok(run) if run.misses.iter().any(|miss| refused(miss)) => Some(By::Compiler),
            Ok(fast) => (fast.seen != self::run(fault, false).seen).then_some(By::Application),
        };
        if noticed != Some(*by) {
            unnoticed.push(format!("{fault} ({what}): expected {by:?}, noticed {noticed:?}"));
        }
    }
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
}
