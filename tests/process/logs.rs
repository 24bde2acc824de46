use crate::dsl::*;

#[test]
fn a_thousand_lines_and_an_immediate_exit_are_a_thousand_lines() {
    let uphold = Uphold::with_unit("web", "type = \"oneshot\"\ncommand = [\"seq\", \"1000\"]");
    uphold.until("web", "completed");
    let expected: Vec<String> = (1..=1000).map(|n| n.to_string()).collect();
    uphold.eventually("every line is there", |uphold| uphold.log("web").len() >= 1000);
    assert_eq!(uphold.log("web"), expected);
    let (code, out, _) = uphold.ctl(&["logs", "web", "-n", "3"]);
    assert_eq!((code, out.as_str()), (0, "998\n999\n1000\n"));
}

#[test]
fn rotation_keeps_every_line_of_what_it_keeps() {
    let uphold = Uphold::with_unit(
        "web",
        "type = \"oneshot\"\ncommand = [\"seq\", \"20000\"]\n[logs]\nmax_size = \"64KiB\"\nkeep = 50\ntimestamps = false",
    );
    uphold.until("web", "completed");
    let read = |uphold: &Uphold| {
        let mut lines = Vec::new();
        for n in (0..60).rev() {
            let suffix = if n == 0 { String::new() } else { format!(".{n}") };
            let text = std::fs::read_to_string(uphold.path(&format!("log/web/stdout.log{suffix}")));
            lines.extend(text.unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>());
        }
        lines
    };
    uphold.eventually("all is read", |uphold| read(uphold).len() >= 20_000);
    assert_eq!(read(&uphold), (1..=20_000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(uphold.path("log/web/stdout.log.1").exists());
}

#[test]
fn stderr_kept_apart_has_its_own_file() {
    let uphold = Uphold::with_unit(
        "web",
        "type = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"echo out; echo err >&2\"]\n[logs]\nstderr = \"file\"",
    );
    uphold.until("web", "completed").eventually("both", |uphold| {
        std::fs::read_to_string(uphold.path("log/web/stderr.log")).is_ok_and(|text| text.ends_with(" err\n"))
            && uphold.log("web") == ["out"]
    });
}

#[test]
fn inherit_prefixes_each_line_with_the_name() {
    let uphold = Uphold::with_unit(
        "web",
        "type = \"oneshot\"\ncommand = [\"printf\", \"a\\\\nb\"]\n[logs]\nstdout = \"inherit\"",
    );
    uphold.eventually("both lines", |uphold| uphold.stdout().lines().count() == 2);
    assert!(uphold.stdout().lines().all(|line| line.starts_with("web")), "{}", uphold.stdout());
}

#[test]
fn a_full_log_disk_is_said_and_stops_nobody() {
    let uphold = Uphold::with_unit(
        "web",
        "command = [\"sh\", \"-c\", \"while :; do echo line; sleep 0.01; done\"]\n[logs]\nstdout = \"/dev/full\"",
    );
    uphold.until_event("web", "LogWriteFailed");
    assert_eq!(uphold.state("web"), "running");
    assert_eq!(uphold.ctl(&["stop", "web"]).0, 0);
}

#[test]
fn followed_logs_come_as_they_are_written() {
    let uphold =
        Uphold::with_unit("web", "command = [\"sh\", \"-c\", \"while :; do echo tick; sleep 0.05; done\"]");
    uphold.until("web", "running");
    let mut follow =
        uphold.ctl_command(&["logs", "web", "-f"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    let ticks = lines.take(10).filter(|line| line.as_ref().is_ok_and(|line| line.contains("tick"))).count();
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!(ticks, 10);
}

#[test]
fn a_terminal_that_nobody_reads_loses_lines_of_its_own_unit_and_holds_no_other() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let terminal = nix::unistd::ttyname(&pty.slave).unwrap();
    let loud = format!(
        "command = [\"sh\", \"-c\", \"while :; do echo 0123456789012345678901234567890123456789; sleep 0.001; done\"]\n[logs]\nstdout = \"{}\"\ntimestamps = false\n",
        terminal.display()
    );
    let ticks = "command = [\"sh\", \"-c\", \"while :; do echo tick; sleep 0.02; done\"]";
    let uphold = Uphold::new().unit("loud", &loud).unit("web", ticks).start();
    uphold.until_event("loud", "LogWriteFailed");
    let before = uphold.log("web").len();
    uphold.eventually("the other one is written on", |uphold| uphold.log("web").len() > before + 10);
    let (code, out, _) = uphold.ctl(&["logs", "web", "-n", "3"]);
    assert_eq!((code, out.as_str()), (0, "tick\ntick\ntick\n"));
    // Once somebody reads, no line is glued to half of another.
    let (whole, read) = std::sync::mpsc::channel();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(std::fs::File::from(pty.master)));
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| whole.send(line)));
    let mut said = false;
    while !said {
        let line = read.recv_timeout(PATIENCE).unwrap();
        said = line.contains(" lost: ");
        let end = line.trim_end();
        assert!(said || "0123456789012345678901234567890123456789".starts_with(end), "{line}");
        assert!(!said || line.starts_with("uphold: "), "{line}");
    }
    uphold.until_event("loud", "LogWriteRecovered");
    assert_eq!(uphold.ctl(&["stop", "loud"]).0, 0);
}

