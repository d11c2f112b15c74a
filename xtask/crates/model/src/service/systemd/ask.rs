//! Whether a unit runs, according to systemd: for a health check, the state of a target, and the error of a failed
//! restart.

use crate::script::durable::DURABLE;
use crate::service::port;
use crate::service::port::{IN_USE, in_use};
use crate::service::run::GONE;

/// Number of crashes during a check after which a unit counts as failed.
const CRASHES: u32 = 3;

/// `$scope` is the systemctl option for `$manager`, `$dir` its directory of units.
pub(crate) const SCOPE: &str = r#"scope=; dir=/etc/systemd/system
if [ "$manager" = user ]; then
  scope=--user; dir=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
  : "${XDG_RUNTIME_DIR:=/run/user/$(id -u)}"; export XDG_RUNTIME_DIR
fi
"#;

/// `lingers` succeeds if systemd keeps the login's units running after its last session, exits with 1 if not, and with
/// 2 if `loginctl` does not answer.
pub(crate) const LINGERS: &str = r#"lingers() {
  [ ! -e "/var/lib/systemd/linger/$(id -un)" ] || return 0
  said=$(timeout 5 loginctl show-user "$(id -un)" -p Linger --value 2>&1 || true)
  case $said in
    yes) return 0;;
    no|*'not logged in or lingering'*) return 1;;
  esac
  return 2
}
"#;

/// Sets `$manager` and `$unit` to the unit of the root `.`, from `service/systemd`, `service/name` or the first line of
/// an installed unit; both empty if there is none.
pub(crate) const OF_ROOT: &str = r##"manager=; unit=; digest=; release=
! has_text service/systemd || read -r manager unit digest release < service/systemd || true
[ -n "$unit" ] || ! has_text service/name || read -r manager unit < service/name || true
# A crash of the host may have left these files empty.
if [ -z "$unit" ] && [ -f service/unit ]; then
  for place in "user ${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user" "system /etc/systemd/system"; do
    for unit in $(grep -lsF "# Written by gangplank for $PWD;" "${place#* }"/*.service || true); do
      manager=${place%% *}; unit=${unit##*/}; unit=${unit%.service}; break 2
    done
    unit=
  done
fi
"##;

/// Sets `$active`, `$sub`, `$result`, `$crashes`, and `$how`, which says how the last process ended. `$never` is set if
/// the process ended before its program began, so that another start would fail too.
const PROPERTIES: &str = r#"set -- $(systemctl $scope show -p ActiveEnterTimestampMonotonic -p ActiveState -p ExecMainCode \
  -p ExecMainStartTimestampMonotonic -p ExecMainStatus -p NRestarts -p Result -p SubState "$name.service" | sort)
[ $# -eq 8 ] || { echo 'systemd does not report its state'; exit 1; }
entered=${1#*=}; active=${2#*=}; code=${3#*=}; started=${4#*=}; status=${5#*=}; crashes=${6#*=}; result=${7#*=}; sub=${8#*=}
before=0; ! has_text service/crashes || read -r before < service/crashes
[ "$crashes" -lt "$before" ] || crashes=$((crashes - before))
never=
case $code in
  1) how="exit status $status";;
  2|3) how="signal $status";;
  *) how="result $result";;
esac
# systemd.exec(5): what fails between fork and exec ends with one of these, and the unit was never active.
if [ "$code" = 1 ] && [ "$status" -ge 200 ] && [ "$status" -le 245 ] && [ "$entered" -lt "$started" ]; then
  case $status in
    200) never='its directory cannot be entered (exit status 200/CHDIR)';;
    203) never='its program cannot be executed: it is missing, not executable, or for another machine (exit status 203/EXEC)';;
    216) never='the group that it is to run as does not exist (exit status 216/GROUP)';;
    217) never='the user that it is to run as does not exist (exit status 217/USER)';;
    226) never='its namespaces cannot be set up (exit status 226/NAMESPACE)';;
    *) never="systemd cannot start it (exit status $status: see systemd.exec(5))";;
  esac
elif [ "$result" = resources ]; then
  never='systemd cannot start it (result resources): a file that its unit names is missing or cannot be read'
fi
"#;

/// Prints why a restart failed, instead of the advice of systemctl in `$said`, and fails. systemd restarts a unit that
/// crashed at its start, and the health check judges it.
pub(crate) fn restart_failed() -> String {
    format!(
        "{PROPERTIES}if [ -n \"$never\" ]; then echo \"$never\"; exit 1; fi
if [ \"$sub\" != auto-restart ]; then
  if [ \"$code\" = 0 ]; then echo \"$said\"; else echo \"it ended with $how\"; fi
  exit 1
fi\n"
    )
}

/// Exits with 0 while the unit runs and no other process of this root holds its port, and with `GONE` if it will not
/// come back by itself; otherwise prints the reason. Without `else_asked`, one crash is a failure.
pub fn status(journal_option: &str, else_asked: bool, port: Option<u16>, last: bool) -> String {
    let crashes = if else_asked { CRASHES } else { 1 };
    // If systemd holds the socket, the service may not have it yet.
    let ours = "[ \"$1\" != 1 ] || return 0
while read -r line; do
  case $line in */\"$name.service\"|*/\"$name.service\"/*|*/init.scope) return 0;; esac
done < \"/proc/$1/cgroup\" 2> /dev/null
return 1";
    let in_use = in_use();
    let foreign = port.filter(|_| last).map(|port| port::foreign(port, ours)).unwrap_or_default();
    format!(
        "{PROPERTIES}if [ -n \"$never\" ] && [ \"$active\" != active ]; then echo \"$never\"; exit {GONE}; fi
# systemd counts a crash when it starts the service again.
if [ \"$sub\" = auto-restart ]; then crashes=$((crashes + 1)); last=\", the last time with $how\"; else last=; fi
if [ \"$crashes\" -ge {crashes} ]; then
  echo \"it has crashed $crashes time(s)$last\"
  ! journalctl {journal_option}=\"$name.service\" -n 20 --no-pager -q -o cat 2> /dev/null | {in_use} || echo '{IN_USE}'
  exit {GONE}
fi
case $active in
  active|reloading) {foreign}exit 0;;
  failed) echo \"it failed ($result) with $how\"; exit {GONE};;
  inactive) echo \"it ended with $how\"; exit {GONE};;
esac
if [ \"$sub\" = auto-restart ]; then echo \"it crashed with $how, and systemd restarts it\"; else echo \"it is $active\"; fi
exit 1
"
    )
}

/// Prints a target's state of its unit.
pub fn state() -> String {
    format!(
        r#"{DURABLE}{OF_ROOT}if [ -n "$unit" ]; then
  {SCOPE}{LINGERS}
  case $(systemctl $scope is-active "$unit.service" 2> /dev/null || true) in
    active|reloading|refreshing)
      ends=0; [ "$manager" != user ] || lingers || ends=$?
      if [ -z "$digest" ]; then echo 'service unrecorded'
      elif [ "$(cat service/unit 2> /dev/null)" != "$(cat "$dir/$unit.service" 2> /dev/null)" ] ||
        ! systemctl $scope is-enabled -q "$unit.service" 2> /dev/null; then echo 'service drifted'
      elif [ "$ends" = 1 ]; then echo 'service of-session'
      else echo "service running $digest $release"; fi;;
    activating|deactivating) echo 'service starting';;
    '') echo 'service unknown';;
    *) echo 'service stopped';;
  esac
fi"#
    )
}
