//! When driver loops run next.

/// By process: when its driver loop runs next, or never. There are few processes, and these times change all the time: they
/// are not worth a place on the agenda.
pub(crate) struct Wakes {
    due: Vec<u64>,
    /// The first of the earliest, if that is known.
    next: Option<(u64, usize)>,
}

/// Of a driver loop that nothing wakes.
pub(crate) const NEVER: u64 = u64::MAX;

impl Wakes {
    pub(crate) fn new(processes: usize) -> Wakes {
        Wakes { due: vec![NEVER; processes], next: None }
    }

    /// When `process` runs next.
    pub(crate) fn due(&self, process: usize) -> u64 {
        self.due[process]
    }

    /// `process` runs next at that time.
    pub(crate) fn set(&mut self, process: usize, at: u64) {
        self.due[process] = at;
        match self.next {
            Some((_, next)) if next == process => self.next = None,
            Some(next) if (at, process) < next => self.next = Some((at, process)),
            _ => {}
        }
    }

    /// `process` runs at that time, if it does not run before.
    pub(crate) fn set_sooner(&mut self, process: usize, at: u64) {
        if at < self.due[process] {
            self.set(process, at);
        }
    }

    /// Who runs next, and when; if that is never, it may be anybody.
    pub(crate) fn next(&mut self) -> (u64, usize) {
        let Wakes { due, next } = self;
        *next.get_or_insert_with(|| {
            let all = due.iter().enumerate();
            all.fold((NEVER, 0), |next, (process, at)| if *at < next.0 { (*at, process) } else { next })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn next_is_the_first_of_the_earliest_whatever_was_set() {
        let mut random = Random::new(3, "wakes");
        let mut wakes = Wakes::new(5);
        let mut due = [NEVER; 5];
        for _ in 0..10_000 {
            let (process, at) = (random.below(5) as usize, random.below(20));
            match random.below(3) {
                0 => {
                    wakes.set(process, NEVER);
                    due[process] = NEVER;
                }
                1 => {
                    wakes.set(process, at);
                    due[process] = at;
                }
                _ => {
                    wakes.set_sooner(process, at);
                    due[process] = due[process].min(at);
                }
            }
            if random.below(2) == 0 {
                let first = due.iter().copied().zip(0..).min().unwrap();
                assert_eq!(wakes.next(), first);
                assert_eq!(wakes.due(process), due[process]);
            }
        }
    }
}
