//! Maps each line of `build.sh`, `deploy.sh` and similar scripts to a command or constant.
//!
//! Nothing is run or translated: the list is for a person who replaces the script.

use serde::Serialize;

/// A line of a script, and its replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScriptMapping {
    /// The script.
    pub file: String,
    /// Number of the line, from 1.
    pub line: usize,
    /// The line; only its first word if it may have a secret.
    pub text: String,
    /// The command or constant; absent if there is none.
    pub becomes: Option<&'static str>,
}

/// Common names of scripts that build or deploy.
pub const NAMES: &[&str] = &["build.sh", "deploy.sh", "release.sh", "rollback.sh", "publish.sh"];

/// Directories of such scripts.
pub const DIRS: &[&str] = &["", "bin", "ci", "scripts", "script", ".circleci"];

/// Words that a line must contain, and the replacement. The first match is used.
const TABLE: &[(&[&str], &str)] = &[
    (&["LATEST_BUILD_NUM", "POST"], "cargo xtask publish"),
    (&["LATEST_BUILD_NUM"], "cargo xtask deploy ENV: it finds the release by commit, not by the last number"),
    (&["circleci.com/api", "artifacts"], "cargo xtask fetch: by commit, every byte checked"),
    (&["circleci.com/api", "envvar"], "cargo xtask publish"),
    (&["circleci.com/api"], "cargo xtask ci trigger, ci approve"),
    (&["aws s3", "s3://"], "cargo xtask put, fetch: the store s3://... in `stores`"),
    (&["gsutil"], "cargo xtask put, fetch: the store gs://... in `stores`"),
    (&["cargo test"], "cargo xtask test"),
    (&["cargo clippy"], "cargo xtask test"),
    (&["cargo fmt"], "cargo xtask test"),
    (&["cargo build"], "cargo xtask build"),
    (&["cargo install"], "cargo xtask build, with the package in `packages`"),
    (&["strip "], "cargo xtask build: [profile.release] strip in Cargo.toml"),
    (&["sha256sum"], "cargo xtask build: digests are part of every release; verify checks them"),
    (&["shasum"], "cargo xtask build: digests are part of every release; verify checks them"),
    (&["md5sum"], "cargo xtask build: digests are part of every release; verify checks them"),
    (&["gpg "], "nothing here signs"),
    (&["tar ", "x"], "cargo xtask deploy ENV: the host unpacks aside and checks every file"),
    (&["tar ", "c"], "cargo xtask build"),
    (&["zip "], "cargo xtask build"),
    (&["rsync "], "cargo xtask deploy ENV: `targets: &[\"ssh://USER@HOST/DIR\"]`"),
    (&["scp "], "cargo xtask deploy ENV: `targets: &[\"ssh://USER@HOST/DIR\"]`"),
    (&["systemctl "], "cargo xtask deploy ENV: `service: Service::Systemd { .. }`"),
    (&["supervisorctl "], "cargo xtask deploy ENV: `service: Service::Command { .. }`"),
    (&["pm2 "], "cargo xtask deploy ENV: `service: Service::Command { .. }`"),
    (&["nohup "], "cargo xtask deploy ENV: `service: Service::Pidfile { .. }`"),
    (&["pkill "], "cargo xtask deploy ENV: the service is stopped and started by the deploy"),
    (&["kill "], "cargo xtask deploy ENV: the service is stopped and started by the deploy"),
    (&["ln -s"], "cargo xtask deploy ENV: `current` is switched in one rename"),
    (&["curl ", "health"], "cargo xtask deploy ENV: `health: Health::new(Check::Http { .. })`"),
    (&["curl ", "localhost"], "cargo xtask deploy ENV: `health: Health::new(Check::Http { .. })`"),
    (&["migrate"], "a hook of the env: `hooks: &[Hook { .. }]`"),
    (&["ssh "], "cargo xtask deploy ENV, or exec ENV -- COMMAND for one command"),
    (&["rm -rf"], "cargo xtask prune ENV: the live release and the way back stay"),
    (&["git pull"], "cargo xtask deploy ENV: hosts get what was built, and need no git"),
    (&["git checkout"], "cargo xtask deploy ENV RELEASE"),
    (&["mkdir "], "cargo xtask deploy ENV makes what it needs"),
];

