//! The project definition: constants in `xtask/src/main.rs`, checked by the compiler.

mod extras;
mod vars;

pub use crate::project::vars::expand;
pub use crate::release::manifest::Compression;

use crate::error::{CliError, Result, usage};
use crate::hook::Hook;
use crate::notify::Notify;
use crate::site::Site;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The definition of a project.
#[derive(Debug, Clone, Copy)]
pub struct Project {
    /// The app.
    pub app: App,
    /// The stores, in the order in which a deploy searches them: `file:DIR`, `circleci:workspace`. Relative directories
    /// are relative to the workspace root.
    pub stores: &'static [&'static str],
    /// The envs, in the order in which a workflow deploys to them.
    pub envs: &'static [Env],
    /// The settings for CircleCI.
    pub ci: Ci,
}

/// The contents of a bundle.
#[derive(Debug, Clone, Copy)]
pub struct App {
    /// Name of the app: letters, digits, `-` and `_`. Part of the bundle's name.
    pub name: &'static str,
    /// Cargo packages whose binaries are built into `bin/`. Empty for a site without a program.
    pub packages: &'static [&'static str],
    /// Additional features to build and test with, each as `PACKAGE/FEATURE`. A binary with `required-features` is
    /// built only with them.
    pub features: &'static [&'static str],
    /// Files, directories or globs relative to the workspace root. A path below a package's directory loses that prefix
    /// in the bundle (`app/static/index.html` becomes `static/index.html`); others keep theirs.
    pub include: &'static [&'static str],
    /// Of these, files that a step of the build generates: paths or globs. Other files ignored by git are refused.
    pub generated: &'static [&'static str],
    /// The compression of the bundle.
    pub compression: Compression,
}

impl App {
    /// Defaults: a `tar.gz`. `name` and the contents are required.
    pub const DEFAULT: Self =
        Self { name: "", packages: &[], features: &[], include: &[], generated: &[], compression: Compression::Gzip };
}

/// An environment that the app runs in.
#[derive(Debug, Clone, Copy)]
pub struct Env {
    /// `dev`, `prod`, ...: letters, digits and `-`.
    pub name: &'static str,
    /// One URL per host: `ssh://USER@HOST/DIR` or `file:DIR`.
    pub targets: &'static [&'static str],
    /// Environment variables of the service. A value may contain `${NAME}` or `${NAME:-default}`, expanded from the
    /// environment of the deploy.
    pub vars: &'static [(&'static str, &'static str)],
    /// How the app is started after a switch.
    pub service: Service,
    /// The health check.
    pub health: Health,
    /// Number of good releases kept on a host for rollback, including the live one. At least 2.
    pub keep: usize,
    /// Whether deploys need approval: an approval job in CircleCI, a question on a terminal. Dirty trees are refused.
    pub approval: bool,
    /// The CircleCI context with this env's secrets.
    pub context: Option<&'static str>,
    /// How releases are transferred to the hosts.
    pub transfer: Transfer,
    /// The order in which the hosts are switched.
    pub strategy: Strategy,
    /// The most hosts to switch at once, whatever the strategy; `None` for no limit.
    pub max_unavailable: Option<usize>,
    /// Paths shared by all releases: `uploads/` is a directory, created if missing; `config/local.toml` is a file,
    /// which must exist. They are stored in `shared/` of a target.
    pub shared: &'static [&'static str],
    /// The project's actions around a switch.
    pub hooks: &'static [Hook],
    /// How targets `site+...` serve a release.
    pub site: Site,
    /// The recipients of notifications of deploys, failures and approvals.
    pub notify: &'static [Notify],
    /// Who may sign what is deployed here: public keys (`ssh-ed25519 AAAA... NAME`), or paths of files in the format of
    /// `allowed_signers`. None: releases need no signature.
    pub require_signature: &'static [&'static str],
}

