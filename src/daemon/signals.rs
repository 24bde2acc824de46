//! Signals that report a fault and that somebody has sent are none: a thread takes what the handler says of them.

use std::fs::File;
use std::io::{self, Read};

use tokio::sync::mpsc;

use crate::unit::Signal;

/// Starts the thread.
pub fn hear_sent_faults(mut faults: File) -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("uphold-faults".to_owned()).spawn(move || {
        let mut number = [0];
        while faults.read_exact(&mut number).is_ok() {
            if let Some(signal) = Signal::from_number(number[0].into()) {
                // Nobody listens at uphold's end.
                let _ = send.send(signal);
            }
        }
    })?;
    Ok(receive)
}
