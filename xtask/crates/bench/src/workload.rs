//! What is deployed in a bench: two releases of which the second differs in one file of a hundred, once sealed as ours
//! and once as everybody else wants them, a directory and a plain `tar.gz`.

use crate::files;
use gangplank_bundle::release::Release;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_model::project::Compression;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::{Content, FileEntry, Manifest};
use gangplank_system::context::Context;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// The directory in every release that holds what is deployed.
pub const PAYLOAD: &str = "payload";
const SUMS: &str = "SHA256SUMS";

/// A checkout with something to pack.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, for the report.
    pub name: String,
    /// Where everybody may write.
    pub dir: PathBuf,
    /// The checkout, with [`PAYLOAD`].
    pub project: PathBuf,
}

impl Source {
    /// Makes one in `dir`, which is new: of `source`, or of bytes of its own.
    pub fn prepare(ctx: &Context, dir: &Path, source: Option<&Path>) -> Result<Self> {
        let what = || format!("cannot prepare a workload in {}", dir.display());
        let hint = || "check free space: it is packed and unpacked by each baseline".to_owned();
        let (project, second) = (dir.join("project"), dir.join("second"));
        for made in [&project, &second] {
            fs::create_dir_all(made).with_hint(Kind::Failed, what, hint)?;
        }
        let name = match source {
            Some(source) => copy(ctx, source, &project)?,
            None => {
                invent(&[project.clone(), second]).with_hint(Kind::Failed, what, hint).map(|()| "small".to_owned())?
            }
        };
        let ctx = ctx.at(&project);
        begin(&ctx).with_hint(Kind::Failed, what, hint)?;
        git(&ctx, "add --all", "")?;
        git(&ctx, "commit --quiet --message bench", "2026-01-01T00:00:00Z")?;
        Ok(Self { name, dir: dir.to_owned(), project })
    }

    /// Makes the checkout one of the second release; `false` where there is none.
    pub fn advance(&self, ctx: &Context, source: Option<&Path>) -> Result<bool> {
        let second = match source {
            Some(source) => source.with_file_name(format!("{}.v2", self.name)),
            None => self.dir.join("second").join(PAYLOAD),
        };
        if !second.is_dir() {
            return Ok(false);
        }
        let payload = self.project.join(PAYLOAD);
        fs::remove_dir_all(&payload).with_hint(
            Kind::Failed,
            || format!("cannot remove {}", payload.display()),
            || "TMPDIR names another place".to_owned(),
        )?;
        copy(ctx, &second, &self.project)?;
        let ctx = ctx.at(&self.project);
        git(&ctx, "add --all", "")?;
        git(&ctx, "commit --quiet --allow-empty --message change", "2026-01-01T00:01:00Z")?;
        Ok(true)
    }
}

/// Two releases, ready to be deployed by everybody.
pub struct Workload {
    /// Its name, for the report.
    pub name: String,
    /// A checkout with both of them sealed.
    pub project: PathBuf,
    /// First and second.
    pub versions: [Version; 2],
}

/// A release in all the forms that baselines want.
pub struct Version {
    /// Its id, where it is ours.
    pub id: ReleaseId,
    /// `one` or `two`, where it is theirs.
    pub name: &'static str,
    /// Its files, with their digests as `sha256sum -c` wants them.
    pub stage: PathBuf,
    /// The same, packed.
    pub archive: PathBuf,
    /// A file that differs between the two, and its digest here.
    pub changed: (String, String),
}

impl Workload {
    /// Makes one in `dir`, which is new: of `source` and its neighbour `source.v2`, or of bytes of its own.
    pub fn prepare(ctx: &Context, dir: &Path, source: Option<&Path>) -> Result<Self> {
        let what = || format!("cannot prepare a workload in {}", dir.display());
        let hint = || "check free space: every host takes both releases of each baseline".to_owned();
        let project = dir.join("project");
        let stages = ["one", "two"].map(|name| dir.join(name));
        for made in stages.iter().chain([&project]) {
            fs::create_dir_all(made).with_hint(Kind::Failed, what, hint)?;
        }
        let name = match source {
            Some(source) => {
                let name = copy(ctx, source, &stages[0])?;
                copy(ctx, &source.with_file_name(format!("{name}.v2")), &stages[1])?;
                name
            }
            None => invent(&stages).with_hint(Kind::Failed, what, hint).map(|()| "small".to_owned())?,
        };
        let ctx = ctx.at(&project);
        begin(&ctx).with_hint(Kind::Failed, what, hint)?;
        let mut manifests = Vec::new();
        for stage in &stages {
            manifests.push(seal(&ctx, stage)?);
            let payload = stage.join(PAYLOAD);
            fs::rename(project.join(PAYLOAD), &payload).with_hint(Kind::Failed, what, hint)?;
            let sums = manifests[manifests.len() - 1].checksums();
            fs::write(stage.join(SUMS), sums).with_hint(Kind::Failed, what, hint)?;
            let mut tar = Command::new("tar");
            tar.arg("-czf").arg(stage.with_extension("tar.gz")).arg("-C").arg(stage).args([PAYLOAD, SUMS]);
            ctx.read(tar)?;
        }
        let Some(changed) = changed(&manifests[0].files, &manifests[1].files) else {
            return usage(format!("{name}: the second release has the same files as the first"))
                .hint("DIR.v2 has to differ from DIR in a file that both have")
                .err();
        };
        let [one, two] = stages;
        let version = |n: usize, name, stage: PathBuf| Version {
            id: manifests[n].id.clone(),
            name,
            archive: stage.with_extension("tar.gz"),
            stage,
            changed: (changed.0.clone(), changed.1[n].clone()),
        };
        Ok(Self { name, project, versions: [version(0, "one", one), version(1, "two", two)] })
    }
}

