//! A project in a temporary directory: git, a workspace, targets, and the real command on it.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A project, and the settings that make its pipeline.
pub struct Project {
    dir: TempDir,
    settings: String,
    commits: AtomicU32,
    vars: Vec<(String, String)>,
}

/// What a command answered.
#[derive(Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Project {
    /// A git checkout of a workspace with one commit, a folder `www`, and two envs without a service.
    pub fn new() -> Self {
        let site =
            "include www\nstore file:store\nenv dev\ntarget file:srv/dev\nenv prod\ntarget file:srv/prod\napproval\n";
        let project = Self::bare(site);
        project.git(&["init", "--quiet", "--initial-branch", "main"]);
        project.commit("1");
        project
    }

    /// The same, with a service on a free port that the pidfile service keeps in both envs.
    pub fn with_service() -> Self {
        let (dev, prod) = (free_port(), free_port());
        let env = |name: &str, port: u16, more: &str| {
            format!(
                "env {name}\ntarget file:srv/{name}\nvar PORT={port}\npidfile bin/app\nhttp http://127.0.0.1:{port}/version|200|{{commit}}\n{more}"
            )
        };
        let project = Self::bare(&format!(
            "include www\ninclude bin/app\ninclude behavior\nstore file:store\n{}{}",
            env("dev", dev, ""),
            env("prod", prod, "approval\n")
        ));
        fs::create_dir(project.path("bin")).unwrap();
        fs::copy(test_app(), project.path("bin/app")).unwrap();
        project.write("behavior", "");
        project.git(&["init", "--quiet", "--initial-branch", "main"]);
        project.commit("1");
        project
    }

    /// A directory with a workspace and no git.
    pub fn bare(settings: &str) -> Self {
        let project = Self {
            dir: crate::record::tempdir(),
            settings: settings.to_owned(),
            commits: AtomicU32::new(0),
            vars: Vec::new(),
        };
        project.write("Cargo.toml", "[workspace]\nmembers = []\nresolver = \"3\"\n");
        project.write(".gitignore", "/target\n/store\n/srv\n/settings\n");
        project.write("www/index.html", "hello\n");
        project
    }

    /// Replaces a piece of the settings, which must be there.
    pub fn change(&mut self, from: &str, to: &str) {
        assert!(self.settings.contains(from), "no `{from}` in:\n{}", self.settings);
        self.settings = self.settings.replace(from, to);
    }

    /// Adds settings at the end.
    pub fn add(&mut self, settings: &str) {
        self.settings.push_str(settings);
    }

    /// Sets a variable for the commands that follow.
    pub fn var(&mut self, name: &str, value: &str) {
        self.vars.retain(|(known, _)| known != name);
        self.vars.push((name.into(), value.into()));
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn write_bytes(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Writes a program.
    pub fn write_program(&self, path: &str, text: &str) {
        self.write(path, text);
        fs::set_permissions(self.path(path), PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Moves a service, and what asks for its health, to another port.
    pub fn move_port(&mut self, from: u16, to: u16) {
        self.change(&format!("PORT={from}"), &format!("PORT={to}"));
        self.change(&format!(":{from}/"), &format!(":{to}/"));
    }

    /// Commits everything with `text` in `www/index.html`, a minute after the commit before. Gives the id.
    pub fn commit(&self, text: &str) -> String {
        self.write("www/index.html", &format!("{text}\n"));
        let n = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        self.git(&["add", "--all"]);
        let date = format!("2026-08-01T{:02}:{:02}:00Z", n / 60, n % 60);
        let mut git = self.git_command(&["commit", "--quiet", "--allow-empty", "--message", text]);
        git.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        assert!(git.status().unwrap().success());
        let sha = self.git(&["rev-parse", "HEAD"]);
        format!("20260801T{:02}{:02}00-{}", n / 60, n % 60, &sha[..7])
    }

    /// Commits and builds.
    pub fn release(&self, text: &str) -> String {
        let id = self.commit(text);
        self.run("build").ok();
        id
    }

    pub fn git(&self, args: &[&str]) -> String {
        let output = self.git_command(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn git_command(&self, args: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.args(args).current_dir(self.dir.path());
        as_somebody(&mut git);
        git
    }

    /// The command, ready to run: a clean environment with only PATH, HOME and what the test set.
    pub fn command(&self, line: &str) -> Command {
        // Not again when it already exists: another command may be reading it.
        if fs::read_to_string(self.path("settings")).ok().as_ref() != Some(&self.settings) {
            self.write("settings", &self.settings);
        }
        // `new` and `bench` are programs of their own.
        let mut command = match line.split(' ').next() {
            Some("bench") => Command::new(program("gangplank-bench")),
            Some("test") if line.contains("--retry") => Command::new(program("gangplank-suite")),
            _ => Command::new(env!("CARGO_BIN_EXE_xtask-fixture")),
        };
        command.args(split(line)).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("GANGPLANK_FIXTURE", self.path("settings")).env("USER", "ana");
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the command.
    pub fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[])
    }

    /// Runs the command with more variables.
    pub fn run_with(&self, line: &str, vars: &[(String, String)]) -> Ran {
        Ran::of(line, self.command(line).envs(vars.iter().map(|(name, value)| (name, value))))
    }

    /// Starts the command without waiting for it.
    pub fn start(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The id that `current` of a target points at.
    pub fn current(&self, target: &str) -> Option<String> {
        let link = fs::read_link(self.path(target).join("current")).ok()?;
        Some(link.to_str().unwrap().strip_prefix("releases/").unwrap().to_owned())
    }

    /// The text that `www/index.html` of the live release has.
    pub fn live(&self, target: &str) -> String {
        self.read(&format!("{target}/current/www/index.html")).trim().to_owned()
    }

    /// Port of an env's service.
    pub fn port(&self, env: &str) -> u16 {
        let after = self.settings.split(&format!("env {env}\n")).nth(1).unwrap();
        after.split("var PORT=").nth(1).unwrap().lines().next().unwrap().parse().unwrap()
    }

    /// What the service of an env answers to `GET /`, or why it does not.
    pub fn get(&self, env: &str) -> Result<String, String> {
        get("127.0.0.1", self.port(env))
    }
}

/// What `/` of a service answers.
pub fn get(host: &str, port: u16) -> Result<String, String> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect((host, port)).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").map_err(|e| e.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
    let body = text.split_once("\r\n\r\n").ok_or("no answer")?.1;
    Ok(body.trim().to_owned())
}

impl Drop for Project {
    /// Leaves no process behind, whatever the test did.
    fn drop(&mut self) {
        end_all_kept(&self.path("srv"));
    }
}

/// Gives git a name to commit under, and nothing that this machine has set.
pub fn as_somebody(command: &mut Command) {
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Test").env(format!("GIT_{who}_EMAIL"), "test@example.com");
    }
}

/// Ends what the pidfile service has started for any of the targets in a directory.
pub fn end_all_kept(targets: &Path) {
    for target in fs::read_dir(targets).into_iter().flatten().flatten() {
        end_kept(&target.path());
    }
}

/// Ends what the pidfile service of a target has started.
pub fn end_kept(target: &Path) {
    let kept = fs::read_to_string(target.join("service/process")).unwrap_or_default();
    if let Some(group) = kept.split(' ').nth(2).filter(|group| *group != "-") {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
    }
}

impl Ran {
    /// What a command answers. `line` is what it is called in messages.
    pub fn of(line: &str, command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            line: line.to_owned(),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// It ended with this exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "`{}`\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self
    }

    /// The answer on stdout, whole.
    #[track_caller]
    pub fn stdout_is(self, stdout: &str) -> Self {
        assert_eq!(self.stdout, stdout, "`{}`\nstderr: {}", self.line, self.stderr);
        self
    }

    /// A piece of stdout.
    #[track_caller]
    pub fn stdout_has(self, piece: &str) -> Self {
        assert!(
            self.stdout.contains(piece),
            "`{}` does not say `{piece}`\nstdout: {}\nstderr: {}",
            self.line,
            self.stdout,
            self.stderr
        );
        self
    }

    /// No such piece of stdout.
    #[track_caller]
    pub fn stdout_lacks(self, piece: &str) -> Self {
        assert!(!self.stdout.contains(piece), "`{}` says `{piece}`\nstdout: {}", self.line, self.stdout);
        self
    }

    /// A piece of stderr.
    #[track_caller]
    pub fn stderr_has(self, piece: &str) -> Self {
        assert!(
            self.stderr.contains(piece),
            "`{}` does not tell `{piece}`\nstdout: {}\nstderr: {}",
            self.line,
            self.stdout,
            self.stderr
        );
        self
    }

    /// No such piece of stderr.
    #[track_caller]
    pub fn stderr_lacks(self, piece: &str) -> Self {
        assert!(!self.stderr.contains(piece), "`{}` tells `{piece}`\nstderr: {}", self.line, self.stderr);
        self
    }

    /// It failed with this exit code, this piece in its `error:` line and this one in its `hint:` line, and it said
    /// nothing on stdout.
    #[track_caller]
    pub fn fails(self, code: i32, error: &str, hint: &str) -> Self {
        let ran = self.code(code).stdout_is("");
        let errors = format!("\n{}", ran.stderr)
            .rsplit("\nerror: ")
            .next()
            .unwrap_or_default()
            .split("\nhint: ")
            .next()
            .unwrap_or_default()
            .to_owned();
        let hints = ran.stderr.rsplit("\nhint: ").next().unwrap_or_default().to_owned();
        assert!(errors.contains(error), "`{}`: no `{error}` in its error\nstderr: {}", ran.line, ran.stderr);
        assert!(
            !hint.is_empty() && hints.contains(hint),
            "`{}`: no `{hint}` in its hint\nstderr: {}",
            ran.line,
            ran.stderr
        );
        ran
    }
}

/// Words of a command line; single quotes keep spaces together.
fn split(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    let mut words = Vec::new();
    for (n, part) in quoted {
        if n % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// A port that nothing listens on now, and that no other test of this process gets.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + u16::try_from(std::process::id() % 97).unwrap() * 120 + n;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The service of `tests/app`, compiled once.
pub fn test_app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (source, app) = (root().join("tests/app/main.rs"), dir.join("test-app"));
        let newer = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
        if newer(&app) < newer(&source) {
            // Staging and renamed, because another test run may do the same.
            let aside = dir.join(format!("test-app-{}", std::process::id()));
            let rustc =
                Command::new("rustc").args(["--edition=2024", "-O", "-o"]).arg(&aside).arg(&source).status().unwrap();
            assert!(rustc.success());
            fs::rename(&aside, &app).unwrap();
        }
        app
    })
}

/// Root of this repository.
/// The sample app, as this workspace builds it.
pub fn sample_app() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let built = Command::new(cargo).args(["build", "--quiet", "--package", "app"]).current_dir(root()).status();
        assert!(built.unwrap().success());
    });
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("debug/app")
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program of another package of this workspace, with the features of the test run.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--all-features", "--bins"]).current_dir(root());
        for (name, _) in std::env::vars().filter(|(name, _)| gangplank_system::context::is_cargos_own(name)) {
            cargo.env_remove(name);
        }
        assert!(cargo.status().unwrap().success(), "the programs are built");
    });
    Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name(name)
}

/// Runs a program of the words after it until its stdin is closed, which this process holds: however the tests end, it does
/// too.
pub const ENDS_WITH_TESTS: &str = "\"$@\" >/dev/null 2>&1 & cat >/dev/null; kill $!; wait";

/// Runs a program and gives what it prints.
pub fn output_of(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    // A filter prints while it still reads.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    let said = || [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    assert!(output.status.success(), "{program} {args:?}: {}", said());
    output.stdout
}

#[cfg(feature = "s3")]
pub fn base64(bytes: &[u8]) -> String {
    String::from_utf8(output_of("openssl", &["base64", "-A"], bytes)).unwrap().trim().to_owned()
}

pub fn base64_decoded(text: &str) -> Vec<u8> {
    output_of("openssl", &["base64", "-d", "-A"], text.as_bytes())
}

/// Waits until `done`, and fails the test after half a minute.
#[track_caller]
pub fn eventually(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
