//! The one door to the operating system that std has no words for: clocks and cores.
//!
//! Everything `unsafe` of this crate is here: four calls into libc that only write to memory we hand them.

#![allow(unsafe_code)]

use std::time::Duration;

/// `CLOCK_MONOTONIC`: the same in every process of this machine, so that one may stamp and another measure.
pub fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// CPU time that the calling thread has used, user and system.
pub fn thread_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill in, and outlives it.
    let answer = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(answer, 0, "both clocks exist on every Linux");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("nanoseconds are below 1e9"))
}

/// Clock ticks per second, the unit of `/proc/<pid>/stat`.
pub fn ticks_per_second() -> u64 {
    // SAFETY: takes and returns plain numbers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

/// Keeps a thread on one core: `thread` is a thread id, 0 for the caller; a process id names its main thread, whose
/// later threads inherit the choice.
///
/// # Errors
/// When there is no such core or thread.
pub fn pin(thread: u32, core: usize) -> std::io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit set, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `core` is below CPU_SETSIZE, so the bit is inside `set`.
    unsafe { libc::CPU_SET(core, &mut set) };
    let thread = libc::pid_t::try_from(thread).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    // SAFETY: `set` is a valid set of the size given, only read by the call.
    match unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_only_go_forward_and_a_thread_is_charged_for_its_work() {
        let (wall, cpu) = (monotonic(), thread_cpu());
        let mut sum = 0_u64;
        while thread_cpu() == cpu {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(monotonic() > wall);
        assert!(thread_cpu() > cpu);
    }

    #[test]
    fn a_core_that_does_not_exist_is_an_error() {
        assert!(pin(0, 1 << 20).is_err());
        assert!(ticks_per_second() > 0);
    }
}
