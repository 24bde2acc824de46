//! The PID 1 of a machine: Debian's kernel boots with uphold as `/init`, in software emulation.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use crate::dsl::{have, skip};
use crate::running::Running;
use crate::{scratch, static_binary, target};

/// An initramfs in the making: cpio(5), "newc".
#[derive(Default)]
struct Initramfs(Vec<u8>);

impl Initramfs {
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let size = content.len();
        let mut fields = [0, mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, path.len() + 1, 0];
        fields[0] = self.0.len();
        self.0.extend(b"070701");
        fields.iter().for_each(|field| self.0.extend(format!("{field:08x}").bytes()));
        self.0.extend(path.bytes().chain([0]));
        self.pad();
        self.0.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn dir(&mut self, path: &str) {
        self.entry(path, 0o040_755, b"");
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | mode, content);
    }
}

/// A machine that is to be booted.
struct Machine {
    dir: PathBuf,
    disk: Initramfs,
}

/// Reports and ends in a way that shows on the console.
const SAYS: &str = "[logs]\nstdout = \"inherit\"\n";

fn machine(name: &str) -> Option<Machine> {
    if !have("qemu-system-x86_64") || !target().join("environments/vmlinuz").exists() {
        skip("there is no qemu or no kernel for it; tests/environments/prepare gets them");
        return None;
    }
    let mut disk = Initramfs::default();
    for dir in ["bin", "sbin", "etc", "etc/uphold", "etc/uphold/units"] {
        disk.dir(dir);
    }
    disk.file("sbin/uphold", 0o755, &fs::read(static_binary()).unwrap());
    disk.entry("init", 0o120_777, b"/sbin/uphold");
    let busybox = fs::read("/bin/busybox").unwrap();
    disk.file("bin/busybox", 0o755, &busybox);
    disk.file("bin/sh", 0o755, &busybox);
    Some(Machine { dir: scratch(name), disk })
}

impl Machine {
    fn unit(mut self, name: &str, text: &str) -> Machine {
        self.disk.file(&format!("etc/uphold/units/{name}.toml"), 0o644, text.as_bytes());
        self
    }

    /// With these words on the kernel's command line.
    fn boot(mut self, words: &str) -> (Running, PathBuf) {
        self.disk.entry("TRAILER!!!", 0, b"");
        fs::write(self.dir.join("initramfs"), &self.disk.0).unwrap();
        let monitor = self.dir.join("monitor");
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "512", "-nographic"]);
        qemu.args(["-no-reboot", "-nodefaults", "-serial", "stdio"]);
        qemu.arg("-monitor").arg(format!("unix:{},server,nowait", monitor.display()));
        qemu.arg("-kernel").arg(target().join("environments/vmlinuz"));
        qemu.arg("-initrd").arg(self.dir.join("initramfs"));
        qemu.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 {words}"));
        (Running::start(qemu, &self.dir, "console"), monitor)
    }
}

#[test]
fn a_machine_boots_shows_what_its_services_use_and_is_switched_off_in_order() {
    let look = "set -e; PATH=/bin; for at in proc sys dev dev/pts dev/shm run sys/fs/cgroup; do
            busybox grep -q \" /$at \" /proc/mounts || echo \"/$at is not mounted\"; done
        echo in $(busybox grep ^0:: /proc/self/cgroup)
        /sbin/uphold ctl upgrade; pid=$(/sbin/uphold ctl -o json status web | busybox grep -w pid | busybox tr -dc 0-9)
        echo scores $(busybox cat /proc/1/oom_score_adj /proc/$pid/oom_score_adj /proc/self/oom_score_adj)
        /sbin/uphold ctl -o json status web; /sbin/uphold ctl shutdown";
    let Some(machine) = machine("boot") else { return };
    let web = "command = [\"/bin/sh\", \"-c\", \"trap 'echo told; exit 0' TERM; echo on; while :; do busybox sleep 0.1; done\"]
environment = { PATH = \"/bin\" }\n";
    let look = format!(
        "type = \"oneshot\"\ncommand = [\"/bin/sh\", \"-c\", '''{look}''']\nrequires = [\"web\", \"page\"]\n{SAYS}"
    );
    // Up once its port answers: a machine has its loopback, or no probe of one's own port would do.
    let page = "command = [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"127.0.0.1:80\"]
[readiness]\ntcp = { port = 80 }\nperiod = \"100ms\"\n";
    let machine = machine.unit("web", &format!("{web}{SAYS}")).unit("look", &look).unit("page", page);
    let (mut qemu, _) = machine.boot("");
    assert_eq!(qemu.exit(), Some(0), "{}", qemu.err());
    let console = qemu.out();
    assert!(!console.contains("is not mounted"), "{console}");
    assert!(!console.contains(" ERROR ") && !console.contains("panic"), "{console}");
    assert!(console.contains("upgraded from"), "{console}");
    assert!(console.contains("scores -1000 0 0"), "{console}");
    let leaf =
        console.lines().find(|line| line.contains("look | in 0::/")).unwrap_or_else(|| panic!("{console}"));
    assert!(leaf.contains("/look."), "no cgroup of its own: {leaf}");
    for fact in ["memory_bytes", "cpu_seconds", "tasks"] {
        let shown = console.split_once(&format!("\"{fact}\":")).unwrap_or_else(|| panic!("{console}")).1;
        let number: String =
            shown.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        assert!(number.parse::<f64>().is_ok_and(|number| number > 0.0), "{fact} is not shown:\n{console}");
    }
    let end = console.split_once("web | told").unwrap_or_else(|| panic!("{console}")).1;
    assert!(end.contains("reboot: Power down"), "{console}");
}

#[test]
fn ctrl_alt_del_stops_all_in_order_and_starts_the_machine_anew() {
    let Some(machine) = machine("ctrl-alt-del") else { return };
    let web = "command = [\"/bin/sh\", \"-c\", \"trap 'echo told; exit 0' TERM; echo on; while :; do busybox sleep 0.1; done\"]
environment = { PATH = \"/bin\" }\n";
    let machine = machine.unit("web", &format!("{web}{SAYS}"));
    let (mut qemu, monitor) = machine.boot("");
    qemu.until("web | on");
    let mut monitor = UnixStream::connect(monitor).unwrap();
    monitor.write_all(b"sendkey ctrl-alt-delete\n").unwrap();
    assert_eq!(qemu.exit(), Some(0), "{}", qemu.err());
    // What it answered is of no interest, but it has to be able to.
    let _ = monitor.read_to_end(&mut Vec::new());
    let console = qemu.out();
    let end = console.split_once("web | told").unwrap_or_else(|| panic!("{console}")).1;
    assert!(end.contains("reboot: Restarting system"), "{console}");
}

#[test]
fn no_error_of_a_file_or_of_the_kernels_command_line_keeps_a_machine_from_starting() {
    let Some(mut machine) = machine("errors") else { return };
    machine.disk.file("etc/uphold/uphold.toml", 0o644, b"[controll]\n");
    let end = "command = [\"/sbin/uphold\", \"ctl\", \"shutdown\"]\ntype = \"oneshot\"\n";
    let (mut qemu, _) = machine.unit("bad", "comand = [\"x\"]\n").unit("end", end).boot("splash");
    assert_eq!(qemu.exit(), Some(0), "{}", qemu.err());
    let console = qemu.out();
    for said in ["splash", "controll", "comand", "reboot: Power down"] {
        assert!(console.contains(said), "no `{said}`:\n{console}");
    }
}
