//! The commands of `setup` as text for an administrator's shell.

use gangplank_deploy::setup::HostSetup;
use std::fmt::Write;

/// Hosts with equal commands share one script.
pub fn setup(hosts: &[HostSetup]) -> String {
    let mut text = String::new();
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for it in hosts {
        let Some(host) = it.host.as_deref() else {
            let _ = writeln!(text, "# {}: {} is not a host over ssh: there is nothing to set up", it.env, it.target);
            continue;
        };
        if it.applied {
            let _ = writeln!(
                text,
                "{}: {} commands were run",
                it.target,
                it.steps.iter().filter(|it| !it.command.is_empty()).count()
            );
            continue;
        }
        let script = it.script();
        match groups.iter_mut().find(|(known, _)| *known == script) {
            Some((_, names)) => names.push(host),
            None => groups.push((script, vec![host])),
        }
    }
    for (n, (script, names)) in groups.iter().enumerate() {
        let before = if n == 0 && text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{before}# As root on {}, once; it may be run again.\n\n{script}", names.join(", "));
    }
    text
}
