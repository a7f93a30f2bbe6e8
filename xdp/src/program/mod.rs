//! The XDP program: loaded, attached to an interface, told what to steer.
//!
//! It is attached by a link whose only descriptor is this process's: it goes with the process, however that ends.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use aya::maps::{HashMap, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

/// The compiled program: see `compile.sh`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("steer.bpf.o");

/// What the program did with the frames it saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounters {
    /// Given to the socket.
    pub steered: u64,
    /// Not for this process: passed on.
    pub foreign: u64,
    /// For this process, but longer than a frame of the socket: passed on to the ordinary socket.
    pub long: u64,
    /// With IP options, or fragments: passed on, whoever it is for.
    pub formed: u64,
}

/// An attached program.
pub(crate) struct Program {
    loaded: Ebpf,
}

/// Why there is no program.
#[derive(Debug)]
pub(crate) enum AttachError {
    /// It does not attach.
    Attach(io::Error),
    /// It does not load, or is not what it should be.
    Load(String, io::Error),
}

impl Program {
    /// Loads the program and attaches it to an interface, in the driver or (generic) above it.
    pub(crate) fn attach(interface: u32, native: bool) -> Result<Program, AttachError> {
        let mut loaded = EbpfLoader::new().load(OBJECT).map_err(|error| load_error(&error))?;
        let program = loaded.program_mut(PROGRAM).expect("the object holds the program");
        let program: &mut Xdp = program.try_into().expect("an XDP program");
        program.load().map_err(|error| load_error(&error))?;
        let mode = if native { XdpMode::Driver } else { XdpMode::Skb };
        program.attach_to_if_index(interface, mode).map_err(|error| {
            AttachError::Attach(match error {
                ProgramError::SyscallError(error) => error.io_error,
                other => system_error(&other),
            })
        })?;
        Ok(Program { loaded })
    }

    /// Gives what is steered and comes by a queue to a socket.
    pub(crate) fn give(&mut self, queue: u32, socket: &impl AsRawFd) -> io::Result<()> {
        let map = self.loaded.map_mut(SOCKETS).expect("the object holds this map");
        let mut sockets = XskMap::try_from(map).expect("a map of sockets");
        sockets.set(queue, socket.as_raw_fd(), 0).map_err(|error| map_error(&error))
    }

    /// Steers what comes to an address, up to so many bytes of a frame.
    pub(crate) fn steer(&mut self, place: SocketAddrV4, longest: usize) -> io::Result<()> {
        self.places().insert(key(place), longest as u32, 0).map_err(|error| map_error(&error))
    }

    /// Steers it no more.
    pub(crate) fn leave(&mut self, place: SocketAddrV4) {
        // It is not there if it never was.
        let _ = self.places().remove(&key(place));
    }

    pub(crate) fn counters(&self) -> SteerCounters {
        let map = self.loaded.map(COUNTERS).expect("the object holds this map");
        let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map).expect("counters per core");
        let sum = |which| counters.get(&which, 0).map_or(0, |values| values.iter().sum());
        SteerCounters { steered: sum(0), foreign: sum(1), long: sum(2), formed: sum(3) }
    }

    fn places(&mut self) -> HashMap<&mut aya::maps::MapData, [u8; 8], u32> {
        let map = self.loaded.map_mut(PLACES).expect("the object holds this map");
        HashMap::try_from(map).expect("a map of places")
    }
}

/// `struct place`.
fn key(place: SocketAddrV4) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&place.ip().octets());
    key[4..6].copy_from_slice(&place.port().to_be_bytes());
    key
}

fn load_error(error: &(dyn std::error::Error + 'static)) -> AttachError {
    AttachError::Load(error.to_string(), system_error(error))
}

fn map_error(error: &MapError) -> io::Error {
    system_error(error)
}

/// What the system said, deep in an error.
fn system_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        at = error.source();
    }
    io::Error::other(error.to_string())
}

/// Queues from 0 that the program can give frames of, and places that it steers: as `steer.bpf.c` says.
pub(crate) const QUEUES_MAX: u32 = 64;
pub(crate) const PLACES_MAX: usize = 64;

const PROGRAM: &str = "steer";
const SOCKETS: &str = "sockets";
const PLACES: &str = "places";
const COUNTERS: &str = "counters";
