//! Where a stream goes, opened.

use std::cell::RefCell;
use std::rc::Rc;

use super::console::{Console, Order};
use super::file::{LogFile, Writer};
use super::journal::{Journal, Place};
use super::loss::{Notices, say};
use crate::file_id::FileId;

/// A file that other streams may share, one of the consoles, or nothing.
#[derive(Clone)]
pub(super) enum Sink {
    File(Rc<RefCell<LogFile>>),
    Console(usize),
    Null,
}

impl Sink {
    /// Brings a batch to its place; `place` is where a predecessor was at it.
    pub(super) fn deliver(
        &self,
        batch: &[u8],
        place: Option<Place>,
        writer: Writer<'_>,
        journal: &mut Journal,
        consoles: &mut [Console; 2],
        notices: &Notices,
    ) {
        match self {
            _ if batch.is_empty() => {}
            Sink::File(file) => match place {
                Some(place) => file.borrow_mut().resume(batch, place, writer, journal),
                None => file.borrow_mut().write(batch, writer, journal),
            },
            // What was in the queue is lost; what was written is not written again.
            Sink::Console(_) if place.is_some() => {}
            Sink::Console(which) => {
                let Writer { owner, lead, .. } = writer;
                let console = &mut consoles[*which];
                console.enter();
                journal.put(Place {
                    done: batch.len() as u64,
                    length: 0,
                    id: FileId::NONE,
                    size: None,
                    torn: false,
                });
                let order = Order::Write { owner: owner.clone(), batch: batch.to_vec(), lead: lead.len() };
                if !console.send(order) {
                    let message = format!("cannot pass on output of {owner}: uphold's own stream is stuck");
                    say(notices, owner, "LogWriteFailed", true, message);
                }
            }
            Sink::Null => {}
        }
    }
}
