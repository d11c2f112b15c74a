//! How a release gets onto a host: what differs from the live one, all of it, or by the host's own hands.

use super::{HostTarget, Place, get};
use crate::cx::Input;
use crate::deploy::history::Record;
use crate::error::{Explain, Failure, Kind, Result, hint_of, kind_of};
use crate::http::{Url, policy};
use crate::project::Compression;
use crate::release::delta::Changes;
use crate::release::manifest::{Manifest, checksum_line};
use crate::release::{META, RELEASES, Release, digest, manifest};
use crate::target::{Delivery, script};
use std::fs::File;

impl HostTarget<'_> {
    /// See [`crate::target::Target::install`].
    pub(super) fn deliver(&self, delivery: &Delivery, record: &Record) -> Result<()> {
        let manifest = delivery.manifest();
        let (id, sum) = (&manifest.id, &manifest.bundle.sha256);
        let compression = manifest.compression();
        let meta = || meta_member(manifest, record, None, compression);
        let what = format!("install {id}");
        let done = match delivery {
            Delivery::Push(release, changes) => {
                if !matches!(self.place, Place::Here(_)) && self.install_changes(release, changes, record)? {
                    return Ok(());
                }
                let bundle = File::open(release.bundle()).explain(
                    Kind::Failed,
                    || format!("cannot read {}", release.bundle().display()),
                    || "fetch the release again".into(),
                )?;
                let text = script::install(&self.root, id, sum, compression);
                self.tell(&what, &text, Input::BytesThenFile(&meta()?, bundle))
            }
            Delivery::Pull(_, url) => {
                let input = [url.as_str().as_bytes(), b"\n", &meta()?].concat();
                let text = script::install_pulled(&self.root, id, sum, compression);
                self.tell(&what, &text, Input::Bytes(&input)).map_err(|error| pulled(&error, url))
            }
        };
        done.map(drop).map_err(unread)
    }

    /// The manifest of what is live: as it was built here, or as the host has it.
    fn live_manifest(&self) -> Result<Option<Manifest>> {
        let Some((live, bundle)) = get(&self.live) else { return Ok(None) };
        let here = self.cx.root.join(RELEASES).join(live.as_str()).join(manifest::FILE);
        let known = std::fs::read(&here).ok().and_then(|text| Manifest::parse(&text, &self.url).ok());
        if let Some(known) = known.filter(|known| known.bundle.sha256 == bundle) {
            return Ok(Some(known));
        }
        let text = script::read_meta(&self.root, &live, manifest::FILE);
        match self.tell("say what is live", &text, Input::Empty) {
            Ok(said) => Ok(Manifest::parse(said.as_bytes(), &self.url).ok()),
            // Without one everything is sent.
            Err(error) if kind_of(&error) == Kind::Failed => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Installs a release by what differs from the live one, where that saves enough. Gives whether it did: where it did
    /// not, all of it is to be sent.
    fn install_changes(&self, release: &Release, changes: &Changes, record: &Record) -> Result<bool> {
        let ours = release.manifest();
        let theirs = self.live_manifest()?;
        let Some(theirs) = theirs.filter(|theirs| theirs.id != ours.id) else { return Ok(false) };
        let delta = match changes.from(&theirs, release) {
            Ok(Some(delta)) => delta,
            Ok(None) => return Ok(false),
            // It saves bytes. That it cannot be made keeps nobody from a deploy.
            Err(error) => {
                self.cx.warn(format!("{}: {error:#}: so all of it is sent", self.url));
                return Ok(false);
            }
        };
        let list: String = delta.same.iter().map(|path| format!("./{path}\n")).collect();
        let meta = meta_member(ours, record, Some(&list), Compression::Gzip)?;
        let what = || format!("cannot read {}", delta.file.display());
        let changed = File::open(&delta.file).explain(Kind::Failed, what, || "check the disk".into())?;
        let bytes = meta.len() as u64 + changed.metadata().map_or(0, |it| it.len());
        let text = script::install_changes(&self.root, &ours.id, &ours.bundle.sha256, &theirs.id);
        match self.tell(&format!("install {}", ours.id), &text, Input::BytesThenFile(&meta, changed)) {
            Ok(_) => {
                self.cx.note(format!(
                    "{}: {bytes} bytes sent of {}: {} of {} files are those of {}{}",
                    self.url,
                    ours.bundle.bytes,
                    delta.same.len(),
                    ours.files.len(),
                    theirs.id,
                    if delta.patched > 0 { format!(", and most of {} more", delta.patched) } else { String::new() }
                ));
                Ok(true)
            }
            // Somebody has changed what is live by hand. What is sent whole does not depend on it.
            Err(error) if kind_of(&error) == Kind::Verification => {
                self.cx.warn(format!("{error:#}: so all of it is sent"));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The same with what helps, where a host cannot read a bundle.
fn unread(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    if !text.contains(script::NO_ZSTD) {
        return error;
    }
    let hint = "install it there: `apt-get install zstd`; or build anew with `compression: Compression::Gzip` in xtask/src/main.rs";
    Failure::new(kind_of(&error), text).hint(hint).into()
}

/// What went wrong when a host fetched a bundle, without the URL, and with what to look at.
fn pulled(error: &anyhow::Error, url: &Url) -> anyhow::Error {
    let text = format!("{error:#}").replace(url.as_str(), "****");
    let hint = if kind_of(error) == Kind::Verification {
        "the store has other bytes than its manifest says: where it was built, `cargo xtask put --confirm` mends it"
            .into()
    } else if text.contains("the server refused it") {
        "was the job's key or role allowed to read it? The URL is signed with it, and is good for 15 minutes by the server's clock".into()
    } else if text.contains("cannot fetch the bundle") {
        format!(
            "can that host reach {}? `transfer: Transfer::Push` in xtask/src/main.rs sends it from here",
            policy::origin(url)
        )
    } else {
        hint_of(error).unwrap_or("run it again with -v to see the commands").to_owned()
    };
    Failure::new(kind_of(error), text).hint(hint).into()
}

/// A member with the engine's own files, to be sent before those of the bundle: together they are one archive, because
/// this one leaves out its end.
fn meta_member(manifest: &Manifest, record: &Record, same: Option<&str>, compression: Compression) -> Result<Vec<u8>> {
    let json = manifest.to_json();
    let name = |file: &str| format!("{META}/{file}");
    let bundle = format!("{}\n", manifest.bundle.sha256);
    let sums = manifest.checksums() + &checksum_line(&digest::of(&json), &name(manifest::FILE));
    let files = [
        (manifest::FILE, json.as_slice()),
        ("bundle", bundle.as_bytes()),
        ("record", record.to_line().as_bytes()),
        (crate::release::SUMS, sums.as_bytes()),
    ]
    .map(|(file, bytes)| (name(file), bytes.to_vec()));
    let list = same.map(|same| (name(script::SAME), same.as_bytes().to_vec()));
    crate::release::pack::small_member(&files.into_iter().chain(list).collect::<Vec<_>>(), compression)
}
