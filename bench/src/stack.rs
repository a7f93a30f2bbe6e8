//! The workload as the application of an endpoint.

use wadjet::endpoint::GroupKey;
use wadjet::group::{Application, CastError, Delivery, Event, Group, Reservation};
use wadjet::runtime::Driver;
use wadjet::transport::Transport;

use crate::party::{Account, FastPath, Party};
use crate::workload::{Goal, Outlet, Workload};

/// The workload, upcalled.
#[derive(Debug)]
pub struct BenchApplication {
    /// The traffic.
    pub workload: Workload,
    /// What became of the group, if it is not what it was at the start: members are measured that are all there.
    pub trouble: Option<String>,
    /// Whether it casts what is agreed, where it could be safe.
    pub agreed: bool,
}

impl Application for BenchApplication {
    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        let trouble = match event {
            Event::View(view) if view.size() < self.workload.members() => {
                format!("the group lost members: of {} there are {}", self.workload.members(), view.size())
            }
            Event::Exit(reason) => {
                format!("member {} is no longer in the group: {reason}", group.view().rank())
            }
            _ => return,
        };
        self.trouble.get_or_insert(trouble);
    }

    #[inline]
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let mut door = Door { group, agreed: self.agreed };
        let origin = delivery.origin();
        for message in delivery.messages() {
            self.workload.message(origin, message, &mut door);
        }
    }
}

/// A group to cast into: straight into a frame, without a copy.
struct Door<'a, 'g> {
    group: &'a mut Group<'g>,
    agreed: bool,
}

impl Outlet for Door<'_, '_> {
    /// Inlined, so that the message's stamp comes in registers: written to memory in two stores and read from there by one load,
    /// it would wait for all stores before it, also those to lines that the reader has.
    #[inline(always)]
    fn cast(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let written = match self.agreed {
            true => write(self.group.agreed().reserve(length), fill),
            false => write(self.group.reserve(length), fill),
        };
        written.unwrap_or_else(|fill| self.cast_large(length, fill))
    }
}

/// Whether the message was written where there is room for it, and cast; `fill` again if no frame has so much.
#[inline(always)]
fn write<const AGREED: bool, F: FnOnce(&mut [u8])>(
    room: Result<Reservation<'_, AGREED>, CastError>,
    fill: F,
) -> Result<bool, F> {
    match room {
        Ok(mut reservation) => {
            fill(&mut reservation);
            reservation.commit();
            Ok(true)
        }
        Err(CastError::BeyondFrame { .. }) => Err(fill),
        Err(_) => Ok(false),
    }
}

impl Door<'_, '_> {
    /// A message larger than a frame is written into memory of its own, which the stack keeps until it has gone.
    #[cold]
    fn cast_large(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        if !self.group.writable() {
            return false;
        }
        let mut message = vec![0; length];
        fill(&mut message);
        let taken = match self.agreed {
            true => self.group.agreed().cast_buffer(message),
            false => self.group.cast_buffer(message),
        };
        taken.is_ok()
    }
}

/// A member with a stack.
pub struct StackParty<T: Transport> {
    /// Its driver.
    pub driver: Driver<T, BenchApplication>,
    /// Its group.
    pub key: GroupKey,
}

impl<T: Transport> Party for StackParty<T> {
    #[inline]
    fn step(&mut self) {
        let (mut group, application) = self.driver.member_mut().split(self.key);
        let agreed = application.agreed;
        application.workload.produce(&mut Door { group: &mut group, agreed });
        self.driver.run_once();
    }

    fn workload(&self) -> &Workload {
        &self.driver.application().workload
    }

    fn begin(&mut self, goal: Goal) {
        self.driver.resume();
        self.driver.application_mut().workload.begin(goal);
    }

    fn pace(&mut self, rate: f64) {
        self.driver.application_mut().workload.pace(rate);
    }

    fn account(&self) -> Account {
        let stats = self.driver.stats(self.key);
        let fast = stats.fast_path;
        let mut transport = Account::of_transport(self.driver.transport_counters());
        let dropped = self.driver.dropped().by_reason().into_iter().filter(|(_, count)| *count > 0);
        transport.dropped.extend(dropped.map(|(why, count)| (why.to_owned(), count)));
        Account {
            fast_path: FastPath {
                send_hit: fast.send_hit,
                send_miss: fast.send_miss,
                deliver_hit: fast.deliver_hit,
                deliver_early: fast.deliver_early,
                deliver_miss: fast.deliver_miss,
            },
            misses: stats
                .misses
                .iter()
                .map(|miss| (format!("{} missed at {}: {}", miss.plan, miss.layer, miss.reason), miss.count))
                .collect(),
            header_bytes: stats.header_bytes,
            cast_frames: stats.cast_frames,
            copies: transport.copies + stats.copies,
            pauses: self.driver.loop_stats().pauses,
            ..transport
        }
    }

    fn crowded(&self) -> bool {
        self.driver.inner().crowded()
    }

    fn trouble(&self) -> Option<String> {
        self.driver.application().trouble.clone()
    }
}
