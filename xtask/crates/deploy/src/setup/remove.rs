//! The root commands that undo a setup. Each may be repeated, also without the login.

use crate::setup::steps::{PublicKey, Step, Wanted, as_login, check, sudoers};
use gangplank_model::error::Result;
use gangplank_model::project::{Manager, Service};
use gangplank_model::service::rights;
use gangplank_model::shell::quote;

/// The steps, in order. Releases and data stay, unless `data` is set.
pub fn remove(wanted: Wanted, data: bool) -> Result<Vec<Step>> {
    check(wanted)?;
    let Wanted { env, login, root, service, key } = wanted;
    let is_root = login == "root";
    let mut steps = Vec::new();
    let mut add = |what, reason: &str, command: String| steps.push(Step { what, reason: reason.to_owned(), command });
    add("lock", "Check that no deploy runs.", refuse_while_locked(env, root));
    match *service {
        Service::Pidfile { .. } => {
            add("service", "Check that the app does not run.", refuse_while_kept(env, root));
        }
        Service::Systemd { unit, manager, .. } => {
            add("service", "Stop the app and remove its unit.", remove_unit(login, root, unit, manager));
            if let Some((file, _)) = sudoers(wanted)? {
                add("sudoers", "Remove the sudo rights of deploys.", format!("rm -f {file}"));
            }
            if !is_root {
                let command = format!("gpasswd -d {login} systemd-journal > /dev/null 2>&1 || true");
                add("journal", "Remove the login from the group that reads the journal.", command);
            }
            if manager == Manager::User {
                let reason = "Disable linger: systemd then stops everything of the login, also other apps, when its last session ends.";
                add("linger", reason, format!("{}loginctl disable-linger {login}", if_exists(login)));
            }
        }
        Service::None | Service::Command { .. } => {}
    }
    if let Some(key) = key {
        add("key", "Remove the key of deploys.", if_exists(login) + &as_login(login, &remove_key(key)));
    }
    let (reason, command) = if data {
        ("Remove the directory with all releases, logs and shared files.", remove_data(root))
    } else {
        (
            "Remove the directory if it is empty; `--data` removes it with all releases, logs and shared files.",
            remove_empty(root),
        )
    };
    add("directory", reason, command);
    if !is_root {
        let reason = format!("The login stays. If nothing else uses it, run `userdel --remove {login}`.");
        add("login", &reason, String::new());
    }
    Ok(steps)
}

/// The prefix of a command that needs the login.
fn if_exists(login: &str) -> String {
    format!("! id -u {login} > /dev/null 2>&1 || ")
}

fn refuse_while_locked(env: &str, root: &str) -> String {
    let lock = quote(&format!("{root}/.lock"));
    let error = quote(&format!("{root}/.lock exists: a deploy may be running"));
    let hint = quote(&format!("hint: `cargo xtask lock {env}` names its owner; then run this again"));
    format!("if [ -e {lock} ] || [ -L {lock} ]; then\n  echo {error} >&2\n  echo {hint} >&2; exit 1\nfi")
}

/// The login can write the file, so root reads only a number from it. `stop` removes the file even if another process
/// has that number.
fn refuse_while_kept(env: &str, root: &str) -> String {
    let file = quote(&format!("{root}/service/process"));
    let hint = quote(&format!("hint: stop it with `cargo xtask stop {env}`, then run this again"));
    format!(
        "pid=; [ ! -f {file} ] || read -r pid rest < {file} || true
case $pid in
  ''|*[!0-9]*) ;;
  *) if kill -0 \"$pid\" 2> /dev/null; then
    echo \"the app still runs, as process $pid\" >&2
    echo {hint} >&2; exit 1
  fi;;
esac"
    )
}

