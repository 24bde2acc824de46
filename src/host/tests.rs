//! Real processes, each test with a host of its own. Tests that reap run one after another: waitpid sees
//! every child of this test process.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::MutexGuard;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::*;
use crate::alone::alone;
use crate::engine::Exit;
use crate::unit::{Directory, Limit, Output, Resource, Scope, Signal};

/// A host with its news, a private directory, and what a daemon's loop does for it.
pub(super) struct Bench {
    pub(super) host: Host,
    news: mpsc::UnboundedReceiver<News>,
    children: UnixStream,
    handler: signal_hook::SigId,
    dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|settings, news| Host::new(settings, unkept(), None, news))
    }

    pub(super) fn without_cgroups() -> Bench {
        Bench::with(|settings, news| Host::with_base(settings, unkept(), news, None))
    }

    fn with(make: impl FnOnce(Settings, mpsc::UnboundedSender<News>) -> Host) -> Bench {
        let alone = alone();
        become_subreaper().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("private")).unwrap();
        let (sender, news) = mpsc::unbounded_channel();
        let trust = crate::unit::trust::Trust {
            uid: uid(),
            owners: Vec::new(),
            lenient: false,
            read_only: read_only_mount,
        };
        static TOKEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = TOKEN.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let settings = Settings {
            private: Some(dir.path().join("private")),
            token: format!("{:08x}{count:08x}", std::process::id()),
            nofile: None,
            oom_score_adj: None,
            default_dir: "/".into(),
            pipes: None,
            deposits: false,
            trust,
        };
        let (children, writer) = UnixStream::pair().unwrap();
        let handler = signal_hook::low_level::pipe::register(17, writer.into_std().unwrap()).unwrap();
        Bench { host: make(settings, sender), news, children, handler, dir, _alone: alone }
    }

    /// The next news, notices aside.
    async fn next(&mut self) -> News {
        let wait = async {
            loop {
                tokio::select! {
                    biased;
                    Some(news) = self.news.recv() => match news {
                        News::Notice { .. } => {}
                        news => return news,
                    },
                    () = heard(&mut self.children) => self.host.reap(),
                    () = self.host.next() => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("no news in 20 s")
    }

    /// Nothing more is said, although all that could be heard of was.
    async fn silent(&mut self) {
        let wait = async {
            loop {
                tokio::select! {
                    () = heard(&mut self.children) => self.host.reap(),
                    () = self.host.next() => {}
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(100), wait).await;
        while let Ok(news) = self.news.try_recv() {
            assert!(matches!(news, News::Notice { .. }), "{news:?}");
        }
    }

    fn spawn(&mut self, run: u64, unit: Unit) {
        let order = Order { instance: name(), run: Run(run), unit: Arc::new(unit), foreground: false };
        self.host.spawn(order);
    }

    async fn spawned(&mut self) -> (u32, Vec<Captured>) {
        match self.next().await {
            News::Spawned { pid, output, .. } => (pid, output),
            news => panic!("{news:?}"),
        }
    }

    async fn exited(&mut self) -> Exit {
        match self.next().await {
            News::Exited { exit, .. } => exit,
            news => panic!("{news:?}"),
        }
    }

    async fn emptied(&mut self) {
        let news = self.next().await;
        assert!(matches!(news, News::Emptied { .. }), "{news:?}");
    }

    async fn left(&mut self) -> Vec<u32> {
        match self.next().await {
            News::Left { pids, .. } => pids,
            news => panic!("{news:?}"),
        }
    }

    /// Runs to its end.
    async fn run(&mut self, unit: Unit) -> (Exit, String) {
        self.spawn(1, unit);
        let (_, output) = self.spawned().await;
        let exit = self.exited().await;
        self.emptied().await;
        (exit, text(output))
    }

    async fn fails(&mut self, unit: Unit) -> SpawnFailure {
        self.spawn(1, unit);
        let failure = match self.next().await {
            News::SpawnFailed { failure, .. } => failure,
            news => panic!("{news:?}"),
        };
        self.silent().await;
        assert_eq!(std::fs::read_dir(self.dir.path().join("private")).unwrap().count(), 0, "a FIFO is left");
        failure
    }
}

async fn heard(children: &mut UnixStream) {
    let _ = children.read(&mut [0; 64]).await;
}

/// Nothing that a failed test has started outlives it.
impl Drop for Bench {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.handler);
        while sys::wait(sys::Child::Any, false, false) != Err(nix::errno::Errno::ECHILD) {
            for pid in kin::descendants(std::process::id().cast_signed()) {
                let _ = sys::kill(pid, Signal::KILL);
            }
        }
    }
}

fn name() -> Name {
    Name::new("web").unwrap()
}

fn unit(command: &[&str]) -> Unit {
    let mut unit = Unit::new(name());
    unit.command = command.iter().map(|word| (*word).to_owned()).collect();
    unit
}

fn sh(script: &str) -> Unit {
    unit(&["sh", "-c", script])
}

/// All of a finished run's output.
fn text(output: Vec<Captured>) -> String {
    let mut text = String::new();
    for captured in output {
        std::fs::File::from(captured.pipe).read_to_string(&mut text).unwrap();
    }
    text
}

/// Waits for a line of a run that goes on.
async fn line(output: &mut [Captured]) -> String {
    let pipe = std::fs::File::from(output[0].pipe.try_clone().unwrap());
    let pipe = sys::readable(Arc::new(pipe)).unwrap();
    let mut text = String::new();
    while !text.ends_with('\n') {
        let mut ready = pipe.readable().await.unwrap();
        let mut buffer = [0; 1024];
        match (&**pipe.get_ref()).read(&mut buffer) {
            Ok(length) => text.push_str(std::str::from_utf8(&buffer[..length]).unwrap()),
            Err(_) => ready.clear_ready(),
        }
    }
    text.trim().to_owned()
}

fn alive(pid: u32) -> bool {
    let pid = pid.cast_signed();
    kin::snapshot().unwrap().iter().any(|proc| proc.pid == pid && !proc.zombie)
}

#[tokio::test]
async fn an_exit_is_told_with_its_code_or_signal() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(unit(&["true"])).await.0, Exit::Code(0));
    assert_eq!(bench.run(sh("exit 7")).await.0, Exit::Code(7));
    let term = Exit::Signal { signal: Signal::TERM, oom: false };
    assert_eq!(bench.run(sh("kill -TERM $$")).await.0, term);
    let realtime = Exit::Signal { signal: Signal::from_number(40).unwrap(), oom: false };
    assert_eq!(bench.run(sh("kill -40 $$")).await.0, realtime);
    bench.silent().await;
}

