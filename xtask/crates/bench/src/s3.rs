//! `bench s3`: copies a release to a bucket and back, compared with other tools. The server is a local Ceph, so that
//! all share its cores, or that of a given bucket.

use crate::compare::{Baseline, Compare, Peer, Report, Row, present, time};
use crate::copies::PEERS;
use crate::files;
use crate::options::{Options, Scratch, private_dir};
use crate::workload::{PAYLOAD, Source};
use gangplank_bucket::local_run;
use gangplank_bucket::object::Bucket;
use gangplank_bucket::object::settings::of_machine;
use gangplank_bundle::release::Release;
use gangplank_deploy::deploy::resolve::Catalog;
use gangplank_deploy::handoff;
use gangplank_deploy::handoff::PutDone;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_model::project::{App, Ci, Compression, Project};
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_system::context::{Context, var};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bucket of a server of our own.
const BUCKET: &str = "s3://gangplank-bench/releases";
/// Names the bucket of another one.
const BENCH_BUCKET: &str = "GANGPLANK_BENCH_BUCKET";
/// Bytes of the generated release: incompressible, and large enough for a multipart upload with every tool.
const BYTES: u64 = 300_000_000;

/// `bench s3`
pub fn s3(ctx: &Context, options: &Options) -> Result<Report> {
    let (present, missing) = present(ctx, options, "s3", PEERS)?;
    let scratch = Scratch(private_dir(ctx)?);
    let bucket = ctx.var(BENCH_BUCKET).unwrap_or(BUCKET);
    // An unused place, so that no tool finds existing objects.
    let run = scratch.0.file_name().unwrap_or_default().to_string_lossy().replace('.', "");
    let url = format!("{bucket}/{run}");
    let local = local_run::open(ctx, &project(&url), &scratch.0)?;
    let is_server = local.vars.iter().all(|(name, _)| name != var::BUCKETS) && ctx.var(var::BUCKETS).is_none();
    // A name of ours may be anybody's elsewhere.
    if !is_server || local.vars.is_empty() && ctx.var(BENCH_BUCKET).is_none() {
        return usage("there is no S3 of this machine to copy to, and no bucket is named")
            .hint(format!(
                "install Ceph (docs/s3.md), or set {BENCH_BUCKET}=s3://BUCKET/PREFIX, with keys and S3_ENDPOINT"
            ))
            .err();
    }
    let ctx = &ctx.with_vars(local.vars.iter().cloned());
    ctx.note(format!("what is copied goes to {url}, and is removed in the end"));
    let done = copies(ctx, options, &scratch.0, &url, &present);
    let rows = clear(ctx, &url).and(done)?;
    Ok(Report { bench: "s3", rounds: options.rounds, cpus: crate::options::cpus(), rows, missing })
}

fn copies(ctx: &Context, options: &Options, scratch: &Path, url: &str, peers: &[&'static Peer]) -> Result<Vec<Row>> {
    let runs = Cell::new(0);
    let mut rows = Vec::new();
    for (n, source) in options.sources().enumerate() {
        let dir = Scratch(scratch.join(format!("workload{n}")));
        let noise = scratch.join("noise");
        if source.is_none() {
            make_noise(&noise).with_hint(
                Kind::Failed,
                || format!("cannot write into {}", noise.display()),
                || "TMPDIR names another place".into(),
            )?;
        }
        let source = Source::prepare(ctx, &dir.0, Some(source.unwrap_or(&noise)))?;
        let course = Scenario { ctx, url, source: &source, runs: &runs };
        rows.extend(course.run(peers, scratch, options.rounds)?);
    }
    Ok(rows)
}

/// Removes what was copied.
fn clear(ctx: &Context, url: &str) -> Result<()> {
    let bucket = Bucket::open(ctx, url, &of_machine(ctx, url)?)?;
    bucket.list("")?.iter().try_for_each(|object| bucket.remove(&object.key))
}

/// A project with this store alone.
pub fn project(url: &str) -> Project {
    let stores: &'static [&'static str] = vec![&*url.to_owned().leak()].leak();
    Project {
        app: App { name: "bench", include: &[PAYLOAD], generated: &[PAYLOAD], ..App::DEFAULT },
        stores,
        envs: &[],
        ci: Ci::DEFAULT,
    }
}

