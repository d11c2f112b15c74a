//! The project as its `xtask/src/main.rs` states it: constants, checked by the compiler, no file format to learn.

mod vars;

pub use crate::project::vars::expand;
pub use crate::release::manifest::Compression;

use crate::error::{CliError, Result, usage};
use crate::hook::Hook;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Everything that a user decides about the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Project {
    /// What is built.
    pub app: App,
    /// Where releases are handed over, in the order in which a deploy looks for them: `file:DIR`,
    /// `circleci:workspace`. Relative directories are relative to the workspace root.
    pub stores: &'static [&'static str],
    /// Where releases are deployed, in the order in which a workflow deploys them.
    pub envs: &'static [Env],
    /// How CircleCI runs it.
    pub ci: Ci,
}

/// What goes into a bundle.
#[derive(Debug, Clone, Copy)]
pub struct App {
    /// Name of the app: letters, digits, `-` and `_`. It is in the name of the bundle.
    pub name: &'static str,
    /// Cargo packages whose binaries are built and placed in `bin/`. Empty for a site without a program.
    pub packages: &'static [&'static str],
    /// Features with which they are built and tested, each as `PACKAGE/FEATURE`, besides the default ones. A binary with
    /// `required-features` is built only with them.
    pub features: &'static [&'static str],
    /// Files, directories or globs relative to the workspace root. A path below a package's directory loses
    /// that prefix in the bundle (`app/static/index.html` becomes `static/index.html`); others keep theirs.
    pub include: &'static [&'static str],
    /// Of these, what no commit holds because a step of the build makes it: paths or globs. Other files that git ignores
    /// are refused.
    pub generated: &'static [&'static str],
    /// How the bundle is compressed.
    pub compression: Compression,
}

impl App {
    /// A `tar.gz`. `name` has to be given, and what is packed.
    pub const DEFAULT: Self =
        Self { name: "", packages: &[], features: &[], include: &[], generated: &[], compression: Compression::Gzip };
}

/// A place where the app runs.
#[derive(Debug, Clone, Copy)]
pub struct Env {
    /// `dev`, `prod`, ...: letters, digits and `-`.
    pub name: &'static str,
    /// One URL for each host: `ssh://USER@HOST/DIR` or `file:DIR`.
    pub targets: &'static [&'static str],
    /// Environment variables of the service. A value may hold `${NAME}` or `${NAME:-default}`, filled in from the
    /// environment of the deploy.
    pub vars: &'static [(&'static str, &'static str)],
    /// How the app is started after a switch.
    pub service: Service,
    /// How we know that it works.
    pub health: Health,
    /// How many good releases stay on a host for rollback, the live one included. At least 2.
    pub keep: usize,
    /// Whether a person has to say yes: an approval job in CircleCI, a question on a terminal. Dirty trees never go here.
    pub approval: bool,
    /// CircleCI context with this env's secrets.
    pub context: Option<&'static str>,
    /// How a release gets to the hosts.
    pub transfer: Transfer,
    /// In which order the hosts are switched.
    pub strategy: Strategy,
    /// How many hosts may be switched at once, whatever the strategy says; all, when left out.
    pub max_unavailable: Option<usize>,
    /// Paths of a release that are the same in all of them: `uploads/` is a directory, made when it is not there;
    /// `config/local.toml` a file, which has to be. They live in `shared/` of a target.
    pub shared: &'static [&'static str],
    /// What the project does of its own around a switch.
    pub hooks: &'static [Hook],
}

impl Env {
    /// No service and no check, the last five releases kept, nobody asked. `name` and `targets` have to be given.
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
    };
}

/// In which order the hosts of an env are switched, once all of them have the release. Each wave has to be healthy before
/// the next begins; when one is not, every host that was switched goes back, and the others are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// All at once.
    All,
    /// So many first, then all others at once.
    Canary(usize),
    /// So many at a time, so that no more are down at once.
    Batches(usize),
    /// The same as a share of all, in percent, rounded up.
    Percent(u8),
}

/// How the bytes of a release get to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Whoever deploys fetches the bundle, checks it, and sends it to each host.
    Push,
    /// Each host fetches the bundle itself, by a URL of the store that expires, and checks it. The host needs `curl` or
    /// GNU `wget`, and a store that can sign URLs (a bucket); without one it is sent, and that is said.
    Pull,
}

