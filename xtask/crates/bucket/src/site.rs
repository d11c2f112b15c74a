//! A static site as a target: `site+s3://BUCKET/PREFIX`, also `gs` and `az`, and `site+file:DIR`.
//!
//! Clients ask for objects by path, so there is no link to switch. Contents are stored under their digest, and a switch
//! copies them inside the bucket to their paths, in the order of [`gangplank_model::site`]: a browser that loads a page
//! meanwhile gets every file that the page names. A rollback copies too, and uploads nothing. `current.json` changes by compare-and-swap,
//! before the first copy and after the last one.

mod content;
mod layout;
mod switch;

use crate::object::Bucket;
use crate::object::many::Upload;
use crate::object::settings::of_machine;
use crate::site::content::contents;
use crate::site::layout::{
    CHECK, CURRENT, FILES, HISTORY, LOCK, RELEASES, SERVED, digest_of_key, installed, now, of_release_key, release_key,
    served_key,
};
use crate::store::lock::{free, parse, take};
use crate::store::{open, pointer};
use gangplank_bundle::release::{Release, UNPACKING, scratch};
use gangplank_deploy::host::{Delivery, Operation, Target};
use gangplank_model::error::{CliError, Kind, Result, failed, not_found, usage};
use gangplank_model::event::Stream;
use gangplank_model::history::{History, Record};
use gangplank_model::owner::Owner;
use gangplank_model::project::local_dir;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::{BYTES_MAX, Manifest};
use gangplank_model::script::compare::EXIT_VERIFICATION;
use gangplank_model::service::run::Script;
use gangplank_model::site::{Served, Site};
use gangplank_model::state::{Current, Lock, Lockable, Root, State};
use gangplank_model::store_url::SITE;
use gangplank_system::context::{Context, Output};
use gangplank_system::machine::sweep_of;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A site in a bucket or a directory.
pub struct SiteTarget<'ctx> {
    ctx: &'ctx Context,
    url: String,
    site: Site,
    bucket: Mutex<Option<Bucket<'ctx>>>,
    /// Whether the server was found to honour conditional writes.
    probed: AtomicBool,
    /// Token of the lock that is held.
    token: Mutex<Option<String>>,
    /// The error of the last failed operation, for its complaint.
    failure: Mutex<Option<anyhow::Error>>,
}

impl<'ctx> SiteTarget<'ctx> {
    /// The site of a URL; sends no request yet. Fails for an invalid URL.
    pub fn new(ctx: &'ctx Context, url: &str, site: Site) -> Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        let inner = url.strip_prefix(SITE).unwrap_or(&url);
        if !inner.starts_with("file:") {
            of_machine(ctx, inner)?;
        } else if inner == "file:" || inner.starts_with("file:~") {
            return usage(format!("`{url}` is not the URL of a site")).hint("write site+file:DIR, without `~`").err();
        }
        Ok(Self {
            ctx,
            url,
            site,
            bucket: Mutex::default(),
            probed: AtomicBool::default(),
            token: Mutex::default(),
            failure: Mutex::default(),
        })
    }

