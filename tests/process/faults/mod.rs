//! System calls of uphold fail. It stays, says what it could not do, and does it when it can.
//!
//! [`table`] is what fails and how, [`bench`] what uphold is asked meanwhile and has to be after it, [`strace`] what
//! makes a call fail. [`begins`] is about an uphold that has not begun when it fails.

mod begins;
mod bench;
mod strace;
mod table;
