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
