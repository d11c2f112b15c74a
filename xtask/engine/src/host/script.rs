//! What is said to a host: POSIX shell commands, built as pure values and tested as text.
//!
//! The same scripts run under the local `sh` and, over ssh, under a host's. They need sh, tar, gzip and coreutils, and for a `.tar.zst` zstd.
//! Each starts with `set -eu`, so the first command that fails ends it. There is exactly one [`quote`].

pub mod attend;
mod compare;
pub mod durable;
pub mod examine;
pub mod lease;
pub mod room;

use crate::host::script::compare::{COMPARE, SUMS_TOOL};
pub use crate::host::script::compare::{verify, verify_files};
use crate::host::script::durable::{APPEND, DURABLE, FLUSH_TREE};
use crate::host::script::lease::{SECONDS_SINCE_RENEWAL, has, has_in};
use crate::project::Compression;
use crate::release::id::ReleaseId;
use crate::release::layout::META;
use crate::release::layout::{NEW, PATCHES};

/// The list of all entries of a release, in [`META`]: see `Manifest::entries`.
pub const ENTRIES: &str = "entries";
/// The list of the files that are the same in a release that is installed, in [`META`] while one is being installed.
pub const SAME: &str = "same";
/// Exit code of a script that found bytes that do not match.
pub const EXIT_VERIFICATION: i32 = 77;
/// How many lines of history a host reports.
const HISTORY_LINES: u32 = 5000;

