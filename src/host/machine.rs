//! What uphold asks of, and does to, the machine for itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot as reboot_with, set_cad_enabled};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::time::{ClockId, clock_gettime};

use serde::{Deserialize, Serialize};

use super::sys;
use crate::engine::{Mono, Time, Wall};
use crate::unit::Signal;

/// Orphaned descendants become uphold's children. PID 1 gets them anyway.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// uphold is the init of its pid namespace.
pub fn is_pid1() -> bool {
    std::process::id() == 1
}

/// uphold runs in a container: a manager says so, or its pid namespace is not the machine's first.
pub fn in_container() -> bool {
    let told =
        |environ: &[u8]| environ.split(|byte| *byte == 0).any(|entry| entry.starts_with(b"container="));
    /// PROC_PID_INIT_INO of the kernel.
    const FIRST: &str = "pid:[4026531836]";
    std::env::var_os("container").is_some()
        || Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || fs::read("/proc/1/environ").is_ok_and(|environ| told(&environ))
        || fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link != Path::new(FIRST))
}

/// The world that a recorded pid is a pid of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
    /// As /proc/self/ns/pid shows it.
    pub pid_namespace: String,
    /// When its PID 1 started, in clock ticks since boot: the number of a namespace is used again.
    pub first: u64,
}

/// This boot and this pid namespace. Without /proc there is no telling, and nothing of before is ever ours.
pub fn world() -> Option<World> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let pid_namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    Some(World { boot, pid_namespace, first: super::kin::started(1) })
}

/// When this process started, in clock ticks since boot. It stays so over an exec: with the pid it tells
/// whether an uphold before is this very process.
pub fn own_start() -> u64 {
    super::kin::started(std::process::id().cast_signed())
}

/// Raises uphold's own soft limit of open files to the hard one. Returns both as they were, for children;
/// `None`: nothing was changed.
pub fn raise_nofile() -> Option<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft >= hard {
        return None;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok().map(|()| (soft, hard))
}

/// Has the table of descriptors made as large as this many units may need. It grows by doubling, and who has threads waits for all processors at each step, which takes
/// milliseconds (`expand_fdtable` of the kernel). That is waited for on a thread of its own.
pub fn expect_units(count: usize) {
    /// As large is that of every new process.
    const ANYWAY: usize = 64;
    /// Of one that is taken over: three of its process, its FIFO and its log file.
    const EACH: usize = 5;
    let wanted = count.saturating_mul(EACH);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let last = limit.saturating_sub(1).min(u64::try_from(wanted).unwrap_or(u64::MAX));
    let Some(last) = RawFd::try_from(last).ok().filter(|_| wanted > ANYWAY) else { return };
    // Where this cannot be done, it grows by and by.
    drop(thread::Builder::new().name("table".to_owned()).spawn(move || sys::grow_table(last)));
}

/// Has the kernel's out-of-memory killer leave uphold alone, where it may ask for that (CAP_SYS_RESOURCE), or take it
/// as late as it may ask for: who supervises must not be what goes first. Returns the value before, for children;
/// `None`: nothing was changed.
pub fn survive_out_of_memory() -> Option<i32> {
    /// OOM_SCORE_ADJ_MIN of the kernel.
    const NEVER: i32 = -1000;
    const PLACE: &str = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(PLACE).ok()?.trim().parse().ok()?;
    let mut place = File::options().write(true).open(PLACE).ok()?;
    // Without the capability nobody tells which is the lowest that the kernel allows: it was set by who had it.
    let (mut refused, mut allowed) = (NEVER - 1, before);
    let mut next = NEVER;
    while refused < next && next < allowed {
        match place.write_all(next.to_string().as_bytes()) {
            Ok(()) => allowed = next,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = next,
            Err(_) => break,
        }
        next = i32::midpoint(refused, allowed);
    }
    (allowed < before).then_some(before)
}

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Mono {
    let nanos = nanos(ClockId::CLOCK_MONOTONIC);
    Mono(u64::try_from(nanos).unwrap_or(0))
}