#[tokio::test]
async fn two_hundred_quick_runs_are_each_told_once_and_in_order() {
    let mut bench = Bench::new();
    for run in 1..=200 {
        bench.spawn(run, unit(&["true"]));
    }
    let mut told = vec![String::new(); 201];
    while told.iter().skip(1).any(|told| !told.ends_with("emptied ")) {
        let (run, word) = match bench.next().await {
            News::Spawned { run, .. } => (run, "spawned "),
            News::Exited { run, exit, .. } => {
                assert_eq!(exit, Exit::Code(0));
                (run, "exited ")
            }
            News::Left { run, .. } => (run, "left "),
            News::Emptied { run, .. } => (run, "emptied "),
            news => panic!("{news:?}"),
        };
        told[usize::try_from(run.0).unwrap()].push_str(word);
    }
    for told in &told[1..] {
        assert_eq!(told.replace("left ", ""), "spawned exited emptied ");
    }
    bench.silent().await;
    assert!(bench.host.children.is_empty() && bench.host.runs.is_empty());
    assert!(!bench.host.cloning.may_be(1));
}

#[tokio::test]
async fn an_orphan_and_a_failed_start_are_reaped_and_no_news() {
    let mut bench = Bench::without_cgroups();
    // The middle one ends at once: the sleep is an orphan, and ends before its run's main process.
    let (exit, _) = bench.run(sh("sh -c 'sleep 0.1 & exit 0'; sleep 0.3")).await;
    assert_eq!(exit, Exit::Code(0));
    bench.fails(unit(&["/nonexistent/command"])).await;
    assert_eq!(sys::wait(sys::Child::Any, true, false), Err(nix::errno::Errno::ECHILD));
}