    /// The bucket, opened when it is first needed.
    fn bucket(&self) -> Result<Opened<'_, 'ctx>> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if bucket.is_none() {
            let inner = self.url.strip_prefix(SITE).unwrap_or(&self.url);
            let opened = match inner.strip_prefix("file:") {
                Some(dir) => {
                    let dir = local_dir(&self.ctx.home, dir);
                    Bucket::directory(self.ctx, &self.url, &dir, &dir.join(layout::OWN).join(".lock"))?
                }
                None => open(self.ctx, inner, of_machine(self.ctx, inner)?)?,
            };
            *bucket = Some(opened);
        }
        Ok(Opened(bucket))
    }

    /// Whether it is a directory that does not exist: looking at it must not make it.
    fn is_absent(&self) -> bool {
        let inner = self.url.strip_prefix(SITE).unwrap_or(&self.url);
        inner.strip_prefix("file:").is_some_and(|dir| !local_dir(&self.ctx.home, dir).join(layout::OWN).exists())
    }

    /// The bucket, for a conditional write.
    fn trusted(&self) -> Result<Opened<'_, 'ctx>> {
        let opened = self.bucket()?;
        let bucket = opened.get()?;
        if !bucket.is_directory() && !self.probed.load(Ordering::Relaxed) {
            bucket.probe_below(layout::OWN)?;
            self.probed.store(true, Ordering::Relaxed);
        }
        Ok(opened)
    }

    /// Fails if our lock has another owner by now.
    fn fenced(&self, bucket: &Bucket) -> Result<()> {
        let Some(token) = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(()) };
        let lock = bucket.read(LOCK)?;
        let who = match parse(lock.as_ref().map(|(text, _)| text.as_slice())) {
            Lock::Held(owner) if owner.token == token => return Ok(()),
            Lock::Held(owner) => format!("{} has it", owner.by),
            Lock::Free | Lock::Unreadable(_) => "it was removed".to_owned(),
        };
        CliError::new(Kind::Locked, format!("{}: lost the lock, {who}", self.url))
            .hint("check what is live with `cargo xtask status`")
            .err()
    }

    /// The manifest and the served paths of an installed release.
    fn read(&self, bucket: &Bucket, id: &ReleaseId) -> Result<(Manifest, Served)> {
        match self.find(bucket, id)? {
            Some(found) => Ok(found),
            None => not_found(format!("{}: {id} is not installed", self.url))
                .hint("`cargo xtask releases` lists what can be deployed")
                .err(),
        }
    }

    fn find(&self, bucket: &Bucket, id: &ReleaseId) -> Result<Option<(Manifest, Served)>> {
        let keys = bucket.list(RELEASES)?.into_iter().map(|object| object.key);
        let key = keys.into_iter().find(|key| of_release_key(key).is_some_and(|(known, _)| known == *id));
        let Some(key) = key else { return Ok(None) };
        self.read_release(bucket, &key)
    }

    /// An installed release, of its key; `None` if a part of it is missing.
    fn read_release(&self, bucket: &Bucket, key: &str) -> Result<Option<(Manifest, Served)>> {
        let (manifest, served) = (bucket.read(key)?, bucket.read(&served_key(key))?);
        let Some(((manifest, _), (served, _))) = manifest.zip(served) else { return Ok(None) };
        installed(&self.url, key, &manifest, &served).map(Some)
    }

    fn put(&self, bucket: &Bucket, release: &Release, record: &Record) -> Result<()> {
        self.fenced(bucket)?;
        let manifest = release.manifest();
        let key = release_key(&manifest.id, &manifest.bundle.sha256);
        let (served, stored) = contents(&self.site, manifest)?;
        served.keys().try_for_each(|path| bucket.can_serve(path))?;
        let (json, paths) = (manifest.to_json(), serde_json::to_vec(&served).expect("its keys are texts"));
        if json.len().max(paths.len()) as u64 > BYTES_MAX {
            return usage(format!("{}: {} has too many files for a site", self.url, manifest.id))
                .hint("serve fewer files, or with shorter paths")
                .err();
        }
        let is_complete = bucket.size(&key)?.is_some() && bucket.size(&served_key(&key))?.is_some();
        let missing = missing(bucket, stored)?;
        if !missing.is_empty() {
            self.upload(bucket, release, &missing)?;
        }
        if is_complete && missing.is_empty() {
            return Ok(());
        }
        self.fenced(bucket)?;
        let next = |_: Option<&[u8]>| Ok(pointer::Next::Write(paths.clone(), ()));
        pointer::change((&self.url, bucket), &served_key(&key), next)?;
        self.serve_again(bucket, manifest, &served)?;
        bucket.create(&key, json)?;
        pointer::append_to((&self.url, bucket), HISTORY, record)
    }

    fn upload(&self, bucket: &Bucket, release: &Release, missing: &BTreeMap<String, content::Stored>) -> Result<()> {
        let target = self.ctx.root.join("target");
        // Debris of a killed run.
        sweep_of(&target, UNPACKING);
        let dir = scratch(&target, UNPACKING);
        Release::open_unpacked(release.dir(), &dir, &|_, _| {})?;
        let uploads: Vec<_> = missing
            .iter()
            .map(|(key, file)| Upload {
                key: key.clone(),
                from: dir.join(&file.from),
                bytes: file.bytes,
                headers: file.headers.clone(),
            })
            .collect();
        let done = bucket.put_all(&uploads, &self.ctx.progress("uploading"));
        let _ = fs::remove_dir_all(&dir);
        done
    }

    fn operate(&self, operation: &Operation) -> Result<Output> {
        let opened = self.trusted()?;
        let bucket = opened.get()?;
        let ok = |stdout: String| Ok(Output { code: Some(0), stdout, ..Output::NONE });
        match operation {
            Operation::Run(script) if script.of_project => failed(format!("{}: a site runs no commands", self.url))
                .hint("use `host.local(...)` in hooks, and `Check::Http` as health check")
                .err(),
            // Scripts of the engine prepare what only a host has.
            Operation::Run(_) => ok(String::new()),
            Operation::VerifyFiles(id) => match self.damaged(bucket, id, false)?.first() {
                Some(bad) => Ok(Output { code: Some(EXIT_VERIFICATION), stderr: bad.clone(), ..Output::NONE }),
                None => ok(String::new()),
            },
            Operation::Activate(Some(id), record) => {
                self.activate_in(bucket, id, *record).and_then(|()| ok(String::new()))
            }
            Operation::Activate(None, record) => self.deactivate(bucket, *record).and_then(|()| ok(String::new())),
            Operation::Record(record) => {
                self.fenced(bucket)?;
                pointer::append_to((&self.url, bucket), HISTORY, record)?;
                ok(String::new())
            }
            Operation::Remove(releases, record) => {
                self.clean(bucket, releases, record).and_then(|()| ok(String::new()))
            }
            Operation::KeepCheck(json) => {
                self.fenced(bucket)?;
                // A bucket that is a web server keeps no secret. Without a kept check a revert uses the project's.
                let kept = if self.ctx.scrub(json) == **json { json.as_bytes().to_vec() } else { vec![] };
                let next = |_: Option<&[u8]>| Ok(pointer::Next::Write(kept.clone(), ()));
                pointer::change((&self.url, bucket), CHECK, next)?;
                ok(String::new())
            }
            Operation::KeptCheck => {
                let kept = bucket.read(CHECK)?;
                ok(kept.map(|(text, _)| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default())
            }
            Operation::Unlock => {
                let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).take();
                if token.is_some() {
                    free((&self.url, bucket), LOCK, token.as_deref())?;
                }
                ok(String::new())
            }
        }
    }
}

