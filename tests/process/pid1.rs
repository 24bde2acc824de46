//! uphold as PID 1 of a pid namespace.

use nix::sys::signal::Signal;

use crate::dsl::*;

const UNSHARE: [&str; 5] = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];

fn namespace() -> bool {
    let works = std::process::Command::new("unshare").args(&UNSHARE[1..]).arg("true").status();
    if works.is_ok_and(|status| status.success()) {
        return true;
    }
    skip("no pid namespace can be made here");
    false
}

fn init(arguments: &[&str]) -> Uphold {
    Uphold::new().under(&UNSHARE).mode(arguments)
}

#[test]
fn the_status_of_command_is_the_answer() {
    if !namespace() {
        return;
    }
    for (command, status) in
        [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 255", 255)]
    {
        let output = init(&["init", "--", "sh", "-c", command]).run();
        assert_eq!(
            output.status.code(),
            Some(status),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(init(&["init", "--", "no-such-program"]).run().status.code(), Some(127));
    assert_eq!(init(&["init", "--", "/etc/passwd"]).run().status.code(), Some(126));
}

#[test]
fn command_keeps_its_output_directory_and_environment() {
    if !namespace() {
        return;
    }
    let uphold = init(&["init", "--", "sh", "-c", "pwd; echo $MARK; echo err >&2"]);
    let output = uphold.command().env("MARK", "kept").current_dir("/usr").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/usr\nkept\n");
    assert!(String::from_utf8_lossy(&output.stderr).lines().any(|line| line == "err"));
}

#[test]
fn every_zombie_of_the_container_is_reaped() {
    if !namespace() {
        return;
    }
    // Fifty orphans die; a zombie of theirs would still have a directory in /proc.
    let script = "count() { ls -d /proc/[0-9]* | wc -l; }; before=$(count); \
        for i in $(seq 50); do (sleep 0.05 &); done; \
        while [ $(count) -gt $before ]; do sleep 0.05; done; echo clean";
    let output = init(&["init", "--", "timeout", "20", "sh", "-c", script]).run();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "clean\n");
}

#[test]
fn signals_go_to_command_and_do_nothing_else() {
    if !namespace() {
        return;
    }
    let script = "trap '' PIPE; trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo term; exit 9' TERM; echo on; \
        while :; do sleep 0.02; done";
    let mut uphold = init(&["init", "--", "sh", "-c", script]).start_blind();
    uphold.eventually("it runs", |uphold| uphold.stdout() == "on\n");
    let inner = inner_pid(uphold.pid());
    let send = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(inner), signal).unwrap();
    send(Signal::SIGTTIN);
    send(Signal::SIGTTOU);
    send(Signal::SIGPIPE);
    send(Signal::SIGUSR1);
    uphold.eventually("usr1", |uphold| uphold.stdout().ends_with("usr1\n"));
    send(Signal::SIGHUP);
    uphold.eventually("hup", |uphold| uphold.stdout().ends_with("hup\n"));
    send(Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(9));
    assert_eq!(uphold.stdout(), "on\nusr1\nhup\nterm\n");
}

#[test]
fn signals_that_report_a_fault_go_to_command_too_when_somebody_sends_them() {
    if !namespace() {
        return;
    }
    let signals = [
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGSEGV,
        Signal::SIGSYS,
    ];
    let script = "for s in ILL TRAP ABRT BUS FPE SEGV SYS; do trap \"echo SIG$s\" $s; done; trap 'exit 9' TERM; \
        echo on; while :; do sleep 0.02; done";
    let mut uphold = init(&["init", "--", "sh", "-c", script]).start_blind();
    uphold.eventually("it runs", |uphold| uphold.stdout() == "on\n");
    let inner = nix::unistd::Pid::from_raw(inner_pid(uphold.pid()));
    for signal in signals {
        nix::sys::signal::kill(inner, signal).unwrap();
        let line = format!("{}\n", signal.as_str());
        uphold.eventually("it came", |uphold| uphold.stdout().ends_with(&line));
    }
    nix::sys::signal::kill(inner, Signal::SIGTERM).unwrap();
    assert_eq!(uphold.exit().code(), Some(9));
}

#[test]
fn who_is_kept_out_by_an_uphold_in_another_pid_namespace_is_told_that_it_lives_there() {
    if !namespace() {
        return;
    }
    let uphold = init(&["init"]).unit("web", "command = [\"sleep\", \"600\"]").start();
    let pid = uphold.until("web", "running").main_pid("web");
    let mut from_outside = uphold.command();
    let at = from_outside.get_args().position(|word| word == "init").unwrap();
    let words: Vec<_> = from_outside.get_args().skip(at + 1).map(std::ffi::OsStr::to_owned).collect();
    from_outside = std::process::Command::new(binary());
    let output = from_outside.arg("run").args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let said = format!("uphold with pid {} holds it, in another pid namespace; ", inner_pid(uphold.pid()));
    assert!(output.status.code() == Some(1) && text.contains(&said), "{text}");
    assert_eq!(uphold.main_pid("web"), pid);
}

/// The only child of unshare.
fn inner_pid(outer: i32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    children.trim().parse().unwrap()
}

#[test]
fn a_shutdown_during_a_start_ends_in_order_with_0() {
    if !namespace() {
        return;
    }
    let mut uphold = init(&["init"])
        .unit("slow", "type = \"oneshot\"\ncommand = [\"sleep\", \"600\"]")
        .unit("web", "command = [\"sleep\", \"600\"]\nrequires = [\"slow\"]")
        .start();
    uphold.until("slow", "starting").until("web", "waiting");
    let inner = inner_pid(uphold.pid());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(inner), Signal::SIGTERM).unwrap();
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}

