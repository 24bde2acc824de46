//! The pump with real files. A socket pair stands in for the pipe of a run.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::lines::MARKER;
use super::*;
use crate::unit::Output;

/// More than any of these tests needs.
const BOUND: Duration = Duration::from_secs(20);

struct Bench {
    dir: TempDir,
    logs: Logs,
    notices: mpsc::UnboundedReceiver<Notice>,
    stdout: UnixStream,
}

pub(super) fn make_fifo(path: &Path) {
    let _alone = crate::alone::alone();
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Keys of `[logs]` without stamps, so that a file holds just what was written.
fn bare() -> unit::Logs {
    unit::Logs { timestamps: false, ..unit::Logs::default() }
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (notices, heard) = mpsc::unbounded_channel();
        let (stdout, own) = UnixStream::pair().unwrap();
        let streams = [own.try_clone().unwrap().into(), own.into()];
        let settings = Settings { dir: Some(dir.path().to_owned()), default: Output::File };
        Bench {
            logs: Logs::with_streams(settings, None, notices, streams).unwrap(),
            dir,
            notices: heard,
            stdout,
        }
    }

    fn stream(&self, instance: &str, run: u64, stderr: bool, logs: &unit::Logs) -> UnixStream {
        let (service, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (instance, logs) = (name(instance), logs.clone());
        self.logs.open(Source {
            instance,
            run: Run(run),
            stderr,
            pipe: ours.into(),
            path: None,
            logs,
            begins: Begins::Anew,
            room: None,
        });
        service
    }

    fn run(&self, instance: &str, logs: &unit::Logs) -> UnixStream {
        self.stream(instance, 1, false, logs)
    }

    fn file(&self, instance: &str) -> PathBuf {
        self.dir.path().join(instance).join("stdout.log")
    }

    async fn finish(self) -> TempDir {
        self.logs.finish(BOUND).await;
        self.dir
    }

    async fn notice(&mut self) -> Notice {
        timeout(BOUND, self.notices.recv()).await.unwrap().unwrap()
    }
}

fn query(instance: &str, logs: &unit::Logs) -> Query {
    let (instance, logs) = (name(instance), logs.clone());
    Query {
        instance,
        logs,
        lines: None,
        since: None,
        until: None,
        follow: false,
        positions: false,
        after: None,
    }
}

async fn next(lines: &mut mpsc::Receiver<Item>) -> Option<Line> {
    timeout(BOUND, lines.recv()).await.unwrap().map(|item| match item {
        Item::Line(line) => line,
        Item::Here(here) => panic!("no line, but {here:?}"),
    })
}

async fn all(mut lines: mpsc::Receiver<Item>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(line) = next(&mut lines).await {
        texts.push(line.line);
    }
    texts
}

/// The bytes of a log over all its files, oldest first.
fn whole(path: &Path) -> Vec<u8> {
    let numbers = (0..1000).rev().map(|number| rotate::rotated(path, number));
    numbers.filter_map(|path| fs::read(path).ok()).flatten().collect()
}

fn act<F: Future>(work: F) -> F::Output {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[tokio::test]
async fn the_end_of_a_stream_removes_its_fifo_and_tells_that_from_what_somebody_else_removes() {
    let bench = Bench::new();
    let (mut service, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let fifo = bench.dir.path().join("web.1.out");
    fs::write(&fifo, "").unwrap();
    bench.logs.open(Source {
        instance: name("web"),
        run: Run(1),
        stderr: false,
        pipe: ours.into(),
        path: Some(fifo.clone()),
        logs: bare(),
        begins: Begins::Anew,
        room: None,
    });
    service.write_all(b"a line\n").unwrap();
    let names = || ["web.1.out", "web.1.out.part", "db.1.out"].map(OsString::from).to_vec();
    bench.logs.tail(&name("web")).await;
    assert_eq!(bench.logs.not_own(names()), names());
    drop(service);
    bench.logs.tail(&name("web")).await;
    assert!(!fifo.exists());
    assert_eq!(bench.logs.not_own(names()), names()[1..]);
    assert_eq!(bench.logs.not_own(names()), names());
}

#[tokio::test]
async fn the_end_of_a_stream_leaves_the_fifo_of_another_uphold_in_the_place_of_its_mark() {
    let bench = Bench::new();
    let (service, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let path = bench.dir.path().join("web.1.out");
    fs::write(&path, "").unwrap();
    bench.logs.open(Source {
        instance: name("web"),
        run: Run(1),
        stderr: false,
        pipe: ours.into(),
        path: Some(path.clone()),
        logs: bare(),
        begins: Begins::Seamlessly,
        room: None,
    });
    bench.logs.tail(&name("web")).await;
    fs::remove_file(&path).unwrap();
    make_fifo(&path);
    drop(service);
    bench.logs.tail(&name("web")).await;
    assert!(path.exists());
}

#[tokio::test]
async fn the_end_of_a_fifo_leaves_one_that_has_its_path_before_it_is_read() {
    let bench = Bench::new();
    let path = bench.dir.path().join("web.1.out");
    make_fifo(&path);
    let mut service = fs::File::options().read(true).write(true).open(&path).unwrap();
    let ours = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&path).unwrap();
    let ours = ours.into_nonblocking_fd().unwrap();
    // A start has taken the path meanwhile.
    fs::remove_file(&path).unwrap();
    make_fifo(&path);
    bench.logs.open(Source {
        instance: name("web"),
        run: Run(1),
        stderr: false,
        pipe: ours,
        path: Some(path.clone()),
        logs: bare(),
        begins: Begins::Seamlessly,
        room: None,
    });
    service.write_all(b"last\n").unwrap();
    drop(service);
    bench.logs.tail(&name("web")).await;
    assert_eq!(fs::read_to_string(bench.file("web")).unwrap(), "last\n");
    assert!(path.exists());
}

#[test]
fn a_thousand_lines_and_an_immediate_end_are_all_there() {
    act(async {
        let bench = Bench::new();
        let text: String = (0..1000).map(|i| format!("line {i}\n")).collect();
        bench.run("web", &bare()).write_all(format!("{text}unfinished").as_bytes()).unwrap();
        let path = bench.file("web");
        let _dir = bench.finish().await;
        assert!(fs::read_to_string(path).unwrap() == format!("{text}unfinished\n"));
    });
}

#[test]
fn the_end_of_a_stream_removes_its_fifo_and_the_end_of_uphold_does_not() {
    act(async {
        let bench = Bench::new();
        let open = |instance: &str| {
            let (service, ours) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let path = bench.dir.path().join(format!("{instance}.1.out"));
            fs::write(&path, "").unwrap();
            let (instance, pipe, logs) = (name(instance), ours.into(), bare());
            let source = Source {
                instance,
                run: Run(1),
                stderr: false,
                pipe,
                path: Some(path.clone()),
                logs,
                begins: Begins::Anew,
                room: None,
            };
            bench.logs.open(source);
            (service, path)
        };
        let (ended, ended_path) = open("ended");
        let (mut living, living_path) = open("living");
        drop(ended);
        living.write_all(b"half a li").unwrap();
        let path = bench.file("living");
        let _dir = bench.finish().await;
        assert!(!ended_path.exists());
        assert!(living_path.exists());
        assert_eq!(fs::read(path).unwrap(), [b"half a li", MARKER, b"\n"].concat());
    });
}

#[test]
fn the_end_of_a_real_fifo_is_seen_without_being_asked_for() {
    act(async {
        let bench = Bench::new();
        let path = bench.dir.path().join("web.1.out");
        make_fifo(&path);
        let mut service = fs::File::options().read(true).write(true).open(&path).unwrap();
        let ours = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&path).unwrap();
        let (instance, pipe, logs) = (name("web"), ours.into_nonblocking_fd().unwrap(), bare());
        let source = Source {
            instance,
            run: Run(1),
            stderr: false,
            pipe,
            path: Some(path.clone()),
            logs,
            begins: Begins::Anew,
            room: None,
        };
        bench.logs.open(source);
        let mut lines = bench.logs.read(Query { follow: true, ..query("web", &bare()) });
        let writer = thread::spawn(move || {
            (0..20_000).for_each(|i| service.write_all(format!("line {i}\n").as_bytes()).unwrap());
            service.write_all(b"unfinished").unwrap();
        });
        for i in 0..20_000 {
            assert_eq!(next(&mut lines).await.unwrap().line, format!("line {i}"));
        }
        // This one is a line only because the end has come.
        assert_eq!(next(&mut lines).await.unwrap().line, "unfinished");
        writer.join().unwrap();
        bench.logs.tail(&name("web")).await;
        assert!(!path.exists());
    });
}

#[test]
fn each_line_has_the_time_of_its_reading() {
    act(async {
        let bench = Bench::new();
        let nanos = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let before = Wall::from_nanos(nanos() / 1000 * 1000);
        let logs = unit::Logs::default();
        let mut service = bench.run("web", &logs);
        service.write_all(b"one\n\x00\xff\xfe\r\n").unwrap();
        let mut lines = bench.logs.read(query("web", &logs));
        let first = next(&mut lines).await.unwrap();
        assert_eq!((&*first.line, &*first.stream), ("one", "stdout"));
        let at = first.at.unwrap();
        assert!(
            before.timestamp() <= at.timestamp() && at.timestamp() <= Wall::from_nanos(nanos()).timestamp()
        );
        assert_eq!(next(&mut lines).await.unwrap().line, "\0\u{fffd}\u{fffd}\r");
        assert_eq!(next(&mut lines).await, None);
        let file = fs::read(bench.file("web")).unwrap();
        assert_eq!((file.len(), &file[28..32], &file[60..]), (65, &b"one\n"[..], &b"\x00\xff\xfe\r\n"[..]));
    });
}

#[test]
fn a_query_by_time_gives_what_was_read_between() {
    act(async {
        let bench = Bench::new();
        let logs = unit::Logs::default();
        fs::create_dir_all(bench.file("web").parent().unwrap()).unwrap();
        let line = |second: u32| format!("2026-11-25T12:00:{second:02}.500000Z at {second}\n");
        let file = |seconds: std::ops::Range<u32>| seconds.map(line).collect::<String>();
        fs::write(rotate::rotated(&bench.file("web"), 1), file(0..10)).unwrap();
        fs::write(bench.file("web"), file(10..20)).unwrap();
        let at = |second: u32| format!("2026-11-25T12:00:{second:02}.500000900Z").try_into().ok();
        let mut wanted = query("web", &logs);
        (wanted.since, wanted.until) = (at(8), at(12));
        assert_eq!(all(bench.logs.read(wanted.clone())).await, ["at 8", "at 9", "at 10", "at 11"]);
        wanted.lines = Some(2);
        assert_eq!(all(bench.logs.read(wanted.clone())).await, ["at 10", "at 11"]);
        (wanted.since, wanted.until) = (at(19), None);
        assert_eq!(all(bench.logs.read(wanted)).await, ["at 19"]);
    });
}

#[test]
fn streams_kept_apart_are_read_together_in_the_order_of_their_stamps() {
    act(async {
        let bench = Bench::new();
        let logs = unit::Logs { stderr: Some(Output::File), ..unit::Logs::default() };
        let mut out = bench.stream("web", 1, false, &logs);
        let mut err = bench.stream("web", 1, true, &logs);
        let tail = async |stream: &mut UnixStream, text: &str| {
            stream.write_all(text.as_bytes()).unwrap();
            bench.logs.tail(&name("web")).await
        };
        tail(&mut out, "o1\n").await;
        tail(&mut err, "e1\n").await;
        assert_eq!(tail(&mut out, "o2\n").await, ["o1", "e1", "o2"]);
        assert_eq!(bench.logs.last_line(&name("web")).as_deref(), Some("e1"));
        let mut last = query("web", &logs);
        assert_eq!(all(bench.logs.read(last.clone())).await, ["o1", "e1", "o2"]);
        last.lines = Some(2);
        assert_eq!(all(bench.logs.read(last)).await, ["e1", "o2"]);
        assert!(bench.dir.path().join("web/stderr.log").exists());
    });
}

#[test]
fn a_tail_has_what_was_written_before_it_and_nothing_a_terminal_obeys() {
    act(async {
        let bench = Bench::new();
        let mut service = bench.run("web", &unit::Logs::default());
        for i in 0..50 {
            service.write_all(format!("\x1b[31m{i}\n").as_bytes()).unwrap();
            assert_eq!(bench.logs.tail(&name("web")).await.last().unwrap(), &format!("\\x1b[31m{i}"));
        }
        service.write_all(b"panicked").unwrap();
        let tail = bench.logs.tail(&name("web")).await;
        assert_eq!((tail.len(), tail.last().map(String::as_str)), (10, Some("panicked")));
        assert_eq!(bench.logs.last_line(&name("web")).as_deref(), Some("panicked"));
        bench.logs.forget(&name("web"));
        assert_eq!(bench.logs.last_line(&name("web")), None);
    });
}

#[test]
fn a_follower_sees_every_line_once_across_rotations() {
    act(async {
        let bench = Bench::new();
        let logs = unit::Logs { max_size: 4000, keep: 100, ..unit::Logs::default() };
        let mut service = bench.run("web", &logs);
        service.write_all(b"before 1\nbefore 2\n").unwrap();
        let mut lines = bench.logs.read(Query { lines: Some(1), follow: true, ..query("web", &logs) });
        assert_eq!(next(&mut lines).await.unwrap().line, "before 2");
        let writer = thread::spawn(move || {
            for i in 0..3000 {
                service.write_all(format!("line {i}\n").as_bytes()).unwrap();
            }
            service
        });
        for i in 0..3000 {
            assert_eq!(next(&mut lines).await.unwrap().line, format!("line {i}"));
        }
        drop(writer.join().unwrap());
        assert!(rotate::rotated(&bench.file("web"), 20).exists());
        let _dir = bench.finish().await;
        assert_eq!(next(&mut lines).await, None);
    });
}

#[test]
fn a_full_disk_is_said_once_and_the_loss_is_counted_in_the_log_when_it_is_well_again() {
    act(async {
        let mut bench = Bench::new();
        let path = bench.dir.path().join("link");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let logs = unit::Logs { stdout: Some(Output::Path(path.clone())), ..bare() };
        let mut service = bench.run("web", &logs);
        for _ in 0..3 {
            service.write_all(b"lost\n").unwrap();
            bench.logs.tail(&name("web")).await;
        }
        let notice = bench.notice().await;
        assert_eq!((notice.reason, notice.warning), ("LogWriteFailed", true));
        assert!(notice.message.contains("No space left on device;"), "{}", notice.message);
        fs::remove_file(&path).unwrap();
        // The end of the stream is an attempt that does not wait for its second.
        drop(service);
        bench.logs.tail(&name("web")).await;
        let notice = bench.notice().await;
        assert_eq!((notice.reason, notice.warning), ("LogWriteRecovered", false));
        assert!(notice.message.contains("3 lines (15 bytes)"), "{}", notice.message);
        let said = "uphold: 3 lines (15 bytes) lost: No space left on device\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), said);
        assert!(bench.notices.try_recv().is_err());
    });
}

#[test]
fn half_a_line_that_was_read_before_output_went_nowhere_is_a_line_of_its_own() {
    act(async {
        let bench = Bench::new();
        let null = unit::Logs { stdout: Some(Output::Null), ..bare() };
        let mut service = bench.run("web", &bare());
        for (logs, text) in [(&bare(), "whole\nhalf"), (&null, " a line\nno"), (&bare(), "thing\nlast\n")] {
            bench.logs.configure(&name("web"), logs);
            service.write_all(text.as_bytes()).unwrap();
            bench.logs.tail(&name("web")).await;
        }
        let path = bench.file("web");
        let _dir = bench.finish().await;
        assert_eq!(fs::read_to_string(path).unwrap(), "whole\nhalf\nthing\nlast\n");
    });
}

#[test]
fn a_place_that_is_no_file_and_cannot_be_is_said_and_takes_no_service_down() {
    act(async {
        let mut bench = Bench::new();
        let in_the_way = bench.dir.path().join("in-the-way");
        fs::write(&in_the_way, "").unwrap();
        let logs = unit::Logs { stdout: Some(Output::Path(in_the_way.join("log"))), ..bare() };
        let mut service = bench.run("web", &logs);
        assert!(bench.notice().await.message.contains("Not a directory"));
        service.write_all(&vec![b'\n'; 300_000]).unwrap();
        bench.logs.configure(&name("web"), &bare());
        service.write_all(b"seen\n").unwrap();
        let path = bench.file("web");
        drop(service);
        let _dir = bench.finish().await;
        assert!(fs::read_to_string(path).unwrap().ends_with("seen\n"));
    });
}

#[test]
fn units_that_share_a_file_keep_their_lines_whole() {
    act(async {
        let bench = Bench::new();
        let path = bench.dir.path().join("shared.log");
        let logs =
            unit::Logs { stdout: Some(Output::Path(path.clone())), max_size: 10_000, keep: 999, ..bare() };
        let write = |unit: &'static str| {
            let mut service = bench.run(unit, &logs);
            thread::spawn(move || {
                for i in 0..2000 {
                    service.write_all(format!("{unit} {i}\n").as_bytes()).unwrap();
                }
            })
        };
        let writers = [write("one"), write("two")];
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let _dir = bench.finish().await;
        let text = String::from_utf8(whole(&path)).unwrap();
        for unit in ["one", "two"] {
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(unit)).collect();
            let expected: Vec<String> = (0..2000).map(|i| format!("{unit} {i}")).collect();
            assert_eq!(lines, expected);
        }
        assert_eq!(text.lines().count(), 4000);
    });
}

