//! The app as a systemd unit of the system or a user: generated from the project, installed when changed, restarted,
//! and queried.
//!
//! Files in `service/` of a target:
//!
//! ```text
//! service/spec-DIGEST/  a spec: env (mode 0600), unit, and socket if systemd listens
//! service/good          digest of the last healthy spec, which a revert uses
//! service/unit, socket  the files installed last; the unit reads its variables from service/env
//! service/name          "MANAGER UNIT", from the first restart until the final stop
//! service/systemd       "MANAGER UNIT DIGEST RELEASE" of the running unit; absent during a restart
//! service/invocation    "ID OLD": systemd's invocation ids of the last restart and of the start before, for the log
//! service/since         time of the last restart in seconds since 1970, for a systemd without invocation ids
//! service/crashes       number of automatic restarts before it, because a restart may not reset the count
//! ```
//!
//! Units: `systemd.unit(5)`, `systemd.service(5)`, `systemd.socket(5)`; variables: `EnvironmentFile=` in
//! `systemd.exec(5)`.

pub(crate) mod ask;
mod journal;
mod ready;
pub mod rights;

use crate::project::{Manager, SocketActivation};
use crate::release::digest;
use crate::release::id::ReleaseId;
use crate::service::pidfile;
use crate::service::run::Script;
use crate::service::systemd::ask::SCOPE;
pub use crate::service::systemd::ask::state;
pub use crate::service::systemd::journal::FUNCTION as READABLE;
use crate::service::systemd::ready::NO_PIDFILE_SERVICE;
pub use crate::service::systemd::ready::WARNING;
use crate::shell::quote;
use std::fmt::Write;
use std::time::Duration;

/// A unit with its variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    name: String,
    manager: Manager,
    run: Vec<String>,
    lines: Vec<String>,
    stop_seconds: u64,
    handover: SocketActivation,
    env: String,
}

