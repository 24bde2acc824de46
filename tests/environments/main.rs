//! Claims about uphold where it is meant to live: as a container's PID 1 under podman and crun, as the PID 1
//! of a machine that boots, and as a service of systemd. All with a static build, as it is shipped.
//!
//! `tests/environments/prepare` installs what they need and makes the trees that they boot.

#![allow(missing_docs, reason = "tests are claims, and their names say them")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail")]

mod boot;
mod container;
#[path = "../process/dsl.rs"]
#[allow(dead_code, reason = "it is made for another target")]
mod dsl;
mod running;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// uphold without a shared library, as the release is, built once. Its target directory is its own: other
/// flags make other files of all dependencies.
pub fn static_binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let dir = target().join("static");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--locked", "--bin", "uphold"]);
        cargo.args(["--target", &triple, "--target-dir"]).arg(&dir);
        cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
        // It is copied into images and loaded by an emulated machine.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
        assert!(cargo.status().unwrap().success(), "the static build fails");
        dir.join(triple).join("debug/uphold")
    })
}

/// `target`, where `prepare` puts what it makes.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// A fresh directory with this name. It stays after the tests, to be looked at, until the next ones.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", dir.display()),
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
