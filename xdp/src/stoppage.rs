//! What the system says when it cannot send at all.

use std::io;
use std::time::{Duration, Instant};

/// Why the system did not send. Frames stay in the ring, whose room is then soon used up; the system is asked again
/// after a while only, not by one vain call per iteration.
#[derive(Debug, Default)]
pub(crate) struct Stoppage {
    last: Option<io::Error>,
    times: u64,
    /// Not to be asked before then; none when it sent the last time.
    next: Option<Instant>,
}

/// Between two questions whether it sends again.
const PAUSE: Duration = Duration::from_millis(1);

impl Stoppage {
    /// Whether the system need not be asked yet.
    #[inline]
    pub(crate) fn rests(&self) -> bool {
        self.next.is_some_and(|next| Instant::now() < next)
    }

    /// Takes note of an answer.
    #[inline]
    pub(crate) fn learn(&mut self, answer: io::Result<()>) {
        match answer {
            Ok(()) => self.next = None,
            Err(error) => self.add(error),
        }
    }

    #[cold]
    fn add(&mut self, error: io::Error) {
        // No room now, in the socket or in the device's queue.
        if let Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) =
            error.raw_os_error()
        {
            self.next = None;
            return;
        }
        self.last = Some(error);
        self.times += 1;
        self.next = Some(Instant::now() + PAUSE);
    }

    /// Changes with the note.
    pub(crate) fn digest(&self) -> u64 {
        self.about() << 1 | u64::from(self.next.is_some())
    }

    /// How often something was refused, to a power of two: what is told again is worth being told.
    fn about(&self) -> u64 {
        1 << self.times.max(1).ilog2()
    }

    /// One line, if anything was ever refused.
    pub(crate) fn note(&self, interface: &str) -> Option<String> {
        let error = self.last.as_ref()?;
        let now = if self.next.is_some() { "does not send" } else { "sends again, but did not" };
        let remedy = match error.raw_os_error() {
            Some(libc::ENETDOWN) => format!("bring it up with `ip link set dev {interface} up`"),
            Some(libc::ENXIO | libc::ENODEV) => {
                "it was removed: start the process anew when it is back".into()
            }
            _ => format!("see `ip -s link show dev {interface}` and the kernel's log"),
        };
        Some(format!(
            "interface `{interface}` {now} ({error}; asked {} times or more): {remedy}",
            self.about()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_not_told_and_what_stays_is_told_in_one_line() {
        let mut stoppage = Stoppage::default();
        for passing in [libc::EAGAIN, libc::EBUSY, libc::ENOBUFS] {
            stoppage.learn(Err(io::Error::from_raw_os_error(passing)));
            assert!(!stoppage.rests() && stoppage.note("lan0").is_none());
        }
        for _ in 0..3 {
            stoppage.learn(Err(io::Error::from_raw_os_error(libc::ENETDOWN)));
        }
        let note = stoppage.note("lan0").unwrap();
        assert!(note.contains("2 times or more") && note.contains("`ip link set dev lan0 up`"), "{note}");
        let mut told = vec![note];
        for _ in 0..97 {
            stoppage.learn(Err(io::Error::from_raw_os_error(libc::ENETDOWN)));
            let (note, digest) = (stoppage.note("lan0").unwrap(), stoppage.digest());
            if told.last() != Some(&note) {
                told.push(note);
            }
            assert_eq!(digest, stoppage.digest());
        }
        assert_eq!(told.len(), 6, "2, 4, 8, 16, 32, 64: {told:?}");
        stoppage.learn(Ok(()));
        assert!(!stoppage.rests() && stoppage.note("lan0").unwrap().contains("sends again"));
    }
}
