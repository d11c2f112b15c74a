//! `logs` and `exec`: stream the output of an env's hosts.
//!
//! Neither takes the lock or writes a record: both change nothing that the engine tracks, and are most needed while a
//! deploy hangs.

use crate::deploy::deployment::{filled_in, known_vars};
use crate::deploy::failure::shortened;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::host::Target;
use crate::tool::Tool;
use gangplank_model::error::{CliError, Kind, Result, failed, hint_of, kind_of, usage};
use gangplank_model::event::{HostOutput, Listener, Stream};
use gangplank_model::project::Env;
use gangplank_model::script::attend;
use gangplank_model::service;
use gangplank_model::service::Spec;
use gangplank_model::service::run::Script;
use gangplank_system::context::{Context, LINE_BYTES_MAX};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// Characters shown of a log line longer than [`LINE_BYTES_MAX`].
const LINE_CHARS: usize = 4000;

/// Hosts whose output is streamed.
struct Audience<'a> {
    ctx: &'a Context,
    env: &'a Env,
    hosts: Vec<HostStream<'a>>,
    listener: Listener<'a>,
    /// Whether the output has no end (`--follow`).
    following: bool,
    /// Whether overlong lines are truncated: those of a log, not of a command.
    shortens: bool,
    /// Whether the reader of our output is gone.
    enough: AtomicBool,
}

struct HostStream<'a> {
    target: Box<dyn Target + 'a>,
    name: String,
}

/// The exit code on a host, or the error.
type End = Result<Option<i32>>;

/// `logs ENV`: the last lines of each host.
pub fn logs(tool: &Tool, env: &Env, host: Option<&str>, lines: u32, listener: Listener) -> Result<()> {
    let spec = loggable(tool.ctx, env)?;
    let audience = Audience { shortens: true, ..Audience::new(tool, env, host, listener)? };
    let ends = audience.hear(AT_ONCE, |root| spec.last_lines(root, lines));
    audience.finalize("the log could not be read", ends)
}

/// `logs ENV --follow`: also every later line, until Ctrl-C or until no host follows any more.
pub fn follow(tool: &Tool, env: &Env, host: Option<&str>, lines: u32, listener: Listener) -> Result<()> {
    let spec = loggable(tool.ctx, env)?;
    if spec.follow("/", lines).is_none() {
        return usage(format!("the `log` command of {} cannot follow", env.name))
            .hint("make it follow when the shell variable FOLLOW is 1, as in docs/service.md, or omit --follow")
            .err();
    }
    let audience = Audience { following: true, shortens: true, ..Audience::new(tool, env, host, listener)? };
    let ends = audience.hear(audience.hosts.len(), |root| spec.follow(root, lines));
    audience.finalize("the log could not be followed", ends)
}

/// `exec ENV -- COMMAND`: succeeds if the command exits with 0 on each host.
pub fn exec(tool: &Tool, env: &Env, host: Option<&str>, words: &[String], listener: Listener) -> Result<()> {
    let exports = service::exports(&filled_in(tool.ctx, env)?);
    let audience = Audience::new(tool, env, host, listener)?;
    let ends = audience
        .hear(AT_ONCE, |root| Some(Script::new(attend::exec(root, words), exports.clone()).called("run a command")));
    for (host, end) in audience.hosts.iter().zip(&ends) {
        if let Ok(Some(exit_code)) = end {
            listener(&HostOutput::Ended { host: host.name.clone(), exit_code: *exit_code });
        }
    }
    if tool.ctx.interrupted() {
        return failed("stopped, with the command on the hosts").hint("partial effects remain").err();
    }
    audience.finalize("the command failed", ends)
}

/// The service of an env, which must have a log. Unset variables are skipped: reading a log needs no secret.
fn loggable(ctx: &Context, env: &Env) -> Result<Spec> {
    let spec = Spec::new(&env.service, &known_vars(ctx, env));
    if spec.log("/", 1).is_none() {
        return usage(format!("no log command configured for {}", env.name))
            .hint("give its `service` in xtask/src/main.rs a `log` command, or use Service::Pidfile or Service::Systemd: docs/service.md")
            .err();
    }
    Ok(spec)
}

