//! The ring itself: made with what the kernel has, entered, drained.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use crate::transport::TransportError;

/// A submission and a completion queue of this thread.
pub(super) struct Ring {
    ring: IoUring,
    /// Under which number the kernel knows the ring itself, if it does.
    own: Option<u32>,
    /// Entries queued and not taken by the kernel.
    queued: u32,
    sends_to_addresses: bool,
    notes: Vec<String>,
}

/// `IORING_ENTER_GETEVENTS` and `IORING_ENTER_REGISTERED_RING`.
const GET_EVENTS: u32 = 1 << 0;
const REGISTERED_RING: u32 = 1 << 4;
/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING_FDS: u32 = 20;

impl Ring {
    /// A ring of `entries` entries, with places for `files` registered files.
    pub(super) fn new(entries: u32, files: u32) -> Result<Ring, TransportError> {
        let (ring, mut notes) = build(entries)?;
        let mut probe = io_uring::Probe::new();
        let probed = ring.submitter().register_probe(&mut probe).is_ok();
        let needed = [
            (opcode::RecvMsg::CODE, "to receive"),
            (opcode::SendMsg::CODE, "to send"),
            (opcode::PollAdd::CODE, "to wait for the waker"),
            (opcode::AsyncCancel::CODE, "to cancel"),
        ];
        for (code, what) in needed {
            if !probed || !probe.is_supported(code) {
                return Err(too_old(&format!("it cannot be asked {what}")));
            }
        }
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(too_old("a wait has no time-out there, or completions may be lost"));
        }
        // Sends to an address came together with zero-copy sends, which can be asked for.
        let sends_to_addresses = probe.is_supported(opcode::SendZc::CODE);
        if !sends_to_addresses {
            notes.push("no plain sends to addresses (Linux 6.0): every send is a sendmsg".into());
        }
        if ring.submitter().register_files_sparse(files).is_err() {
            let none = vec![-1; files as usize];
            ring.submitter().register_files(&none).map_err(|error| refusal("register sockets", error))?;
        }
        let own = register_self(&ring);
        if own.is_none() {
            notes.push(
                "the ring's descriptor cannot be registered (Linux 5.18): every call looks it up".into(),
            );
        }
        Ok(Ring { ring, own, queued: 0, sends_to_addresses, notes })
    }

    /// Has the kernel know a file under a number, or none of that number any more.
    pub(super) fn register_file(&mut self, at: u32, file: RawFd) -> Result<(), TransportError> {
        let updated = self.ring.submitter().register_files_update(at, &[file]);
        updated.map(drop).map_err(|error| refusal("register a socket", error))
    }

    pub(super) fn sends_to_addresses(&self) -> bool {
        self.sends_to_addresses
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Queues an entry, if there is room.
    ///
    /// # Safety
    /// What the entry points at stays where it is until its completion was seen.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: as the caller promised.
        let pushed = unsafe { self.ring.submission().push(entry) }.is_ok();
        self.queued += u32::from(pushed);
        pushed
    }

    /// Whether the kernel has something to finish in the next [`Ring::enter`]. Costs no system call.
    #[inline]
    pub(super) fn must_enter(&mut self) -> bool {
        let submission = self.ring.submission();
        self.queued > 0 || submission.taskrun() || submission.cq_overflow()
    }

    /// Submits what is queued, runs what the kernel has deferred, and waits for completions, if for any. What it refuses
    /// for a passing reason stays queued.
    #[inline]
    pub(super) fn enter(&mut self, wait_for: u32) {
        let (descriptor, registered) = match self.own {
            Some(own) => (own as i32, REGISTERED_RING),
            None => (self.ring.as_raw_fd(), 0),
        };
        let flags = GET_EVENTS | registered;
        let none: *const libc::sigset_t = std::ptr::null();
        // SAFETY: the ring is open, and its entries point at what is live (`push`); there is no argument.
        let taken = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, descriptor, self.queued, wait_for, flags, none, 0_usize)
        };
        if taken > 0 {
            self.queued -= taken as u32;
        }
    }

    /// As [`Ring::enter`], until something completes or the time is over.
    pub(super) fn wait(&mut self, timeout: Duration) {
        let time = types::Timespec::new().sec(timeout.as_secs().min(1 << 30)).nsec(timeout.subsec_nanos());
        let arguments = types::SubmitArgs::new().timespec(&time);
        if let Ok(taken) = self.ring.submitter().submit_with_args(1, &arguments) {
            self.queued -= taken as u32;
        } else {
            // The time was over, or a signal came: what was queued may have been taken all the same.
            self.queued = self.ring.submission().len() as u32;
        }
    }

    /// Tells user data and result of everything that is done.
    #[inline]
    pub(super) fn completions(&mut self, mut tell: impl FnMut(u64, i32)) {
        for completion in self.ring.completion() {
            tell(completion.user_data(), completion.result());
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ring").field("queued", &self.queued).finish_non_exhaustive()
    }
}

