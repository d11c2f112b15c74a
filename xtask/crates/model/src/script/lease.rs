//! Scripts for lock leases: the owner renews its lock, and its scripts exit once the lock has another owner.

use crate::shell::quote;

/// Exit code of a script that did nothing because its lock is gone.
pub const EXIT_LOST: i32 = 76;
/// The message for [`EXIT_LOST`], which tells it from a project command with the same exit code.
pub const LOST: &str = "gangplank: lost the lock";

/// `seconds_since_renewal` prints the age of the lock's last renewal in seconds, by the clock of this host, or nothing
/// within the first minute. It also prints nothing without `/proc`, where a running script of the owner cannot be
/// detected. `stat -c` is that of coreutils and `BusyBox`, `stat -f` that of BSD.
pub(crate) const SECONDS_SINCE_RENEWAL: &str = r#"seconds_since_renewal() {
  [ -d /proc/self ] || return 0
  at=$(stat -c %Y .lock 2> /dev/null || stat -f %m .lock 2> /dev/null) || return 0
  case $at in ''|*[!0-9]*) return 0;; esac
  age=$(($(date +%s) - at)); [ $age -lt 60 ] || echo $age
}"#;

/// Renews a lock if it still has this token.
pub fn renew(root: &str, token: &str) -> String {
    format!("cd -- {} && {} && touch -c .lock\n", quote(root), has(token))
}

/// The prologue of every script under a lock: exits if the lock has changed owner, because its process was suspended or
/// cut off for longer than its lease.
///
/// There is no race with `take_over`. That creates its mark first, then looks for scripts of the old owner, then
/// replaces the lock. This script is visible from its start, then looks for the mark, then for the lock. So either
/// `take_over` sees the script and refuses, or the script sees the mark or the new lock and exits.
pub fn fence(root: &str, token: &str) -> String {
    let mark = format!(".lock.after.{token}");
    format!(
        "(cd -- {root} || exit 1
naps=0; while [ -e {mark} ] && [ $naps -lt 50 ]; do naps=$((naps + 1)); sleep 0.1 2> /dev/null || sleep 1; done
[ ! -e {mark} ] && {has} && exit 0
echo '{LOST}' >&2; cat .lock >&2 2> /dev/null; exit 1) < /dev/null || exit {EXIT_LOST}
",
        root = quote(root),
        has = has(token),
    )
}

/// Tests whether the lock has this token.
pub fn has(token: &str) -> String {
    has_in(token, ".lock")
}

/// Tests whether another owner file has this token.
pub(crate) fn has_in(token: &str, file: &str) -> String {
    format!("grep -qF {} {file} 2> /dev/null", quote(&format!("\"token\":\"{token}\"")))
}
