//! What makes a history one: numbers without holes, and nobody acting before or after life.

use crate::history::Traffic;
use crate::index::{Index, Issued, Life};
use crate::properties::Promises;
use crate::report::{Finding, Findings};

pub(crate) fn numbering(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        number(life, Traffic::Cast, &life.casts, findings);
        number(life, Traffic::Send, &life.sends, findings);
    }
}

fn number(life: &Life, traffic: Traffic, issued: &[Issued], findings: &mut Findings<'_>) {
    for (message, due) in issued.iter().zip(1..).filter(|(message, due)| message.sequence != *due) {
        findings.add(|| Finding {
            what: format!("{} where number {due} was due", life.name(traffic, message.sequence)),
            members: vec![life.incarnation],
            messages: vec![life.name(traffic, message.sequence)],
            events: vec![message.event],
        });
    }
}

pub(crate) fn lifetime(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for event in &life.lifeless {
            findings.add(|| {
                let when = match life.end {
                    Some(end) if *event > end => "after its end",
                    _ if life.start.is_some_and(|start| *event > start) => "while it lived already",
                    _ => "before its start",
                };
                Finding {
                    what: format!("something happens to {} {when}", life.incarnation),
                    members: vec![life.incarnation],
                    messages: Vec::new(),
                    events: life.start.into_iter().chain(life.end).chain([*event]).collect(),
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::history::What;
    use crate::properties::testing::*;

    #[test]
    fn numbers_without_holes_pass_and_others_do_not() {
        let mut run = Run::of(2);
        run.cast(A, 1).send(A, 1, &[B]).cast(A, 2);
        assert_eq!(run.violated(), [""; 0]);
        run.cast(A, 4);
        assert_eq!(run.violated(), ["numbering"]);
        let mut run = Run::of(2);
        run.send(A, 2, &[B]);
        assert_eq!(run.violated(), ["numbering"]);
    }

    #[test]
    fn the_dead_do_nothing() {
        let mut run = Run::of(2);
        run.cast(A, 1).event(B, What::Crash);
        assert_eq!(run.violated(), [""; 0]);
        run.deliver(B, A, 1);
        assert_eq!(run.violated(), ["lifetime"]);
        let mut run = Run::of(2);
        run.event(A, What::Exit { reason: "asked to".into() }).cast(A, 1);
        assert_eq!(run.violated(), ["lifetime"]);
    }

    #[test]
    fn nobody_acts_before_starting_and_nobody_starts_twice() {
        let mut run = Run::started(1);
        run.install(A, 1, &[A, B]).install(B, 1, &[A, B]);
        assert_eq!(run.violated(), ["lifetime"]);
        let mut run = Run::of(2);
        run.event(A, What::Start { process: 1 });
        assert_eq!(run.violated(), ["lifetime"]);
    }
}