/// Shell keywords and trivial commands.
const GLUE: &[&str] = &[
    "set ",
    "cd ",
    "pushd ",
    "popd",
    "echo ",
    "printf ",
    "exit",
    "if ",
    "then",
    "else",
    "elif ",
    "fi",
    "for ",
    "while ",
    "do",
    "done",
    "case ",
    "esac",
    "export ",
    "source ",
    "local ",
    "return",
    "trap ",
    "shift",
    "sleep ",
    "function ",
    "{",
    "}",
    "(",
    ")",
    "[",
    "EOF",
    ";;",
];

/// The mapping of a script's lines, without comments and glue.
pub fn map(file: &str, text: &str) -> Vec<ScriptMapping> {
    let mut mapped = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        let becomes = TABLE.iter().find(|(words, _)| words.iter().all(|word| has(line, word))).map(|(_, to)| *to);
        if line.is_empty() || line.starts_with('#') || (becomes.is_none() && is_glue(line)) {
            continue;
        }
        mapped.push(ScriptMapping { file: file.to_owned(), line: n + 1, text: shown(line), becomes });
    }
    mapped
}

/// A line for display, masked if it may have a secret.
fn shown(line: &str) -> String {
    const SECRETS: &[&str] =
        &["token", "secret", "passw", "authorization", "credential", "api_key", "apikey", "-u ", "--user ", "sshpass"];
    let lower = line.to_ascii_lowercase();
    if SECRETS.iter().any(|word| lower.contains(word)) || line.contains("://") && line.contains('@') {
        return format!("{} ****", line.split([' ', '=', '\t']).next().unwrap_or_default());
    }
    line.to_owned()
}

/// Whether a line contains a word, not as the end of another one, like `zip ` in `gzip `.
fn has(line: &str, word: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    let starts_word = word.starts_with(|c: char| c.is_ascii_lowercase()) && word.contains(' ');
    line.match_indices(word).any(|(at, _)| !starts_word || !before(at).is_some_and(|c| c.is_alphanumeric() || c == '_'))
}

fn is_glue(line: &str) -> bool {
    let assigns = line.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    let is = |word: &&&str| line.starts_with(**word) || line == word.trim();
    assigns || line.ends_with("() {") || GLUE.iter().any(|word| is(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (line, shows) in [
            ("curl -H \"Circle-Token: CCIPAT_x\" https://circleci.com/api", "curl ****"),
            ("curl -u ana:pw https://x", "curl ****"),
            ("git push https://tok@github.com/a/b", "git ****"),
            ("AWS_SECRET_ACCESS_KEY=x aws s3 cp a s3://b", "AWS_SECRET_ACCESS_KEY ****"),
            ("sshpass -p pw scp app.tgz web1:", "sshpass ****"),
            ("scp app.tgz web1:", "scp app.tgz web1:"),
        ] {
            assert_eq!(shown(line), shows);
        }
    }

    #[test]
    fn lines_become_commands() {
        let script = "#!/bin/sh\nset -e\n\ncargo build --release\ntar czf app.tgz -C target/release app\ngzip -9 log\n\
                      NUM=$(curl -s $URL | grep LATEST_BUILD_NUM)\nscp app.tgz web1:\nssh web1 'sudo systemctl restart app'\n\
                      # done\nnpm run build\nif [ -n \"$X\" ]; then\nfi\n";
        let short = |it: &ScriptMapping| {
            format!("{}: {}", it.line, it.becomes.unwrap_or("?").split([':', ',']).next().unwrap())
        };
        assert_eq!(
            map("deploy.sh", script).iter().map(short).collect::<Vec<_>>(),
            [
                "4: cargo xtask build",
                "5: cargo xtask build",
                "6: ?",
                "7: cargo xtask deploy ENV",
                "8: cargo xtask deploy ENV",
                "9: cargo xtask deploy ENV",
                "11: ?",
            ]
        );
    }
}
