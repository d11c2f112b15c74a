//! The app as a unit of systemd, of the system or of a user: written from the project, installed when it differs,
//! restarted, and asked how it is.
//!
//! Files in `service/` of a target:
//!
//! ```text
//! service/spec-DIGEST/  a way to start it: env (mode 0600), unit, and socket where systemd listens for it
//! service/good          digest of the way in which it was last healthy: what a put-back uses
//! service/unit, socket  what was installed last; service/env is what the unit reads its variables from
//! service/name          "MANAGER UNIT", from the first restart on until it is stopped for good
//! service/systemd       "MANAGER UNIT DIGEST RELEASE": what runs; absent while it is being restarted
//! service/since         when it was restarted last, in seconds since 1970: its log begins there
//! service/crashes       how often systemd had started it again by then, which a restart does not always forget
//! ```
//!
//! Units: `systemd.unit(5)`, `systemd.service(5)`, `systemd.socket(5)`; variables: `EnvironmentFile=` in
//! `systemd.exec(5)`.

use crate::host::script::quote;
use crate::project::{Handover, Manager};
use crate::release::digest;
use crate::release::id::ReleaseId;
use crate::service::port::{IN_USE, in_use};
use crate::service::{GONE, Script, keeper, port};
use std::fmt::Write;
use std::time::Duration;

/// A process that systemd has started again so often during a check will not become healthy.
const CRASHES: u32 = 3;

/// Waits until the journal has what the service wrote a moment ago. Only root may ask for that.
const SYNC: &str = "journalctl --sync > /dev/null 2>&1 || true\n";

