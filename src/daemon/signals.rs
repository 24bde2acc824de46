//! Signals to uphold itself, taken by a thread that passes their numbers on.

use std::io;

use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

use crate::unit::Signal;

/// What reports a fault of uphold's own keeps its meaning, and two cannot be caught.
const LEFT_ALONE: [&str; 9] =
    ["SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGSEGV", "SIGSTOP", "SIGSYS"];

/// Starts the thread. Every signal that can be taken is: none of them may end or stop uphold, Ctrl-Z
/// neither.
pub fn start() -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let taken: Vec<i32> = (1..=64)
        .filter_map(Signal::from_number)
        .filter(|signal| !LEFT_ALONE.contains(&signal.name().as_str()))
        .filter(|signal| ![Signal::TTIN, Signal::TTOU].contains(signal))
        .map(Signal::number)
        .collect();
    let mut signals = Signals::new(&taken)?;
    let (send, receive) = mpsc::unbounded_channel();
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
