//! A history, sorted by what properties ask for. Built in one pass; properties only read it.

use std::collections::BTreeMap;

use crate::history::{Content, History, Incarnation, Measure, MessageName, Traffic, ViewId, What};
use crate::quick::QuickMap;

/// Everything of one incarnation, in the order in which it happened to it.
pub(crate) struct Life {
    pub(crate) incarnation: Incarnation,
    /// The event that started it; none if the history forgot.
    pub(crate) start: Option<usize>,
    /// The event that ended it: crash or exit.
    pub(crate) end: Option<usize>,
    /// Its regular views, each with the deliveries in it.
    pub(crate) stays: Vec<Stay>,
    /// The views that its endpoint was in, in order: those of its stays, and those it passed without the state.
    pub(crate) way: Vec<ViewId>,
    /// The states it had when views were installed.
    pub(crate) states: Vec<State>,
    /// Its casts; `casts[n - 1]` is number n unless the history is malformed (property `numbering`).
    pub(crate) casts: Vec<Issued>,
    /// By view: which of its casts were issued in it, as places in `casts`.
    pub(crate) casts_by_view: QuickMap<ViewId, Vec<usize>>,
    /// Its sends, likewise.
    pub(crate) sends: Vec<Issued>,
    /// Sends that it was told may be lost: of which view, and to whom.
    pub(crate) losses: Vec<(ViewId, Incarnation)>,
    /// What happened before its first view.
    pub(crate) homeless: Vec<usize>,
    /// What happened after its end, or before its start.
    pub(crate) lifeless: Vec<usize>,
    /// Casts it acknowledged.
    pub(crate) seen: Vec<Seen>,
    /// Stability it was told of.
    pub(crate) reports: Vec<Report>,
}

/// A member's time in one regular view.
pub(crate) struct Stay {
    /// The event that began it.
    pub(crate) event: usize,
    pub(crate) view: ViewId,
    /// Transitional views installed at its end, by event.
    pub(crate) transitional: Vec<usize>,
    pub(crate) casts: Vec<Delivered>,
    pub(crate) sends: Vec<Delivered>,
}

/// What a member's application had when a view was installed.
pub(crate) struct State {
    pub(crate) event: usize,
    pub(crate) view: ViewId,
    pub(crate) line: u64,
    pub(crate) digest: u64,
}

/// A message that a member issued.
pub(crate) struct Issued {
    pub(crate) event: usize,
    pub(crate) sequence: u64,
    pub(crate) content: Content,
    /// The view it was issued in, by the event or by `CastPlaced`.
    pub(crate) view: Option<ViewId>,
    /// The regular view its origin was in when it was issued.
    pub(crate) current: Option<ViewId>,
    /// Whether it is an agreed cast among safe ones.
    pub(crate) agreed: bool,
}

/// A message that a member delivered.
#[derive(Clone, Copy)]
pub(crate) struct Delivered {
    pub(crate) event: usize,
    pub(crate) origin: Incarnation,
    pub(crate) sequence: u64,
    pub(crate) content: Content,
    /// The view as the endpoint says; the stay says which it was in.
    pub(crate) view: ViewId,
    /// The index of the origin's life; none if nobody of that name ever lived.
    pub(crate) life: Option<usize>,
}

/// An acknowledgement.
pub(crate) struct Seen {
    pub(crate) event: usize,
    pub(crate) origin: Incarnation,
    pub(crate) through: u64,
    /// The view its member was in.
    pub(crate) view: ViewId,
}

/// A stability report.
pub(crate) struct Report {
    pub(crate) event: usize,
    pub(crate) measure: Measure,
    pub(crate) origin: Incarnation,
    pub(crate) through: u64,
    pub(crate) members: u32,
    /// The view its member was in.
    pub(crate) view: ViewId,
}

