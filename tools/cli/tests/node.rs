//! `wadjet node` as people use it: three shells, over the transports between processes.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::may_make_hosts;
use wadjet::GroupId;
use wadjet_lab::hosts::{Hosts, label_of_this_process};

/// A shell with a node in it. Ended when dropped.
struct Shell {
    address: String,
    node: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_wadjet");
const PATIENCE: Duration = Duration::from_secs(30);

impl Shell {
    fn open(transport: &str, group: &str, address: &str, more: &[&str]) -> Shell {
        Shell::open_by(Command::new(PROGRAM), transport, group, address, more)
    }

    /// The command may start the program on a test host.
    fn open_by(mut command: Command, transport: &str, group: &str, address: &str, more: &[&str]) -> Shell {
        let mut node = command
            // Whatever becomes of this test, the node leaves.
            .args([
                "node",
                "--transport",
                transport,
                "--group",
                group,
                "--address",
                address,
                "--leave-after",
                "120",
            ])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = channel();
        let output = node.stdout.take().unwrap();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
        let input = node.stdin.take();
        Shell { address: address.to_owned(), node, input, lines, seen: Vec::new() }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.node.id().to_string()]).status();
        assert!(sent.unwrap().success(), "{name}");
    }

    fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for a line that holds `words`, and returns it.
    fn sees(&mut self, words: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(_) => panic!("{} never saw `{words}`, but: {:#?}", self.address, self.seen),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.node.kill());
        drop(self.node.wait());
    }
}

fn addresses(transport: &str) -> Vec<String> {
    match transport {
        "udp" | "uring" => {
            let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect()
        }
        _ => ["alice", "bob", "carol"].map(str::to_owned).to_vec(),
    }
}

#[test]
fn what_is_typed_in_one_shell_appears_in_all_and_a_killed_one_is_told_of_by_the_others() {
    // The members, and the one that was there first: udp and uring are one network.
    for (transport, first) in [("udp", "udp"), ("shm", "shm"), ("uring", "udp")] {
        let group = format!("tea-{transport}-{first}-{}", std::process::id());
        let (at, stack) = (addresses(transport), patient_stack());
        let mut shells = vec![Shell::open(first, &group, &at[0], &["--stack", &stack])];
        let more = ["--stack", &stack, "--peers", &at[0]];
        shells.extend((1..3).map(|n| Shell::open(transport, &group, &at[n], &more)));
        talk(shells, &at);
    }
}

#[test]
fn members_whose_views_wait_for_their_word_come_together_and_part() {
    let group = format!("tea-blocked-{}", std::process::id());
    let (at, stack) = (addresses("udp"), patient_stack().replace("MBRSHIP(", "MBRSHIP(block=yes,"));
    let mut shells = vec![Shell::open("udp", &group, &at[0], &["--stack", &stack])];
    let more = ["--stack", &stack, "--peers", &at[0]];
    shells.extend((1..3).map(|n| Shell::open("udp", &group, &at[n], &more)));
    talk(shells, &at);
}

#[test]
fn who_knows_no_address_finds_the_others_at_a_multicast_address() {
    let group = format!("tea-discovered-{}", std::process::id());
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (at, stack) = (addresses("udp"), patient_stack());
    let meeting_place = format!("239.255.87.65:{free}");
    let arguments = ["--stack", &stack, "--discover", &meeting_place];
    let open = |(transport, at): (&str, &String)| Shell::open(transport, &group, at, &arguments);
    let mut shells: Vec<Shell> = ["udp", "uring", "udp"].into_iter().zip(&at).map(open).collect();
    for shell in &mut shells {
        shell.sees(", 3 members: ");
    }
}

/// A machine that is busy with other things lets a process wait for longer than the usual time-outs.
fn patient_stack() -> String {
    let patient = wadjet::layers::DEFAULT_STACK.replace("SUSPECT", "SUSPECT(least_ms=500,most_ms=500)");
    patient.replace("MBRSHIP", "MBRSHIP(flush_ms=2000,merge_ms=1000)")
}

