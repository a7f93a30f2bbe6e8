//! A layer that looks at events and lets them by sees each of them once, ends those that it says it ends, and what it emits
//! while it looks comes out before what it looked at.

mod common;

use common::World;
use wadjet::Config;
use wadjet::accel::case::CommonCase;
use wadjet::layers::FIXED_STACK;
use wadjet::stack::build::Build;
use wadjet::stack::event::{Down, Up};
use wadjet::stack::layer::{Context, Fast, Kind, Layer, Look};
use wadjet::stack::property::Properties;
use wadjet::stack::registry::{LayerEntry, ParameterError, Parameters, Registry};

/// Says something of each cast that goes up, and ends some.
#[derive(Clone)]
struct Looks;

impl Layer for Looks {
    fn name(&self) -> &'static str {
        "LOOKS"
    }

    fn install(&mut self, _build: &mut Build<'_>) {}

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        if matches!(event, Down::Cast(_)) {
            context.count("down");
        }
        Look::Passes
    }

    fn look_up(&mut self, context: &mut Context<'_>, event: &Up) -> Look {
        let Up::Cast(origin, message) = event else { return Look::Passes };
        context.count("up");
        if message.list.payload() == b"ends" {
            return Look::Ends;
        }
        context.problem(Some(*origin), "a cast follows");
        Look::Passes
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Opaque("it looks at everything")
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}

/// Counts the casts that were announced before they came, and those that were not.
#[derive(Clone, Default)]
struct Above {
    announced: u64,
}

impl Layer for Above {
    fn name(&self) -> &'static str {
        "ABOVE"
    }

    fn install(&mut self, _build: &mut Build<'_>) {}

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match &event {
            Up::Problem(_) => self.announced += 1,
            Up::Cast(..) if self.announced == 1 => {
                context.count("announced");
                self.announced = 0;
            }
            Up::Cast(..) => context.count("not announced"),
            _ => {}
        }
        context.up(event);
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Opaque("it looks at everything")
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}

type Make = fn(&Parameters) -> Result<Box<dyn Layer>, ParameterError>;

fn entry(name: &'static str, make: Make) -> LayerEntry {
    LayerEntry {
        name,
        about: "of this test",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make,
    }
}

#[test]
fn what_a_layer_says_while_it_looks_goes_before_what_it_looks_at() {
    let registry = Registry::standard()
        .with(entry("LOOKS", |_| Ok(Box::new(Looks))))
        .with(entry("ABOVE", |_| Ok(Box::<Above>::default())));
    let config = Config { pack: false, ..Config::default() };
    let mut world = World::with_registry(2, &format!("ABOVE:LOOKS:{FIXED_STACK}"), &config, &registry);
    for message in [&b"passes"[..], b"ends", b"passes too"] {
        world.cast(0, message);
        world.steps(100);
    }
    for node in [0, 1] {
        assert_eq!(world.delivered(node, 0), [&b"passes"[..], b"passes too"]);
        let counted = |layer, what| world.nodes[node].counted(layer, what);
        assert_eq!([counted("LOOKS", "up"), counted("ABOVE", "announced")], [3, 2]);
        assert_eq!(counted("ABOVE", "not announced"), 0);
        assert_eq!(counted("LOOKS", "down"), if node == 0 { 3 } else { 0 });
    }
}