/// How the app is started and stopped on a target.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    /// Nothing to start: another program serves `current`.
    None,
    /// The built-in pidfile service, for machines without a service manager: pid file, log, SIGTERM, then start.
    Pidfile {
        /// Program and arguments, relative to the release: `&["bin/app"]`.
        run: &'static [&'static str],
        /// How long the old process may take to stop before it is killed.
        stop_timeout: Duration,
    },
    /// A unit of the host's systemd, written and installed by the deploy. `vars` reach it by a file that only the login
    /// of the deploy can read.
    Systemd {
        /// Its name, without `.service`. Each target of one host needs its own.
        unit: &'static str,
        /// Whose systemd.
        manager: Manager,
        /// Program and arguments: `&["bin/app"]`, relative to the release.
        run: &'static [&'static str],
        /// More lines of its `[Service]` section: `MemoryMax=512M`, `User=shop`.
        lines: &'static [&'static str],
        /// How long the old process may take to stop before it is killed.
        stop_timeout: Duration,
        /// What happens to connections in the meantime.
        handover: SocketActivation,
    },
    /// Commands of the host's own service manager, run by `sh` in the root of the target with `vars` set.
    Command {
        /// Starts or restarts the service from `current`; must return only when the old one is gone.
        restart: &'static str,
        /// Stops the service, used when a first deploy is taken back.
        stop: &'static str,
        /// Exits with 0 while the service runs.
        status: &'static str,
        /// Prints the last `$LINES` lines of its log, and goes on when `$FOLLOW` is 1.
        log: &'static str,
    },
}

/// Whose systemd runs a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// That of the login of the deploy (`systemctl --user`): nothing needs root, but `loginctl enable-linger` once.
    User,
    /// That of the system, and the login of the deploy is root.
    System,
    /// That of the system, by `sudo -n`. Whoever may install a unit may do everything; see docs/hosts.md.
    Sudo,
}

impl Manager {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System | Self::Sudo => "system",
        }
    }
}

/// What happens to connections while a unit is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketActivation {
    /// They are refused from the end of the old process until the new one listens.
    Restart,
    /// systemd listens at these addresses (`ListenStream=`, e.g. `8080` or `127.0.0.1:8080`) and hands the sockets over, so
    /// that connections wait. The app has to take them (`LISTEN_FDS`) and to end on SIGTERM once it has answered.
    Sockets(&'static [&'static str]),
}

/// A health check with its patience.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// How long the service may take to become healthy.
    pub deadline: Duration,
    /// The pause between two questions.
    pub interval: Duration,
    /// How many passes in a row make it healthy.
    pub passes: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// Nothing: a release counts as healthy once it is switched and its service has started.
    None,
    /// An HTTP GET from the machine that deploys. `url` takes `${NAME:-default}` as `vars` do.
    Http {
        /// The URL; `{host}` stands for the host of each target.
        url: &'static str,
        /// The status that it must answer with.
        status: u16,
        /// Text that the body must hold; `{commit}` stands for the full SHA of the release.
        body: Option<&'static str>,
    },
    /// A TCP connection to `host:port`; takes `${NAME:-default}`.
    Tcp {
        /// The address; `{host}` stands for the host of each target.
        addr: &'static str,
    },
    /// A command, run by `sh` in the `current` directory of the target; healthy when it exits with 0.
    Command(&'static str),
}

impl Health {
    /// No check at all.
    pub const NONE: Self = Self::new(Check::None);

    /// A check with the usual patience: 30 s, every 250 ms, two passes in a row.
    pub const fn new(check: Check) -> Self {
        Self { check, deadline: Duration::from_secs(30), interval: Duration::from_millis(250), passes: 2 }
    }
}

/// How CircleCI runs the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Ci {
    /// Only commits of this branch are deployed.
    pub branch: &'static str,
    /// Image of the jobs that compile.
    pub rust_image: &'static str,
    /// Image of the jobs that deploy: they need no Rust.
    pub deploy_image: &'static str,
    /// Resource class of the jobs that compile.
    pub resource_class: &'static str,
    /// How releases get from the job that builds to the jobs that deploy.
    pub handoff: Handoff,
    /// CircleCI context with the `CIRCLE_TOKEN` of the jobs that ask CircleCI's API.
    pub context: Option<&'static str>,
    /// Slug of the project in the API, e.g. `gh/acme/shop`; without one it follows from git's remote.
    pub slug: Option<&'static str>,
    /// Branches, each with the project variable that holds the number of its latest build.
    pub pointers: &'static [(&'static str, &'static str)],
    /// Whether code that rustfmt would change fails `test`.
    pub format: bool,
    /// Whether a warning of clippy or rustdoc fails `test`; errors always do.
    pub deny_warnings: bool,
}

/// How releases get from the job that builds to the jobs that deploy, and so which workflows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handoff {
    /// One workflow, from build to production: CircleCI's workspace hands over.
    Workspace,
    /// A workflow for each env that waits for a person, and one on request: CircleCI's artifacts hand over.
    Artifacts,
    /// The same workflows, with a bucket that keeps releases.
    S3,
}