#[tokio::test]
async fn a_start_that_fails_says_at_which_stage_and_why() {
    let mut bench = Bench::new();
    let failure = bench.fails(unit(&["/nonexistent/command"])).await;
    assert_eq!((failure.code, failure.passing), (127, false), "{failure:?}");
    assert_eq!(failure.message, "/nonexistent/command: no such file or directory");

    let failure = bench.fails(unit(&["no-such-command"])).await;
    assert_eq!((failure.code, &*failure.stage), (127, "finding the command"), "{failure:?}");

    let plain = bench.dir.path().join("plain");
    std::fs::write(&plain, "text").unwrap();
    let failure = bench.fails(unit(&[plain.to_str().unwrap()])).await;
    assert_eq!((failure.code, &*failure.stage), (126, "executing the command"), "{failure:?}");

    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o755)).unwrap();
    let failure = bench.fails(unit(&[plain.to_str().unwrap()])).await;
    assert!(failure.message.contains("#!"), "{failure:?}");

    let failure = bench.fails(Unit { user: Some("wwww-data".into()), ..unit(&["true"]) }).await;
    assert_eq!((failure.code, &*failure.stage), (126, "setting the user"));
    assert!(failure.message.starts_with("no user named wwww-data"), "{failure:?}");

    let failure = bench.fails(Unit { working_dir: Some("/nonexistent".into()), ..unit(&["true"]) }).await;
    assert_eq!((failure.code, &*failure.stage), (126, "entering the working directory"));
    assert_eq!(failure.message, "/nonexistent: no such file or directory");
}

#[tokio::test]
async fn a_file_that_is_being_written_is_a_passing_lack() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("busy");
    std::fs::copy("/bin/true", &path).unwrap();
    let writing = std::fs::File::options().append(true).open(&path).unwrap();
    let failure = bench.fails(unit(&[path.to_str().unwrap()])).await;
    assert!(failure.passing, "{failure:?}");
    drop(writing);
    assert_eq!(bench.run(unit(&[path.to_str().unwrap()])).await.0, Exit::Code(0));
}