/// The contents that are not stored, or not as they should be.
fn missing(bucket: &Bucket, stored: BTreeMap<String, content::Stored>) -> Result<BTreeMap<String, content::Stored>> {
    let there = bucket.sizes(FILES)?;
    let mut missing = BTreeMap::new();
    for (key, file) in stored {
        if !is_stored(bucket, &there, &key, file.bytes)? {
            missing.insert(key, file);
        }
    }
    Ok(missing)
}

/// Whether a content is stored: by its size in a bucket, where reading costs as much as sending, and by its digest in a
/// directory.
fn is_stored(bucket: &Bucket, there: &BTreeMap<String, u64>, key: &str, bytes: u64) -> Result<bool> {
    if there.get(key) != Some(&bytes) {
        return Ok(false);
    }
    Ok(!bucket.is_directory() || bucket.digest_of(key)?.as_deref() == digest_of_key(key))
}

/// An open bucket, which one thread uses at a time.
struct Opened<'a, 'ctx>(MutexGuard<'a, Option<Bucket<'ctx>>>);

impl<'ctx> Opened<'_, 'ctx> {
    fn get(&self) -> Result<&Bucket<'ctx>> {
        match &*self.0 {
            Some(bucket) => Ok(bucket),
            None => failed("the bucket is not open").hint("run the same command again").err(),
        }
    }
}

impl Lockable for SiteTarget<'_> {
    fn url(&self) -> &str {
        &self.url
    }

    fn holder(&self) -> Result<Lock> {
        if self.is_absent() {
            return Ok(Lock::Free);
        }
        let lock = self.bucket()?.get()?.read(LOCK)?;
        Ok(parse(lock.as_ref().map(|(text, _)| text.as_slice())))
    }

    fn lock(&self, owner: &Owner) -> Result<Lock> {
        let opened = self.trusted()?;
        let bucket = opened.get()?;
        let lock = take((&self.url, bucket), LOCK, owner, None)?;
        Ok(self.took(owner, lock))
    }

    fn take_over(&self, owner: &Owner, seen: &Owner, _dead: &Owner) -> Result<Lock> {
        let lock = take((&self.url, self.trusted()?.get()?), LOCK, owner, Some(seen))?;
        Ok(self.took(owner, lock))
    }

    fn unlock(&self, token: Option<&str>) -> Result<()> {
        free((&self.url, self.trusted()?.get()?), LOCK, token)?;
        let mut ours = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.is_none() || ours.as_deref() == token {
            *ours = None;
        }
        Ok(())
    }
}

