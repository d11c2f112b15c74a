//! The root commands that prepare a host for deploys, derived from the project's constants.
//!
//! Each command may be repeated, and changes nothing that is already in place.

use gangplank_model::error::{Result, usage};
use gangplank_model::project::{Manager, Service, SocketActivation};
use gangplank_model::service::{rights, static_user};
use gangplank_model::shell::quote;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// A command for an administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `login`, `key`, `directory`, `app-user`, `linger`, `journal`, `sudoers`, `service`, or `lock`.
    pub what: &'static str,
    /// Its purpose.
    pub reason: String,
    /// The command; empty for a mere note.
    pub command: String,
}

/// The parameters of a setup.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The env.
    pub env: &'a str,
    /// The login of deploys.
    pub login: &'a str,
    /// The directory of the target.
    pub root: &'a str,
    /// The service.
    pub service: &'a Service,
    /// The public key of deploys.
    pub key: Option<&'a PublicKey>,
}

/// A public key in the format of `authorized_keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Type, key and comment.
    line: String,
    /// The key material, which identifies the line.
    body: String,
}

impl PublicKey {
    /// Parses the file written by `ssh-keygen`.
    pub fn parse(text: &str) -> Result<Self> {
        let hint = "name the file that ends with .pub: `--key deploy_key.pub`";
        if text.contains("PRIVATE KEY") {
            return usage("--key is a private key, which must not be copied to a host").hint(hint).err();
        }
        let line =
            text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        let plain = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+/=@._".contains(&b));
        let words: Vec<_> = line.split_whitespace().collect();
        let is_type = |word: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|start| word.starts_with(start));
        match words.as_slice() {
            [kind, body, ..] if is_type(kind) && plain(kind) && body.len() > 30 && plain(body) => {
                Ok(Self { line: words.join(" "), body: (*body).to_owned() })
            }
            _ => usage("--key is not an ssh public key").hint(hint).err(),
        }
    }

    /// The key material.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// Fails for values that the commands cannot express.
pub fn check(wanted: Wanted) -> Result<()> {
    let Wanted { env, login, service, .. } = wanted;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-@".contains(&b);
    if login.is_empty() || !login.bytes().all(plain) || login.starts_with(['-', '.', '@']) {
        return usage(format!("{env}: {login:?} is not the name of a login"))
            .hint("use letters, digits, `_`, `.` and `-` in ssh://USER@HOST/DIR")
            .err();
    }
    if let Service::Systemd { manager: Manager::System, .. } = service
        && login != "root"
    {
        return usage(format!("{env} has Manager::System, which needs the login root, but deploys log in as {login}"))
            .hint("use Manager::Sudo, Manager::User, or a target ssh://root@HOST/DIR; see docs/hosts.md")
            .err();
    }
    sudoers(wanted).map(drop)
}

/// The sudoers file and its line, with the variables of [`PROGRAMS`], if needed.
pub fn sudoers(wanted: Wanted) -> Result<Option<(String, String)>> {
    let Service::Systemd { unit, manager: Manager::Sudo, handover, .. } = *wanted.service else { return Ok(None) };
    let sockets = matches!(handover, SocketActivation::Sockets(_));
    match rights::sudoers(wanted.login, &rights::commands(unit, wanted.root, sockets)) {
        Ok(line) => Ok(Some((format!("/etc/sudoers.d/gangplank-{}", file_name(unit)), line))),
        Err(reason) => usage(format!("{}: cannot write a sudoers line: {reason}", wanted.env))
            .hint("use a directory and a unit of letters, digits, `-`, `_`, `.` and `/`, and a login in lower case")
            .err(),
    }
}

/// A unique file name per unit. sudo ignores file names with a dot or a trailing `~`.
fn file_name(unit: &str) -> String {
    let mut name = String::new();
    for byte in unit.bytes() {
        match byte {
            b'_' => name.push_str("__"),
            b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => name.push(char::from(byte)),
            _ => {
                let _ = write!(name, "_{byte:02x}");
            }
        }
    }
    name
}