#[tokio::test]
async fn a_child_has_three_descriptors_a_session_and_no_signal_blocked_or_ignored() {
    let mut bench = Bench::new();
    // The fourth is ls's own.
    let (_, text) = bench.run(sh("ls -l /proc/self/fd | sed 's/.* \\([0-9]*\\) -> /\\1 /'")).await;
    let fds: Vec<&str> = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(fds.len(), 4, "{text}");
    assert_eq!(fds[0], "0 /dev/null");
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f1,5,6 /proc/$$/stat";
    let (_, text) = bench.run(sh(script)).await;
    let lines: Vec<&str> = text.lines().collect();
    for (line, key) in lines.iter().zip(["SigBlk", "SigIgn"]) {
        assert_eq!(*line, format!("{key}:\t0000000000000000"));
    }
    let ids: Vec<&str> = lines[2].split(' ').collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[tokio::test]
async fn what_a_run_wrote_is_read_whole_and_then_ends() {
    let mut bench = Bench::new();
    let unit = Unit {
        logs: logs(None, Some(Output::File)),
        ..sh("seq 1 5000; echo bad >&2; echo open >/dev/stdout")
    };
    bench.spawn(1, unit);
    let (_, output) = bench.spawned().await;
    assert_eq!(bench.exited().await, Exit::Code(0));
    assert_eq!(
        output.iter().map(|captured| captured.stream).collect::<Vec<_>>(),
        [Stream::Stdout, Stream::Stderr]
    );
    let fifo = output[0].path.clone().unwrap();
    assert_eq!(std::fs::metadata(&fifo).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(fifo.ends_with("private/web.1.out"));
    let text = text(output);
    assert_eq!(text.lines().count(), 5002);
    assert!(text.ends_with("5000\nopen\nbad\n"));
}

fn logs(stdout: Option<Output>, stderr: Option<Output>) -> crate::unit::Logs {
    crate::unit::Logs { stdout, stderr, ..Default::default() }
}

#[tokio::test]
async fn a_stream_to_null_is_not_captured() {
    let mut bench = Bench::new();
    bench.spawn(1, Unit { logs: logs(Some(Output::Null), None), ..sh("echo x; echo y >&2") });
    assert!(bench.spawned().await.1.is_empty());
}

#[tokio::test]
async fn without_a_directory_output_goes_through_a_pipe_that_never_breaks() {
    let mut bench = Bench::new();
    let mut settings = bench.host.settings.clone();
    settings.private = None;
    let sender = bench.host.news.clone();
    bench.host = Host::with_base(settings, unkept(), sender, None);
    bench.spawn(1, sh("read x < /dev/null; sleep 0.1; echo late"));
    let (_, output) = bench.spawned().await;
    drop(output);
    assert_eq!(bench.exited().await, Exit::Code(0));
}

#[tokio::test]
async fn a_unit_of_another_user_is_that_user_in_its_own_directory() {
    if uid() != 0 {
        return;
    }
    let mut bench = Bench::new();
    std::fs::set_permissions(bench.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = bench.dir.path().join("run").join("app");
    let mut unit =
        sh("id -u; id -g; id -G; umask; pwd; ulimit -n; echo $HOME $USER $PORT; echo again > /dev/stdout");
    unit.user = Some("daemon".into());
    unit.umask = 0o027;
    unit.working_dir = Some(path.clone());
    unit.directories = vec![Directory { path: path.clone(), mode: 0o700 }];
    unit.environment.insert("PORT".into(), "8080".into());
    unit.limits.insert(Resource::Nofile, Limit { soft: Some(77), hard: Some(88) });
    let (exit, text) = bench.run(unit).await;
    let expected = format!("1\n1\n1\n0027\n{}\n77\n/usr/sbin daemon 8080\nagain\n", path.display());
    assert_eq!((exit, text), (Exit::Code(0), expected));
}

#[tokio::test]
async fn a_child_gets_the_limit_of_files_that_uphold_had() {
    let mut bench = Bench::new();
    let mut settings = bench.host.settings.clone();
    settings.nofile = Some((123, 456));
    let sender = bench.host.news.clone();
    bench.host = Host::with_base(settings, unkept(), sender, None);
    let (_, text) = bench.run(sh("ulimit -Sn; ulimit -Hn; echo $UPHOLD_RUN")).await;
    let token = &bench.host.settings.token;
    assert_eq!(text, format!("123\n456\nweb:1:{token}\n"));
}

/// What has left the session of its main process, as a daemon does.
const DAEMONISES: &str = "setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 600' & sleep 0.2; exit 3";

async fn a_leftover_is_found_and_killed(mut bench: Bench, script: &str) {
    bench.spawn(1, sh(script));
    let (_, mut output) = bench.spawned().await;
    let pid: u32 = line(&mut output).await.parse().unwrap();
    assert_eq!(bench.exited().await, Exit::Code(3));
    assert_eq!(bench.left().await, [pid]);
    bench.host.survey(&name(), Run(1));
    assert_eq!(bench.left().await, [pid]);
    bench.host.terminate(&name(), Run(1));
    bench.silent().await;
    assert!(alive(pid));
    bench.host.kill(&name(), Run(1), false);
    bench.emptied().await;
    assert!(!alive(pid));
    bench.silent().await;
    assert!(bench.host.garbage.is_empty(), "its cgroup was not removed");
}

#[tokio::test]
async fn a_leftover_is_found_and_killed_by_its_cgroup() {
    a_leftover_is_found_and_killed(Bench::new(), DAEMONISES).await;
}

#[tokio::test]
async fn a_leftover_is_found_and_killed_in_a_cgroup_that_its_service_has_made() {
    // As who starts containers does: two levels down, and nothing in the one between.
    let moves = "own=$(sed -n s/^0:://p /proc/self/cgroup)
        for at in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); do test -d $at$own && base=$at$own; done
        case $base in *web.1) ;; *) exec echo none;; esac
        mkdir -p $base/a/b; echo $$ > $base/a/b/cgroup.procs
        ";
    let bench = Bench::new();
    if bench.host.base.is_some() {
        a_leftover_is_found_and_killed(bench, &format!("{moves}{DAEMONISES}")).await;
    }
}

