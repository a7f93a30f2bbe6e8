//! Deliveries and events go to the application.

use super::Stack;
use crate::accel::execute;
use crate::accel::pack::OpenPack;
use crate::accel::shadow::{Handled, ShadowRun};
use crate::config::Shadow;
use crate::group::{Application, Delivery, Event, Group, StatePart};
use crate::id::Rank;
use crate::stack::core::{Core, Emerged};
use crate::stack::event::{Down, ExitReason, List, StateBytes, Up};
use crate::stack::layer::Kind;
use crate::stack::order::Ordered;

impl Stack {
    /// Hands everything that emerged at the top to the application, and what was released since.
    #[inline]
    pub(crate) fn drain(&mut self, app: &mut dyn Application) {
        let Core { emerged, order, .. } = &self.engine.core;
        if !(emerged.is_empty() && order.is_empty()) {
            self.drain_all(app);
        }
    }

    #[inline(never)]
    fn drain_all(&mut self, app: &mut dyn Application) {
        loop {
            while let Some(emerged) = self.engine.core.emerged.pop_front() {
                // Nothing is delivered after an exit but the exit itself.
                if self.exited.is_some() && !matches!(emerged, Emerged::Event(Up::Exit(_))) {
                    continue;
                }
                match emerged {
                    Emerged::Cast(origin, message) => {
                        self.deliver_part(Kind::CastDeliver, origin, &message, app);
                    }
                    Emerged::Send(origin, message) => {
                        self.deliver_part(Kind::SendDeliver, origin, &message, app);
                    }
                    Emerged::Event(event) => self.event(event, app),
                }
            }
            // As with what is to be sent: it would go round through all of its memory.
            self.engine.core.emerged.clear();
            if self.engine.core.order.is_empty() {
                return;
            }
            if !self.release_one(app) {
                return;
            }
        }
    }

    /// Takes one held cast on whose release has come; returns whether there was one.
    fn release_one(&mut self, app: &mut dyn Application) -> bool {
        let in_order = self.engine.next_in_order();
        let last = in_order.is_some();
        let Some(held) = in_order.or_else(|| self.engine.next_released(&self.releases)) else { return false };
        let Ordered { origin, number, list, marked, agreed: _, slow } = held;
        if let Some(slow) = slow {
            let (layer, event) = (slow.layer, Up::Cast(origin, slow.message(number, list)));
            self.engine.core.order.give_back(slow);
            self.engine.rise(layer, event);
            return true;
        }
        let kind = if origin == self.engine.core.own { Kind::SelfDeliver } else { Kind::CastDeliver };
        let Ok(plan) = &self.plans[kind as usize] else { return true };
        let step = if last { &plan.last } else { &plan.deliver };
        let Some(step) = step else { return true };
        let before = (self.shadow != Shadow::Off).then(|| ShadowRun::before(&self.engine));
        let core = &mut self.engine.core;
        execute::released(core, step, origin, number, &list, marked);
        // The layer that held it first sees it once more, as it does with what took the layers.
        let from_layer = if last { step.layer } else { step.layer + 1 };
        let delivered = last || execute::released_in_order(core, plan, origin, number, &list);
        if !delivered {
            let agreed = execute::is_list_agreed(plan, &list);
            core.order.push_ordered(Ordered {
                origin,
                number,
                list: list.clone(),
                marked,
                agreed,
                slow: None,
            });
        }
        if let Some(before) = before {
            let handled = Handled::Released { origin, number, list: &list, delivered, from_layer };
            let differs = before.compare(&mut self.engine, handled);
            self.compared(kind, differs);
        }
        if delivered {
            self.upcall(kind, origin, number, &list, app);
        }
        true
    }

    #[inline]
    pub(super) fn upcall(
        &mut self,
        kind: Kind,
        origin: Rank,
        number: u64,
        list: &List,
        app: &mut dyn Application,
    ) {
        if list.is_empty() {
            return self.blank(kind, origin, number);
        }
        if kind == Kind::SendDeliver {
            let delivery = Delivery::new(0, origin, number, list);
            self.sends_delivered += 1;
            app.send(&delivery, &mut Group::new(self));
        } else {
            let delivery = Delivery::new(self.ids_of, origin, number, list);
            self.delivered += list.len() as u64;
            app.cast(&delivery, &mut Group::new(self));
        }
    }