/// Three shells in which the same group was entered at these addresses.
fn talk(mut shells: Vec<Shell>, at: &[String]) {
    for shell in &mut shells {
        shell.sees(", 3 members: ");
    }
    shells[1].type_line("tea is ready");
    for shell in &mut shells {
        shell.sees(&format!("<{}> tea is ready", at[1]));
    }
    shells[2].type_line(&format!("/send {} psst", at[0]));
    shells[0].sees(&format!("<{}> to this member: psst", at[2]));
    shells[1].type_line("/members");
    assert!(shells[1].sees(", 3 members: ").contains(&format!("{} (this one)", at[1])));
    shells[1].type_line("/stats");
    shells[1].sees("cast 1, delivered 1");

    // The member that was there first coordinates, and is the one that dies.
    shells[0].node.kill().unwrap();
    for shell in &mut shells[1..] {
        shell.sees(", 2 members: ");
        shell.sees(&format!("failed: {}", at[0]));
    }
    // Why is told with the suspicion, by at least one of them from what it did not hear itself.
    let why = |shell: &Shell| {
        let begins = format!("suspected: {}, ", at[0]);
        let told = |line: &String| Some(line.strip_prefix(&begins)?.split_once(';')?.0.to_owned());
        let told: Vec<String> = shell.seen.iter().filter_map(told).collect();
        let [why] = &told[..] else { panic!("it is told once: {:#?}", shell.seen) };
        why.clone()
    };
    let whys: Vec<String> = shells[1..].iter().map(why).collect();
    let itself = |why: &String| why.contains("nothing was heard of it for ") && why.ends_with(" ms");
    assert!(whys.iter().any(itself), "{whys:?}");
    // The other is told who found it out, and how: by silence, or because the transport said so.
    let found = ["heard nothing of it for too long", "was told by the transport that it was gone"];
    let told_by = |by: usize, why: &String| found.iter().any(|how| *why == format!("{} {how}", at[by]));
    assert!(itself(&whys[0]) || told_by(2, &whys[0]), "{whys:?}");
    assert!(itself(&whys[1]) || told_by(1, &whys[1]), "{whys:?}");
    shells[2].type_line("who is left?");
    shells[1].sees(&format!("<{}> who is left?", at[2]));
    shells[2].type_line("/leave");
    shells[2].sees("left the group");
    assert!(shells[2].node.wait().unwrap().success());
    shells[1].sees(&format!("left: {} (it asked to)", at[2]));
}

#[test]
fn members_on_hosts_of_their_own_talk_by_af_xdp_with_one_that_has_ordinary_sockets() {
    if !may_make_hosts() {
        return;
    }
    let hosts = Hosts::up(&label_of_this_process("node"), 3).unwrap();
    let at: Vec<String> = (1..=3).map(|host| format!("{}:7000", hosts.address(host))).collect();
    let stack = patient_stack();
    let open = |n: usize, transport: &str, more: &[&str]| {
        let more = [more, &["--stack", &stack]].concat();
        Shell::open_by(hosts.command(n + 1, PROGRAM.as_ref()), transport, "tea", &at[n], &more)
    };
    // Who comes later asks everybody, not one address.
    let mut shells = vec![
        open(0, "udp", &["--discover"]),
        open(1, "xdp", &["--discover"]),
        open(2, "xdp", &["--discover"]),
    ];
    // How frames go, and where the system copies them.
    shells[1].sees("xdp: ");
    talk(shells, &at);
}

