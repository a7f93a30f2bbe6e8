//! Violations, in words a person can act on.

use std::fmt;

use serde::Serialize;

use crate::history::{Event, History, Incarnation, MessageName};

/// A property that a history does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The property's name, as in [`crate::PROPERTIES`].
    pub property: &'static str,
    /// What happened instead.
    pub what: String,
    /// The members concerned.
    pub members: Vec<Incarnation>,
    /// The messages concerned.
    pub messages: Vec<MessageName>,
    /// Where in the history, as indices of its events, ascending.
    pub events: Vec<usize>,
    /// How many more of this property there are that were not written out.
    pub more: usize,
    /// The events concerned among their neighbours, one per line, those of `events` marked.
    pub excerpt: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}: {}", self.property, self.what)?;
        if self.more > 0 {
            writeln!(formatter, "  (and {} more of this kind)", self.more)?;
        }
        formatter.write_str(&self.excerpt)
    }
}

/// How many violations of one property are written out.
const WRITTEN_PER_PROPERTY: usize = 4;
/// How many events of the same member are shown before and after an event concerned.
const BEFORE: usize = 4;
const AFTER: usize = 2;

/// Collects what the properties find.
pub(crate) struct Findings<'a> {
    history: &'a History,
    property: &'static str,
    found: Vec<Violation>,
    of_this_property: usize,
}

/// One finding, before it is written out.
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) members: Vec<Incarnation>,
    pub(crate) messages: Vec<MessageName>,
    pub(crate) events: Vec<usize>,
}

impl<'a> Findings<'a> {
    pub(crate) fn of(history: &'a History) -> Findings<'a> {
        Findings { history, property: "", found: Vec::new(), of_this_property: 0 }
    }

    pub(crate) fn begin(&mut self, property: &'static str) {
        self.property = property;
        self.of_this_property = 0;
    }

    /// Takes a finding of the current property. It is worded only if it will be written out.
    pub(crate) fn add(&mut self, finding: impl FnOnce() -> Finding) {
        self.of_this_property += 1;
        if self.of_this_property > WRITTEN_PER_PROPERTY {
            self.found.last_mut().expect("others of this property came before").more += 1;
            return;
        }
        let Finding { what, members, messages, mut events } = finding();
        events.sort_unstable();
        events.dedup();
        let excerpt = excerpt(&self.history.events, &events);
        self.found.push(Violation {
            property: self.property,
            what,
            members,
            messages,
            events,
            more: 0,
            excerpt,
        });
    }

    pub(crate) fn finish(self) -> Vec<Violation> {
        self.found
    }
}

/// The events `marked`, each with its neighbours at the same member.
fn excerpt(events: &[Event], marked: &[usize]) -> String {
    let mut shown = Vec::new();
    for at in marked {
        let same = |other: &usize| events[*other].member == events[*at].member;
        shown.extend((0..*at).rev().filter(same).take(BEFORE));
        shown.push(*at);
        shown.extend((*at + 1..events.len()).filter(same).take(AFTER));
    }
    shown.sort_unstable();
    shown.dedup();
    let mut text = String::new();
    let mut last = None;
    for at in shown {
        if last.is_some_and(|last| at > last + 1) {
            text.push_str("      ...\n");
        }
        let mark = if marked.binary_search(&at).is_ok() { '>' } else { ' ' };
        text.push_str(&format!("  {mark} {:>6} {}\n", at, events[at]));
        last = Some(at);
    }
    text
}