/// The commands to run once on a host, in order.
pub fn install(wanted: Wanted) -> Result<Vec<Step>> {
    check(wanted)?;
    let Wanted { env, login, root, service, key } = wanted;
    let is_root = login == "root";
    let mut steps = Vec::new();
    let mut add = |what, reason: &str, command: String| steps.push(Step { what, reason: reason.to_owned(), command });
    if !is_root {
        let command =
            format!("id -u {login} > /dev/null 2>&1 || useradd --create-home --shell /bin/sh --password '*' {login}");
        add("login", "The login of deploys; it has no password.", command);
    }
    match key {
        Some(key) => add("key", "Its key, which opens no tunnels.", install_key(login, key)),
        None => {
            let reason = format!("Its key: `cargo xtask setup {env} --key deploy_key.pub` adds it here.");
            add("key", &reason, String::new());
        }
    }
    let make = if is_root { format!("(umask 022; mkdir -p {})", quote(root)) } else { make_directory(login, root) };
    add("directory", "The directory of the app, which the login may write.", make);
    let Service::Systemd { unit, manager, lines, .. } = *service else { return Ok(steps) };
    let user = static_user(lines).filter(|user| ![login, "root"].contains(user));
    if let Some(user) = user.filter(|_| manager != Manager::User).map(quote) {
        let command = format!("id -u {user} > /dev/null 2>&1 || useradd --system --shell /usr/sbin/nologin {user}");
        add("app-user", "The user that the app runs as.", command);
    }
    if manager == Manager::User {
        let reason = "systemd runs the app without a session of the login, and from boot on.";
        add("linger", reason, format!("loginctl enable-linger {login}"));
    }
    if !is_root {
        add_journal(&mut add, manager, login);
    }
    if let Some((file, line)) = sudoers(wanted)? {
        let reason = format!(
            "What deploys, rollbacks, `start` and `stop` run by sudo. A login that may install the unit {unit} can run anything as root."
        );
        let command = format!(
            "{PROGRAMS}\ncat > {file}.new <<END\n{line}\nEND\nchmod 440 {file}.new && visudo -cqf {file}.new && mv -f {file}.new {file}"
        );
        add("sudoers", &reason, command);
    }
    Ok(steps)
}

