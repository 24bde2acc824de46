//! What the daemon config says of uphold itself, as it comes into effect: at the start and at each load.

use tokio::sync::watch;

use super::Daemon;
use super::files::{Files, Loading};
use super::voice::Voice;
use crate::control::Permissions;
use crate::engine::Input;

/// The ways to those who go by it and are no part of the loop.
pub(super) struct Settings {
    pub voice: Voice,
    pub permissions: watch::Sender<Permissions>,
}

impl Daemon {
    /// Puts it in effect.
    pub(super) fn configure(&mut self, loading: &Loading) {
        let config = &loading.sources.config;
        self.settings.voice.tune(config.log_level.as_deref(), config.log_format);
        self.settings.permissions.send_replace(loading.permissions.clone());
        let (main, shutdown_timeout) = (loading.sources.main.clone(), config.shutdown_timeout);
        self.handle(Input::Configure { main, shutdown_timeout });
    }
}

/// The keys about uphold itself that a load changes. What `--main` says, no file changes.
pub(super) fn changed(files: &Files, old: &Loading, new: &Loading) -> Vec<String> {
    let keys = old.sources.config.changed(&new.sources.config);
    let overruled = |key: &&str| *key == "main" && files.main.is_some();
    keys.into_iter().filter(|key| !overruled(key)).map(str::to_owned).collect()
}
