//! Open channels by their ids. Ids are never used twice, so that one that is closed cannot be mistaken for another;
//! what they stand for is found without a search, in as many places as were ever in use at once.

use super::{ChannelId, TransportError};

/// Bits of an id that tell the place; the rest tells how often the place has been used.
const PLACE_BITS: u32 = 10;
const PLACES_MAX: usize = 1 << PLACE_BITS;
/// A place is given up after so many uses; the last id of all is never given out: it is [`ChannelId::OUTSIDE`].
const USES_MAX: u32 = (1 << (32 - PLACE_BITS)) - 1;

#[derive(Debug)]
pub(super) struct Links<Link> {
    places: Vec<Place<Link>>,
}

#[derive(Debug)]
struct Place<Link> {
    /// How often it has been used before.
    uses: u32,
    link: Option<Link>,
}

impl<Link> Links<Link> {
    pub(super) const fn new() -> Links<Link> {
        Links { places: Vec::new() }
    }

    /// The id that the next link is to be put under.
    pub(super) fn vacant(&mut self) -> Result<ChannelId, TransportError> {
        let vacant = |place: &Place<Link>| place.link.is_none() && place.uses < USES_MAX;
        let at = match self.places.iter().position(vacant) {
            Some(at) => at,
            None if self.places.len() < PLACES_MAX => {
                self.places.push(Place { uses: 0, link: None });
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

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.places.iter_mut().filter_map(|place| place.link.as_mut())
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
    #[inline]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// What is at a place below [`Links::places`], and under which id.
    #[inline]
    pub(super) fn at(&self, place: usize) -> Option<(ChannelId, &Link)> {
        let Place { uses, link } = &self.places[place];
        link.as_ref().map(|link| (ChannelId(uses << PLACE_BITS | place as u32), link))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.places.iter().filter_map(|place| place.link.as_ref())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_ids_are_not() {
        let mut links: Links<u32> = Links::new();
        let mut before = Vec::new();
        for n in 0..1000 {
            let id = links.vacant().unwrap();
            links.put(id, n);
            assert!(!before.contains(&id));
            assert_eq!(links.at(0), Some((id, &n)));
            assert!(before.iter().all(|closed| links.get(*closed).is_none()));
            assert_eq!((links.get(id).copied(), links.take(id), links.take(id)), (Some(n), Some(n), None));
            before.push(id);
        }
        assert_eq!((links.places(), links.iter().count()), (1, 0));
    }
}
