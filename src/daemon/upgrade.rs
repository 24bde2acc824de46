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
use super::{journal, versions};
use crate::control::Reply;
use crate::engine::{Exit, Input, Run, SpawnFailure};
use crate::failpoint;
use crate::host::{self, ExecOrder};
use crate::task::{self, Task};
use crate::unit::{Name, ProbeKind, Unit};

/// How long the new binary may take to read the state.
const TRIAL: Duration = Duration::from_secs(10);
/// How long who has asked for something short may wait for the answer before the connection goes with the
/// image.
const ANSWERS: Duration = Duration::from_secs(2);
/// How long nobody is let in where the exec does not come about and nothing else says so.
const KEPT_OUT: Duration = Duration::from_secs(5);

/// Why the new image could not begin.
const NO_SOCKET: &str = "control.sock cannot be put back at the moment; uphold's log says why";
/// Why there is nothing to go on from.
const STALE: &str = "the state cannot be recorded at the moment; uphold's log says why";
/// The exec was decided long ago, and nothing has come of it: what was to bring it about was dropped.
const DROPPED: &str = "the exec was dropped, as what has crashed uphold twice; its log says what that was";

/// The one upgrade that is on its way. Who asks for one meanwhile has asked for this.
pub(super) struct Upgrade {
    path: PathBuf,
    /// Who waits to hear whether it comes; a SIGUSR2 does not.
    replies: Vec<oneshot::Sender<Reply>>,
    stage: Stage,
}

/// How far it has come.
enum Stage {
    /// The new binary is tried.
    Trial {
        /// The state was written in another version, for it to read.
        rewritten: bool,
    },
    /// It can go on from the state, and is to be executed.
    Decided {
        /// Sees whether an exec goes through, and brings that about.
        _task: Task,
        /// Who waits hears that it comes, and clients are kept out until then.
        leaving: bool,
    },
}

/// What follows from what a new binary has said.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It reads this state.
    Execute,
    /// It may read it in this version.
    WriteIn(u32),
    /// It cannot go on from it, for this reason.
    Refuse(String),
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

/// What follows where the state stands in version `written`, and could be written in `ours`.
fn step(written: u32, ours: &[u32], trial: &Trial) -> Step {
    let theirs = &trial.state_versions;
    match (versions::common(ours, theirs), &trial.refuses) {
        (None, _) => {
            let (theirs, ours) = (versions::shown(theirs), versions::shown(ours));
            Step::Refuse(format!("it reads {theirs}, and this uphold writes {ours}"))
        }
        (Some(version), _) if version != written => Step::WriteIn(version),
        (Some(_), None) => Step::Execute,
        (Some(_), Some(why)) => Step::Refuse(why.clone()),
    }
}

