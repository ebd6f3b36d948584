//! `chancery`: the service and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery::cli::main()
}