#[test]
fn what_is_about_af_xdp_is_refused_in_words_over_another_transport() {
    for [name, value] in [["--interface", "lo"], ["--queue", "0"], ["--mode", "skb"]] {
        let mut node = Command::new(PROGRAM);
        let output =
            node.args(["node", "--group", "g", "--address", "127.0.0.1:7499", name, value]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(name) && said.contains("--transport xdp"), "{said}");
    }
    let help = Command::new(PROGRAM).args(["node", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(["--interface", "--queue", "--mode"].iter().all(|name| help.contains(name)), "{help}");
}

#[test]
fn a_stopped_member_says_nothing_and_who_looks_is_told_so_in_time() {
    let group = format!("stopped-{}", std::process::id());
    let window = std::env::temp_dir().join(format!("wadjet-node-stopped-{}", std::process::id()));
    let path = window.to_str().unwrap();
    let at = addresses("udp");
    let mut member = Shell::open("udp", &group, &at[0], &["--window", path, "--peers", &at[1]]);
    // The window is open before it looks for others.
    member.sees("alone for");
    member.signal("-STOP");
    let begun = Instant::now();
    let output = Command::new(PROGRAM).args(["explain", "--live", path]).output().unwrap();
    assert!(begun.elapsed() < PATIENCE, "it ends in time");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && said.contains("it is stopped") && said.contains(path),
        "{said}"
    );
    member.signal("-CONT");
    // It is killed, and cannot take its window with it.
    drop(member);
    std::fs::remove_file(window).unwrap();
}

#[test]
fn who_is_stopped_for_a_while_learns_that_and_that_it_is_excluded_and_comes_back_as_a_new_member() {
    for transport in ["udp", "shm", "uring"] {
        let group = format!("away-{transport}-{}", std::process::id());
        let (at, stack) = (addresses(transport), patient_stack());
        let open = |n: usize, more: &[&str]| {
            Shell::open(transport, &group, &at[n], &[&["--stack", &stack], more].concat())
        };
        let mut others = [open(0, &[]), open(1, &["--peers", &at[0]])];
        others.iter_mut().for_each(|shell| drop(shell.sees(", 2 members: ")));
        // One that comes back, and one that does not.
        for again in [true, false] {
            let more: &[&str] = if again { &["--rejoin"] } else { &[] };
            let mut away = open(2, &[&["--peers", &at[0]], more].concat());
            away.sees(", 3 members: ");
            others.iter_mut().for_each(|shell| drop(shell.sees(", 3 members: ")));
            away.signal("-STOP");
            others.iter_mut().for_each(|shell| drop(shell.sees(&format!("failed: {}", at[2]))));
            away.signal("-CONT");
            // First that it was away; then what that has led to.
            away.sees("excluded: ");
            let paused =
                away.seen.iter().filter_map(|line| line.strip_prefix("this process did not run for "));
            let paused: Vec<f64> =
                paused.map(|lasting| lasting[..lasting.len() - 3].parse().unwrap()).collect();
            assert!(paused.iter().any(|millis| *millis >= 500.0), "{transport}: {:#?}", away.seen);
            if again {
                away.sees("joining again, as a new member");
                away.sees(", 3 members: ");
                others.iter_mut().for_each(|shell| drop(shell.sees(&format!("joined: {}", at[2]))));
                away.type_line("I am back");
                others[1].sees(&format!("<{}> I am back", at[2]));
                away.type_line("/leave");
                assert!(away.node.wait().unwrap().success());
                others.iter_mut().for_each(|shell| drop(shell.sees(&format!("left: {}", at[2]))));
            } else {
                away.sees("with --rejoin it would join again");
                assert_eq!(away.node.wait().unwrap().code(), Some(1));
            }
        }
    }
}

#[test]
fn a_running_member_is_looked_at_through_its_window() {
    let at = addresses("udp");
    let group = format!("window-{}", std::process::id());
    let window = std::env::temp_dir().join(format!("wadjet-node-window-{}", std::process::id()));
    let path = window.to_str().unwrap();
    // A layer that wants to see every message: they all miss their plans, for its sake.
    let stack = format!("TRACE(fast=no):{}", patient_stack());
    let mut first = Shell::open("udp", &group, &at[0], &["--stack", &stack, "--window", path]);
    let mut second = Shell::open("udp", &group, &at[1], &["--stack", &stack, "--peers", &at[0]]);
    first.sees(", 2 members: ");
    first.type_line("can you see me?");
    second.sees("can you see me?");
    first.type_line(&format!("/send {} and now?", at[1]));
    second.sees("and now?");
    second.type_line("I can");
    first.sees("I can");
    second.type_line(&format!("/send {} I still can", at[0]));
    first.sees("I still can");
    let look = |more: &[&str]| {
        let arguments = [&["explain", "--live", path], more].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_wadjet")).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &said)
    };
    let (code, text) = look(&[]);
    assert_eq!(code, Some(0), "{text}");
    for words in ["TRACE(fast=no):EVS:", "of 2", "hit rate", "misses, by plan, layer and reason", "1  casts"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let (_, text) = look(&["--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["numbers"]["casts"], 1, "{text}");
    let misses = report["misses"].as_array().unwrap();
    let (traced, full) = (("TRACE", "it traces every message (fast=no)"), ("stack", "full header"));
    for (plan, (layer, reason)) in
        [("cast-send", traced), ("send-send", traced), ("cast-deliver", full), ("send-deliver", full)]
    {
        let is_it = |miss: &serde_json::Value| {
            miss["plan"] == plan && miss["layer"] == layer && miss["reason"] == reason
        };
        assert!(misses.iter().any(is_it), "{plan}: {text}");
    }
    // Every miss has its reason.
    let number = |name: &str| report["numbers"][name].as_u64().unwrap();
    let reasons: u64 = misses.iter().map(|miss| miss["count"].as_u64().unwrap()).sum();
    assert_eq!(reasons, number("send_miss") + number("deliver_miss"), "{text}");
    assert_eq!(number("send_hit") + number("deliver_hit"), 0, "{text}");
    // The three messages to the other and the two of it, at least.
    assert!(number("transport_frames_sent") >= 3 && number("transport_frames_received") >= 2, "{text}");
    assert!(number("transport_system_calls") > 0 && report["numbers"]["transport_dropped"] == 0, "{text}");
    let (code, text) = look(&["NAK:COM"]);
    assert!(code == Some(2) && text.contains("not NAK:COM"), "{text}");
    first.type_line("/leave");
    first.sees("left the group");
    assert!(first.node.wait().unwrap().success());
    assert!(!window.exists());
    let (code, text) = look(&[]);
    assert!(code == Some(2) && text.contains("nobody answers"), "{text}");
}

#[test]
fn without_a_group_or_with_a_stack_that_cannot_live_the_error_says_what_to_do() {
    for (arguments, words) in [
        (&["--address", "127.0.0.1:0"][..], "--group"),
        (&["--group", "g", "--address", "nowhere"], "nowhere"),
        (&["--group", "g", "--address", "127.0.0.1:0", "--stack", "FC:COM"], "FC"),
        (&["--group", "g", "--address", "127.0.0.1:0", "--stack", "NAK:CHKSUM:COM"], "MBRSHIP"),
        (
            &["--group", "g", "--address", "127.0.0.1:0", "--peers", "localhost:7001"],
            "`localhost:7001` cannot be used",
        ),
        (&["--group", "g", "--address", "127.0.0.1:0", "--peers", "10.78.0.1:7000"], "loopback"),
        (&["--group", "", "--address", "127.0.0.1:0"], "--group"),
        (
            &["--group", "g", "--address", "a", "--transport", "shm", "--discover", "239.255.87.74:7487"],
            "--discover 239.255.87.74:7487 with --transport shm",
        ),
        (
            &[
                "--group",
                "g",
                "--address",
                "127.0.0.1:0",
                "--stack",
                "MBRSHIP:SUSPECT(least_ms=50,most_ms=20):STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
            ],
            "parameter most_ms=20: it may not be less than least_ms, which is 50 ms",
        ),
    ] {
        let output = Command::new(PROGRAM).arg("node").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_line_that_is_no_text_is_cast_as_it_is_and_those_behind_it_too() {
    let (at, stack) = (addresses("udp"), patient_stack());
    let group = format!("bytes-{}", std::process::id());
    let mut first = Shell::open("udp", &group, &at[0], &["--stack", &stack]);
    let mut second = Shell::open("udp", &group, &at[1], &["--stack", &stack, "--peers", &at[0]]);
    second.sees(", 2 members: ");
    second.input.as_mut().unwrap().write_all(b"caf\xe9 at four\n").unwrap();
    second.type_line("and tea");
    first.sees(&format!("<{}> caf\u{fffd} at four", at[1]));
    first.sees(&format!("<{}> and tea", at[1]));
}

#[test]
fn what_is_piped_in_waits_for_those_that_are_looked_for() {
    let (at, stack) = (addresses("udp"), patient_stack());
    let group = format!("piped-{}", std::process::id());
    let mut first = Shell::open("udp", &group, &at[0], &["--stack", &stack]);
    first.sees(", 1 member: ");
    let mut second = Shell::open("udp", &group, &at[1], &["--stack", &stack, "--peers", &at[0]]);
    second.type_line("tea is ready");
    second.close_input();
    first.sees(&format!("<{}> tea is ready", at[1]));
    first.sees(&format!("left: {} (it asked to)", at[1]));
    assert!(second.node.wait().unwrap().success());
    // Who is looked for by nobody is heard by nobody, and is told.
    first.type_line("is anybody there?");
    first.sees(&format!("<{}> is anybody there?", at[0]));
    first.sees("delivered to this member alone");
}

#[test]
fn a_member_to_which_nobody_listens_any_more_ends_quietly() {
    for transport in ["udp", "shm"] {
        let address = &addresses(transport)[0];
        let mut command = Command::new(PROGRAM);
        let (reader, writer) = std::io::pipe().unwrap();
        command.args(["node", "--transport", transport, "--group", "unheard", "--address", address]);
        command.args(["--leave-after", "60"]).stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
        let mut node = command.spawn().unwrap();
        // It has the only other end.
        drop(command);
        let mut lines = BufReader::new(reader).lines();
        assert!(lines.next().unwrap().unwrap().contains(", 1 member: "));
        drop(lines);
        writeln!(node.stdin.as_mut().unwrap(), "is anybody there?").unwrap();
        let output = node.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), &*said), (Some(141), ""), "{transport}");
    }
}

#[test]
fn who_meets_another_group_is_told_so_in_words_and_each_calls_its_own_by_its_name() {
    let (at, stack) = (addresses("udp"), patient_stack());
    let name = |what: &str| format!("{what}-{}", std::process::id());
    let [tea, coffee] = ["tea", "coffee"].map(name);
    let another = |name: &str| {
        let hash = wadjet::GroupId::named(name);
        format!("another group (names are not sent; the hash of its name is {hash})")
    };
    let mut first = Shell::open("udp", &tea, &at[0], &["--stack", &stack]);
    first.sees(", 1 member: ");
    let mut second = Shell::open("udp", &coffee, &at[1], &["--stack", &stack, "--peers", &at[0]]);
    let [one, other] = [&at[0], &at[1]];
    first.sees(&format!("{other} looks for {} at {one}, which is in group {tea}: ", another(&coffee)));
    second.sees(&format!("{other} looks for group {coffee} at {one}, which is in {}: ", another(&tea)));
}

#[test]
fn who_is_not_let_in_is_told_why_and_that_it_stays_alone_and_ends_with_1() {
    let (at, stack) = (addresses("udp"), patient_stack());
    let group = format!("refused-{}", std::process::id());
    let mut first = Shell::open("udp", &group, &at[0], &["--stack", &stack]);
    first.sees(", 1 member: ");
    let other_stack = stack.replace("EVS:", "");
    let mut second = Shell::open("udp", &group, &at[1], &["--stack", &other_stack, "--peers", &at[0]]);
    second.sees("they cannot be in one view");
    second.sees("this member stays alone");
    second.type_line("/leave");
    second.sees(&format!("it was never in a view with anybody: nobody at {} has let it in", at[0]));
    assert_eq!(second.node.wait().unwrap().code(), Some(1));
    // Who looks for nobody is told as well, and stays open to others.
    first.sees("they cannot be in one view");
    first.type_line("/leave");
    first.sees("left the group");
    assert!(first.node.wait().unwrap().success());
    assert!(!first.seen.iter().any(|line| line.contains("stays alone")), "{:#?}", first.seen);
}

#[test]
fn over_shared_memory_who_looks_for_a_group_where_there_is_another_is_told_so() {
    let name = |what: &str| format!("{what}-{}", std::process::id());
    let [tea, coffee, alice] = ["tea", "coffee", "alice"].map(name);
    let mut first = Shell::open("shm", &tea, &alice, &[]);
    first.sees(", 1 member: ");
    let mut second = Shell::open("shm", &coffee, &name("bob"), &["--peers", &alice]);
    let hash = wadjet::GroupId::named(&tea);
    second.sees(&format!(
        "nobody of group {coffee} is at {alice}, but somebody of another group (names are not sent; the hash of its name \
         is {hash}) is"
    ));
    second.type_line("/leave");
    second.sees("it was never in a view with anybody");
    assert_eq!(second.node.wait().unwrap().code(), Some(1));
    // Where there is nobody at all, nothing is said of others.
    let mut third = Shell::open("shm", &coffee, &name("carol"), &["--peers", &name("nobody")]);
    third.sees("nobody has answered at nobody-");
    assert!(!third.seen.iter().any(|line| line.contains("another group")), "{:#?}", third.seen);
}

#[test]
fn whose_only_peer_is_itself_is_told_that_it_looks_for_nobody() {
    let at = addresses("udp");
    let mut alone = Shell::open("udp", "tea", &at[0], &["--peers", &at[0]]);
    alone.sees("--peers names nobody but this member itself");
    alone.type_line("/leave");
    alone.sees("left the group");
    assert!(alone.node.wait().unwrap().success());
}

#[test]
fn whatever_ends_a_member_is_in_the_help() {
    let at = addresses("udp");
    for (word, at) in ["/leave", "/quit", "/exit"].into_iter().zip(&at) {
        let mut shell = Shell::open("udp", "tea", at, &[]);
        shell.type_line("/help");
        shell.sees(word);
        shell.type_line(word);
        shell.sees("left the group");
        assert!(shell.node.wait().unwrap().success());
    }
}

/// What a group has in shared memory.
fn in_shared_memory(group: &str) -> Vec<String> {
    let begins = format!("wadjet-{}-", GroupId::named(group));
    let names = std::fs::read_dir("/dev/shm").unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&begins)).collect()
}

#[test]
fn who_is_asked_to_end_by_a_signal_leaves_and_nothing_of_it_remains() {
    for transport in ["udp", "shm", "uring"] {
        let group = format!("asked-{transport}-{}", std::process::id());
        let (at, stack) = (addresses(transport), patient_stack());
        let mut shells = vec![Shell::open(transport, &group, &at[0], &["--stack", &stack])];
        let more = ["--stack", &stack, "--peers", &at[0], "--rejoin"];
        shells.extend((1..3).map(|n| Shell::open(transport, &group, &at[n], &more)));
        for shell in &mut shells {
            shell.sees(", 3 members: ");
        }
        assert_eq!(in_shared_memory(&group).is_empty(), transport != "shm");
        for signal in ["SIGTERM", "SIGHUP", "SIGINT"] {
            let mut asked = shells.pop().unwrap();
            asked.signal(&signal.replace("SIG", "-"));
            asked.sees(&format!("{signal}: leaving the group"));
            asked.sees("left the group");
            assert!(asked.node.wait().unwrap().success(), "{transport}: {:#?}", asked.seen);
            for other in &mut shells {
                other.sees(&format!("left: {} (it asked to)", asked.address));
                assert!(!other.seen.iter().any(|line| line.contains("suspected")), "{:#?}", other.seen);
            }
        }
        assert_eq!(in_shared_memory(&group), [""; 0], "{transport}");
    }
}

#[test]
fn when_all_are_asked_to_end_by_a_signal_all_leave_and_nobody_is_suspected() {
    for transport in ["udp", "shm"] {
        let group = format!("all-asked-{transport}-{}", std::process::id());
        let (at, stack) = (addresses(transport), patient_stack());
        let mut shells = vec![Shell::open(transport, &group, &at[0], &["--stack", &stack])];
        let more = ["--stack", &stack, "--peers", &at[0]];
        shells.extend((1..3).map(|n| Shell::open(transport, &group, &at[n], &more)));
        for shell in &mut shells {
            shell.sees(", 3 members: ");
        }
        shells.iter().for_each(|shell| shell.signal("-INT"));
        for shell in &mut shells {
            shell.sees("left the group");
            assert!(shell.node.wait().unwrap().success(), "{transport}: {:#?}", shell.seen);
            assert!(!shell.seen.iter().any(|line| line.contains("suspected")), "{:#?}", shell.seen);
        }
        assert_eq!(in_shared_memory(&group), [""; 0], "{transport}");
    }
}

#[test]
fn a_second_signal_ends_at_once_and_without_one_the_others_are_waited_for_for_a_time() {
    // Nobody is taken for failed while this lasts, so that who leaves waits for who is stopped.
    let stack = wadjet::layers::DEFAULT_STACK.replace("SUSPECT", "SUSPECT(least_ms=30000,most_ms=30000)");
    for (again, code, words) in
        [(true, 130, "once more ends this at once"), (false, 1, "ended before the others agreed")]
    {
        let (at, group) = (addresses("udp"), format!("twice-{again}-{}", std::process::id()));
        let mut first = Shell::open("udp", &group, &at[0], &["--stack", &stack]);
        let mut second = Shell::open("udp", &group, &at[1], &["--stack", &stack, "--peers", &at[0]]);
        first.sees(", 2 members: ");
        second.sees(", 2 members: ");
        first.signal("-STOP");
        second.signal("-INT");
        second.sees("SIGINT: leaving the group, within 2 s");
        if again {
            second.signal("-INT");
        } else {
            second.sees(words);
        }
        assert_eq!(second.node.wait().unwrap().code(), Some(code), "{:#?}", second.seen);
    }
}

#[test]
fn who_is_asked_to_end_leaves_also_when_nobody_reads_what_it_says() {
    let (at, stack) = (addresses("udp"), patient_stack());
    let group = format!("unread-{}", std::process::id());
    let mut first = Shell::open("udp", &group, &at[0], &["--stack", &stack]);
    first.sees(", 1 member: ");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["node", "--group", &group, "--address", &at[1], "--stack", &stack, "--peers", &at[0]]);
    command.args(["--leave-after", "120"]).stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
    let node = command.spawn().unwrap();
    // It has the only other end.
    drop(command);
    let mut lines = BufReader::new(reader).lines();
    assert!(lines.any(|line| line.unwrap().contains("joined: ")), "and that is the last line");
    drop(lines);
    first.sees(", 2 members: ");
    let sent = Command::new("kill").args(["-INT", &node.id().to_string()]).status();
    assert!(sent.unwrap().success());
    first.sees(&format!("left: {} (it asked to)", at[1]));
    let output = node.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
}

