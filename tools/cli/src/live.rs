//! `wadjet explain --live`: what a running member says through its window (`wadjet::runtime::Window`).
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// How long a member may take to say something.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A longer report is none of ours.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// What a member said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    stack: String,
    view: String,
    member: String,
    numbers: Vec<(String, u64)>,
    /// How often, which plan, whose doing, why.
    misses: Vec<(u64, String, String, String)>,
    /// How often, who counted it, what.
    counts: Vec<(u64, String, String)>,
}

/// Prints what the member behind `path` says. With `stack`, it must be running that.
///
/// # Errors
/// If nobody is there, or what is said is no report.
pub(crate) fn run(path: &Path, stack: Option<&str>, json: bool) -> Result<bool, Box<dyn Error>> {
    let text = answer(path)?;
    let report = Report::parse(&text)?;
    if let Some(stack) = stack.filter(|stack| *stack != report.stack) {
        return Err(format!("the member at {} runs {}, not {stack}", path.display(), report.stack).into());
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report.object())?);
    } else {
        print!("{}", report.table());
    }
    Ok(true)
}

/// What is said at `path`; in words, why nothing is.
fn answer(path: &Path) -> Result<String, String> {
    let (say, said) = sync_channel(1);
    let window = path.to_owned();
    // A stopped process lets visitors in as long as there is room for them to wait, and says nothing.
    thread::spawn(move || say.send(ask(&window)));
    let path = path.display();
    match said.recv_timeout(ANSWER_MAX) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(format!(
            "nobody answers at {path}: {error}; start a member with a window there (wadjet node --window {path})"
        )),
        Err(_) => Err(format!(
            "the process behind {path} has said nothing for {} s: it is stopped (state T in `ps`; kill -CONT lets it go on) or \
             waits for a processor",
            ANSWER_MAX.as_secs()
        )),
    }
}

fn ask(path: &Path) -> std::io::Result<String> {
    let socket = UnixStream::connect(path)?;
    let mut text = String::new();
    socket.take(REPORT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl Report {
    fn parse(text: &str) -> Result<Report, String> {
        let mut lines = text.lines();
        if lines.next() != Some("wadjet report 1") {
            return Err("what answers there is not a member of this version of wadjet".to_owned());
        }
        let mut report = Report::default();
        for line in lines {
            let broken = || format!("a line that says nothing: `{line}`");
            let (about, rest) = line.split_once(' ').ok_or_else(broken)?;
            let mut words = rest.splitn(if about == "miss" { 4 } else { 3 }, ' ');
            let mut word = || words.next().map(str::to_owned).ok_or_else(broken);
            let mut number = || word()?.parse().map_err(|_| broken());
            match about {
                "error" => return Err(rest.to_owned()),
                "stack" => report.stack = rest.to_owned(),
                "view" => report.view = rest.to_owned(),
                "member" => report.member = rest.to_owned(),
                "number" => {
                    let number = number()?;
                    report.numbers.push((word()?, number));
                }
                "miss" => report.misses.push((number()?, word()?, word()?, word()?)),
                "count" => report.counts.push((number()?, word()?, word()?)),
                _ => {}
            }
        }
        report.misses.sort_by_key(|miss| std::cmp::Reverse(miss.0));
        Ok(report)
    }

    fn number(&self, name: &str) -> u64 {
        self.numbers.iter().find(|(known, _)| known == name).map_or(0, |(_, number)| *number)
    }

    fn table(&self) -> String {
        let mut text = format!("{}\nview {}, member {}\n\n", self.stack, self.view, self.member);
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            text.write_fmt(arguments).expect("strings take everything");
        };
        let rate = |hits: u64, misses: u64| match hits + misses {
            0 => 100.0,
            all => hits as f64 / all as f64 * 100.0,
        };
        let of = |name: &str| self.number(name);
        line(format_args!("{:10}{:>14}{:>14}{:>14}{:>12}\n", "", "hit", "early", "miss", "hit rate"));
        let (hit, miss) = (of("send_hit"), of("send_miss"));
        line(format_args!("{:10}{hit:>14}{:>14}{miss:>14}{:>10.3} %\n", "send", "", rate(hit, miss)));
        let (hit, early, miss) = (of("deliver_hit"), of("deliver_early"), of("deliver_miss"));
        let hit_rate = rate(hit + early, miss);
        line(format_args!("{:10}{hit:>14}{early:>14}{miss:>14}{hit_rate:>10.3} %\n", "deliver"));
        line(format_args!("\nmisses, by plan, layer and reason\n"));
        if self.misses.is_empty() {
            line(format_args!("  none\n"));
        }
        for (count, plan, layer, reason) in &self.misses {
            line(format_args!("{count:>12}  {plan:14}{layer:12}{reason}\n"));
        }
        line(format_args!("\ncounted\n"));
        // What stands in the head of the table is not told again.
        let told = ["send_hit", "send_miss", "deliver_hit", "deliver_early", "deliver_miss"];
        for (name, number) in &self.numbers {
            if *number == 0 || told.contains(&name.as_str()) {
                continue;
            }
            line(format_args!("{number:>12}  {}\n", name.replace('_', " ")));
        }
        for (count, layer, what) in &self.counts {
            line(format_args!("{count:>12}  {layer:12}{what}\n"));
        }
        text
    }

    fn object(&self) -> Value {
        let numbers: Map<String, Value> =
            self.numbers.iter().map(|(name, number)| (name.clone(), json!(number))).collect();
        let misses = self.misses.iter().map(|(count, plan, layer, reason)| {
            json!({ "plan": plan, "layer": layer, "reason": reason, "count": count })
        });
        let counts = self
            .counts
            .iter()
            .map(|(count, layer, what)| json!({ "layer": layer, "what": what, "count": count }));
        json!({
            "stack": self.stack,
            "view": self.view,
            "member": self.member,
            "numbers": numbers,
            "misses": misses.collect::<Vec<_>>(),
            "counts": counts.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let text = "wadjet report 1\nstack NAK:COM\nview 3@7\nmember 1 of 2\nnumber 5 send_hit\n\
                    miss 2 cast-deliver NAK guard gap\nmiss 9 cast-send stack full header\ncount 4 NAK casts repaired\n";
        let report = Report::parse(text).unwrap();
        assert_eq!(report.number("send_hit"), 5);
        assert_eq!(report.misses[0], (9, "cast-send".into(), "stack".into(), "full header".into()));
        assert_eq!(report.misses[1], (2, "cast-deliver".into(), "NAK".into(), "guard gap".into()));
        assert_eq!(report.counts, [(4, "NAK".into(), "casts repaired".into())]);
        assert!(report.table().contains("guard gap"));
    }

    #[test]
    fn what_is_no_report_is_refused_in_words() {
        assert!(Report::parse("HTTP/1.1 400 Bad Request").unwrap_err().contains("not a member"));
        assert!(Report::parse("wadjet report 1\nmiss x y").unwrap_err().contains("miss x y"));
        assert_eq!(Report::parse("wadjet report 1\nerror it is stopped"), Err("it is stopped".to_owned()));
    }
}
