//! The privileged commands of a unit: the only list, used to run them, to check permissions before a switch, and by
//! `setup` to grant them.

use crate::project::Manager;
use crate::shell::quote;

/// The directory of system units.
pub const SYSTEM_UNITS: &str = "/etc/systemd/system";

/// The unit that a command applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Service,
    /// Only if systemd holds the sockets, or held them.
    Socket,
}

/// The `systemctl` commands that change something; `$name` is the unit. `ctl` of a script rejects all others.
const CONTROLS: &[(About, &str)] = &[
    (About::Service, "daemon-reload"),
    (About::Service, "restart $name.service"),
    (About::Service, "stop $name.service"),
    (About::Service, "enable -q $name.service"),
    (About::Service, "disable -q --now $name.service"),
    (About::Socket, "enable -q $name.socket"),
    (About::Socket, "start $name.socket"),
    (About::Socket, "stop $name.service $name.socket"),
    (About::Socket, "disable -q --now $name.socket"),
];

/// The files to install; `$name` is the unit, `$PWD` the root. `install` writes a temporary file and `mv` renames it,
/// so that a power cut leaves no partial unit for systemd to read.
const INSTALLS: &[(About, &str, &str)] = &[
    (About::Service, "$PWD/service/unit", "/etc/systemd/system/$name.service"),
    (About::Socket, "$PWD/service/socket", "/etc/systemd/system/$name.socket"),
];

/// Every privileged command of a unit, as words: those of its service, and with `sockets` those of its socket.
pub fn commands(name: &str, root: &str, sockets: bool) -> Vec<Vec<String>> {
    let wanted = |about: &About| sockets || *about == About::Service;
    let fill = |text: &str| text.replace("$name", name).replace("$PWD", root);
    let controls = CONTROLS.iter().filter(|(about, _)| wanted(about)).map(|(_, args)| {
        let args = args.split(' ').map(fill);
        std::iter::once("systemctl".to_owned()).chain(args).collect()
    });
    let installs = INSTALLS.iter().filter(|(about, ..)| wanted(about)).flat_map(|(_, from, to)| {
        let (from, to) = (fill(from), fill(to));
        let aside = format!("{to}.new");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        [words(&["install", "-m", "644", &from, &aside]), words(&["mv", "-f", &aside, &to])]
    });
    controls.chain(installs).collect()
}

/// Shell functions: `ctl` runs systemctl with privileges, `put FILE UNIT` installs a file into `$dir`, `drop UNIT`
/// removes it.
pub fn functions(manager: Manager) -> String {
    let (run, more) = match manager {
        Manager::User | Manager::System => (
            "systemctl $scope \"$@\"",
            r#"drop() { rm -f "$dir/$1"; }
put() { mkdir -p "$dir"; cp "$1" "$dir/$2.new"; chmod 644 "$dir/$2.new"; replace "$dir/$2"; }
"#,
        ),
        Manager::Sudo => (
            "sudo -n systemctl \"$@\"",
            r#"drop() { :; }
put() {
  sudo -n install -m 644 "$PWD/$1" "$dir/$2.new"; flush "$dir/$2.new"
  sudo -n mv -f "$dir/$2.new" "$dir/$2"; flush "$dir"
}
"#,
        ),
    };
    let known: Vec<_> = CONTROLS.iter().map(|(_, args)| format!("\"{args}\"")).collect();
    format!(
        "ctl() {{
  case $1 in is-*|show) systemctl $scope \"$@\"; return;; esac
  case \"$*\" in {known}) {run};; *) echo \"\\`systemctl $*\\` is not a permitted command\" >&2; return 1;; esac
}}
{more}",
        known = known.join("|"),
    )
}

/// `may TEXT COMMAND`, for [`missing`], asks sudo. sudo also says yes to a login that may run everything with a
/// password, so the list of permitted commands must then have the text after `NOPASSWD:`. Wildcards in that list count
/// as a match.
const MAY: &str = r#"missing=; add() { missing="${missing:+$missing, }\`sudo $*\`"; }
listed=$(sudo -n -l 2> /dev/null | tr -s ' \n\t' ' ' || true)
[ "$(id -u)" != 0 ] || listed=
case $listed in *'NOPASSWD: ALL'*|*'!authenticate'*|*'*'*) listed=;; *') ALL '*) ;; *) listed=;; esac
may() {
  text=$1; shift
  if ! sudo -n -l "$@" > /dev/null 2>&1; then add "$@"; return; fi
  [ -z "$listed" ] || case "$listed" in *"/$text, "*|*"/$text ("*|*"/$text ") ;; *) add "$@";; esac
}
"#;

