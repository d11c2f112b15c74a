//! `bench fleet`: a first release and a small change to many hosts at once, compared with other tools.
//!
//! All tools use the same hosts, network and bytes, and take turns within each round. Pending writes are flushed before a
//! run; after it, a changed file is compared on every host. A tool that did not deploy ends the bench.

pub mod baselines;
mod hosts;
mod proxy;

use crate::compare::{last_words, time};
use crate::figures::{Comparison, Figures, compare};
use crate::fleet::baselines::{OURS, Peer};
use crate::fleet::hosts::Fleet;
use crate::options::{Missing, Options, Scratch, private_dir};
use crate::relink;
use crate::workload::{Version, Workload};
use gangplank_deploy::deploy;
use gangplank_deploy::deploy::apply::Outcome;
use gangplank_deploy::deploy::deployment::Options as DeployOptions;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Kind, Result, WithHint, usage, verification};
use gangplank_model::project::{App, Ci, Env, Project, Strategy};
use gangplank_model::release::digest;
use gangplank_model::release::id::Selector;
use gangplank_system::context::{Context, var};
use serde::Serialize;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// The result of `bench fleet`. As JSON:
///
/// ```json
/// {"bench": "fleet", "hosts": 10, "rounds": 3, "cpus": 2,
///  "rows": [{"workload": "W1", "delay_ms": 50, "release": "first", "against": "rsync", "ratio": 0.8,
///            "ours": {"seconds": 4.0, "cpu_seconds": 1.2, "host_cpu_seconds": 3.1, "bytes": 1000},
///            "theirs": {"seconds": 5.0, "cpu_seconds": 2.4, "host_cpu_seconds": 2.2, "bytes": 2000}}],
///  "missing": [{"peer": "slipway", "install": "cargo install slipway"}]}
/// ```
///
/// `release` is `first` or `change`; the figures are medians over the rounds, `ratio` that of the pairs.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `fleet`
    pub bench: &'static str,
    /// Number of hosts.
    pub hosts: usize,
    /// Number of rounds.
    pub rounds: usize,
    /// Cores of this machine, shared by all hosts and the deploy.
    pub cpus: usize,
    /// A comparison for each workload, delay, release and peer.
    pub rows: Vec<Row>,
    /// Peers that did not take part.
    pub missing: Vec<Missing>,
}

/// Ours against one peer.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// The delay added to a round trip.
    pub delay_ms: u64,
    /// `first`, or `change` for the second.
    pub release: &'static str,
    /// Name of the peer.
    pub against: &'static str,
    /// The figures.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Runs the bench.
pub fn fleet(ctx: &Context, options: &Options) -> Result<Report> {
    options.check_against("fleet", baselines::PEERS.iter().map(|peer| peer.name))?;
    let is_there = |program: &str| ctx.program_on_path(program).is_some();
    let (present, missing): (Vec<_>, Vec<_>) =
        baselines::peers(&options.against, &is_there).partition(|(_, there)| *there);
    let missing: Vec<_> = missing.iter().map(|(peer, _)| Missing { peer: peer.name, install: peer.install }).collect();
    if present.is_empty() {
        return usage("no tool to compare with is installed").hint(missing[0].install).err();
    }
    let peers: Vec<_> = present.into_iter().map(|(peer, _)| peer).collect();
    let scratch = Scratch(private_dir(ctx)?);
    let fleet_dir = scratch.0.join("fleet");
    let what = || format!("cannot write into {}", scratch.0.display());
    let hint = || "TMPDIR names another place".to_owned();
    fs::create_dir(&fleet_dir).with_hint(Kind::Failed, what, hint)?;
    for peer in &peers {
        lay_out(&scratch.0.join(peer.name), peer).with_hint(Kind::Failed, what, hint)?;
    }
    let fleet = Fleet::start(ctx, &fleet_dir, options.hosts)?;
    let mut rows = Vec::new();
    let relinked = if options.relink { Some(relink::make(ctx, &scratch.0)?) } else { None };
    for (n, source) in options.sources().chain(relinked.iter().map(|dir| Some(dir.as_path()))).enumerate() {
        let dir = Scratch(scratch.0.join(format!("workload{n}")));
        let workload = Workload::prepare(ctx, &dir.0, source)?;
        for &delay_ms in &options.delays_ms {
            let verbose = options.verbose;
            let course = Scenario { ctx, scratch: &scratch.0, fleet: &fleet, workload: &workload, delay_ms, verbose };
            rows.extend(course.compare(&peers, options.rounds)?);
        }
    }
    Ok(Report {
        bench: "fleet",
        hosts: options.hosts,
        rounds: options.rounds,
        cpus: crate::options::cpus(),
        rows,
        missing,
    })
}