#[tokio::test]
async fn a_leftover_is_found_and_killed_without_a_cgroup() {
    a_leftover_is_found_and_killed(Bench::without_cgroups(), DAEMONISES).await;
}

async fn the_end_of_the_last_leftover_is_heard_of(mut bench: Bench) {
    bench.spawn(1, sh("setsid sleep 0.5 & setsid sleep 0.3 & sleep 0.1"));
    bench.spawned().await;
    bench.exited().await;
    assert_eq!(bench.left().await.len(), 2);
    bench.emptied().await;
}

#[tokio::test]
async fn the_end_of_the_last_leftover_is_heard_of_from_its_cgroup() {
    the_end_of_the_last_leftover_is_heard_of(Bench::new()).await;
}

#[tokio::test]
async fn the_end_of_the_last_leftover_is_heard_of_without_a_cgroup() {
    the_end_of_the_last_leftover_is_heard_of(Bench::without_cgroups()).await;
}

#[tokio::test]
async fn a_unit_that_leaves_its_children_is_emptied_at_its_exit() {
    let mut bench = Bench::new();
    let mut unit = sh("sleep 600 & echo $!; exec sleep 600");
    unit.stop.leave = true;
    bench.spawn(1, unit);
    let (_, mut output) = bench.spawned().await;
    let child: u32 = line(&mut output).await.parse().unwrap();
    bench.host.kill(&name(), Run(1), true);
    assert!(matches!(bench.exited().await, Exit::Signal { signal: Signal::KILL, .. }));
    bench.emptied().await;
    assert!(alive(child));
    sys::kill(child.cast_signed(), Signal::KILL).unwrap();
    bench.silent().await;
    assert!(bench.host.garbage.is_empty(), "its cgroup was not removed");
}

#[tokio::test]
async fn a_stopped_process_gets_its_signal() {
    let mut bench = Bench::new();
    bench.spawn(1, unit(&["sleep", "600"]));
    bench.spawned().await;
    bench.host.signal(&name(), Run(1), Signal::STOP, Scope::Main, false);
    bench.host.signal(&name(), Run(2), Signal::KILL, Scope::Main, false);
    bench.host.signal(&name(), Run(1), Signal::TERM, Scope::Group, true);
    assert_eq!(bench.exited().await, Exit::Signal { signal: Signal::TERM, oom: false });
    bench.emptied().await;
}

#[tokio::test]
async fn usage_is_known_while_it_runs() {
    let mut bench = Bench::new();
    bench.spawn(1, unit(&["sleep", "600"]));
    bench.spawned().await;
    let usage = bench.host.usage(&name(), true);
    assert!(usage.memory_bytes.is_some() && usage.cpu_seconds.is_some(), "{usage:?}");
    assert_eq!(usage.tasks, Some(1));
    bench.host.kill(&name(), Run(1), false);
    bench.exited().await;
    assert_eq!(bench.host.usage(&name(), true).tasks, None);
}

#[tokio::test]
async fn a_sweep_ends_with_no_child_left() {
    let mut bench = Bench::without_cgroups();
    bench.spawn(1, sh("setsid sleep 600 & sleep 600 & wait"));
    bench.spawned().await;
    bench.host.sweep(Signal::KILL);
    let mut childless = 0;
    while childless == 0 {
        match bench.next().await {
            News::Childless => childless += 1,
            News::Exited { .. } | News::Left { .. } | News::Emptied { .. } => {
                bench.host.sweep(Signal::KILL);
            }
            news => panic!("{news:?}"),
        }
    }
}

