//! `cargo xtask test` of this repository.

fn main() -> std::process::ExitCode {
    gangplank::program::main(false, gangplank_suite::cli::run)
}
