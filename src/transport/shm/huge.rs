//! Whether segments are on huge pages. A tmpfs decides that for all of its files, when it is mounted.

use std::path::{Path, PathBuf};

/// What stands in the way of huge pages for files in `directory`, and what to do; `None` if nothing does.
pub(super) fn hindrance(directory: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    if options_of(&mounts, &place).is_some_and(gives_huge_pages) {
        return None;
    }
    Some(format!(
        "segments are on ordinary pages: `{}` does not give huge ones; mount a tmpfs that does \
         (mount -t tmpfs -o huge=within_size,mode=1777 tmpfs DIRECTORY) and name it to all members as ShmOptions::directory",
        directory.display()
    ))
}

/// The options of the file system that holds `place`, of the lines of `/proc/self/mountinfo`.
fn options_of<'m>(mounts: &'m str, place: &Path) -> Option<&'m str> {
    let mount = |line: &'m str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = PathBuf::from(mount.split(' ').nth(4)?.replace("\\040", " "));
        place.starts_with(&point).then_some((point, file_system.split(' ').nth(2)?))
    };
    // Of those mounted on one another, the last is the one that is seen.
    let of_place = mounts.lines().filter_map(mount);
    of_place.max_by_key(|(point, _)| point.components().count()).map(|(_, options)| options)
}

fn gives_huge_pages(options: &str) -> bool {
    options.split(',').any(|option| matches!(option, "huge=always" | "huge=within_size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides_and_of_those_the_last() {
        let mounts = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
22 21 0:19 / /dev/shm rw,nosuid shared:2 - tmpfs tmpfs rw,size=64k\n\
23 21 0:40 / /mnt/my\\040rings rw - tmpfs tmpfs rw,huge=always,size=1g\n\
24 21 0:41 / /mnt/twice rw - tmpfs tmpfs rw,huge=always\n\
25 24 0:42 / /mnt/twice rw - tmpfs tmpfs rw,huge=never\n";
        let huge = |place: &str| options_of(mounts, Path::new(place)).is_some_and(gives_huge_pages);
        assert!(huge("/mnt/my rings") && huge("/mnt/my rings/below"));
        assert!(!huge("/dev/shm") && !huge("/home") && !huge("/mnt/twice") && !huge("/mnt/my"));
    }
}
