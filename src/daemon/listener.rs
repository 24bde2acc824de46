//! The control socket: where it lies, and who comes in.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::control::{self, Peer};
use crate::host;
use crate::task::Task;

/// Its name in the runtime directory.
pub(super) const SOCKET: &str = "control.sock";
/// unix(7): `sun_path` has 108 bytes, one of which ends it.
const LONGEST_SOCKET: usize = 107;
/// How soon a client that could not be let in is tried again: where descriptors are scarce, they are free for
/// moments.
const AGAIN: Duration = Duration::from_millis(50);

/// Accepts connections in a task of its own, until that is dropped. The lock is held, so whatever lies at the
/// path is stale. `waiting`: the listener of the image before, at which clients may wait already.
pub(super) fn listen(
    path: &Path,
    waiting: Option<std::os::unix::net::UnixListener>,
    server: Arc<control::Server>,
) -> io::Result<Task> {
    if let Some(listener) = waiting {
        return Ok(accept(UnixListener::from_std(listener)?, server));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let length = path.as_os_str().len();
    if length > LONGEST_SOCKET {
        let what = format!("its path has {length} bytes, and that of a socket may have {LONGEST_SOCKET}");
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{what}; name a shorter directory with --runtime-dir"),
        ));
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(accept(listener, server))
}

/// Serves a client that has come in, here or at the image before.
pub(super) fn let_in(stream: UnixStream, server: &control::Server) {
    match host::peer(&stream) {
        Ok((pid, uid, gids)) => server.serve(stream, Peer { pid, uid, gids }),
        Err(error) => tracing::debug!("cannot tell who a client is: {error}"),
    }
}

fn accept(listener: UnixListener, server: Arc<control::Server>) -> Task {
    Task::spawn(async move {
        let mut failing = false;
        let mut held = server.held();
        loop {
            let accepted = tokio::select! {
                biased;
                () = async { drop(held.wait_for(|held| *held).await) } => {
                    drop(held.wait_for(|held| !*held).await);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    host::mark_unread(&stream);
                    let_in(stream, &server);
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!("cannot accept a client: {error}; trying again until it can");
                    }
                    failing = true;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    })
}