/// The measured deploy: a release of the checkout to these targets, without a service. A hidden command, because the
/// project is compiled into the xtask.
pub fn deploy(ctx: &Context, release: &Selector, targets: &[String]) -> Result<Outcome> {
    let targets: Vec<&'static str> = targets.iter().map(|target| &*target.clone().leak()).collect();
    let env = Env { name: "fleet", targets: targets.leak(), strategy: Strategy::All, ..Env::DEFAULT };
    let project =
        Project { app: App { name: "bench", ..App::DEFAULT }, stores: &[], envs: vec![env].leak(), ci: Ci::DEFAULT };
    deploy::deploy(&Tool::bare(ctx, &project), env.name, Some(release), &DeployOptions::default())
}

fn lay_out(dir: &Path, peer: &Peer) -> std::io::Result<()> {
    fs::create_dir(dir)?;
    for (name, text) in peer.files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// A workload and a network.
struct Scenario<'a> {
    ctx: &'a Context,
    scratch: &'a Path,
    fleet: &'a Fleet,
    workload: &'a Workload,
    delay_ms: u64,
    verbose: bool,
}

impl Scenario<'_> {
    fn compare(&self, peers: &[&'static Peer], rounds: usize) -> Result<Vec<Row>> {
        // The first releases and the changes of each baseline, ours first.
        let mut all = vec![[Vec::new(), Vec::new()]; peers.len() + 1];
        let baselines = std::iter::once(None).chain(peers.iter().map(|peer| Some(*peer)));
        for round in 1..=rounds {
            for (baseline, runs) in baselines.clone().zip(&mut all) {
                let name = baseline.map_or(OURS, |peer| peer.name);
                self.forget(name)?;
                for (n, runs) in runs.iter_mut().enumerate() {
                    let run = self.measure(baseline, n)?;
                    self.ctx.note(format!(
                        "{}, {} ms, round {round} of {rounds}: {name} {} {:.2} s, {} bytes",
                        self.workload.name, self.delay_ms, RELEASES[n], run.seconds, run.bytes
                    ));
                    runs.push(run);
                }
                self.forget(name)?;
            }
        }
        let (ours, theirs) = all.split_first().expect("we take part");
        let mut rows = Vec::new();
        for (n, release) in RELEASES.into_iter().enumerate() {
            for (peer, theirs) in peers.iter().zip(theirs) {
                let Some(comparison) = compare(&ours[n], &theirs[n]) else { continue };
                let (workload, delay_ms, against) = (self.workload.name.clone(), self.delay_ms, peer.name);
                rows.push(Row { workload, delay_ms, release, against, comparison });
            }
        }
        Ok(rows)
    }

    /// Removes a baseline's files from the hosts.
    fn forget(&self, name: &str) -> Result<()> {
        for host in &self.fleet.names {
            let root = self.fleet.root(host, name);
            let removed = if root.exists() { fs::remove_dir_all(&root) } else { Ok(()) };
            removed.with_hint(
                Kind::Failed,
                || format!("cannot remove {}", root.display()),
                || "check which process still writes there".into(),
            )?;
        }
        Ok(())
    }

    /// Deploys the first or the second release, and verifies it.
    fn measure(&self, baseline: Option<&Peer>, n: usize) -> Result<Figures> {
        let name = baseline.map_or(OURS, |peer| peer.name);
        let log = self.scratch.join("log");
        let mut command = match baseline {
            None => self.ours(&self.workload.versions[n])?,
            Some(peer) => self.theirs(peer, n),
        };
        self.clean(&mut command);
        // Flush first, so that a run does not pay for pending writes of the one before.
        self.ctx.read(Command::new("sync"))?;
        self.fleet.network.set_delay(self.delay_ms);
        self.fleet.network.take_bytes();
        let before = self.fleet.cpu_seconds();
        let took = time(self.ctx, name, command, &log)?;
        let bytes = self.fleet.network.take_bytes();
        let host_cpu_seconds = self.fleet.cpu_seconds().zip(before).map(|(after, before)| after - before);
        if self.verbose {
            self.ctx.note(String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()));
        }
        self.verify(name, &self.workload.versions[n], &log)?;
        Ok(Figures { seconds: took.wall.as_secs_f64(), cpu_seconds: took.cpu.as_secs_f64(), host_cpu_seconds, bytes })
    }

    fn ours(&self, version: &Version) -> Result<Command> {
        let mut command = Command::new(Context::program()?);
        command.args(["bench-deploy", version.id.as_str()]).current_dir(&self.workload.project);
        if self.verbose {
            command.arg("--verbose");
        }
        for host in &self.fleet.names {
            command.arg(format!("ssh://{host}{}", self.fleet.root(host, OURS).display()));
        }
        Ok(command)
    }

    fn theirs(&self, peer: &Peer, n: usize) -> Command {
        let (version, previous) = (&self.workload.versions[n], n.checked_sub(1).map(|n| &self.workload.versions[n]));
        let mut command = Command::new("sh");
        command.args(["-c", peer.script, peer.name]).current_dir(self.scratch.join(peer.name));
        command.env("MACHINES", self.fleet.names.join(" ")).env("FLEET", &self.fleet.dir).env("NAME", peer.name);
        command.env("RELEASE", version.name).env("PREVIOUS", previous.map_or("", |previous| previous.name));
        command.env("STAGE", &version.stage).env("ARCHIVE", &version.archive);
        command.env("SSH_CONFIG", self.fleet.dir.join("ssh_config"));
        command
    }

    /// The environment of this process, as on a terminal, and with an ssh that knows the hosts.
    fn clean(&self, command: &mut Command) {
        let ours = [var::HOME, var::WORKSPACE, var::BUCKETS];
        for name in self.ctx.vars().keys() {
            if name == "CI" || name.starts_with("CIRCLE") || name.starts_with("ANSIBLE") || ours.contains(&&**name) {
                command.env_remove(name);
            }
        }
        let path = self.ctx.var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.fleet.dir.join("bin").display()));
    }

    /// Verifies the bytes at `current` on every host.
    fn verify(&self, name: &str, version: &Version, log: &Path) -> Result<()> {
        let (path, want) = &version.changed;
        for host in &self.fleet.names {
            let file = self.fleet.root(host, name).join("current").join(path);
            let found = File::open(&file).and_then(|mut file| digest::of_reader(&mut file));
            let reason = match found {
                Ok((found, _)) if found == *want => continue,
                Ok(_) => "its bytes differ".to_owned(),
                Err(error) => error.to_string(),
            };
            let (file, said) = (file.display(), last_words(log));
            return verification(format!("{name} succeeded, but on {host} {file}: {reason}\n{said}"))
                .hint("skip it with --against, or fix its script in bench/fleet/baselines")
                .err();
        }
        Ok(())
    }
}

/// The first release, and the small change.
const RELEASES: [&str; 2] = ["first", "change"];
