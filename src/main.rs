//! The binary: arguments to a mode. Exit statuses are those of DESIGN section 6 of each mode: 0 fine; 1
//! failed; 2 usage; 78 units that do not load; `ctl` and `init -- COMMAND` have more.

use std::process::ExitCode;

fn main() -> ExitCode {
    uphold::cli::main()
}
