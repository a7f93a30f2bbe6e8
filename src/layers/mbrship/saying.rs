//! What members of a view say to each other: reliable messages, in as many parts as frames it takes.
//!
//! A message waits here until there is a frame for each of its parts and room among what is not acknowledged yet. Each part begins
//! with a byte that says whether more of its message follow.

use std::collections::VecDeque;

use super::Mbrship;
use super::message::Inside;
use crate::id::{Rank, RankSet};
use crate::stack::layer::Context;
use crate::wire::outside::LETTER_BYTES_MAX;

/// Messages on their way to one member, in parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsaid {
    messages: VecDeque<Vec<u8>>,
    /// Bytes of the first that have been sent.
    at: usize,
}

impl Unsaid {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn extend(&mut self, message: &[u8]) {
        self.messages.push_back(message.to_vec());
    }

    /// The next part of at most `room` bytes, and whether more of its message follow it.
    fn next(&self, room: usize) -> (bool, &[u8]) {
        let rest = self.messages.front().map_or(&[][..], |message| &message[self.at..]);
        (rest.len() > room, &rest[..rest.len().min(room)])
    }

    /// The next `length` bytes have been sent.
    fn sent(&mut self, length: usize) {
        self.at += length;
        if self.messages.front().is_some_and(|message| message.len() == self.at) {
            self.messages.pop_front();
            self.at = 0;
        }
    }
}

impl Mbrship {
    /// Sends a message to members, in as many parts as it takes; each begins with whether more follow.
    pub(super) fn say(&mut self, context: &mut Context<'_>, to: RankSet, message: &Inside) {
        let bytes = message.encode();
        for peer in to.iter().filter(|peer| !self.failed.contains(*peer)) {
            self.unsaid[peer.index()].extend(&bytes[..]);
        }
        self.say_on(context);
    }

    /// Sends what has not been sent yet, as far as there is room.
    pub(super) fn say_on(&mut self, context: &mut Context<'_>) {
        for peer in (0..self.unsaid.len()).map(Rank::at) {
            while !self.unsaid[peer.index()].is_empty() {
                let Ok(mut body) = context.control_frame() else {
                    context.count("membership message waits for a frame");
                    return;
                };
                let (more, part) = self.unsaid[peer.index()].next(body.room() - 1);
                body.extend(&[u8::from(more)]).expect("a frame holds a byte");
                body.extend(part).expect("the room was counted");
                let length = part.len();
                if context.send_reliable(RankSet::one(peer), body).is_err() {
                    break;
                }
                self.unsaid[peer.index()].sent(length);
            }
        }
    }

    /// Puts the parts of a message together; `None` until it is whole.
    pub(super) fn whole(
        &mut self,
        context: &mut Context<'_>,
        origin: Rank,
        payload: &[u8],
    ) -> Option<Inside> {
        let parts = &mut self.parts[origin.index()];
        let (more, bytes) = match payload.split_first() {
            Some((0, bytes)) => (false, bytes),
            Some((1, bytes)) if parts.len() + bytes.len() <= LETTER_BYTES_MAX => (true, bytes),
            _ => {
                parts.clear();
                context.count("membership message that does not decode");
                return None;
            }
        };
        parts.extend_from_slice(bytes);
        if more {
            return None;
        }
        let message = Inside::decode(&std::mem::take(parts), context.view().size());
        let message = message.ok().filter(|message| self.is_plausible(message.latest()));
        if message.is_none() {
            context.count("membership message that does not decode");
        }
        message
    }
}
