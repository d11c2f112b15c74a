//! A read-only survey of a host: login, missing programs, free space.

use crate::project::{Compression, Manager, Service, Transfer};
use crate::service::READABLE;
use crate::shell::{HAS_ZSTD, quote};
use std::fmt::Write;

/// The programs that scripts need and that some systems lack.
const TOOLS: &[&str] =
    &["tar", "gzip", "find", "grep", "sed", "sort", "uniq", "head", "tail", "readlink", "sync", "touch"];

/// Tests whether the journal keeps the lines of a user's unit per user.
const OWN_JOURNAL: &str = "{ [ -d /var/log/journal ] && [ \"$(id -u)\" -ge 1000 ]; }";

/// The parts of an env that determine what its hosts need.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// The service.
    pub service: &'a Service,
    /// How releases are transferred.
    pub transfer: Transfer,
    /// The compression of bundles.
    pub compression: Compression,
    /// The shared paths.
    pub shared: &'a [&'a str],
}

/// Prints one fact per line; slow ones come first, and `done` is the last line. Always exits with 0.
pub fn examine(root: &str, needs: Needs) -> String {
    let mut tools = TOOLS.to_vec();
    let mut more = String::new();
    match needs.service {
        Service::Systemd { manager, .. } => {
            tools.push("systemctl");
            if *manager == Manager::Sudo {
                tools.push("sudo");
            }
            // A user's journal exists only where journals are on disk, and not for system logins.
            let own = if *manager == Manager::User { OWN_JOURNAL } else { "false" };
            let _ = writeln!(more, "(set +f\n{READABLE}readable system || {own} || echo 'journal closed')");
        }
        Service::None | Service::Pidfile { .. } | Service::Command { .. } => {}
    }
    // A host without zstd receives gzip.
    if needs.compression == Compression::Zstd && needs.transfer == Transfer::Pull {
        let _ = writeln!(more, "{HAS_ZSTD} || echo 'lacks zstd'");
    }
    if needs.transfer == Transfer::Push {
        more.push_str("case $(zstd -H 2>/dev/null) in *--patch-from*) ;; *) echo unpatched ;; esac\n");
    }
    if needs.transfer == Transfer::Pull {
        more.push_str("has curl || wget --version 2>/dev/null | grep -q GNU || echo 'lacks curl'\n");
    }
    // A directory is created; a file must exist.
    for path in needs.shared.iter().filter(|path| !path.ends_with('/')) {
        let _ = writeln!(more, "[ -e \"$root\"/shared/{0} ] || printf 'unshared %s\\n' {0}", quote(path));
    }
    format!(
        "LC_ALL=C; export LC_ALL; set -f; root={root}
has() {{ command -v \"$1\" > /dev/null 2>&1; }}
echo \"clock $(date +%s)\"
login=$(id -un 2>/dev/null || id -u); echo \"login $login\"
for tool in {tools}; do has $tool || echo \"lacks $tool\"; done
has sha256sum || has shasum || echo 'lacks sha256sum'
printf 'x\\0' | xargs -0 true > /dev/null 2>&1 || echo whole
{more}at=$root
while [ ! -e \"$at\" ] && [ ! -L \"$at\" ] && [ \"$at\" != / ]; do at=${{at%/*}}; [ -n \"$at\" ] || at=/; done
echo \"found $at\"
if [ ! -d \"$at\" ]; then echo \"blocked $at\"
elif [ ! -w \"$at\" ] || [ ! -x \"$at\" ]; then echo \"unwritable $at\"
elif [ \"$at\" = \"$root\" ]; then
  for name in releases history.jsonl service shared; do
    [ ! -e \"$root/$name\" ] || [ -w \"$root/$name\" ] || echo \"unwritable $root/$name\"
  done
fi
set -- $(df -Pk \"$at\" 2>/dev/null | tail -n 1); echo \"free $4\"
set -- $(df -Pi \"$at\" 2>/dev/null | tail -n 1); [ \"${{2:-0}}\" = 0 ] || echo \"inodes $4\"
set -- $(du -sk \"$root/current/\" 2>/dev/null | tail -n 1); echo \"live $1\"
echo done
",
        root = quote(root),
        tools = tools.join(" "),
    )
}

/// What is sent to a host for a change of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Payload {
    /// A patch.
    #[default]
    Patch,
    /// The whole file: the host has no zstd, or one before 1.4.5.
    File,
    /// The whole release: its `xargs` lacks `-0`.
    Release,
}

/// The parsed output of [`examine`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// The clock, in seconds since 1970.
    pub clock: Option<i64>,
    /// The login.
    pub login: String,
    /// Missing programs.
    pub lacks: Vec<String>,
    /// What a change takes.
    pub change: Payload,
    /// Whether the login may not read the unit's lines in the journal.
    pub journal_closed: bool,
    /// Missing shared files.
    pub unshared: Vec<String>,
    /// The directory, or its deepest existing parent.
    pub found: String,
    /// The existing part that is not a directory.
    pub blocked: Option<String>,
    /// Directories without write permission.
    pub unwritable: Vec<String>,
    /// Free space in KiB.
    pub free: Option<u64>,
    /// Free inodes.
    pub inodes: Option<u64>,
    /// Size of the live release in KiB.
    pub live: Option<u64>,
    /// Whether the output is complete.
    pub done: bool,
}

impl Examined {
    /// Parses the output of [`examine`]; skips unknown lines.
    pub fn parse(text: &str) -> Self {
        let mut it = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let owned = || value.to_owned();
            match word {
                "clock" => it.clock = value.parse().ok(),
                "login" => it.login = owned(),
                "lacks" => it.lacks.push(owned()),
                "whole" => it.change = Payload::Release,
                "unpatched" if it.change == Payload::Patch => it.change = Payload::File,
                "journal" => it.journal_closed = true,
                "unshared" => it.unshared.push(owned()),
                "found" => it.found = owned(),
                "blocked" => it.blocked = Some(owned()),
                "unwritable" => it.unwritable.push(owned()),
                "free" => it.free = value.parse().ok(),
                "inodes" => it.inodes = value.parse().ok(),
                "live" => it.live = value.parse().ok(),
                "done" => it.done = true,
                _ => {}
            }
        }
        it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(root: &str, needs: Needs) -> Examined {
        let said = std::process::Command::new("sh").args(["-c", &examine(root, needs)]).output().unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        Examined::parse(&String::from_utf8(said.stdout).unwrap())
    }

    #[test]
    fn examine_of_missing_or_blocked_directory_reports_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_str().unwrap();
        let needs = Needs {
            service: &Service::None,
            transfer: Transfer::Push,
            compression: Compression::Gzip,
            shared: &["up/", "it's.toml"],
        };
        let it = asked(&format!("{here}/a b/c"), needs);
        assert!(it.done && it.clock.is_some() && it.free.is_some() && !it.login.is_empty(), "{it:?}");
        assert_eq!((it.found.as_str(), it.unshared), (here, vec!["it's.toml".to_owned()]));
        assert_eq!((it.blocked, it.unwritable, it.lacks, it.live), (None, vec![], vec![], None));
        std::fs::write(dir.path().join("a b"), "").unwrap();
        assert_eq!(asked(&format!("{here}/a b/c"), needs).blocked, Some(format!("{here}/a b")));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "it leaves nothing");
    }
}
