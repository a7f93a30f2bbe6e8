//! Getting a queue: each step may be refused, each refusal is said in words, and what was got by then goes with it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use wadjet::buf::Memory;
use wadjet::transport::TransportError;

use crate::interface::Interface;
use crate::options::{Mode, Wake, XdpOptions};
use crate::program::{AttachError, Program, QUEUES_MAX};
use crate::socket::{Socket, SocketError, SocketOptions};
use crate::sys;

/// What a transport got of what it asked for.
pub(crate) struct Attached {
    pub(crate) program: Program,
    pub(crate) socket: Socket,
    pub(crate) multi_buffer: bool,
    /// The system is woken only when it asks for it.
    pub(crate) wake_when_asked: bool,
    pub(crate) notes: Vec<String>,
}

/// How long a queue may be taken before that is an error: the system tears a closed socket down after the fact.
const TAKEN_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(5);

/// Drivers of virtual interfaces, on which the program is faster above the driver: it copies less there.
const VIRTUAL: [&str; 5] = ["veth", "tun", "bridge", "dummy", ""];

/// Registers the memory, binds the socket, attaches the program, and gives it the queue: in this order, for a driver may
/// interrupt everybody's traffic while the program comes and goes, and most of what is refused is refused to the socket.
pub(crate) fn attach(
    interface: &Interface,
    options: &XdpOptions,
    memory: &Memory,
    sizes: &SocketOptions,
) -> Result<Attached, TransportError> {
    if options.queue >= QUEUES_MAX {
        return Err(TransportError::Io {
            what: format!(
                "queue {} of `{}` is beyond those that are served, 0 to {}; choose one of these, and steer the group's ports \
                 to it (ethtool -N)",
                options.queue,
                interface.name,
                QUEUES_MAX - 1
            ),
            source: io::ErrorKind::InvalidInput.into(),
        });
    }
    // A socket of this kind is the first thing that may not be there or not be allowed.
    drop(sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(no_socket)?);
    let hoped = hopes_for_native(interface, options.mode);
    let (mut socket, mut flags) = bound(interface, options, memory, sizes, hoped)?;
    let (mut program, native, mut notes) = program(interface, options.mode)?;
    if socket.zero_copy && !native {
        drop(socket);
        (socket, flags) = bound(interface, options, memory, sizes, native)?;
    }
    program.give(options.queue, &SocketDescriptor(&socket)).map_err(|source| TransportError::Io {
        what: format!("cannot give queue {} of `{}` to the socket", options.queue, interface.name),
        source,
    })?;
    let multi_buffer = flags & libc::XDP_USE_SG != 0;
    if options.multi_buffer && !multi_buffer {
        notes.push("no multi-buffer sends (XDP_USE_SG): frames in pieces are copied".into());
    }
    notes.insert(
        0,
        format!(
            "queue {} of {}: {} mode, {}",
            options.queue,
            interface.name,
            if native { "native" } else { "skb" },
            if socket.zero_copy { "zero copy" } else { "the system copies" }
        ),
    );
    let wake_when_asked = flags & libc::XDP_USE_NEED_WAKEUP != 0;
    Ok(Attached { program, socket, multi_buffer, wake_when_asked, notes })
}

struct SocketDescriptor<'s>(&'s Socket);

impl std::os::fd::AsRawFd for SocketDescriptor<'_> {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.descriptor()
    }
}

/// Whether the driver itself is to run the program.
fn hopes_for_native(interface: &Interface, mode: Mode) -> bool {
    match mode {
        Mode::Native => true,
        Mode::Skb => false,
        Mode::Auto => !VIRTUAL.contains(&interface.driver.as_str()),
    }
}

/// The program, in the mode asked for or the one that suits the driver; and whether that is the driver's own.
fn program(interface: &Interface, mode: Mode) -> Result<(Program, bool, Vec<String>), TransportError> {
    let native = hopes_for_native(interface, mode);
    match try_program(interface, native) {
        Ok(program) => Ok((program, native, Vec::new())),
        Err(AttachError::Attach(error)) if mode == Mode::Auto && native && !is_taken(&error) => {
            let program =
                try_program(interface, false).map_err(|error| no_program(error, interface, false))?;
            let note =
                format!("the driver `{}` does not take the program ({error}): skb mode", interface.driver);
            Ok((program, false, vec![note]))
        }
        Err(error) => Err(no_program(error, interface, native)),
    }
}

