//! Memory of the machine, as far as Linux tells.

use std::fs::read_to_string;
use std::path::Path;

/// Bytes of memory and swap of the machine, where that is known. What is free
/// now says little: weights are mapped, and pages of others may make room.
pub(super) fn total() -> Option<u64> {
    let info = read_to_string("/proc/meminfo").ok()?;
    Some((field(&info, "MemTotal:")? + field(&info, "SwapTotal:")?) * 1024)
}

/// A version of control groups: where they are, their files, and the lines of
/// `memory.stat` for cached files and those of them that are in memory only.
struct Groups {
    root: &'static str,
    limits: &'static [&'static str],
    used: &'static str,
    cached: [&'static str; 2],
}

const VERSION_1: Groups = Groups {
    root: "/sys/fs/cgroup/memory",
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    cached: ["total_cache ", "total_shmem "],
};

const VERSION_2: Groups = Groups {
    root: "/sys/fs/cgroup",
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    cached: ["file ", "shmem "],
};

/// Bytes that could be had without taking them from other programs, or from a
/// limit of the control groups that this process is in; file caches count as
/// free. None where that is not known.
pub(super) fn available() -> Option<u64> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let machine = field(&info, "MemAvailable:")? * 1024;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(left_in(&groups).fold(machine, u64::min))
}

/// Bytes that each limited group leaves, by the content of `/proc/self/cgroup`.
fn left_in(groups: &str) -> impl Iterator<Item = u64> {
    groups.lines().flat_map(|line| {
        // Number, controllers and path; version 2 has no controllers there.
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next().unwrap_or_default();
        let version = match controllers {
            "" => Some(&VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => Some(&VERSION_1),
            _ => None,
        };
        let path = parts
            .next()
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned();
        version.into_iter().flat_map(move |version| {
            // What contains a group limits it, too. In a container the path may
            // be that of the host, and the root the group itself.
            let group = Path::new(version.root).join(&path);
            let all = group.ancestors().map(Path::to_path_buf);
            all.take_while(|at| at.starts_with(version.root))
                .filter_map(|at| left(&at, version))
                .collect::<Vec<_>>()
        })
    })
}

/// Bytes left to a control group; none if it has no limit.
fn left(group: &Path, version: &Groups) -> Option<u64> {
    let number = |name: &str| {
        read_to_string(group.join(name))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let limit = version
        .limits
        .iter()
        .filter_map(|name| number(name))
        .min()?;
    let told = read_to_string(group.join("memory.stat")).ok()?;
    let [cached, shared] = version.cached.map(|key| field(&told, key));
    let cached = cached?.saturating_sub(shared?);
    Some(limit.saturating_sub(number(version.used)?.saturating_sub(cached)))
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
    #[cfg(target_os = "linux")]
    fn what_is_available_is_part_of_all() {
        let total = total().expect("Linux");
        assert!(available().is_none_or(|bytes| 0 < bytes && bytes < total));
    }

    #[test]
    fn a_group_has_what_its_limit_leaves_and_its_file_cache() {
        let group = std::env::temp_dir().join(format!("llm-group-{}", std::process::id()));
        std::fs::create_dir_all(&group).expect("a folder");
        let write = |name, text: &str| std::fs::write(group.join(name), text).expect(name);
        assert_eq!(left(&group, &VERSION_2), None);
        write("memory.current", "700\n");
        write(
            "memory.stat",
            "anon 300\nfile 260\nshmem 10\ntotal_cache 310\ntotal_shmem 10\n",
        );
        write("memory.max", "max\n");
        assert_eq!(left(&group, &VERSION_2), None);
        write("memory.max", "1000\n");
        assert_eq!(left(&group, &VERSION_2), Some(550));
        write("memory.high", "900\n");
        assert_eq!(left(&group, &VERSION_2), Some(450));
        write("memory.max", "100\n");
        assert_eq!(left(&group, &VERSION_2), Some(0));
        assert_eq!(left(&group, &VERSION_1), None);
        write("memory.limit_in_bytes", "1000\n");
        write("memory.usage_in_bytes", "800\n");
        assert_eq!(left(&group, &VERSION_1), Some(500));
        std::fs::remove_dir_all(&group).expect("a folder");
    }

    #[test]
    fn groups_that_are_not_there_leave_all() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/nowhere\n0::/nowhere/at/all\nnonsense";
        // But those of the root, which may have a limit.
        assert!(left_in(groups).all(|bytes| bytes > 0));
        assert_eq!(left_in("8:pids:/\n").count(), 0);
    }
}