impl Handoff {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Workspace, Self::Artifacts, Self::S3];

    /// The word as it is typed.
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
    /// Images with pinned tags, a `medium` machine, branch `main`, everything in one workflow, every check.
    pub const DEFAULT: Self = Self {
        branch: "main",
        rust_image: "cimg/rust:1.94.0",
        deploy_image: "cimg/base:2026.07",
        resource_class: "medium",
        handoff: Handoff::Workspace,
        context: None,
        slug: None,
        pointers: &[("main", "LATEST_BUILD_NUM")],
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

    /// What the compiler cannot check: names that become file names, keys and URLs.
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
                    format!("env name `{}` ends like a job or workflow of ours", env.name),
                    "give the env another name",
                );
            }
            if self.envs[..index].iter().any(|other| other.name == env.name) {
                return wrong(format!("env `{}` is there twice", env.name), "give each env its own name");
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
                    return wrong(format!("env `{}` has target {target} twice", env.name), "name each target once");
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

impl Env {
    fn validate_extras(&self) -> Result<()> {
        let env = self.name;
        let inside = |path: &str| {
            let mut parts = path.trim_end_matches('/').split('/');
            let plain = parts.all(|part| !matches!(part, "" | "." | ".." | ".gangplank"));
            plain && !path.contains(['\n', '\0'])
        };
        if let Some(bad) = self.shared.iter().find(|path| !inside(path)) {
            return wrong(format!("env `{env}` shares `{bad}`"), "name a path inside the release, e.g. \"uploads/\"");
        }
        let name = |path: &'static str| path.trim_end_matches('/');
        let nested = |a: &str, b: &str| a == b || b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
        for (n, one) in self.shared.iter().enumerate() {
            let others = self.shared.iter().enumerate().filter(|(other, _)| *other != n);
            if let Some((_, other)) =
                others.map(|(at, other)| (at, name(other))).find(|(_, other)| nested(name(one), other))
            {
                return wrong(format!("env `{env}` shares `{other}` in `{one}`"), "the outer one alone is enough");
            }
        }
        for (n, hook) in self.hooks.iter().enumerate() {
            if !word(hook.name) || self.hooks[..n].iter().any(|other| other.name == hook.name) {
                return wrong(
                    format!("env `{env}` has a hook `{}`", hook.name),
                    "give each hook its own name of letters, digits, `-` and `_`",
                );
            }
        }
        if self.max_unavailable == Some(0) {
            return wrong(format!("env `{env}` may switch no host"), "set `max_unavailable` to 1 or more");
        }
        Ok(())
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
                format!("unit `{unit}` has a text of several lines: {bad:?}"),
                "write each line as a text of its own",
            );
        }
        // What systemd reads in a path is not what a shell does.
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
                "say as whom in `lines`, e.g. \"User=shop\", or \"User=root\" if that is meant",
            );
        }
        if matches!((handover, env.health.check), (SocketActivation::Sockets(_), Check::Tcp { .. })) {
            return wrong(
                format!("the health check of env `{}` would be answered by systemd itself", env.name),
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
            return wrong(format!("unit `{unit}` has no sockets to hand over"), "name an address, e.g. \"8080\"");
        }
        Ok(())
    }
}

impl Ci {
    fn validate(&self) -> Result<()> {
        if self.branch.is_empty() || self.branch.contains(['"', '\\']) {
            return wrong(
                format!("branch `{}` cannot stand in a config", self.branch),
                "name the branch that is deployed",
            );
        }
        for (n, (branch, variable)) in self.pointers.iter().enumerate() {
            if branch.is_empty() {
                return wrong(format!("pointer `{variable}` has no branch"), "name the branch whose builds it follows");
            }
            if !is_variable(variable) {
                return wrong(
                    format!("pointer `{variable}` of branch {branch} cannot be a project variable"),
                    "use letters, digits and `_`",
                );
            }
            if self.pointers[..n].iter().any(|(_, other)| other == variable) {
                return wrong(format!("pointer `{variable}` is there twice"), "give each branch its own variable");
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

/// Whether a shell takes it as the name of a variable.
fn is_variable(text: &str) -> bool {
    word(text) && !text.contains('-') && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The refusal of a directory that begins with `~`, which only a shell expands.
pub fn no_tilde(what: &str) -> CliError {
    usage(format!("{what}: `~` is not expanded, so this would be a directory of that name"))
        .hint("write the whole path; `echo ~` prints that of your home directory, on a host `ssh HOST 'echo ~'`")
}

/// The directory of a `file:` URL: relative ones are relative to `home`, and `file:///srv/app` is `/srv/app`.
pub fn local_dir(home: &Path, dir: &str) -> PathBuf {
    let dir = dir.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(dir);
    home.join(dir)
}