/// `uphold try-state PLACE`: whether this binary could go on from the state in that private directory, or file.
/// Prints one JSON object.
pub fn try_state(place: &Path) -> ExitCode {
    let refuses = journal::refuses(place);
    let state_versions = versions::known().to_vec();
    let trial = Trial { release: env!("CARGO_PKG_VERSION").to_owned(), state_versions, refuses };
    let text = serde_json::to_string(&trial).unwrap_or_default();
    match std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

impl Daemon {
    /// Begins an upgrade, or joins the one that is on its way.
    pub(super) fn upgrade(&mut self, reply: Option<oneshot::Sender<Reply>>) {
        if let Some(upgrade) = &mut self.upgrading {
            match (reply, &upgrade.stage) {
                (Some(reply), Stage::Decided { leaving: true, .. }) => send(reply, Reply::Accepted),
                (reply, _) => upgrade.replies.extend(reply),
            }
            return;
        }
        let replies = reply.into_iter().collect();
        let (path, why) = match (self.ready(), host::own_path()) {
            _ if self.engine.shutting_down() => (None, "uphold is shutting down"),
            (Err(why), _) => (None, why),
            _ if self.journal.place().is_none() => (None, "the state cannot be kept: is /proc mounted?"),
            (Ok(()), path) => (path, "uphold does not know where its binary stands: is /proc mounted?"),
        };
        let Some(path) = path else { return self.not_upgraded(replies, why) };
        let path = path.to_owned();
        self.try_binary(Upgrade { path, replies, stage: Stage::Trial { rewritten: false } });
    }

    /// Sees to it that an image which follows now finds all that it goes by. The error says what it would not.
    fn ready(&mut self) -> Result<(), &'static str> {
        // The signs of a removal may be on their way.
        if self.ground.due().is_some() || !self.is_whole() {
            self.put_back();
        }
        self.conclude(Vec::new());
        if !self.recorded {
            Err(STALE)
        } else if self.lacks_socket() {
            Err(NO_SOCKET)
        } else {
            Ok(())
        }
    }

    /// Has the new binary read the state as it stands there; [`Daemon::tried`] follows.
    fn try_binary(&mut self, upgrade: Upgrade) {
        let place = self.journal.place();
        let state = place.as_deref().and_then(Path::to_str);
        let (Some(program), Some(state), Some(name)) = (upgrade.path.to_str(), state, trial_name()) else {
            let why = "the path of its binary or runtime directory is no UTF-8";
            return self.not_upgraded(upgrade.replies, why);
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
        self.upgrading = Some(upgrade);
    }

    /// Whether this is the name that trials go by. No unit is called so.
    pub(super) fn is_trial(&self, instance: &Name) -> bool {
        self.upgrading.is_some() && trial_name().as_ref() == Some(instance)
    }

    /// The new binary has said what it has to say.
    pub(super) fn tried(&mut self, end: Option<Result<Exit, SpawnFailure>>, output: &[u8]) {
        let Some(upgrade) = self.upgrading.take() else { return };
        let shown = upgrade.path.display();
        let text = String::from_utf8_lossy(output).trim().to_owned();
        let why = match end {
            None => format!("{shown} did not say within {}s whether it reads the state", TRIAL.as_secs()),
            Some(Err(failure)) => {
                format!("cannot run {shown}: {} failed: {}", failure.stage, failure.message)
            }
            Some(Ok(exit)) => {
                if exit == Exit::Code(0)
                    && let Ok(trial) = serde_json::from_slice(text.as_bytes())
                {
                    return self.heard(upgrade, &trial);
                }
                let says = if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") };
                format!("{shown} is no uphold that can take over: it says {says} ({})", exit.words())
            }
        };
        self.not_upgraded(upgrade.replies, &why);
    }

    /// The state is handed over in the highest version that both know, and the new binary has read it there.
    fn heard(&mut self, upgrade: Upgrade, trial: &Trial) {
        let written = self.journal.version().unwrap_or_default();
        let why = match step(written, versions::known(), trial) {
            Step::Execute => return self.execute_soon(upgrade, &trial.release),
            Step::WriteIn(version) if matches!(upgrade.stage, Stage::Trial { rewritten: false }) => {
                if self.journal.write_in(version, &self.engine).is_err() {
                    return self.not_upgraded(upgrade.replies, STALE);
                }
                failpoint::reach("rewritten");
                return self.try_binary(Upgrade { stage: Stage::Trial { rewritten: true }, ..upgrade });
            }
            Step::WriteIn(_) => "it does not say the same twice of what it reads".to_owned(),
            Step::Refuse(why) => why,
        };
        let (shown, release) = (upgrade.path.display(), &trial.release);
        let why = format!("{shown} is {release} and cannot go on from this state: {why}");
        self.not_upgraded(upgrade.replies, &why);
    }

    fn not_upgraded(&mut self, replies: Vec<oneshot::Sender<Reply>>, why: &str) {
        // Where that cannot be written, it is said and tried again; whatever stands there, this uphold reads it.
        drop(self.journal.write_in(versions::newest(), &self.engine));
        let message = format!("not upgraded: {why}");
        for reply in replies {
            send(reply, Reply::Problem(problem("conflict", "Not upgraded", 409, message.clone())));
        }
        self.own_event("UpgradeFailed", true, message);
    }

    /// Has it executed once all is ready for that: [`Inward::Leaving`] and [`Inward::Execute`] follow, or
    /// [`Inward::NotExecuted`].
    fn execute_soon(&mut self, upgrade: Upgrade, release: &str) {
        let path = upgrade.path.clone();
        let ours = env!("CARGO_PKG_VERSION");
        let begins = format!("upgrading from {ours} to {release}: executing {}", path.display());
        let (inward, logs, server) = (self.inward.clone(), self.logs.clone(), self.server.clone());
        let task = Task::spawn(async move {
            let mut stuck = host::stuck_thread().await;
            if stuck.is_none() {
                tracing::info!("{begins}");
                drop(inward.send(Inward::Leaving));
                // From here on who comes waits for the new image.
                server.hold();
                logs.settle().await;
                server.answered(ANSWERS).await;
                // That has taken its time.
                stuck = host::stuck_thread().await;
            }
            if stuck.is_none() {
                drop(inward.send(Inward::Execute(path)));
                tokio::time::sleep(KEPT_OUT).await;
            }
            drop(inward.send(Inward::NotExecuted(stuck.unwrap_or_else(|| DROPPED.to_owned()))));
        });
        self.upgrading = Some(Upgrade { stage: Stage::Decided { _task: task, leaving: false }, ..upgrade });
    }

    /// Who has asked hears that it comes.
    pub(super) fn leaving(&mut self) {
        let Some(upgrade) = &mut self.upgrading else { return };
        if let Stage::Decided { leaving, .. } = &mut upgrade.stage {
            *leaving = true;
            for reply in upgrade.replies.drain(..) {
                send(reply, Reply::Accepted);
            }
        }
    }

    /// Becomes the new binary. Returns only if it cannot.
    pub(super) fn execute(&mut self, path: &Path) {
        let before = self.ground.listener();
        let ready = self.ready();
        if self.ground.listener() != before {
            // Once the listener of before is closed: the new image goes by the path.
            let (inward, path) = (self.inward.clone(), path.to_owned());
            task::detached(async move { drop(inward.send(Inward::Execute(path))) });
            return;
        }
        if let Err(why) = ready {
            return self.stay(why);
        }
        failpoint::reach("executing");
        host::forgive();
        let error = host::execute(path);
        self.stay(&format!("cannot execute {}: {error}", path.display()));
    }

    /// The exec that was decided does not come about.
    pub(super) fn not_executed(&mut self, why: &str) {
        if self.upgrading.as_ref().is_some_and(|upgrade| !matches!(upgrade.stage, Stage::Trial { .. })) {
            self.stay(why);
        }
    }

    /// The exec did not come about: who was kept out is let in.
    fn stay(&mut self, why: &str) {
        let replies = self.upgrading.take().map(|upgrade| upgrade.replies).unwrap_or_default();
        self.server.resume();
        self.not_upgraded(replies, why);
    }

    /// Says what has led to this image.
    pub(super) fn say_how_it_came(&mut self, before: &mut Inheritance) {
        for (reason, complaint) in before.complaints.drain(..) {
            self.own_event(reason, true, complaint);
        }
        if let Some(text) = &before.crashes.unsaid {
            self.own_event("Crashed", true, format!("uphold crashed and goes on: {text}"));
            host::crash_was_said();
        } else if before.same {
            let message = format!("uphold was upgraded and is {} now", env!("CARGO_PKG_VERSION"));
            self.own_event("Upgraded", false, message);
        } else if let Some((pid, _)) = before.before {
            let message = format!(
                "uphold was started anew, for the one with pid {pid} has ended without a word; what lives of its services \
                 was taken over"
            );
            self.own_event("TookOver", true, message);
        }
        if before.crashes.too_many {
            let way_out = match &self.command {
                None => format!(
                    "; a minute after the last crash, `kill -USR2 {}` brings them back, and services run on",
                    std::process::id()
                ),
                // Signals are COMMAND's.
                Some(_) => String::new(),
            };
            let message = format!(
                "uphold crashed three times within a minute: from here on it starts, stops and reaps, without probes and \
                 without the control API{way_out}"
            );
            self.own_event("CrashLoop", true, message);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_binary_gets_the_state_in_the_highest_version_that_both_know() {
        let trial = |state_versions: &[u32], refuses: Option<&str>| Trial {
            release: "9".to_owned(),
            state_versions: state_versions.to_vec(),
            refuses: refuses.map(str::to_owned),
        };
        let strange = Some("it is of state version 2, and this uphold reads state version 1");
        for (written, ours, theirs, refuses, wanted) in [
            (1, &[1][..], &[1][..], None, Step::Execute),
            (1, &[1], &[1, 2], None, Step::Execute),
            (2, &[1, 2], &[1], strange, Step::WriteIn(1)),
            (1, &[1, 2], &[1], None, Step::Execute),
            // One that could read it as it is, too, is to have what is newer.
            (1, &[1, 2], &[1, 2], None, Step::WriteIn(2)),
            (1, &[1, 2], &[1], Some("too old"), Step::Refuse("too old".to_owned())),
            (
                2,
                &[1, 2],
                &[3],
                strange,
                Step::Refuse(
                    "it reads state version 3, and this uphold writes state versions 1 and 2".to_owned(),
                ),
            ),
        ] {
            assert_eq!(step(written, ours, &trial(theirs, refuses)), wanted, "{written} {ours:?} {theirs:?}");
        }
    }
}