fn probe(script: &str, timeout: u64) -> ExecOrder {
    ExecOrder {
        instance: name(),
        run: Run(1),
        kind: ProbeKind::Liveness,
        unit: Arc::new(unit(&["true"])),
        command: vec!["sh".into(), "-c".into(), script.into()],
        timeout: Duration::from_millis(timeout),
    }
}

type Verdict = (Option<Result<Exit, SpawnFailure>>, Vec<u8>);

async fn probed(bench: &mut Bench) -> Verdict {
    match bench.next().await {
        News::Probed { end, output, .. } => (end, output),
        news => panic!("{news:?}"),
    }
}

#[tokio::test]
async fn a_probe_ends_with_its_command_and_keeps_the_first_10240_bytes() {
    let mut bench = Bench::new();
    bench.host.exec(probe("seq 1 50000; sleep 600 & echo bad >&2; exit 4", 10_000));
    let (end, output) = probed(&mut bench).await;
    assert_eq!(end, Some(Ok(Exit::Code(4))));
    assert_eq!(output.len(), 10_240);
    assert!(output.starts_with(b"1\n2\n3\n"));
    bench.host.exec(probe("echo out; echo bad >&2", 10_000));
    assert_eq!(probed(&mut bench).await, (Some(Ok(Exit::Code(0))), b"out\nbad\n".to_vec()));
    bench.silent().await;
    // The sleep was of its group.
    bench.host.reap();
    assert_eq!(sys::wait(sys::Child::Any, true, false), Err(nix::errno::Errno::ECHILD));
}

#[tokio::test]
async fn a_probe_that_hangs_is_killed_at_its_timeout() {
    let mut bench = Bench::new();
    bench.host.exec(probe("trap '' TERM; echo begun; sleep 600; echo never", 300));
    assert_eq!(probed(&mut bench).await, (None, b"begun\n".to_vec()));
    bench.silent().await;
    assert!(bench.host.children.is_empty());
}

#[tokio::test]
async fn nothing_is_said_of_a_cancelled_probe() {
    let mut bench = Bench::new();
    bench.host.exec(probe("sleep 600", 60_000));
    bench.host.cancel_exec(&name(), ProbeKind::Liveness);
    bench.silent().await;
    assert!(bench.host.children.is_empty() && bench.host.attempts.is_empty());
}

#[tokio::test]
async fn a_probe_that_cannot_start_says_why() {
    let mut bench = Bench::new();
    bench.host.exec(ExecOrder { command: vec!["no-such-command".into()], ..probe("", 10_000) });
    let (end, _) = probed(&mut bench).await;
    assert_eq!(end.unwrap().unwrap_err().code, 127);
}

#[tokio::test]
async fn command_of_init_keeps_directory_and_streams_and_leads_a_group() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("seen");
    let script = format!("pwd > {0}; cut -d' ' -f1,5 /proc/$$/stat >> {0}", path.display());
    let order = Order { instance: name(), run: Run(1), unit: Arc::new(sh(&script)), foreground: true };
    bench.host.spawn(order);
    let (pid, output) = bench.spawned().await;
    assert!(output.is_empty());
    assert_eq!(bench.exited().await, Exit::Code(0));
    bench.emptied().await;
    let own = std::env::current_dir().unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{}\n{pid} {pid}\n", own.display()));
}

#[test]
fn a_runtime_directory_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let lock = lock_runtime_dir(dir.path(), &mut Inherited::default()).unwrap();
    match lock_runtime_dir(dir.path(), &mut Inherited::default()) {
        Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(lock);
    lock_runtime_dir(dir.path(), &mut Inherited::default()).unwrap();
}

#[tokio::test]
async fn a_peer_is_known_by_the_kernel() {
    let (one, _two) = UnixStream::pair().unwrap();
    let (pid, peer, groups) = peer(&one).unwrap();
    assert_eq!((pid, peer), (Some(std::process::id()), uid()));
    assert!(groups.contains(&nix::unistd::getegid().as_raw()));
}

