//! Shell functions that write files which survive a power cut.
//!
//! A file system may write a name before the bytes of the file, and neither before a sync. So a file is written under
//! another name, synced and renamed, and then its directory is synced: after a power cut it is the old or the new file.
//! `sync FILE` of coreutils and `BusyBox` is fsync(2) of that file or directory. A `sync` without operands (macOS,
//! coreutils before 8.24) syncs all file systems, which is slower and equally safe.

/// `flush PATH...` syncs these files, or the names in these directories. `replace FILE...` renames each `FILE.new` to
/// `FILE`. `keep FILE` writes stdin to a file. `make_dir DIR` creates a directory and its parents. `has_text FILE` is
/// false for a missing file and for the remains of an unsynced one after a power cut: no bytes, or NULs.
pub(crate) const DURABLE: &str = r#"flush() {
  flushed=$(sync "$@" 2>&1) && return
  case $flushed in
    'sync: invalid option'*|'sync: unrecognized option'*|'sync: illegal option'*|[Uu]'sage:'*) sync; return;;
  esac
  # Not every file system can sync a directory (some of FUSE, 9p), and a directory may be closed to this login.
  if printf '%s\n' "$flushed" | grep -qv -e ': Invalid argument$' -e 'ot supported$' -e 'ot implemented$' -e ': Permission denied$'; then
    printf '%s\n' "$flushed" >&2; return 1
  fi
  sync
}
make_dir() {
  [ ! -d "$1" ] || return 0
  above=$1; while [ ! -d "$above" ]; do above=$(dirname -- "$above"); done
  mkdir -p -- "$1"
  made=$1; while [ "$made" != "$above" ]; do made=$(dirname -- "$made"); flush "$made"; done
}
replace() {
  for file; do set -- "$@" "$file.new"; shift; done
  flush "$@"
  for file; do mv -f "$file" "${file%.new}"; case $file in */*) file=${file%/*};; *) file=.;; esac; set -- "$@" "$file"; shift; done
  flush "$@"
}
keep() { rm -f "$1.new"; cat > "$1.new"; replace "$1"; }
has_text() { [ -s "$1" ] && tr -d '\000' < "$1" | grep -q '^'; }
"#;

/// Appends stdin to the history; does nothing if stdin is empty, so that a full disk cannot block a revert. First ends
/// a line torn by a power cut and removes its NULs, so that neither corrupts the next record.
pub(crate) const APPEND: &str = r#"append() {
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
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    /// Runs a script in a directory with a `sync` that logs its operands. Returns that log and the output.
    fn run(dir: &Path, text: &str) -> String {
        let spy = "sync() { echo sync \"$@\" >> said; }\nset -eu\n";
        let script = format!("{spy}{DURABLE}{APPEND}{text}");
        let said = Command::new("sh").args(["-c", &script]).current_dir(dir).output().unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        let synced = fs::read_to_string(dir.join("said")).unwrap_or_default();
        let _ = fs::remove_file(dir.join("said"));
        synced + &String::from_utf8(said.stdout).unwrap()
    }

    #[test]
    fn replace_syncs_files_before_and_directories_after_the_rename() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a b")).unwrap();
        for file in ["x.new", "a b/y.new"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        assert_eq!(run(dir.path(), "replace x 'a b/y'"), "sync x.new a b/y.new\nsync . a b\n");
        assert_eq!(fs::read_to_string(dir.path().join("a b/y")).unwrap(), "a b/y.new");
        assert_eq!(run(dir.path(), "echo 1 | keep x; cat x"), "sync x.new\nsync .\n1\n");
    }

    #[test]
    fn append_ends_a_line_that_is_torn_or_full_of_nuls() {
        let dir = tempfile::tempdir().unwrap();
        let history = dir.path().join("history.jsonl");
        for (before, after) in [
            (&b""[..], &b"new\n"[..]),
            (b"old\n", b"old\nnew\n"),
            (b"tor", b"tor\nnew\n"),
            (b"torn", b"torn\nnew\n"),
            (b"old\n\0\0\0", b"old\nnew\n"),
            (b"old\ntor\0\0", b"old\ntor\nnew\n"),
            (b"\0\0", b"new\n"),
        ] {
            fs::write(&history, before).unwrap();
            assert!(run(dir.path(), "echo new | append").ends_with("sync history.jsonl\n"));
            assert_eq!(fs::read(&history).unwrap(), after);
        }
        assert_eq!(run(dir.path(), "append < /dev/null"), "");
    }

    #[test]
    fn flush_writes_everything_where_a_path_cannot_be_synced_and_fails_where_the_disk_does() {
        let dir = tempfile::tempdir().unwrap();
        for (said, want) in [
            ("sync: error syncing '.': Invalid argument", "all"),
            ("sync: error syncing '.': Operation not supported", "all"),
            ("sync: invalid option -- 'f'", "all"),
            ("sync: error opening '/etc/systemd/system': Permission denied", "all"),
            ("sync: error syncing 'x': Input/output error", "failed"),
            (
                "sync: error syncing 'subscription': Input/output error\nsync: error syncing '.': Invalid argument",
                "failed",
            ),
            ("sync: error syncing 'x': No space left on device", "failed"),
            ("sync: error opening 'x': No such file or directory", "failed"),
        ] {
            let sync = format!("sync() {{ [ $# = 0 ] && echo all && return; echo \"{said}\" >&2; return 1; }}\n");
            let script = format!("{sync}{DURABLE}flush -f . 2> /dev/null || echo failed");
            let found = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
            assert_eq!(String::from_utf8(found.stdout).unwrap().trim(), want, "{said}");
        }
    }

    #[test]
    fn has_text_tells_what_a_cut_left_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, want) in [(&b""[..], "no"), (b"\0\0\n\0", "yes"), (b"\n", "yes"), (b"\0x", "yes"), (b"x\n", "yes")]
        {
            fs::write(dir.path().join("a b"), bytes).unwrap();
            let said = run(dir.path(), "if has_text 'a b'; then echo yes; else echo no; fi");
            assert_eq!(said.trim(), want, "{bytes:?}");
        }
        assert_eq!(run(dir.path(), "has_text none || echo no"), "no\n");
    }
}
