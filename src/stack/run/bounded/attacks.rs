//! The check attacked: layers that leave something out, and plans that are wrong.

use super::*;

/// A layer with something left out.
pub(super) struct Forgetful {
    pub(super) inner: Box<dyn Layer>,
    pub(super) wrong: Wrong,
}

impl Forgetful {
    fn forget(&self, context: &mut Context<'_>) {
        if let Wrong::Guard(guard) = self.wrong {
            (0..MEMBERS).for_each(|rank| context.open(guard, Rank::at(rank)));
        }
    }
}

impl Layer for Forgetful {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.inner.install(build);
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.inner.start(context);
        self.forget(context);
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        self.inner.down(context, event);
        self.forget(context);
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        self.inner.up(context, event);
        self.forget(context);
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        self.inner.control(context, origin, message);
        self.forget(context);
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: crate::stack::build::TimerId) {
        self.inner.timer(context, timer);
        self.forget(context);
    }

    fn post(&mut self, context: &mut Context<'_>) {
        self.inner.post(context);
        self.forget(context);
    }

    fn posts(&self) -> Posts {
        self.inner.posts()
    }

    fn prompt(&mut self, context: &mut Context<'_>) -> RankSet {
        let news = self.inner.prompt(context);
        self.forget(context);
        news
    }

    fn post_member(&mut self, context: &mut Context<'_>, member: Rank) {
        self.inner.post_member(context, member);
        self.forget(context);
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let before = case.statements.len();
        let fast = self.inner.common_case(kind, case);
        if let Wrong::Statement(of, at) = self.wrong
            && of == kind
            && before + at < case.statements.len()
        {
            case.statements.remove(before + at);
        }
        fast
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(Forgetful { inner: self.inner.fork(), wrong: self.wrong })
    }

    fn bequeath(&mut self) -> Option<Box<dyn std::any::Any>> {
        self.inner.bequeath()
    }

    fn inherit(&mut self, legacy: Box<dyn std::any::Any>) {
        self.inner.inherit(legacy);
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.inner.digest(digest);
    }
}

/// Everything that can be left out of the common case of a layer, and every guard it can forget.
pub(super) fn omissions(layer: &'static str) -> Vec<(String, Wrong)> {
    let compiled = Bench::new(layer, Rank(0), Begin::Fresh, None).compiled();
    let at = compiled.layers.iter().position(|other| other.name() == layer).expect("it is there");
    let mut omissions = Vec::new();
    for kind in Kind::ALL {
        if compiled.plans[kind as usize].is_err() {
            continue;
        }
        let mut statements = Vec::new();
        let _ = compiled.layers[at]
            .common_case(kind, &mut CommonCase { kind, layer: at, statements: &mut statements });
        for (index, (_, statement)) in statements.iter().enumerate() {
            // Own copies pass no layer below the one that loops them; and what is bound costs and does nothing.
            let passed = kind != Kind::SelfDeliver || loops_below(&compiled, at);
            if passed && !matches!(statement, Statement::Bound(_)) {
                let what = format!("{layer} without {statement:?} of {}", kind.name());
                omissions.push((what, Wrong::Statement(kind, index)));
            }
        }
    }
    for owner in compiled.blueprint.guards.iter().filter(|owner| owner.layer == at) {
        if owner.closes == Closes::FastPath {
            let what = format!("{layer} without its guard {:?} of {:?}", owner.name, owner.kind);
            omissions.push((what, Wrong::Guard(Guard { kind: owner.kind, mask: owner.mask })));
        }
    }
    omissions
}

pub(super) fn loops_below(compiled: &Compiled, layer: usize) -> bool {
    compiled.layers.iter().skip(layer + 1).any(|below| below.name() == "LOCAL")
}

/// What notices omissions notices nothing where nothing is left out.
#[test]
fn a_layer_with_nothing_left_out_is_no_exception() {
    for layer in layer_names().into_iter().filter(|layer| !omissions(layer).is_empty()) {
        let nothing = Wrong::Statement(Kind::CastSend, usize::MAX / 2);
        let (_, noticed) = Bench::new(layer, Rank(0), Begin::Fresh, Some(nothing)).run(DEPTH - 1);
        assert_eq!(noticed, None, "{layer}");
    }
}

#[test]
fn every_omission_is_noticed() {
    let mut unnoticed = Vec::new();
    let mut count = 0;
    for layer in layer_names() {
        for (what, wrong) in omissions(layer) {
            count += 1;
            let begins = [
                (0, Begin::Fresh),
                (1, Begin::Fresh),
                (0, Begin::FewNumbers),
                (0, Begin::Contested),
                (0, Begin::Guest),
            ];
            let noticed = begins
                .iter()
                .find_map(|(own, begin)| Bench::new(layer, Rank(*own), *begin, Some(wrong)).run(DEPTH - 1).1);
            match noticed {
                Some(noticed) => println!("{what}: {}", &noticed[..noticed.len().min(600)]),
                None => unnoticed.push(what),
            }
        }
    }
    println!("{count} omissions");
    assert!(unnoticed.is_empty(), "not noticed:\n{}", unnoticed.join("\n"));
}

