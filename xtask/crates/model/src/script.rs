//! The shell scripts run on a host, as pure functions that return POSIX shell text.
//!
//! A script has no secret in its text, which other users of a host may see as an argument of its shell: secrets are read
//! from stdin. The same scripts run under the local `sh` and, over ssh, under a host's. They need sh, tar, gzip and coreutils, and
//! for a `.tar.zst` zstd. Each starts with `set -eu`, so that the first failing command ends it. [`quote`] is the only
//! quoting function.

pub mod attend;
pub mod compare;
pub mod durable;
pub mod examine;
pub mod install;
pub mod lease;
pub mod room;

use crate::release::id::ReleaseId;
use crate::release::layout::META;
pub use crate::script::compare::{verify, verify_files};
use crate::script::durable::{APPEND, DURABLE};
use crate::script::lease::{SECONDS_SINCE_RENEWAL, has, has_in};
use crate::shell::{ABILITIES, UMASK, in_root, quote};

/// Number of history lines that a host reports.
const HISTORY_LINES: u32 = 5000;

/// Like [`in_root`], but creates the root if it is missing.
fn in_made_root(root: &str, body: &str) -> String {
    let root = quote(root);
    format!(
        "set -eu; LC_ALL=C; export LC_ALL
{UMASK}
if [ -e {root} ] && [ ! -d {root} ]; then echo {root} 'is not a directory' >&2; exit 1; fi
if grouped \"$(dirname -- {root})\"; then umask 002; else umask 022; fi
{DURABLE}make_dir {root}; cd -- {root}
{UMASK}
{body}"
    )
}

