//! The shell scripts run on a host, as pure functions that return POSIX shell text.
//!
//! The same scripts run under the local `sh` and, over ssh, under a host's. They need sh, tar, gzip and coreutils, and
//! for a `.tar.zst` zstd. Each starts with `set -eu`, so that the first failing command ends it. [`quote`] is the only
//! quoting function.

pub mod attend;
pub mod compare;
pub mod durable;
pub mod examine;
pub mod lease;
pub mod room;

use crate::project::Compression;
use crate::release::id::ReleaseId;
use crate::release::layout::META;
use crate::release::layout::{NEW, PATCHES};
use crate::script::compare::{COMPARE, SUMS_TOOL};
use crate::script::compare::{ENTRIES, EXIT_VERIFICATION};
pub use crate::script::compare::{verify, verify_files};
use crate::script::durable::{APPEND, DURABLE};
use crate::script::lease::{SECONDS_SINCE_RENEWAL, has, has_in};
use crate::shell::{HAS_ZSTD, UMASK, in_root, quote};

/// During an install, the list of files shared with an installed release, in [`META`].
pub const SAME: &str = "same";
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

/// The digests to compare an unpacked release with. They are part of the script, so that no archive can replace them.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Digest of the bundle, which identifies the release.
    pub bundle: String,
    /// Size of the bundle in bytes, the most that a host downloads.
    pub bytes: u64,
    /// Digest of [`ENTRIES`].
    pub entries: String,
    /// Digest of `SHA256SUMS`.
    pub sums: String,
}

/// Unpacks a release from stdin to a temporary directory, compares it with what is expected, and moves it into
/// `releases/`. It first removes debris of an earlier run, and leaves none on failure, because debris fills the disk.
/// The stream is an archive of the engine's own, with the manifest, the lists and the record in [`META`].
pub fn install(root: &str, id: &ReleaseId, expected: &Expected, compression: Option<Compression>) -> String {
    let unpack = format!("{}{}", ready(compression), unpack(compression));
    in_made_root(root, &installation(id, expected, &unpack))
}

/// The error of a host that cannot unpack a `.tar.zst`.
pub const NO_ZSTD: &str = "no zstd here, or a tar without --zstd, and the bundle is a .tar.zst";

/// Unpacks an archive from stdin. `tar` runs zstd, because it then fails when zstd fails; a pipe would not.
fn unpack(compression: Option<Compression>) -> &'static str {
    match compression {
        None => "tar -xof - -C \"$aside\"",
        Some(Compression::Gzip) => "tar -xzof - -C \"$aside\"",
        Some(Compression::Zstd) => "tar --zstd -xof - -C \"$aside\"",
    }
}

/// Fails if the host lacks the program for an archive, before anything is downloaded or unpacked.
fn ready(compression: Option<Compression>) -> String {
    match compression {
        None | Some(Compression::Gzip) => String::new(),
        Some(Compression::Zstd) => format!("{{ {HAS_ZSTD}; }} || {{ echo '{NO_ZSTD}' >&2; exit 1; }}\n"),
    }
}

/// Like [`install`], from an archive with only the differences to an installed release. [`META`] in the stream lists
/// the unchanged files; they are copied, not linked, so that no release can write to another's files. `xargs -0` passes
/// the list to `tar`, because the `tar` of `BusyBox` may lack `-T`. The archive may have files to assemble, from ranges
/// of the files they replace and of new bytes: `tail` cuts from an offset, `head` a length. On failure the caller sends
/// the whole release.
pub fn install_changes(root: &str, id: &ReleaseId, expected: &Expected, from: &ReleaseId) -> String {
    let unpack = format!(
        "tar -xzof - -C \"$aside\"
if [ -s \"$aside/{META}/{SAME}\" ]; then
  copy='tar -cf - \"$@\" | tar -xof - -C \"$0\"'
  tr '\\n' '\\0' < \"$aside/{META}/{SAME}\" | (cd ./releases/{from} && xargs -0 sh -c \"$copy\" \"../${{aside##*/}}\")
fi
part() {{
  tail -c +$(($2 + 1)) \"$1\" 2> /dev/null | head -c \"$3\" >> \"$to\" && return
  echo \"cannot assemble $to\" >&2; exit {EXIT_VERIFICATION}
}}
if [ -f \"$aside/{META}/{PATCHES}\" ]; then
  while read -r what a b; do
    case $what in
      file) from=\"releases/{from}/$b\"; to=\"$aside/$b\"; mkdir -p \"${{to%/*}}\"; : > \"$to\"; chmod \"$a\" \"$to\" ;;
      old) part \"$from\" \"$a\" \"$b\" ;;
      new) part \"$aside/{META}/{NEW}\" \"$a\" \"$b\" ;;
      end) touch -r \"$aside/{META}/{NEW}\" \"$to\" ;;
    esac
  done < \"$aside/{META}/{PATCHES}\"
fi
rm -f \"$aside/{META}/{SAME}\" \"$aside/{META}/{PATCHES}\" \"$aside/{META}/{NEW}\""
    );
    in_made_root(root, &installation(id, expected, &unpack))
}

