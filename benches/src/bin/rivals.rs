//! See [`nephrite_benches::rivals`].

use std::process::ExitCode;

fn main() -> ExitCode {
    nephrite_benches::rivals::main()
}
