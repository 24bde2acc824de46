//! The client: `uphold ctl`. It asks the API and renders; of the daemon's files it looks at none but `lock`, and at
//! that only where nobody answers.
//!
//! [`run`] finds the daemon's socket (`socket`), asks over it (`http`), again where uphold is replaced
//! meanwhile (`patience`), and prints what came (`out`). Each command has a module of its own; what they print is made by pure functions of views and the time.

mod act;
mod admin;
mod args;
mod asking;
mod describe;
mod events;
mod failure;
mod http;
mod json;
mod logs;
mod out;
mod patience;
mod socket;
mod status;
mod units;
mod words;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use crate::engine::Wall;

use args::{Command, Output};
use failure::{Code, Failure};
use http::Client;
use out::Out;

pub use args::Args;

/// What a command works with.
struct Context {
    client: Client,
    out: Out,
    json: bool,
}

/// Runs one command of the client. The exit status is that of DESIGN section 6.
/// `columns`: of the terminal that is standard output, if it is one.
pub fn run(args: Args, columns: Option<usize>) -> ExitCode {
    let out = Out::new(columns);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out.complain(&format!("cannot set up the client: {error}"));
            return Code::Failed.into();
        }
    };
    let context = Context {
        client: Client::new(socket::find(args.socket)),
        out,
        json: matches!(args.output, Output::Json),
    };
    match runtime.block_on(dispatch(&context, args.command)) {
        Ok(code) => code.into(),
        Err(failure) => {
            if let Some(text) = failure.text() {
                context.out.complain(&text);
            }
            failure.code().into()
        }
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<Code, Failure> {
    match command {
        Command::Status { watch: true, units } => status::watch(context, &units).await,
        Command::Status { watch: false, units } => status::once(context, &units).await,
        Command::Describe { units } => describe::run(context, &units).await,
        Command::Cat { units } => admin::cat(context, &units).await,
        Command::Start(on) => act::run(context, act::Act::Start, on).await,
        Command::Stop(on) => act::run(context, act::Act::Stop, on).await,
        Command::Restart(on) => act::run(context, act::Act::Restart, on).await,
        Command::Reload(on) => act::run(context, act::Act::Reload, on).await,
        Command::Reset(on) => act::run(context, act::Act::Reset, on).await,
        Command::Signal { signal, units } => act::signal(context, signal, units).await,
        Command::Wait { units, goal, timeout } => act::wait(context, goal, timeout, units).await,
        Command::Logs(wish) => logs::run(context, wish).await,
        Command::Events { units, follow } => events::run(context, &units, follow).await,
        Command::DaemonReload { dry_run } => admin::load(context, "daemon-reload", dry_run).await,
        Command::Update { dry_run } => admin::load(context, "update", dry_run).await,
        Command::Shutdown => admin::shutdown(context).await,
        Command::Upgrade => admin::upgrade(context).await,
        Command::Version => admin::version(context).await,
        Command::Health { units } => admin::health(context, &units).await,
    }
}

/// The wall clock: read here, once a rendering, and an argument everywhere below.
fn now() -> Wall {
    Wall::from_nanos(jiff::Timestamp::now().as_nanosecond())
}
