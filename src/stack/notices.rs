//! Which messages layers look at. Those that a layer does not look at pass it by: an event costs a hop for each layer that
//! cares for it, and not for each layer that there is.

use super::event::{Down, Message, Up};
use super::layer::Layer;

/// Messages on their way through the layers, as layers tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    /// Casts.
    Cast,
    /// The application's sends.
    Send,
    /// Reliable control messages. The layer that one is for gets it in any case.
    Control,
    /// Best-effort messages. The layer that one is for gets it in any case.
    Raw,
    /// Numbered messages once more, and casts of others; these only go down.
    Again,
}

/// How many there are.
const FLOWS: usize = 5;

impl Flow {
    #[inline]
    fn of_down(event: &Down) -> Option<Flow> {
        match event {
            Down::Cast(_) => Some(Flow::Cast),
            Down::Send(_, message) => Some(Flow::of_send(message)),
            Down::Raw(..) => Some(Flow::Raw),
            Down::Resend(..) | Down::Forward(..) => Some(Flow::Again),
            _ => None,
        }
    }

    /// With the layer that it is for.
    #[inline]
    fn of_up(event: &Up) -> Option<(Flow, u8)> {
        match event {
            Up::Cast(_, message) => Some((Flow::Cast, message.control)),
            Up::Send(_, message) => Some((Flow::of_send(message), message.control)),
            Up::Raw(_, message) => Some((Flow::Raw, message.control)),
            _ => None,
        }
    }

    #[inline]
    fn of_send(message: &Message) -> Flow {
        if message.is_control() { Flow::Control } else { Flow::Send }
    }
}

/// What a layer looks at, besides all events that are no messages and control messages for itself. Whatever else comes to
/// it, it hands on unchanged, and that changes nothing in it or in slots: so it need not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notices {
    down: u8,
    up: u8,
}

impl Notices {
    /// Everything.
    pub const ALL: Notices = Notices { down: u8::MAX, up: u8::MAX };
    /// No messages but those for itself.
    pub const NOTHING: Notices = Notices { down: 0, up: 0 };

    /// These on their way down, too.
    pub const fn down(self, flows: &[Flow]) -> Notices {
        Notices { down: self.down | bits(flows), ..self }
    }

    /// These on their way up, too.
    pub const fn up(self, flows: &[Flow]) -> Notices {
        Notices { up: self.up | bits(flows), ..self }
    }

    /// Whether events of this flow that go down are looked at; or up.
    #[cfg(test)]
    pub(crate) fn has(self, flow: Flow, goes_up: bool) -> bool {
        (if goes_up { self.up } else { self.down }) & bits(&[flow]) != 0
    }
}

const fn bits(flows: &[Flow]) -> u8 {
    let (mut bits, mut at) = (0, 0);
    while at < flows.len() {
        bits |= 1 << flows[at] as u8;
        at += 1;
    }
    bits
}

/// Where messages go next, in one stack.
#[derive(Debug)]
pub(crate) struct Ways {
    /// By layer, and by flow: the first from there on down that looks at it.
    down: Box<[[usize; FLOWS]]>,
    /// By layer, and by flow: one more than the first above it that looks at it; zero if there is none.
    up: Box<[[usize; FLOWS]]>,
}

impl Ways {
    pub(crate) fn new(layers: &[Box<dyn Layer>]) -> Ways {
        let count = layers.len();
        let mut ways =
            Ways { down: vec![[count; FLOWS]; count + 1].into(), up: vec![[0; FLOWS]; count + 1].into() };
        for (at, layer) in layers.iter().enumerate() {
            let notices = layer.notices();
            for flow in 0..FLOWS {
                let has = |bits: u8| bits & 1 << flow != 0;
                ways.up[at + 1][flow] = if has(notices.up) { at + 1 } else { ways.up[at][flow] };
                if has(notices.down) {
                    ways.down[..=at]
                        .iter_mut()
                        .filter(|way| way[flow] == count)
                        .for_each(|way| way[flow] = at);
                }
            }
        }
        ways
    }

    /// The layer that an event comes to which goes down to `target`.
    #[inline]
    pub(crate) fn down(&self, target: usize, event: &Down) -> usize {
        match Flow::of_down(event) {
            Some(flow) => self.down.get(target).map_or(target, |way| way[flow as usize]),
            None => target,
        }
    }

    /// The layer that an event comes to which goes up from `layer`, if there is one.
    #[inline]
    pub(crate) fn up(&self, layer: usize, event: &Up) -> Option<usize> {
        let next = match Flow::of_up(event) {
            Some((flow, addressee)) => {
                let addressee = usize::from(addressee) + 1;
                self.up[layer][flow as usize].max(if addressee <= layer { addressee } else { 0 })
            }
            None => layer,
        };
        next.checked_sub(1)
    }
}