#[test]
fn what_outlives_command_gets_sigterm_before_uphold_ends() {
    if !namespace() {
        return;
    }
    let uphold = init(&["init", "--", "sh", "-c", "placeholder"]);
    let mark = uphold.path("mark").display().to_string();
    let script = format!(
        "setsid sh -c 'trap \"echo told > {mark}; exit\" TERM; echo on; while :; do sleep 0.02; done' & sleep 0.5; exit 3"
    );
    let uphold = uphold.mode(&["init", "--", "sh", "-c", &script]);
    assert_eq!(uphold.run().status.code(), Some(3));
    assert_eq!(std::fs::read_to_string(uphold.path("mark")).unwrap(), "told\n");
}

#[test]
fn units_run_beside_command_and_stop_after_it() {
    if !namespace() {
        return;
    }
    let uphold = init(&["init", "--", "sh", "-c", "x"]);
    let order = uphold.path("order").display().to_string();
    let side = format!(
        "command = [\"sh\", \"-c\", \"trap 'echo side >> {order}; exit 0' TERM; echo on >> {order}; while :; do sleep 0.02; done\"]
[readiness]
exec = {{ command = [\"test\", \"-e\", \"{order}\"] }}
period = \"20ms\""
    );
    let script = format!("echo command >> {order}; exit 5");
    let uphold = uphold.unit("side", &side).mode(&["init", "--", "sh", "-c", &script]);
    let output = uphold.run();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(uphold.path("order")).unwrap(), "on\ncommand\nside\n");
}

fn to_init(uphold: &Uphold, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(inner_pid(uphold.pid())), signal).unwrap();
}

#[test]
fn a_storm_of_three_hundred_orphans_is_reaped() {
    if !namespace() {
        return;
    }
    let script = "count() { ls -d /proc/[0-9]* | wc -l; }; before=$(count); \
        for i in $(seq 300); do (sleep 0.2 &); done; \
        while [ $(count) -gt $before ]; do sleep 0.05; done; echo clean";
    let output = init(&["init", "--", "timeout", "60", "sh", "-c", script]).run();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "clean\n");
}

#[test]
fn a_sigterm_during_a_stop_of_one_unit_stops_the_rest_and_a_second_one_kills() {
    if !namespace() {
        return;
    }
    let stubborn = "command = [\"sh\", \"-c\", \"trap '' TERM; echo on; while :; do sleep 0.05; done\"]\n[stop]\ntimeout = \"10m\"";
    let mut uphold =
        init(&["init"]).unit("web", stubborn).unit("side", "command = [\"sleep\", \"600\"]").start();
    let on = |uphold: &Uphold| uphold.stdout().contains("on\n") || uphold.log("web") == ["on"];
    uphold.eventually("its trap is set", on);
    assert_eq!(uphold.ctl(&["stop", "web", "--no-wait"]).0, 0);
    uphold.until("web", "stopping");
    to_init(&uphold, Signal::SIGTERM);
    uphold.until("side", "inactive");
    assert_eq!(uphold.state("web"), "stopping");
    to_init(&uphold, Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(0), "{}", uphold.stderr());
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_at_the_stop_timeout() {
    if !namespace() {
        return;
    }
    let script = "trap '' TERM; echo on; while :; do sleep 0.02; done";
    let mut uphold = init(&["init", "--stop-timeout", "300ms", "--", "sh", "-c", script]).start_blind();
    uphold.eventually("its trap is set", |uphold| uphold.stdout() == "on\n");
    to_init(&uphold, Signal::SIGTERM);
    assert_eq!(uphold.exit().code(), Some(137), "{}", uphold.stderr());
}

#[test]
fn units_that_do_not_load_are_78() {
    if !namespace() {
        return;
    }
    let output = init(&["init"]).unit("web", "nonsense = 1").run();
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn no_other_signal_ends_init() {
    if !namespace() {
        return;
    }
    let uphold = init(&["init"]).unit("web", "command = [\"sleep\", \"600\"]").start();
    let pid = uphold.until("web", "running").main_pid("web");
    for signal in [
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGPIPE,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGWINCH,
        Signal::SIGALRM,
    ] {
        to_init(&uphold, signal);
        assert!(uphold.get("/v1/version").is_some(), "{signal} hurt: {}", uphold.stderr());
    }
    assert_eq!(uphold.main_pid("web"), pid);
    assert_eq!(uphold.state("web"), "running");
}

#[test]
fn no_signal_of_a_terminal_stops_or_ends_a_subreaper() {
    let uphold = Uphold::with_unit("web", "command = [\"sleep\", \"600\"]");
    let pid = uphold.until("web", "running").main_pid("web");
    for signal in
        [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGUSR1]
    {
        uphold.signal(signal);
        assert!(uphold.get("/v1/version").is_some(), "{signal} hurt: {}", uphold.stderr());
    }
    assert_eq!((uphold.main_pid("web"), uphold.state("web").as_str()), (pid, "running"));
}
