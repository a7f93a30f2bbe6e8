//! A member's shared-memory segment, overwritten by somebody who does not keep the rules, while another reads it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use wadjet::id::{GroupId, Incarnation, ViewId};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{Channel, ChannelOptions, Destination, Transmit, Transport};
use wadjet::view::{Address, LocalView, Member, View};

use crate::Target;

/// Input: steps of four bytes: what to do, and where and what to write. The reader maps the segment when it first receives:
/// what was written before is in its way, what is written after that is under its eyes.
pub(super) const SEGMENT: Target = Target {
    name: "segment",
    what: "whatever stands in a member's segment, its reader neither panics nor leaves the mapping, and gives all back",
    weight: 400,
    seeds: || {
        let overwrite =
            |at: u8, value: u8| [vec![0, 0, 0, 0], vec![1, at, 0, value], vec![3, 0, 0, 0]].concat();
        vec![
            [[0, 0, 0, 0], [3, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]].concat(),
            (0..40).flat_map(|at| overwrite(at, 0xff)).collect(),
            (0..40).flat_map(|at| overwrite(128 + at, 3)).collect(),
            [[4, 0, 0, 0], [1, 24, 1, 1], [0, 0, 0, 0], [3, 0, 0, 0]].concat(),
            // The sizes of the rings, before the reader sees them.
            [[1, 14, 1 << 5, 0x30], [0, 0, 0, 0], [3, 0, 0, 0], [3, 0, 0, 0]].concat(),
            [[1, 15, 1 << 5, 0x30], [0, 0, 0, 0], [3, 0, 0, 0], [3, 0, 0, 0]].concat(),
        ]
    },
    run,
};

const OPTIONS: ChannelOptions = ChannelOptions {
    cast_frames: 8,
    control_frames: 4,
    receive_frames: 8,
    frame_bytes: 256,
    huge_pages: false,
};
/// Steps of one input, and frames that are held at most.
const STEPS_MAX: usize = 256;

fn run(input: &[u8]) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("wadjet-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = Directory(Path::new("/dev/shm").join(name));
    fs::create_dir(&directory.0).expect("a directory on a tmpfs can be made");
    let (mut writer, mut out) = open(&directory.0, 0);
    let segment =
        fs::read_dir(&directory.0).expect("just made").flatten().next().expect("the writer's segment");
    let file = OpenOptions::new().read(true).write(true).open(segment.path()).expect("a file of this user");
    let words = file.metadata().expect("an open file").len() / 8;
    let (mut reader, own) = open(&directory.0, 1);
    writer.reap();
    let mut held = Vec::new();
    for step in input.chunks_exact(4).take(STEPS_MAX) {
        let [what, at, more, value] = *step else { unreachable!("chunks of four") };
        match what % 5 {
            0 => submit(&mut writer, &mut out, false, value),
            1 => {
                // The first words hold header and cursors, whole lines behind them begin with stamps.
                let number = u64::from(at) | u64::from(more & 0x1f) << 8;
                let word = if number < 512 { number } else { number * 8 } % words;
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, 8 * word).expect("inside the file");
                bytes[usize::from(more >> 5)] ^= value.max(1);
                file.write_all_at(&bytes, 8 * word).expect("inside the file");
            }
            2 => submit(&mut writer, &mut out, true, value),
            3 => {
                reader.reap();
                let count = reader.receive(4, &mut |received| held.push(received));
                assert!(count <= 4);
                assert!(held.iter().all(|received| received.from >= 8), "a frame begins behind its stamp");
                let lengths: usize = held.iter().map(|received| received.bytes().len()).sum();
                let sum = held
                    .iter()
                    .flat_map(|received| received.bytes())
                    .fold(0_u64, |sum, byte| sum + u64::from(*byte));
                assert!(sum <= 255 * lengths as u64);
            }
            _ => {
                for received in held.drain(..) {
                    let _ = reader.intact(own.id, &received.frame);
                }
                reader.reap();
                writer.reap();
            }
        }
    }
    drop(held);
    assert_eq!(reader.frames_held(), 0);
    reader.close(own.id);
    writer.close(out.id);
}

fn submit(writer: &mut Shm, channel: &mut Channel, control: bool, value: u8) {
    writer.reap();
    let region = if control { &channel.control } else { &channel.casts };
    if let Ok(mut frame) = region.take(16) {
        frame.extend(&[value; 100]).expect("there is room for 100 bytes");
        let to = Destination::All;
        // A full lane gives it back.
        let _ = writer.submit(Transmit { channel: channel.id, to, head: frame.freeze(), body: None });
    }
}

fn open(directory: &Path, own: u64) -> (Shm, Channel) {
    let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("m{n}")) };
    let view = View {
        group: GroupId(7),
        id: ViewId { counter: 1, coordinator: Incarnation(0) },
        members: (0..2).map(member).collect(),
        spec: String::new(),
        wire_version: 1,
        salt: 0,
        frame_bytes: 0,
    };
    let mut shm = Shm::new(ShmOptions { directory: directory.into() });
    let local = LocalView::new(view, Incarnation(own)).expect("a member of the view");
    let channel = shm.open(&local, &OPTIONS).expect("there is room for a small segment");
    (shm, channel)
}

/// Goes with all that is in it, also when a property did not hold.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
