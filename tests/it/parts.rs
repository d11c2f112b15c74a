//! The engine's parts without the command line: a context, small releases, and a target that dies on command.

use gangplank_bundle::pack;
use gangplank_bundle::pack::Source;
use gangplank_bundle::release::Release;
use gangplank_deploy::host::{Delivery, Operation, Target};
use gangplank_model::error::{Result, failed};
use gangplank_model::event::Stream;
use gangplank_model::event::{Event, Sink};
use gangplank_model::history::Record;
use gangplank_model::owner::Owner;
use gangplank_model::project::{App, Ci, Compression, Project};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::{Bundle, CiJob, Commit, Manifest};
use gangplank_model::service::run::Script;
use gangplank_model::state::{Lock, Lockable, State};
use gangplank_system::context::{Context, Output};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The project of the stores.
pub static PROJECT: Project =
    Project { app: App { name: "shop", ..App::DEFAULT }, stores: &[], envs: &[], ci: Ci::DEFAULT };

struct Silence;

impl Sink for Silence {
    fn emit(&self, _: &Event) {}
}

/// A context rooted in `dir` that says nothing.
pub fn ctx(dir: &Path) -> Context {
    let env: BTreeMap<_, _> =
        [("PATH", std::env::var("PATH").unwrap()), ("USER", "ana".into())].map(|(k, v)| (k.to_owned(), v)).into();
    Context::new(dir.to_owned(), env, Arc::new(Silence))
}

/// A record for calls that need one.
pub fn record() -> Record {
    let line = r#"{"at":"2026-08-01T00:00:00Z","event":"installed","verb":"deploy","release":null,"from":null,"commit":null,"by":"ana","ci":null,"reason":null}"#;
    serde_json::from_str(line).unwrap()
}

/// Makes release number `n`, a minute younger than `n - 1`, with the given files.
pub fn release(dir: &Path, n: u32, files: &[(&str, &str)]) -> Release {
    let from = dir.join(format!("files-{n}"));
    let mut sources: Vec<Source> = Vec::new();
    for (path, text) in files {
        let file = from.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        sources.push(Source { path: (*path).into(), from: file, bytes: text.len() as u64, mode: 0o644, link: None });
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    let sha = format!("{n:040x}").replace('0', "a");
    let time: jiff::Timestamp = format!("2026-08-01T{:02}:{:02}:00Z", n / 60, n % 60).parse().unwrap();
    let mtime = u64::try_from(time.as_second()).unwrap();
    let packed =
        pack::pack(&sources, mtime, &dir.join(format!("packed-{n}")), Compression::Gzip, None, &|_, _| {}).unwrap();
    let id = ReleaseId::new(time, &sha, None).unwrap();
    let manifest = Manifest {
        schema: 1,
        app: "shop".into(),
        id: id.clone(),
        commit: Commit { sha, time, branch: Some("main".into()), tag: None, dirty: false },
        ci: Some(CiJob { job: 100 + u64::from(n), url: None, workflow: None, pipeline: None }),
        toolchain: None,
        bundle: Bundle {
            file: Manifest::bundle_name("shop", &id, Compression::Gzip),
            bytes: packed.bytes,
            sha256: packed.sha256.clone(),
            tar_sha256: packed.tar_sha256.clone(),
        },
        files: packed.files.clone(),
        signatures: vec![],
    };
    std::fs::create_dir_all(dir.join("releases")).unwrap();
    Release::seal(&packed, manifest, &dir.join("releases")).unwrap()
}

/// An owner whose process is known to be gone.
pub fn dead(owner: &Owner) -> Owner {
    Owner { pid: u32::try_from(i32::MAX).unwrap(), started: Some(1), ..owner.clone() }
}

/// A target that does as told until a number of calls have been made, and nothing after that, like a deploy whose
/// process was killed. The lock it took is that of a dead process.
pub struct Mortal<'a> {
    inner: Box<dyn Target + 'a>,
    left: &'a AtomicUsize,
}

impl<'a> Mortal<'a> {
    /// Dies when `left`, which several targets may share, has been counted down.
    pub fn new(inner: Box<dyn Target + 'a>, left: &'a AtomicUsize) -> Self {
        Self { inner, left }
    }

    fn live(&self) -> Result<&dyn Target> {
        let alive = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if alive { Ok(&*self.inner) } else { failed("killed").err() }
    }
}

impl Lockable for Mortal<'_> {
    fn url(&self) -> &str {
        self.inner.url()
    }
    fn holder(&self) -> Result<Lock> {
        self.live()?.holder()
    }
    fn lock(&self, owner: &Owner) -> Result<Lock> {
        self.live()?.lock(&dead(owner))
    }
    fn take_over(&self, owner: &Owner, seen: &Owner, gone: &Owner) -> Result<Lock> {
        self.live()?.take_over(&dead(owner), seen, gone)
    }
    fn unlock(&self, token: Option<&str>) -> Result<()> {
        self.live()?.unlock(token)
    }
}

impl Target for Mortal<'_> {
    fn root(&self) -> &str {
        self.inner.root()
    }
    fn host(&self) -> &str {
        self.inner.host()
    }
    fn state(&self) -> Result<State> {
        self.live()?.state()
    }
    fn install(&self, delivery: &Delivery, record: &Record) -> Result<()> {
        self.live()?.install(delivery, record)
    }
    fn act(&self, acts: &[Operation]) -> Result<Vec<Output>> {
        // A host may lose its power between any two of them.
        let mut answers = Vec::new();
        for act in acts {
            answers.extend(self.live()?.act(&[*act])?);
            if answers.last().is_some_and(|answer| !answer.ok()) {
                break;
            }
        }
        Ok(answers)
    }
    fn complaint(&self, act: &Operation, answer: &Output) -> anyhow::Error {
        self.inner.complaint(act, answer)
    }
    fn manifest(&self, release: &ReleaseId) -> Result<Manifest> {
        self.live()?.manifest(release)
    }
    fn verify(&self, release: &ReleaseId) -> Result<Vec<String>> {
        self.live()?.verify(release)
    }
    fn attend(
        &self,
        script: &Script,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>> {
        self.live()?.attend(script, heard, stop)
    }
}
