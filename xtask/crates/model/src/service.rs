//! Scripts that start and stop the app on a target: one module per kind of service.

mod pidfile;
mod port;
pub mod run;
mod systemd;

use crate::frame::one_line;
use crate::project::Service;
use crate::release::digest;
use crate::release::id::ReleaseId;
use crate::script::durable::DURABLE;
use crate::service::run::{GONE, Script};
pub use crate::service::systemd::{READABLE, Unit, rights, static_user};
use crate::shell::{UMASK, quote};

/// A service with its variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// No service.
    None,
    /// A process managed by the pidfile service.
    Pidfile {
        /// The content of `service/spec`: a script that sets the variables and executes the app.
        spec: String,
        /// Seconds that the old process may take to stop.
        stop_seconds: u64,
    },
    /// A systemd unit.
    Systemd(Unit),
    /// Commands of the project.
    Command {
        /// Shell lines that export the variables.
        exports: String,
        /// The variables as a file for `EnvironmentFile=`.
        env: String,
        /// See [`Service::Command`].
        restart: String,
        /// See [`Service::Command`].
        stop: String,
        /// See [`Service::Command`].
        status: String,
        /// See [`Service::Command`].
        log: String,
    },
}

impl Spec {
    /// The spec of a service; `vars` are already expanded.
    pub fn new(service: &Service, vars: &[(String, String)]) -> Self {
        let exports = exports(vars);
        match service {
            Service::None => Self::None,
            Service::Pidfile { run, stop_timeout } => {
                let run: Vec<_> = run.iter().map(|word| quote(word)).collect();
                Self::Pidfile {
                    spec: format!("{exports}exec {}\n", run.join(" ")),
                    stop_seconds: stop_timeout.as_secs().max(1),
                }
            }
            Service::Systemd { unit, manager, run, lines, stop_timeout, handover } => {
                Self::Systemd(Unit::new(unit, *manager, run, lines, *stop_timeout, *handover, vars))
            }
            Service::Command { restart, stop, status, log } => Self::Command {
                exports,
                env: systemd::env_file(vars),
                restart: (*restart).to_owned(),
                stop: (*stop).to_owned(),
                status: (*status).to_owned(),
                log: (*log).to_owned(),
            },
        }
    }

    /// Digest of the spec: a different one requires a restart, even for the same release.
    pub fn digest(&self) -> Option<String> {
        match self {
            Self::Pidfile { spec, .. } => Some(digest::of(spec.as_bytes())),
            Self::Systemd(unit) => Some(unit.digest()),
            Self::None | Self::Command { .. } => None,
        }
    }

    /// Digest of the variables of a command service, as [`state`] prints it: a different one requires a restart.
    pub fn vars(&self) -> Option<String> {
        match self {
            // In the form the shell stores them.
            Self::Command { exports, .. } => {
                Some(digest::of(format!("{}\n", exports.trim_end_matches('\n')).as_bytes()))
            }
            Self::None | Self::Pidfile { .. } | Self::Systemd(_) => None,
        }
    }

    /// Fails where a restart would fail before it changed anything. The root may be missing.
    pub fn ready(&self, root: &str) -> Option<Script> {
        match self {
            Self::Systemd(unit) => Some(unit.ready(root).called("ask for systemd")),
            Self::Pidfile { .. } => Some(pidfile::ready(root).called("look for another service")),
            Self::None | Self::Command { .. } => None,
        }
    }

    /// Fails where [`Self::start`] or a restart with the old spec would leave the service stopped.
    pub fn startable(&self, root: &str) -> Option<Script> {
        match self {
            Self::Pidfile { .. } => Some(pidfile::startable(root).called("look at how the service was started")),
            Self::None | Self::Systemd(_) | Self::Command { .. } => None,
        }
    }

    /// Fails where [`Self::halt`] would fail before it changed anything.
    pub fn ready_to_halt(&self, root: &str) -> Option<Script> {
        match self {
            Self::Systemd(unit) => unit.ready_to_halt(root).map(|script| script.called("ask for rights")),
            Self::None | Self::Pidfile { .. } | Self::Command { .. } => None,
        }
    }

    /// Stops the running process and starts `id`. With `revert`, uses the spec of the last healthy start.
    pub fn restart(&self, root: &str, id: &ReleaseId, revert: bool) -> Option<Script> {
        let script = match self {
            Self::None => return None,
            Self::Pidfile { spec, stop_seconds } => pidfile::restart(root, id, spec, *stop_seconds, revert),
            Self::Systemd(unit) => unit.restart(root, id, revert),
            Self::Command { exports, env, restart, .. } => with_env_file(root, exports, env, restart, revert),
        };
        Some(script.called("restart the service"))
    }