#[test]
fn a_log_file_that_does_not_take_a_line_for_a_while_is_said_and_logs_are_shown_without_it() {
    if !have("strace") {
        return skip("strace is not installed");
    }
    let uphold = Uphold::new();
    let slow = uphold.path("log/slow/stdout.log").display().to_string();
    let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", &slow, "--trace=write"];
    // The first write, for eight seconds.
    let delay = ["--inject=write:delay_enter=8000000:when=1"];
    let go = uphold.path("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let waits =
        format!("command = [\"sh\", \"-c\", \"read x < {}; echo now; exec sleep 600\"]", go.display());
    let uphold = uphold
        .under(&[&strace[..], &delay].concat())
        .unit("slow", &waits)
        .unit("web", "type = \"oneshot\"\ncommand = [\"seq\", \"3\"]\n[logs]\ntimestamps = false\n")
        .start();
    let written = || std::fs::read_to_string(uphold.path("log/web/stdout.log")).unwrap_or_default();
    uphold.until("slow", "running").eventually("it is written", |_| written() == "1\n2\n3\n");
    std::fs::write(&go, "\n").unwrap();
    let out = std::cell::RefCell::default();
    uphold.eventually("it is said", |uphold| {
        // It may not have read the line yet.
        out.replace(uphold.ctl(&["logs", "web"]).1);
        uphold.stderr().contains("LogStalled")
    });
    assert_eq!(out.take(), "1\n2\n3\n");
    assert!(!uphold.stderr().contains("LogResumed"), "{}", uphold.stderr());
    uphold.eventually("it answers again", |uphold| {
        let _ = uphold.ctl(&["logs", "web"]);
        uphold.stderr().contains("LogResumed")
    });
    assert_eq!(uphold.log("slow"), ["now"]);
    assert_eq!(uphold.stderr().matches("LogStalled").count(), 1);
}

#[test]
fn a_log_behind_a_symbolic_link_is_rotated_where_it_lies_and_read_from_there() {
    let uphold = Uphold::new();
    let (link, far) = (uphold.path("link.log"), uphold.path("far"));
    std::fs::create_dir(&far).unwrap();
    std::os::unix::fs::symlink("far/web.log", &link).unwrap();
    let text = format!(
        "type = \"oneshot\"\ncommand = [\"seq\", \"2000\"]\n[logs]\nstdout = \"{}\"\nmax_size = \"1KiB\"\nkeep = 99\n",
        link.display()
    );
    let uphold = uphold.unit("web", &text).start();
    uphold.until("web", "completed");
    let all: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    assert_eq!(uphold.ctl(&["logs", "web", "-n", "5000"]).1, all);
    assert!(far.join("web.log").exists() && far.join("web.log.9").exists());
    assert!(link.is_symlink() && !uphold.path("link.log.1").exists());
}