impl Env {
    /// Defaults: no service, no check, five releases kept, no approval. `name` and `targets` are required.
    pub const DEFAULT: Self = Self {
        name: "",
        targets: &[],
        vars: &[],
        service: Service::None,
        health: Health::NONE,
        keep: 5,
        approval: false,
        context: None,
        transfer: Transfer::Push,
        strategy: Strategy::Batches(1),
        max_unavailable: None,
        shared: &[],
        hooks: &[],
        site: Site::DEFAULT,
        notify: &[],
        require_signature: &[],
    };
}

/// The order in which the hosts of an env are switched, after the install on all of them. Each wave must be healthy
/// before the next starts; otherwise all switched hosts are reverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// All at once.
    All,
    /// This many first, then all others at once.
    Canary(usize),
    /// This many at a time.
    Batches(usize),
    /// This percentage at a time, rounded up.
    Percent(u8),
}

/// How a release is transferred to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// The machine that deploys downloads the bundle, verifies it, and sends it to each host.
    Push,
    /// Each host downloads the bundle with a temporary URL of the store, and verifies it. Needs `curl` or GNU `wget` on
    /// the host, and a bucket that can sign URLs; otherwise the bundle is sent, with a warning.
    Pull,
}

/// How the app is started and stopped on a target.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    /// No service: another program serves `current`.
    None,
    /// The built-in pidfile service, for machines without a service manager: pid file, log, SIGTERM, then start.
    Pidfile {
        /// Program and arguments, relative to the release: `&["bin/app"]`.
        run: &'static [&'static str],
        /// How long the old process may take to stop before it is killed.
        stop_timeout: Duration,
    },
    /// A systemd unit of the host, generated and installed by the deploy. `vars` are passed in a file that only the
    /// deploy's login can read.
    Systemd {
        /// The name without `.service`. Each target of one host needs its own.
        unit: &'static str,
        /// The systemd instance.
        manager: Manager,
        /// Program and arguments: `&["bin/app"]`, relative to the release.
        run: &'static [&'static str],
        /// Additional lines of the `[Service]` section: `MemoryMax=512M`, `User=shop`.
        lines: &'static [&'static str],
        /// How long the old process may take to stop before it is killed.
        stop_timeout: Duration,
        /// What happens to connections during a restart.
        handover: SocketActivation,
    },
    /// Commands for the host's own service manager, run by `sh` in the root of the target with `vars` set.
    Command {
        /// Starts or restarts the service from `current`; must return only when the old process is gone.
        restart: &'static str,
        /// Stops the service, to revert a first deploy.
        stop: &'static str,
        /// Exits with 0 while the service runs.
        status: &'static str,
        /// Prints the last `$LINES` lines of its log, and follows it if `$FOLLOW` is 1.
        log: &'static str,
    },
}

/// The systemd instance of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// That of the deploy's login (`systemctl --user`). Needs no root, except for one `loginctl enable-linger`.
    User,
    /// That of the system, with root as the deploy's login.
    System,
    /// That of the system, with `sudo -n`. A login that may install units has full control; see docs/hosts.md.
    Sudo,
}

impl Manager {
    /// The word for messages and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System | Self::Sudo => "system",
        }
    }
}

/// What happens to connections during a restart of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketActivation {
    /// Refused from the end of the old process until the new one listens.
    Restart,
    /// systemd listens at these addresses (`ListenStream=`, e.g. `8080` or `127.0.0.1:8080`) and passes the sockets, so
    /// that connections wait. The app must accept them (`LISTEN_FDS`) and end on SIGTERM after its last response.
    Sockets(&'static [&'static str]),
}

/// A health check and its timing.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    /// The check.
    pub check: Check,
    /// How long the service may take to become healthy.
    pub deadline: Duration,
    /// The pause between two requests.
    pub interval: Duration,
    /// Number of passes in a row that make it healthy.
    pub passes: u32,
}

