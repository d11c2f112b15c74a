//! Compares commands on this machine, in turns: the common part of the benches.

use crate::figures::{Comparison, Figures, compare};
use crate::options::{Missing, Options};
use gangplank_bundle::release;
use gangplank_model::error::{Kind, Result, WithHint, failed, verification};
use gangplank_system::context::{Context, Measured, exit};
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The result of `bench bundle`, `fetch`, `overhead`, `compile` or `s3`. As JSON:
///
/// ```json
/// {"bench": "bundle", "rounds": 3, "cpus": 2,
///  "rows": [{"workload": "W1", "what": "bundle", "against": "tar-gz", "ratio": 0.2,
///            "ours": {"seconds": 0.5, "cpu_seconds": 0.9, "bytes": 1000},
///            "theirs": {"seconds": 2.5, "cpu_seconds": 2.4, "bytes": 1001}}],
///  "missing": [{"peer": "tar-pigz", "install": "apt-get install pigz"}]}
/// ```
///
/// `bytes` is the size of the output. The figures are medians over the rounds, `ratio` that of the pairs.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub bench: &'static str,
    /// Number of rounds.
    pub rounds: usize,
    /// Cores of this machine.
    pub cpus: usize,
    /// A comparison for each workload, task and peer.
    pub rows: Vec<Row>,
    /// Peers that did not take part.
    pub missing: Vec<Missing>,
}

/// Ours against one peer.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The workload.
    pub workload: String,
    /// The task.
    pub what: &'static str,
    /// Name of the peer.
    pub against: &'static str,
    /// The figures.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// A command to compare.
pub struct Baseline<'a> {
    /// Its name.
    pub name: &'static str,
    /// The command.
    pub command: Box<dyn Fn() -> Command + 'a>,
    /// Its output, moved away before each run, so that each starts from nothing; its bytes are counted.
    pub makes: Option<PathBuf>,
}

/// Another tool and its requirements.
pub struct Peer {
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// The program on PATH.
    pub program: &'static str,
    /// How to install it.
    pub install: &'static str,
    /// The script for `sh`; each bench documents its variables and arguments.
    pub script: &'static str,
}

/// The installed peers, and the missing ones.
pub fn present(
    ctx: &Context,
    options: &Options,
    bench: &str,
    peers: &'static [Peer],
) -> Result<(Vec<&'static Peer>, Vec<Missing>)> {
    options.check_against(bench, peers.iter().map(|peer| peer.name))?;
    let wanted = |peer: &&Peer| options.against.is_empty() || options.against.iter().any(|name| name == peer.name);
    let is_there = |peer: &&Peer| ctx.program_on_path(peer.program).is_some();
    let (present, missing): (Vec<_>, Vec<_>) = peers.iter().filter(wanted).partition(is_there);
    let missing = missing.into_iter().map(|peer| Missing { peer: peer.name, install: peer.install });
    Ok((present, missing.collect()))
}

/// One task.
pub struct Compare<'a> {
    /// The workload.
    pub workload: &'a str,
    /// The task.
    pub what: &'static str,
    /// Whether all must produce the same number of bytes.
    pub alike: bool,
    /// Ours first.
    pub baselines: Vec<Baseline<'a>>,
}

impl Compare<'_> {
    /// Runs all baselines in each round, with their output in `scratch`.
    pub fn run(&self, ctx: &Context, scratch: &Path, rounds: usize) -> Result<Vec<Row>> {
        let mut all = vec![Vec::new(); self.baselines.len()];
        for round in 1..=rounds {
            for (baseline, runs) in self.baselines.iter().zip(&mut all) {
                let run = baseline.measure(ctx, scratch)?;
                ctx.note(format!(
                    "{}, {}, round {round} of {rounds}: {} {:.2} s, {} bytes",
                    self.workload, self.what, baseline.name, run.seconds, run.bytes
                ));
                runs.push(run);
            }
        }
        let (ours, theirs) = all.split_first().expect("we take part");
        let mut rows = Vec::new();
        for (peer, theirs) in self.baselines.iter().skip(1).zip(theirs) {
            if self.alike && ours[0].bytes != theirs[0].bytes {
                let (ours, theirs) = (ours[0].bytes, theirs[0].bytes);
                return verification(format!("{} made {theirs} bytes where ours made {ours}", peer.name))
                    .hint("skip it with --against, or fix its script in bench/files.rs")
                    .err();
            }
            let Some(comparison) = compare(ours, theirs) else { continue };
            rows.push(Row { workload: self.workload.to_owned(), what: self.what, against: peer.name, comparison });
        }
        Ok(rows)
    }
}

impl Baseline<'_> {
    fn measure(&self, ctx: &Context, scratch: &Path) -> Result<Figures> {
        let what = || format!("cannot write into {}", scratch.display());
        let hint = || "TMPDIR names another place".to_owned();
        if let Some(made) = self.makes.as_deref().filter(|made| made.exists()) {
            // Nothing is removed before the end: ext4 would skip the numbers of removed files one by one for each new
            // file.
            fs::rename(made, release::scratch(scratch, "done")).with_hint(Kind::Failed, what, hint)?;
        }
        // Flush first, so that a run does not pay for pending writes of the one before.
        ctx.read(Command::new("sync"))?;
        let took = time(ctx, self.name, (self.command)(), &scratch.join("log"))?;
        let bytes = self.makes.as_deref().map_or(Ok(0), size_of).with_hint(Kind::Failed, what, hint)?;
        Ok(Figures {
            seconds: took.wall.as_secs_f64(),
            cpu_seconds: took.cpu.as_secs_f64(),
            host_cpu_seconds: None,
            bytes,
        })
    }
}

/// Measures a command, which must succeed; its output goes to `log`.
pub fn time(ctx: &Context, name: &str, command: Command, log: &Path) -> Result<Measured> {
    let what = || format!("cannot write {}", log.display());
    let output = File::create(log).with_hint(Kind::Failed, what, || "check free space: `df -h`".into())?;
    let took = ctx.measure(command, &output)?;
    if ctx.interrupted() {
        return failed("stopped by a signal, nothing was measured to its end")
            .hint("hosts and files of the bench are gone; run it again")
            .err();
    }
    if !took.status.success() {
        return failed(format!("{name} {}: {}", exit(took.status.code()), last_words(log)))
            .hint("fix it, or choose other tools with --against NAME")
            .err();
    }
    Ok(took)
}

/// The end of a baseline's output.
pub fn last_words(log: &Path) -> String {
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Bytes of all files below a directory.
fn size_of(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
        let entry = entry?;
        bytes += if entry.is_dir() { size_of(&path)? } else { entry.len() };
    }
    Ok(bytes)
}
