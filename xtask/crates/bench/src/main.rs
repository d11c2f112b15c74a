//! `cargo xtask bench`, and the hidden commands by which it runs our side of each comparison.

fn main() -> std::process::ExitCode {
    gangplank::program::main::<gangplank_bench::cli::Command>()
}
