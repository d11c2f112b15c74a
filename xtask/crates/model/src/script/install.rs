//! Scripts that install a release, each file of which the host checks before the release gets its name.

use super::in_made_root;
use crate::project::Compression;
use crate::release::id::ReleaseId;
use crate::release::layout::{META, PATCH, PATCHES};
use crate::script::compare::{COMPARE, ENTRIES, EXIT_VERIFICATION, SUMS_TOOL};
use crate::script::durable::APPEND;
use crate::script::room;
use crate::shell::HAS_ZSTD;

/// During an install, the list of files shared with an installed release, in [`META`].
pub const SAME: &str = "same";

/// The window of patches, as a power of two: the largest that zstd decompresses without an option.
pub const WINDOW_LOG: u32 = 27;

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
/// the unchanged files; they are copied, not linked, so that no release can write to another's files. GNU's `cp` shares
/// their blocks where the file system can (XFS, Btrfs); elsewhere `tar` copies them. `xargs -0` passes the list, because
/// the `tar` of `BusyBox` may lack `-T`. A changed file may come as the output of `zstd --patch-from`: [`PATCHES`] lists
/// their modes and paths, and file N of the list is `PATCH.N`. On failure the caller sends the whole release.
pub fn install_changes(
    root: &str,
    id: &ReleaseId,
    expected: &Expected,
    from: &ReleaseId,
    compression: Compression,
) -> String {
    let unpack = format!(
        "{unpack}
if [ -s \"$aside/{META}/{SAME}\" ]; then
  copy='cp --parents --preserve=mode,timestamps --reflink=auto -- \"$@\" \"$0\" 2> /dev/null || tar -cf - \"$@\" | tar -xof - -C \"$0\"'
  tr '\\n' '\\0' < \"$aside/{META}/{SAME}\" | (cd ./releases/{from} && xargs -0 sh -c \"$copy\" \"../${{aside##*/}}\")
fi
if [ -f \"$aside/{META}/{PATCHES}\" ]; then
  number=0
  while read -r mode path; do
    number=$((number + 1)); patch=\"$aside/{META}/{PATCH}.$number\"; to=\"$aside/$path\"
    mkdir -p \"${{to%/*}}\"
    zstd -q -d --long={WINDOW_LOG} --patch-from=\"releases/{from}/$path\" \"$patch\" -o \"$to\" || {{
      echo \"cannot patch $path\" >&2; exit {EXIT_VERIFICATION}
    }}
    chmod \"$mode\" \"$to\"; touch -r \"$patch\" \"$to\"
  done < \"$aside/{META}/{PATCHES}\"
fi
rm -f \"$aside/{META}/{SAME}\" \"$aside/{META}/{PATCHES}\" \"$aside/{META}/{PATCH}\".*",
        unpack = unpack(Some(compression)),
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
# One sync of the whole file system is faster than one per file. The disk works while the processor compares.
flush -f \"$aside\" & flushing=$!
is {entries} \"$aside/{META}/{ENTRIES}\" && is {sums} \"$aside/{META}/SHA256SUMS\" || {{
  echo 'the archive brought other lists than those of the release' >&2; exit {EXIT_VERIFICATION}
}}
if ! said=$(cd \"$aside\" && check_sums {META}/SHA256SUMS 2>&1); then
  printf '%s\\n' \"$said\" | grep -v ': OK$' | head -n 5 >&2 || true
  exit {EXIT_VERIFICATION}
fi
{COMPARE}
odd=$(cd \"$aside\" && compare \"$(cat {META}/{ENTRIES})\" all) || exit {EXIT_VERIFICATION}
[ -z \"$odd\" ] || {{ printf '%s\\n' \"$odd\" | head -n 5 >&2; exit {EXIT_VERIFICATION}; }}
{APPEND}wait $flushing
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
