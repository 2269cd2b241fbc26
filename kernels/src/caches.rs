//! Sizes of the machine's caches.

/// Size assumed for the largest cache where the system does not report one: an average desktop processor's.
const USUAL: usize = 16 << 20;

/// Bytes of the largest cache that the first processor has a part in.
#[cfg(target_os = "linux")]
pub(crate) fn largest_cache() -> usize {
    let told = std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache").into_iter().flatten().flatten();
    let sizes = told.filter_map(|cache| bytes(&std::fs::read_to_string(cache.path().join("size")).ok()?));
    sizes.max().unwrap_or(USUAL)
}

/// As above.
#[cfg(not(target_os = "linux"))]
pub(crate) fn largest_cache() -> usize {
    USUAL
}

/// A size as the system writes it, `32768K` or `32M`.
#[cfg(any(target_os = "linux", test))]
fn bytes(size: &str) -> Option<usize> {
    let size = size.trim();
    let (digits, unit) = match size.strip_suffix(['K', 'M', 'G']) {
        None => (size, 1),
        Some(digits) if size.ends_with('K') => (digits, 1 << 10),
        Some(digits) if size.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_system_writes_them() {
        let cases = [("48K\n", Some(48 << 10)), ("32M", Some(32 << 20)), ("1G", Some(1 << 30)), ("512", Some(512))];
        for (text, size) in
            cases.into_iter().chain([("", None), ("K", None), ("-1K", None), ("99999999999999999G", None)])
        {
            assert_eq!(bytes(text), size, "{text}");
        }
        assert!(largest_cache() >= 1 << 10);
    }
}
