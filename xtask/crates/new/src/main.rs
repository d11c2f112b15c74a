//! The program of `cargo xtask new`.

fn main() -> std::process::ExitCode {
    gangplank::program::main::<gangplank_new::cli::Command>()
}