/// The kind of a health check.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// No check: a release is healthy once it is switched and its service has started.
    None,
    /// An HTTP GET from the machine that deploys. `url` may contain `${NAME:-default}` like `vars`.
    Http {
        /// The URL; `{host}` stands for the host of each target.
        url: &'static str,
        /// The required status.
        status: u16,
        /// Text that the body must contain; `{commit}` stands for the full SHA of the release.
        body: Option<&'static str>,
    },
    /// A TCP connection to `host:port`; may contain `${NAME:-default}`.
    Tcp {
        /// The address; `{host}` stands for the host of each target.
        addr: &'static str,
    },
    /// A command, run by `sh` in the `current` directory of the target; healthy when it exits with 0.
    Command(&'static str),
}

impl Check {
    /// What it asks, in one line; `None` if it asks nothing.
    pub fn describe(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Http { url, status, body } => {
                let body = body.map_or(String::new(), |body| format!(" with `{body}`"));
                Some(format!("GET {url} is {status}{body}"))
            }
            Self::Tcp { addr } => Some(format!("{addr} accepts a connection")),
            Self::Command(command) => Some(format!("`{command}` exits with 0")),
        }
    }
}

impl Health {
    /// No check.
    pub const NONE: Self = Self::new(Check::None);

    /// A check with the default timing: 30 s, every 250 ms, two passes in a row.
    pub const fn new(check: Check) -> Self {
        Self { check, deadline: Duration::from_secs(30), interval: Duration::from_millis(250), passes: 2 }
    }
}

/// How CircleCI runs the pipeline.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Ci {
    /// Only commits of this branch are deployed.
    pub branch: &'static str,
    /// Image of the jobs that compile.
    pub rust_image: &'static str,
    /// Image of the jobs that deploy, which need no Rust.
    pub deploy_image: &'static str,
    /// Resource class of the jobs that compile.
    pub resource_class: &'static str,
    /// How releases get from the build job to the deploy jobs.
    pub handoff: Handoff,
    /// The CircleCI context with `CIRCLE_TOKEN`, for the jobs that use CircleCI's API.
    pub context: Option<&'static str>,
    /// The project's slug in the API, e.g. `gh/acme/shop`; derived from git's remote if `None`.
    pub slug: Option<&'static str>,
    /// Branches, each with the project variable for the number of its latest build.
    pub pointers: &'static [(&'static str, &'static str)],
    /// Whether jobs on request run the program that the job `check` stored as an artifact, if it was compiled from the
    /// same source, instead of compiling it. Needs the vendored crate `xtask/crates/launch`, and `CIRCLE_TOKEN` in
    /// `context`; costs some 20 MB of artifacts a pipeline.
    pub launch: bool,
    /// Whether each deploy job ends with `cargo xtask report`, whose page is among the job's artifacts. Everyone who may
    /// read the artifacts sees the names of hosts, users and files.
    pub report: bool,
    /// The CircleCI context with `GANGPLANK_SIGNING_KEY`, with which the pipeline signs each release.
    pub sign: Option<&'static str>,
    /// Whether `test` fails for code that rustfmt would change.
    pub format: bool,
    /// Whether `test` fails for a warning of clippy or rustdoc; errors always fail it.
    pub deny_warnings: bool,
}

/// How releases get from the build job to the deploy jobs, which determines the workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handoff {
    /// One workflow, from build to production, with CircleCI's workspace.
    Workspace,
    /// A workflow per env that needs approval, and one on request, with CircleCI's artifacts.
    Artifacts,
    /// The same workflows, with a bucket.
    S3,
}

impl Handoff {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Workspace, Self::Artifacts, Self::S3];

    /// The word as typed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Artifacts => "artifacts",
            Self::S3 => "s3",
        }
    }
}

impl FromStr for Handoff {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|handoff| handoff.as_str() == text) {
            Some(handoff) => Ok(handoff),
            None => usage(format!("no handoff `{text}`")).hint("use one of: workspace, artifacts, s3").err(),
        }
    }
}

