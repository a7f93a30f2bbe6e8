//! Layers that are wrong on purpose. Each must be caught: by the shadow where plan and layer disagree, by the oracle
//! where what comes out is wrong.

use wadjet::accel::case::{CommonCase, Operation, Source, Target};
use wadjet::stack::build::{Build, Field};
use wadjet::stack::event::{Down, Up};
use wadjet::stack::layer::{Context, Fast, Kind, Layer};
use wadjet::stack::property::Properties;
use wadjet::stack::registry::{LayerEntry, Registry};
use wadjet::stack::slots::{MemberSlot, Slot};
use wadjet::wire::Traffic;
use wadjet_sim::{Outcome, Overrides, Scenario, run_setup};

/// What is wrong with the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing: the layer counts deliveries in a slot and stamps casts with a number.
    None,
    /// The plan counts two where the layer counts one.
    WrongEffect,
    /// The layer takes every eighth cast of an origin for unusual, but closes no guard before it.
    ForgottenGuard,
    /// The layer sends and checks a number that it does not declare.
    ForgottenField,
    /// The layer itself loses every eighth cast of an origin; the plan is right.
    WrongSlowPath,
    /// The layer delivers every eighth cast twice, and has no plan.
    Doubles,
    /// The layer lets every eighth cast overtake the one before, and has no plan.
    Swaps,
    /// The layer never lets the eighth send through, and has no plan.
    LosesSends,
}

#[derive(Clone)]
struct Broken {
    fault: Fault,
    handles: Option<(MemberSlot, Slot, Field)>,
    kept: Option<Up>,
    sends: u64,
}

fn entry(make: fn() -> Fault) -> LayerEntry {
    LayerEntry {
        name: "BROKEN",
        about: "wrong on purpose",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: match make() {
            Fault::None => |_| Ok(broken(Fault::None)),
            Fault::WrongEffect => |_| Ok(broken(Fault::WrongEffect)),
            Fault::ForgottenGuard => |_| Ok(broken(Fault::ForgottenGuard)),
            Fault::ForgottenField => |_| Ok(broken(Fault::ForgottenField)),
            Fault::WrongSlowPath => |_| Ok(broken(Fault::WrongSlowPath)),
            Fault::Doubles => |_| Ok(broken(Fault::Doubles)),
            Fault::Swaps => |_| Ok(broken(Fault::Swaps)),
            Fault::LosesSends => |_| Ok(broken(Fault::LosesSends)),
        },
    }
}

fn broken(fault: Fault) -> Box<dyn Layer> {
    Box::new(Broken { fault, handles: None, kept: None, sends: 0 })
}

impl Layer for Broken {
    fn name(&self) -> &'static str {
        "BROKEN"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let field = build.protocol_field(Traffic::Cast, "stamp", 16);
        self.handles = Some((build.member_slot(), build.slot(), field));
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        let (_, _, field) = self.handles.expect("installed");
        let own = context.rank();
        match event {
            Down::Cast(mut message) => {
                message.set_field(field, context.sending(field, own));
                context.advance_sending(field, own);
                context.down(Down::Cast(message));
            }
            event => context.down(event),
        }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        let (count, wrong, field) = self.handles.expect("installed");
        match &event {
            Up::Cast(origin, message) => {
                let origin = *origin;
                let stamp = message.field(field);
                if stamp != context.expected(field, origin) {
                    context.set(wrong, context.get(wrong) + 1);
                }
                context.advance_expected(field, origin);
                let delivered = context.of(count, origin) + 1;
                context.set_of(count, origin, delivered);
                let eighth = delivered.is_multiple_of(8) && origin != context.rank();
                match self.fault {
                    Fault::WrongSlowPath | Fault::ForgottenGuard if eighth => return,
                    Fault::Doubles if eighth => context.up(event.clone()),
                    Fault::Swaps if eighth => {
                        self.kept = Some(event);
                        return;
                    }
                    _ => {}
                }
                context.up(event);
                if let Some(kept) = self.kept.take() {
                    context.up(kept);
                }
            }
            Up::Send(..) if self.fault == Fault::LosesSends => {
                self.sends += 1;
                if !self.sends.is_multiple_of(8) {
                    context.up(event);
                }
            }
            _ => context.up(event),
        }
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let (count, _, field) = self.handles.expect("installed");
        if matches!(self.fault, Fault::Doubles | Fault::Swaps | Fault::LosesSends) {
            return Fast::Opaque("it is wrong on purpose, slowly");
        }
        let stamped = self.fault != Fault::ForgottenField;
        match kind {
            Kind::CastSend if stamped => case.advance(field),
            Kind::CastSend => {}
            Kind::CastDeliver | Kind::SelfDeliver => {
                if stamped {
                    case.advance(field);
                }
                let counted = if self.fault == Fault::WrongEffect { 2 } else { 1 };
                case.effect(Operation::Add, Target::Member(count), Source::Constant(counted));
            }
            Kind::SendSend | Kind::SendDeliver => return Fast::Transparent,
        }
        Fast::Declared
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}