    /// Stops the service.
    pub fn stop(&self, root: &str) -> Option<Script> {
        let script = match self {
            Self::None => return None,
            Self::Pidfile { stop_seconds, .. } => pidfile::stop(root, *stop_seconds),
            Self::Systemd(unit) => unit.stop(root),
            Self::Command { exports, stop, .. } => command(root, exports, stop),
        };
        Some(script.called("stop the service"))
    }

    /// Stops the service until it is started again or the host boots.
    pub fn halt(&self, root: &str) -> Option<Script> {
        match self {
            Self::Systemd(unit) => Some(unit.halt(root).called("stop the service")),
            Self::None | Self::Pidfile { .. } | Self::Command { .. } => self.stop(root),
        }
    }

    /// Starts the service of the live release `id` with the spec of the last healthy start.
    pub fn start(&self, root: &str, id: &ReleaseId) -> Option<Script> {
        match self {
            Self::Systemd(unit) => Some(unit.start(root).called("start the service")),
            Self::None | Self::Pidfile { .. } | Self::Command { .. } => self.restart(root, id, true),
        }
    }

    /// Exits with 0 while the service runs and with `GONE` if it will not come back by itself; otherwise prints the
    /// reason.
    ///
    /// `else_asked`: whether the health check also asks the app itself. `port`: a port that no other process of this
    /// root may hold, checked if the service has ended or `last` is set.
    pub fn status(&self, root: &str, else_asked: bool, port: Option<u16>, last: bool) -> Option<Script> {
        let script = match self {
            Self::Pidfile { .. } => pidfile::status(root, port, last),
            Self::Systemd(unit) => unit.status(root, else_asked, port, last),
            Self::Command { exports, status, .. } if !status.is_empty() => command(root, exports, status),
            Self::None | Self::Command { .. } => return None,
        };
        Some(script.called("ask whether the service runs"))
    }

    /// Restarts a service that has ended, or lets its manager do so.
    pub fn start_again(&self, root: &str, id: &ReleaseId) -> Option<Script> {
        match self {
            Self::Pidfile { .. } => Some(pidfile::start_again(root, id).called("start the service again")),
            Self::Systemd(unit) => Some(unit.start_again(root).called("start the service again")),
            Self::None | Self::Command { .. } => None,
        }
    }

    /// Whether a status says that the app ended because its address was in use.
    pub fn is_address_in_use(said: &str) -> bool {
        said.contains(port::IN_USE)
    }

    /// Stores the spec of a service that has become healthy.
    pub fn confirm(&self, root: &str) -> Option<Script> {
        match self {
            Self::Pidfile { .. } => Some(pidfile::confirm(root)),
            Self::Systemd(unit) => Some(unit.confirm(root)),
            Self::Command { .. } => Some(keep_vars(root)),
            Self::None => None,
        }
    }

    /// Prints the last lines of the service's log.
    pub fn log(&self, root: &str, lines: u32) -> Option<Script> {
        match self {
            Self::Pidfile { .. } => Some(pidfile::log(root, lines)),
            Self::Systemd(unit) => Some(unit.log(root, lines)),
            Self::Command { log, exports, .. } if !log.is_empty() => {
                Some(command(root, exports, &format!("LINES={lines} FOLLOW=0\n({log}) 2>&1 | tail -n {lines}")))
            }
            Self::None | Self::Command { .. } => None,
        }
    }

    /// Like [`Self::log`], including the lines of earlier processes.
    pub fn last_lines(&self, root: &str, lines: u32) -> Option<Script> {
        let script = match self {
            Self::Pidfile { .. } => pidfile::last_lines(root, lines),
            Self::Systemd(unit) => unit.last_lines(root, lines),
            Self::None | Self::Command { .. } => self.log(root, lines)?,
        };
        Some(script.called("show the log of the service"))
    }

    /// Like [`Self::log`], then each new line, until killed. A log that ends by itself is not reopened.
    pub fn follow(&self, root: &str, lines: u32) -> Option<Script> {
        let script = match self {
            Self::Pidfile { .. } => pidfile::follow(root, lines),
            Self::Systemd(unit) => unit.follow(root, lines),
            Self::Command { log, exports, .. } if log.contains("FOLLOW") => {
                command(root, exports, &format!("LINES={lines} FOLLOW=1\n({log}) 2>&1"))
            }
            Self::None | Self::Command { .. } => return None,
        };
        Some(script.called("follow the log of the service"))
    }