impl Ci {
    /// Defaults: pinned images, a `medium` machine, branch `main`, one workflow, every check.
    pub const DEFAULT: Self = Self {
        branch: "main",
        rust_image: "cimg/rust:1.94.0",
        deploy_image: "cimg/base:2026.07",
        resource_class: "medium",
        handoff: Handoff::Workspace,
        context: None,
        slug: None,
        pointers: &[("main", "LATEST_BUILD_NUM")],
        launch: false,
        report: true,
        sign: None,
        format: true,
        deny_warnings: true,
    };
}

impl Project {
    /// The env of that name.
    pub fn env(&self, name: &str) -> Result<&Env> {
        let names: Vec<_> = self.envs.iter().map(|env| env.name).collect();
        match self.envs.iter().find(|env| env.name == name) {
            Some(env) => Ok(env),
            None => usage(format!("no env `{name}` in this project"))
                .hint(format!("use one of: {}", names.join(", ")))
                .err(),
        }
    }

    /// Checks what the compiler cannot: names that become file names, keys and URLs.
    pub fn validate(&self) -> Result<()> {
        if !word(self.app.name) {
            return wrong(
                format!("app name `{}` cannot be part of a file name", self.app.name),
                "use letters, digits, `-` and `_`",
            );
        }
        for (index, env) in self.envs.iter().enumerate() {
            if !word(env.name) {
                return wrong(
                    format!("env name `{}` cannot be a job name", env.name),
                    "use letters, digits, `-` and `_`",
                );
            }
            if ["-on-request", "-on-approval"].iter().any(|end| env.name.ends_with(end)) {
                return wrong(
                    format!("env name `{}` has a suffix reserved for generated jobs", env.name),
                    "use another name for the env",
                );
            }
            if self.envs[..index].iter().any(|other| other.name == env.name) {
                return wrong(format!("env `{}` is defined twice", env.name), "use different names");
            }
            if env.keep < 2 {
                return wrong(
                    format!("env `{}` keeps {} release(s): nothing to roll back to", env.name, env.keep),
                    "set `keep` to 2 or more",
                );
            }
            if env.targets.is_empty() {
                return wrong(format!("env `{}` has no targets", env.name), "add one, e.g. \"file:target/deploy/dev\"");
            }
            for (n, target) in env.targets.iter().enumerate() {
                let same = |other: &&&str| other.trim_end_matches('/') == target.trim_end_matches('/');
                if env.targets[..n].iter().any(|other| same(&other)) {
                    return wrong(format!("env `{}` has target {target} twice", env.name), "list each target once");
                }
                if let Some(other) = self.envs[..index].iter().find(|other| other.targets.iter().any(|it| same(&it))) {
                    return wrong(
                        format!("envs `{}` and `{}` have the same target {target}", other.name, env.name),
                        "give each env a directory of its own: each would replace what the other made live",
                    );
                }
            }
            if let Some((bad, _)) = env.vars.iter().find(|(var, _)| !is_variable(var)) {
                return wrong(format!("env `{}` has a variable `{bad}`", env.name), "use letters, digits and `_`");
            }
            env.vars.iter().try_for_each(|(_, value)| vars::validate(value))?;
            if let Check::Http { url: text, .. } | Check::Tcp { addr: text } = env.health.check {
                vars::validate(text)?;
            }
            env.service.validate(env)?;
            env.validate_extras()?;
        }
        self.ci.validate()
    }
}

