//! `cargo xtask test` of this repository.

fn main() -> std::process::ExitCode {
    gangplank::program::main::<gangplank_suite::cli::Command>()
}
