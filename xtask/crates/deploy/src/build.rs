//! `build`: compiles the app, and packs binaries and included files into a release.

mod remap;

use crate::extend::Step;
use crate::include;
use gangplank_bundle::pack;
use gangplank_bundle::pack::Source;
use gangplank_bundle::release::{Release, scratch, supports};
use gangplank_model::error::{Kind, Result, WithHint, failed, usage};
use gangplank_model::project::App;
use gangplank_model::release::digest;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::{Bundle, Commit, Content, FileEntry, Manifest, Toolchain};
use gangplank_system::context::Context;
use gangplank_system::git;
use gangplank_system::machine;
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

pub use gangplank_model::release::layout::RELEASES;

/// The result of `build`.
#[derive(Debug, Serialize)]
pub struct Built {
    /// The release.
    pub release: ReleaseId,
    /// Its directory.
    pub dir: PathBuf,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// SHA-256 of the bundle.
    pub sha256: String,
    /// Number of files in it.
    pub files: usize,
    /// Whether the release already existed with these files, so that nothing was compressed.
    pub up_to_date: bool,
}

/// Builds the app of the checkout into `target/releases/<id>/`.
pub fn build(ctx: &Context, app: &App, steps: &[Step]) -> Result<Built> {
    supports(app.compression)?;
    for step in steps {
        ctx.note(format!("step {}", step.name));
        (step.run)(ctx)?;
    }
    let commit = git::commit(ctx)?;
    if commit.dirty && ctx.in_ci() {
        return changed_in_job(ctx);
    }
    let compiled = compile(ctx, app, &commit)?;
    let sources = include::sources(&ctx.root, &compiled.package_dirs, app.include, &compiled.binaries)?;
    include::check(ctx, app, &sources, &compiled.binaries)?;
    let releases = ctx.root.join(RELEASES);
    fs::create_dir_all(&releases).with_hint(
        Kind::Failed,
        || format!("cannot make {}", releases.display()),
        || "check its permissions".into(),
    )?;
    machine::sweep(&releases);
    let clean_id = ReleaseId::new(commit.time, &commit.sha, None)?;
    // Compare with an existing release before the expensive compression.
    let known =
        if commit.dirty || releases.join(clean_id.as_str()).exists() { Some(hash(ctx, &sources)?) } else { None };
    let tree = known.as_deref().map(tree_digest);
    let id = if commit.dirty { ReleaseId::new(commit.time, &commit.sha, tree.as_deref())? } else { clean_id };
    if let Some(built) = up_to_date(&releases, app, &id, known.as_deref()) {
        return Ok(built);
    }
    let there = releases.join(id.as_str());
    match Release::read_manifest(&there) {
        Ok(other) if other.app != app.name => ctx.warn(format!(
            "replacing {id} of the app `{}`: `put` the release of one app before building another",
            other.app
        )),
        _ if there.exists() => {
            ctx.warn(format!("{id} was built before with other bytes, or is damaged; rebuilding it"));
        }
        _ => {}
    }
    let progress = ctx.progress("compressing");
    let mtime = u64::try_from(commit.time.as_second()).unwrap_or(0);
    let aside = scratch(&releases, "packing");
    let older = newest_bundle(&releases, app);
    let packed = pack::pack(&sources, mtime, &aside, app.compression, older.as_deref(), &progress)
        .inspect_err(|_| drop(fs::remove_file(&aside)))?;
    let manifest = Manifest {
        schema: manifest::SCHEMA,
        app: app.name.to_owned(),
        id: id.clone(),
        commit,
        ci: machine::ci_job(ctx),
        toolchain: if app.packages.is_empty() { None } else { Some(toolchain(ctx, &compiled.binaries)?) },
        bundle: Bundle {
            file: Manifest::bundle_name(app.name, &id, app.compression),
            bytes: packed.bytes,
            sha256: packed.sha256.clone(),
            tar_sha256: packed.tar_sha256.clone(),
        },
        files: packed.files.clone(),
        signatures: vec![],
    };
    let release = Release::seal(&packed, manifest, &releases).inspect_err(|_| drop(fs::remove_file(&aside)))?;
    Ok(built(release.manifest(), release.dir(), false))
}

