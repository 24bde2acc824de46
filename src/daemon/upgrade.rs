//! `ctl upgrade` and SIGUSR2: the binary that is installed now is tried on the state, and then executed in
//! place of this one. Also what there is to say of how this image came to be.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Daemon;
use super::answers::{Inward, problem, send};
use super::inheritance::Inheritance;
use super::journal::{self, STATE_VERSION};
use crate::control::Reply;
use crate::engine::{Exit, Input, Run, SpawnFailure};
use crate::failpoint;
use crate::host::{self, ExecOrder};
use crate::unit::{Name, ProbeKind, Unit};

/// How long the new binary may take to read the state.
const TRIAL: Duration = Duration::from_secs(10);
/// How long who has asked for something short may wait for the answer before the connection goes with the
/// image.
const ANSWERS: Duration = Duration::from_secs(2);
/// How long nobody is let in where the exec does not come about and nothing says so.
const KEPT_OUT: Duration = Duration::from_secs(5);

/// Why there is nothing to go on from.
const STALE: &str = "the state cannot be recorded at the moment; uphold's log says why";

/// An upgrade that is being tried.
pub(super) struct Upgrade {
    path: PathBuf,
    /// `None`: SIGUSR2.
    reply: Option<oneshot::Sender<Reply>>,
}

/// What a binary says of itself and of a state.
#[derive(Debug, Serialize, Deserialize)]
struct Trial {
    release: String,
    /// The versions of a state that it reads.
    state_versions: Vec<u32>,
    /// Why it cannot go on from this one.
    refuses: Option<String>,
}

/// `uphold try-state PLACE`: whether this binary could go on from the state in that private directory, or file.
/// Prints one JSON object.
pub fn try_state(place: &Path) -> ExitCode {
    let refuses = journal::refuses(place);
    let trial =
        Trial { release: env!("CARGO_PKG_VERSION").to_owned(), state_versions: vec![STATE_VERSION], refuses };
    let text = serde_json::to_string(&trial).unwrap_or_default();
    match std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

impl Daemon {
    /// Tries the new binary; [`Daemon::tried`] follows.
    pub(super) fn upgrade(&mut self, reply: Option<oneshot::Sender<Reply>>) {
        self.conclude(Vec::new());
        let refused = if self.engine.shutting_down() {
            Some("uphold is shutting down".to_owned())
        } else if self.upgrading.is_some() {
            Some("an upgrade is on its way already".to_owned())
        } else if !self.recorded {
            Some(STALE.to_owned())
        } else {
            None
        };
        let (state, path) = match (refused, self.journal.place(), host::own_path()) {
            (Some(why), ..) => return self.not_upgraded(reply, &why),
            (None, None, _) => {
                return self.not_upgraded(reply, "the state cannot be kept: is /proc mounted?");
            }
            (None, Some(_), None) => {
                return self
                    .not_upgraded(reply, "uphold does not know where its binary stands: is /proc mounted?");
            }
            (None, Some(state), Some(path)) => (state, path.to_owned()),
        };
        let (Some(program), Some(state), Some(name)) = (path.to_str(), state.to_str(), trial_name()) else {
            return self.not_upgraded(reply, "the path of its binary or runtime directory is no UTF-8");
        };
        let command = vec![program.to_owned(), "try-state".to_owned(), state.to_owned()];
        self.host.exec(ExecOrder {
            instance: name.clone(),
            run: Run(0),
            kind: ProbeKind::Startup,
            unit: Arc::new(Unit::new(name)),
            command,
            timeout: TRIAL,
        });
        self.upgrading = Some(Upgrade { path, reply });
    }

    /// Whether this is the name that trials go by. No unit is called so.
    pub(super) fn is_trial(&self, instance: &Name) -> bool {
        self.upgrading.is_some() && trial_name().as_ref() == Some(instance)
    }

    /// The new binary has said what it has to say.
    pub(super) fn tried(&mut self, end: Option<Result<Exit, SpawnFailure>>, output: &[u8]) {
        let Some(Upgrade { path, reply }) = self.upgrading.take() else { return };
        let shown = path.display();
        let text = String::from_utf8_lossy(output).trim().to_owned();
        let why = match end {
            None => format!("{shown} did not say within {}s whether it reads the state", TRIAL.as_secs()),
            Some(Err(failure)) => {
                format!("cannot run {shown}: {} failed: {}", failure.stage, failure.message)
            }
            Some(Ok(Exit::Code(0))) => match serde_json::from_slice::<Trial>(text.as_bytes()) {
                Ok(Trial { refuses: None, release, .. }) => return self.execute_soon(path, &release, reply),
                Ok(Trial { refuses: Some(why), release, .. }) => {
                    format!("{shown} is {release} and cannot go on from this state: {why}")
                }
                Err(_) => format!("{shown} is no uphold that can take over: it says `{text}`"),
            },
            Some(Ok(_)) => format!("{shown} is no uphold that can take over: it says `{text}`"),
        };
        self.not_upgraded(reply, &why);
    }

    fn not_upgraded(&mut self, reply: Option<oneshot::Sender<Reply>>, why: &str) {
        let message = format!("not upgraded: {why}");
        if let Some(reply) = reply {
            send(reply, Reply::Problem(problem("conflict", "Not upgraded", 409, message.clone())));
        }
        self.own_event("UpgradeFailed", true, message);
    }

    fn execute_soon(&mut self, path: PathBuf, release: &str, reply: Option<oneshot::Sender<Reply>>) {
        tracing::info!(
            "upgrading from {} to {release}: executing {}",
            env!("CARGO_PKG_VERSION"),
            path.display()
        );
        if let Some(reply) = reply {
            send(reply, Reply::Accepted);
        }
        let (inward, logs, server) = (self.inward.clone(), self.logs.clone(), self.server.clone());
        self.upgrading = Some(Upgrade { path: path.clone(), reply: None });
        tokio::spawn(async move {
            // From here on who comes waits for the new image.
            server.hold();
            logs.settle().await;
            server.answered(ANSWERS).await;
            drop(inward.send(Inward::Execute(path)));
            tokio::time::sleep(KEPT_OUT).await;
            server.resume();
        });
    }

    /// Becomes the new binary. Returns only if it cannot.
    pub(super) fn execute(&mut self, path: &Path) {
        self.upgrading = None;
        self.conclude(Vec::new());
        if !self.recorded {
            self.server.resume();
            return self.not_upgraded(None, STALE);
        }
        failpoint::reach("executing");
        host::forgive();
        let error = host::execute(path);
        self.server.resume();
        self.own_event(
            "UpgradeFailed",
            true,
            format!("not upgraded: cannot execute {}: {error}", path.display()),
        );
    }

    /// Says what has led to this image.
    pub(super) fn say_how_it_came(&mut self, before: &Inheritance) {
        if let Some(text) = &before.crashes.unsaid {
            self.own_event("Crashed", true, format!("uphold crashed and goes on: {text}"));
        } else if before.same {
            let message = format!("uphold was upgraded and is {} now", env!("CARGO_PKG_VERSION"));
            self.own_event("Upgraded", false, message);
        }
        if before.crashes.too_many {
            let message = "uphold crashed three times within a minute: from here on it starts, stops and reaps, \
                           without probes and without the control API, until it is started anew";
            self.own_event("CrashLoop", true, message.to_owned());
        }
    }

    /// An event of uphold itself.
    pub(super) fn own_event(&mut self, reason: &'static str, warning: bool, message: String) {
        self.handle(Input::Own { reason, warning, message });
    }
}

fn trial_name() -> Option<Name> {
    Name::new("uphold@upgrade").ok()
}
