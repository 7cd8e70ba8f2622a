//! See [`nephrite_benches::targets`].

use std::process::ExitCode;

fn main() -> ExitCode {
    nephrite_benches::targets::main()
}
