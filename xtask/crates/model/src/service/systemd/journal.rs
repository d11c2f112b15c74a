//! Reads a unit's log from the journal. The lines of one start are found by its invocation id, because a clock may go
//! back: `_SYSTEMD_INVOCATION_ID=` is set on lines of its processes, `INVOCATION_ID=` or `USER_INVOCATION_ID=` on lines
//! of the system's or user's manager about it (`systemd.journal-fields(7)`).

use crate::project::Manager;
use crate::service::run::Script;
use crate::service::systemd::Unit;

/// Waits until the journal has the service's recent output. Only root may request that.
const SYNC: &str = "journalctl --sync > /dev/null 2>&1 || true\n";

/// `readable NAME` succeeds if this login may read the journal `system` or `user-UID`, or the host has none.
pub const FUNCTION: &str = r#"readable() {
  there=
  for file in /var/log/journal/*/"$1".journal /run/log/journal/*/"$1".journal; do
    [ ! -r "$file" ] || return 0
    [ ! -e "$file" ] || there=yes
  done
  # A host that keeps no journal has none that is closed.
  [ "$1" = system ] && [ -z "$there" ]
}
"#;

/// Fails with a hint if this login may read no journal with lines of the unit.
const READABLE: &str = r#"if has_text service/invocation && ! readable system && ! readable "user-$(id -u)"; then
  echo "cannot read the log: $(id -un) may not read the journal" >&2
  echo "hint: as root of that host \`usermod -aG systemd-journal $(id -un)\`" >&2; exit 1
fi
"#;

/// Prints an error if there are no lines because the login may not read their journal.
const NOTHING: &str = r#"if has_text service/invocation && ! readable system; then
  echo "cannot read the log: $(id -un) may not read the journal of the system" >&2
  echo "hint: as root of that host \`usermod -aG systemd-journal $(id -un)\`" >&2; exit 1
fi
"#;

/// Sets the arguments to journalctl matches for the last start by a deploy and the automatic restarts after it, which
/// have other ids.
const THIS_START: &str = r#"first=; old=; ! has_text service/invocation || read -r first old < service/invocation || true
now=$(systemctl $scope show -p InvocationID --value "$name.service" 2> /dev/null || true)
ids=" "; seen=
for id in $(journalctl "$of_manager=$name.service" -q -n 2000 --no-pager -o cat --output-fields=INVOCATION_ID,USER_INVOCATION_ID 2> /dev/null || true) $first $now; do
  case $id in *[!0-9a-f]*|"$old") continue;; esac
  [ "$id" != "$first" ] || seen=yes
  [ -n "$seen" ] || continue
  case $ids in *" $id "*) ;; *) ids="$ids$id ";; esac
done
set --
for id in $ids; do
  [ $# = 0 ] || set -- "$@" +
  set -- "$@" "_SYSTEMD_INVOCATION_ID=$id" + "INVOCATION_ID=$id" + "USER_INVOCATION_ID=$id"
done
# Before version 249 what a user's unit writes has no such id: it is found by the time of the restart.
if [ "$manager" = user ] && [ ! -d "$XDG_RUNTIME_DIR/systemd/units" ]; then ids=; fi
[ $# != 0 ] && [ -n "$ids" ] || set -- _SYSTEMD_INVOCATION_ID=none
"#;

impl Unit {
    /// Prints the last log lines since the last restart.
    pub fn log(&self, root: &str, lines: u32) -> Script {
        // A journal without ids: in a container, or for user units before systemd 249.
        let by_time = format!(
            "if [ -z \"$said\" ] && has_text service/since; then
  said=$(journalctl \"$of_unit=$name.service\" \"--since=@$(cat service/since)\" -n {lines} -q --no-pager -o cat 2>&1 || true)
fi\n"
        );
        self.journal(root, &format!("{SYNC}{FUNCTION}{READABLE}{THIS_START}"), &format!("\"$@\" -n {lines}"), &by_time)
    }

    /// Prints the last log lines, including those of earlier processes.
    pub fn last_lines(&self, root: &str, lines: u32) -> Script {
        self.journal(
            root,
            &format!("{SYNC}{FUNCTION}{READABLE}"),
            &format!("\"$of_unit=$name.service\" -n {lines}"),
            "",
        )
    }

    /// Like [`Self::log`], then each new line.
    pub fn follow(&self, root: &str, lines: u32) -> Script {
        let text = format!(
            "{FUNCTION}{READABLE}exec journalctl \"$of_unit=$name.service\" -q -n {lines} -f --no-pager -o cat 2>&1\n"
        );
        self.script(root, &format!("{}{text}", self.fields()))
    }

    /// The journalctl option for the unit's lines.
    pub(super) fn journal_option(&self) -> &'static str {
        if self.manager == Manager::User { "--user-unit" } else { "--unit" }
    }

    /// Sets `$of_unit`, the option for its lines, and `$of_manager`, the field that names the unit in lines of its
    /// manager.
    fn fields(&self) -> String {
        let field = if self.manager == Manager::User { "USER_UNIT" } else { "UNIT" };
        format!("of_unit={}; of_manager={field}\n", self.journal_option())
    }

    /// Runs `or` if `options` match nothing.
    fn journal(&self, root: &str, first: &str, options: &str, or: &str) -> Script {
        let text = format!(
            "{first}said=$(journalctl {options} -q --no-pager -o cat 2>&1 || true)
{or}if [ -n \"$said\" ]; then printf '%s\\n' \"$said\"; exit 0; fi\n{NOTHING}"
        );
        self.script(root, &format!("{}{text}", self.fields()))
    }
}
