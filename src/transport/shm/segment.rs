//! Segments: one file per (sender incarnation, view), written by its sender alone.
//!
//! ```text
//! | header 512 B | two cursor lines per member, 128 B each | cast ring | a control lane per other member |
//! ```
//!
//! All words are read and written as 64-bit atomics. The magic is written last: a segment without it is still being
//! made. Readers map the file read-only, so what a reader has read and released of a sender's rings stands in the
//! *reader's* segment, on the cursor line of the sender's rank.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::buf::Memory;
use crate::id::{GroupId, Hasher64, Rank};
use crate::transport::TransportError;
use crate::view::LocalView;

use super::owner::{Owner, Seen};
use super::stamp::Generations;
use super::stock::Stock;
use super::words::Geometry;

/// What a segment is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) cast_bytes: usize,
    /// Of each control lane.
    pub(super) lane_bytes: usize,
    /// Frames the writer may have out of its cast ring at once.
    pub(super) frames_max: usize,
}

/// Words of the header, by index.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Word {
    Magic = 0,
    Version,
    Bytes,
    Members,
    Group,
    Incarnation,
    ViewCounter,
    ViewCoordinator,
    Rank,
    /// The owner's process id, start time (clock ticks after boot) and boot id: enough to know that it is gone.
    Pid,
    StartTime,
    BootHigh,
    BootLow,
    /// The seed of all stamps' generations.
    Generation,
    CastBytes,
    LaneBytes,
    FramesMax,
    /// The owner has closed, and what ([`Closed`], zero if it has not): nothing more will be published.
    Closed,
    PidNamespace,
    /// The thread that drives the owner's channel.
    Thread,
    /// The owner may have written casts below this position: on a line of its own.
    CastLimit = 24,
    /// How often the owner has gone to sleep and risen: odd while it sleeps. On a line of its own.
    Asleep = 32,
    /// How often the owner has rung for those who sleep, in the word's lower half: on a line of its own.
    Bell = 40,
}

/// What the owner of a segment has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Closed {
    /// The view's channel: it is in another view, or in none of the group.
    Channel = 1,
    /// Its transport.
    Transport,
}

/// A member's cursor lines, by index of their words.
#[derive(Clone, Copy)]
pub(super) enum Cursor {
    /// Casts before this position have been handed to the endpoint.
    CastsRead = 0,
    /// Casts before this position are not held any more.
    CastsReleased,
    /// Entries of the member's lane to the owner before this position are not held any more.
    LaneReleased,
    /// The owner may have written entries for the member below this position. The second line is seldom written.
    LaneLimit = 8,
    /// The owner does not wait for the member any more: what the member still reads of its rings may be overwritten.
    Excluded,
}

const MAGIC: u64 = u64::from_le_bytes(*b"wadjetsh");
const VERSION: u64 = 5;
const HEADER_BYTES: usize = 512;
/// Two cache lines: neighbouring lines are fetched in pairs.
const CURSORS_BYTES: usize = 128;
const PAGE_BYTES: usize = 4096;
/// The smallest and largest ring that a reader accepts.
const RING_BYTES: std::ops::RangeInclusive<u64> = 1 << 12..=1 << 40;
/// The most frames a writer has out at once and a reader accepts to keep book of.
pub(super) const FRAMES_MAX: usize = 1 << 18;

/// A segment of this process.
pub(super) struct Segment {
    memory: Memory,
    /// Locked as long as this process lives: where it cannot be seen, the lock can.
    locked: Option<File>,
    /// The view's only member has no file.
    path: Option<PathBuf>,
    sizes: Sizes,
    owner: Rank,
    members: usize,
    generation: u64,
}

/// A segment without a name, to be made bit by bit before it is needed. It goes with its process.
pub(super) struct Spare {
    file: File,
    memory: Memory,
    grown: usize,
}

/// Another member's segment, mapped read-only.
pub(super) struct PeerSegment {
    memory: Memory,
    file: File,
    path: PathBuf,
    process: Owner,
    sizes: Sizes,
    owner: Rank,
    members: usize,
    generation: u64,
}

/// What came of looking for a peer's segment.
pub(super) enum Attach {
    Ready(PeerSegment),
    /// Not there, or not ready.
    NotYet,
    /// There is something else under that name.
    Refused(Refusal),
}