pub(crate) struct Index<'a> {
    pub(crate) history: &'a History,
    pub(crate) lives: Vec<Life>,
    numbers: QuickMap<Incarnation, usize>,
    /// Views by id, with their members as first installed, and every event that installed them.
    pub(crate) views: BTreeMap<ViewId, (Vec<Incarnation>, Vec<usize>)>,
    /// Members of views that somebody passed without the state.
    passed: BTreeMap<ViewId, Vec<Incarnation>>,
}

impl<'a> Index<'a> {
    pub(crate) fn of(history: &'a History) -> Index<'a> {
        let mut index = Index {
            history,
            lives: Vec::new(),
            numbers: QuickMap::default(),
            views: BTreeMap::new(),
            passed: BTreeMap::new(),
        };
        for event in &history.events {
            if !index.numbers.contains_key(&event.member) {
                index.numbers.insert(event.member, index.lives.len());
                index.lives.push(Life::new(event.member));
            }
        }
        let mut at_life = (Incarnation(u64::MAX), 0);
        for (at, event) in history.events.iter().enumerate() {
            if event.member != at_life.0 || at == 0 {
                at_life = (event.member, index.numbers[&event.member]);
            }
            match &event.what {
                What::View { view, members, transitional: false } => {
                    let known = index.views.entry(*view).or_insert_with(|| (members.clone(), Vec::new()));
                    known.1.push(at);
                }
                What::Passed { view, members } => {
                    index.passed.entry(*view).or_insert_with(|| members.clone());
                }
                _ => {}
            }
            let numbers = &index.numbers;
            index.lives[at_life.1].take(at, &event.what, numbers);
        }
        for life in &mut index.lives {
            for (at, cast) in life.casts.iter().enumerate() {
                if let Some(view) = cast.view {
                    life.casts_by_view.entry(view).or_default().push(at);
                }
            }
        }
        index
    }

    /// The life of `incarnation`.
    pub(crate) fn life(&self, incarnation: Incarnation) -> Option<&Life> {
        self.numbers.get(&incarnation).map(|number| &self.lives[*number])
    }

    /// The members of a view that somebody installed, or passed without the state.
    pub(crate) fn members(&self, view: ViewId) -> &[Incarnation] {
        let installed = self.views.get(&view).map(|(members, _)| members);
        installed.or_else(|| self.passed.get(&view)).map_or(&[], Vec::as_slice)
    }

    /// The message that was delivered, if its origin ever issued it.
    pub(crate) fn issued(&self, traffic: Traffic, delivered: &Delivered) -> Option<&Issued> {
        self.lives[delivered.life?].issued(traffic, delivered.sequence)
    }
}

impl Life {
    fn new(incarnation: Incarnation) -> Life {
        Life {
            incarnation,
            start: None,
            end: None,
            stays: Vec::new(),
            way: Vec::new(),
            states: Vec::new(),
            casts: Vec::new(),
            casts_by_view: QuickMap::default(),
            sends: Vec::new(),
            losses: Vec::new(),
            homeless: Vec::new(),
            lifeless: Vec::new(),
            seen: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// The cast or send of that number.
    pub(crate) fn issued(&self, traffic: Traffic, sequence: u64) -> Option<&Issued> {
        let issued = match traffic {
            Traffic::Cast => &self.casts,
            Traffic::Send => &self.sends,
        };
        let at = usize::try_from(sequence.checked_sub(1)?).ok()?;
        issued.get(at).filter(|message| message.sequence == sequence)
    }

    /// Whether it neither crashed nor exited.
    pub(crate) fn lives(&self) -> bool {
        self.end.is_none()
    }

    /// The view its endpoint was in after `view`.
    pub(crate) fn after(&self, view: ViewId) -> Option<ViewId> {
        let at = self.way.iter().position(|passed| *passed == view)?;
        self.way.get(at + 1).copied()
    }

    /// The view its endpoint was in before `view`.
    pub(crate) fn before(&self, view: ViewId) -> Option<ViewId> {
        let at = self.way.iter().position(|passed| *passed == view)?;
        self.way.get(at.checked_sub(1)?).copied()
    }

    /// Whether it was in `view` and its application never heard of it.
    pub(crate) fn passed(&self, view: ViewId) -> bool {
        self.way.contains(&view) && !self.stays.iter().any(|stay| stay.view == view)
    }

    pub(crate) fn name(&self, traffic: Traffic, sequence: u64) -> MessageName {
        MessageName { traffic, origin: self.incarnation, sequence }
    }

    fn take(&mut self, at: usize, what: &What, numbers: &QuickMap<Incarnation, usize>) {
        if self.end.is_some() || (self.start.is_none() && !matches!(what, What::Start { .. })) {
            self.lifeless.push(at);
        }
        match what {
            What::Start { .. } => match self.start {
                Some(_) => self.lifeless.push(at),
                None => self.start = Some(at),
            },
            What::Crash | What::Exit { .. } => self.end = self.end.or(Some(at)),
            What::View { view, transitional: false, .. } => {
                self.way.push(*view);
                self.stays.push(Stay {
                    event: at,
                    view: *view,
                    transitional: Vec::new(),
                    casts: Vec::new(),
                    sends: Vec::new(),
                });
            }
            What::Passed { view, .. } => self.way.push(*view),
            What::State { view, line, digest } => {
                self.states.push(State { event: at, view: *view, line: *line, digest: *digest });
            }
            What::CastIssued { sequence, content, view, agreed } => {
                let current = self.stays.last().map(|stay| stay.view);
                self.casts.push(Issued {
                    event: at,
                    sequence: *sequence,
                    content: *content,
                    view: *view,
                    current,
                    agreed: *agreed,
                });
            }
            What::SendIssued { sequence, content, view, .. } => {
                let (view, current) = (Some(*view), self.stays.last().map(|stay| stay.view));
                let (sequence, content) = (*sequence, *content);
                self.sends.push(Issued { event: at, sequence, content, view, current, agreed: false });
            }
            What::CastPlaced { sequence, view } => {
                let due = usize::try_from(sequence.wrapping_sub(1)).ok();
                let due = due.filter(|at| self.casts.get(*at).is_some_and(|cast| cast.sequence == *sequence));
                let at = due.or_else(|| self.casts.iter().rposition(|cast| cast.sequence == *sequence));
                if let Some(cast) = at.map(|at| &mut self.casts[at]) {
                    cast.view = cast.view.or(Some(*view));
                }
            }
            What::CastRefused { .. } | What::SendRefused { .. } => {}
            What::View { .. }
            | What::CastDelivered { .. }
            | What::SendDelivered { .. }
            | What::SendsLost { .. }
            | What::Seen { .. }
            | What::Stable { .. } => match self.stays.last_mut() {
                None => self.homeless.push(at),
                Some(stay) => match what {
                    What::View { .. } => stay.transitional.push(at),
                    What::CastDelivered { origin, sequence, content, view } => {
                        stay.casts.push(Delivered::new(at, *origin, *sequence, *content, *view, numbers));
                    }
                    What::SendDelivered { origin, sequence, content, view } => {
                        stay.sends.push(Delivered::new(at, *origin, *sequence, *content, *view, numbers));
                    }
                    What::SendsLost { to } => self.losses.push((stay.view, *to)),
                    What::Seen { origin, through } => {
                        let view = stay.view;
                        self.seen.push(Seen { event: at, view, origin: *origin, through: *through });
                    }
                    What::Stable { measure, origin, through, members } => self.reports.push(Report {
                        event: at,
                        measure: *measure,
                        origin: *origin,
                        through: *through,
                        members: *members,
                        view: stay.view,
                    }),
                    _ => unreachable!("the arm outside names these six"),
                },
            },
        }
    }
}

impl Delivered {
    fn new(
        event: usize,
        origin: Incarnation,
        sequence: u64,
        content: Content,
        view: ViewId,
        numbers: &QuickMap<Incarnation, usize>,
    ) -> Delivered {
        Delivered { event, origin, sequence, content, view, life: numbers.get(&origin).copied() }
    }
}