impl<'a> Audience<'a> {
    fn new(tool: &Tool<'a>, env: &'a Env, wanted: Option<&str>, listener: Listener<'a>) -> Result<Self> {
        let mut hosts: Vec<_> =
            tool.targets(env)?.into_iter().map(|target| HostStream { name: name(&*target), target }).collect();
        if hosts.iter().map(|host| &host.name).collect::<BTreeSet<_>>().len() < hosts.len() {
            for host in &mut hosts {
                host.target.url().clone_into(&mut host.name);
            }
        }
        let known = hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>().join(", ");
        if let Some(wanted) = wanted {
            hosts.retain(|host| host.target.is_called(wanted));
            if hosts.is_empty() {
                return usage(format!("{} has no host {wanted}", env.name)).hint(format!("it has {known}")).err();
            }
        }
        Ok(Self {
            ctx: tool.ctx,
            env,
            hosts,
            listener,
            following: false,
            shortens: false,
            enough: AtomicBool::new(false),
        })
    }

    /// Runs a script on each host, at most `at_once` at a time, and passes on its output.
    fn hear(&self, at_once: usize, script: impl Fn(&str) -> Option<Script> + Sync) -> Vec<End> {
        let column = match self.hosts.as_slice() {
            [_] => 0,
            hosts => hosts.iter().map(|host| host.name.chars().count()).max().unwrap_or(0),
        };
        par_map(&self.hosts, at_once, |host| {
            let Some(script) = script(host.target.root()) else { return Ok(None) };
            let mut cut = [false; 2];
            let mut on_line = |stream: Stream, mut line: String| {
                // An overlong line arrives in pieces.
                let piece = self.shortens && line.len() >= LINE_BYTES_MAX;
                if std::mem::replace(&mut cut[usize::from(stream == Stream::Stderr)], piece) {
                    return;
                }
                if piece {
                    line = shortened(&line, LINE_CHARS);
                }
                let line = HostOutput::Line { host: host.name.clone(), column, stream, line: self.ctx.scrub(&line) };
                if !(self.listener)(&line) {
                    self.enough.store(true, Ordering::Relaxed);
                }
            };
            if self.is_over() {
                return Ok(None);
            }
            let end = host.target.attend(&script, &mut on_line, &|| self.is_over());
            if self.following && !self.is_over() {
                self.emit(host, &end);
            }
            end
        })
    }

    fn is_over(&self) -> bool {
        self.enough.load(Ordering::Relaxed) || self.ctx.interrupted()
    }

    /// Reports the end of a host at once: the others may run for hours.
    fn emit(&self, host: &HostStream, end: &End) {
        self.ctx.warn(match end {
            Err(error) => format!("{error:#}"),
            Ok(Some(code @ 1..)) => format!("{}: its log ended, with exit code {code}", host.name),
            Ok(_) => format!("{}: its log ended", host.name),
        });
    }

    /// One error for all failures; an unreachable host takes precedence.
    fn finalize(&self, what: &str, ends: Vec<End>) -> Result<()> {
        let (mut failed_on, mut errors) = (Vec::new(), Vec::new());
        for (host, end) in self.hosts.iter().zip(ends) {
            match end {
                Ok(Some(0) | None) => {}
                Ok(Some(code)) => failed_on.push(format!("{} (exit code {code})", host.name)),
                Err(error) => errors.push(error),
            }
        }
        let failed_on = (!failed_on.is_empty()).then(|| format!("{what} on {}", failed_on.join(", ")));
        let Some(first) = errors.first() else {
            let Some(text) = failed_on else { return Ok(()) };
            let host = format!("see the output above; `--host NAME` runs it on one host of {}", self.env.name);
            return failed(text).hint(host).err();
        };
        // Unreachable hosts with different causes count as a remote failure.
        let kind =
            if errors.iter().all(|error| kind_of(error) == kind_of(first)) { kind_of(first) } else { Kind::Remote };
        let hint = hint_of(first).unwrap_or("use `--host NAME` to skip the others").to_owned();
        let texts = errors.iter().map(|error| format!("{error:#}"));
        CliError::new(kind, failed_on.into_iter().chain(texts).collect::<Vec<_>>().join("; ")).hint(hint).err()
    }
}

/// The display name of a host, or the URL of a local target.
fn name(target: &dyn Target) -> String {
    if target.url().starts_with("ssh:") { target.host() } else { target.url() }.to_owned()
}