/// The error for a dirty release in a job: other jobs find releases by their commit.
fn changed_in_job(ctx: &Context) -> Result<Built> {
    let changes = git::checkout::Checkout::open(ctx)?.changes()?;
    let (first, more) = (changes.first().map_or("a file", String::as_str), changes.len().saturating_sub(1));
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    usage(format!("{first}{more} changed since this job checked out the commit"))
        .hint("find the step that changes it, e.g. with `git status` as an earlier step, and add generated files to .gitignore")
        .err()
}

/// The last bundle built, which is most similar to the next.
fn newest_bundle(releases: &Path, app: &App) -> Option<PathBuf> {
    let entries = fs::read_dir(releases).ok()?.flatten();
    let bundle = |entry: fs::DirEntry| {
        let id: ReleaseId = entry.file_name().to_str()?.parse().ok()?;
        let bundle = entry.path().join(Manifest::bundle_name(app.name, &id, app.compression));
        let meta = bundle.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((meta.modified().ok()?, bundle))
    };
    entries.filter_map(bundle).max().map(|(_, bundle)| bundle)
}

fn built(manifest: &Manifest, dir: &Path, up_to_date: bool) -> Built {
    Built {
        release: manifest.id.clone(),
        dir: dir.to_owned(),
        bytes: manifest.bundle.bytes,
        sha256: manifest.bundle.sha256.clone(),
        files: manifest.files.len(),
        up_to_date,
    }
}

/// The existing release, if it has the same files and its bundle the recorded digest.
fn up_to_date(releases: &Path, app: &App, id: &ReleaseId, files: Option<&[FileEntry]>) -> Option<Built> {
    let dir = releases.join(id.as_str());
    let manifest = Release::listed(&dir).ok()?;
    let (bundle, _) = digest::of_reader(&mut File::open(dir.join(&manifest.bundle.file)).ok()?).ok()?;
    let same = Some(manifest.files.as_slice()) == files && bundle == manifest.bundle.sha256;
    let same = same && manifest.compression() == app.compression && manifest.app == app.name;
    if same {
        // Marks the last build of a dirty tree; see `Catalog::resolve`.
        let _ = File::open(dir.join(manifest::FILE)).and_then(|file| file.set_modified(std::time::SystemTime::now()));
    }
    same.then(|| built(&manifest, &dir, true))
}

fn hash(ctx: &Context, sources: &[Source]) -> Result<Vec<FileEntry>> {
    let total = sources.iter().map(|source| source.bytes).sum();
    let progress = ctx.progress("hashing");
    let mut done = 0;
    sources
        .iter()
        .map(|source| {
            let content = match &source.link {
                Some(to) => Content::Link(to.clone()),
                None => {
                    let hashed = File::open(&source.from).and_then(|mut file| digest::of_reader(&mut file));
                    let what = || format!("cannot read {}", source.from.display());
                    Content::Sha256(
                        hashed
                            .with_hint(Kind::Failed, what, || "make it readable, or remove it from `include`".into())?
                            .0,
                    )
                }
            };
            done += source.bytes;
            progress(done, total);
            Ok(FileEntry { path: source.path.clone(), bytes: source.bytes, mode: source.mode, content })
        })
        .collect()
}

fn tree_digest(files: &[FileEntry]) -> String {
    digest::of(&serde_json::to_vec(files).expect("entries have no maps with odd keys"))
}

