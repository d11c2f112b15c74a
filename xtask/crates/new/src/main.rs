//! The program of `cargo xtask new`.

fn main() -> std::process::ExitCode {
    gangplank::program::main(true, gangplank_new::cli::run)
}
