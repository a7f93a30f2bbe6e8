//! Who made a segment, and whether that process is still there.

use std::fmt::Arguments;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

/// A process: enough to know that it has ended, also when its id has been given to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u64,
    /// Clock ticks after boot; zero if unknown.
    pub(super) start_time: u64,
    /// Both zero if unknown.
    pub(super) boot_id: (u64, u64),
    /// In which its id counts; zero if unknown.
    pub(super) namespace: u64,
    /// The thread of it that is meant.
    pub(super) thread: u64,
}

/// System calls that [`Owner::seen`] makes, about.
pub(super) const ASK_CALLS: u64 = 12;

/// How a process of this host is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It has ended. One that was killed has: it runs no instruction of its own any more, though the kernel may take tens of
    /// milliseconds to take its memory down and find the processor for that.
    Ended,
    /// Its thread runs or could, and has run for so many nanoseconds, as far as the system has counted.
    Ready { ran: u64 },
    /// Anything else: it sleeps, is stopped, or cannot be seen.
    Else,
}

/// What the system says of a process or a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    /// Nothing of it runs any more, or will before it is gone: it was killed, or waits for its parent to take notice.
    ended: bool,
    /// It runs, or could.
    ready: bool,
    start_time: u64,
}

impl Owner {
    pub(super) fn this_process() -> Owner {
        let status = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| status(&stat));
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
            .unwrap_or(0);
        Owner {
            pid: u64::from(std::process::id()),
            start_time: status.map_or(0, |status| status.start_time),
            boot_id: ((boot_id >> 64) as u64, boot_id as u64),
            namespace: fs::metadata("/proc/self/ns/pid").map_or(0, |data| data.ino()),
            // SAFETY: takes nothing and always succeeds.
            thread: u64::try_from(unsafe { libc::gettid() }).unwrap_or(0),
        }
    }

    /// As [`Owner::seen`]; a process that cannot be seen, for its id is of another namespace, has ended if nobody locks `file`,
    /// which it has locked as long as it lives.
    pub(super) fn seen_with(&self, file: &File, here: &Owner) -> Seen {
        if self.namespace == here.namespace || self.namespace == 0 {
            return self.seen(here);
        }
        match file.try_lock_shared() {
            Ok(()) => {
                // Others may look at the same time; nobody locks it for good any more.
                let _ = file.unlock();
                Seen::Ended
            }
            Err(_) => Seen::Else,
        }
    }

    /// How this process and its thread are seen from `here`. Allocates nothing: members that are silent for a moment are
    /// looked at all the time where there are fewer cores than members.
    pub(super) fn seen(&self, here: &Owner) -> Seen {
        const UNKNOWN: (u64, u64) = (0, 0);
        if self.boot_id == UNKNOWN || here.boot_id == UNKNOWN {
            return Seen::Else;
        }
        if self.boot_id != here.boot_id {
            return Seen::Ended;
        }
        // Without a start time of its own, this process cannot see others either. An id of another namespace says
        // nothing here.
        if here.start_time == 0 || self.start_time == 0 || self.namespace != here.namespace {
            return Seen::Else;
        }
        match status_of(format_args!("/proc/{}/stat", self.pid)) {
            Ok(Some(status)) if status.ended || status.start_time != self.start_time => Seen::Ended,
            Ok(_) => self.thread_seen(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::Ended,
            Err(_) => Seen::Else,
        }
    }

    fn thread_seen(&self) -> Seen {
        let Owner { pid, thread, .. } = *self;
        let status = status_of(format_args!("/proc/{pid}/task/{thread}/stat"));
        if !matches!(status, Ok(Some(Status { ready: true, ended: false, .. }))) {
            return Seen::Else;
        }
        // The first of its numbers is the time on processors (proc_pid_schedstat).
        let mut line = [0; LINE_BYTES_MAX];
        let ran = read(format_args!("/proc/{pid}/task/{thread}/schedstat"), &mut line);
        let ran = ran.ok().and_then(|line| str::from_utf8(line).ok()?.split(' ').next()?.parse().ok());
        ran.map_or(Seen::Else, |ran| Seen::Ready { ran })
    }
}

/// What the system says in the status line at that path, if it can be read.
fn status_of(path: Arguments<'_>) -> io::Result<Option<Status>> {
    let mut line = [0; LINE_BYTES_MAX];
    let line = read(path, &mut line)?;
    // A command may be no text. Its last parenthesis is what is looked for, and behind it there are only numbers.
    let fields = line.iter().rposition(|byte| *byte == b')');
    Ok(fields.and_then(|at| status(str::from_utf8(&line[at..]).ok()?)))
}

