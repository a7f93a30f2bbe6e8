//! Waking a driver that blocks in [`super::Transport::wait`] from another thread: for whoever writes a transport.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

use super::TransportError;

/// A descriptor that becomes readable when somebody wakes the sleeper. One thread sleeps; any thread wakes.
///
/// Waking somebody who is awake costs one atomic exchange and no system call, and is not forgotten: his next sleep
/// ends at once.
#[derive(Debug)]
pub struct Alarm {
    descriptor: OwnedFd,
    state: AtomicU32,
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const WOKEN: u32 = 2;

impl Alarm {
    /// An alarm that has not gone off.
    ///
    /// # Errors
    /// [`TransportError::Io`] if the system gives no descriptor.
    pub fn new() -> Result<Arc<Alarm>, TransportError> {
        // SAFETY: no pointers are passed.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(TransportError::Io {
                what: "cannot make an event descriptor; raise the limit on open files (ulimit -n)".into(),
                source: std::io::Error::last_os_error(),
            });
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Arc::new(Alarm { descriptor, state: AtomicU32::new(AWAKE) }))
    }

    /// To be polled for reading between [`Alarm::doze`] and [`Alarm::rise`].
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Wakes the sleeper, from any thread.
    pub fn waker(self: &Arc<Alarm>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Whether the caller may go to sleep; if not, he was woken already.
    pub fn doze(&self) -> bool {
        let before = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
        if before.is_err() {
            self.state.store(AWAKE, Ordering::SeqCst);
        }
        before.is_ok()
    }

    /// Ends the sleep; `readable` says whether the descriptor was. Returns how many system calls that took.
    pub fn rise(&self, readable: bool) -> u64 {
        self.state.store(AWAKE, Ordering::SeqCst);
        if !readable {
            return 0;
        }
        let mut count = 0_u64;
        // SAFETY: eight bytes of a live local are written at most. That nothing may be there to read is no matter.
        unsafe { libc::read(self.descriptor(), (&raw mut count).cast(), 8) };
        1
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Alarm>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Alarm>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            let one = 1_u64;
            // SAFETY: eight bytes of a live local are read. It fails only if the counter is full, and then the
            // descriptor is readable already.
            unsafe { libc::write(self.descriptor(), (&raw const one).cast(), 8) };
        }
    }
}