    /// Whether an exit code of [`Self::status`] means that the service will not come back.
    pub fn is_gone(&self, code: Option<i32>) -> bool {
        match self {
            Self::Pidfile { .. } | Self::Systemd(_) => code == Some(GONE),
            Self::None | Self::Command { .. } => false,
        }
    }
}

/// The warnings in a script's stderr.
pub fn warnings(stderr: &str) -> impl Iterator<Item = &str> {
    stderr.lines().filter_map(|line| line.strip_prefix(systemd::WARNING))
}

/// Prints a target's state of the service: `service running DIGEST RELEASE` or `service stopped`; and `vars DIGEST`, of
/// the variables with which a command service was last healthy.
pub fn state() -> String {
    let vars = "if [ -s service/vars.good ]; then
  vars=$(sha256sum < service/vars.good 2> /dev/null || shasum -a 256 < service/vars.good 2> /dev/null || true)
  [ -z \"$vars\" ] || echo \"vars ${vars%% *}\"
fi";
    format!("{}\n{}\n{vars}", pidfile::state(), systemd::state())
}

/// Shell lines that export variables.
pub fn exports(vars: &[(String, String)]) -> String {
    vars.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect()
}

/// The restart command, after writing the variables to `service/env`, which a unit of the project may read. With
/// `revert`, the variables of the last healthy start.
fn with_env_file(root: &str, exports: &str, env: &str, restart: &str, revert: bool) -> Script {
    let good = if revert {
        "if has_text service/vars.good; then
  vars=$(cat service/vars.good); ! has_text service/env.good || env=$(cat service/env.good)
fi"
    } else {
        ":"
    };
    let text = format!(
        "set -eu
cd -- {}
{UMASK}
{DURABLE}IFS= read -r line; vars=$(printf %b \"$line\"); IFS= read -r line; env=$(printf %b \"$line\")
make_dir service
{good}
# On a full disk it takes room from the reserve, because the command itself is not run twice.
put() {{ until printf '%s\\n' \"$1\" > \"$2\"; do set -- \"$1\" \"$2\" .reserve/*; [ -f \"$3\" ] || return 1; rm -f \"$3\"; done; }}
(private; rm -f service/env.new service/vars.new; put \"$env\" service/env.new; put \"$vars\" service/vars.new)
replace service/env service/vars
eval \"$vars\"
exec sh -c {}\n",
        quote(root),
        quote(restart)
    );
    Script::new(text, one_line(exports) + &one_line(env)).of_project()
}

/// Stores the variables of a service that has become healthy.
fn keep_vars(root: &str) -> Script {
    // `vars` last: if it exists, both are complete.
    let body = r#"for file in env vars; do
  [ ! -f "service/$file" ] || { rm -f "service/$file.good.new"; cp -p "service/$file" "service/$file.good.new"; replace "service/$file.good"; }
done
"#;
    Script::new(pidfile::script(root, body), String::new())
}

/// A command of the project with variables, in a directory, run as by `sh -c`.
pub fn command(root: &str, exports: &str, command: &str) -> Script {
    // The variables come on stdin: they may be secret, and command lines are public.
    let (root, command) = (quote(root), quote(command));
    let text = format!("set -eu\ncd -- {root}\n{UMASK}\nvars=$(cat); eval \"$vars\"\nexec sh -c {command}\n");
    Script::new(text, exports.to_owned()).of_project()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn variables_are_quoted_and_never_in_the_script() {
        let vars = [("PASSWORD".to_owned(), "it's $HOME".to_owned())];
        let pidfile =
            Spec::new(&Service::Pidfile { run: &["bin/app", "--x y"], stop_timeout: Duration::from_secs(3) }, &vars);
        let script = pidfile.restart("/srv/a", &"20260822T101500-1a2b3c4".parse().unwrap(), false).unwrap();
        assert_eq!(script.stdin, "export PASSWORD='it'\\''s $HOME'\nexec bin/app '--x y'\n");
        assert!(!script.text.contains("PASSWORD"));
        let command =
            Spec::new(&Service::Command { restart: "svc restart", stop: "svc stop", status: "", log: "" }, &vars);
        let script = command.restart("/srv/a", &"20260822T101500-1a2b3c4".parse().unwrap(), false).unwrap();
        assert!(!script.text.contains("PASSWORD") && script.stdin.contains("PASSWORD"));
        assert_eq!(command.status("/srv/a", false, None, false), None);
    }
}
