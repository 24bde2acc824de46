//! A process that a test looks at while it runs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::dsl::pause;

/// Nothing here takes longer, not even on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process with its output in files. Ended and reaped with this.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Its stdin stays open for as long as it runs.
    pub fn start(mut command: Command, dir: &Path, name: &str) -> Running {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let file = |path: &Path| fs::File::create(path).unwrap();
        command.stdin(Stdio::piped()).stdout(file(&out)).stderr(file(&err));
        Running { child: command.spawn().unwrap(), out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    /// Waits until it has written this to stdout.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> &mut Running {
        self.eventually(text, |running| running.out().contains(text))
    }

    /// To its stdin.
    pub fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    #[track_caller]
    pub fn eventually(&mut self, what: &str, is: impl Fn(&Running) -> bool) -> &mut Running {
        let until = Instant::now() + PATIENCE;
        loop {
            let over = self.child.try_wait().unwrap();
            if is(self) {
                return self;
            }
            let why = match over {
                Some(status) => format!("it has ended: {status}"),
                None if Instant::now() >= until => "it takes too long".to_owned(),
                None => {
                    pause();
                    continue;
                }
            };
            panic!("no `{what}`: {why}\n{}\n{}", self.out(), self.err());
        }
    }

    /// Waits for its end: the exit code.
    #[track_caller]
    pub fn exit(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end:\n{}\n{}", self.out(), self.err());
            pause();
        }
    }
}

impl Running {
    /// Kills and reaps it, where it has not ended.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