fn try_program(interface: &Interface, native: bool) -> Result<Program, AttachError> {
    let deadline = Instant::now() + TAKEN_MAX;
    loop {
        match Program::attach(interface.index, native) {
            Err(AttachError::Attach(error)) if is_taken(&error) && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// The socket with the most of what is asked for that the queue gives, and the flags it was bound with.
fn bound(
    interface: &Interface,
    options: &XdpOptions,
    memory: &Memory,
    sizes: &SocketOptions,
    native: bool,
) -> Result<(Socket, u16), TransportError> {
    let asked = |zero_copy: bool| match options.wake {
        Wake::Asked => libc::XDP_USE_NEED_WAKEUP,
        Wake::Auto if zero_copy => libc::XDP_USE_NEED_WAKEUP,
        _ => 0,
    };
    let mut ways = Vec::new();
    // Above the driver there is nothing that could read frames where they are.
    for zero_copy in [true, false].into_iter().skip(usize::from(!(options.zero_copy && native))) {
        let kind = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        for pieces in [libc::XDP_USE_SG, 0].into_iter().skip(usize::from(!options.multi_buffer)) {
            ways.push(kind | pieces | asked(zero_copy));
        }
    }
    let deadline = Instant::now() + TAKEN_MAX;
    let mut at = 0;
    loop {
        match Socket::new(memory, &SocketOptions { flags: ways[at], ..*sizes }) {
            Ok(socket) => return Ok((socket, ways[at])),
            Err(SocketError::Bind(error)) if is_taken(&error) && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            Err(SocketError::Bind(error)) if !is_taken(&error) && at + 1 < ways.len() => at += 1,
            Err(error) => return Err(no_queue(error, interface, options.queue, memory.bytes())),
        }
    }
}

const FILES: &str = "raise the limit on open files (ulimit -n)";

fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

fn permission(what: &str) -> TransportError {
    TransportError::Permission {
        what: what.into(),
        remedy: "it takes CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF: run as root, give the program these \
                 (setcap cap_net_raw,cap_net_admin,cap_bpf+ep), or use the transport udp"
            .into(),
    }
}

fn no_socket(source: io::Error) -> TransportError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => permission("an AF_XDP socket"),
        Some(libc::EAFNOSUPPORT | libc::ESOCKTNOSUPPORT | libc::EPROTONOSUPPORT) => TransportError::Io {
            what:
                "this kernel has no AF_XDP; take one with CONFIG_XDP_SOCKETS, or the transport udp or uring"
                    .into(),
            source,
        },
        Some(libc::EMFILE | libc::ENFILE) => {
            TransportError::Io { what: format!("cannot make an AF_XDP socket; {FILES}"), source }
        }
        _ => TransportError::Io { what: "cannot make an AF_XDP socket".into(), source },
    }
}

fn no_program(error: AttachError, interface: &Interface, native: bool) -> TransportError {
    let name = &interface.name;
    let source = match error {
        AttachError::Load(said, source) => {
            return match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => permission("loading an XDP program"),
                Some(libc::EMFILE | libc::ENFILE) => {
                    TransportError::Io { what: format!("the XDP program does not load; {FILES}"), source }
                }
                _ => TransportError::Io { what: format!("the XDP program does not load ({said})"), source },
            };
        }
        AttachError::Attach(source) => source,
    };
    let what = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => return permission(&format!("an XDP program on `{name}`")),
        Some(libc::EMFILE | libc::ENFILE) => format!("cannot attach the XDP program to `{name}`; {FILES}"),
        Some(libc::EBUSY | libc::EEXIST) => format!(
            "another XDP program is attached to `{name}`, of another process perhaps that uses this transport there; \
             `ip -d link show dev {name}` names it: end its process, or choose another interface"
        ),
        Some(libc::ERANGE | libc::EINVAL | libc::EOPNOTSUPP) if native => format!(
            "the driver `{}` of `{name}` does not take the XDP program at an MTU of {}; lower the MTU (to 3506 or less \
             on most drivers): ip link set dev {name} mtu 1500; or choose skb mode",
            interface.driver, interface.mtu
        ),
        _ => format!("cannot attach the XDP program to `{name}`"),
    };
    TransportError::Io { what, source }
}