/// Why what stands under a segment's name is not used.
pub(super) struct Refusal {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// The file of a member's segment.
pub(super) fn path(directory: &Path, view: &LocalView, rank: Rank) -> PathBuf {
    let (group, id) = (view.view().group, view.view().id);
    let incarnation = view.member(rank).incarnation;
    directory.join(format!("{}{incarnation}-{:x}-{}", prefix(group), id.counter, id.coordinator))
}

/// What the names of all files of all groups begin with.
pub(super) const PREFIX: &str = "wadjet-";

/// What the names of all files of a group begin with.
pub(super) fn prefix(group: GroupId) -> String {
    format!("{PREFIX}{group}-")
}

/// Removes those of the files that are segments of processes that have ended.
pub(super) fn remove_dead(files: impl Iterator<Item = PathBuf>, here: &Owner) {
    for path in files {
        if let Some((owner, file)) = owner_of(&path)
            && owner.seen_with(&file, here) == Seen::Ended
            && stands_at(&file, &path)
        {
            // Somebody else may have been faster.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether the path still names the file: somebody else may have removed that, and a member given in a fixed view come again.
fn stands_at(file: &File, path: &Path) -> bool {
    let same =
        |data: fs::Metadata, named: fs::Metadata| (data.dev(), data.ino()) == (named.dev(), named.ino());
    file.metadata().is_ok_and(|data| fs::symlink_metadata(path).is_ok_and(|named| same(data, named)))
}

/// Who made the segment, if it is one, and of this user; and its file.
fn owner_of(path: &Path) -> Option<(Owner, File)> {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let data = file.metadata().ok()?;
    // SAFETY: `geteuid` has no preconditions.
    if !data.is_file() || data.uid() != unsafe { libc::geteuid() } {
        return None;
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).ok()?;
    let get = |word: Word| {
        let at = word as usize * 8;
        u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"))
    };
    (get(Word::Magic) == MAGIC && get(Word::Version) == VERSION).then(|| (owner_in(get), file))
}

fn owner_in(get: impl Fn(Word) -> u64) -> Owner {
    Owner {
        pid: get(Word::Pid),
        start_time: get(Word::StartTime),
        boot_id: (get(Word::BootHigh), get(Word::BootLow)),
        namespace: get(Word::PidNamespace),
        thread: get(Word::Thread),
    }
}

impl Segment {
    /// Makes this member's segment.
    pub(super) fn create(
        directory: &Path,
        view: &LocalView,
        sizes: Sizes,
        here: &Owner,
        stock: &mut Stock,
    ) -> Result<Segment, TransportError> {
        let members = view.size();
        let owner = view.rank();
        let bytes = total_bytes(members, sizes);
        let segment = |memory: Memory, file: Option<File>, path: Option<PathBuf>| {
            // Before it says whose it is. Where files cannot be locked it is seen as before.
            file.as_ref().map(File::try_lock);
            let generation = generation(view);
            let segment = Segment { memory, locked: file, path, sizes, owner, members, generation };
            segment.write_header(view, here);
            segment
        };
        if members == 1 {
            // Nobody looks for it.
            return Ok(segment(Memory::anonymous_untouched(bytes, false)?, None, None));
        }
        let path = path(directory, view, view.rank());
        // A process that is killed while it makes a file without a name leaves nothing.
        if let Ok(spare) = stock.take_segment(directory, bytes) {
            // Nobody sees it before it has its name, and it has that only when it is complete.
            let (file, memory) = spare.into_parts();
            let made = segment(memory, Some(file), Some(path.clone()));
            match made.locked.as_ref().map_or(Ok(()), |file| name(file, &path)) {
                Ok(()) => return Ok(made),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(refused(&path, error));
                }
                // What else is wrong shows when the segment is made with a name from the beginning, as on file systems
                // that have no files without one.
                Err(_) => {}
            }
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|source| refused(&path, source))?;
        let unlinked_on_error = Unlink(&path);
        reserve(&file, 0, bytes).map_err(|source| no_space(&path, bytes, source))?;
        // SAFETY: the file was just made with this size, under mode 0600, by the only process that writes it; nothing
        // in this crate truncates a segment.
        let memory = unsafe { Memory::shared_writable(&file, bytes)? };
        std::mem::forget(unlinked_on_error);
        memory.touch(0, bytes);
        Ok(segment(memory, Some(file), Some(path)))
    }

    fn write_header(&self, view: &LocalView, owner: &Owner) {
        let set = |word: Word, value: u64| self.word(word).store(value, Ordering::Relaxed);
        let (group, id) = (view.view().group, view.view().id);
        set(Word::Version, VERSION);
        set(Word::Bytes, self.memory.bytes() as u64);
        set(Word::Members, self.members as u64);
        set(Word::Group, group.0);
        set(Word::Incarnation, view.member(view.rank()).incarnation.0);
        set(Word::ViewCounter, id.counter);
        set(Word::ViewCoordinator, id.coordinator.0);
        set(Word::Rank, u64::from(view.rank().0));
        set(Word::Pid, owner.pid);
        set(Word::StartTime, owner.start_time);
        set(Word::BootHigh, owner.boot_id.0);
        set(Word::BootLow, owner.boot_id.1);
        set(Word::PidNamespace, owner.namespace);
        set(Word::Thread, owner.thread);
        set(Word::Generation, self.generation);
        set(Word::CastBytes, self.sizes.cast_bytes as u64);
        set(Word::LaneBytes, self.sizes.lane_bytes as u64);
        set(Word::FramesMax, self.sizes.frames_max as u64);
        self.word(Word::Magic).store(MAGIC, Ordering::Release);
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn casts(&self) -> Geometry {
        geometry_of_casts(self.members, self.sizes, self.generation)
    }

    /// The lane to the member at `rank`.
    pub(super) fn lane(&self, rank: Rank) -> Geometry {
        geometry_of_lane(self.members, self.sizes, self.owner, rank, self.generation)
    }

    pub(super) fn word(&self, word: Word) -> &AtomicU64 {
        word_at(&self.memory, word as usize * 8)
    }

    /// A word of the line on which this member tells `rank` what it has read and released.
    pub(super) fn cursor(&self, rank: Rank, cursor: Cursor) -> &AtomicU64 {
        word_at(&self.memory, cursor_offset(rank, cursor))
    }

    /// What is changed to wake those who sleep.
    pub(super) fn bell(&self) -> &AtomicU32 {
        bell(&self.memory)
    }

    /// Says that nothing more will come, and takes the name away. Who has mapped the segment keeps it.
    pub(super) fn close(&self, what: Closed) {
        self.word(Word::Closed).store(what as u64, Ordering::Release);
        // Somebody may have removed it by hand; there is nobody to tell.
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl Spare {
    /// A spare of `bytes` bytes, none of which is there yet.
    pub(super) fn begin(directory: &Path, bytes: usize) -> io::Result<Spare> {
        let flags = libc::O_CLOEXEC | libc::O_TMPFILE;
        let file =
            OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(directory)?;
        file.set_len(bytes as u64)?;
        // SAFETY: the file was just made with this size; it has no name, so nobody else has it. It is touched only as
        // far as `grow` has reserved its pages.
        let memory = unsafe { Memory::shared_writable(&file, bytes).map_err(|error| error.source)? };
        Ok(Spare { file, memory, grown: 0 })
    }

    /// Whether it serves as a segment of `bytes` bytes without wasting more than that.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        (bytes..=bytes.saturating_mul(2)).contains(&self.memory.bytes())
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// How many bytes of it are not there yet.
    pub(super) fn missing(&self) -> usize {
        self.memory.bytes() - self.grown
    }

    /// Whether it is all there.
    pub(super) fn grown(&self) -> bool {
        self.grown == self.memory.bytes()
    }

    /// Makes `bytes` bytes more of it.
    pub(super) fn grow(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = bytes.min(self.memory.bytes() - self.grown);
        if bytes > 0 {
            reserve(&self.file, self.grown, bytes)?;
            self.memory.touch(self.grown, bytes);
            self.grown += bytes;
        }
        Ok(())
    }

    /// Sees to it that nothing of it can be missing when it is touched, and leaves that to others.
    pub(super) fn reserve_rest(&mut self) -> io::Result<()> {
        let bytes = self.memory.bytes() - std::mem::replace(&mut self.grown, self.memory.bytes());
        reserve(&self.file, self.memory.bytes() - bytes, bytes)
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn into_memory(self) -> Memory {
        self.memory
    }

    fn into_parts(self) -> (File, Memory) {
        (self.file, self.memory)
    }
}

/// Gives a file that has no name one that nothing else has.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    let here = libc::AT_FDCWD;
    // SAFETY: both names are live and end with zero; they are only read during the call.
    let linked = unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    if linked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl PeerSegment {
    /// Looks for the segment of the member at `rank`.
    pub(super) fn attach(directory: &Path, view: &LocalView, rank: Rank) -> Attach {
        let path = path(directory, view, rank);
        let open = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW).open(&path);
        let file = match open {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Attach::NotYet,
            Err(error) => return Attach::Refused(Refusal { path, why: error.to_string() }),
        };
        let refuse = |why: &str| Attach::Refused(Refusal { path: path.clone(), why: why.into() });
        let bytes = match file.metadata() {
            // SAFETY: `geteuid` has no preconditions.
            Ok(data) if !data.is_file() || data.uid() != unsafe { libc::geteuid() } => {
                return refuse("not a file of this user; remove it");
            }
            Ok(data) => data.len() as usize,
            Err(error) => return refuse(&error.to_string()),
        };
        if bytes < HEADER_BYTES {
            return Attach::NotYet;
        }
        // SAFETY: the file has this size and is never truncated by its owner, a member on this host with this user
        // (design section 7: one trust domain). Metadata is read through atomics and checked; payload is trusted.
        let memory = match unsafe { Memory::shared_readable(&file, bytes) } {
            Ok(memory) => memory,
            Err(error) => return refuse(&error.to_string()),
        };
        PeerSegment::check(memory, file, &path, view, rank).unwrap_or_else(refuse)
    }

    fn check(
        memory: Memory,
        file: File,
        path: &Path,
        view: &LocalView,
        rank: Rank,
    ) -> Result<Attach, &'static str> {
        let get = |word: Word| word_at(&memory, word as usize * 8).load(Ordering::Relaxed);
        match get(Word::Magic) {
            MAGIC => fence(Ordering::Acquire),
            0 => return Ok(Attach::NotYet),
            _ => return Err("not a segment; remove it"),
        }
        if get(Word::Version) != VERSION {
            return Err("a segment of another version; run one version on all members of this host");
        }
        let (group, id) = (view.view().group, view.view().id);
        let identity = [
            (Word::Group, group.0),
            (Word::Incarnation, view.member(rank).incarnation.0),
            (Word::ViewCounter, id.counter),
            (Word::ViewCoordinator, id.coordinator.0),
            (Word::Rank, u64::from(rank.0)),
            (Word::Members, view.size() as u64),
        ];
        if identity.iter().any(|(word, value)| get(*word) != *value) {
            return Err("a segment of another view; members do not agree on this one");
        }
        let (cast, lane, frames) = (get(Word::CastBytes), get(Word::LaneBytes), get(Word::FramesMax));
        let ring = |bytes: u64| bytes.is_power_of_two() && RING_BYTES.contains(&bytes);
        if !ring(cast) || !ring(lane) || !frames.is_power_of_two() || frames > FRAMES_MAX as u64 {
            return Err("a segment with impossible sizes; its owner must start anew");
        }
        let sizes =
            Sizes { cast_bytes: cast as usize, lane_bytes: lane as usize, frames_max: frames as usize };
        if total_bytes(view.size(), sizes) > memory.bytes() {
            return Err("a segment shorter than its header says; its owner must start anew");
        }
        let generation = get(Word::Generation);
        let process = owner_in(get);
        let (path, owner, members) = (path.into(), rank, view.size());
        Ok(Attach::Ready(PeerSegment { memory, file, path, process, sizes, owner, members, generation }))
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What its owner has closed, if anything.
    pub(super) fn closed(&self) -> Option<Closed> {
        match self.word(Word::Closed).load(Ordering::Relaxed) {
            0 => None,
            word if word == Closed::Transport as u64 => Some(Closed::Transport),
            _ => Some(Closed::Channel),
        }
    }

    /// How its owner is seen. If that has ended the segment's name is removed, which nobody else will do.
    pub(super) fn look_at_owner(&self, here: &Owner) -> Seen {
        let mut seen = self.process.seen_with(&self.file, here);
        if seen == Seen::Ended && self.closed().is_some() {
            // Who has closed has let go of the lock, and may live. Looked at after the lock, which was held until then.
            seen = self.process.seen(here);
        }
        if seen == Seen::Ended {
            let _ = fs::remove_file(&self.path);
        }
        seen
    }

    pub(super) fn frames_max(&self) -> usize {
        self.sizes.frames_max
    }

    pub(super) fn casts(&self) -> Geometry {
        geometry_of_casts(self.members, self.sizes, self.generation)
    }

    /// The lane to the member at `rank`.
    pub(super) fn lane(&self, rank: Rank) -> Geometry {
        geometry_of_lane(self.members, self.sizes, self.owner, rank, self.generation)
    }

    pub(super) fn word(&self, word: Word) -> &AtomicU64 {
        word_at(&self.memory, word as usize * 8)
    }

    /// What its owner changes to wake those who sleep.
    pub(super) fn bell(&self) -> &AtomicU32 {
        bell(&self.memory)
    }

    /// A word of the line on which the peer tells `rank` what it has read and released.
    pub(super) fn cursor(&self, rank: Rank, cursor: Cursor) -> &AtomicU64 {
        word_at(&self.memory, cursor_offset(rank, cursor))
    }
}

/// Removes a file unless forgotten.
struct Unlink<'a>(&'a Path);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        // The error that led here is the one to report.
        let _ = fs::remove_file(self.0);
    }
}

/// Gives the file its size in memory that is really there, so that a full file system shows now and not at a touch.
fn reserve(file: &File, offset: usize, bytes: usize) -> io::Result<()> {
    const TRIES: usize = 16;
    for _ in 0..TRIES {
        // SAFETY: the descriptor is open for the call.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), offset as libc::off_t, bytes as libc::off_t) }
        {
            0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINTR))
}

#[cold]
fn refused(path: &Path, source: io::Error) -> TransportError {
    let what = path.display().to_string();
    match source.kind() {
        io::ErrorKind::AlreadyExists => TransportError::IncarnationInUse(what),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => TransportError::Permission {
            what: format!("making {what}"),
            remedy: "choose a directory on a tmpfs that this user may write".into(),
        },
        io::ErrorKind::StorageFull => no_space(path, 0, source),
        _ => TransportError::Io { what: format!("making {what}"), source },
    }
}

/// Bytes that can still be had in the file system of `directory`; `None` if it has no limit, or does not say. Allocates
/// nothing, for it is asked while casts go on.
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let system = system_of(directory)?;
    (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}

/// Whether the file system of `directory` has a limit of files, and no other file can be had.
fn out_of_files(directory: &Path) -> bool {
    system_of(directory).is_some_and(|system| system.f_files > 0 && system.f_favail == 0)
}

fn system_of(directory: &Path) -> Option<libc::statvfs> {
    // The path of a socket in it has at most 107 bytes.
    let mut name = [0; 128];
    let bytes = directory.as_os_str().as_bytes();
    name.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let directory = CStr::from_bytes_until_nul(&name).ok()?;
    // SAFETY: all fields are plain integers, for which zero is a value.
    let mut system: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the name is live and ends with zero; `system` is live and of the right type, and only written during the call.
    let told = unsafe { libc::statvfs(directory.as_ptr(), &raw mut system) } == 0;
    told.then_some(system)
}

/// What is said where a segment of `bytes` would find no room.
#[cold]
pub(super) fn no_room(directory: &Path, bytes: usize) -> TransportError {
    let what = directory.join(PREFIX.to_owned() + "*");
    no_space(&what, bytes, io::Error::from_raw_os_error(libc::ENOSPC))
}

/// What went wrong when `path` was to have so many bytes, and what to do where the file system is full: of bytes or of files.
#[cold]
pub(super) fn no_space(path: &Path, bytes: usize, source: io::Error) -> TransportError {
    let full = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG, libc::ENOMEM];
    if source.raw_os_error().is_some_and(|error| full.contains(&error)) {
        let directory = path.parent().unwrap_or(path);
        let (what, option) = match out_of_files(directory) {
            true => (format!("another file, {}", path.display()), "nr_inodes"),
            false => (path.display().to_string(), "size"),
        };
        let directory = directory.display();
        return TransportError::NoSpace {
            what: what.into(),
            bytes,
            remedy: format!(
                "remove what nobody uses there, enlarge it (mount -o remount,{option}=... {directory}), ask for fewer or \
                 smaller frames, or choose another directory"
            )
            .into(),
        };
    }
    TransportError::Io { what: format!("reserving {bytes} bytes for {}", path.display()), source }
}

/// Differs between segments, so that stamps of one are not valid in another that inherits its memory.
fn generation(view: &LocalView) -> u64 {
    let (group, id) = (view.view().group, view.view().id);
    let mut hasher = Hasher64::new(MAGIC);
    for word in [group.0, id.counter, id.coordinator.0, view.member(view.rank()).incarnation.0] {
        hasher.word(word);
    }
    hasher.finish() >> 36
}

fn word_at(memory: &Memory, offset: usize) -> &AtomicU64 {
    assert!(offset.is_multiple_of(8) && offset + 8 <= memory.bytes());
    // SAFETY: inside the mapping, as just checked, which lives as long as the borrow of `memory`; aligned, as mappings
    // begin on pages. Header and cursor words are only ever touched through this function, so atomically. Read-only
    // mappings are only loaded from (relaxed, then a fence). Attacked by `rubbish_*` in `tests/shm.rs`.
    unsafe { AtomicU64::from_ptr(memory.base().as_ptr().add(offset).cast()) }
}

/// The system sleeps on halves of words.
fn bell(memory: &Memory) -> &AtomicU32 {
    let offset = Word::Bell as usize * 8;
    assert!(offset + 8 <= memory.bytes());
    // SAFETY: as for `word_at`; this word is touched only here, and only by halves.
    unsafe { AtomicU32::from_ptr(memory.base().as_ptr().add(offset).cast()) }
}

fn cursor_offset(rank: Rank, cursor: Cursor) -> usize {
    HEADER_BYTES + rank.index() * CURSORS_BYTES + cursor as usize * 8
}

fn casts_at(members: usize) -> usize {
    (HEADER_BYTES + members * CURSORS_BYTES).next_multiple_of(PAGE_BYTES)
}

fn geometry_of_casts(members: usize, sizes: Sizes, generation: u64) -> Geometry {
    geometry(casts_at(members), sizes.cast_bytes, generation)
}

/// Nobody has a lane to itself.
fn geometry_of_lane(members: usize, sizes: Sizes, owner: Rank, reader: Rank, generation: u64) -> Geometry {
    assert!(owner != reader && reader.index() < members, "a lane leads to another member of the view");
    let index = reader.index() - usize::from(reader > owner);
    let offset = casts_at(members) + sizes.cast_bytes + index * sizes.lane_bytes;
    // Lanes have numbers of their own: what was written for one member is not valid in the lane of another.
    geometry(offset, sizes.lane_bytes, generation.wrapping_add(1 + index as u64))
}

fn geometry(offset: usize, bytes: usize, generation: u64) -> Geometry {
    // Only so many bits enter a stamp; a foreign header may say anything.
    let seed = generation & u64::from(u32::MAX);
    Geometry { offset, bytes, stamps: Generations { shift: bytes.trailing_zeros(), seed } }
}

/// The bytes of a segment.
pub(super) fn total_bytes(members: usize, sizes: Sizes) -> usize {
    let lanes = (members - 1).checked_mul(sizes.lane_bytes);
    let sum = lanes.and_then(|lanes| lanes.checked_add(casts_at(members))?.checked_add(sizes.cast_bytes));
    sum.unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_may_say_anything_of_its_generation() {
        let sizes = Sizes { cast_bytes: 1 << 16, lane_bytes: 1 << 14, frames_max: 16 };
        let lane = |generation| geometry_of_lane(3, sizes, Rank(0), Rank(2), generation).stamps.seed;
        assert_eq!((lane(u64::MAX), lane(u64::MAX - 1)), (1, 0));
    }
}
