//! What uphold does when the machine has no more of something: descriptors, processes, room for logs.

use std::fs;

use crate::dsl::*;

/// One process that waits for the file `go` and then ends well; the gate wakes it.
fn waiter(uphold: &Uphold) -> String {
    let (go, gate) = (uphold.path("go"), uphold.path("gate"));
    format!(
        "command = [\"sh\", \"-c\", \"[ -e {} ] || read x < {}; exit 0\"]
working_dir = \"/\"
[restart]
policy = \"on-failure\"
delay = \"50ms\"
max_delay = \"200ms\"",
        go.display(),
        gate.display()
    )
}

/// More waiters than there is room for; some wait for it, and when the first have ended all have run.
fn more_than_there_is_room_for(mut uphold: Uphold, count: usize, wants: &str) {
    let gate = uphold.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    fs::set_permissions(&gate, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let text = waiter(&uphold);
    for n in 0..count {
        uphold = uphold.unit(&format!("u{n}"), &text);
    }
    let uphold = uphold.start_blind();
    // Its own log has the event, whether or not there is a descriptor left for a client.
    uphold.eventually("the lack is said", |uphold| {
        uphold
            .stderr()
            .lines()
            .any(|line| line.contains("SpawnFailed") && line.contains("cannot start") && line.contains(wants))
    });
    uphold.eventually("some run", |uphold| !children_of(uphold.pid()).is_empty());
    // An operator can still make room.
    let running = |unit: &serde_json::Value| unit["state"] == "running";
    let (_, units) = uphold.asked("GET /v1/units").unwrap_or_else(|why| panic!("{why}: {}", uphold.stderr()));
    let units: serde_json::Value = serde_json::from_str(&units).unwrap();
    let units = units["units"].as_array().cloned().unwrap();
    let stopped = units.iter().find(|unit| running(unit)).unwrap()["name"].as_str().unwrap().to_owned();
    assert_eq!(uphold.ctl(&["stop", &stopped]).0, 0);
    fs::write(uphold.path("go"), "").unwrap();
    let open_gate = || {
        let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_NONBLOCK;
        drop(nix::fcntl::open(&gate, flags, nix::sys::stat::Mode::empty()));
    };
    uphold.eventually("all have run", |uphold| {
        open_gate();
        let units = uphold.get("/v1/units").map(|value| value["units"].clone()).unwrap_or_default();
        let units = units.as_array().cloned().unwrap_or_default();
        units.len() == count
            && units.iter().all(|unit| unit["state"] == "completed" || unit["name"] == stopped.as_str())
    });
    let mut short = 0;
    for n in 0..count {
        let unit = format!("u{n}");
        let view = uphold.view(&unit);
        assert_eq!(view["restarts"], 0, "a start that lacked something counted as a crash: {view:#}");
        short += usize::from(uphold.events(&unit).iter().any(|(line, _)| line.starts_with("SpawnFailed")));
    }
    assert!(short > 0 && short < count, "{short} of {count} had to wait");
    assert_eq!(uphold.state(&stopped), "inactive");
}

#[test]
fn too_few_descriptors_delay_starts_and_end_nothing() {
    let uphold = Uphold::new().under(&["prlimit", "--nofile=64:64"]);
    more_than_there_is_room_for(uphold, 60, "oo many open files");
}

#[test]
fn too_few_processes_delay_starts_and_end_nothing() {
    if !is_root() {
        return skip("only root can be a uid of which nobody else has processes");
    }
    // uphold's threads count too. Root would not be bound by the limit. Two of these tests may run at once.
    let uphold = Uphold::new().run_by_uid(1_000_000 + std::process::id(), &["prlimit", "--nproc=24:24"]);
    more_than_there_is_room_for(uphold, 40, "esource temporarily unavailable");
}

#[test]
fn what_a_full_disk_loses_is_counted_and_said_and_writing_goes_on_after_it() {
    if !is_root() {
        return skip("only root can mount");
    }
    let uphold = Uphold::new();
    fs::create_dir(uphold.path("log")).unwrap();
    let log = uphold.path("log").display().to_string();
    let uphold = uphold
        .after_mounting(&format!(
            "mount -t tmpfs -o size=64k none {log}; head -c 49152 /dev/zero > {log}/filler"
        ))
        .unit(
            "web",
            "command = [\"sh\", \"-c\", \"i=0; while :; do i=$((i+1)); echo line $i 0123456789012345678901234567890123456789012345678901234567890123456789 end; sleep 0.01; done\"]
[logs]
timestamps = false
max_size = 0",
        )
        .start();
    let inside = format!("/proc/{}/root{log}", uphold.pid());
    uphold.until_event("web", "LogWriteFailed");
    assert_eq!(uphold.state("web"), "running");
    fs::remove_file(format!("{inside}/filler")).unwrap();
    uphold.until_event("web", "LogWriteRecovered");
    let read = || fs::read_to_string(format!("{inside}/web/stdout.log")).unwrap();
    let said = " lost: No space left on device";
    uphold.eventually("the log goes on after its loss", |_| {
        let text = read();
        text.rfind(said).is_some_and(|at| text[at..].matches(" end\n").count() >= 5)
    });
    let text = read();
    let whole = &text[..=text.rfind('\n').unwrap()];
    let (mut last, mut lost) = (0, 0);
    for line in whole.lines() {
        if let Some(rest) = line.strip_prefix("uphold: ") {
            assert!(rest.contains(" lines (") && rest.ends_with(said), "{line}");
            lost += rest.split(' ').next().unwrap().parse::<u64>().unwrap();
            continue;
        }
        let number = line.strip_prefix("line ").and_then(|rest| rest.split(' ').next());
        let number: u64 = number.unwrap_or_else(|| panic!("torn: {line}")).parse().unwrap();
        assert!(line.ends_with("6789 end"), "torn: {line}");
        assert_eq!(number, last + lost + 1, "lost but not counted");
        (last, lost) = (number, 0);
    }
    let (event, _) =
        uphold.events("web").into_iter().find(|(line, _)| line.starts_with("LogWriteRecovered")).unwrap();
    assert!(event.contains("lines (") && event.contains("were lost"), "{event}");
}

#[test]
fn without_the_capability_the_out_of_memory_killer_takes_uphold_as_late_as_the_kernel_allows() {
    let write = "echo 100 > /proc/self/oom_score_adj && exec \"$@\"";
    let uphold =
        Uphold::new().under(&["sh", "-c", write, "sh"]).unit("web", "command = [\"sleep\", \"600\"]\n");
    let uphold = uphold.start();
    let place = |pid: i32| format!("/proc/{pid}/oom_score_adj");
    let score = |pid: i32| -> i32 { fs::read_to_string(place(pid)).unwrap().trim().parse().unwrap() };
    let own = score(std::process::id().cast_signed()).min(100);
    let found = score(uphold.pid());
    assert!(found <= own, "{found} and not {own}");
    // Who has the capability gets the lowest of all, and who has it not can ask for nothing lower.
    if found > -1000 {
        assert!(
            fs::write(place(uphold.pid()), (found - 1).to_string()).is_err(),
            "{found} is not the lowest"
        );
    }
    assert_eq!(score(uphold.until("web", "running").main_pid("web")), 100);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    assert_eq!(score(uphold.pid()), found);
    assert_eq!(uphold.ctl(&["restart", "web"]).0, 0);
    assert_eq!(score(uphold.until("web", "running").main_pid("web")), 100);
}