fn toolchain(ctx: &Context, binaries: &[PathBuf]) -> Result<Toolchain> {
    let mut command = Command::new(ctx.var("RUSTC").unwrap_or("rustc"));
    command.arg("-vV").current_dir(&ctx.root);
    let text = ctx.read(command)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("unknown");
    let rustc = text.lines().next().unwrap_or("unknown");
    let target = match binaries.first().and_then(|binary| target_dir(binary)) {
        Some(name) => {
            let mut command = Command::new(ctx.var("RUSTC").unwrap_or("rustc"));
            command.args(["--print", "target-list"]).current_dir(&ctx.root);
            ctx.read(command)?.lines().find(|known| *known == name).map(str::to_owned)
        }
        None => None,
    };
    let target = target.unwrap_or_else(|| host.to_owned());
    Ok(Toolchain { rustc: rustc.to_owned(), target, profile: "release".into() })
}

/// The directory around `release/NAME`, named after the target if cargo cross-compiles.
fn target_dir(binary: &Path) -> Option<&str> {
    let name = binary.parent()?.parent()?.file_name()?.to_str()?;
    (name.matches('-').count() > 1).then_some(name)
}

#[derive(Default)]
struct Compiled {
    binaries: Vec<PathBuf>,
    package_dirs: Vec<PathBuf>,
}

/// Runs cargo and reads the paths of the binaries from its messages, because they depend on the configuration.
fn compile(ctx: &Context, app: &App, commit: &Commit) -> Result<Compiled> {
    let [first, ..] = app.packages else { return Ok(Compiled::default()) };
    let packages: Vec<_> = app.packages.iter().flat_map(|package| ["--package", package]).collect();
    let build = ["build", "--release", "--locked", "--bins", "--message-format=json-render-diagnostics"];
    let features: Vec<_> = app.features.iter().flat_map(|feature| ["--features", feature]).collect();
    let mut command = ctx.cargo(&[&build[..], &packages, &features].concat());
    remap::apply(ctx, &mut command);
    let sha = if commit.dirty { format!("{}-dirty", commit.sha) } else { commit.sha.clone() };
    command.env("GANGPLANK_COMMIT", sha).env("SOURCE_DATE_EPOCH", commit.time.as_second().to_string());
    let answer = ctx.answer_with_stderr(command)?;
    if !answer.ok() {
        let packages = app.packages.join(", ");
        return failed(format!("cargo could not build {packages} ({})", gangplank_system::context::exit(answer.code)))
            .hint(format!("see the output of cargo above, or run `cargo build --release --locked --package {first}`"))
            .err();
    }
    let compiled = read_messages(&answer.stdout);
    if compiled.binaries.is_empty() {
        return usage(format!("package `{}` has no binary", app.packages.join("`, `")))
            .hint("name a package with a src/main.rs in `packages`, or add its `required-features` to `features`: xtask/src/main.rs")
            .err();
    }
    remap::warn_of_paths(ctx, &compiled.binaries);
    Ok(compiled)
}

/// Parses `--message-format=json`: <https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>.
fn read_messages(stdout: &str) -> Compiled {
    let mut compiled = Compiled::default();
    for message in stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        let Some(executable) = message["executable"].as_str() else { continue };
        if message["reason"] == "compiler-artifact" {
            compiled.binaries.push(executable.into());
            compiled.package_dirs.extend(
                message["manifest_path"].as_str().and_then(|path| Path::new(path).parent()).map(Path::to_owned),
            );
        }
    }
    compiled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_come_from_cargos_messages() {
        let lines = r#"{"reason":"compiler-artifact","manifest_path":"/w/lib/Cargo.toml","executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/app/Cargo.toml","executable":"/w/target/release/app"}
not json
{"reason":"build-finished","success":true}"#;
        let compiled = read_messages(lines);
        assert_eq!(compiled.binaries, [PathBuf::from("/w/target/release/app")]);
        assert_eq!(compiled.package_dirs, [PathBuf::from("/w/app")]);
    }

    #[test]
    fn target_is_the_directory_around_that_of_the_profile() {
        for (binary, target) in [
            ("/w/target/release/app", None),
            ("/w/my-target/release/app", None),
            ("/w/target/x86_64-unknown-linux-musl/release/app", Some("x86_64-unknown-linux-musl")),
            ("app", None),
        ] {
            assert_eq!(target_dir(Path::new(binary)), target, "{binary}");
        }
    }
}
