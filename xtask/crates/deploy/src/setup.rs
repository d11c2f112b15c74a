//! `setup`: the one-time root commands on each host, after which deploys need no root.

mod remove;
mod steps;

pub use crate::setup::steps::{PublicKey, Step, Wanted};

use crate::deploy::apply::all_of;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::host;
use crate::host::Target;
use crate::tool::Tool;
use gangplank_model::error::{Result, failed, split_hint, usage};
use gangplank_model::project::Env;
use gangplank_model::service::run::Script;
use gangplank_system::context::Context;
use serde::Serialize;
use std::path::Path;

/// The options of the command.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The file with the public key of deploys.
    pub key: Option<&'a Path>,
    /// Only this host.
    pub host: Option<&'a str>,
    /// The root login to run the steps with; `None` to print them.
    pub apply_as: Option<&'a str>,
    /// Undo the setup.
    pub remove: bool,
    /// Also remove the directory with its contents.
    pub data: bool,
}

/// The steps of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostSetup {
    /// The env.
    pub env: String,
    /// URL of the target.
    pub target: String,
    /// The host name; null for a local directory.
    pub host: Option<String>,
    /// The login of deploys; null for a local directory.
    pub login: Option<String>,
    /// The commands to run as root, in order; empty for a local directory.
    pub steps: Vec<Step>,
    /// Whether they were run.
    pub applied: bool,
}

/// The start of the script. An alias would hide the path of a program.
const START: &str = r#"(
set -eu; unalias -a
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH
[ "$(id -u)" = 0 ] || { echo "$(id -un) is not root there" >&2; exit 1; }
"#;

impl HostSetup {
    /// The steps as text for a root shell, pasted or piped. It ends at the first failed step; the parentheses keep the
    /// administrator's shell open, and make a truncated text a syntax error.
    pub fn script(&self) -> String {
        let one = |step: &Step| {
            let command = if step.command.is_empty() { String::new() } else { format!("{}\n", step.command) };
            format!("# {}\n{command}", step.reason)
        };
        format!("{START}\n{})\n", self.steps.iter().map(one).collect::<Vec<_>>().join("\n"))
    }
}

/// The steps for each target of an env, and runs them if requested.
pub fn setup(tool: &Tool, env: &Env, options: &Options) -> Result<Vec<HostSetup>> {
    let ctx = tool.ctx;
    let key = options.key.map(|path| read_key(ctx, path)).transpose()?;
    let targets = tool.targets_called(env, options.host)?;
    let hosts = targets.iter().map(|target| needs(ctx, env, &**target, key.as_ref(), options));
    let mut hosts = hosts.collect::<Result<Vec<_>>>()?;
    if let Some(root) = options.apply_as {
        let done = par_map(&hosts, AT_ONCE, |host| if host.steps.is_empty() { Ok(()) } else { apply(ctx, host, root) });
        all_of(done)?;
        for host in &mut hosts {
            host.applied = !host.steps.is_empty();
        }
    }
    Ok(hosts)
}

fn read_key(ctx: &Context, path: &Path) -> Result<PublicKey> {
    match std::fs::read_to_string(ctx.root.join(path)) {
        Ok(text) => PublicKey::parse(&text),
        Err(error) => usage(format!("cannot read the key {}: {error}", path.display()))
            .hint("create one with `ssh-keygen -t ed25519 -N '' -f deploy_key`, then use `--key deploy_key.pub`")
            .err(),
    }
}

fn needs(
    ctx: &Context,
    env: &Env,
    target: &dyn Target,
    key: Option<&PublicKey>,
    options: &Options,
) -> Result<HostSetup> {
    let (env_name, url) = (env.name.to_owned(), target.url().to_owned());
    let Some((address, login)) = host::login(ctx, &url)? else {
        return Ok(HostSetup { env: env_name, target: url, host: None, login: None, steps: vec![], applied: false });
    };
    let wanted = Wanted { env: env.name, login: &login, root: &address.root, service: &env.service, key };
    let steps = if options.remove { remove::remove(wanted, options.data)? } else { steps::install(wanted)? };
    Ok(HostSetup { env: env_name, target: url, host: Some(address.host), login: Some(login), steps, applied: false })
}

/// Runs the steps on a host.
fn apply(ctx: &Context, host: &HostSetup, root: &str) -> Result<()> {
    let target = host::open_as(ctx, &host.target, root)?;
    let answer = target.run(&Script::new(host.script(), String::new()).called("set up the host"))?;
    let said = ctx.scrub(&[answer.stdout.trim(), answer.stderr.trim()].join("\n"));
    if answer.ok() {
        for line in said.lines().filter(|line| !line.is_empty()) {
            ctx.note(format!("{}: {line}", host.target));
        }
        return Ok(());
    }
    let (said, hint) = split_hint(&said);
    let by_hand = format!(
        "run it by hand: `cargo xtask setup {} | ssh ADMIN@{} sudo sh`",
        host.env,
        host.host.as_deref().unwrap_or("HOST")
    );
    failed(format!("{}: setup failed: {}", host.target, said.replace('\n', " ")))
        .hint(hint.map_or(by_hand, str::to_owned))
        .err()
}
