//! Reserves space for the small files of a rollback or prune on a full disk.
//!
//! Each install leaves a few small reserve files. A script that fails on a full disk is retried after one of them is
//! removed: one at a time, because an app that writes a log would consume all of them at once.

use crate::release::id::ReleaseId;
use crate::shell::{in_root, quote};

/// Number of reserve files, which limits the retries.
pub const FILES: u32 = 8;
/// Size of each in bytes: enough for a lock, a record and their directories. Random bytes, which no file system
/// compresses.
const BYTES: u32 = 16 << 10;

/// Fills the reserve in the working directory, as far as there is room.
pub fn reserve() -> String {
    format!(
        "([ -d releases ] || exit 0
mkdir -p .reserve || exit 0
n=0; while [ $n -lt {FILES} ]; do
  [ -s .reserve/$n ] || head -c {BYTES} /dev/urandom > .reserve/$n || {{ rm -f .reserve/$n; exit 0; }}
  n=$((n + 1))
done) 2> /dev/null
"
    )
}

/// Removes one reserve file and prints `made`. Without one, it prints `inodes` if the disk has no inodes left. `df -i`
/// of macOS has other columns.
pub fn make_room(root: &str) -> String {
    let body = "for room in .reserve/*; do
  if [ -f \"$room\" ]; then rm -f \"$room\"; echo made; exit 0; fi
done
set -- $(df -Pi . 2> /dev/null)
[ \"${2:-}\" = Inodes ] || exit 0
set -- $(df -Pi . 2> /dev/null | tail -n 1)
[ \"${2:-0}\" = 0 ] || [ \"${4:-1}\" != 0 ] || echo inodes
";
    in_root(root, body)
}

/// The parsed output of [`make_room`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Whether a reserve file was removed.
    pub made: bool,
    /// Whether the disk has no inodes left.
    pub inodes: bool,
}

impl Room {
    /// Parses the output of [`make_room`].
    pub fn parse(text: &str) -> Self {
        let has = |word| text.lines().any(|line| line == word);
        Self { made: has("made"), inodes: has("inodes") }
    }

    /// A hint for a full disk. `spare` is a release that no rollback needs.
    pub fn hint(&self, root: &str, spare: Option<&ReleaseId>) -> String {
        let shows = if self.inodes {
            "the disk has no inodes left (`df -i` shows it): remove directories of many small files"
        } else {
            "make room: `df -h` shows the disk"
        };
        match spare {
            Some(id) => {
                let path = quote(&format!("{root}/releases/{id}"));
                format!("{shows}; on the host, `rm -r -- {path}` removes a release that no rollback needs")
            }
            None => format!("{shows}; every release is needed, so remove logs or other files, then run this again"),
        }
    }
}

/// Whether a script failed on a full disk, from its output. dash prints only `I/O error`.
pub fn is_full(said: &str) -> bool {
    ["No space left", "Disk quota exceeded", "Wrote only", "I/O error"].iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn run(root: &str, text: &str) -> String {
        let said = Command::new("sh").args(["-c", text]).current_dir(root).output().unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    }

    #[test]
    fn reserve_is_used_up_one_file_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        run(root, &reserve());
        assert!(!dir.path().join(".reserve").exists(), "before the first install there is nothing to keep room for");
        fs::create_dir(dir.path().join("releases")).unwrap();
        run(root, &format!("set -eu\n{}", reserve()));
        let count = || fs::read_dir(dir.path().join(".reserve")).unwrap().count();
        for left in (0..FILES as usize).rev() {
            assert!(Room::parse(&run(root, &make_room(root))).made);
            assert_eq!(count(), left);
        }
        assert_eq!(Room::parse(&run(root, &make_room(root))), Room::default());
        run(root, &reserve());
        assert_eq!(count(), FILES as usize);
    }

    #[test]
    fn hint_quotes_the_path_of_a_release() {
        let (room, id) = (Room::default(), "20260801T000000-0000001".parse().unwrap());
        let hint = room.hint("/srv/my app", Some(&id));
        assert!(hint.contains("`rm -r -- '/srv/my app/releases/20260801T000000-0000001'`"), "{hint}");
        assert!(!room.hint("/srv/app", None).contains("rm -r"));
    }
}
