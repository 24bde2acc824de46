//! The verdict over an exec probe, which the host ran.

use std::time::Duration;

use super::text::{escaped, escaped_bytes, span};
use crate::engine::{Exit, Outcome, SpawnFailure};

/// The most bytes of output that are looked at: what a kubelet keeps.
const MAX_OUTPUT: usize = 10 * 1024;

/// The verdict over an exec probe; `end` is `None` where the command was killed at its time-out.
///
/// `output` is stdout and stderr together. Of it the first 10 KiB count, as with a kubelet, and no more
/// than 1 KiB stands in the text. A command that cannot be started fails the probe, unless that is the
/// supervisor's own want of something.
///
/// A text names the command's program and none of its arguments, which a kubelet's text would quote: texts are
/// read by those, too, who may not see units' configuration.
pub fn exec_outcome(
    command: &[String],
    timeout: Duration,
    end: Option<Result<Exit, SpawnFailure>>,
    output: &[u8],
) -> Outcome {
    let program = program(command);
    match end {
        None => Outcome::Failure(escaped(&format!(
            "command timed out: \"{program}\" timed out after {}",
            span(timeout)
        ))),
        Some(Ok(Exit::Code(0))) => Outcome::Success,
        Some(Ok(Exit::Code(_) | Exit::Signal { .. })) => {
            let start = &output[..output.len().min(MAX_OUTPUT)];
            Outcome::Failure(escaped_bytes(trimmed(start)))
        }
        Some(Ok(Exit::Unknown)) => {
            Outcome::Error(escaped(&format!("cannot judge \"{program}\": nobody saw how it ended")))
        }
        Some(Err(SpawnFailure { stage, message, passing, .. })) => {
            let text = escaped(&format!("cannot run \"{program}\": {stage} failed: {message}"));
            if passing { Outcome::Error(text) } else { Outcome::Failure(text) }
        }
    }
}

/// The program, and whether there are arguments.
pub(super) fn program(command: &[String]) -> String {
    match command {
        [] => String::new(),
        [program] => program.clone(),
        [program, ..] => format!("{program} ..."),
    }
}

/// Without the line ends at its end.
fn trimmed(mut output: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r'] = output {
        output = rest;
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Signal;

    fn judged(end: Option<Result<Exit, SpawnFailure>>, output: &[u8]) -> Outcome {
        let command = ["sleep".to_owned(), "10".to_owned()];
        exec_outcome(&command, Duration::from_secs(1), end, output)
    }

    fn unstarted(passing: bool) -> Option<Result<Exit, SpawnFailure>> {
        let (stage, message) = ("running the command".to_owned(), "no such file".to_owned());
        Some(Err(SpawnFailure { stage, message, passing, code: 127 }))
    }

    #[test]
    fn a_command_that_exits_0_passes_whatever_it_says() {
        assert_eq!(judged(Some(Ok(Exit::Code(0))), b"bad"), Outcome::Success);
    }

    #[test]
    fn a_command_that_fails_is_quoted_without_its_last_line_end() {
        let text = "cat: /tmp/healthy: No such file or directory";
        let output = format!("{text}\n");
        assert_eq!(judged(Some(Ok(Exit::Code(1))), output.as_bytes()), Outcome::Failure(text.to_owned()));
        let killed = Exit::Signal { signal: Signal::KILL, oom: false };
        assert_eq!(judged(Some(Ok(killed)), b"a\nb\n"), Outcome::Failure("a\\nb".to_owned()));
    }

    #[test]
    fn a_command_that_outlasts_its_timeout_fails_in_the_words_of_a_kubelet() {
        let text = "command timed out: \"sleep ...\" timed out after 1s";
        assert_eq!(judged(None, b"so far"), Outcome::Failure(text.to_owned()));
    }

    #[test]
    fn a_command_that_cannot_start_fails_unless_uphold_lacked_something() {
        let text = "cannot run \"sleep ...\": running the command failed: no such file".to_owned();
        assert_eq!(judged(unstarted(false), b""), Outcome::Failure(text.clone()));
        assert_eq!(judged(unstarted(true), b""), Outcome::Error(text));
    }

    #[test]
    fn an_end_that_nobody_saw_counts_for_nothing() {
        let text = "cannot judge \"sleep ...\": nobody saw how it ended".to_owned();
        assert_eq!(judged(Some(Ok(Exit::Unknown)), b""), Outcome::Error(text));
    }

    #[test]
    fn a_program_without_arguments_stands_for_itself() {
        assert_eq!(program(&["true".to_owned()]), "true");
        assert_eq!(program(&[]), "");
    }
}