#[test]
fn inherited_output_has_the_name_before_each_line_and_a_stuck_reader_holds_only_who_writes_there() {
    act(async {
        let mut bench = Bench::new();
        let inherit = unit::Logs { stdout: Some(Output::Inherit), ..unit::Logs::default() };
        let mut loud = bench.run("loud", &inherit);
        let writer = thread::spawn(move || {
            for i in 0..100_000 {
                loud.write_all(format!("line {i}\n").as_bytes()).unwrap();
            }
        });
        let mut quiet = bench.run("quiet", &bare());
        quiet.write_all(b"written\n").unwrap();
        bench.logs.tail(&name("quiet")).await;
        assert_eq!(fs::read_to_string(bench.file("quiet")).unwrap(), "written\n");
        let expected: String = (0..100_000).map(|i| format!("loud | line {i}\n")).collect();
        let mut read = vec![0; expected.len()];
        bench.stdout.set_read_timeout(Some(BOUND)).unwrap();
        bench.stdout.read_exact(&mut read).unwrap();
        assert!(read == expected.as_bytes());
        writer.join().unwrap();
        assert_eq!(all(bench.logs.read(query("loud", &inherit))).await.len(), 10);
    });
}

#[test]
fn a_console_that_nobody_reads_any_more_is_a_notice_and_no_end() {
    act(async {
        let mut bench = Bench::new();
        let inherit = unit::Logs { stdout: Some(Output::Inherit), ..unit::Logs::default() };
        bench.stdout.shutdown(std::net::Shutdown::Both).unwrap();
        let mut service = bench.run("web", &inherit);
        service.write_all(b"lost\n").unwrap();
        let notice = bench.notice().await;
        assert_eq!(notice.reason, "LogWriteFailed");
        assert!(notice.message.contains("uphold's own stdout: Broken pipe"), "{}", notice.message);
    });
}

