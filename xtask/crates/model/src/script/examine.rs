//! What a host says of itself before anything is sent to it: who we are there, what it lacks, where there is room. It
//! only looks.

use crate::project::{Compression, Manager, Service, Transfer};
use crate::script::{HAS_ZSTD, quote};
use crate::service::READABLE;
use std::fmt::Write;

/// What every script of ours uses, and that is not in every system.
const TOOLS: &[&str] =
    &["tar", "gzip", "find", "grep", "sed", "sort", "uniq", "head", "tail", "readlink", "sync", "touch"];

/// Whether the lines of a user's unit are in a journal of that user's own.
const OWN_JOURNAL: &str = "{ [ -d /var/log/journal ] && [ \"$(id -u)\" -ge 1000 ]; }";

/// What of an env matters to what its hosts need.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// How it is started.
    pub service: &'a Service,
    /// How releases get there.
    pub transfer: Transfer,
    /// How bundles are compressed.
    pub compression: Compression,
    /// What releases share.
    pub shared: &'a [&'a str],
}

/// Prints a fact a line; the last is `done`, and what may take long comes before it. It ends with 0, whatever it finds.
pub fn examine(root: &str, needs: Needs) -> String {
    let mut tools = TOOLS.to_vec();
    let mut more = String::new();
    match needs.service {
        Service::Systemd { manager, .. } => {
            tools.push("systemctl");
            if *manager == Manager::Sudo {
                tools.push("sudo");
            }
            // What a user's unit writes is in a journal of that user's own only where journals are on disk, and not for
            // logins of the system.
            let own = if *manager == Manager::User { OWN_JOURNAL } else { "false" };
            let _ = writeln!(more, "(set +f\n{READABLE}readable system || {own} || echo 'journal closed')");
        }
        Service::None | Service::Pidfile { .. } | Service::Command { .. } => {}
    }
    // What is sent from here is sent as gzip to a host without zstd.
    if needs.compression == Compression::Zstd && needs.transfer == Transfer::Pull {
        let _ = writeln!(more, "{HAS_ZSTD} || echo 'lacks zstd'");
    }
    if needs.transfer == Transfer::Pull {
        more.push_str("has curl || wget --version 2>/dev/null | grep -q GNU || echo 'lacks curl'\n");
    }
    // A directory is made; a file has to be there.
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

/// What it printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// Its clock, in seconds since 1970.
    pub clock: Option<i64>,
    /// Who we are there.
    pub login: String,
    /// Programs that are not there.
    pub lacks: Vec<String>,
    /// Whether only whole releases can be sent there, because its `xargs` has no `-0`.
    pub whole: bool,
    /// Whether the login may not read what a unit writes to the journal.
    pub journal_closed: bool,
    /// Shared files that are not there.
    pub unshared: Vec<String>,
    /// The directory, or what of the way to it is there.
    pub found: String,
    /// What of that is no directory.
    pub blocked: Option<String>,
    /// Where we may not write.
    pub unwritable: Vec<String>,
    /// Free room in KiB.
    pub free: Option<u64>,
    /// Files that can still be made.
    pub inodes: Option<u64>,
    /// Size in KiB of what is live.
    pub live: Option<u64>,
    /// Whether it came to its end.
    pub done: bool,
}

impl Examined {
    /// Reads what [`examine`] prints. Lines that mean nothing are passed over.
    pub fn parse(text: &str) -> Self {
        let mut it = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let owned = || value.to_owned();
            match word {
                "clock" => it.clock = value.parse().ok(),
                "login" => it.login = owned(),
                "lacks" => it.lacks.push(owned()),
                "whole" => it.whole = true,
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
    fn a_directory_that_is_not_there_yet_and_one_in_whose_way_a_file_is() {
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
