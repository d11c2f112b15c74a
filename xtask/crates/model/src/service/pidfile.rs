//! The built-in pidfile service, for machines without a service manager.
//!
//! It is not a supervisor: it starts one process, records it, and stops it before it starts the next, so that two never
//! compete for the port. Its files in `service/`:
//!
//! ```text
//! service/spec       how the last healthy release was started: variables and the command (mode 0600)
//! service/spec.new   the same for the release being tried; renamed to `spec` once it is healthy
//! service/process    "PID START GROUP DIGEST RELEASE ROOT": process, its start time, its process group, digest of its
//!                    spec, its release, and device and inode of its root: a copy of the root has others
//! service/exit       exit code of the process, once it has ended
//! service/log        its output; service/log.start is the offset where the current process began
//! ```
//!
//! Each process has the root's mark in its variable `GANGPLANK_TARGET`: device, inode, and the content of `service/id`,
//! because a new directory may reuse the inode of a removed one. Its children inherit the variable, including daemons.
//! On Linux, a stop kills all processes whose variable can be read.

use crate::release::id::ReleaseId;
use crate::script::durable::DURABLE;
use crate::service::port;
use crate::service::port::{IN_USE, in_use};
use crate::service::run::{GONE, Script};
use crate::service::systemd::ask::OF_ROOT;
use crate::shell::{UMASK, quote};

/// Fails if a systemd unit runs the app: two services would compete for one port.
pub fn ready(root: &str) -> Script {
    let refuse = r#"if [ -n "$unit" ]; then
  echo "the unit $unit of the $manager's systemd runs here" >&2
  echo "hint: on that host \`systemctl disable --now $unit\` (\`--user\` where it is a user's) and \`rm $root/service/name $root/service/systemd\`, then deploy again" >&2; exit 1
fi
"#;
    Script::new(ahead(root, &format!("{OF_ROOT}{refuse}")), String::new())
}

/// Fails if a stopped process could not be started again with its spec.
pub fn startable(root: &str) -> Script {
    let body = r#"if [ ! -f service/spec ] || ! has_text service/spec; then
  echo 'service/spec is damaged: how the service was started is not known' >&2
  echo 'hint: `cargo xtask deploy ENV` starts it' >&2; exit 1
fi
for file in service/process service/log service/log.start service/exit; do
  [ ! -d "$file" ] || { echo "$file is a directory" >&2; echo "hint: on that host move $PWD/$file away" >&2; exit 1; }
done
"#;
    Script::new(script(root, body), String::new())
}

/// Stops the running process and starts `id` by `spec`, a script that sets the variables and executes the app. With
/// `revert`, uses the spec of the last healthy start.
pub fn restart(root: &str, id: &ReleaseId, spec: &str, stop_seconds: u64, revert: bool) -> Script {
    let keep = if revert {
        "cat > /dev/null; use=spec
# An empty one is what a power cut left: how the release that failed was to be started is all that is known.
if [ -f service/spec ] && ! has_text service/spec; then
  if [ ! -f service/spec.new ]; then
    echo 'service/spec is damaged: how the service was started is not known' >&2
    echo 'hint: `cargo xtask deploy ENV` starts it' >&2; exit 1
  fi
  replace service/spec
fi
rm -f service/spec.new"
    } else {
        "(private; rm -f service/spec.new; cat > service/spec.new); flush service/spec.new service; use=spec.new"
    };
    // A release that went live without the pidfile service has no spec.
    let known = if revert { "[ -f service/spec ] || exit 0" } else { ":" };
    let body = format!("make_dir service\n{keep}\n{}\n{known}\n{}", stop_process(stop_seconds), start(id));
    Script::new(script(root, &body), spec.to_owned())
}

/// Restarts an ended process with the same spec.
pub fn start_again(root: &str, id: &ReleaseId) -> Script {
    let body = format!(
        "if alive; then exit 0; fi
if [ -f service/spec.new ]; then use=spec.new; elif [ -f service/spec ]; then use=spec; else exit 0; fi
{}
{}",
        stop_process(0),
        start(id)
    );
    Script::new(script(root, &body), String::new())
}

/// Stops the process.
pub fn stop(root: &str, stop_seconds: u64) -> Script {
    let body = format!("{}\nrm -f service/spec.new\n", stop_process(stop_seconds));
    Script::new(script(root, &body), String::new())
}

