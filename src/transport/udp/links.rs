//! Open channels by their ids. Ids are never used twice, so that one that is closed cannot be mistaken for another;
//! what they stand for is found without a search, in as many places as were ever in use at once.

use super::Link;
use crate::transport::{ChannelId, TransportError};

/// Bits of an id that tell the place; the rest tells how often the place has been used.
const PLACE_BITS: u32 = 10;
const PLACES_MAX: usize = 1 << PLACE_BITS;
/// A place is given up after so many uses; the last id of all is never given out: it is [`ChannelId::OUTSIDE`].
const USES_MAX: u32 = (1 << (32 - PLACE_BITS)) - 1;

#[derive(Default)]
pub(super) struct Links {
    places: Vec<Place>,
}

#[derive(Default)]
struct Place {
    /// How often it has been used before.
    uses: u32,
    link: Option<Link>,
}

impl Links {
    /// The id that the next link is to be put under.
    pub(super) fn vacant(&mut self) -> Result<ChannelId, TransportError> {
        let vacant = |place: &Place| place.link.is_none() && place.uses < USES_MAX;
        let at = match self.places.iter().position(vacant) {
            Some(at) => at,
            None if self.places.len() < PLACES_MAX => {
                self.places.push(Place::default());
                self.places.len() - 1
            }
            None => {
                let what = "another channel of this transport".into();
                let remedy = "close channels, or make another transport".into();
                return Err(TransportError::NoSpace { what, bytes: 0, remedy });
            }
        };
        Ok(ChannelId(self.places[at].uses << PLACE_BITS | at as u32))
    }

    pub(super) fn put(&mut self, id: ChannelId, link: Link) {
        let place = &mut self.places[place(id)];
        debug_assert!(place.link.is_none() && place.uses == uses(id));
        place.link = Some(link);
    }

    #[inline]
    pub(super) fn get(&self, id: ChannelId) -> Option<&Link> {
        let place = self.places.get(place(id)).filter(|place| place.uses == uses(id));
        place.and_then(|place| place.link.as_ref())
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Link> {
        let place = self.places.get_mut(place(id)).filter(|place| place.uses == uses(id));
        place.and_then(|place| place.link.as_mut())
    }

    pub(super) fn take(&mut self, id: ChannelId) -> Option<Link> {
        let place = self.places.get_mut(place(id)).filter(|place| place.uses == uses(id))?;
        let link = place.link.take()?;
        place.uses += 1;
        Some(link)
    }

    /// How many places there are, in use or not.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }
}

#[inline]
fn place(id: ChannelId) -> usize {
    id.0 as usize & (PLACES_MAX - 1)
}

#[inline]
fn uses(id: ChannelId) -> u32 {
    id.0 >> PLACE_BITS
}
