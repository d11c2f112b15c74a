//! Starting and stopping the app on a target, as scripts: the built-in process keeper and the command kind.
//!
//! The keeper is for machines without a service manager. It is no supervisor: it starts one process, remembers it, and
//! stops it before it starts the next, so that old and new are never both bound. Its files live in `service/`:
//!
//! ```text
//! service/spec       how the last healthy release was started: variables and the command (mode 0600)
//! service/spec.new   the same for the release being tried; renamed to `spec` once it is healthy
//! service/process    "PID START GROUP DIGEST RELEASE": process, its start time, its process group, digest of its
//!                    spec, and what it runs
//! service/exit       exit code of the process, once it has ended
//! service/log        what it prints; service/log.start is where the current process began
//! ```

use crate::project::Service;
use crate::release::digest;
use crate::release::id::ReleaseId;
use crate::target::script::quote;
use std::time::Duration;

/// A service with its variables filled in, ready to be started on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// Nothing to start.
    None,
    /// A process of the keeper.
    Keeper {
        /// The text of `service/spec`: a script that sets the variables and becomes the app.
        spec: String,
        /// Seconds that the old process may take to stop.
        stop_seconds: u64,
    },
    /// Commands of the project.
    Command {
        /// Lines that export the variables.
        exports: String,
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

/// A script and what it reads. What it reads may be secret; the script never is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What it does, for people who look at the processes of a host.
    pub what: &'static str,
    /// POSIX commands.
    pub text: String,
    /// Standard input.
    pub stdin: String,
    /// How long it may take; what takes longer is ended with all that it started.
    pub limit: Duration,
    /// Whether it is ended when somebody asks us to stop.
    pub interruptible: bool,
}

/// Longer than any restart that is worth waiting for.
const LIMIT: Duration = Duration::from_secs(600);

impl Script {
    /// A script that nobody may interrupt.
    pub fn new(text: String, stdin: String) -> Self {
        Self { what: "run a script", text, stdin, limit: LIMIT, interruptible: false }
    }

    /// Says what it does.
    #[must_use]
    pub fn called(self, what: &'static str) -> Self {
        Self { what, ..self }
    }
}

impl Spec {
    /// Makes the spec of a service; `vars` are already filled in.
    pub fn new(service: &Service, vars: &[(String, String)]) -> Self {
        let exports = Self::exports(vars);
        match service {
            Service::None => Self::None,
            Service::Keeper { run, stop_timeout } => {
                let run: Vec<_> = run.iter().map(|word| quote(word)).collect();
                Self::Keeper {
                    spec: format!("{exports}exec {}\n", run.join(" ")),
                    stop_seconds: stop_timeout.as_secs().max(1),
                }
            }
            Service::Command { restart, stop, status, log } => Self::Command {
                exports,
                restart: (*restart).to_owned(),
                stop: (*stop).to_owned(),
                status: (*status).to_owned(),
                log: (*log).to_owned(),
            },
        }
    }

    /// Lines that export variables.
    pub fn exports(vars: &[(String, String)]) -> String {
        vars.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect()
    }

    /// Names what would be started: another digest means that a restart is due even though the release is the same.
    pub fn digest(&self) -> Option<String> {
        match self {
            Self::Keeper { spec, .. } => Some(digest::of(spec.as_bytes())),
            Self::None | Self::Command { .. } => None,
        }
    }

    /// Stops what runs and starts `id`. With `put_back` it is started as it was when it was last healthy.
    pub fn restart(&self, root: &str, id: &ReleaseId, put_back: bool) -> Option<Script> {
        match self {
            Self::None => None,
            Self::Keeper { spec, stop_seconds } => {
                let keep = if put_back {
                    "cat > /dev/null; rm -f service/spec.new; use=spec"
                } else {
                    "(umask 077; cat > service/spec.new); use=spec.new"
                };
                // A release that went live without the keeper has nothing to be started again with.
                let known = if put_back { "[ -f service/spec ] || exit 0" } else { ":" };
                let text =
                    keeper(root, &format!("mkdir -p service\n{keep}\n{}\n{known}\n{}", stop(*stop_seconds), start(id)));
                Some(Script::new(text, spec.clone()).called("restart the service"))
            }
            Self::Command { exports, restart, .. } => {
                Some(command(root, exports, restart).called("restart the service"))
            }
        }
    }

