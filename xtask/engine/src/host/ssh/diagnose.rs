//! What ssh complains, as failures with something to do about them. ssh ends with 255 whatever is wrong, so its words
//! are all there is: those of `OpenSSH` 7 to 10.

use crate::error::{CliError, Kind};
use crate::host::ssh::Address;

/// Why there is no connection, or no script began on it.
pub fn explain(url: &str, address: &Address, said: &str) -> CliError {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let all = lines.join(" ");
    // The last line is ssh's verdict; what comes before may be a banner of two screens.
    let last = lines.last().map_or("no output", |line| *line);
    let host = &address.host;
    let port = address.port.map(|port| format!(" -p {port}")).unwrap_or_default();
    let known = address.port.map_or(host.clone(), |port| format!("[{host}]:{port}"));
    let (kind, what, hint) = if all.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        (
            Kind::Auth,
            "its host key is not the one in known_hosts".to_owned(),
            format!(
                "somebody may stand between: compare it with the host's own (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there), then `ssh-keygen -R '{known}'`, or the line in .circleci/known_hosts"
            ),
        )
    } else if all.contains("Host key verification failed")
        || all.contains("No ED25519 host key is known")
        || all.contains("host key is known for")
    {
        (
            Kind::Auth,
            "its host key is not known here".to_owned(),
            format!(
                "`ssh-keyscan{port} {host}` prints it: compare it with the host's own, then put it into known_hosts; docs/hosts.md shows how in CircleCI"
            ),
        )
    } else if all.contains("Permission denied (") {
        (
            Kind::Auth,
            format!("it does not let us in: {last}"),
            format!("which key is used? `ssh -v{port} {}`; in CircleCI the job needs `add_ssh_keys`", login(address)),
        )
    } else if all.contains("Too many authentication failures") {
        (
            Kind::Auth,
            format!("it does not let us in: {last}"),
            "the agent offers too many keys: set IdentitiesOnly and IdentityFile for it in ssh_config".into(),
        )
    } else if all.contains("Could not resolve hostname") {
        (Kind::Remote, format!("nobody knows that host: {last}"), "is its name right, and DNS reachable?".into())
    } else if all.contains("did not end within") {
        (
            Kind::Remote,
            "it accepted the connection and then said nothing".to_owned(),
            format!("`ssh -v{port} {}` shows where it stays", login(address)),
        )
    } else {
        (Kind::Remote, last.to_owned(), format!("can you reach it? `ssh{port} {} true`", login(address)))
    };
    CliError::new(kind, format!("{url}: {what}")).hint(hint)
}

/// A connection that broke while a script ran.
pub fn broken(url: &str, what: &str, said: &str) -> CliError {
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("the connection is gone").trim();
    CliError::new(Kind::Remote, format!("{url}: the connection broke while it was told to {what}: {last}"))
        .hint("run the same command again: what the host has done by itself is found and gone on with")
}

fn login(address: &Address) -> String {
    match &address.user {
        Some(user) => format!("{user}@{}", address.host),
        None => address.host.clone(),
    }
}