/// Plans that are wrong: of which layer's stack, what is wrong, and how.
const WRONG_PLANS: &[(&str, &str, Wrong)] = &[
    ("NAK", "bumps its number twice", Wrong::Plan(Kind::CastDeliver, |plan| plan.template[0].add *= 2)),
    ("NAK", "bumps the number it casts twice", Wrong::Plan(Kind::CastSend, |plan| plan.template[0].add *= 2)),
    (
        "UNICAST",
        "bumps a send's number twice",
        Wrong::Plan(Kind::SendDeliver, |plan| plan.template[0].add *= 2),
    ),
    ("NAK", "compares nothing", Wrong::Plan(Kind::CastDeliver, |plan| plan.template[0].mask = 0)),
    (
        "NAK",
        "does not compare the lowest bit",
        Wrong::Plan(Kind::CastDeliver, |plan| plan.template[0].mask &= !1),
    ),
    ("NAK", "casts under a stale cookie", Wrong::Plan(Kind::CastSend, |plan| plan.cookie = 1)),
    ("UNICAST", "sends under a stale cookie", Wrong::Plan(Kind::SendSend, |plan| plan.cookie = 1)),
    ("NAK", "reads its number elsewhere", Wrong::Plan(Kind::CastDeliver, |plan| plan.number.shift += 1)),
    ("NAK", "numbers what it retains wrongly", Wrong::Plan(Kind::CastSend, |plan| plan.number.mask = 0)),
    (
        "CHKSUM",
        "reads its checksum elsewhere",
        Wrong::Plan(Kind::CastDeliver, |plan| plan.filters[0].spot.shift += 1),
    ),
    (
        "CHKSUM",
        "writes its checksum elsewhere",
        Wrong::Plan(Kind::CastSend, |plan| plan.filters[0].spot.shift += 1),
    ),
    ("NAK", "has the limit of another guard", Wrong::Plan(Kind::CastSend, |plan| plan.limits[0].limit += 1)),
    ("NAK", "closes another guard", Wrong::Plan(Kind::CastSend, |plan| plan.limits[0].bits <<= 4)),
    ("NAK", "retains what comes", Wrong::Plan(Kind::CastDeliver, |plan| plan.retain = true)),
    ("LOCAL", "loops from another layer", Wrong::Plan(Kind::CastSend, |plan| plan.loop_layer = Some(1))),
    ("TOTAL", "waits for nothing", Wrong::Plan(Kind::CastDeliver, |plan| deliver(plan).releases.clear())),
    (
        "TOTAL",
        "waits for another word",
        Wrong::Plan(Kind::CastDeliver, |plan| deliver(plan).releases[0] += 1),
    ),
    (
        "TOTAL",
        "looks for the mark elsewhere",
        Wrong::Plan(Kind::CastDeliver, |plan| {
            plan.marks.1 = 1;
        }),
    ),
    ("SAFE", "delivers before it is safe", Wrong::Plan(Kind::SelfDeliver, |plan| plan.last = None)),
    (
        "SAFE",
        "takes the last of a turn for agreed",
        Wrong::Plan(Kind::CastDeliver, |plan| plan.agreed = plan.marks),
    ),
    ("SAFE", "takes what is agreed for safe", Wrong::Plan(Kind::CastDeliver, |plan| plan.agreed.1 = 0)),
    (
        "SAFE",
        "casts what is agreed as safe",
        // Its mark is the last field of the word.
        Wrong::Plan(Kind::CastSend, |plan| {
            let mask = &mut plan.template[0].mask;
            *mask &= !(1 << mask.ilog2());
        }),
    ),
    ("NAK", "writes before it has checked", Wrong::Plan(Kind::CastDeliver, |plan| plan.hasty = true)),
    ("UNICAST", "writes before it has checked", Wrong::Plan(Kind::SendDeliver, |plan| plan.hasty = true)),
];

fn deliver(plan: &mut Plan) -> &mut crate::accel::plan::DeliverStep {
    plan.deliver.as_mut().expect("it has a second step")
}

#[test]
fn every_wrong_plan_is_noticed() {
    let mut unnoticed = Vec::new();
    for (layer, what, wrong) in WRONG_PLANS {
        let noticed =
            [(Begin::Fresh, DEPTH - 1), (Begin::Contested, DEPTH)].iter().find_map(|(begin, depth)| {
                let bench = Bench::new(layer, Rank(0), *begin, Some(*wrong));
                let run = catch_unwind(AssertUnwindSafe(|| bench.run(*depth)));
                let Ok((counted, noticed)) = run else { return Some("a panic".to_string()) };
                let Wrong::Plan(kind, _) = wrong else { return noticed };
                // What does not run where the right one does is no less wrong.
                let runs = || Bench::new(layer, Rank(0), *begin, None).run(*depth).0.ran[*kind as usize];
                let never = || (!counted.ran[*kind as usize] && runs()).then(|| "it never runs".to_string());
                noticed.or_else(never)
            });
        match noticed {
            Some(noticed) => println!("{layer} {what}: {}", &noticed[..noticed.len().min(300)]),
            None => unnoticed.push(format!("{layer} {what}")),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed:\n{}", unnoticed.join("\n"));
}
