//! Scripts about whether the owner of a lock is still at work: it renews the lock while it is, and says nothing more to a
//! host once the lock there is another's.

use crate::script::quote;

/// Exit code of a script that did nothing because the lock under which it was said is no longer there.
pub const EXIT_LOST: i32 = 76;
/// What it complains then, because a program of the project may end with that code too.
pub const LOST: &str = "gangplank: the lock is not ours any more";

/// `seconds_since_renewal` prints for how many seconds the lock in this directory was not renewed, by the clock of this host alone, and
/// nothing within the first minute. Where there is no `/proc` it says nothing either: there nobody could tell whether a
/// script of the owner still runs. `stat -c` is that of coreutils and `BusyBox`, `stat -f` that of BSD.
pub const SECONDS_SINCE_RENEWAL: &str = r#"seconds_since_renewal() {
  [ -d /proc/self ] || return 0
  at=$(stat -c %Y .lock 2> /dev/null || stat -f %m .lock 2> /dev/null) || return 0
  case $at in ''|*[!0-9]*) return 0;; esac
  age=$(($(date +%s) - at)); [ $age -lt 60 ] || echo $age
}"#;

/// Says that the owner of a lock is at work, if it is still its lock.
pub fn renew(root: &str, token: &str) -> String {
    format!("cd -- {} && {} && touch -c .lock\n", quote(root), has(token))
}

/// Comes before every script that is said under a lock, and ends it where the lock is another's by now: whoever said it
/// was asleep, or cut off, for longer than its lease.
///
/// Together with `take_over` this leaves no gap. That makes its mark first, then looks for scripts of the old owner, then
/// replaces the lock. This script can be seen from its first moment on, then looks for the mark, then for the lock. So
/// either it is seen, and nobody takes over, or it sees.
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

/// Whether the lock in this directory is the one with this token.
pub fn has(token: &str) -> String {
    has_in(token, ".lock")
}

/// The same of another file with an owner in it.
pub fn has_in(token: &str, file: &str) -> String {
    format!("grep -qF {} {file} 2> /dev/null", quote(&format!("\"token\":\"{token}\"")))
}
