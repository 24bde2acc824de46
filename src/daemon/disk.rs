//! A thread for reading files, so that a dead mount never stalls supervision.

use std::io;
use std::sync::mpsc;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread. It ends with its last handle.
#[derive(Debug, Clone)]
pub struct Disk {
    jobs: mpsc::Sender<Job>,
}

impl Disk {
    /// Starts the thread.
    pub fn start() -> io::Result<Disk> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("uphold-disk".to_owned()).spawn(move || {
            while let Ok(job) = queue.recv() {
                job();
            }
        })?;
        Ok(Disk { jobs })
    }

    /// Runs it there, after what was asked for before. `None`: the thread is gone.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || drop(answer.send(job())));
        self.jobs.send(job).ok()?;
        answered.await.ok()
    }
}