/// The file is replaced only by a complete one, so that a full disk cannot lose the other keys.
fn remove_key(key: &PublicKey) -> String {
    let body = key.body();
    format!(
        "cd ~/.ssh 2> /dev/null && [ -f authorized_keys ] || exit 0
fail() {{ rm -f authorized_keys.new; echo 'cannot write authorized_keys.new in ~/.ssh: all keys stay' >&2; exit 1; }}
cp -p authorized_keys authorized_keys.new || fail
code=0; grep -vF {body} authorized_keys > authorized_keys.new || code=$?
[ $code -le 1 ] || fail
sync authorized_keys.new 2> /dev/null || sync || fail
mv -f authorized_keys.new authorized_keys"
    )
}

/// Removes the directory only if a deploy has written to it.
fn remove_data(root: &str) -> String {
    let (dir, releases) = (quote(root), quote(&format!("{root}/releases")));
    let history = quote(&format!("{root}/history.jsonl"));
    let kept = quote(&format!("{root}: kept, because it has neither releases/ nor history.jsonl"));
    format!(
        "if [ -d {releases} ] || [ -f {history} ]; then rm -rf {dir}
elif [ -e {dir} ]; then rmdir {dir} 2> /dev/null || echo {kept}
fi"
    )
}

fn remove_empty(root: &str) -> String {
    let dir = quote(root);
    format!("[ ! -d {dir} ] || rmdir {dir} 2> /dev/null || echo {dir}': kept, because it is not empty'")
}