#[test]
fn a_signal_that_a_member_was_started_to_ignore_it_ignores() {
    let at = addresses("udp");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' INT; exec \"$0\" \"$@\"", PROGRAM]);
    let mut shell = Shell::open_by(command, "udp", "tea", &at[0], &[]);
    shell.sees(", 1 member: ");
    shell.signal("-INT");
    shell.type_line("still here");
    shell.sees("still here");
    shell.signal("-TERM");
    shell.sees("left the group");
    assert!(!shell.seen.iter().any(|line| line.contains("SIGINT")), "{:#?}", shell.seen);
    assert!(shell.node.wait().unwrap().success());
}

#[test]
fn who_meets_nobody_at_its_contacts_says_so_once() {
    let at = addresses("udp");
    let mut alone =
        Shell::open("udp", "tea", &at[0], &["--peers", &format!("{},{},{}", at[0], at[1], at[2])]);
    alone.type_line("hello?");
    alone.sees(&format!("nobody has answered at {}, {} and let this member in", at[1], at[2]));
    alone.sees("hello?");
    alone.sees("delivered to this member alone");
    alone.type_line("/leave");
    alone.sees("left the group");
    let told = alone.seen.iter().filter(|line| line.contains("nobody has answered")).count();
    assert_eq!(told, 1, "{:#?}", alone.seen);
}