impl Unit {
    /// See [`crate::project::Service::Systemd`].
    pub fn new(
        name: &str,
        manager: Manager,
        run: &[&str],
        lines: &[&str],
        stop_timeout: Duration,
        handover: SocketActivation,
        vars: &[(String, String)],
    ) -> Self {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            name: name.to_owned(),
            manager,
            run: owned(run),
            lines: owned(lines),
            stop_seconds: stop_timeout.as_secs().max(1),
            handover,
            env: env_file(vars),
        }
    }

    /// Digest of the spec, independent of the root.
    pub fn digest(&self) -> String {
        digest::of(format!("{}\n{}\n{}", self.unit("."), self.socket("."), self.env).as_bytes())
    }

    /// The text of `NAME.service`.
    fn unit(&self, root: &str) -> String {
        let mut text = format!("{}\n[Unit]\nDescription={}\nAfter=network-online.target\n", head(root), self.name);
        // A unit that crashes while its database is down must come back with it.
        text.push_str("StartLimitIntervalSec=0\n");
        if self.has_socket() {
            let _ = write!(text, "Requires={0}.socket\nAfter={0}.socket\n", self.name);
        }
        let root = root.replace('%', "%%");
        let program = match self.run.first() {
            Some(program) if program.starts_with('/') => program.replace('%', "%%"),
            program => format!("{root}/current/{}", program.map_or("", String::as_str).replace('%', "%%")),
        };
        let words: String = self.run.iter().skip(1).map(|word| format!(" {}", word_quote(word))).collect();
        let _ = write!(
            text,
            "\n[Service]\nType=exec\nWorkingDirectory={root}/current\nEnvironmentFile={root}/service/env\n\
             ExecStart=\"{program}\"{words}\n"
        );
        let _ = write!(text, "TimeoutStopSec={}\nRestart=always\nRestartSec=1\n", self.stop_seconds);
        if self.manager != Manager::User && !self.has_user() {
            text.push_str("User=@login@\n");
        }
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        let wanted = if self.manager == Manager::User { "default.target" } else { "multi-user.target" };
        let _ = write!(text, "\n[Install]\nWantedBy={wanted}\n");
        text
    }

    /// The text of `NAME.socket`; empty if the app listens itself.
    fn socket(&self, root: &str) -> String {
        let SocketActivation::Sockets(addresses) = self.handover else { return String::new() };
        let listen: String = addresses.iter().map(|address| format!("ListenStream={address}\n")).collect();
        format!(
            "{}\n[Unit]\nDescription={}: its sockets\n\n[Socket]\n{listen}\n[Install]\nWantedBy=sockets.target\n",
            head(root),
            self.name
        )
    }

    /// Whether the project sets the user.
    fn has_user(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("User="))
    }

    /// The host's user that the unit runs as, if the project sets one.
    fn user(&self) -> Option<&str> {
        static_user(&self.lines)
    }

    fn script(&self, root: &str, body: &str) -> Script {
        Script::new(pidfile::script(root, &self.with_functions(body)), String::new())
    }

    fn with_functions(&self, body: &str) -> String {
        let (manager, name) = (self.manager, &self.name);
        format!("manager={}\n{SCOPE}{}{FLUSH_UNITS}name={name}\n{body}", manager.as_str(), rights::functions(manager))
    }

    /// Installs changed files and restarts the unit. With `revert`, uses the spec of the last healthy start.
    pub fn restart(&self, root: &str, id: &ReleaseId, revert: bool) -> Script {
        let digest = self.digest();
        let choose = if revert {
            format!(
                "cat > /dev/null
if [ ! -f service/good ]; then
{STOP}exit 0
fi
use=$(tr -d '\\000' < service/good)
# Of one that a power cut left empty, how the release that failed was to be started is all that is known.
has_text \"service/spec-$use/unit\" || use={digest}
has_text \"service/spec-$use/unit\" || {{
  echo 'service/good is damaged: how the service was started is not known' >&2
  echo 'hint: `cargo xtask deploy ENV` starts it' >&2; exit 1
}}"
            )
        } else {
            format!(
                "use={digest}; spec=service/spec-$use
(private; make_dir \"$spec\"; rm -f \"$spec\"/*.new; cat > \"$spec/env.new\")
printf %s {unit} | while IFS= read -r line; do
  [ \"$line\" != User=@login@ ] || line=User=$(id -un)
  printf '%s\\n' \"$line\"
done > \"$spec/unit.new\"
printf %s {socket} > \"$spec/socket.new\"
replace \"$spec/env\" \"$spec/unit\" \"$spec/socket\"",
                unit = quote(&self.unit(root)),
                socket = quote(&self.socket(root)),
            )
        };
        let body = format!(
            "make_dir service
{NO_PIDFILE_SERVICE}
{choose}
echo \"$manager $name\" | keep service/name
# From here on what is installed and what runs may differ.
rm -f service/systemd
{PLACE}
{LISTEN}
flush_units
{restart}echo \"$manager $name $use {id}\" | keep service/systemd
",
            restart = restart_unit(),
        );
        let script = self.script(root, &body);
        Script { stdin: self.env.clone(), ..script }
    }

    /// Resets the crash count, and starts a unit that systemd will not restart by itself.
    pub fn start_again(&self, root: &str) -> Script {
        let body = "case $(ctl show -p ActiveState --value \"$name.service\") in
  failed|inactive) ctl restart \"$name.service\";;
esac
ctl show -p NRestarts --value \"$name.service\" > service/crashes
";
        self.script(root, body)
    }

    /// Stops and disables the unit.
    pub fn stop(&self, root: &str) -> Script {
        self.script(root, STOP)
    }

    /// Stops the unit and its socket until a command starts it or the host boots.
    pub fn halt(&self, root: &str) -> Script {
        let body = "if [ -f \"$dir/$name.socket\" ]; then ctl stop \"$name.service\" \"$name.socket\"; else ctl stop \"$name.service\"; fi\n";
        self.script(root, body)
    }

    /// Starts the unit, its socket first. Uses `restart`, which starts a stopped unit and is permitted wherever a
    /// deploy is.
    pub fn start(&self, root: &str) -> Script {
        let socket = "[ ! -f \"$dir/$name.socket\" ] || ctl start \"$name.socket\"\n";
        self.script(root, &format!("{socket}{}", restart_unit()))
    }

    fn has_socket(&self) -> bool {
        matches!(self.handover, SocketActivation::Sockets(_))
    }

    /// Exits with 0 while the unit runs and no other process of this root holds its port, and with `GONE` if it will
    /// not come back by itself; otherwise prints the reason. Without `else_asked`, one crash is a failure.
    pub fn status(&self, root: &str, else_asked: bool, port: Option<u16>, last: bool) -> Script {
        self.script(root, &ask::status(self.journal_option(), else_asked, port, last))
    }

    /// Stores the spec of a unit that has become healthy.
    pub fn confirm(&self, root: &str) -> Script {
        let body = "has_text service/systemd || exit 0
read -r _ _ use _ < service/systemd
echo \"$use\" | keep service/good
for spec in service/spec-*; do [ \"$spec\" = \"service/spec-$use\" ] || rm -rf \"$spec\"; done
";
        Script::new(pidfile::script(root, body), String::new())
    }
}

