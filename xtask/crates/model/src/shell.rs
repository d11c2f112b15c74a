//! POSIX shell: quoting, and what every script begins with.

use crate::script::durable::DURABLE;

/// A shell word that `sh` reads back as `text`.
pub fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `grouped DIR` tests for a set-group-id directory that its group may write: it is shared by several logins, each of
/// which can already replace the live release. `private` makes new files readable by
/// this login only, or by the group of such a directory.
pub(crate) const UMASK: &str = "umask 022
grouped() { [ -g \"$1\" ] && case $(ls -ld \"$1\" 2> /dev/null) in d????w[sS]*) ;; *) return 1;; esac; }
private() { if grouped .; then umask 007; else umask 077; fi; }
if grouped .; then umask 002; fi";

/// A script that begins in `root`, with the functions of [`DURABLE`].
pub(crate) fn in_root(root: &str, body: &str) -> String {
    format!("set -eu; LC_ALL=C; export LC_ALL\ncd -- {}\n{UMASK}\n{DURABLE}{body}", quote(root))
}

/// Tests whether the host can unpack a `.tar.zst`.
pub(crate) const HAS_ZSTD: &str = "command -v zstd > /dev/null 2>&1 && tar --zstd --version > /dev/null 2>&1";

/// Prints what the host can do with zstd, and the memory in KiB that it can spare: what is available, or less in a control
/// group with a limit (cgroups(7), version 2). `zstd -H` lists the options, `--patch-from` since version 1.4.5.
pub(crate) const ABILITIES: &str = r#"if command -v zstd > /dev/null 2>&1; then
  ! tar --zstd --version > /dev/null 2>&1 || echo 'can zstd'
  case $(zstd -H 2>&1) in *--patch-from*) echo 'can patch';; esac
fi
if [ -r /proc/meminfo ]; then
  free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup 2> /dev/null || :)
  while group=${group%/}; [ -d "$group" ]; do
    most=; used=
    { read -r most < "$group/memory.max"; read -r used < "$group/memory.current"; } 2> /dev/null || :
    case $most$used in ''|*[!0-9]*) ;; *) most=$(((most - used) / 1024)); [ "$most" -ge "${free:-0}" ] || free=$most ;; esac
    [ "$group" != /sys/fs/cgroup ] || break
    group=${group%/*}
  done
  echo "memory $free"
fi"#;