/// Prints the state of a target, one fact per line; the history comes last because it is free text.
pub fn state(root: &str) -> String {
    format!(
        "set -eu; LC_ALL=C; export LC_ALL; root={root}
{ABILITIES}
if [ ! -e \"$root\" ] && [ ! -L \"$root\" ]; then echo absent; exit 0; fi
if [ ! -d \"$root\" ]; then echo not-a-directory; exit 0; fi
cd -- \"$root\"
printf 'root %s\\n' \"$(pwd -P)\"
if [ -L current ] && [ -d current ]; then printf 'resolved %s\\n' \"$(cd -P current && pwd -P)\"; fi
if [ -L current ]; then printf 'current %s\\n' \"$(readlink current)\"; elif [ -e current ]; then echo current-blocked; fi
# The third line of a manifest.
if [ -f current/{META}/manifest.json ]; then head -n 5 current/{META}/manifest.json | sed -n 's/^ *\"app\": \"\\([A-Za-z0-9_-]*\\)\",$/app \\1/p'; fi
for meta in releases/*/{META}/bundle; do
  [ -f \"$meta\" ] || continue
  sum=; read -r sum < \"$meta\" || true
  dir=${{meta%/{META}/bundle}}
  echo \"release ${{dir##*/}} $sum\"
done
if [ -L {TAKEN_OVER} ]; then printf 'taken-over %s\\n' \"$(readlink {TAKEN_OVER})\"; fi
for debris in releases/.incoming-* releases/.removing-*; do [ ! -e \"$debris\" ] || echo debris; done
{SECONDS_SINCE_RENEWAL}
if [ -d .lock ]; then echo 'lock a directory'; elif [ -L .lock ] && [ ! -e .lock ]; then echo 'lock a link to nothing'; elif [ -f .lock ]; then printf 'lock %s\\n' \"$(cat .lock)\"; echo \"seconds_since_renewal $(seconds_since_renewal)\"; fi
{service}
if [ -f history.jsonl ]; then echo history; tail -n {HISTORY_LINES} history.jsonl; fi
",
        root = quote(root),
        service = crate::service::state(),
    )
}

/// Takes the lock, or prints its owner. Reads the new owner from stdin.
///
/// The owner is written to a new file and hard-linked into place: link(2) creates the whole lock or fails if there is
/// one, so a lock always has an owner.
pub fn lock(root: &str, token: &str) -> String {
    let body = format!(
        "{SECONDS_SINCE_RENEWAL}
new=.lock.{token}; trap 'rm -f \"$new\"' 0; cat > \"$new\"; flush \"$new\"
{EMPTY_LOCK}for try in 1 2 3 4 5 6 7 8 9; do
  if [ -d .lock ]; then echo held; echo 'a directory'; exit 0; fi
  if said=$(ln \"$new\" .lock 2>&1); then echo acquired; exit 0; fi
  # The lock may have been released in between: try again.
  if owner=$(cat .lock 2>/dev/null); then echo \"held $(seconds_since_renewal)\"; printf '%s\\n' \"$owner\"; exit 0; fi
  if [ -L .lock ]; then echo held; echo 'a link to nothing'; exit 0; fi
done
printf '%s\\n' \"$said\" >&2; exit 1
"
    );
    in_made_root(root, &body)
}

/// The mark that a process creates, by link(2), before it replaces an empty lock.
const EMPTY_LOCK_MARK: &str = ".lock.after.empty";
/// Replaces a lock that is empty or full of NULs, which a power cut leaves of an unsynced lock. The process that
/// creates the mark replaces it, by a rename. If that process dies in between, `take_over` takes over from it.
const EMPTY_LOCK: &str = r#"if [ -f .lock ] && ! has_text .lock; then
  if ln "$new" .lock.after.empty 2> /dev/null; then
    if ! has_text .lock; then mv -f "$new" .lock; rm -f .lock.after.empty; echo acquired; exit 0; fi
    rm -f .lock.after.empty
  elif has_text .lock.after.empty && ! has_text .lock; then echo held; cat .lock.after.empty; exit 0
  fi
fi
"#;

/// `script_running TOKEN` is true while a script started under that lock still runs here: its owner may be gone, and an
/// overlapping restart would start two processes. Always false without `/proc`. The mark is not on the command line of
/// this check.
const SAID_BY: &str = r#"script_running() { printf '[lock %s]' "$1" | grep -qsF -f - /proc/[0-9]*/cmdline; }"#;

/// Waits until the last script started under a lock has ended: after a broken connection its progress is unknown, and
/// the next script must not overlap with it.
pub fn finalize(token: &str) -> String {
    format!(
        "{SAID_BY}
naps=0
while script_running {token}; do
  naps=$((naps + 1)); [ $naps -lt 600 ] || {{ echo 'the last command still runs there' >&2; exit 1; }}
  sleep 0.2 2>/dev/null || sleep 1
done
"
    )
}

/// Takes the lock from a dead owner. Reads the new owner from stdin.
///
/// `seen` is the token in the lock, `dead` that of the owner to take over from: the same, or one that died during its
/// own takeover. Only the process that creates the mark of `dead`, by link(2), may replace the lock. It does so by a
/// rename, so that the lock always exists. The takeover is refused while the last script of either owner still runs
/// here, or if the lock was renewed since it was seen, `seconds_since_renewal` seconds old.
pub fn take_over(root: &str, token: &str, seen: &str, dead: &str, seconds_since_renewal: u64) -> String {
    in_root(
        root,
        &format!(
            "{SAID_BY}
{SECONDS_SINCE_RENEWAL}
new=.lock.{token}; mark=.lock.after.{dead}; trap 'rm -f \"$new\"' 0; cat > \"$new\"; flush \"$new\"
if ! ln \"$new\" \"$mark\" 2>/dev/null; then echo held; cat \"$mark\" 2>/dev/null || true; exit 0; fi
late=$(seconds_since_renewal)
if script_running {seen} || script_running {dead} || [ \"${{late:-0}}\" -lt {seconds_since_renewal} ]; then
  rm -f \"$mark\"; echo \"held $late\"; cat .lock 2>/dev/null || true; exit 0
fi
if {has_seen} || {{ ! has_text .lock && {mark_has_seen}; }}; then
  mv -f \"$new\" .lock; rm -f \"$mark\" .lock.after.{seen} {EMPTY_LOCK_MARK}; echo acquired
else
  rm -f \"$mark\"; echo held; cat .lock 2>/dev/null || true
fi
",
            has_seen = has(seen),
            mark_has_seen = has_in(seen, EMPTY_LOCK_MARK),
        ),
    )
}

/// Removes the lock with this token; without a token, any lock.
pub fn unlock(root: &str, token: Option<&str>) -> String {
    let remove = match token {
        // Refills the reserve for the next command, if there is room.
        Some(token) => format!("if {}; then rm -f .lock; flush .; {} fi\n", has(token), room::reserve()),
        None => "rm -rf .lock .lock.after.*\n".to_owned(),
    };
    in_root(root, &remove)
}

/// Appends the record on stdin to the history.
pub fn record(root: &str) -> String {
    in_root(root, &format!("{APPEND}append\n"))
}

/// The old link target of a `current` that a deploy took over from another tool.
const TAKEN_OVER: &str = "current.before-gangplank";

/// Points `current` at a release, after appending the record on stdin, if any. Keeps a link of another tool.
///
/// `ln -sfn` unlinks first on some systems. Creating a link and renaming it over the old one is atomic everywhere;
/// moving it into `.` instead of onto `current` keeps `mv` from following the old link.
pub fn activate(root: &str, id: &ReleaseId) -> String {
    in_root(
        root,
        &format!(
            "{APPEND}if [ -e current ] && [ ! -L current ]; then echo 'current is not a symbolic link' >&2; exit 1; fi
[ -d releases/{id}/{META} ] || {{ echo 'releases/{id} is not installed' >&2; exit 1; }}
rm -rf .switch; mkdir .switch
if [ -L current ]; then
  old=$(cd -P current 2> /dev/null && pwd -P) || old=$(readlink current)
  case $old in
    \"$(pwd -P)\"/releases/????????T??????-*|releases/????????T??????-*) ;;
    *) ln -s \"$(readlink current)\" .switch/{TAKEN_OVER}; rm -f {TAKEN_OVER}; mv -f .switch/{TAKEN_OVER} .; flush . ;;
  esac
fi
ln -s releases/{id} .switch/current
append
mv -f .switch/current .
rmdir .switch
flush .
"
        ),
    )
}

/// Links shared paths into a release, by relative links. A path that ends in `/` is a directory and is created; a file
/// must exist. With `keep_own`, the release's own files stay.
pub fn share(root: &str, id: &ReleaseId, paths: &[&str], keep_own: bool) -> String {
    let own = if keep_own { "return 0" } else { ":" };
    let links: String = paths
        .iter()
        .map(|path| {
            let (name, kind) = (path.trim_end_matches('/'), if path.ends_with('/') { "dir" } else { "file" });
            let up = "../".repeat(2 + name.matches('/').count());
            format!("share {} {} {kind}\n", quote(name), quote(&format!("{up}shared/{name}")))
        })
        .collect();
    in_root(
        root,
        &format!(
            "share() {{
  at=\"releases/{id}/$1\"
  if [ -e \"$at\" ] && [ ! -L \"$at\" ]; then {own}; fi
  if [ \"$3\" = dir ]; then make_dir \"shared/$1\"; fi
  if [ ! -e \"shared/$1\" ]; then echo \"shared/$1 is missing\" >&2; echo 'hint: create it on the host, then deploy again' >&2; exit 1; fi
  if [ -L \"$at\" ] && [ \"$(readlink \"$at\")\" = \"$2\" ]; then return 0; fi
  if [ -e \"$at\" ] || [ -L \"$at\" ]; then echo \"the release contains $1, which is shared\" >&2; echo 'hint: remove it from `include`' >&2; exit 1; fi
  make_dir \"${{at%/*}}\"; ln -s \"$2\" \"$at\"; flush \"${{at%/*}}\"
}}
{links}"
        ),
    )
}

/// Removes `current` after a failed first deploy, or restores the link of another tool. Reads a record, if any, from
/// stdin.
pub fn deactivate(root: &str) -> String {
    in_root(
        root,
        &format!(
            "{APPEND}if [ -e current ] && [ ! -L current ]; then echo 'current is not a symbolic link' >&2; exit 1; fi
append
if [ -L {TAKEN_OVER} ]; then
  rm -rf .switch; mkdir .switch
  mv -f {TAKEN_OVER} .switch/current
  mv -f .switch/current .
  rmdir .switch
else
  rm -f current
fi
flush .
"
        ),
    )
}

/// Removes releases, except the live one, and debris of interrupted runs. A release is first renamed, so that a partly
/// removed one never looks complete. Appends the record on stdin afterwards.
pub fn remove(root: &str, ids: &[ReleaseId]) -> String {
    let ids: Vec<_> = ids.iter().map(ReleaseId::as_str).collect();
    in_root(
        root,
        &format!(
            "{APPEND}record=$(cat)
[ -d releases ] || exit 0
cd ./releases
live=$(cd -P ../current 2> /dev/null && pwd -P) || live=$(readlink ../current || true)
for id in {ids}; do
  if [ \"${{live##*/}}\" = \"$id\" ]; then continue; fi
  if [ -d \"$id\" ]; then rm -rf \".removing-$id\"; mv \"$id\" \".removing-$id\"; fi
done
flush .
rm -rf .incoming-* .removing-*
cd ..
printf '%s\\n' \"$record\" | append
{reserve}",
            ids = ids.join(" "),
            reserve = room::reserve(),
        ),
    )
}

/// Runs a command of the project in `current`, as `sh -c` does.
pub fn in_current(root: &str, command: &str) -> String {
    format!(
        "cd -- {0} && {{ {UMASK}; }} && cd -- {0}/current/ || exit 1\nexec sh -c {1}\n",
        quote(root),
        quote(command)
    )
}

/// Stores the health check on stdin, which may have a secret in its URL. From now on there is a healthy release to
/// revert to.
pub fn keep_check(root: &str) -> String {
    in_root(root, &format!("(private; rm -f .health.new; cat > .health.new)\nreplace .health\nrm -f {TAKEN_OVER}\n"))
}

/// Prints the stored check, or nothing.
pub fn kept_check(root: &str) -> String {
    in_root(root, "if [ -r .health ]; then cat .health; fi\n")
}

/// Prints an engine file of an installed release.
pub fn read_meta(root: &str, id: &ReleaseId, file: &str) -> String {
    in_root(root, &format!("cat releases/{id}/{META}/{file}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn quoting_round_trips_through_sh() {
        for text in
            ["", "plain", "a b", "it's", "$HOME `id` \"x\" \\", "-n", "*", "a\nb", "ü", "'", "''a''", ";|&<>(){}#~!"]
        {
            let answer =
                std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quote(text))]).output().unwrap();
            assert_eq!(String::from_utf8(answer.stdout).unwrap(), text);
        }
    }

    #[test]
    fn activate_script_matches_the_expected_text() {
        let id = "20260822T101500-1a2b3c4".parse().unwrap();
        expect![[r#"
            set -eu; LC_ALL=C; export LC_ALL
            cd -- '/srv/my app'
            umask 022
            grouped() { [ -g "$1" ] && case $(ls -ld "$1" 2> /dev/null) in d????w[sS]*) ;; *) return 1;; esac; }
            private() { if grouped .; then umask 007; else umask 077; fi; }
            if grouped .; then umask 002; fi
            append() {
              line=$(cat)
              [ -n "$line" ] || return 0
              # A link would lead out of the root.
              if [ -L history.jsonl ]; then rm -f history.jsonl.new; cp history.jsonl history.jsonl.new; replace history.jsonl; fi
              if [ -s history.jsonl ] && [ "$(tail -c 1 history.jsonl | wc -l)" -eq 0 ]; then
                # Where the disk is full it stays as it is: what reads it skips NULs.
                rm -f history.jsonl.new
                if tr -d '\000' < history.jsonl 2> /dev/null > history.jsonl.new; then replace history.jsonl; else rm -f history.jsonl.new; fi
                [ ! -s history.jsonl ] || [ "$(tail -c 1 history.jsonl | wc -l)" -eq 1 ] || echo >> history.jsonl
              fi
              printf '%s\n' "$line" >> history.jsonl
              flush history.jsonl
            }
            if [ -e current ] && [ ! -L current ]; then echo 'current is not a symbolic link' >&2; exit 1; fi
            [ -d releases/20260822T101500-1a2b3c4/.gangplank ] || { echo 'releases/20260822T101500-1a2b3c4 is not installed' >&2; exit 1; }
            rm -rf .switch; mkdir .switch
            if [ -L current ]; then
              old=$(cd -P current 2> /dev/null && pwd -P) || old=$(readlink current)
              case $old in
                "$(pwd -P)"/releases/????????T??????-*|releases/????????T??????-*) ;;
                *) ln -s "$(readlink current)" .switch/current.before-gangplank; rm -f current.before-gangplank; mv -f .switch/current.before-gangplank .; flush . ;;
              esac
            fi
            ln -s releases/20260822T101500-1a2b3c4 .switch/current
            append
            mv -f .switch/current .
            rmdir .switch
            flush .
        "#]]
        .assert_eq(&activate("/srv/my app", &id).replace(DURABLE, ""));
    }
}