/// A unit with its variables filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    name: String,
    manager: Manager,
    run: Vec<String>,
    lines: Vec<String>,
    stop_seconds: u64,
    handover: Handover,
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
        handover: Handover,
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

    /// Names what would be started, wherever its root is.
    pub fn digest(&self) -> String {
        digest::of(format!("{}\n{}\n{}", self.unit("."), self.socket("."), self.env).as_bytes())
    }

    /// The text of `NAME.service`.
    fn unit(&self, root: &str) -> String {
        let mut text = format!("{}\n[Unit]\nDescription={}\nAfter=network-online.target\n", head(root), self.name);
        // What crashes for as long as its database is away has to come back with it.
        text.push_str("StartLimitIntervalSec=0\n");
        if matches!(self.handover, Handover::Sockets(_)) {
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
        let has_user = self.lines.iter().any(|line| line.starts_with("User="));
        if self.manager != Manager::User && !has_user {
            text.push_str("User=@login@\n");
        }
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        let wanted = if self.manager == Manager::User { "default.target" } else { "multi-user.target" };
        let _ = write!(text, "\n[Install]\nWantedBy={wanted}\n");
        text
    }

    /// The text of `NAME.socket`, empty where the app listens for itself.
    fn socket(&self, root: &str) -> String {
        let Handover::Sockets(addresses) = self.handover else { return String::new() };
        let listen: String = addresses.iter().map(|address| format!("ListenStream={address}\n")).collect();
        format!(
            "{}\n[Unit]\nDescription={}: its sockets\n\n[Socket]\n{listen}\n[Install]\nWantedBy=sockets.target\n",
            head(root),
            self.name
        )
    }

    fn script(&self, root: &str, body: &str) -> Script {
        Script::new(keeper::script(root, &self.with_functions(body)), String::new())
    }

    fn with_functions(&self, body: &str) -> String {
        format!("{}name={}\n{body}", functions(self.manager), self.name)
    }

    /// Fails where this manager does not answer, or a unit of that name is somebody else's.
    pub fn ready(&self, root: &str) -> Script {
        let hint = match self.manager {
            Manager::User => "as root of that host `loginctl enable-linger $(id -un)`",
            Manager::System | Manager::Sudo => "is it the init system of that host?",
        }
        .replace('`', "\\`");
        let may = if self.manager == Manager::Sudo {
            "for may in \"systemctl restart $name.service\" \"systemctl enable -q $name.service\" 'systemctl daemon-reload' \\
  \"install -m 644 $root/service/unit $dir/$name.service\"; do
  sudo -n -l $may > /dev/null 2>&1 || { echo \"this login may not do \\`sudo $may\\`\" >&2; echo 'hint: docs/hosts.md has the line for sudoers' >&2; exit 1; }
done"
        } else {
            ":"
        };
        let body = format!(
            "if ! said=$(systemctl $scope show -p Version 2>&1); then
  echo \"systemd does not answer this login: $said\" >&2; echo \"hint: {hint}, then deploy again\" >&2; exit 1
fi
{may}
{NO_KEEPER}
if has_text service/name && [ \"$(cat service/name)\" != \"$manager $name\" ]; then
  read -r other unit < service/name
  echo \"the unit $unit of the $other's systemd runs here, not $name of the $manager's\" >&2
  echo \"hint: on that host \\`systemctl disable --now $unit\\` (\\`--user\\` where it is a user's) and \\`rm $root/service/name $root/service/systemd\\`, then deploy again\" >&2; exit 1
fi
for unit in \"$name.service\" \"$name.socket\"; do
  for file in \"$dir/$unit\" \"$(systemctl $scope show -p FragmentPath --value \"$unit\")\"; do
    has_text \"$file\" || continue
    head -n 1 \"$file\" | grep -qF {ours} || {{
      if head -n 1 \"$file\" | grep -qF '# Written by gangplank for'; then
        echo \"$file belongs to another target of this host\" >&2; echo 'hint: each target of one host needs a `unit` of its own' >&2; exit 1
      fi
      echo \"$file is not ours\" >&2; echo 'hint: move it away, or give the env another `unit`' >&2; exit 1
    }}
  done
done
",
            ours = quote(&head(root)),
        );
        Script::new(keeper::ahead(root, &self.with_functions(&body)), String::new())
    }

    /// Installs what differs and restarts. With `put_back` it is started as it was when it was last healthy.
    pub fn restart(&self, root: &str, id: &ReleaseId, put_back: bool) -> Script {
        let digest = self.digest();
        let choose = if put_back {
            format!(
                "cat > /dev/null
if [ ! -f service/good ]; then
{STOP}exit 0
fi
use=$(tr -d '\\000' < service/good)
# Of one that a power cut left empty, how the release that failed was to be started is all that is known.
has_text \"service/spec-$use/unit\" || use={digest}"
            )
        } else {
            format!(
                "use={digest}; spec=service/spec-$use
(private; mkdir -p \"$spec\"; cat > \"$spec/env.new\")
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
            "mkdir -p service
{NO_KEEPER}
{choose}
echo \"$manager $name\" | keep service/name
{PLACE}
date +%s > service/since
rm -f service/systemd
{LISTEN}
flush_units
ctl restart \"$name.service\"
ctl show -p NRestarts --value \"$name.service\" > service/crashes
echo \"$manager $name $use {id}\" | keep service/systemd
"
        );
        let script = self.script(root, &body);
        Script { stdin: self.env.clone(), ..script }
    }

    /// Counts crashes anew, and starts a unit that systemd does not start again by itself.
    pub fn start_again(&self, root: &str) -> Script {
        let body = "case $(ctl show -p ActiveState --value \"$name.service\") in
  failed|inactive) ctl reset-failed \"$name.service\" 2> /dev/null || true; ctl start \"$name.service\";;
esac
ctl show -p NRestarts --value \"$name.service\" > service/crashes
";
        self.script(root, body)
    }

    /// Stops it, and keeps it from being started at boot.
    pub fn stop(&self, root: &str) -> Script {
        self.script(root, STOP)
    }

    /// Stops it, and what listens for it, until somebody starts it or the host boots.
    pub fn halt(&self, root: &str) -> Script {
        let units = if self.has_socket() { "\"$name.service\" \"$name.socket\"" } else { "\"$name.service\"" };
        self.script(root, &format!("ctl stop {units}\n"))
    }

    /// Starts it, and what listens for it first. `restart` starts what is stopped, and is allowed wherever a deploy is.
    pub fn start(&self, root: &str) -> Script {
        let socket = if self.has_socket() { "ctl start \"$name.socket\"\n" } else { "" };
        self.script(root, &format!("{socket}ctl restart \"$name.service\"\n"))
    }

    fn has_socket(&self) -> bool {
        matches!(self.handover, Handover::Sockets(_))
    }

    /// Exits with 0 while it runs and no other process of this root has its port, with `GONE` when it will not come back
    /// by itself; else prints why not. Where nothing
    /// `else_asked` says whether it works, one crash is enough.
    pub fn status(&self, root: &str, else_asked: bool, port: Option<u16>, last: bool) -> Script {
        let crashes = if else_asked { CRASHES } else { 1 };
        // Where systemd holds the socket, the service may not have it yet.
        let ours = "[ \"$1\" != 1 ] || return 0
while read -r line; do
  case $line in */\"$name.service\"|*/\"$name.service\"/*|*/init.scope) return 0;; esac
done < \"/proc/$1/cgroup\" 2> /dev/null
return 1";
        let (unit, in_use) = (self.journal_option(), in_use());
        let foreign = port.filter(|_| last).map(|port| port::foreign(port, ours)).unwrap_or_default();
        let body = format!(
            "set -- $(systemctl $scope show -p ActiveState -p ExecMainStatus -p NRestarts -p Result -p SubState \"$name.service\" | sort)
[ $# -eq 5 ] || {{ echo 'systemd says nothing of it'; exit 1; }}
active=${{1#*=}}; code=${{2#*=}}; crashes=${{3#*=}}; result=${{4#*=}}; sub=${{5#*=}}
before=0; [ ! -f service/crashes ] || read -r before < service/crashes
[ \"$crashes\" -lt \"$before\" ] || crashes=$((crashes - before))
if [ \"$crashes\" -ge {crashes} ]; then
  echo \"it has crashed $crashes time(s)\"
  ! journalctl {unit}=\"$name.service\" -n 20 --no-pager -o cat 2> /dev/null | {in_use} || echo '{IN_USE}'
  exit {GONE}
fi
case $active in
  active|reloading) {foreign}exit 0;;
  failed) echo \"it failed ($result), exit status $code\"; exit {GONE};;
  inactive) echo \"it ended with exit status $code\"; exit {GONE};;
esac
if [ \"$sub\" = auto-restart ]; then echo \"it crashed with exit status $code, and is started again\"; else echo \"it is $active\"; fi
exit 1
"
        );
        self.script(root, &body)
    }

    /// Prints the last lines of its log since the last restart.
    pub fn log(&self, root: &str, lines: u32) -> Script {
        let since = "$([ ! -f service/since ] || echo --since=@$(cat service/since))";
        self.journal(root, SYNC, &format!("{since} -n {lines}"))
    }

    /// Prints the last lines of its log, also those of processes before the current one.
    pub fn last_lines(&self, root: &str, lines: u32) -> Script {
        self.journal(root, SYNC, &format!("-n {lines}"))
    }

    /// The same, and then each line as it is written.
    pub fn follow(&self, root: &str, lines: u32) -> Script {
        self.journal(root, "", &format!("-n {lines} -f"))
    }

    fn journal_option(&self) -> &'static str {
        if self.manager == Manager::User { "--user-unit" } else { "--unit" }
    }

    fn journal(&self, root: &str, first: &str, options: &str) -> Script {
        let unit = self.journal_option();
        let body = format!("{first}exec journalctl {unit}=\"$name.service\" {options} --no-pager -o cat 2>&1\n");
        self.script(root, &body)
    }

    /// Remembers how it was started, now that it is healthy.
    pub fn confirm(&self, root: &str) -> Script {
        let body = "has_text service/systemd || exit 0
read -r _ _ use _ < service/systemd
echo \"$use\" | keep service/good
for spec in service/spec-*; do [ \"$spec\" = \"service/spec-$use\" ] || rm -rf \"$spec\"; done
";
        Script::new(keeper::script(root, body), String::new())
    }
}

/// The first line of what we write; what has another is somebody else's.
fn head(root: &str) -> String {
    format!("# Written by gangplank for {root}; changes belong into a drop-in: the next deploy overwrites this file.")
}

/// Variables as a file for `EnvironmentFile=`.
pub fn env_file(vars: &[(String, String)]) -> String {
    vars.iter().map(|(name, value)| format!("{name}={}\n", env_quote(value))).collect()
}

/// A value for `EnvironmentFile=`: in double quotes, where only four characters mean something.
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

/// A word of `ExecStart=`: systemd expands `%` and `$` in it, and reads escapes as C does.
fn word_quote(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$").replace('%', "%%");
    format!("\"{escaped}\"")
}

/// Of a `$manager`: `$scope` is how systemctl is told, `$dir` where its units are.
const SCOPE: &str = r#"scope=; dir=/etc/systemd/system
if [ "$manager" = user ]; then
  scope=--user; dir=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
  : "${XDG_RUNTIME_DIR:=/run/user/$(id -u)}"; export XDG_RUNTIME_DIR
fi
"#;

/// `ctl` speaks to the manager as whoever may, `put FILE UNIT` installs a file into `$dir`, `drop UNIT` removes it.
fn functions(manager: Manager) -> String {
    let may = match manager {
        Manager::User | Manager::System => {
            r#"ctl() { systemctl $scope "$@"; }
drop() { rm -f "$dir/$1"; }
put() { mkdir -p "$dir"; cp "$1" "$dir/$2.new"; chmod 644 "$dir/$2.new"; replace "$dir/$2"; }
"#
        }
        Manager::Sudo => {
            r#"ctl() { case $1 in is-*|show) systemctl "$@";; *) sudo -n systemctl "$@";; esac; }
drop() { :; }
put() { sudo -n install -m 644 "$PWD/$1" "$dir/$2"; flush "$dir/$2" "$dir"; }
"#
        }
    };
    format!("manager={}\n{SCOPE}{may}{FLUSH_UNITS}", manager.as_str())
}

/// The links of what is enabled are systemd's, which does not sync them.
const FLUSH_UNITS: &str = r#"flush_units() {
  [ ! -d "$dir" ] || flush "$dir"
  for wants in "$dir"/*.target.wants; do [ ! -d "$wants" ] || flush "$wants"; done
}
"#;

/// Two services would want one port.
const NO_KEEPER: &str = r#"if alive; then
  echo "a process of the built-in keeper runs here" >&2; echo "hint: \`kill $pid\` on that host, then deploy again" >&2; exit 1
fi"#;

/// Installs the files of `$use` that differ, and says so in `$changed`.
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

/// Lets systemd listen where it should, and nowhere else. A socket cannot begin to listen while its service runs.
const LISTEN: &str = r#"if [ -s "$spec/socket" ]; then
  ctl is-enabled -q "$name.socket" || ctl enable -q "$name.socket"
  # What is not loaded need not be stopped.
  case $changed in *.socket*) ctl stop "$name.service" "$name.socket" 2>/dev/null || true;; esac
  ctl is-active -q "$name.socket" || { ctl stop "$name.service" 2>/dev/null || true; ctl start "$name.socket"; }
elif [ -f "$dir/$name.socket" ] && head -n 1 "$dir/$name.socket" | grep -qF "$(head -n 1 service/unit)"; then
  ctl disable -q --now "$name.socket" 2>/dev/null || true
  drop "$name.socket"
  ctl daemon-reload
fi"#;

/// Stops it for good, and takes away what was installed where that needs nobody else.
const STOP: &str = r##"rm -f service/systemd service/name
if head -n 1 "$dir/$name.service" 2>/dev/null | grep -qF "# Written by gangplank for $PWD;"; then
  for unit in "$name.socket" "$name.service"; do
    [ ! -f "$dir/$unit" ] || { ctl disable -q --now "$unit"; drop "$unit"; }
  done
  flush_units
  ctl daemon-reload
fi
"##;

/// A line of a target's state about its unit.
pub fn state() -> String {
    format!(
        r#"if [ -f service/systemd ]; then
  manager=; unit=; digest=; release=
  read -r manager unit digest release < service/systemd || true
  {SCOPE}
  if ! systemctl $scope is-active -q "$unit.service" 2>/dev/null; then echo 'service stopped'
  elif [ "$(cat service/unit 2>/dev/null)" != "$(cat "$dir/$unit.service" 2>/dev/null)" ] ||
    ! systemctl $scope is-enabled -q "$unit.service" 2>/dev/null; then echo 'service drifted'
  else echo "service running $digest $release"; fi
elif [ -f service/name ]; then echo 'service stopped'
fi"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn unit(manager: Manager, handover: Handover) -> Unit {
        let vars = [("PASSWORD".to_owned(), "it's \"$HOME\" `\\".to_owned())];
        let lines = ["MemoryMax=512M"];
        Unit::new("shop", manager, &["bin/app", "100%", "$x \"y\""], &lines, Duration::from_secs(15), handover, &vars)
    }

    #[test]
    fn a_unit_of_a_user_whose_sockets_systemd_holds() {
        let unit = unit(Manager::User, Handover::Sockets(&["127.0.0.1:8080"]));
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
        let unit = unit(Manager::Sudo, Handover::Restart);
        let script = unit.restart("/srv/app", &"20260822T101500-1a2b3c4".parse().unwrap(), false);
        assert_eq!(script.stdin, "PASSWORD=\"it's \\\"\\$HOME\\\" \\`\\\\\"\n");
        assert!(!script.text.contains("PASSWORD"));
        assert!(script.text.contains("User=@login@\n"));
        let own = Unit { lines: vec!["User=shop".into()], ..unit.clone() };
        assert!(!own.unit("/srv/app").contains("@login@"));
        assert_ne!(own.digest(), unit.digest());
    }
}
