//! The documents: links, and the README's example.

use std::path::Path;

use crate::Complaints;

/// Relative links in `text`, the content of the document at `path` (relative to `root`), that lead nowhere.
///
/// Links with a scheme and links inside the same document are left alone.
pub fn dead_links(root: &Path, path: &Path, text: &str) -> Complaints {
    let folder = root.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    links(text)
        .filter(|target| {
            !target.contains("://") && !target.starts_with('#') && !target.starts_with("mailto:")
        })
        .filter_map(|target| {
            let file = target.split('#').next().unwrap_or_default();
            (!folder.join(file).exists())
                .then(|| format!("{}: the link to `{target}` is dead", path.display()))
        })
        .collect()
}

/// The first fenced block of `text` after the comment `<!-- NAME -->`, without its fences.
pub fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let marker = format!("<!-- {name} -->");
    let rest = &text[text.find(&marker)? + marker.len()..];
    let rest = &rest[rest.find("```")?..];
    let rest = &rest[rest.find('\n')? + 1..];
    Some(&rest[..rest.find("```")?])
}

/// What keeps the README's block `name` from being the content of the file it shows.
pub fn shown(readme: &str, name: &str, file: &str) -> Complaints {
    match block(readme, name) {
        None => vec![format!("README.md has no block `{name}`")],
        Some(shown) if shown.trim() == file.trim() => Vec::new(),
        Some(_) => vec![format!("README.md: block `{name}` is not the file it shows; copy the file into it")],
    }
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines()
        .filter(move |line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_is_found_and_a_live_one_is_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text =
            "[a](Cargo.toml) [b](src/lib.rs#top) [c](gone.md) [d](#here) [e](scheme://x)\n```\nx](y)\n```\n";
        let found = dead_links(root, Path::new("README.md"), text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("gone.md"), "{found:?}");
    }

    #[test]
    fn a_block_is_found_by_its_comment() {
        let text = "x\n<!-- command: bench -->\n```sh\nrun me\n```\n<!-- command: test -->\n```\na\nb\n```\n";
        assert_eq!(block(text, "command: bench"), Some("run me\n"));
        assert_eq!(block(text, "command: test"), Some("a\nb\n"));
        assert_eq!(block(text, "command: none"), None);
    }

    #[test]
    fn an_example_that_differs_is_named() {
        let readme = "<!-- hello -->\n```rust\nfn main() {}\n```\n";
        assert!(shown(readme, "hello", "fn main() {}\n").is_empty());
        assert_eq!(shown(readme, "hello", "fn main() { }\n").len(), 1);
        assert_eq!(shown(readme, "other", "").len(), 1);
    }
}