/// Fills `$missing` with the commands that sudo denies this login, each in backquotes. `sockets` is a command that
/// tests whether those of the socket are needed.
pub fn missing(name: &str, root: &str, sockets: &str) -> String {
    let ask = |words: &Vec<String>| {
        let text: Vec<_> = words.iter().map(|word| escape(word).unwrap_or_else(|_| word.clone())).collect();
        let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
        format!("may {} {}\n", quote(&text.join(" ")), words.join(" "))
    };
    let (of_service, all) = (commands(name, root, false), commands(name, root, true));
    let of_socket: String = all.iter().filter(|words| !of_service.contains(words)).map(ask).collect();
    let of_service: String = of_service.iter().map(ask).collect();
    format!("{MAY}{of_service}if {sockets}; then\n{of_socket}fi\n")
}

/// A line of `sudoers(5)` that lets `login` run commands without a password, as the text of an unquoted here-document:
/// each program is a variable of its name, for its path on the host. Fails if the line cannot express a command.
pub fn sudoers(login: &str, commands: &[Vec<String>]) -> Result<String, String> {
    if is_reserved(login) {
        return Err(format!("{login:?} is not a login in sudoers"));
    }
    let escape = |word: &str| escape(word).map(|word| word.replace('\\', r"\\"));
    let mut all = Vec::new();
    for command in commands {
        let mut words = Vec::new();
        for (n, word) in command.iter().enumerate() {
            words.push(if n == 0 { format!("${word}") } else { escape(word)? });
        }
        all.push(words.join(" "));
    }
    Ok(format!("{} ALL=(root) NOPASSWD: {}", escape(login)?, all.join(", ")))
}

/// Whether a sudoers line that begins with this word means something else: all users, an alias (upper case), a group, a
/// setting.
fn is_reserved(login: &str) -> bool {
    let is_alias = login.starts_with(|c: char| c.is_ascii_uppercase())
        && login.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let keywords = ["Defaults", "User_Alias", "Runas_Alias", "Host_Alias", "Cmnd_Alias", "Cmd_Alias"];
    is_alias || keywords.contains(&login) || login.starts_with(['%', '+', '#', '!', '@'])
}

/// A word of a sudoers line, with terminators and wildcards escaped.
fn escape(word: &str) -> Result<String, String> {
    let mut text = String::new();
    for c in word.chars() {
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '.' | '/' | '@' | '+' | '%' | '~' => text.push(c),
            ',' | ':' | '=' | '\\' | '*' | '?' | '[' | ']' | '!' | '(' | ')' | ' ' => text.extend(['\\', c]),
            _ => return Err(format!("{word:?} has a {c:?}, which sudoers does not allow")),
        }
    }
    if text.is_empty() { Err("sudoers does not allow an empty word".into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudoers_line_escapes_what_sudoers_reads_and_refuses_what_it_cannot_hold() {
        let line = |root: &str| sudoers("deploy", &commands("shop@1", root, false)[5..]);
        assert_eq!(
            line("/srv/a,b:c=d*[e] f").unwrap(),
            "deploy ALL=(root) NOPASSWD: $install -m 644 /srv/a\\\\,b\\\\:c\\\\=d\\\\*\\\\[e\\\\]\\\\ f/service/unit \
             /etc/systemd/system/shop@1.service.new, $mv -f /etc/systemd/system/shop@1.service.new \
             /etc/systemd/system/shop@1.service"
        );
        for bad in ["/srv/a\nb", "/srv/a#b", "/srv/$a", "/srv/`a`", "/srv/\"a\"", "/srv/ä"] {
            assert!(line(bad).is_err(), "{bad}");
        }
        for login in ["", "ALL", "WEB_1", "Defaults", "User_Alias", "%wheel", "+net", "#1000", "!deploy"] {
            assert!(sudoers(login, &[]).is_err(), "{login}");
        }
        for login in ["deploy", "Deploy", "deploy_1", "ALl"] {
            assert!(sudoers(login, &[]).is_ok(), "{login}");
        }
    }

    #[test]
    fn missing_rights_cover_each_command_and_sockets_only_where_present() {
        let words = |sockets| -> Vec<String> {
            commands("shop", "/srv/app", sockets).into_iter().map(|words| words.join(" ")).collect()
        };
        let script = missing("shop", "/srv/app", "HAS SOCKET");
        let (of_service, of_socket) = script.split_once("if HAS SOCKET; then\n").unwrap();
        let asked = |part: &str| part.lines().filter(|line| line.starts_with("may '")).count();
        assert_eq!((words(false).len(), words(true).len()), (7, 13));
        assert_eq!((asked(of_service), asked(of_socket)), (7, 6));
        for command in words(false) {
            assert!(of_service.contains(&format!("may '{command}' {command}\n")), "{command}: {of_service}");
        }
    }
}