/// Restarts the unit, stores the id of this start, and fails if the unit cannot be started.
fn restart_unit() -> String {
    format!(
        "date +%s > service/since.new
old=$(ctl show -p InvocationID --value \"$name.service\")
failed=; said=$(ctl restart \"$name.service\" 2>&1) || failed=yes
ctl show -p NRestarts --value \"$name.service\" > service/crashes.new
first=$(ctl show -p InvocationID --value \"$name.service\")
echo \"$first $old\" > service/invocation.new
replace service/since service/crashes service/invocation
if [ -n \"$failed\" ]; then
  [ \"$first\" != \"$old\" ] || {{ echo \"$said\"; exit 1; }}
{}fi
",
        ask::restart_failed()
    )
}

/// The user set by lines of `[Service]`, the last one winning; `None` if systemd creates the user, or if the name has a
/// specifier (`%i`), which only systemd can expand.
pub fn static_user<S: AsRef<str>>(lines: &[S]) -> Option<&str> {
    let value = |name: &str| lines.iter().rev().find_map(|line| line.as_ref().strip_prefix(name)).map(str::trim);
    let is_dynamic = value("DynamicUser=").is_some_and(|it| ["yes", "true", "on", "1"].contains(&it));
    value("User=").filter(|user| !is_dynamic && !user.is_empty() && !user.contains('%'))
}

/// The first line of our unit files; a file without it was not written by this target.
fn head(root: &str) -> String {
    format!("# Written by gangplank for {root}; changes belong into a drop-in: the next deploy overwrites this file.")
}

/// Variables as a file for `EnvironmentFile=`.
pub(crate) fn env_file(vars: &[(String, String)]) -> String {
    vars.iter().map(|(name, value)| format!("{name}={}\n", env_quote(value))).collect()
}

/// A value for `EnvironmentFile=`: in double quotes, where only four characters are special.
fn env_quote(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        if "\"\\`$".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// A word of `ExecStart=`: systemd expands `%` and `$` in it and reads C escapes.
fn word_quote(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$").replace('%', "%%");
    format!("\"{escaped}\"")
}

/// systemd does not sync the links that `enable` creates.
const FLUSH_UNITS: &str = r#"flush_units() {
  [ ! -d "$dir" ] || flush "$dir"
  for wants in "$dir"/*.target.wants; do [ ! -d "$wants" ] || flush "$wants"; done
}
"#;

/// Installs the changed files of `$use`, and lists them in `$changed`.
const PLACE: &str = r#"spec=service/spec-$use; changed=
(private; cp "$spec/env" service/env.new); replace service/env
place() {
  cp "$spec/$1" "service/$1.new"; replace "service/$1"
  if [ -f "$dir/$2" ]; then
    [ "$(cat "service/$1")" != "$(cat "$dir/$2")" ] || return 0
  fi
  put "service/$1" "$2"; changed="$changed $2"
}
place unit "$name.service"
[ ! -s "$spec/socket" ] || place socket "$name.socket"
if [ -n "$changed" ] || [ "$(ctl show -p NeedDaemonReload --value "$name.service")" = yes ]; then ctl daemon-reload; fi
ctl is-enabled -q "$name.service" || ctl enable -q "$name.service""#;

/// Makes systemd listen on the configured sockets only. A socket cannot start listening while its service runs.
const LISTEN: &str = r#"if [ -s "$spec/socket" ]; then
  ctl is-enabled -q "$name.socket" || ctl enable -q "$name.socket"
  # What is not loaded need not be stopped.
  case $changed in *.socket*) ctl stop "$name.service" "$name.socket" 2>/dev/null || true;; esac
  ctl is-active -q "$name.socket" || { ctl stop "$name.service" "$name.socket" 2>/dev/null || true; ctl start "$name.socket"; }
elif [ -f "$dir/$name.socket" ] && head -n 1 "$dir/$name.socket" | grep -qF "$(head -n 1 service/unit)"; then
  ctl disable -q --now "$name.socket" 2>/dev/null || true
  drop "$name.socket"
  ctl daemon-reload
fi"#;

/// Stops the unit for good, and removes its files if the login may.
const STOP: &str = r##"rm -f service/systemd service/name
if head -n 1 "$dir/$name.service" 2>/dev/null | grep -qF "# Written by gangplank for $PWD;"; then
  for unit in "$name.socket" "$name.service"; do
    [ ! -f "$dir/$unit" ] || { ctl disable -q --now "$unit"; drop "$unit"; }
  done
  flush_units
  ctl daemon-reload
fi
"##;

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn unit(manager: Manager, handover: SocketActivation) -> Unit {
        let vars = [("PASSWORD".to_owned(), "it's \"$HOME\" `\\".to_owned())];
        let lines = ["MemoryMax=512M"];
        Unit::new("shop", manager, &["bin/app", "100%", "$x \"y\""], &lines, Duration::from_secs(15), handover, &vars)
    }

    #[test]
    fn unit_of_user_with_sockets_matches_the_expected_text() {
        let unit = unit(Manager::User, SocketActivation::Sockets(&["127.0.0.1:8080"]));
        expect![[r##"
            # Written by gangplank for /srv/my app; changes belong into a drop-in: the next deploy overwrites this file.
            [Unit]
            Description=shop
            After=network-online.target
            StartLimitIntervalSec=0
            Requires=shop.socket
            After=shop.socket

            [Service]
            Type=exec
            WorkingDirectory=/srv/my app/current
            EnvironmentFile=/srv/my app/service/env
            ExecStart="/srv/my app/current/bin/app" "100%%" "$$x \"y\""
            TimeoutStopSec=15
            Restart=always
            RestartSec=1
            MemoryMax=512M

            [Install]
            WantedBy=default.target
            # Written by gangplank for /srv/my app; changes belong into a drop-in: the next deploy overwrites this file.
            [Unit]
            Description=shop: its sockets

            [Socket]
            ListenStream=127.0.0.1:8080

            [Install]
            WantedBy=sockets.target
        "##]]
        .assert_eq(&(unit.unit("/srv/my app") + &unit.socket("/srv/my app")));
    }

    #[test]
    fn variables_come_by_stdin_and_a_unit_of_the_system_has_a_user() {
        let unit = unit(Manager::Sudo, SocketActivation::Restart);
        let script = unit.restart("/srv/app", &"20260822T101500-1a2b3c4".parse().unwrap(), false);
        assert_eq!(script.stdin, "PASSWORD=\"it's \\\"\\$HOME\\\" \\`\\\\\"\n");
        assert!(!script.text.contains("PASSWORD"));
        assert!(script.text.contains("User=@login@\n"));
        let own = Unit { lines: vec!["User=shop".into()], ..unit.clone() };
        assert!(!own.unit("/srv/app").contains("@login@"));
        assert_ne!(own.digest(), unit.digest());
    }
}