impl SiteTarget<'_> {
    fn took(&self, owner: &Owner, lock: Lock) -> Lock {
        if lock == Lock::Free {
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(owner.token.clone());
        }
        lock
    }
}

impl Target for SiteTarget<'_> {
    fn root(&self) -> &str {
        &self.url
    }

    fn host(&self) -> &str {
        let inner = self.url.strip_prefix(SITE).unwrap_or(&self.url);
        inner.split_once("://").map_or(inner, |(_, rest)| rest.split('/').next().unwrap_or(rest))
    }

    fn examine(&self) -> Result<()> {
        if self.is_absent() {
            return Ok(());
        }
        self.bucket()?.get()?.probe_below(layout::OWN)
    }

    fn state(&self) -> Result<State> {
        if self.is_absent() {
            return Ok(State::default());
        }
        let opened = self.bucket()?;
        let bucket = opened.get()?;
        let keys = [CURRENT, HISTORY, LOCK].map(str::to_owned);
        let mut found: BTreeMap<_, _> = bucket.read_all(&keys)?.into_iter().collect();
        let (releases, served) = (bucket.list(RELEASES)?, bucket.sizes(SERVED)?);
        let complete = releases.iter().filter(|object| served.contains_key(&served_key(&object.key)));
        let installed: BTreeMap<_, _> = complete.filter_map(|object| of_release_key(&object.key)).collect();
        let now = now(&self.url, found.remove(CURRENT).as_deref())?;
        let history = found.remove(HISTORY).unwrap_or_default();
        let unfinished = !now.switching.is_empty();
        let exists = !installed.is_empty() || now.release.is_some() || unfinished || !history.is_empty();
        Ok(State {
            root: if exists { Root::Directory } else { Root::Absent },
            current: now.release.map_or(Current::None, Current::Release),
            unfinished,
            app: now.app,
            installed,
            lock: parse(found.get(LOCK).map(Vec::as_slice)),
            history: History::parse(&String::from_utf8_lossy(&history)),
            ..State::default()
        })
    }

    fn install(&self, delivery: &Delivery, record: &Record) -> Result<()> {
        self.put(self.trusted()?.get()?, delivery.release(), record)
    }

    fn act(&self, acts: &[Operation]) -> Result<Vec<Output>> {
        let mut answers = Vec::new();
        for operation in acts {
            match self.operate(operation) {
                Ok(answer) => {
                    let ok = answer.ok();
                    answers.push(answer);
                    if !ok {
                        break;
                    }
                }
                Err(error) => {
                    let stderr = format!("{error:#}");
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    answers.push(Output { code: Some(1), stderr, ..Output::NONE });
                    break;
                }
            }
        }
        Ok(answers)
    }

    fn complaint(&self, _: &Operation, answer: &Output) -> anyhow::Error {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure
            .unwrap_or_else(|| failed(format!("{}: {}", self.url, answer.stderr)).hint("run it again with -v").into())
    }

    fn repair_hint(&self, release: &ReleaseId) -> String {
        format!("find out who writes to the bucket; then remove .gangplank/releases/{release}.*.json there")
    }

    fn manifest(&self, release: &ReleaseId) -> Result<Manifest> {
        self.read(self.bucket()?.get()?, release).map(|(manifest, _)| manifest)
    }

    fn verify(&self, release: &ReleaseId) -> Result<Vec<String>> {
        self.damaged(self.bucket()?.get()?, release, true)
    }

    fn attend(&self, _: &Script, _: &mut dyn FnMut(Stream, String), _: &dyn Fn() -> bool) -> Result<Option<i32>> {
        usage(format!("{} is a site: it has no processes and no logs", self.url))
            .hint("name another env; `cargo xtask status` shows all")
            .err()
    }
}
