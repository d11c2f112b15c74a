//! Maps the error output of ssh to errors with hints. ssh exits with 255 for every error, so the text of `OpenSSH` 7 to
//! 10 has to be matched.

use crate::host::ssh::Address;
use gangplank_model::error::{CliError, Kind};

/// The error of a failed connection, or of a script that did not start.
pub fn explain(url: &str, address: &Address, said: &str) -> CliError {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let all = lines.join(" ");
    // The last line is the verdict of ssh; a banner may precede it.
    let last = lines.last().map_or("no output", |line| *line);
    let host = &address.host;
    let port = address.port.map(|port| format!(" -p {port}")).unwrap_or_default();
    let known = address.port.map_or(host.clone(), |port| format!("[{host}]:{port}"));
    let (kind, what, hint) = if all.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        (
            Kind::Auth,
            "its host key differs from known_hosts".to_owned(),
            format!(
                "compare it with the host's own (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there), because this may be an attack; then run `ssh-keygen -R '{known}'`, or update .circleci/known_hosts"
            ),
        )
    } else if all.contains("Host key verification failed")
        || all.contains("No ED25519 host key is known")
        || all.contains("host key is known for")
    {
        (
            Kind::Auth,
            "its host key is unknown".to_owned(),
            format!(
                "print it with `ssh-keyscan{port} {host}`, compare it with the host's own, then add it to known_hosts; docs/hosts.md shows how in CircleCI"
            ),
        )
    } else if all.contains("Permission denied (") {
        (
            Kind::Auth,
            format!("authentication failed: {last}"),
            format!(
                "check which key is used: `ssh -v{port} {}`; in CircleCI the job needs `add_ssh_keys`",
                login(address)
            ),
        )
    } else if all.contains("Too many authentication failures") {
        (
            Kind::Auth,
            format!("authentication failed: {last}"),
            "set IdentitiesOnly and IdentityFile for the host in ssh_config: the agent offers too many keys".into(),
        )
    } else if all.contains("Could not resolve hostname") {
        (Kind::Remote, format!("unknown host: {last}"), "check its name and DNS".into())
    } else if all.contains("did not end within") {
        (
            Kind::Remote,
            "it accepted the connection but did not answer".to_owned(),
            format!("check where it hangs: `ssh -v{port} {}`", login(address)),
        )
    } else {
        (Kind::Remote, last.to_owned(), format!("check that it can be reached: `ssh{port} {} true`", login(address)))
    };
    CliError::new(kind, format!("{url}: {what}")).hint(hint)
}

/// The error of a connection that broke while a script ran.
pub fn broken(url: &str, what: &str, said: &str) -> CliError {
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("the connection is gone").trim();
    CliError::new(Kind::Remote, format!("{url}: the connection broke during: {what}: {last}"))
        .hint("run the same command again: it continues from what the host has done")
}

fn login(address: &Address) -> String {
    match &address.user {
        Some(user) => format!("{user}@{}", address.host),
        None => address.host.clone(),
    }
}
