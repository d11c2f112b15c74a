//! Object storage: whole objects, conditional writes, and multipart transfers. Knows nothing of releases. All async
//! code stays here, on one thread.
//!
//! S3's conditional writes: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>.

pub(crate) mod diagnose;
mod directory;
pub mod many;
pub mod settings;
mod transfer;

use crate::object::diagnose::{Doing, Server, explain};
use crate::object::settings::values::{Scheme, Settings};
use futures_util::future::{Either, select};
use futures_util::{StreamExt, TryStreamExt, stream};
use gangplank_model::error::{CliError, Kind, Result, WithHint, failed};
use gangplank_system::context::{Context, var};
use gangplank_system::http::{ClientLimits, NetworkOptions};
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, RetryConfig, UpdateVersion,
};
use std::cell::Cell;
use std::fs::File;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Size of a part in bytes; S3 takes 5 MiB at least, and 10,000 parts at most.
const PART: usize = 8 << 20;
/// Parts in flight; with the size of a part, this bounds the memory of a transfer.
const AT_ONCE: usize = 5;
/// Concurrent reads of small objects.
const READS: usize = 16;
/// The maximum size of an object read into memory.
const SMALL_MAX: u64 = gangplank_model::release::manifest::BYTES_MAX;
/// The time limit of a request, including the connection.
const REQUEST: Duration = Duration::from_secs(300);
const CONNECT: Duration = Duration::from_secs(10);
/// After this time a request is reported as slow.
const SLOW: Duration = Duration::from_secs(5);
/// The time limit of the last request after an interrupt.
const LAST_REQUEST: Duration = Duration::from_secs(3);
/// The interval of checks for an interrupt.
const TICK: Duration = Duration::from_millis(100);
/// The key for testing conditional writes.
const PROBE: &str = "probe";
/// Retries of a request.
const RETRIES: usize = 10;

/// A prefix of a bucket. Keys are relative to it, with `/` between their parts.
pub struct Bucket<'ctx> {
    ctx: &'ctx Context,
    server: Server,
    root: Key,
    store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    runtime: Runtime,
    /// Whether the server needs the tag in `If-Match` without quotes, as Ceph did until 2023.
    bare_tags: Cell<bool>,
    /// In a directory: the lock for a compare-and-write, which file systems lack.
    lock: Option<PathBuf>,
    /// A directory whose files are served.
    served: Option<PathBuf>,
}

/// The version of an object that was read, for a conditional write.
#[derive(Debug, Clone)]
pub struct Version(UpdateVersion);

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the write, by the server's clock.
    pub written: Timestamp,
}

