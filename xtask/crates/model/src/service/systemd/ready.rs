//! Checks before a unit is touched: that the manager answers, the login has the permissions of a deploy, the service
//! outlives the login, and the unit belongs to this target.

use crate::project::Manager;
use crate::service::pidfile;
use crate::service::run::Script;
use crate::service::systemd::{Unit, ask, head, rights};
use crate::shell::quote;

/// The prefix of script output that is printed as a warning.
pub const WARNING: &str = "warning: ";

impl Unit {
    /// Fails if a restart would fail, or would not last, or if another program wrote a unit of that name.
    pub fn ready(&self, root: &str) -> Script {
        let hint = match self.manager {
            Manager::User => "as root of that host `loginctl enable-linger $(id -un)`, then deploy again",
            Manager::System | Manager::Sudo => "use a host whose init system is systemd, or another `service`",
        }
        .replace('`', "\\`");
        let may = match self.manager {
            Manager::User => format!("{}{LASTS}", ask::LINGERS),
            Manager::System => String::new(),
            Manager::Sudo => self.allowed(root),
        };
        let body = format!(
            "if ! said=$(systemctl $scope show -p Version 2>&1); then
  echo \"systemd does not answer this login: $said\" >&2; echo \"hint: {hint}\" >&2; exit 1
fi
{may}{user}{NO_PIDFILE_SERVICE}
{OTHER_UNIT}for unit in \"$name.service\" \"$name.socket\"; do
  for file in \"$dir/$unit\" \"$(systemctl $scope show -p FragmentPath --value \"$unit\")\"; do
    has_text \"$file\" || continue
    head -n 1 \"$file\" | grep -qF {ours} || {{
      if head -n 1 \"$file\" | grep -qF '# Written by gangplank for'; then
        echo \"$file belongs to another target of this host\" >&2; echo 'hint: give each target of a host its own `unit`' >&2; exit 1
      fi
      echo \"$file is not ours\" >&2; echo 'hint: move it away, or give the env another `unit`' >&2; exit 1
    }}
  done
done
",
            ours = quote(&head(root)),
            user = self.user_exists(),
        );
        Script::new(pidfile::ahead(root, &self.with_functions(&body)), String::new())
    }

    /// Fails unless this login may stop the unit.
    pub fn ready_to_halt(&self, root: &str) -> Option<Script> {
        let allowed = || pidfile::ahead(root, &self.with_functions(&self.allowed(root)));
        (self.manager == Manager::Sudo).then(|| Script::new(allowed(), String::new()))
    }

    /// Fails if the user of a system unit does not exist on the host.
    fn user_exists(&self) -> String {
        match self.user().filter(|_| self.manager != Manager::User).map(quote) {
            Some(user) => format!(
                "id -u {user} > /dev/null 2>&1 || {{
  echo 'the host has no user '{user}', which the unit is to run as' >&2
  echo 'hint: as root of that host `useradd --system --shell /usr/sbin/nologin '{user}'`, then deploy again' >&2; exit 1
}}\n"
            ),
            None => String::new(),
        }
    }

    /// Fails unless sudo permits every command that this deploy, and its revert, will run.
    fn allowed(&self, root: &str) -> String {
        let sockets = if self.has_socket() { "true" } else { HAS_SOCKET };
        let user = if self.has_user() { "" } else { NOT_ROOT };
        format!(
            "{user}{missing}if [ -n \"$missing\" ]; then
  echo \"sudo does not let $(id -un) run these without a password: $missing\" >&2
  echo 'hint: as root of that host, add the line for sudoers that `cargo xtask setup ENV` prints; then deploy again' >&2; exit 1
fi
",
            missing = rights::missing(&self.name, root, sockets)
        )
    }
}

/// Succeeds if our socket is installed, or would be by a revert: a deploy may have to remove or start it.
const HAS_SOCKET: &str = r##"{ good=; ! has_text service/good || read -r good < service/good
  [ -n "$good" ] && [ -s "service/spec-$good/socket" ]; } || grep -qsF "# Written by gangplank for $root;" "$dir/$name.socket""##;

/// A root login needs no sudo, and would run the app as root without a setting that says so.
const NOT_ROOT: &str = r#"if [ "$(id -u)" = 0 ]; then
  echo "the unit $name would run as root" >&2
  echo 'hint: set the user in `lines`, "User=shop", or "User=root" to run it as root' >&2; exit 1
fi
"#;

/// systemd stops the units of a login without linger when its last session ends, which is that of the deploy.
const LASTS: &str = r#"code=0; lingers || code=$?
case $code in
  1)
    echo "systemd stops what it runs for $(id -un) when the last session of that login ends" >&2
    echo "hint: as root of that host \`loginctl enable-linger $(id -un)\`, then deploy again" >&2; exit 1;;
  2)
    echo "warning: systemd may stop the services of $(id -un) when the login ends: loginctl does not answer; to prevent it, as root of that host \`loginctl enable-linger $(id -un)\`" >&2;;
esac
"#;

/// Two services would compete for one port.
pub(crate) const NO_PIDFILE_SERVICE: &str = r#"if alive; then
  echo "a process of the built-in pidfile service runs here" >&2; echo "hint: \`kill $pid\` on that host, then deploy again" >&2; exit 1
fi"#;

/// Two units would compete for one port.
const OTHER_UNIT: &str = r#"if has_text service/name && [ "$(cat service/name)" != "$manager $name" ]; then
  read -r other unit < service/name
  echo "the unit $unit of the $other's systemd runs here, not $name of the $manager's" >&2
  echo "hint: on that host \`systemctl disable --now $unit\` (\`--user\` where it is a user's) and \`rm $root/service/name $root/service/systemd\`, then deploy again" >&2; exit 1
fi
"#;