/// The measured copies: a release of the checkout to a store, or from it into a directory. A hidden command, because
/// the project is compiled into the xtask.
pub fn copy(ctx: &Context, release: &Selector, url: &str, into: Option<&Path>) -> Result<Vec<PutDone>> {
    let project = project(url);
    let tool = Tool { buckets: Some(&gangplank_bucket::BUCKETS), ..Tool::bare(ctx, &project) };
    match into {
        None => handoff::put(&tool, Some(release), Some(url)),
        Some(into) => {
            let id = Catalog::built(&tool).resolve(Some(release))?;
            tool.store(url)?.get(&id, into).map(|_| vec![])
        }
    }
}

fn make_noise(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    let mut noise = File::open("/dev/urandom")?.take(BYTES);
    io::copy(&mut noise, &mut File::create(dir.join("noise"))?).map(drop)
}

struct Scenario<'a> {
    ctx: &'a Context,
    url: &'a str,
    source: &'a Source,
    /// The number of puts: each goes to a new place, so that no object exists.
    runs: &'a Cell<u32>,
}

impl Scenario<'_> {
    fn run(&self, peers: &[&'static Peer], scratch: &Path, rounds: usize) -> Result<Vec<Row>> {
        let dir = files::seal(&self.ctx.at(&self.source.project), Compression::Gzip)?.dir;
        let sealed = Release::read_manifest(&dir)?;
        let bundle = dir.join(&sealed.bundle.file);
        let id = &sealed.id;
        let new_place = || {
            self.runs.set(self.runs.get() + 1);
            format!("{}/{}", self.url, self.runs.get())
        };
        let up = |peer: Option<&'static Peer>| {
            let bundle = bundle.display().to_string();
            let command = move || match peer {
                None => self.ours(id, &new_place(), None),
                Some(peer) => self.theirs(peer, &bundle, &format!("{}/bundle", new_place())),
            };
            baseline(peer, Box::new(command), None)
        };
        let everybody = || std::iter::once(None).chain(peers.iter().map(|peer| Some(*peer)));
        let (up, name) = (everybody().map(up).collect(), self.source.name.as_str());
        let mut rows =
            Compare { workload: name, what: "up", alike: false, baselines: up }.run(self.ctx, scratch, rounds)?;
        // What is fetched: a release as ours, and an object as theirs.
        let there = new_place();
        let log = scratch.join("log");
        time(self.ctx, "ours", self.ours(id, &there, None), &log)?;
        let object = format!("{there}/bundle");
        if let Some(peer) = peers.first() {
            time(self.ctx, peer.name, self.theirs(peer, &bundle.display().to_string(), &object), &log)?;
        }
        let down = |peer: Option<&'static Peer>| {
            let out = self.source.dir.join(format!("down-{}", peer.map_or("ours", |peer| peer.name)));
            let (there, object, into) = (there.clone(), object.clone(), out.clone());
            let command = move || match peer {
                None => self.ours(id, &there, Some(&into)),
                Some(peer) => self.theirs(peer, &object, &into.join("bundle").display().to_string()),
            };
            baseline(peer, Box::new(command), Some(out))
        };
        let down = everybody().map(down).collect();
        rows.extend(
            Compare { workload: name, what: "down", alike: false, baselines: down }.run(self.ctx, scratch, rounds)?,
        );
        Ok(rows)
    }

    fn ours(&self, id: &ReleaseId, store: &str, into: Option<&Path>) -> Command {
        let mut command = Command::new(Context::program().unwrap_or_default());
        command.args(["bench-copy", id.as_str(), store]).args(into).current_dir(&self.source.project);
        command.envs(self.ctx.vars());
        command
    }

    fn theirs(&self, peer: &Peer, from: &str, to: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", peer.script, "sh", from, to]).envs(self.ctx.vars());
        if let Some(endpoint) = self.ctx.var("S3_ENDPOINT") {
            command.env("AWS_ENDPOINT_URL", endpoint);
        }
        if self.ctx.var("AWS_REGION").is_none() {
            command.env("AWS_REGION", "us-east-1");
        }
        command
    }
}

fn baseline<'a>(
    peer: Option<&'static Peer>,
    command: Box<dyn Fn() -> Command + 'a>,
    makes: Option<PathBuf>,
) -> Baseline<'a> {
    Baseline { name: peer.map_or("ours", |peer| peer.name), command, makes }
}
