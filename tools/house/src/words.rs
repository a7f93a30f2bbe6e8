//! Words that do not belong in a repository: paths of one machine, hosts that a build would lean on.
//!
//! A build takes packages from whatever registry cargo is set up with, and a test makes the places it needs; a file
//! that names a host or somebody's folder works in one place only. The lock file is cargo's and is not looked at.

use std::path::Path;

use crate::Complaints;

/// Foreign words in `text`, the content of the file at `path`.
pub fn check(path: &Path, text: &str) -> Complaints {
    if path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let foreign = foreign();
    let mut complaints = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for word in foreign.iter().filter(|word| line.contains(word.as_str())) {
            complaints.push(format!("{}:{}: `{word}` does not belong here", path.display(), at + 1));
        }
    }
    complaints
}

/// Put together from halves, so that this file passes its own check.
fn foreign() -> Vec<String> {
    const FOLDERS: [&str; 5] = ["work", "home", "root", "Users", "tmp/wt"];
    const HOSTS: [(&str, &str); 8] = [
        ("crates", "io"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("debian", "org"),
        ("golang", "org"),
        ("static.rust-lang", "org"),
    ];
    let folders =
        FOLDERS.iter().map(|folder| format!("/{folder}{}", if folder.contains('/') { "" } else { "/" }));
    folders.chain(HOSTS.iter().map(|(name, zone)| format!("{name}.{zone}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_machine_and_a_host_are_found_with_their_line() {
        let text = format!("fine\nsee {}work/thing\nfrom https://{}.io\n", '/', "crates");
        let found = check(Path::new("a.md"), &text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a.md:2:") && found[1].starts_with("a.md:3:"), "{found:?}");
        assert!(check(Path::new("Cargo.lock"), &text).is_empty());
    }

    #[test]
    fn ordinary_paths_pass() {
        assert!(
            check(Path::new("a.md"), "src/view.rs /dev/shm/wadjet /proc/self/maps network/x\n").is_empty()
        );
    }
}