    /// Stops the service.
    pub fn stop(&self, root: &str) -> Option<Script> {
        match self {
            Self::None => None,
            Self::Keeper { stop_seconds, .. } => {
                let body = format!("{}\nrm -f service/spec.new\n", stop(*stop_seconds));
                Some(Script::new(keeper(root, &body), String::new()).called("stop the service"))
            }
            Self::Command { exports, stop, .. } => Some(command(root, exports, stop).called("stop the service")),
        }
    }

    /// Exits with 0 while the service runs; else prints why not.
    pub fn status(&self, root: &str) -> Option<Script> {
        match self {
            Self::None => None,
            Self::Keeper { .. } => {
                let body = "if alive; then exit 0; fi
if [ -f service/exit ]; then echo \"the process ended with exit code $(cat service/exit)\"; else echo 'no process runs'; fi
exit 1\n";
                Some(Script::new(keeper(root, body), String::new()).called("ask whether the service runs"))
            }
            Self::Command { exports, status, .. } if !status.is_empty() => {
                Some(command(root, exports, status).called("ask whether the service runs"))
            }
            Self::Command { .. } => None,
        }
    }

    /// Remembers how the service was started, now that it is healthy.
    pub fn confirm(&self, root: &str) -> Option<Script> {
        let body = "if [ -f service/spec.new ]; then mv -f service/spec.new service/spec; fi\n";
        matches!(self, Self::Keeper { .. }).then(|| Script::new(keeper(root, body), String::new()))
    }

    /// Prints the last lines of the log of the current process.
    pub fn log(&self, root: &str, lines: u32) -> Option<Script> {
        match self {
            Self::None => None,
            Self::Keeper { .. } => {
                let body = format!(
                    "from=0; [ ! -f service/log.start ] || read -r from < service/log.start
[ ! -f service/log ] || tail -c +$((from + 1)) service/log | tail -n {lines}\n"
                );
                Some(Script::new(keeper(root, &body), String::new()))
            }
            Self::Command { log, exports, .. } if !log.is_empty() => {
                Some(command(root, exports, &format!("LINES={lines} FOLLOW=0\n({log}) 2>&1 | tail -n {lines}")))
            }
            Self::Command { .. } => None,
        }
    }

    /// Prints the last lines of the log, also those of processes before the current one.
    pub fn last_lines(&self, root: &str, lines: u32) -> Option<Script> {
        let script = match self {
            Self::Keeper { .. } => {
                let body = format!("[ ! -f service/log ] || tail -n {lines} service/log\n");
                Some(Script::new(keeper(root, &body), String::new()))
            }
            Self::None | Self::Command { .. } => self.log(root, lines),
        };
        script.map(|script| script.called("show the log of the service"))
    }

    /// The same, and then each line as it is written, until it is ended. It may end by itself, and is not begun again.
    pub fn follow(&self, root: &str, lines: u32) -> Option<Script> {
        let script = match self {
            Self::None => None,
            // By its name: at a start the keeper moves a large log away.
            Self::Keeper { .. } => {
                Some(Script::new(keeper(root, &format!("exec tail -n {lines} -F service/log\n")), String::new()))
            }
            Self::Command { log, exports, .. } if log.contains("FOLLOW") => {
                Some(command(root, exports, &format!("LINES={lines} FOLLOW=1\n({log}) 2>&1")))
            }
            Self::Command { .. } => None,
        };
        script.map(|script| script.called("follow the log of the service"))
    }
}

fn command(root: &str, exports: &str, command: &str) -> Script {
    // The variables come by stdin: they may be secret, and a command line is for everybody to read.
    let text = format!("set -eu; umask 022\ncd -- {}\nvars=$(cat); eval \"$vars\"\nset +eu\n{command}\n", quote(root));
    Script::new(text, exports.to_owned())
}

fn keeper(root: &str, body: &str) -> String {
    format!("set -eu; umask 022; LC_ALL=C; export LC_ALL\ncd -- {}\n{FUNCTIONS}{body}", quote(root))
}

