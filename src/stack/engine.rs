//! The slow path: layers, and the loop that takes events to them one at a time.

use super::core::{Core, Queued};
use super::event::{Down, Up};
use super::layer::{Context, Layer, Look};
use super::order::Ordered;
use super::post::Posting;
use crate::id::Hasher64;

/// Layers and what they share.
pub(crate) struct Engine {
    pub(crate) core: Core,
    /// Top to bottom.
    pub(crate) layers: Vec<Box<dyn Layer>>,
    pub(crate) posting: Posting,
}

impl Engine {
    /// Takes every queued event to its layer, until none is left.
    pub(crate) fn run(&mut self) {
        if self.core.queue.is_empty() {
            return;
        }
        self.begin();
        self.run_queue();
    }

    /// Layers are about to handle an event.
    fn begin(&mut self) {
        self.core.catch_up();
        (self.core.by_layers, self.core.stirred) = (true, true);
    }

    fn run_queue(&mut self) {
        if self.core.queue.is_empty() {
            return;
        }
        while let Some(queued) = self.core.queue.pop_front() {
            match queued {
                Queued::Down(layer, event) => self.sink(layer, event),
                Queued::Up(layer, event) => self.climb(layer, event),
            }
        }
        // It begins anew: it is as long as all that one event can set off, and would else go round through all of its memory.
        self.core.queue.clear();
    }

    /// Takes an event down to a layer, and past those that only look at it for as long as nothing else waits: that is the
    /// order in which the queue would take it there.
    #[inline(always)]
    fn sink(&mut self, mut layer: usize, event: Down) {
        while let Some(handler) = self.layers.get_mut(layer) {
            let mut context = Context { core: &mut self.core, layer };
            match handler.look_down(&mut context, &event) {
                Look::Takes => return handler.down(&mut context, event),
                Look::Ends => return,
                Look::Passes => layer = self.core.ways.down(layer + 1, &event),
            }
            if !self.core.queue.is_empty() {
                return self.core.push(Queued::Down(layer, event));
            }
        }
        self.core.count_stack("event below the lowest layer");
    }

    /// As [`Engine::sink`], up, and out at the top.
    #[inline(always)]
    fn climb(&mut self, mut layer: usize, event: Up) {
        loop {
            let mut context = Context { core: &mut self.core, layer };
            if let Up::Raw(origin, message) | Up::Send(origin, message) = &event
                && usize::from(message.control) == layer
            {
                return self.layers[layer].control(&mut context, *origin, message);
            }
            match self.layers[layer].look_up(&mut context, &event) {
                Look::Takes => return self.layers[layer].up(&mut context, event),
                Look::Ends => return,
                Look::Passes => {}
            }
            match self.core.ways.up(layer, &event) {
                Some(next) if self.core.queue.is_empty() => layer = next,
                Some(next) => return self.core.push(Queued::Up(next, event)),
                None => return self.core.emerge(event),
            }
        }
    }

    /// Sends an event down from the top.
    pub(crate) fn enter(&mut self, event: Down) {
        self.core.emit_top(event);
        self.run();
    }

    /// Sends an event up from the lowest layer.
    #[inline]
    pub(crate) fn arrive(&mut self, event: Up) {
        self.rise(self.layers.len(), event);
    }

    /// Sends an event up from above `layer`. It may come out at once, past layers that do not look at it.
    #[inline]
    pub(crate) fn rise(&mut self, layer: usize, event: Up) {
        self.begin();
        // What waits goes first.
        match self.core.ways.up(layer, &event) {
            Some(target) if self.core.queue.is_empty() => self.climb(target, event),
            _ => self.core.emit_up(layer, event),
        }
        self.run_queue();
    }

    /// Runs all timers that are due.
    pub(crate) fn timers(&mut self) {
        self.begin();
        while let Some(timer) = self.core.timers.due(self.core.now) {
            let layer = self.core.timer_layers[timer.0];
            self.layers[layer].timer(&mut Context { core: &mut self.core, layer }, timer);
            self.run();
        }
    }

    /// The first held cast whose release has come, of an origin with no held cast before it.
    pub(crate) fn next_released(&mut self, plan_releases: &[u32]) -> Option<Ordered> {
        let released = self.released(plan_releases);
        if released.is_some() {
            return released;
        }
        let Core { order, slots, .. } = &mut self.core;
        let rest = order.take_rest()?;
        rest.of.iter().for_each(|rank| slots.set_of(rest.slot, rank, u64::MAX));
        self.released(plan_releases)
    }

    fn released(&mut self, plan_releases: &[u32]) -> Option<Ordered> {
        let Core { order, slots, .. } = &mut self.core;
        order.take(|held| {
            let section = slots.member(held.origin);
            let reached = |word: u32| slots.word(section + word) > held.number;
            match &held.slow {
                Some(slow) => slow.release.is_none_or(|release| reached(release.0)),
                None => plan_releases.iter().all(|word| reached(*word)),
            }
        })
    }

    /// The first of the held casts that are in order, if its release has come.
    pub(crate) fn next_in_order(&mut self) -> Option<Ordered> {
        let Core { order, slots, services, .. } = &mut self.core;
        let services = (*services)?;
        let next =
            order.take_ordered(|held| services.may_go(slots, held.origin, held.number, held.agreed))?;
        if next.agreed {
            services.goes_agreed(slots, next.origin, next.number);
        }
        // Whoever kept its turn for an answer to one of them has none to give any more.
        self.core.prompt_wanted |= self.core.order.is_clear();
        Some(next)
    }

    /// A copy for the shadow and the explorer.
    pub(crate) fn fork(&self) -> Engine {
        let layers = self.layers.iter().map(|layer| layer.fork()).collect();
        Engine { core: self.core.fork(), layers, posting: self.posting.fork() }
    }

    /// Whether all is so in `other` that plan and layers must agree on.
    pub(crate) fn agrees(&self, other: &Engine) -> bool {
        let rest = |engine: &Engine| {
            let mut hasher = Hasher64::new(0x6469_6765_7374_0001);
            engine.core.digest(&mut hasher);
            engine.layers.iter().for_each(|layer| layer.digest(&mut hasher));
            hasher.finish()
        };
        self.core.slots_agree(&other.core) && rest(self) == rest(other)
    }
}