/// A word that `sh` reads back as `text`, whatever is in it.
pub fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `grouped DIR` is true for a directory with the set-group-id bit that its group may write: it is for several logins, each
/// of which can already replace what is live and how it is started. `private` keeps a file to those.
pub const UMASK: &str = "umask 022
grouped() { [ -g \"$1\" ] && case $(ls -ld \"$1\" 2> /dev/null) in d????w[sS]*) ;; *) return 1;; esac; }
private() { if grouped .; then umask 007; else umask 077; fi; }
if grouped .; then umask 002; fi";

fn in_root(root: &str, body: &str) -> String {
    format!("set -eu; LC_ALL=C; export LC_ALL\ncd -- {}\n{UMASK}\n{DURABLE}{body}", quote(root))
}

/// The same in a root that may have to be made first.
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

/// Prints the state of a target, a line each, the history last because it is free text.
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

/// Takes the lock or says who has it. Reads the owner from stdin.
///
/// The owner is written aside and hard-linked into place: link(2) either makes the whole lock or fails because there is
/// one, so there is no moment at which a lock has no owner.
pub fn lock(root: &str, token: &str) -> String {
    let body = format!(
        "{SECONDS_SINCE_RENEWAL}
new=.lock.{token}; trap 'rm -f \"$new\"' 0; cat > \"$new\"; flush \"$new\"
{EMPTY_LOCK}for try in 1 2 3 4 5 6 7 8 9; do
  if [ -d .lock ]; then echo held; echo 'a directory'; exit 0; fi
  if said=$(ln \"$new\" .lock 2>&1); then echo acquired; exit 0; fi
  # Between the two somebody may have given it up: then it is worth another try.
  if owner=$(cat .lock 2>/dev/null); then echo \"held $(seconds_since_renewal)\"; printf '%s\\n' \"$owner\"; exit 0; fi
  if [ -L .lock ]; then echo held; echo 'a link to nothing'; exit 0; fi
done
printf '%s\\n' \"$said\" >&2; exit 1
"
    );
    in_made_root(root, &body)
}

/// What a process makes, by link(2), before it replaces an empty lock.
const EMPTY_LOCK_MARK: &str = ".lock.after.empty";
/// An empty lock, or one full of NULs, is what a power cut left of a lock that was not synced: it names no owner. The process
/// that makes the mark replaces it, by a rename. One that died in between is the owner that `take_over` succeeds.
const EMPTY_LOCK: &str = r#"if [ -f .lock ] && ! has_text .lock; then
  if ln "$new" .lock.after.empty 2> /dev/null; then
    if ! has_text .lock; then mv -f "$new" .lock; rm -f .lock.after.empty; echo acquired; exit 0; fi
    rm -f .lock.after.empty
  elif has_text .lock.after.empty && ! has_text .lock; then echo held; cat .lock.after.empty; exit 0
  fi
fi
"#;

/// `script_running TOKEN` is true while a script still runs here that was said under that lock: whoever said it may be gone, and
/// a restart that overlaps with another would start two. Without `/proc` nobody can tell. The mark is on no command line
/// of this script's own.
const SAID_BY: &str = r#"script_running() { printf '[lock %s]' "$1" | grep -qsF -f - /proc/[0-9]*/cmdline; }"#;

/// Waits until the last script that was said under a lock has ended: after a connection broke, nobody knows how far it
/// came, and what is said next must not meet it.
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

/// Takes the lock from an owner that is known to be dead. Reads the new owner from stdin.
///
/// `seen` is the token in the lock, `dead` that of the owner to succeed: the same, or of one who died while it took
/// over itself. Whoever makes the mark of `dead`, again by link(2), is the only one who may replace the lock, and does
/// so by a rename, so that there is no moment without a lock for a third one to slip in. While the last script of one of
/// them still runs here, nobody succeeds. Nor when the lock was renewed since it was seen, `seconds_since_renewal` seconds old.
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

/// Removes the lock if it is the one with this token; without a token, whatever is there.
pub fn unlock(root: &str, token: Option<&str>) -> String {
    let remove = match token {
        // What a command has used up is there for the next one, where there is room.
        Some(token) => format!("if {}; then rm -f .lock; flush .; {} fi\n", has(token), room::reserve()),
        None => "rm -rf .lock .lock.after.*\n".to_owned(),
    };
    in_root(root, &remove)
}

/// What an unpacked release is compared with, by the digests of two files of the engine's own: its list of entries and
/// its list of digests. They are part of the script, so that no archive can bring others.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Digest of the bundle, which tells whether a release of this id is the same one.
    pub bundle: String,
    /// Its size in bytes, which is all that a host fetches.
    pub bytes: u64,
    /// Digest of [`ENTRIES`].
    pub entries: String,
    /// Digest of `SHA256SUMS`.
    pub sums: String,
}

/// Unpacks a release from stdin aside, compares it with what is expected, and moves it into `releases/`. What an earlier
/// run left half done goes first, and a failure leaves nothing: on a full disk both would stand in the way. The stream is an
/// archive of the engine's own, with the manifest, the lists and the record in [`META`].
pub fn install(root: &str, id: &ReleaseId, expected: &Expected, compression: Option<Compression>) -> String {
    let unpack = format!("{}{}", ready(compression), unpack(compression));
    in_made_root(root, &installation(id, expected, &unpack))
}

/// What a host prints that cannot read its bundle.
pub const NO_ZSTD: &str = "there is no zstd here, or a tar that does not know --zstd, and the bundle is a .tar.zst";
/// Whether it can.
const HAS_ZSTD: &str = "command -v zstd > /dev/null 2>&1 && tar --zstd --version > /dev/null 2>&1";

/// Unpacks an archive from stdin. It is `tar` that runs zstd, because it fails when zstd does, and a pipe would not.
fn unpack(compression: Option<Compression>) -> &'static str {
    match compression {
        None => "tar -xof - -C \"$aside\"",
        Some(Compression::Gzip) => "tar -xzof - -C \"$aside\"",
        Some(Compression::Zstd) => "tar --zstd -xof - -C \"$aside\"",
    }
}

/// Fails where there is no program for an archive, before anything is fetched or unpacked.
fn ready(compression: Option<Compression>) -> String {
    match compression {
        None | Some(Compression::Gzip) => String::new(),
        Some(Compression::Zstd) => format!("{{ {HAS_ZSTD}; }} || {{ echo '{NO_ZSTD}' >&2; exit 1; }}\n"),
    }
}

/// The same with an archive of only what differs from a release that is installed there. [`META`] in the stream has the
/// list of what is the same; it is copied, never linked, so that nothing that one release writes is another's. The list
/// becomes arguments of `tar` by `xargs -0`, because the `tar` of `BusyBox` may be built without `-T`. It may have
/// files to put together as well, of ranges of those that they replace and of what is new: all bytes from an offset on are
/// `tail`'s, and how many of them `head`'s. Where that cannot be, the caller sends all of it.
pub fn install_changes(root: &str, id: &ReleaseId, expected: &Expected, from: &ReleaseId) -> String {
    let unpack = format!(
        "tar -xzof - -C \"$aside\"
if [ -s \"$aside/{META}/{SAME}\" ]; then
  copy='tar -cf - \"$@\" | tar -xof - -C \"$0\"'
  tr '\\n' '\\0' < \"$aside/{META}/{SAME}\" | (cd ./releases/{from} && xargs -0 sh -c \"$copy\" \"../${{aside##*/}}\")
fi
part() {{
  tail -c +$(($2 + 1)) \"$1\" 2> /dev/null | head -c \"$3\" >> \"$to\" && return
  echo \"cannot put $to together\" >&2; exit {EXIT_VERIFICATION}
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

/// The same, and the host fetches the bundle itself: the first line on stdin is a URL, the stream after it is an archive,
/// not compressed, that holds only [`META`]. The URL is a secret, so it is in no argument of a program.
///
/// A bundle that was cut off is gone on with. It lies aside until its digest is that of the bundle that was checked where
/// the deploy runs, so the disk has to hold it packed and unpacked.
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
{FLUSH_TREE}{APPEND}flush_tree \"$aside\"
append < \"$aside/{META}/record\"
mv \"$aside\" \"$final\"; flush releases
{reserve}",
        reserve = room::reserve(),
    )
}

/// Fetches `$url` into `$aside.bundle`, in up to five attempts that each go on where the last one was. What the server
/// refuses or sends elsewhere is not asked for again, but when it says that it is busy.
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

/// What `current` pointed at before a deploy took the root over from another tool.
const TAKEN_OVER: &str = "current.before-gangplank";

/// Points `current` at a release, after the record on stdin, if any, says that this is about to happen. A link that is none
/// of ours is kept aside.
///
/// `ln -sfn` unlinks first on some systems. A link made aside and renamed over the old one is atomic on all, and moving
/// it into `.` instead of onto `current` keeps `mv` from following the old link.
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

/// Links what all releases share into one, by links that are right wherever the root lies. A path that ends in `/` is a
/// directory, and is made; a file has to be there. With `keep_own` what the release brings itself stays.
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
  if [ ! -e \"shared/$1\" ]; then echo \"shared/$1 is not there\" >&2; echo 'hint: put it on the host, then deploy again' >&2; exit 1; fi
  if [ -L \"$at\" ] && [ \"$(readlink \"$at\")\" = \"$2\" ]; then return 0; fi
  if [ -e \"$at\" ] || [ -L \"$at\" ]; then echo \"the release holds $1 itself, which is shared\" >&2; echo 'hint: leave it out of what is included' >&2; exit 1; fi
  make_dir \"${{at%/*}}\"; ln -s \"$2\" \"$at\"; flush \"${{at%/*}}\"
}}
{links}"
        ),
    )
}

/// Removes `current`, when a first deploy failed and there is nothing to go back to, or makes it again what it was before
/// the deploy took the root over. Reads a record, if any, from stdin.
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

/// Removes releases, never the one that is live, and what interrupted runs left. A release is first renamed, so that
/// a half removed one is never taken for a whole one. Reads the record from stdin, and writes it once they are gone.
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

/// Runs a command of the project in `current`, exactly as `sh -c` does.
pub fn in_current(root: &str, command: &str) -> String {
    format!(
        "cd -- {0} && {{ {UMASK}; }} && cd -- {0}/current/ || exit 1\nexec sh -c {1}\n",
        quote(root),
        quote(command)
    )
}

/// Keeps the health check on stdin, which may hold a secret in its URL. From now on there is a healthy release to go back to.
pub fn keep_check(root: &str) -> String {
    in_root(root, &format!("(private; rm -f .health.new; cat > .health.new)\nreplace .health\nrm -f {TAKEN_OVER}\n"))
}

/// Prints the check that was kept, or nothing.
pub fn kept_check(root: &str) -> String {
    in_root(root, "if [ -r .health ]; then cat .health; fi\n")
}

/// Prints a file of the engine's in an installed release.
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
    fn the_switch_as_text() {
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