impl Service {
    fn validate(&self, env: &Env) -> Result<()> {
        if let Self::Pidfile { run: [], .. } | Self::Systemd { run: [], .. } = self {
            return wrong(
                format!("env `{}` starts a service without a command", env.name),
                "set `run`, e.g. &[\"bin/app\"]",
            );
        }
        let Self::Systemd { unit, manager, run, lines, handover, .. } = *self else { return Ok(()) };
        if !word(&unit.replace(['.', '@'], "")) || unit.ends_with(".service") {
            return wrong(
                format!("env `{}` has a unit `{unit}`", env.name),
                "use letters, digits, `-`, `_`, `.` and `@`, without `.service`",
            );
        }
        let sockets = if let SocketActivation::Sockets(sockets) = handover { sockets } else { &[] };
        let broken = |text: &&&str| text.contains(['\n', '\r', '\0']);
        if let Some(bad) = [run, lines, sockets].into_iter().flatten().find(broken) {
            return wrong(
                format!("unit `{unit}` has a value of several lines: {bad:?}"),
                "write each line as a separate value",
            );
        }
        // systemd and shells quote paths differently.
        if let Some(target) = env.targets.iter().find(|target| target.contains(['"', '\\', '$', '\''])) {
            return wrong(
                format!("unit `{unit}` cannot run in {target}"),
                "use a directory without quotes, `$` and `\\`",
            );
        }
        if run[0].contains(['"', '\\', '$']) {
            return wrong(format!("unit `{unit}` cannot run {}", run[0]), "use a path without quotes, `$` and `\\`");
        }
        if manager == Manager::System && !lines.iter().any(|line| line.starts_with("User=")) {
            return wrong(
                format!("unit `{unit}` would run as root"),
                "set the user in `lines`, e.g. \"User=shop\", or \"User=root\" if intended",
            );
        }
        if matches!((handover, env.health.check), (SocketActivation::Sockets(_), Check::Tcp { .. })) {
            return wrong(
                format!("the health check of env `{}` would be answered by systemd", env.name),
                "use `Check::Http` or `Check::Command` where systemd holds the sockets",
            );
        }
        let port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        let address =
            |text: &str| port(text) || text.starts_with('/') || text.rsplit_once(':').is_some_and(|(_, it)| port(it));
        if let Some(bad) = sockets.iter().find(|text| !address(text) || text.contains(' ')) {
            return wrong(
                format!("unit `{unit}` cannot listen at `{bad}`"),
                "write a port, an address with a port, or an absolute path",
            );
        }
        if handover == SocketActivation::Sockets(&[]) {
            return wrong(format!("unit `{unit}` has no sockets"), "name an address, e.g. \"8080\"");
        }
        Ok(())
    }
}

impl Ci {
    fn validate(&self) -> Result<()> {
        if self.branch.is_empty() || self.branch.contains(['"', '\\']) {
            return wrong(format!("branch `{}` is not valid in a config", self.branch), "set the branch to deploy");
        }
        for (n, (branch, variable)) in self.pointers.iter().enumerate() {
            if branch.is_empty() {
                return wrong(format!("pointer `{variable}` has no branch"), "set the branch of its builds");
            }
            if !is_variable(variable) {
                return wrong(
                    format!("pointer `{variable}` of branch {branch} cannot be a project variable"),
                    "use letters, digits and `_`",
                );
            }
            if self.pointers[..n].iter().any(|(_, other)| other == variable) {
                return wrong(format!("pointer `{variable}` is defined twice"), "use a different variable per branch");
            }
        }
        Ok(())
    }
}

fn wrong(what: String, rule: &str) -> Result<()> {
    usage(what).hint(format!("{rule}; see xtask/src/main.rs")).err()
}

fn word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether the text is a valid name of a shell variable.
fn is_variable(text: &str) -> bool {
    word(text) && !text.contains('-') && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The error for a directory that starts with `~`, which only a shell expands.
pub fn no_tilde(what: &str) -> CliError {
    usage(format!("{what}: `~` is not expanded"))
        .hint("write the full path; `echo ~` prints your home directory, `ssh HOST 'echo ~'` that on a host")
}

/// The directory of a `file:` URL; relative ones are relative to `home`, and `file:///srv/app` is `/srv/app`.
pub fn local_dir(home: &Path, dir: &str) -> PathBuf {
    let dir = dir.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(dir);
    home.join(dir)
}
