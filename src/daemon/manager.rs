//! The service manager above uphold, told by sd_notify(3), if there is one.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says these. A manager that cannot be reached is no reason to stop.
fn say(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}

/// Supervision has begun.
pub fn ready() {
    say(&[NotifyState::Ready]);
}

/// A shutdown has begun.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// The deciding thread is alive.
pub fn alive() {
    say(&[NotifyState::Watchdog]);
}

/// How often it wants to hear [`alive`]: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises.
pub fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}