impl<'ctx> Bucket<'ctx> {
    /// Opens a bucket without a request.
    pub fn open(ctx: &'ctx Context, url: &str, settings: &Settings) -> Result<Self> {
        if let Some(dir) = ctx.var(var::BUCKETS) {
            return Self::in_directory(ctx, url, settings, Path::new(dir));
        }
        gangplank_system::http::install_tls();
        let deadline = gangplank_system::http::session::deadline(ctx)?;
        let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: deadline };
        let limits = ClientLimits {
            request: REQUEST.min(deadline),
            connect: CONNECT.min(deadline),
            plain_http: settings.plain_http(),
        };
        let server = Server::of(url, settings)?;
        let connector = Connector { network: settings.network.clone(), limits };
        let (store, signer) = build(settings, connector, retry).map_err(|e| explain(&server, Doing::Opening, &e))?;
        Self::with(ctx, server, &settings.prefix, store, settings.signs.then_some(signer))
    }

    /// A directory whose files a web server of this machine serves.
    pub fn directory(ctx: &'ctx Context, url: &str, dir: &Path, lock: &Path) -> Result<Self> {
        let what = || format!("cannot make {}", dir.display());
        let hint = || "check its permissions".to_owned();
        std::fs::create_dir_all(lock.parent().unwrap_or(dir)).with_hint(Kind::Failed, what, hint)?;
        let store = LocalFileSystem::new_with_prefix(dir).with_hint(Kind::Failed, what, hint)?;
        let bucket = Self::with(ctx, Server::new(url), "", Arc::new(store.with_fsync(true)), None)?;
        Ok(Self { lock: Some(lock.to_owned()), served: Some(dir.to_owned()), ..bucket })
    }

    fn in_directory(ctx: &'ctx Context, url: &str, settings: &Settings, dir: &Path) -> Result<Self> {
        let dir = dir.join(&settings.bucket);
        let what = || format!("cannot make {}", dir.display());
        let hint = || "check its permissions".to_owned();
        std::fs::create_dir_all(&dir).with_hint(Kind::Failed, what, hint)?;
        let store = LocalFileSystem::new_with_prefix(&dir).with_hint(Kind::Failed, what, hint)?;
        let bucket = Self::with(ctx, Server::new(url), &settings.prefix, Arc::new(store), None)?;
        Ok(Self { lock: Some(dir.join(".lock")), ..bucket })
    }

    /// A bucket in memory, for tests.
    pub fn in_memory(ctx: &'ctx Context, store: &Memory) -> Result<Self> {
        Self::with(ctx, Server::new("memory:"), "", store.0.clone(), None)
    }

    fn with(
        ctx: &'ctx Context,
        server: Server,
        prefix: &str,
        store: Arc<dyn ObjectStore>,
        signer: Option<Arc<dyn Signer>>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().with_hint(
            Kind::Failed,
            || format!("{}: cannot start the network", server.url),
            || "check for free file descriptors: `ulimit -n`".into(),
        )?;
        let root = Key::from(prefix);
        Ok(Self { ctx, server, root, store, signer, runtime, bare_tags: Cell::new(false), lock: None, served: None })
    }

    fn key(&self, key: &str) -> Key {
        self.root.parts().chain(Key::from(key).parts()).collect()
    }

    fn relative(&self, key: &Key) -> String {
        let parts = key.prefix_match(&self.root).map(|parts| parts.map(|part| part.as_ref().to_owned()));
        parts.map(|parts| parts.collect::<Vec<_>>().join("/")).unwrap_or_default()
    }

    /// Waits for a request. Reports it after `slow`; fails soon after an interrupt. A later request, for clean-up, gets
    /// the same short limit.
    fn wait<T: Stopped>(&self, slow: Option<Duration>, request: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            let mut request = std::pin::pin!(request);
            let (mut waited, mut stopping) = (Duration::ZERO, Duration::ZERO);
            loop {
                let tick = std::pin::pin!(tokio::time::sleep(TICK));
                if let Either::Left((done, _)) = select(&mut request, tick).await {
                    return done;
                }
                waited += TICK;
                if slow == Some(waited) {
                    self.ctx.note(format!(
                        "{} has not answered for {} s; still waiting",
                        self.server.url,
                        waited.as_secs()
                    ));
                }
                if self.ctx.interrupted() {
                    stopping += TICK;
                    if stopping >= LAST_REQUEST {
                        return T::stopped();
                    }
                }
            }
        })
    }

    fn explained<T>(&self, doing: Doing, done: Result<T, Error>) -> Result<T> {
        done.map_err(|error| explain(&self.server, doing, &error).into())
    }

    /// An object and its version; `None` if it does not exist.
    pub fn read(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>> {
        self.wait(Some(SLOW), self.read_one(key))
    }

    /// Several objects, without missing ones.
    pub(crate) fn read_all(&self, keys: &[String]) -> Result<Vec<(String, Vec<u8>)>> {
        let each = stream::iter(keys.to_vec())
            .map(|key| async move { Ok::<_, anyhow::Error>((key.clone(), self.read_one(&key).await?)) });
        let all: Vec<_> = self.wait(Some(SLOW), each.buffered(READS).try_collect())?;
        Ok(all.into_iter().filter_map(|(key, read)| Some((key, read?.0))).collect())
    }

    async fn read_one(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>> {
        let doing = Doing::Reading(key);
        let got = match self.store.get_opts(&self.key(key), GetOptions::new()).await {
            Err(Error::NotFound { source, .. }) if !diagnose::is_bucket_missing(&*source) => return Ok(None),
            got => self.explained(doing, got)?,
        };
        if got.meta.size > SMALL_MAX {
            return gangplank_model::error::verification(format!(
                "{}/{key} has {} bytes: it is not ours",
                self.server.url, got.meta.size
            ))
            .hint("inspect it and move it away")
            .err();
        }
        let version = Version(UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() });
        let bytes = self.explained(doing, got.bytes().await)?;
        Ok(Some((bytes.into(), version)))
    }

    /// Creates an object; `false` if it exists.
    pub fn create(&self, key: &str, bytes: Vec<u8>) -> Result<bool> {
        self.write(key, bytes, PutMode::Create)
    }

    /// Replaces an object of this version; `false` if it has another version or is gone.
    pub fn replace(&self, key: &str, bytes: Vec<u8>, version: &Version) -> Result<bool> {
        let mut version = version.0.clone();
        if self.bare_tags.get() {
            version.e_tag = version.e_tag.map(|tag| tag.trim_matches('"').to_owned());
        }
        self.write(key, bytes, PutMode::Update(version))
    }

    fn write(&self, key: &str, bytes: Vec<u8>, mode: PutMode) -> Result<bool> {
        if let (Some(lock), PutMode::Update(version)) = (&self.lock, &mode) {
            return self.swap(key, bytes, version, lock);
        }
        let replaces = matches!(mode, PutMode::Update(_));
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.wait(Some(SLOW), self.store.put_opts(&self.key(key), bytes.into(), options)) {
            Err(Error::AlreadyExists { source, .. } | Error::Precondition { source, .. })
                if !diagnose::is_bucket_missing(&*source) =>
            {
                Ok(false)
            }
            // For a replacement the object is gone; for a creation the bucket does not exist.
            Err(Error::NotFound { source, .. }) if replaces && !diagnose::is_bucket_missing(&*source) => Ok(false),
            done => self.explained(Doing::Writing(key), done).map(|_| true),
        }
    }

    fn swap(&self, key: &str, bytes: Vec<u8>, version: &UpdateVersion, lock: &Path) -> Result<bool> {
        let what = || format!("cannot lock {}", lock.display());
        let hint = || "check its permissions".to_owned();
        let file = File::create(lock).with_hint(Kind::Failed, what, hint)?;
        file.lock().with_hint(Kind::Failed, what, hint)?;
        match self.wait(Some(SLOW), self.store.head(&self.key(key))) {
            Ok(meta) if meta.e_tag == version.e_tag => self.write(key, bytes, PutMode::Overwrite),
            Ok(_) | Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => self.explained(Doing::Writing(key), Err(error)),
        }
    }

    /// Tests whether the server honours conditional writes: without them, concurrent writers lose data. Leaves the
    /// object `probe` behind.
    pub fn probe(&self) -> Result<()> {
        self.probe_by(PROBE)
    }

    /// Like [`Self::probe`], with an object of its own that is removed afterwards. Without the permission to remove, it
    /// leaves what the next put would leave.
    pub fn examine(&self) -> Result<()> {
        let own = format!("{PROBE}-{}-{}", std::process::id(), Timestamp::now().as_nanosecond());
        if self.read(PROBE)?.is_some() || self.remove(&own).is_err() {
            return self.probe();
        }
        let probed = self.probe_by(&own);
        let removed = self.remove(&own);
        probed.and(removed)
    }

    /// Like [`Self::probe`], with an object below a directory.
    pub(crate) fn probe_below(&self, dir: &str) -> Result<()> {
        self.probe_by(&format!("{dir}/{PROBE}"))
    }

    fn probe_by(&self, key: &str) -> Result<()> {
        let note = || b"Gangplank looks here whether conditional writes are honoured.\n".to_vec();
        let ignored = |what: &str| {
            CliError::new(Kind::Remote, format!("{}: the server ignores `{what}`, so jobs could overwrite each other", self.server.url))
                .hint("use a server that honours conditional writes (AWS S3, Cloudflare R2, Ceph, ...), or circleci:artifacts")
                .err()
        };
        if self.create(key, note())? && self.create(key, note())? {
            return ignored("If-None-Match: *");
        }
        let stale = Version(UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".into()),
            version: Some("1".into()),
        });
        if self.replace(key, note(), &stale)? {
            return ignored("If-Match");
        }
        // Other probes may run, so one refusal is inconclusive. A refusal of the current version means that the tag has
        // the wrong format.
        for _ in 0..20 {
            let Some((bytes, version)) = self.read(key)? else { continue };
            if self.replace(key, bytes, &version)? {
                // The condition has to work in this format too.
                return if self.replace(key, note(), &stale)? { ignored("If-Match") } else { Ok(()) };
            }
            if self.read(key)?.is_some_and(|(_, now)| now.0.e_tag == version.0.e_tag) {
                self.bare_tags.set(!self.bare_tags.get());
            }
        }
        self.bare_tags.set(false);
        CliError::new(
            Kind::Remote,
            format!("{}: the server refuses every `If-Match`, so no pointer can be moved", self.server.url),
        )
        .hint("use a server that honours conditional writes (AWS S3, Cloudflare R2, Ceph, ...), or circleci:artifacts")
        .err()
    }

    /// Size of an object; `None` if it does not exist.
    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.wait(Some(SLOW), self.store.head(&self.key(key))) {
            // The answer to a HEAD has no body to tell a missing bucket.
            Err(Error::NotFound { .. }) => Ok(None),
            done => self.explained(Doing::Reading(key), done).map(|meta| Some(meta.size)),
        }
    }

    /// The objects below a prefix of whole key parts, in key order.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let prefix = self.key(prefix);
        self.collect(self.store.list(Some(&prefix)))
    }

    /// The objects below `prefix` whose keys continue with `start`, which may end within a part.
    pub(crate) fn list_from(&self, prefix: &str, start: &str) -> Result<Vec<Object>> {
        let below = self.key(prefix);
        let want = format!("{below}/{start}");
        let start = Key::from(want.as_str());
        let found = self.store.list_with_offset(Some(&below), &start);
        let begins = move |meta: &ObjectMeta| meta.location.as_ref().starts_with(&want);
        // Azurite ignores the start of a listing, so earlier keys are skipped here too. A server lists in order, so the
        // first other key is the end; a directory does not.
        let found = found.try_filter(move |meta| ready(meta.location >= start));
        self.collect(if self.lock.is_some() {
            found.try_filter(move |meta| ready(begins(meta))).boxed()
        } else {
            found.try_take_while(move |meta| ready(Ok(begins(meta)))).boxed()
        })
    }

    fn collect(&self, found: stream::BoxStream<'_, Result<ObjectMeta, Error>>) -> Result<Vec<Object>> {
        let found: Vec<_> = self.explained(Doing::Listing, self.wait(Some(SLOW), found.try_collect()))?;
        let mut objects: Vec<_> = found
            .into_iter()
            .map(|meta| Object {
                key: self.relative(&meta.location),
                bytes: meta.size,
                written: Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or_default(),
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Removes objects; a missing one is a success.
    pub fn remove(&self, key: &str) -> Result<()> {
        match self.wait(Some(SLOW), self.store.delete(&self.key(key))) {
            Err(Error::NotFound { source, .. }) if !diagnose::is_bucket_missing(&*source) => Ok(()),
            done => self.explained(Doing::Removing(key), done),
        }
    }

    /// Whether [`Bucket::signed_url`] works: not in a directory or in memory.
    pub fn signs(&self) -> bool {
        self.signer.is_some()
    }

    /// A URL for anyone to download the object until it expires. It is a secret.
    pub fn signed_url(&self, key: &str, valid: Duration) -> Result<gangplank_system::http::Url> {
        self.signed("GET", &self.key(key), valid)
    }

    /// Creates the bucket on a local server; succeeds if it exists.
    pub fn make(&self) -> Result<()> {
        let url = self.signed("PUT", &Key::default(), REQUEST)?;
        match gangplank_system::http::Client::new()?.put_empty(&url) {
            Ok(200 | 204 | 409) => Ok(()),
            other => {
                let reason =
                    other.map_or_else(|broken| broken.reason, |status| format!("the server answered {status}"));
                CliError::new(Kind::Remote, format!("cannot create the bucket of {}: {reason}", self.server.url))
                    .hint("check the logs of the server")
                    .err()
            }
        }
    }

    fn signed(&self, method: &str, key: &Key, valid: Duration) -> Result<gangplank_system::http::Url> {
        let Some(signer) = &self.signer else {
            return failed(format!("{}: cannot sign URLs", self.server.url)).hint("use an s3:// store").err();
        };
        let method = method.parse().expect("the methods above are methods");
        self.explained(Doing::Signing, self.wait(Some(SLOW), signer.signed_url(method, key, valid)))
    }
}

/// A result that can represent an interrupt.
trait Stopped {
    fn stopped() -> Self;
}

impl<T> Stopped for Result<T, Error> {
    fn stopped() -> Self {
        Err(Error::Generic { store: "", source: diagnose::STOPPED.into() })
    }
}

impl<T> Stopped for Result<T> {
    fn stopped() -> Self {
        failed(diagnose::STOPPED).hint("run the same command again").err()
    }
}

/// The storage shared by several [`Bucket::in_memory`].
#[derive(Clone, Default)]
pub struct Memory(Arc<InMemory>);

type Opened = (Arc<dyn ObjectStore>, Arc<dyn Signer>);

/// The bucket is set last, so that no variable overrides it.
fn build(settings: &Settings, connector: Connector, retry: RetryConfig) -> Result<Opened, Error> {
    // The connector enforces this.
    let client = ClientOptions::new().with_allow_http(settings.plain_http());
    // The builders of the library have no trait in common.
    macro_rules! open {
        ($builder:ident, $key:ident, $with_bucket:ident) => {{
            let options = settings.options.iter();
            let known = options.filter_map(|(name, value)| Some((name.parse::<$key>().ok()?, value)));
            let builder = $builder::new().with_client_options(client).with_retry(retry).with_http_connector(connector);
            let builder = known.fold(builder, |it, (key, value)| it.with_config(key, value));
            let store = Arc::new(builder.$with_bucket(&settings.bucket).build()?);
            Ok((store.clone(), store))
        }};
    }
    match settings.scheme {
        Scheme::S3 => open!(AmazonS3Builder, AmazonS3ConfigKey, with_bucket_name),
        Scheme::Google => open!(GoogleCloudStorageBuilder, GoogleConfigKey, with_bucket_name),
        Scheme::Azure => open!(MicrosoftAzureBuilder, AzureConfigKey, with_container_name),
    }
}

/// Creates the library's HTTP clients: for the bucket, a token service, and a metadata address, which uses plain http.
#[derive(Clone)]
struct Connector {
    network: NetworkOptions,
    limits: ClientLimits,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient, Error> {
        let plain_http = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let client = self.network.storage_client(&ClientLimits { plain_http, ..self.limits.clone() });
        client.map(HttpClient::new).map_err(|source| Error::Generic { store: "HTTP client", source: Box::new(source) })
    }
}
