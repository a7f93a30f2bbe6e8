//! What layers are told in some worlds only. It was thought of when seeds had found much already: it is drawn by itself, and the
//! rest of a world is what it is without.

use super::ViewsSetup;
use crate::random::Random;

/// Parameters of layers. Kept apart from the stack, which is what it is without them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seldom {
    /// For how long a member must have been in its views to count first where two meet (MBRSHIP).
    pub senior_ms: Option<u64>,
    /// Who holds more than it may before the state is there leaves (XFER).
    pub leaves_full: bool,
    /// If nobody has the state any more the first goes on with what it has (XFER).
    pub goes_on: bool,
}

impl Seldom {
    /// What `seed` draws.
    pub(crate) fn draw(seed: u64) -> Seldom {
        let mut random = Random::new(seed, "seldom");
        let (senior, senior_ms) = (random.below(SENIOR_ONE_OF) == 0, random.scaled(1, SENIOR_MS_MAX));
        Seldom {
            senior_ms: senior.then_some(senior_ms),
            leaves_full: random.below(LEAVES_FULL_ONE_OF) == 0,
            goes_on: random.below(GOES_ON_ONE_OF) == 0,
        }
    }
}

/// In so many worlds this is drawn.
const SENIOR_ONE_OF: u64 = 3;
const LEAVES_FULL_ONE_OF: u64 = 2;
const GOES_ON_ONE_OF: u64 = 2;
/// Most worlds last longer, so that members come to count, and others have just come.
const SENIOR_MS_MAX: u64 = 300;

impl ViewsSetup {
    /// The world as it is lived in: with what is kept apart from its drivers and its stack.
    pub(crate) fn lived_in(self) -> ViewsSetup {
        let mut setup = self.with_expulsion();
        let Seldom { senior_ms, leaves_full, goes_on } = setup.seldom;
        if let Some(senior_ms) = senior_ms {
            setup.tell("MBRSHIP", "senior_ms", &senior_ms.to_string());
        }
        if leaves_full {
            setup.tell("XFER", "full", "leave");
        }
        if goes_on {
            setup.tell("XFER", "lost", "go_on");
        }
        setup
    }

    /// Gives a layer of the stack, if it is there, a parameter. What the stack says for itself stands.
    pub(super) fn tell(&mut self, layer: &str, parameter: &str, value: &str) {
        let said = format!("{parameter}={value}");
        let with = |named: &str| match named.strip_prefix(layer) {
            Some("") => format!("{layer}({said})"),
            Some(given) if given.starts_with('(') && !says(given, parameter) => {
                format!("{layer}({said},{}", &given[1..])
            }
            _ => named.to_owned(),
        };
        self.stack = self.stack.split(':').map(with).collect::<Vec<_>>().join(":");
    }

    /// Whether who holds too much before the state is there leaves, and that is soon.
    pub(crate) fn sends_the_full_away(&self) -> bool {
        self.stack.contains("full=leave") && self.stack.contains("hold_kib_max=")
    }

    /// Whether some go on with what they have if nobody can give them the state.
    pub(crate) fn goes_on_without_the_state(&self) -> bool {
        self.stack.contains("lost=go_on")
    }
}

/// Whether a parameter is among those given, with their brackets.
fn says(given: &str, parameter: &str) -> bool {
    given[1..].split(',').any(|one| one.split('=').next() == Some(parameter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Overrides, Scenario};

    #[test]
    fn a_layer_is_told_and_what_the_stack_says_for_itself_stands() {
        let mut setup = ViewsSetup::draw(&mut Random::new(1, "setup"), None);
        setup.seldom = Seldom { senior_ms: Some(7), leaves_full: true, goes_on: true };
        for (given, lived) in [
            ("MBRSHIP:SUSPECT", "MBRSHIP(senior_ms=7):SUSPECT"),
            ("XFER:MBRSHIP(block=no)", "XFER(lost=go_on,full=leave):MBRSHIP(senior_ms=7,block=no)"),
            ("XFER(lost=leave):MBRSHIP", "XFER(full=leave,lost=leave):MBRSHIP(senior_ms=7)"),
            ("MBRSHIP(block=no,senior_ms=9)", "MBRSHIP(block=no,senior_ms=9)"),
        ] {
            setup.stack = given.to_owned();
            assert_eq!(setup.clone().lived_in().stack, lived);
        }
    }

    #[test]
    fn what_is_drawn_late_changes_nothing_else_and_can_be_taken_out() {
        let scenario = Scenario::named("views").unwrap();
        let mut drawn = [0; 3];
        for seed in 0..200 {
            let setup = scenario.views(seed, &Overrides::default());
            let Seldom { senior_ms, leaves_full, goes_on } = setup.seldom;
            for (count, yes) in drawn.iter_mut().zip([senior_ms.is_some(), leaves_full, goes_on]) {
                *count += usize::from(yes);
            }
            let overrides = Overrides { without: vec![23, 24, 25], ..Overrides::default() };
            let without = scenario.views(seed, &overrides);
            assert_eq!(without.seldom, Seldom::default());
            let again = ViewsSetup { seldom: Seldom::default(), ..setup };
            assert_eq!(format!("{again:?}"), format!("{without:?}"));
            assert_eq!(without.clone().lived_in().stack, without.with_expulsion().stack);
        }
        assert!(drawn.iter().all(|count| (40..160).contains(count)), "{drawn:?}");
    }
}