/// Stops and removes a unit that a deploy to this root wrote, and no other.
fn remove_unit(login: &str, root: &str, unit: &str, manager: Manager) -> String {
    let head = quote(&format!("# Written by gangplank for {root};"));
    let units = |dir: &str, ctl: &str| {
        format!(
            "for unit in {unit}.socket {unit}.service; do\n  if grep -qsF {head} {dir}/$unit; then {ctl} disable --now $unit; rm -f {dir}/$unit; fi\ndone\n{ctl} daemon-reload"
        )
    };
    match manager {
        Manager::System | Manager::Sudo => units(rights::SYSTEM_UNITS, "systemctl"),
        Manager::User => {
            let script = units("${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user", "systemctl --user");
            // Without linger there may be no running manager.
            let script = format!("export XDG_RUNTIME_DIR=/run/user/$(id -u)\n{script} 2> /dev/null || true");
            if_exists(login) + &as_login(login, &script)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::project::SocketActivation;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Output};
    use std::time::Duration;

    const BODY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIPfv4+lbYmTnS1w2mNyZkQhL9xqYdD0cW5a8Jv3uTt7s";

    fn sh(home: &Path, script: &str) -> Output {
        Command::new("sh").arg("-euc").arg(script).env("HOME", home).output().unwrap()
    }

    fn pidfile() -> Service {
        Service::Pidfile { run: &["bin/app"], stop_timeout: Duration::ZERO }
    }

    #[test]
    fn data_is_removed_only_when_that_is_asked_for() {
        let service = Service::Systemd {
            unit: "shop.eu",
            manager: Manager::Sudo,
            run: &["bin/app"],
            lines: &[],
            stop_timeout: Duration::ZERO,
            handover: SocketActivation::Sockets(&["8080"]),
        };
        let wanted = Wanted { env: "dev", login: "deploy", root: "/srv/app", service: &service, key: None };
        let commands =
            |data| -> String { remove(wanted, data).unwrap().into_iter().map(|step| step.command + "\n").collect() };
        assert!(!commands(false).contains("rm -rf") && commands(false).contains("rmdir /srv/app"));
        assert!(commands(true).contains("rm -rf /srv/app\n"));
        assert!(commands(false).contains("rm -f /etc/sudoers.d/gangplank-shop_2eeu\n"));
        assert!(!commands(true).contains("userdel"), "a login may be that of another app");
    }

    #[test]
    fn key_is_removed_and_a_failed_write_leaves_all_keys() {
        let home = tempfile::tempdir().unwrap();
        let script = remove_key(&PublicKey::parse(&format!("ssh-ed25519 {BODY} deploys\n")).unwrap());
        assert!(sh(home.path(), &script).status.success(), "no file is nothing to remove");
        fs::create_dir(home.path().join(".ssh")).unwrap();
        let (keys, ours) = (home.path().join(".ssh/authorized_keys"), format!("restrict ssh-ed25519 {BODY} deploys\n"));
        for others in ["", "ssh-ed25519 AAAAother admin\n"] {
            let all = format!("{others}{ours}");
            fs::write(&keys, &all).unwrap();
            fs::set_permissions(&keys, PermissionsExt::from_mode(0o640)).unwrap();
            // No write succeeds, as on a full disk.
            let failed = sh(home.path(), &format!("ulimit -f 0\n{script}"));
            assert!(!failed.status.success(), "{failed:?}");
            assert_eq!(fs::read_to_string(&keys).unwrap(), all);
            let done = sh(home.path(), &script);
            assert!(done.status.success(), "{done:?}");
            assert_eq!(fs::read_to_string(&keys).unwrap(), others);
            assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o640);
            assert!(!home.path().join(".ssh/authorized_keys.new").exists());
        }
    }

    #[test]
    fn nothing_fails_where_the_login_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let key = PublicKey::parse(&format!("ssh-ed25519 {BODY} deploys\n")).unwrap();
        let service = Service::Systemd {
            unit: "gangplank-none",
            manager: Manager::User,
            run: &["bin/app"],
            lines: &[],
            stop_timeout: Duration::ZERO,
            handover: SocketActivation::Restart,
        };
        let root = dir.path().join("app");
        let root = root.to_str().unwrap();
        let wanted = Wanted { env: "dev", login: "gangplank-none", root, service: &service, key: Some(&key) };
        for step in remove(wanted, true).unwrap() {
            let ran = sh(dir.path(), &step.command);
            assert!(ran.status.success(), "{}: {ran:?}", step.what);
        }
    }

    #[test]
    fn directory_that_is_no_target_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("it's");
        let run = |script: &str| {
            let ran = sh(dir.path(), script);
            assert!(ran.status.success(), "{ran:?}");
            String::from_utf8(ran.stdout).unwrap()
        };
        let script = remove_data(root.to_str().unwrap());
        assert_eq!(run(&script), "");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("mine"), "").unwrap();
        assert!(run(&script).contains("kept, because it has neither releases/ nor history.jsonl"));
        assert!(root.join("mine").exists());
        fs::write(root.join("history.jsonl"), "").unwrap();
        assert_eq!(run(&script), "");
        assert!(!root.exists());
    }

    #[test]
    fn nothing_is_removed_while_a_deploy_or_the_app_runs() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let service = pidfile();
        let wanted = Wanted { env: "dev", login: "deploy", root, service: &service, key: None };
        let steps = remove(wanted, true).unwrap();
        assert_eq!(steps.iter().map(|step| step.what).collect::<Vec<_>>(), ["lock", "service", "directory", "login"]);
        let refused = |n: usize, hint: &str| {
            let ran = sh(dir.path(), &steps[n].command);
            assert_eq!(
                (ran.status.success(), String::from_utf8_lossy(&ran.stderr).contains(hint)),
                (false, true),
                "{ran:?}"
            );
        };
        let passes = |n: usize| assert!(sh(dir.path(), &steps[n].command).status.success());
        passes(0);
        passes(1);
        fs::write(dir.path().join(".lock"), "").unwrap();
        refused(0, "cargo xtask lock dev");
        fs::create_dir(dir.path().join("service")).unwrap();
        let process = dir.path().join("service/process");
        for end in ["", " 1 - d r i\n"] {
            fs::write(&process, format!("{}{end}", std::process::id())).unwrap();
            refused(1, "cargo xtask stop dev");
        }
        for other in ["", "-1 1 -\n", "x\n", "99999999 1 -\n"] {
            fs::write(&process, other).unwrap();
            passes(1);
        }
    }
}