/// Both clocks.
pub fn now() -> Time {
    Time { mono: monotonic(), wall: Wall::from_nanos(nanos(ClockId::CLOCK_REALTIME)) }
}

/// These clocks cannot fail on Linux.
fn nanos(clock: ClockId) -> i128 {
    clock_gettime(clock)
        .map_or(0, |time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
}

/// What a process in the background gets for using the terminal does nothing to uphold. Children get the defaults.
pub fn ignore_terminal_stops() {
    for signal in [Signal::TTIN, Signal::TTOU] {
        sys::ignore(signal);
    }
}

/// The file is on a read-only mount.
pub fn read_only_mount(file: &File) -> bool {
    fstatvfs(file).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY))
}

/// Who is at the other end of a Unix socket: pid (`None` if our pid namespace cannot name it), effective uid
/// at connect, primary and supplementary groups.
pub fn peer(stream: &tokio::net::UnixStream) -> io::Result<(Option<u32>, u32, Vec<u32>)> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
    let mut groups = vec![credentials.gid()];
    for gid in sys::peer_groups(stream.as_fd())? {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    let pid = u32::try_from(credentials.pid()).ok().filter(|pid| *pid != 0);
    Ok((pid, credentials.uid(), groups))
}

/// The width of the terminal that standard output is; `None` where it is none, or does not know.
pub fn terminal_columns() -> Option<usize> {
    sys::columns()
}

/// uphold's own effective uid.
pub fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// On a real boot: /proc, /sys, /dev, /run and cgroup v2. What is mounted already stays. Returns what could
/// not be mounted, in sentences.
pub fn mount_api_file_systems() -> Vec<String> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let quiet = safe | MsFlags::MS_NOEXEC;
    let mounts = [
        ("proc", "/proc", quiet, ""),
        ("sysfs", "/sys", quiet, ""),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
        ("devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", safe, "mode=1777"),
        ("tmpfs", "/run", safe, "mode=0755"),
        ("cgroup2", "/sys/fs/cgroup", quiet, ""),
    ];
    let mut failed = Vec::new();
    for (kind, point, flags, options) in mounts {
        if is_mount_point(Path::new(point)) {
            continue;
        }
        let _ = fs::create_dir_all(point);
        match mount(Some(kind), point, Some(kind), flags, Some(options)) {
            Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
            Err(errno) => failed.push(format!("cannot mount {kind} on {point}: {}", errno.desc())),
        }
    }
    failed
}

/// On a real boot: the loopback interface, where probes look for services that name no other host. Returns
/// why it could not be raised, in a sentence.
pub fn raise_loopback() -> Option<String> {
    sys::raise_loopback().err().map(|error| format!("cannot raise the loopback interface: {error}"))
}

/// It is on another device than what holds it.
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(own), Some(Ok(above))) => own != above,
        _ => false,
    }
}

/// On a real boot: Ctrl-Alt-Del sends SIGINT to PID 1 from here on, and does not start the machine anew at
/// once (reboot(2)). Returns why not, in a sentence.
pub fn hear_ctrl_alt_del() -> Option<String> {
    let failed = set_cad_enabled(false).err();
    failed.map(|errno| {
        format!("cannot take Ctrl-Alt-Del from the kernel, which restarts at once: {}", errno.desc())
    })
}

/// Writes everything to disk and starts the machine anew. Returns only if it cannot.
pub fn reboot() -> io::Error {
    end_machine(RebootMode::RB_AUTOBOOT)
}

/// Writes everything to disk and switches the machine off. Returns only if it cannot.
pub fn power_off() -> io::Error {
    end_machine(RebootMode::RB_POWER_OFF)
}

fn end_machine(mode: RebootMode) -> io::Error {
    nix::unistd::sync();
    match reboot_with(mode) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}