fn no_queue(error: SocketError, interface: &Interface, queue: u32, bytes: usize) -> TransportError {
    let name = &interface.name;
    match error {
        SocketError::Socket(source) => no_socket(source),
        SocketError::Memory(source) => match source.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM | libc::EPERM) => TransportError::NoSpace {
                what: "the frames of an AF_XDP socket, which stay in memory".into(),
                bytes,
                remedy: "raise the limit on locked memory (ulimit -l, LimitMEMLOCK=), give the process CAP_IPC_LOCK, \
                         or ask for fewer frames"
                    .into(),
            },
            _ => TransportError::Io { what: "cannot register the frames of an AF_XDP socket".into(), source },
        },
        SocketError::Ring(source) => {
            TransportError::Io { what: "cannot make the rings of an AF_XDP socket".into(), source }
        }
        SocketError::Bind(source) => {
            let what = match source.raw_os_error() {
                Some(libc::EBUSY) => format!(
                    "queue {queue} of `{name}` is in use by another AF_XDP socket, which `ss --xdp` names; end its \
                     process, or choose another queue or interface"
                ),
                Some(libc::EINVAL) => format!(
                    "`{name}` has no queue {queue}, or does not take AF_XDP; `ethtool -l {name}` says how many queues \
                     it has, counted from 0"
                ),
                Some(libc::ENETDOWN) => {
                    format!("the interface `{name}` is down; bring it up first: ip link set dev {name} up")
                }
                Some(libc::EPERM | libc::EACCES) => return permission(&format!("queue {queue} of `{name}`")),
                _ => format!("cannot bind to queue {queue} of `{name}`"),
            };
            TransportError::Io { what, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use wadjet_hosts::{Hosts, LabError};

    use super::*;

    /// Has the calling thread's kernel know no AF_XDP.
    fn forbid_af_xdp() {
        let statement =
            |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
        let unless = |k: u32, skip: u8| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, k);
        let result = |value: u32| statement(libc::BPF_RET | libc::BPF_K, 0, 0, value);
        let filter = [
            load(0),
            unless(libc::SYS_socket as u32, 3),
            load(16),
            unless(libc::AF_XDP as u32, 1),
            result(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
            result(libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program is live and of the length given; it concerns this thread alone.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
            assert_eq!(set, 0);
        }
    }

    const SIZES: SocketOptions = SocketOptions {
        interface: 0,
        queue: 0,
        chunk_bytes: 2048,
        fill_entries: 64,
        completion_entries: 64,
        receive_entries: 64,
        transmit_entries: 64,
        flags: 0,
    };

    #[test]
    fn a_kernel_without_af_xdp_is_named_before_anything_is_attached() {
        let refused = thread::spawn(|| {
            forbid_af_xdp();
            let memory = Memory::anonymous(64 * 2048, false).unwrap();
            let nowhere = Interface {
                name: "none".into(),
                index: u32::MAX,
                mac: [0; 6],
                mtu: 1500,
                driver: String::new(),
            };
            attach(&nowhere, &XdpOptions::default(), &memory, &SIZES).map(drop).unwrap_err().to_string()
        });
        let refused = refused.join().unwrap();
        assert!(refused.contains("no AF_XDP") && refused.contains("the transport udp or uring"), "{refused}");
    }

    #[test]
    fn a_queue_that_another_socket_has_is_refused_in_words() {
        let hosts = match Hosts::pair(&wadjet_hosts::label_of_this_process("q"), 1) {
            Ok(hosts) => hosts,
            Err(error @ (LabError::NotPermitted { .. } | LabError::NoCommand { .. })) => {
                assert!(std::env::var_os("CI").is_none(), "in CI this must run: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let _stay = hosts.enter(1).unwrap();
        let interface = Interface::named("lan0").unwrap();
        let memory = || Memory::anonymous(64 * 2048, false).unwrap();
        let sizes = SocketOptions { interface: interface.index, ..SIZES };
        let copies = SocketOptions { flags: libc::XDP_COPY, ..sizes };
        // Somebody's who has no program there, or the program would be what is in the way.
        let theirs = Socket::new(&memory(), &copies).unwrap();
        let refused = attach(&interface, &XdpOptions::default(), &memory(), &sizes).map(drop).unwrap_err();
        assert!(
            refused.to_string().contains("queue 0 of `lan0` is in use by another AF_XDP socket"),
            "{refused}"
        );
        drop(theirs);
        attach(&interface, &XdpOptions::default(), &memory(), &sizes).unwrap();
    }

    #[test]
    fn a_queue_beyond_those_of_the_program_is_refused_before_anything_is_attached() {
        let nowhere = Interface {
            name: "many0".into(),
            index: u32::MAX,
            mac: [0; 6],
            mtu: 1500,
            driver: String::new(),
        };
        let memory = Memory::anonymous(64 * 2048, false).unwrap();
        let options = XdpOptions { queue: 70, ..XdpOptions::default() };
        let refused = attach(&nowhere, &options, &memory, &SIZES).map(drop).unwrap_err().to_string();
        assert!(refused.contains("queue 70 of `many0`") && refused.contains("0 to 63"), "{refused}");
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let interface =
            Interface { name: "lan7".into(), index: 7, mac: [0; 6], mtu: 9000, driver: "ena".into() };
        let code = io::Error::from_raw_os_error;
        let cases = [
            (no_socket(code(libc::EAFNOSUPPORT)), "the transport udp or uring"),
            (no_socket(code(libc::EPERM)), "CAP_NET_RAW"),
            (no_socket(code(libc::EMFILE)), "ulimit -n"),
            (no_program(AttachError::Load("no".into(), code(libc::EPERM)), &interface, true), "CAP_BPF"),
            (no_program(AttachError::Load("no".into(), code(libc::EMFILE)), &interface, true), "ulimit -n"),
            (no_program(AttachError::Attach(code(libc::EMFILE)), &interface, true), "ulimit -n"),
            (
                no_program(AttachError::Attach(code(libc::EBUSY)), &interface, true),
                "ip -d link show dev lan7",
            ),
            (no_program(AttachError::Attach(code(libc::ERANGE)), &interface, true), "mtu 1500"),
            (no_queue(SocketError::Memory(code(libc::ENOBUFS)), &interface, 0, 99), "ulimit -l"),
            (no_queue(SocketError::Bind(code(libc::EBUSY)), &interface, 3, 99), "ss --xdp"),
            (no_queue(SocketError::Bind(code(libc::EINVAL)), &interface, 3, 99), "ethtool -l lan7"),
            (no_queue(SocketError::Bind(code(libc::ENETDOWN)), &interface, 3, 99), "ip link set dev lan7 up"),
        ];
        for (error, remedy) in cases {
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }
}
