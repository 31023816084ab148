//! What Linux says about this process and this machine. Elsewhere most of it is unknown and left out.

use std::fs;
use std::path::Path;

/// Ticks of a second in `/proc/self/stat`: `USER_HZ`, which is 100 on every architecture that Rust has.
const TICKS_PER_SECOND: f64 = 100.0;

/// Time that all threads of this process spent on a processor.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in parentheses and may hold spaces; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Bytes that this process caused to be sent to a disk.
pub(crate) fn written_bytes() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/self/io").ok()?, "write_bytes:")
}

/// Largest resident memory of this process since [`reset_peak_memory`].
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    Some(number_after(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")? << 10)
}

/// Makes the current resident memory the largest, if the system allows that.
pub(crate) fn reset_peak_memory() {
    // Not everyone may; the peak is then that of the whole process, which README.md says.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Type of the file system that holds `dir`, which exists.
pub(crate) fn file_system_of(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    file_system_in(&fs::read_to_string("/proc/self/mounts").ok()?, &dir)
}

fn file_system_in(mounts: &str, dir: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((Path::new(fields.next()?), fields.next()?))
        })
        .filter(|(mounted, _)| dir.starts_with(mounted))
        // Of two mounts in one place, the later hides the earlier.
        .max_by_key(|(mounted, _)| mounted.as_os_str().len())
        .map(|(_, kind)| kind.to_owned())
}

/// One line about processor, memory and load.
pub(crate) fn description() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = number_after(&read("/proc/meminfo"), "MemTotal:").map_or(0, |kib| kib >> 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} × {cpu}, {memory} GiB, Linux {}, load {load} at the start", kernel.trim())
}

fn number_after(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_tells_the_file_system() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n/dev/b /data xfs rw 0 0\n/dev/c /data btrfs rw 0 0\n";
        let kind = |dir| file_system_in(mounts, Path::new(dir));
        assert_eq!(kind("/home/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/dev/shm/x").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/data/x").as_deref(), Some("btrfs"));
        assert_eq!(kind("/database").as_deref(), Some("ext4"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_what_this_process_uses() {
        assert!(cpu_seconds().is_some());
        assert!(peak_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(file_system_of(Path::new("/proc")).is_some_and(|kind| kind == "proc"));
    }
}