/// The best ring that the kernel gives, and what is missing.
fn build(entries: u32) -> Result<(IoUring, Vec<String>), TransportError> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_submit_all().setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
    builder.setup_taskrun_flag();
    match builder.build(entries) {
        Ok(ring) => return Ok((ring, Vec::new())),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) => return Err(refusal("make a ring", error)),
    }
    let mut notes =
        vec!["no SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1): completions interrupt this thread".to_owned()];
    let mut builder = IoUring::builder();
    match builder.dontfork().setup_submit_all().setup_coop_taskrun().setup_taskrun_flag().build(entries) {
        Ok(ring) => return Ok((ring, notes)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) => return Err(refusal("make a ring", error)),
    }
    notes.push("no SUBMIT_ALL and COOP_TASKRUN (Linux 5.19)".to_owned());
    match IoUring::builder().dontfork().build(entries) {
        Ok(ring) => Ok((ring, notes)),
        Err(error) => Err(refusal("make a ring", error)),
    }
}

/// Has the kernel know the ring by a number, which saves it looking the descriptor up in every call.
fn register_self(ring: &IoUring) -> Option<u32> {
    #[repr(C)]
    struct Update {
        offset: u32,
        reserved: u32,
        data: u64,
    }
    let mut update = Update { offset: u32::MAX, reserved: 0, data: ring.as_raw_fd() as u64 };
    // SAFETY: one live structure of the layout that this operation takes, which it writes the number to.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_RING_FDS,
            &raw mut update,
            1_u32,
        )
    };
    (registered == 1).then_some(update.offset)
}

fn too_old(why: &str) -> TransportError {
    let remedy = "use Linux 5.19 or later (6.1 for all of it), or the udp transport".into();
    TransportError::Permission { what: format!("io_uring: this kernel's is too old, {why}"), remedy }
}

/// Why the system gives no ring, and what to do.
fn refusal(what: &str, error: io::Error) -> TransportError {
    let told =
        |what: &str, remedy: &str| TransportError::Permission { what: what.into(), remedy: remedy.into() };
    match error.raw_os_error() {
        Some(libc::ENOSYS) => told(
            "io_uring: this kernel has none, or a filter hides it",
            "use Linux 5.19 or later, allow io_uring in the container's seccomp profile, or use the udp transport",
        ),
        Some(libc::EPERM | libc::EACCES) => told(
            "io_uring: it is disabled here",
            "set `sysctl kernel.io_uring_disabled=0` (1 allows the group of kernel.io_uring_group alone), allow it in \
             the container's seccomp profile, or use the udp transport",
        ),
        Some(libc::ENOMEM) => TransportError::NoSpace {
            what: "the rings of io_uring".into(),
            bytes: 64 << 10,
            remedy: "raise the limit on locked memory (`ulimit -l`) or give the process CAP_IPC_LOCK".into(),
        },
        Some(libc::EMFILE | libc::ENFILE) => TransportError::Io {
            what: format!("cannot {what} with io_uring; raise the limit on open files (ulimit -n)"),
            source: error,
        },
        _ => TransportError::Io { what: format!("cannot {what} with io_uring"), source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has `io_uring_setup` fail with `error` in the calling thread, as a container's profile or an old kernel does.
    fn forbid(error: u32) {
        let statement =
            |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        let filter = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | error),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program is live and of the length given; it concerns this thread alone.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
            assert_eq!(set, 0);
        }
    }

    fn refused_with(error: i32) -> String {
        let thread = std::thread::spawn(move || {
            forbid(error as u32);
            Ring::new(8, 4).map(drop).unwrap_err().to_string()
        });
        thread.join().unwrap()
    }

    #[test]
    fn without_a_ring_the_error_says_what_to_do() {
        let disabled = refused_with(libc::EPERM);
        assert!(disabled.contains("sysctl kernel.io_uring_disabled=0"), "{disabled}");
        let missing = refused_with(libc::ENOSYS);
        assert!(missing.contains("Linux 5.19 or later"), "{missing}");
        let locked = refused_with(libc::ENOMEM);
        assert!(locked.contains("ulimit -l"), "{locked}");
        let files = refused_with(libc::EMFILE);
        assert!(files.contains("ulimit -n"), "{files}");
    }

    #[test]
    fn what_is_queued_is_done_and_told_once() {
        let mut ring = Ring::new(8, 4).unwrap();
        for round in 0..5_u64 {
            for at in 0..8 {
                let entry = opcode::Nop::new().build().user_data(8 * round + at);
                // SAFETY: the entry points at nothing.
                assert!(unsafe { ring.push(&entry) });
            }
            let one_too_many = opcode::Nop::new().build();
            // SAFETY: as above.
            assert!(!unsafe { ring.push(&one_too_many) });
            ring.enter(8);
            let mut told = Vec::new();
            ring.completions(|data, result| told.push((data, result)));
            let expected: Vec<_> = (8 * round..8 * round + 8).map(|data| (data, 0)).collect();
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_wait_in_which_nothing_happens_ends_in_time() {
        let mut ring = Ring::new(8, 4).unwrap();
        let start = std::time::Instant::now();
        ring.wait(Duration::from_millis(5));
        let passed = start.elapsed();
        assert!(passed >= Duration::from_millis(4) && passed < Duration::from_secs(5), "{passed:?}");
    }
}