/// `alive` is true while the kept process runs: the process exists, is no zombie, and began when ours did, so that a
/// reused process id is never taken for it. `started PID` prints field 22 of `/proc/PID/stat`, `-` without `/proc`.
const FUNCTIONS: &str = "started() {
  if [ ! -d /proc/self ]; then echo -; return 0; fi
  line=$(cat \"/proc/$1/stat\" 2>/dev/null) || return 0
  set -- ${line##*) }
  [ \"$1\" = Z ] || echo \"${20}\"
}
alive() {
  [ -f service/process ] || return 1
  pid=; start=; group=; digest=; release=
  read -r pid start group digest release < service/process || return 1
  kill -0 \"$pid\" 2>/dev/null || return 1
  [ \"$(started \"$pid\")\" = \"$start\" ]
}
nap() { sleep 0.05 2>/dev/null || sleep 1; }
";

/// SIGTERM, a while, SIGKILL, a while; fails when the process is still there. What it leaves of its process group is
/// killed too, because a child could hold the port.
fn stop(seconds: u64) -> String {
    format!(
        "if alive; then
  kill -TERM \"$pid\" 2>/dev/null || true
  naps=0; while alive && [ $naps -lt {patience} ]; do nap; naps=$((naps + 1)); done
  if alive; then kill -KILL \"$pid\" 2>/dev/null || true; naps=0; while alive && [ $naps -lt 100 ]; do nap; naps=$((naps + 1)); done; fi
  if alive; then echo \"process $pid does not end\" >&2; exit 1; fi
  if [ \"$group\" != - ]; then kill -KILL \"-$group\" 2>/dev/null || true; fi
fi
rm -f service/process service/exit",
        patience = seconds * 20,
    )
}

/// Starts the spec in the directory of the release, in a session of its own where `setsid` exists, with a clean
/// environment: neither a variable nor a descriptor of the deploy reaches the app.
fn start(id: &ReleaseId) -> String {
    let wrapper = "set -u; dir=$1; use=$2; group=$3
[ \"$group\" = - ] || group=$$
(cd -P -- \"$dir\" && exec sh \"../../service/$use\") < /dev/null & pid=$!
line=$(cat \"/proc/$pid/stat\" 2>/dev/null || true)
if [ -d /proc/self ]; then set -- ${line##*) }; start=${20:-gone}; else start=-; fi
if command -v sha256sum > /dev/null 2>&1; then digest=$(sha256sum < \"service/$use\"); else digest=$(shasum -a 256 < \"service/$use\"); fi
echo \"$pid $start $group ${digest%% *} ${dir##*/}\" > service/process.new
mv -f service/process.new service/process
code=0; wait \"$pid\" || code=$?
echo \"$code\" > service/exit
# What the process leaves behind could hold its port.
[ \"$group\" = - ] || kill -KILL \"-$group\"";
    format!(
        "if [ -f service/log ] && [ \"$(wc -c < service/log)\" -gt 10485760 ]; then mv -f service/log service/log.1; fi
[ -f service/log ] || : > service/log
echo $(($(wc -c < service/log))) > service/log.start
if command -v setsid > /dev/null 2>&1; then launch=setsid; group=own; else launch=nohup; group=-; fi
env -i PATH=\"$PATH\" HOME=\"${{HOME:-/}}\" USER=\"${{USER:-}}\" LANG=\"${{LANG:-C.UTF-8}}\" \\
  $launch sh -c {wrapper} keeper releases/{id} \"$use\" $group >> service/log 2>&1 < /dev/null &
naps=0; while [ ! -f service/process ] && [ $naps -lt 100 ]; do nap; naps=$((naps + 1)); done
[ -f service/process ] || {{ echo 'the process keeper did not start' >&2; exit 1; }}
",
        wrapper = quote(wrapper),
    )
}

/// A line of a target's state about the kept process: `service running DIGEST RELEASE` or `service stopped`.
pub fn keeper_state() -> String {
    format!(
        "{FUNCTIONS}if [ -d service ]; then
  if alive; then echo \"service running $digest $release\"; else echo 'service stopped'; fi
fi"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn variables_are_quoted_and_never_in_the_script() {
        let vars = [("PASSWORD".to_owned(), "it's $HOME".to_owned())];
        let keeper =
            Spec::new(&Service::Keeper { run: &["bin/app", "--x y"], stop_timeout: Duration::from_secs(3) }, &vars);
        let script = keeper.restart("/srv/a", &"20260822T101500-1a2b3c4".parse().unwrap(), false).unwrap();
        assert_eq!(script.stdin, "export PASSWORD='it'\\''s $HOME'\nexec bin/app '--x y'\n");
        assert!(!script.text.contains("PASSWORD"));
        let command =
            Spec::new(&Service::Command { restart: "svc restart", stop: "svc stop", status: "", log: "" }, &vars);
        let script = command.restart("/srv/a", &"20260822T101500-1a2b3c4".parse().unwrap(), false).unwrap();
        assert!(!script.text.contains("PASSWORD") && script.stdin.contains("PASSWORD"));
        assert_eq!(command.status("/srv/a"), None);
    }
}
