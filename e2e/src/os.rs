//! The one door to the operating system that std has no words for: clocks, cores, limits and networks.
//!
//! Everything `unsafe` of this crate is here: calls into libc that only touch memory we hand them.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

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

/// Sets how many files a process may open, within what it was allowed at most; returns how many it could before.
///
/// # Errors
/// When there is no such process, or it may not have so many.
pub fn limit_files(pid: u32, files: u64) -> std::io::Result<u64> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: with no new limit the call only fills in `limit`, which outlives it.
    if unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let before = std::mem::replace(&mut limit.rlim_cur, files);
    // SAFETY: `limit` is valid and only read; the old limit is not asked for.
    match unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) } {
        0 => Ok(before),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A file that can be waited for, by tasks of the runtime that we are in.
///
/// # Errors
/// When it is of a kind that cannot.
pub fn watched(file: File) -> std::io::Result<AsyncFd<File>> {
    // SAFETY: a file has the same descriptor until it is dropped, and then closes it.
    Ok(unsafe { AsyncFd::register(file) }?)
}

/// Moves the calling thread into a network namespace, which the open file is.
///
/// # Errors
/// When the file is none, or we are not root.
pub fn enter_network(namespace: &File) -> std::io::Result<()> {
    // SAFETY: takes a descriptor that is open for as long as `namespace` is borrowed, and a constant.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Makes a network namespace with nothing in it, which lives as long as somebody has this file, or lives in it.
///
/// # Errors
/// When we are not root.
pub fn new_network() -> std::io::Result<File> {
    let leave = || {
        // SAFETY: takes a constant, and moves only the calling thread, which ends.
        match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
            0 => File::open("/proc/thread-self/ns/net"),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    std::thread::scope(|scope| scope.spawn(leave).join()).expect("it only asks the system")
}

/// Lets a command, whenever it is started, live in a network namespace.
pub fn start_in_network(command: &mut Command, namespace: Arc<File>) {
    // SAFETY: between fork and exec only setns is called, which neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || enter_network(&namespace)) };
}

/// Lets a command, whenever it is started, have a `/dev/shm` that is its own and ends with it. It takes root.
pub fn start_with_own_memory(command: &mut Command) {
    let done = |status| if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    let mount = move || {
        let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        // SAFETY: all strings are constants that end in a zero, and no data is passed.
        unsafe {
            done(libc::unshare(libc::CLONE_NEWNS))?;
            done(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
            done(libc::mount(c"tmpfs".as_ptr(), c"/dev/shm".as_ptr(), c"tmpfs".as_ptr(), 0, none.cast()))
        }
    };
    // SAFETY: between fork and exec only system calls are made, which neither allocate nor take a lock.
    unsafe { command.pre_exec(mount) };
}

/// Makes a network device in the calling thread's namespace, whose packets are read from this file and written to it,
/// one at a time and without waiting.
///
/// # Errors
/// When we are not root, there is such a device, or the kernel knows none (CONFIG_TUN).
pub fn tun(name: &str) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data, for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: `request` is what this call expects, and outlives it.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } {
        0 => Ok(file),
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
    fn the_limit_of_files_is_set_and_told() {
        let me = std::process::id();
        let before = limit_files(me, 1000).unwrap();
        assert_eq!(limit_files(me, before).unwrap(), 1000);
        assert!(limit_files(u32::MAX, 1).is_err());
    }

    #[test]
    fn only_a_network_namespace_can_be_entered() {
        assert!(enter_network(&File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn a_core_that_does_not_exist_is_an_error() {
        assert!(pin(0, 1 << 20).is_err());
        assert!(ticks_per_second() > 0);
    }
}