/// Exits with 0 while the process runs; otherwise prints the reason, and any other process of this root that holds its
/// port. `last` forces that check, and an error.
pub fn status(root: &str, port: Option<u16>, last: bool) -> Script {
    // A program that sets its title overwrites its environment.
    let ours = "up=$1
while [ \"${up:-0}\" -gt 1 ]; do
  [ \"$up\" != \"$pid\" ] || return 0
  up=$(parent \"$up\")
done
if grep -qsF \"GANGPLANK_TARGET=$(mark)\" \"/proc/$1/environ\"; then return 0; fi
line=$(cat \"/proc/$1/stat\" 2> /dev/null || true)
set -- ${line##*) }
[ \"${3:-}\" = \"$group\" ] || [ \"${4:-}\" = \"$group\" ]";
    let foreign = port.filter(|_| last).map(|port| port::foreign(port, ours)).unwrap_or_default();
    // After the process has ended, none of its children may hold the port.
    let holder = port.map(|port| format!("({}) || true\n", port::foreign(port, "return 1"))).unwrap_or_default();
    let in_use = in_use();
    let body = format!("if alive; then\n[ -n \"$root\" ] || exit 0\n{foreign}exit 0; fi
if [ -f service/exit ]; then echo \"the process ended with exit code $(cat service/exit)\"; else echo 'no process runs'; fi
from=$(number service/log.start)
[ ! -f service/log ] || ! tail -c +$((from + 1)) service/log | {in_use} || echo '{IN_USE}'
left=$(marked); [ -z \"$left\" ] || echo \"and left\" $left \"behind: run the app in the foreground, not as a daemon\"
{holder}exit {GONE}\n");
    Script::new(script(root, &body), String::new())
}

/// Stores the spec of a process that has become healthy.
pub fn confirm(root: &str) -> Script {
    let body = "if [ -f service/spec.new ]; then replace service/spec; fi\n";
    Script::new(script(root, body), String::new())
}

/// Prints the last log lines of the current process.
pub fn log(root: &str, lines: u32) -> Script {
    let body = format!(
        "from=$(number service/log.start)
[ ! -f service/log ] || tail -c +$((from + 1)) service/log | tail -n {lines}\n"
    );
    Script::new(script(root, &body), String::new())
}

/// Prints the last log lines, including those of earlier processes.
pub fn last_lines(root: &str, lines: u32) -> Script {
    Script::new(script(root, &format!("[ ! -f service/log ] || tail -n {lines} service/log\n")), String::new())
}

/// Like [`last_lines`], then each new line. Follows by name: a start moves a large log away.
pub fn follow(root: &str, lines: u32) -> Script {
    Script::new(script(root, &format!("exec tail -n {lines} -F service/log\n")), String::new())
}

/// A script in `root` with the functions of this module.
pub fn script(root: &str, body: &str) -> String {
    format!("set -eu; LC_ALL=C; export LC_ALL\ncd -- {}\n{UMASK}\n{DURABLE}{FUNCTIONS}{body}", quote(root))
}

/// Like [`script`], for a root `$root` that may be missing.
pub fn ahead(root: &str, body: &str) -> String {
    let start = "cd -- \"$root\" 2> /dev/null || cd /";
    format!("set -eu; LC_ALL=C; export LC_ALL; root={}\n{start}\n{UMASK}\n{DURABLE}{FUNCTIONS}{body}", quote(root))
}

/// `alive` is true while the managed process runs: it exists, is not a zombie, has our start time, so that a reused
/// process id does not match, and was started for this root, not for a copy of it. `started PID` prints field 22 of
/// `/proc/PID/stat`, or `-` without `/proc`. `marked` prints the ids of all processes of this root, `parent PID` a
/// parent's id.
pub(crate) const FUNCTIONS: &str = "started() {
  if [ ! -d /proc/self ]; then echo -; return 0; fi
  line=$(cat \"/proc/$1/stat\" 2>/dev/null) || return 0
  set -- ${line##*) }
  [ \"$1\" = Z ] || echo \"${20}\"
}
here() { stat -c %d:%i . 2> /dev/null || stat -f %d:%i . 2> /dev/null || ls -di . | { read -r inode rest; echo \"$inode\"; }; }
mark() { echo \"[$(here):$(cat service/id 2> /dev/null || true)]\"; }
marked() { grep -lsF \"GANGPLANK_TARGET=$(mark)\" /proc/[0-9]*/environ | sed 's/[^0-9]//g'; }
alive() {
  [ -f service/process ] || return 1
  pid=; start=; group=; digest=; release=; root=
  read -r pid start group digest release root < service/process || return 1
  [ \"${root:-$(here)}\" = \"$(here)\" ] || return 1
  kill -0 \"$pid\" 2>/dev/null || return 1
  [ \"$(started \"$pid\")\" = \"$start\" ]
}
parent() { sed -n 's/^PPid:[^0-9]*//p' \"/proc/$1/status\" 2> /dev/null || true; }
number() { n=; ! [ -s \"$1\" ] || n=$(head -c 20 \"$1\" | tr -d '\\000\\n'); case $n in ''|*[!0-9]*) n=0;; esac; echo \"$n\"; }
nap() { sleep 0.05 2>/dev/null || sleep 1; }
";

/// SIGTERM, a while, SIGKILL, a while; fails when the process is still there. Whatever else was started for this root is
/// killed too, because a child or a daemon could hold the port.
fn stop_process(seconds: u64) -> String {
    format!(
        "if alive; then
  kill -TERM \"$pid\" 2>/dev/null || true
  naps=0; while alive && [ $naps -lt {patience} ]; do nap; naps=$((naps + 1)); done
  if alive; then kill -KILL \"$pid\" 2>/dev/null || true; naps=0; while alive && [ $naps -lt 100 ]; do nap; naps=$((naps + 1)); done; fi
  if alive; then echo \"process $pid does not end\" >&2; exit 1; fi
  if [ \"$group\" != - ]; then kill -KILL \"-$group\" 2>/dev/null || true; fi
fi
# A deploy that the app itself has started, in a session of its own, stays with what it was called by.
callers=' '; up=$$
while [ \"${{up:-0}}\" -gt 1 ]; do callers=\"$callers$up \"; up=$(parent \"$up\"); done
for left in $(marked); do case $callers in *\" $left \"*) ;; *) kill -KILL \"$left\" 2>/dev/null || true;; esac; done
rm -f service/process service/exit",
        patience = seconds * 20,
    )
}

/// Starts the spec in the directory of the release, in a new session if `setsid` exists, with a clean environment and
/// no inherited descriptors.
fn start(id: &ReleaseId) -> String {
    let wrapper = "set -u; dir=$1; use=$2; group=$3; root=$4
[ \"$group\" = - ] || group=$$
(cd -P -- \"$dir\" && exec sh \"../../service/$use\") < /dev/null & pid=$!
line=$(cat \"/proc/$pid/stat\" 2>/dev/null || true)
if [ -d /proc/self ]; then set -- ${line##*) }; start=${20:-gone}; else start=-; fi
if command -v sha256sum > /dev/null 2>&1; then digest=$(sha256sum < \"service/$use\"); else digest=$(shasum -a 256 < \"service/$use\"); fi
echo \"$pid $start $group ${digest%% *} ${dir##*/} $root\" > service/process.new
mv -f service/process.new service/process
code=0; wait \"$pid\" || code=$?
echo \"$code\" > service/exit
# What the process leaves behind could hold its port.
[ \"$group\" = - ] || kill -KILL \"-$group\"";
    format!(
        "if [ -f service/log ] && [ \"$(wc -c < service/log)\" -gt 10485760 ]; then mv -f service/log service/log.1; fi
[ -f service/log ] || : > service/log
rm -f service/log.start; echo $(($(wc -c < service/log))) > service/log.start
if command -v setsid > /dev/null 2>&1; then launch=setsid; group=own; else launch=nohup; group=-; fi
has_text service/id || head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \\n' | keep service/id
root=$(here)
env -i PATH=\"$PATH\" HOME=\"${{HOME:-/}}\" USER=\"${{USER:-}}\" LANG=\"${{LANG:-C.UTF-8}}\" GANGPLANK_TARGET=\"$(mark)\" \\
  $launch sh -c {wrapper} pidfile releases/{id} \"$use\" $group \"$root\" >> service/log 2>&1 < /dev/null &
naps=0; while [ ! -f service/process ] && [ $naps -lt 100 ]; do nap; naps=$((naps + 1)); done
[ -f service/process ] || {{ echo 'the pidfile service did not start' >&2; exit 1; }}
",
        wrapper = quote(wrapper),
    )
}

/// Prints a target's state of the managed process: `service running DIGEST RELEASE` or `service stopped`.
pub fn state() -> String {
    format!(
        "{FUNCTIONS}if [ -f service/spec ] || [ -f service/spec.new ] || [ -f service/process ]; then
  if alive; then echo \"service running $digest $release\"; else echo 'service stopped'; fi
fi"
    )
}
