//! A service that behaves as the file `behavior` of its release says, for tests: a word a line.
//!
//! `exit N` ends at once, `hang` never listens, `status N` answers with that status, `deaf` ignores SIGTERM by way of a
//! shell, `daemon` goes on in the background in a session of its own,
//! `clean` without its variables, `slow N` waits for N seconds before it listens, and
//! nothing at all means a healthy service. `nap` waits for a phase, so that another process can get the port. `/` answers with `index.html`, everything else with the manifest.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

fn main() {
    let behavior = std::fs::read_to_string("behavior").unwrap_or_default();
    let number = |word: &str| -> Option<u16> { behavior.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok()) };
    println!("starting as {:?}", behavior.trim());
    if let Some(code) = number("exit") {
        eprintln!("fatal: told to exit with {code}");
        std::process::exit(i32::from(code));
    }
    if behavior.contains("hang") {
        std::thread::sleep(Duration::from_secs(600));
    }
    if behavior.contains("daemon") && std::env::var_os("DAEMON").is_none() {
        let exe = std::env::current_exe().expect("it runs");
        let mut child = std::process::Command::new("setsid");
        if behavior.contains("clean") {
            child.env_clear().env("PORT", std::env::var_os("PORT").expect("PORT is set"));
        }
        let child = child.arg(exe).env("DAEMON", "1").spawn().expect("setsid");
        println!("daemon {}", child.id());
        std::process::exit(0);
    }
    if let Some(seconds) = number("slow") {
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
    if behavior.contains("nap") {
        std::thread::sleep(Duration::from_millis(150));
    }
    let port = std::env::var("PORT").expect("PORT is set");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap_or_else(|e| {
        eprintln!("fatal: cannot listen on {port}: {e}");
        std::process::exit(98);
    });
    let status = number("status").unwrap_or(200);
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut request = [0; 1024];
        let n = stream.read(&mut request).unwrap_or(0);
        let file = if request[..n].starts_with(b"GET / ") { "www/index.html" } else { ".gangplank/manifest.json" };
        let body = std::fs::read_to_string(file).unwrap_or_default();
        let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    }
}
