//! The client: `uphold ctl`. It asks the API and renders; it never looks at the daemon's files.

use std::process::ExitCode;

/// What stands behind `uphold ctl` on the command line.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs one command of the client.
pub fn run(_args: Args) -> ExitCode {
    todo!()
}