/// Runs calm worlds with the layer on top of the stack until one violates something.
fn first_violation(registry: fn() -> Registry, shadow: bool, accelerated: bool) -> Option<Outcome> {
    let overrides = Overrides {
        stack: Some("BROKEN:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM".into()),
        shadow: Some(shadow),
        accelerated: Some(accelerated),
        ..Overrides::default()
    };
    let scenario = Scenario::named("calm").unwrap();
    (0..30)
        .map(|seed| {
            let mut setup = scenario.setup(seed, &overrides);
            setup.registry = registry;
            run_setup(seed, "calm", setup)
        })
        .find(|outcome| !outcome.violations.is_empty())
}

fn caught_by(registry: fn() -> Registry, shadow: bool, accelerated: bool) -> Vec<String> {
    let outcome =
        first_violation(registry, shadow, accelerated).expect("thirty worlds, and it was not caught");
    outcome.violations.into_iter().map(|violation| violation.property).collect()
}

fn assert_shadow_catches(registry: fn() -> Registry) {
    let caught = caught_by(registry, true, true);
    assert!(caught.contains(&"shadow".into()), "{caught:?}");
}

#[test]
fn the_layer_without_a_fault_passes_everywhere() {
    let sound: fn() -> Registry = || Registry::standard().with(entry(|| Fault::None));
    for (shadow, accelerated) in [(true, true), (false, true), (false, false)] {
        let outcome = first_violation(sound, shadow, accelerated);
        assert!(outcome.is_none(), "{:?}", outcome.unwrap().violations);
    }
}

#[test]
fn the_shadow_catches_a_wrong_effect() {
    assert_shadow_catches(|| Registry::standard().with(entry(|| Fault::WrongEffect)));
}

#[test]
fn the_shadow_catches_a_forgotten_guard() {
    assert_shadow_catches(|| Registry::standard().with(entry(|| Fault::ForgottenGuard)));
}

#[test]
fn the_shadow_catches_a_forgotten_field() {
    assert_shadow_catches(|| Registry::standard().with(entry(|| Fault::ForgottenField)));
}

#[test]
fn the_shadow_and_the_oracle_catch_a_wrong_slow_path() {
    assert_shadow_catches(|| Registry::standard().with(entry(|| Fault::WrongSlowPath)));
    let caught = caught_by(|| Registry::standard().with(entry(|| Fault::WrongSlowPath)), false, false);
    assert!(caught.contains(&"no-gaps".into()) && caught.contains(&"liveness".into()), "{caught:?}");
}

#[test]
fn the_oracle_catches_duplicates_swaps_and_lost_sends() {
    let caught = caught_by(|| Registry::standard().with(entry(|| Fault::Doubles)), false, true);
    assert!(caught.contains(&"no-duplicates".into()), "{caught:?}");
    let caught = caught_by(|| Registry::standard().with(entry(|| Fault::Swaps)), false, true);
    assert!(caught.contains(&"fifo".into()), "{caught:?}");
    let caught = caught_by(|| Registry::standard().with(entry(|| Fault::LosesSends)), false, true);
    assert!(caught.contains(&"sends-completeness".into()), "{caught:?}");
}
