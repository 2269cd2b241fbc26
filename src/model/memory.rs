//! Memory that this process may still take, as far as the system says.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::control_groups;

/// The most bytes that are read of a file in `/proc` or `/sys`.
const LARGEST: u64 = 1 << 16;

/// Bytes that this process may take besides what it has: what the machine has free or can free, swap included, and what the
/// limits on the process (`ulimit -v`, `ulimit -d`) and on its container leave. `None` where the system does not say.
pub(super) fn left() -> Option<u64> {
    let by_process = left_by(&read("/proc/meminfo")?, &read("/proc/self/limits")?, &read("/proc/self/status")?)?;
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let by_container = control_groups::left(&groups, Path::new("/sys/fs/cgroup"), |path| read(path));
    Some(by_container.map_or(by_process, |left| left.min(by_process)))
}

/// The text of a file that the system makes up.
fn read(path: impl AsRef<Path>) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The bytes that a file like `/proc/self/status` or `/proc/meminfo` has, in kilobytes, under a name.
pub(crate) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The same by the texts of `/proc/meminfo`, `/proc/self/limits` and `/proc/self/status`.
fn left_by(machine: &str, limits: &str, process: &str) -> Option<u64> {
    let free = kilobytes(machine, "MemAvailable")?.saturating_add(kilobytes(machine, "SwapFree").unwrap_or(0));
    let below = |limit: &str, taken: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        let limit = line.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(limit.saturating_sub(kilobytes(process, taken)?))
    };
    let limits = [below("Max address space", "VmSize"), below("Max data size", "VmData")];
    Some(limits.into_iter().flatten().fold(free, u64::min))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "MemTotal:       24000000 kB\nMemAvailable:   2000 kB\nSwapFree:       500 kB\n";
    const PROCESS: &str = "Name:\tpaceline\nVmSize:\t  1000 kB\nVmData:\t   300 kB\n";

    fn limits(address_space: &str, data: &str) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \nMax data size             {data}            unlimited            bytes     \nMax address space         {address_space}            unlimited            bytes     \n"
        )
    }

    #[test]
    fn the_least_of_what_is_free_and_what_the_limits_leave_is_left() {
        let left = |space, data| left_by(MACHINE, &limits(space, data), PROCESS);
        assert_eq!(left("unlimited", "unlimited"), Some(2500 * 1024));
        assert_eq!(left("2048000", "unlimited"), Some(1000 * 1024));
        assert_eq!(left("unlimited", "512000"), Some(200 * 1024));
        assert_eq!(left("100", "unlimited"), Some(0));
        assert_eq!(left_by("", "", ""), None);
    }

    #[test]
    fn this_process_may_take_some() {
        match left() {
            Some(bytes) => assert!(bytes > 1 << 20, "{bytes}"),
            None => println!("skipped: this system does not say"),
        }
    }
}
