//! TRACE: writes a line for every event that passes. Can stand anywhere, any number of times.
//!
//! | | |
//! |---|---|
//! | requires | nothing |
//! | provides | nothing |
//! | promises | every event on the slow path leaves a line in the group's trace (`Group::take_trace`); with `fast=no` every message takes the slow path, so that every message leaves one |
//! | costs | nothing on the fast path; with `fast=no` the fast path itself |
//!
//! ```text
//! 0.001200 ms TRACE down cast 64 bytes        0.001210 ms TRACE up cast of 1 number 7, 3 messages
//! ```
//!
//! Source: this project.

use crate::accel::case::CommonCase;
use crate::stack::build::Build;
use crate::stack::event::{Down, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Posts};
use crate::stack::property::Properties;
use crate::stack::registry::LayerEntry;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "TRACE",
        about: "writes a line for every event that passes",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[(
            "fast",
            "whether ordinary messages may pass untraced on the fast path: yes (default) or no",
        )],
        make: |parameters| {
            let all = parameters.choice("fast", &["yes", "no"])? == "no";
            Ok(Box::new(Trace { all }))
        },
    }
}

#[derive(Clone)]
struct Trace {
    all: bool,
}

impl Layer for Trace {
    fn name(&self) -> &'static str {
        "TRACE"
    }

    fn install(&mut self, _build: &mut Build<'_>) {}

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        match &event {
            Down::Cast(message) => {
                context.trace(format_args!("down cast {} bytes", message.list.payload().len()));
            }
            Down::Send(to, message) => {
                context.trace(format_args!("down send to {to:?} {} bytes", message.list.payload().len()));
            }
            Down::Resend(to, message) => {
                let (traffic, number) = (message.traffic.name(), message.number);
                context.trace(format_args!("down again {traffic} {number} to {to:?}"));
            }
            Down::Raw(to, message) => {
                context.trace(format_args!("down raw to {to:?} for layer {}", message.control));
            }
            Down::Ack { origin, seen, .. } => {
                context.trace(format_args!("down ack of {origin} below {seen}"))
            }
            other => context.trace(format_args!("down {other:?}")),
        }
        context.down(event);
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match &event {
            Up::Cast(origin, message) => {
                let (number, messages) = (message.number, message.list.len());
                context.trace(format_args!("up cast of {origin} number {number}, {messages} messages"));
            }
            Up::Send(origin, message) => {
                context.trace(format_args!("up send of {origin} number {}", message.number));
            }
            Up::Raw(origin, message) => {
                context.trace(format_args!("up raw of {origin} for layer {}", message.control));
            }
            Up::View(view) => context.trace(format_args!("up view {}", view.view().id)),
            other => context.trace(format_args!("up {other:?}")),
        }
        context.up(event);
    }

    fn posts(&self) -> Posts {
        Posts::Nothing
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        if self.all { Fast::Opaque("it traces every message (fast=no)") } else { Fast::Transparent }
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}