#[test]
fn a_file_that_ends_within_a_line_is_not_written_on_in_that_line() {
    act(async {
        let bench = Bench::new();
        let path = bench.file("web");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "torn").unwrap();
        bench.run("web", &bare()).write_all(b"next\n").unwrap();
        let _dir = bench.finish().await;
        assert_eq!(fs::read_to_string(path).unwrap(), "torn\nnext\n");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rotation_keeps_every_line_once_and_whole(
        lengths in prop::collection::vec(0_usize..200, 1..400), max_size in 1_u64..3000, step in 1_usize..5000,
    ) {
        act(async {
            let bench = Bench::new();
            let logs = unit::Logs { max_size, keep: 999, max_line: 150, ..bare() };
            let lines = lengths.iter().enumerate().map(|(i, n)| format!("{i} {}\n", "x".repeat(*n)));
            let text: String = lines.collect();
            let mut service = bench.run("web", &logs);
            for part in text.as_bytes().chunks(step) {
                service.write_all(part).unwrap();
            }
            drop(service);
            let path = bench.file("web");
            let dir = bench.finish().await;
            let split = String::from_utf8(whole(&path)).unwrap();
            let marker = format!("{}\n", std::str::from_utf8(MARKER).unwrap());
            assert!(split.replace(&marker, "") == text);
            for number in 0..1000 {
                let Ok(file) = fs::read(rotate::rotated(&path, number)) else { break };
                let lines = file.iter().filter(|byte| **byte == b'\n').count();
                assert!(file.ends_with(b"\n") && (lines == 1 || file.len() as u64 <= max_size));
            }
            drop(dir);
        });
    }
}

#[test]
fn who_gives_a_position_back_goes_on_there_whatever_the_streams_have_written() {
    act(async {
        let bench = Bench::new();
        let logs = unit::Logs { stderr: Some(Output::File), ..unit::Logs::default() };
        let mut streams = [false, true].map(|stderr| bench.stream("web", 1, stderr, &logs));
        let mut written = Vec::new();
        for round in 0..40 {
            let text = format!("line {round}\n");
            streams[round % 3 % 2].write_all(text.as_bytes()).unwrap();
            assert_eq!(bench.logs.tail(&name("web")).await.last().map(String::as_str), Some(text.trim_end()));
            written.push(text.trim_end().to_owned());
        }
        let mut wanted = Query { positions: true, ..query("web", &logs) };
        let mut lines = Vec::new();
        let mut answer = bench.logs.read(wanted.clone());
        while let Some(line) = next(&mut answer).await {
            lines.push(line);
        }
        let texts = |lines: &[Line]| lines.iter().map(|line| line.line.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&lines), written);
        for (at, line) in lines.iter().enumerate() {
            wanted.after = Position::parse(line.position.as_deref().unwrap());
            // The lines that were asked for at first are no limit to what comes after.
            wanted.lines = Some(1);
            assert_eq!(all(bench.logs.read(wanted.clone())).await, written[at + 1..]);
        }
        wanted.follow = true;
        let mut answer = bench.logs.read(wanted);
        let here = timeout(BOUND, answer.recv()).await.unwrap().unwrap();
        let position = lines.last().unwrap().position.clone().unwrap();
        assert_eq!(here, Item::Here(Here { position, gap: false }));
        streams[0].write_all(b"more\n").unwrap();
        assert_eq!(next(&mut answer).await.unwrap().line, "more");
    });
}

