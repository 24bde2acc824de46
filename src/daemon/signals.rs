//! Signals to uphold itself, taken by threads that pass their numbers on.

use std::fs::File;
use std::io::{self, Read};

use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

use crate::unit::Signal;

/// What reports a fault is handled by the host, which gives those that somebody has sent; two cannot be caught.
const LEFT_ALONE: [&str; 9] =
    ["SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGSEGV", "SIGSTOP", "SIGSYS"];

/// Starts the threads. Every signal that can be taken is: none of them may end or stop uphold, Ctrl-Z
/// neither.
pub fn start(mut faults: File) -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let taken: Vec<i32> = (1..=64)
        .filter_map(Signal::from_number)
        .filter(|signal| !LEFT_ALONE.contains(&signal.name().as_str()))
        .filter(|signal| ![Signal::TTIN, Signal::TTOU].contains(signal))
        .map(Signal::number)
        .collect();
    let mut signals = Signals::new(&taken)?;
    let (send, receive) = mpsc::unbounded_channel();
    let sent = send.clone();
    std::thread::Builder::new().name("uphold-faults".to_owned()).spawn(move || {
        let mut number = [0];
        while faults.read_exact(&mut number).is_ok() {
            if let Some(signal) = Signal::from_number(number[0].into()) {
                let _ = sent.send(signal);
            }
        }
    })?;
    std::thread::Builder::new().name("uphold-signals".to_owned()).spawn(move || {
        for number in signals.forever() {
            let Some(signal) = Signal::from_number(number) else { continue };
            // Nobody listens at uphold's end; the thread stays. Without it the handler would write to a closed
            // pipe, whose SIGPIPE is taken by the handler too: uphold would spin and never end.
            let _ = send.send(signal);
        }
    })?;
    Ok(receive)
}
