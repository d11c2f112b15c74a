//! The sample service: a page that shows which commit is running.
//!
//! It is small on purpose, and real where shipping needs it to be: a deploy checks that `/version` has its
//! commit, a load balancer asks `/health`, and it stops without dropping a request.
//!
//! * [`settings`]: what the arguments and the environment ask for.
//! * [`server`]: the routes, and how the service starts and stops.

mod server;
mod settings;

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use server::Door;
use settings::{CliError, Command, Settings};

/// `NAME 0.1.0 (<short commit> <time>)`, all of it known when the binary is built.
const VERSION: &str = concat!(
    env!("CARGO_PKG_NAME"),
    " ",
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("APP_COMMIT_SHORT"),
    " ",
    env!("APP_BUILT"),
    ")"
);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run() -> Result<(), CliError> {
    let executable = env::current_exe().ok();
    match settings::read(env::args_os().skip(1), |name| env::var_os(name), executable.as_deref())? {
        Command::Help => say(settings::USAGE),
        Command::Version => say(VERSION),
        Command::Serve(settings) => serve(&settings)?,
    }
    Ok(())
}

/// Serves until a signal says stop. One thread is plenty: the work is waiting, and files are read on others.
fn serve(settings: &Settings) -> Result<(), CliError> {
    let folder = settings.static_folder()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| server::failure("cannot start", &error))?;
    runtime.block_on(async {
        // The signals come first: a reader of the line below may send one at once.
        let signal = server::signal()?;
        let door = match server::inherited()? {
            Some(listener) => Door::new(listener, true),
            None => Door::new(server::listen(settings.address).await?, false),
        };
        let address = door.address().unwrap_or(settings.address);
        say(format_args!("listening on http://{address}, commit {}", env!("APP_COMMIT_SHORT")));
        server::serve(door, server::router(folder), signal, server::GRACE).await
    })?;
    // A file on a slow disk must not hold up the exit; every request has been answered or given up by now.
    runtime.shutdown_background();
    say("stopped");
    Ok(())
}

/// Prints a line. A reader that went away is no reason to stop serving, which is what `println!` would do.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
