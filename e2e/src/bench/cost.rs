//! What processes and this machine cost, out of `/proc`.

use std::time::Duration;

use anyhow::Context;

use crate::os;

/// CPU time of a whole process, user and system; in steps of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("{path}: is that process running?"))?;
    // The name, field 2, is in brackets and may hold spaces; utime and stime are fields 14 and 15.
    let fields = stat.rsplit_once(')').context("stat without a name")?.1;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / os::ticks_per_second() as f64))
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn rss(pid: u32) -> anyhow::Result<u64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// How many files and sockets a process has open.
///
/// # Errors
/// When there is no such process, or it is not ours.
pub fn files(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/fd");
    let files = std::fs::read_dir(&path).with_context(|| format!("{path}: is that process running?"))?;
    Ok(files.count() as u64)
}

/// Reads `name:  n kB`, in bytes.
fn field(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{path}: is that process running?"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// How many cores the machine has, also when we keep ourselves to one of them.
pub fn cores() -> usize {
    let list = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    list.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// Cores, memory and kernel, in one line.
///
/// # Errors
/// When `/proc` is not what Linux shows.
pub fn machine() -> anyhow::Result<String> {
    let memory = field("/proc/meminfo", "MemTotal:")? >> 30;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{} cores, {memory} GiB, Linux {}", cores(), kernel.trim()))
}

/// Keeps every thread of a process on one core, and those it starts later.
///
/// # Errors
/// When there is no such process or core.
pub fn pin_process(pid: u32, core: usize) -> anyhow::Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = thread?.file_name();
        let thread = name.to_string_lossy().parse()?;
        os::pin(thread, core).with_context(|| format!("pinning thread {thread} of {pid} to core {core}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_a_machine_has_cores() {
        assert!(rss(std::process::id()).unwrap() > 1 << 20);
        assert!(machine().unwrap().contains(" cores, "));
        assert!(cpu(u32::MAX).is_err());
    }

    #[test]
    fn an_open_file_is_counted_until_it_is_closed() {
        // Other tests open and close files at the same time, but not this many.
        let me = std::process::id();
        let before = files(me).unwrap();
        let open: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let during = files(me).unwrap();
        drop(open);
        assert!(during > before + 100 && files(me).unwrap() < during - 100);
        assert!(files(u32::MAX).is_err());
    }

    #[test]
    fn work_shows_as_cpu_time() {
        let (me, mut sum) = (std::process::id(), 0_u64);
        let before = cpu(me).unwrap();
        while cpu(me).unwrap() == before {
            (0..1_000_000).for_each(|step| sum = std::hint::black_box(sum + step));
        }
        assert!(cpu(me).unwrap() > before);
    }
}
