//! Memory of the machine, as far as Linux tells.

use std::fs::read_to_string;
use std::path::Path;

/// Bytes of memory and swap of the machine, where that is known. What is free
/// now says little: weights are mapped, and pages of others may make room.
pub(super) fn total() -> Option<u64> {
    let info = read_to_string("/proc/meminfo").ok()?;
    Some((field(&info, "MemTotal:")? + field(&info, "SwapTotal:")?) * 1024)
}

/// Bytes that could be had without taking them from other programs, or from a
/// limit of the control groups that this process is in; file caches count as
/// free.
pub(super) fn available() -> Option<u64> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let machine = field(&info, "MemAvailable:")? * 1024;
    let group = read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Version 2 has one line, "0::/path"; what contains a group limits it, too.
    let path = group.lines().find_map(|line| line.strip_prefix("0::/"));
    let limits = Path::new("/sys/fs/cgroup").join(path.unwrap_or_default());
    let groups = limits
        .ancestors()
        .take_while(|at| at.starts_with("/sys/fs/cgroup"));
    Some(groups.filter_map(available_in).fold(machine, u64::min))
}

/// Bytes left to a control group; none if it has no limit.
fn available_in(group: &Path) -> Option<u64> {
    let number = |name| {
        read_to_string(group.join(name))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let limit = number("memory.max")?;
    let used = number("memory.current")?;
    let told = read_to_string(group.join("memory.stat")).ok()?;
    let cached = field(&told, "file ")?;
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// The number that follows `key` at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_part_of_all() {
        let (available, total) = (available().expect("Linux"), total().expect("Linux"));
        assert!(0 < available && available < total);
    }

    #[test]
    fn a_group_has_what_its_limit_leaves_and_its_file_cache() {
        let group = std::env::temp_dir().join(format!("llm-group-{}", std::process::id()));
        std::fs::create_dir_all(&group).expect("a folder");
        let write = |name, text: &str| std::fs::write(group.join(name), text).expect(name);
        assert_eq!(available_in(&group), None);
        write("memory.current", "700\n");
        write("memory.stat", "anon 300\nfile 250\nfile_mapped 9\n");
        write("memory.max", "max\n");
        assert_eq!(available_in(&group), None);
        write("memory.max", "1000\n");
        assert_eq!(available_in(&group), Some(550));
        write("memory.max", "100\n");
        assert_eq!(available_in(&group), Some(0));
        std::fs::remove_dir_all(&group).expect("a folder");
    }
}