#[tokio::test]
async fn the_last_lines_of_a_run_that_began_before_are_read_from_its_file() {
    let bench = Bench::new();
    let file = bench.file("web");
    fs::create_dir(file.parent().unwrap()).unwrap();
    let open = |begins| {
        let (service, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (instance, run) = (name("web"), Run(if begins == Begins::Anew { 2 } else { 1 }));
        let (pipe, path, logs) = (ours.into(), None, bare());
        bench.logs.open(Source { instance, run, stderr: false, pipe, path, logs, begins, room: None });
        service
    };
    let recall = || bench.logs.recall(query("web", &bare()));
    let own = "uphold: run 1 ended while no uphold ran: what it had written and nobody had read is lost";
    fs::write(&file, format!("{own}\n")).unwrap();
    assert_eq!(recall().await, [own]);
    let lines: String = (1..=12).map(|number| format!("{number}\n")).collect();
    fs::write(&file, format!("{lines}{own}\n")).unwrap();
    let numbers = |from: u32| (from..from + 10).map(|number| number.to_string()).collect::<Vec<_>>();
    // Nothing of it was opened, then it is read on.
    assert_eq!(recall().await, numbers(3));
    let mut service = open(Begins::Seamlessly);
    assert_eq!(recall().await, numbers(3));
    service.write_all(b"13\n14").unwrap();
    assert_eq!(recall().await, numbers(5));
    // What a next run has not said, the one before has not said for it.
    let mut service = open(Begins::Anew);
    assert_eq!(recall().await, [""; 0]);
    service.write_all(b"new\n").unwrap();
    assert_eq!(recall().await, ["new"]);
}
