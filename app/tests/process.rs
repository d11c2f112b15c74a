//! The program as a person or a process manager meets it: exit codes, what is printed where, and signals.
//!
//! These promises only exist at the edge of the process, so they are checked there.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program; the package may be renamed without a change here.
const PROGRAM: &str = env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME")));

/// The program with an environment that no variable of the caller leaks into.
fn app() -> Command {
    let mut command = Command::new(PROGRAM);
    for name in ["HOST", "PORT", "STATIC_DIR"] {
        command.env_remove(name);
    }
    command
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A running program that does not outlive its test, whichever way the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    let output = app().arg("--version").output().expect("it runs");
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let line = format!("{name} {version} ({} {})\n", env!("APP_COMMIT_SHORT"), env!("APP_BUILT"));
    assert_eq!(outcome(&output), (Some(0), line, String::new()));

    let (code, stdout, stderr) = outcome(&app().arg("--help").output().expect("it runs"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains(&format!("Usage: {name} ")), "{stdout}");
}

#[test]
fn mistakes_of_the_caller_exit_with_2() {
    let (code, stdout, stderr) = outcome(&app().arg("--prot").output().expect("it runs"));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    let hint = concat!("hint: `", env!("CARGO_PKG_NAME"), " --help` lists what there is\n");
    assert_eq!(stderr, format!("error: unknown argument \"--prot\"\n{hint}"));

    let (code, stdout, stderr) = outcome(&app().env("PORT", "http").output().expect("it runs"));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("error: PORT is \"http\""), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
}

#[test]
fn obstacles_exit_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let output = app().env("PORT", address.port().to_string()).env("STATIC_DIR", "static").output();
    let (code, stdout, stderr) = outcome(&output.expect("it runs"));
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let error = format!("error: cannot listen on {address}: Address already in use\nhint: ");
    assert!(stderr.starts_with(&error), "{stderr}");

    let (code, _, stderr) = outcome(&app().env("STATIC_DIR", "no/such/folder").output().expect("it runs"));
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("error: no folder of static files at no/such/folder\nhint: "), "{stderr}");
}

#[test]
fn both_signals_stop_it_in_peace() {
    for signal in ["-TERM", "-INT"] {
        let child = app().env("PORT", "0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut running = Running(child.expect("it starts"));
        let mut stdout = BufReader::new(running.0.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a first line");
        assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
        assert!(line.ends_with(&format!(", commit {}\n", env!("APP_COMMIT_SHORT"))), "{line}");

        let sent = Command::new("kill").args([signal, &running.0.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).expect("the last line");
        assert_eq!(rest, "stopped\n", "{signal}");
        assert_eq!(running.0.wait().expect("it ends").code(), Some(0), "{signal}");
    }
}

/// What is shipped is `bin/app` and `static/`, and it has to find its files wherever it is unpacked and started.
#[test]
fn the_files_beside_the_bin_folder_are_found_from_anywhere() {
    let bundle = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bundle-{}", std::process::id()));
    let (bin, files) = (bundle.join("bin"), bundle.join("static"));
    std::fs::create_dir_all(&bin).expect("a folder");
    std::fs::create_dir_all(&files).expect("a folder");
    // A link, because a fresh copy may be "text file busy": a process that some other test starts at this phase
    // inherits the open file for an instant.
    std::fs::hard_link(PROGRAM, bin.join("app")).expect("a link");

    let child = Command::new(bin.join("app"))
        .current_dir("/")
        .env_remove("HOST")
        .env_remove("STATIC_DIR")
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .spawn();
    let mut running = Running(child.expect("it starts"));
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
    drop(running);
    std::fs::remove_dir_all(&bundle).expect("the bundle is removed");
    assert!(line.starts_with("listening on "), "{line}");
}