/// Reads a short file.
fn read<'line>(path: Arguments<'_>, line: &'line mut [u8; LINE_BYTES_MAX]) -> io::Result<&'line [u8]> {
    let mut bytes = [0; PATH_BYTES_MAX];
    let mut rest = &mut bytes[..];
    rest.write_fmt(path).expect("the longest numbers were counted");
    let length = PATH_BYTES_MAX - rest.len();
    let path = str::from_utf8(&bytes[..length]).expect("digits and letters");
    let mut file = File::open(path)?;
    let mut filled = 0;
    while filled < line.len() {
        match file.read(&mut line[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(&line[..filled])
}

/// The path with the longest numbers.
const PATH_BYTES_MAX: usize = 6 + 20 + 6 + 20 + 10;
/// About fifty numbers of at most twenty digits, and the command, which is the one text in it and has 64 bytes at most.
const LINE_BYTES_MAX: usize = 1280;

/// Flags of a task: it goes through its exit; a signal ended it.
const EXITING: u64 = 0x4;
const SIGNALED: u64 = 0x400;
/// The pending signals that are SIGKILL, which nobody can block or handle.
const KILLED: u64 = 1 << 8;

/// Reads a process's status line (proc_pid_stat(5)): after the command in parentheses, which may itself contain any
/// character, the state is the first field, the flags the 7th, the number of threads the 18th, the start time the 20th,
/// the pending signals the 29th.
fn status(stat: &str) -> Option<Status> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let threads: u64 = fields.nth(10)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    let pending: u64 = fields.nth(8)?.parse().ok()?;
    // A signal that ends a process ends all of its threads. A first thread that has ended by itself, before others, looks
    // like a process that has ended but for their number.
    let killed = flags & SIGNALED != 0 || pending & KILLED != 0;
    let over = (matches!(state, "Z" | "X") || flags & EXITING != 0) && threads <= 1;
    Some(Status { ended: killed || over, ready: state == "R", start_time })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn this_process_has_not_ended_and_one_that_started_before_under_its_id_has() {
        let here = Owner::this_process();
        let ended = |owner: Owner| owner.seen(&here) == Seen::Ended;
        assert!(here.start_time > 0 && here.namespace > 0 && here.boot_id != (0, 0), "{here:?}");
        assert!(!ended(here));
        assert!(ended(Owner { start_time: here.start_time - 1, ..here }));
        assert!(ended(Owner { boot_id: (7, 7), ..here }));
        assert!(ended(Owner { start_time: here.start_time - 1, pid: u64::MAX, ..here }));
        // No process can have this id.
        let nobody = Owner { pid: 1 << 40, ..here };
        assert!(ended(nobody));
        for unknown in [
            Owner { namespace: 7, ..nobody },
            Owner { start_time: 0, ..nobody },
            Owner { boot_id: (0, 0), ..nobody },
            Owner::default(),
        ] {
            assert!(!ended(unknown), "{unknown:?}");
        }
    }

    #[test]
    fn a_thread_that_works_is_ready_and_what_it_has_run_grows() {
        let here = Owner::this_process();
        let ran = || match here.seen(&here) {
            Seen::Ready { ran } => ran,
            other => panic!("this thread runs: {other:?}"),
        };
        let (begun, first) = (Instant::now(), ran());
        while ran() == first {
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        let nobody = Owner { thread: 1 << 40, ..here };
        assert_eq!(nobody.seen(&here), Seen::Else, "the process is there, the thread is not");
        let child = Command::new("sleep").arg("1000").spawn();
        let mut child = child.expect("the system has sleep");
        let pid = u64::from(child.id());
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        let start_time = status(&stat).expect("a status line").start_time;
        let sleeps = Owner { pid, thread: pid, start_time, ..here };
        while sleeps.seen(&here) != Seen::Else {
            assert!(begun.elapsed() < Duration::from_secs(60), "it sleeps when it has begun");
        }
        child.kill().expect("a child of this process");
        child.wait().expect("it was killed");
        assert_eq!(sleeps.seen(&here), Seen::Ended);
    }

    #[test]
    fn a_status_line_is_read_whatever_the_command_is_called() {
        let line = |state: &str, flags: u64, threads: u64, pending: u64| {
            format!(
                "7 (a) b) Z 1) {state} 1 1 1 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 {threads} 0 4711 9 10 11 12 13 14 0 0 {pending} 0"
            )
        };
        let ended = |line: String| status(&line).map(|status| (status.ended, status.start_time));
        const RUNNING: u64 = 0x40_0100;
        const TERMINATED: u64 = 1 << 14;
        assert_eq!(ended(line("S", RUNNING, 1, TERMINATED)), Some((false, 4711)));
        assert_eq!(ended(line("Z", RUNNING | EXITING, 1, 0)), Some((true, 4711)));
        assert_eq!(ended(line("R", RUNNING | EXITING, 1, 0)), Some((true, 4711)), "it takes its memory down");
        assert_eq!(ended(line("Z", RUNNING | EXITING, 3, 0)), Some((false, 4711)), "its first thread only");
        assert_eq!(
            ended(line("R", RUNNING, 3, KILLED)),
            Some((true, 4711)),
            "it waits for a processor to end on"
        );
        assert_eq!(ended(line("D", RUNNING | SIGNALED, 3, 0)), Some((true, 4711)), "it writes a core dump");
        assert_eq!((status(""), status("7 (x) S 1 2")), (None, None));
    }

    #[test]
    fn the_flags_are_those_of_this_kernel() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("the system has sleep");
        let flags = |pid: u32| -> (String, u64) {
            let line = fs::read_to_string(format!("/proc/{pid}/stat")).expect("not waited for yet");
            let fields: Vec<&str> = line.rsplit_once(')').expect("a command").1.split_whitespace().collect();
            (fields[0].to_owned(), fields[6].parse().expect("a number"))
        };
        assert_eq!(flags(child.id()).1 & (SIGNALED | EXITING), 0);
        child.kill().expect("a child of this process");
        let begun = Instant::now();
        while flags(child.id()).0 != "Z" {
            assert!(begun.elapsed() < Duration::from_secs(60), "a killed process does not end");
            thread::yield_now();
        }
        assert_eq!(flags(child.id()).1 & (SIGNALED | EXITING), SIGNALED | EXITING);
        child.wait().expect("it has ended");
    }
}