#[tokio::test]
async fn a_child_whose_start_was_not_recorded_gets_that_when_it_is_taken_over() {
    let mut bench = Bench::with(|settings, news| {
        let slots = Slots::open(&Inherited::default(), settings.private.as_deref(), 7).unwrap().0;
        Host::with_base(settings, slots, news, None)
    });
    let unit = unit(&["sleep", "600"]);
    bench.spawn(1, unit.clone());
    let (pid, _output) = bench.spawned().await;
    let slot = bench.host.slots.get(Run(1)).unwrap();
    let whole = slot.record();
    assert_ne!(whole.start, 0);
    // As an image leaves it that ended before it could look.
    slot.born(pid.cast_signed(), 0, whole.uid + 1);
    let (unit, so_far) = (Arc::new(unit), crate::engine::SoFar::Born);
    let taken = crate::engine::Taken { instance: name(), run: Run(1), unit, so_far };
    bench.host.adopt(taken, false, &mut Stored::default());
    assert_eq!((slot.record().start, slot.record().uid), (whole.start, whole.uid));
}

#[tokio::test]
async fn what_was_to_be_stopped_before_it_had_begun_is_not_begun_by_who_takes_over() {
    let mut bench = Bench::with(|settings, news| {
        let slots = Slots::open(&Inherited::default(), settings.private.as_deref(), 7).unwrap().0;
        Host::with_base(settings, slots, news, None)
    });
    let (private, ran) = (bench.dir.path().join("private"), bench.dir.path().join("ran"));
    std::fs::write(private.join("web.1.out"), "").unwrap();
    bench.host.slots.take(Run(1)).unwrap();
    let (unit, so_far) = (Arc::new(unit(&["touch", ran.to_str().unwrap()])), crate::engine::SoFar::Revoked);
    let taken = crate::engine::Taken { instance: name(), run: Run(1), unit, so_far };
    bench.host.adopt(taken, false, &mut Stored::default());
    let news = bench.next().await;
    assert!(matches!(news, News::SpawnFailed { .. }), "{news:?}");
    bench.silent().await;
    assert!(!ran.exists() && !private.join("web.1.out").exists());
    assert!(bench.host.slots.runs().is_empty());
}

#[tokio::test]
async fn a_child_that_has_the_pid_of_a_dead_one_by_now_is_not_taken_for_it() {
    let mut bench = Bench::with(|settings, news| {
        let slots = Slots::open(&Inherited::default(), settings.private.as_deref(), 7).unwrap().0;
        Host::with_base(settings, slots, news, None)
    });
    bench.spawn(1, unit(&["sleep", "600"]));
    let (pid, _output) = bench.spawned().await;
    let first = bench.host.slots.get(Run(1)).unwrap().record();
    let slot = bench.host.slots.take(Run(2)).unwrap().unwrap();
    slot.born(first.pid, first.start - 1, first.uid);
    let (unit, so_far) = (Arc::new(unit(&["sleep", "600"])), crate::engine::SoFar::Born);
    let taken = crate::engine::Taken { instance: name(), run: Run(2), unit, so_far };
    bench.host.adopt(taken, false, &mut Stored::default());
    let news = bench.next().await;
    assert!(matches!(news, News::Resumed { .. }), "{news:?}");
    assert_eq!(bench.exited().await, Exit::Unknown);
    bench.emptied().await;
    assert!(alive(pid));
}

#[tokio::test]
async fn a_number_tells_of_kin_only_where_this_very_process_has_seen_its_main_process_alive() {
    let mut bench = Bench::with(|settings, news| {
        let slots = Slots::open(&Inherited::default(), settings.private.as_deref(), 7).unwrap().0;
        Host::with_base(settings, slots, news, None)
    });
    // What it leaves has neither its environment nor its output.
    let leaves = sh("trap : TERM; env -i sleep 600 >/dev/null 2>&1 & exit 3");
    bench.spawn(1, leaves.clone());
    let (main, _output) = bench.spawned().await;
    assert_eq!(bench.exited().await, Exit::Code(3));
    assert_eq!(bench.left().await.len(), 1);
    let slot = bench.host.slots.take(Run(2)).unwrap().unwrap();
    let seen_by = |slot: &slots::Slot, this: bool| {
        slot.born(main.cast_signed(), 1, 0);
        if !this {
            slot.seen_by_another();
        }
    };
    for this in [true, false] {
        seen_by(slot, this);
        let (unit, so_far) = (Arc::new(leaves.clone()), crate::engine::SoFar::Ended);
        let taken = crate::engine::Taken { instance: name(), run: Run(2), unit, so_far };
        bench.host.adopt(taken, false, &mut Stored::default());
        let news = bench.next().await;
        assert!(matches!(news, News::Resumed { .. }), "{news:?}");
        let news = bench.next().await;
        assert!(matches!(news, News::Left { .. }) == this, "{this}: {news:?}");
        bench.host.runs.retain(|(_, run), _| *run != Run(2));
        // Nor does anything else tell of it.
        drop(std::fs::remove_file(bench.dir.path().join("private/web.2.kin")));
    }
}

