//! Memory limits that the kernel puts on a container: control groups, of both versions.

use std::path::{Path, PathBuf};

/// The files of one version of control groups.
struct Version {
    /// Where they are mounted.
    mount: &'static str,
    limit: &'static str,
    taken: &'static str,
    /// Lines of `memory.stat` with the pages of files, which go where memory is needed.
    files: [&'static str; 2],
}

const SECOND: Version =
    Version { mount: "", limit: "memory.max", taken: "memory.current", files: ["inactive_file", "active_file"] };
const FIRST: Version = Version {
    mount: "memory",
    limit: "memory.limit_in_bytes",
    taken: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};

/// Bytes that the control groups of this process leave; `None` without a limit. `groups` is the text of
/// `/proc/self/cgroup`, `root` the folder `/sys/fs/cgroup`, and `read` gives the text of a file.
pub(super) fn left(groups: &str, root: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut least = None;
    for (version, group) in groups.lines().filter_map(named) {
        let mount = root.join(version.mount);
        // Within a container the path may be the host's, of which nothing is mounted but the group itself: at the root.
        for folder in group.ancestors().map(|group| mount.join(group)) {
            let left = left_in(&folder, version, &read);
            least = least.min(left).or(least).or(left);
        }
    }
    least
}

/// The version of a line of `/proc/self/cgroup` and its group's path below the mount.
fn named(line: &str) -> Option<(&'static Version, PathBuf)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let version = match controllers {
        "" => &SECOND,
        _ if controllers.split(',').any(|controller| controller == "memory") => &FIRST,
        _ => return None,
    };
    Some((version, path.trim_start_matches('/').into()))
}

/// Bytes that one group leaves.
fn left_in(folder: &Path, version: &Version, read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
    let (limit, taken) = (number(version.limit)?, number(version.taken)?);
    let stat = read(&folder.join("memory.stat")).unwrap_or_default();
    let pages = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<u64>().ok()
    };
    let files = version.files.into_iter().filter_map(pages).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(taken.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn left_of(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<&Path, &str> = files.iter().map(|&(path, text)| (Path::new(path), text)).collect();
        left(groups, Path::new("/cg"), |path| files.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_least_that_a_group_or_one_above_it_leaves_is_left() {
        let files = [
            ("/cg/a/memory.max", "1000\n"),
            ("/cg/a/memory.current", "300\n"),
            ("/cg/a/b/memory.max", "max\n"),
            ("/cg/a/b/memory.current", "200\n"),
        ];
        assert_eq!(left_of("0::/a/b\n", &files), Some(700));
        assert_eq!(left_of("0::/c\n", &files), None);
        assert_eq!(left_of("", &files), None);
        let tight = [files.as_slice(), &[("/cg/memory.max", "100"), ("/cg/memory.current", "400")]].concat();
        assert_eq!(left_of("0::/a/b\n", &tight), Some(0));
    }

    #[test]
    fn pages_of_files_can_be_had() {
        let files = [
            ("/cg/memory/memory.limit_in_bytes", "1000"),
            ("/cg/memory/memory.usage_in_bytes", "900"),
            ("/cg/memory/memory.stat", "cache 7\ninactive_file 1\ntotal_inactive_file 300\ntotal_active_file 100\n"),
        ];
        // The host's path, of which the container sees the end alone.
        assert_eq!(left_of("5:cpu:/\n4:hugetlb,memory:/docker/12ab\n0::/\n", &files), Some(500));
    }
}