fn add_journal(add: &mut impl FnMut(&'static str, &str, String), manager: Manager, login: &str) {
    let join = format!("usermod -aG systemd-journal {login}");
    if manager == Manager::User {
        let reason =
            "The log of the app: without a journal on disk, and for logins of the system, only this group reads it.";
        add(
            "journal",
            reason,
            format!("{{ [ -d /var/log/journal ] && [ \"$(id -u {login})\" -ge 1000 ]; }} || {join}"),
        );
    } else {
        add("journal", "The log of the app: this group may read it.", join);
    }
}

/// Finds the programs on sudo's PATH, because it compares full paths.
const PROGRAMS: &str = r#"for program in systemctl install mv visudo; do
  command -v $program > /dev/null || { echo "the host has no $program" >&2; exit 1; }
done
systemctl=$(command -v systemctl) install=$(command -v install) mv=$(command -v mv)"#;

/// The login creates the directory if it can; root changes the owner only of a directory created by this step. A path
/// in the home of the login may be a link made by the login, and an existing directory may belong to another app.
fn make_directory(login: &str, root: &str) -> String {
    let dir = quote(root);
    let make = quote(&format!("umask 022; mkdir -p {dir}"));
    let test = quote(&format!("test -d {dir} && test -w {dir}"));
    let parent = Path::new(root).parent().map_or_else(|| "/".into(), |parent| parent.display().to_string());
    let parent = quote(&parent);
    let wrong = quote(&format!("{root} exists, and {login} cannot write to it"));
    let hint = quote(&format!(
        "hint: check it with `ls -ld {dir}`: use another directory in the target, or, if it belongs to this app, `chown -h {login}: {dir}`"
    ));
    format!(
        "if [ ! -e {dir} ] && [ ! -L {dir} ]; then
  su -s /bin/sh -c {make} {login} 2> /dev/null || {{ (umask 022; mkdir -p {parent}; mkdir {dir}); chown -h {login}: {dir}; }}
fi
su -s /bin/sh -c {test} {login} || {{
  echo {wrong} >&2
  echo {hint} >&2; exit 1
}}"
    )
}

/// Runs lines as the login: if a file in its home is a link, root would write to the link's target.
pub fn as_login(login: &str, script: &str) -> String {
    format!("su -s /bin/sh {login} <<'END'\n{script}\nEND")
}

fn install_key(login: &str, PublicKey { line, body }: &PublicKey) -> String {
    let line = quote(&format!("restrict {line}"));
    let known = format!("grep -qsF {body} ~/.ssh/authorized_keys");
    as_login(
        login,
        &format!("umask 077; mkdir -p ~/.ssh\n{known} || printf '\\n%s\\n' {line} >> ~/.ssh/authorized_keys"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn systemd(manager: Manager, handover: SocketActivation, lines: &'static [&'static str]) -> Service {
        Service::Systemd { unit: "shop.eu", manager, run: &["bin/app"], lines, stop_timeout: Duration::ZERO, handover }
    }

    #[test]
    fn steps_of_each_kind_of_service() {
        let pidfile = Service::Pidfile { run: &["bin/app"], stop_timeout: Duration::ZERO };
        let sudo = |lines| systemd(Manager::Sudo, SocketActivation::Restart, lines);
        for (login, service, want) in [
            ("deploy", &pidfile, "login key directory"),
            ("root", &pidfile, "key directory"),
            ("deploy", &systemd(Manager::User, SocketActivation::Restart, &[]), "login key directory linger journal"),
            ("root", &systemd(Manager::User, SocketActivation::Restart, &[]), "key directory linger"),
            ("root", &systemd(Manager::System, SocketActivation::Restart, &["User=shop"]), "key directory app-user"),
            ("root", &systemd(Manager::System, SocketActivation::Restart, &["User=root"]), "key directory"),
            ("deploy", &sudo(&[]), "login key directory journal sudoers"),
            ("deploy", &sudo(&["User=deploy"]), "login key directory journal sudoers"),
            ("deploy", &sudo(&["User=a", "User=shop"]), "login key directory app-user journal sudoers"),
            ("deploy", &sudo(&["User=shop", "DynamicUser=yes"]), "login key directory journal sudoers"),
            ("deploy", &systemd(Manager::System, SocketActivation::Restart, &["User=shop"]), "refused"),
            ("-x", &pidfile, "refused"),
            ("%sudo", &pidfile, "refused"),
            ("ALL", &sudo(&["User=shop"]), "refused"),
            ("deploy", &sudo(&["User=%i"]), "login key directory journal sudoers"),
        ] {
            let wanted = Wanted { env: "dev", login, root: "/srv/app", service, key: None };
            let found = match install(wanted) {
                Ok(steps) => steps.iter().map(|step| step.what).collect::<Vec<_>>().join(" "),
                Err(_) => "refused".into(),
            };
            assert_eq!(found, want, "{login} {service:?}");
        }
    }

    #[test]
    fn file_name_of_each_unit_is_unique_and_read_by_sudo() {
        let names: Vec<_> =
            ["shop", "shop.eu", "shop@eu", "shop_eu", "shop__eu", "shop_2eeu", "shop~"].map(file_name).into();
        assert_eq!(names[..4], ["shop", "shop_2eeu", "shop_40eu", "shop__eu"]);
        for (n, name) in names.iter().enumerate() {
            assert!(!name.contains('.') && !name.ends_with('~') && !names[..n].contains(name), "{names:?}");
        }
    }
}