/// Copies a directory with its times, by which rsync knows what changed. Gives its name.
fn copy(ctx: &Context, from: &Path, stage: &Path) -> Result<String> {
    if !from.is_dir() {
        return usage(format!("{} is not there", from.display()))
            .hint("a workload is a directory DIR, and for hosts its second release DIR.v2 beside it")
            .err();
    }
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(from).arg(stage.join(PAYLOAD));
    ctx.read(cp)?;
    Ok(from.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// A binary of 8 MiB and 200 small files; in the second release some pages of the binary and 2 of the files are new.
fn invent(stages: &[PathBuf; 2]) -> std::io::Result<()> {
    for (stage, second) in stages.iter().zip([false, true]) {
        let payload = stage.join(PAYLOAD);
        fs::create_dir_all(payload.join("share"))?;
        let mut binary = bytes(1, 8 << 20);
        for n in (0..8).filter(|_| second) {
            binary[n << 20..][..1024].copy_from_slice(&bytes(100 + n as u64, 1024));
        }
        write(&payload.join("app"), &binary, second)?;
        for n in 0..200 {
            let mut text = bytes(1000 + n, 4096);
            let changed = second && n % 100 == 0;
            if changed {
                text.extend_from_slice(b"release 2\n");
            }
            write(&payload.join(format!("share/{n}.txt")), &text, changed)?;
        }
    }
    Ok(())
}

/// With a time that tells what changed: rsync looks at whole seconds.
fn write(path: &Path, bytes: &[u8], changed: bool) -> std::io::Result<()> {
    fs::write(path, bytes)?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(if changed { 1_767_225_660 } else { 1_767_225_600 });
    File::options().write(true).open(path)?.set_modified(time)
}

/// The same bytes for the same seed, which gzip makes a quarter smaller, as it does a binary or two (xorshift64).
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 & 0x3f
    };
    (0..len).map(|_| next()).collect()
}

/// A checkout in which nothing is tracked but what a checkout has to have.
fn begin(ctx: &Context) -> Result<()> {
    fs::write(ctx.root.join("Cargo.toml"), "[workspace]\nmembers = []\nresolver = \"3\"\n")?;
    fs::write(ctx.root.join(".gitignore"), format!("/target\n/{PAYLOAD}\n"))?;
    git(ctx, "init --quiet --initial-branch main", "")
}

/// Commits, a minute after the commit before, and seals what is staged. The files stay in the checkout.
fn seal(ctx: &Context, stage: &Path) -> Result<Manifest> {
    let second = stage.ends_with("two");
    fs::rename(stage.join(PAYLOAD), ctx.root.join(PAYLOAD))?;
    fs::write(ctx.root.join("version"), stage.to_string_lossy().as_bytes())?;
    git(ctx, "add --all", "")?;
    git(ctx, "commit --quiet --message bench", &format!("2026-01-01T00:0{}:00Z", u8::from(second)))?;
    Release::read_manifest(&files::seal(ctx, Compression::Gzip)?.dir)
}

fn git(ctx: &Context, words: &str, date: &str) -> Result<()> {
    let mut git = Command::new("git");
    git.args(words.split(' ')).current_dir(&ctx.root);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "bench").env(format!("GIT_{who}_EMAIL"), "bench@example.com");
        git.env(format!("GIT_{who}_DATE"), date);
    }
    ctx.read(git).map(drop)
}

/// The first file that both releases have with different bytes, and its digest in each.
fn changed(one: &[FileEntry], two: &[FileEntry]) -> Option<(String, [String; 2])> {
    two.iter().find_map(|new| {
        let old = one.iter().find(|old| old.path == new.path)?;
        match (&old.content, &new.content) {
            (Content::Sha256(old), Content::Sha256(now)) if old != now => {
                Some((new.path.clone(), [old.clone(), now.clone()]))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_a_file_that_changed() {
        let files = |text: &str| -> Vec<FileEntry> {
            let file = |word: &str| {
                let (path, digest) = word.split_once('=').unwrap();
                let content = match digest.strip_prefix('>') {
                    Some(to) => Content::Link(to.into()),
                    None => Content::Sha256(digest.into()),
                };
                FileEntry { path: path.into(), bytes: 1, mode: 0o644, content }
            };
            text.split_whitespace().map(file).collect()
        };
        for (one, two, want) in [
            ("a=1 b=1", "a=1 b=2", Some("b 1 2")),
            ("a=1", "a=1 b=2", None),
            ("a=1 c=1", "a=>c c=3", Some("c 1 3")),
            ("a=1", "a=1", None),
        ] {
            let found = changed(&files(one), &files(two)).map(|(path, [one, two])| format!("{path} {one} {two}"));
            assert_eq!(found.as_deref(), want, "{one} -> {two}");
        }
    }

    #[test]
    fn the_small_workload_is_the_same_every_time() {
        assert_eq!(bytes(1, 64), bytes(1, 64));
        assert_ne!(bytes(1, 64), bytes(2, 64));
    }
}