    fn event(&mut self, event: Up, app: &mut dyn Application) {
        let event = match event {
            Up::View(view) => {
                self.tell_view(&view);
                app.event(&Event::View(view), &mut Group::new(self));
                if !(self.told && std::mem::take(&mut self.block_untold)) || self.exited.is_some() {
                    return;
                }
                Event::Block
            }
            Up::Stable => Event::Stable,
            Up::Problem(problem) => Event::Problem(problem),
            Up::LostMessage { origin, reason } => Event::LostMessage { origin, reason },
            Up::Exit(reason) => {
                if std::mem::replace(&mut self.exit_told, true) {
                    return;
                }
                if self.exited.is_none() {
                    self.exit(reason);
                }
                Event::Exit(reason)
            }
            Up::Flush if !self.told => return self.block_untold(),
            Up::Flush => Event::Block,
            Up::Leave(rank) => Event::Left(rank),
            Up::Suspect(suspicions) => {
                for suspicion in suspicions.iter() {
                    app.event(&Event::Suspect(*suspicion), &mut Group::new(self));
                }
                return;
            }
            Up::Paused(lasting) => Event::Paused(lasting),
            Up::Slow(slow) => Event::Slow(slow),
            Up::NextView(next) => {
                self.next = Some(next);
                return;
            }
            Up::Transitional(together) => Event::Transitional(together),
            Up::StateLost { goes_on } => Event::StateLost { goes_on },
            Up::Snapshot(slot) => {
                let snapshot = app.snapshot(&mut Group::new(self));
                let taken = snapshot.is_some();
                self.engine.core.snapshots[slot].0 = snapshot;
                self.engine.enter(Down::Snapshot { slot, taken });
                return;
            }
            Up::State(part) => {
                self.install_state(part, app);
                return;
            }
            Up::FlushOk
            | Up::Cast(..)
            | Up::Send(..)
            | Up::Raw(..)
            | Up::Outside(_)
            | Up::Stranger { .. }
            | Up::Late
            | Up::Gone(_)
            | Up::Starved(_)
            | Up::Parted(_)
            | Up::Doubt(_) => return,
        };
        app.event(&event, &mut Group::new(self));
    }

    fn install_state(&mut self, part: StateBytes, app: &mut dyn Application) {
        if self.state_refused {
            return;
        }
        let StateBytes { donor, at, last, ref list } = part;
        let in_turn = at == 0 || self.state_due.is_none_or(|due| due == at);
        if !in_turn || !app.is_ready_for_state(list.payload().len()) {
            if in_turn {
                self.state_due = Some(at);
            }
            self.tell_taken();
            self.engine.enter(Down::StateBack(part));
            return;
        }
        let late = self.state_due.take().is_some();
        let through = at + list.payload().len() as u64;
        let part = StatePart { bytes: list.payload(), at, last };
        match app.install_state(&part, &mut Group::new(self)) {
            Ok(()) => {
                self.state_taken = Some((donor, through, last));
                if late || last {
                    self.tell_taken();
                }
            }
            Err(why) => {
                self.state_refused = true;
                self.engine.enter(Down::StateRefused(why));
                self.leave();
            }
        }
    }

    /// Tells the layers how much of the state the application has. Of what comes in one iteration they are told at once.
    pub(super) fn tell_taken(&mut self) {
        if let Some((donor, through, last)) = self.state_taken.take() {
            self.engine.enter(Down::StateTaken { donor, through, last });
        }
    }

    /// Leaves the group: what is waiting or retained is let go of, nothing is delivered any more, and the exit is told
    /// at the next poll.
    pub(crate) fn leave(&mut self) {
        if self.exited.is_some() || self.leaving {
            return;
        }
        self.close_open();
        self.engine.enter(Down::Leave);
        if self.live {
            // The others are to hear of it: the exit follows when they have gone on.
            self.leaving = true;
            self.engine.core.work += 1;
            return;
        }
        self.exit(ExitReason::Left);
        self.engine.core.emit_application(Up::Exit(ExitReason::Left));
    }

    fn exit(&mut self, reason: ExitReason) {
        self.exited = Some(reason);
        self.open = OpenPack::default();
        self.waiting.clear();
        self.large.clear();
        self.early.clear();
        self.engine.core.let_go();
    }
}