/// Like [`install`], but the host downloads the bundle: the first line on stdin is a URL, the stream after it is an
/// uncompressed archive with only [`META`]. The URL is a secret, so it is not on any command line.
///
/// An interrupted download is resumed. The bundle is kept until its digest matches, so the disk must hold it packed and
/// unpacked.
pub fn install_pulled(root: &str, id: &ReleaseId, expected: &Expected, compression: Compression) -> String {
    let (ready, from_stdin) = (ready(Some(compression)), unpack(None));
    let fetch = format!(
        "{ready}{from_stdin}
bytes={bytes}
{FETCH}
if ! is {sum} \"$aside.bundle\"; then
  echo 'the bundle that was fetched has another digest than its manifest says' >&2; exit {EXIT_VERIFICATION}
fi
{unpack} < \"$aside.bundle\"
rm -f \"$aside.bundle\"",
        sum = expected.bundle,
        bytes = expected.bytes,
        unpack = unpack(Some(compression)),
    );
    in_made_root(root, &format!("read -r url\n{}", installation(id, expected, &fetch)))
}

fn installation(id: &ReleaseId, expected: &Expected, unpack: &str) -> String {
    let Expected { bundle, entries, sums, .. } = expected;
    format!(
        "aside=./releases/.incoming-{id}; final=./releases/{id}
make_dir releases
if [ -d \"$final\" ]; then
  have=; read -r have < \"$final/{META}/bundle\" || true
  if [ \"$have\" = {bundle} ]; then cat > /dev/null; echo already; exit 0; fi
  echo \"$final has other bytes\" >&2; exit {EXIT_VERIFICATION}
fi
rm -rf releases/.incoming-*; mkdir \"$aside\"
trap 'rm -rf \"$aside\" \"$aside\".*' 0
{SUMS_TOOL}
{unpack}
is {entries} \"$aside/{META}/{ENTRIES}\" && is {sums} \"$aside/{META}/SHA256SUMS\" || {{
  echo 'the archive brought other lists than those of the release' >&2; exit {EXIT_VERIFICATION}
}}
if ! said=$(cd \"$aside\" && $check {META}/SHA256SUMS 2>&1); then
  printf '%s\\n' \"$said\" | grep -v ': OK$' | head -n 5 >&2 || true
  exit {EXIT_VERIFICATION}
fi
{COMPARE}
odd=$(cd \"$aside\" && compare \"$(cat {META}/{ENTRIES})\" all) || exit {EXIT_VERIFICATION}
[ -z \"$odd\" ] || {{ printf '%s\\n' \"$odd\" | head -n 5 >&2; exit {EXIT_VERIFICATION}; }}
{APPEND}# One sync of the whole file system is faster than one per file.
flush -f \"$aside\"
append < \"$aside/{META}/record\"
mv \"$aside\" \"$final\"; flush releases
{reserve}",
        reserve = room::reserve(),
    )
}

/// Downloads `$url` into `$aside.bundle`, in up to five attempts that resume. A refusal or redirect of the server is
/// final, unless it says that it is busy.
const FETCH: &str = r#"# In units of 512 bytes, or 1,024 where the shell is bash: no more is written, whatever a server sends.
limited() { (ulimit -f $((bytes / 512 + 2048)) 2> /dev/null || true; exec "$@"); }
if command -v curl > /dev/null 2>&1; then
  get() {
    code=$(printf 'url = "%s"\n' "$url" | limited curl -q -K - -s -S -f -C - -o "$aside.bundle" -w '%{http_code}' --max-filesize "$bytes" \
      --connect-timeout 10 --speed-limit 1024 --speed-time 30 --max-time 3600 2> "$aside.said") && ok=1 || ok=
    said=$(cat "$aside.said")
  }
elif wget --version 2> /dev/null | grep -q GNU; then
  get() {
    printf '%s\n' "$url" | limited wget -nv -c -i - -O "$aside.bundle" --max-redirect=0 --tries=1 --timeout=30 2> "$aside.said" && ok=1 || ok=
    code=$(sed -n 's/.*ERROR \([0-9][0-9]*\).*/\1/p' "$aside.said"); said="wget failed ${code:-without saying why}"
    [ -z "$ok" ] || code=200
  }
else
  echo 'cannot fetch the bundle: there is neither curl nor GNU wget' >&2; exit 1
fi
for pause in 0 1 2 4 8 end; do
  [ "$pause" != end ] || { printf 'cannot fetch the bundle: %s\n' "$said" >&2; exit 1; }
  sleep "$pause"
  get
  case $ok$code in
    1200|1206) break;;
    408|429|*[!0-9]*|"") ;;
    13??|3??) printf 'cannot fetch the bundle: the server answered %s, a redirect\n' "${code#1}" >&2; exit 1;;
    4??) printf 'cannot fetch the bundle: the server refused it with %s\n' "$code" >&2; exit 1;;
  esac
done
rm -f "$aside.said""#;

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