/// Nothing is kept for another uphold.
fn unkept() -> Slots {
    Slots::none()
}

/// A file whose execution hangs until this is dropped, as on a dead mount: a write lease on it has to be
/// broken first, and its holder does not answer.
fn hanging(path: &Path) -> std::fs::File {
    use nix::libc;
    use std::os::fd::AsRawFd;
    std::fs::write(path, "#!/bin/sh\nexit 4\n").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = std::fs::File::open(path).unwrap();
    const F_SETSIG: libc::c_int = 10;
    // SAFETY: F_SETSIG takes an integer; SIGURG does nothing by default.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) }, 0);
    // SAFETY: F_SETLEASE takes an integer.
    let lease = || unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    // A child of another test may have the descriptor for a moment, until its exec.
    assert!((0..100_000).any(|_| lease() == 0), "{}", std::io::Error::last_os_error());
    file
}

#[tokio::test]
async fn a_start_that_hangs_holds_up_no_other() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("hangs");
    let lease = hanging(&path);
    bench.spawn(1, unit(&[path.to_str().unwrap()]));
    let (instance, unit) = (Name::new("other").unwrap(), Arc::new(sh("exit 3")));
    bench.host.spawn(Order { instance, run: Run(1), unit, foreground: false });
    let (_, _output) = bench.spawned().await;
    assert_eq!(bench.exited().await, Exit::Code(3));
    bench.emptied().await;
    drop(lease);
    let (_, _output) = bench.spawned().await;
    assert_eq!(bench.exited().await, Exit::Code(4));
}

#[tokio::test]
async fn a_probe_that_hangs_before_it_begins_fails_no_other_for_long() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("hangs");
    let lease = hanging(&path);
    let stuck = ExecOrder { command: vec![path.display().to_string()], ..probe("", 200) };
    // The engine tries it again and again, and each time it hangs.
    for _ in 0..3 {
        bench.host.exec(stuck.clone());
        assert_eq!(probed(&mut bench).await.0, None);
    }
    bench.host.exec(ExecOrder { instance: Name::new("other").unwrap(), ..probe("exit 3", 15_000) });
    assert_eq!(probed(&mut bench).await.0, Some(Ok(Exit::Code(3))));
    drop(lease);
    bench.silent().await;
}

#[tokio::test]
async fn orphans_are_reaped_while_a_start_hangs() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("hangs");
    let lease = hanging(&path);
    bench.spawn(1, unit(&[path.to_str().unwrap()]));
    let script = sh("for i in 1 2 3; do (sleep 0.05 &) ; done; sleep 0.3; exit 3");
    let order = Order {
        instance: Name::new("other").unwrap(),
        run: Run(1),
        unit: Arc::new(script),
        foreground: false,
    };
    bench.host.spawn(order);
    let (_, _output) = bench.spawned().await;
    assert_eq!(bench.exited().await, Exit::Code(3));
    bench.emptied().await;
    bench.silent().await;
    let own = std::process::id().cast_signed();
    let zombies = kin::snapshot().unwrap().into_iter().filter(|proc| proc.parent == own && proc.zombie);
    assert_eq!(zombies.count(), 0);
    drop(lease);
    let (_, _output) = bench.spawned().await;
}
