//! Installs a release on a host: as a delta, as a whole, or downloaded by the host.

use crate::host::Delivery;
use crate::host::directory::{Connection, HostTarget, get};
use gangplank_bundle::delta::{Archive, Changes, OwnFiles};
use gangplank_bundle::release::Release;
use gangplank_bundle::{files, pack};
use gangplank_model::error::{CliError, Kind, Result, WithHint, hint_of, kind_of};
use gangplank_model::history::Record;
use gangplank_model::project::Compression;
use gangplank_model::release::layout::{META, RELEASES, SUMS};
use gangplank_model::release::manifest::{Manifest, checksum_line};
use gangplank_model::release::{digest, manifest};
use gangplank_model::script::install::Expected;
use gangplank_model::script::room::is_full;
use gangplank_model::script::{self, compare, install};
use gangplank_model::transfer::TransferMode;
use gangplank_system::context::Input;
use gangplank_system::http::{Url, policy};
use std::fs::File;

impl HostTarget<'_> {
    /// Implements [`crate::host::Target::install`].
    pub(super) fn deliver(&self, delivery: &Delivery, record: &Record) -> Result<()> {
        let release = delivery.release();
        let lists = Lists::of(release.manifest());
        let own = lists.own(release.manifest(), record);
        let done = match delivery {
            // Compression saves nothing on this machine.
            Delivery::Push(_, changes) if matches!(self.place, Connection::Here(_)) => {
                self.install_whole(release, &lists, changes, &own, None)
            }
            Delivery::Push(_, changes) => {
                let mode = changes.mode(get(&self.abilities).unwrap_or_default());
                if self.install_changes(release, &lists, changes, &own, mode)? {
                    return Ok(());
                }
                match self.install_whole(release, &lists, changes, &own, Some(mode.compression)) {
                    Err(error) if mode.compression == Compression::Zstd && is_worth_a_fallback(&error) => {
                        self.ctx.warn(format!("{error:#}; sending it as gzip"));
                        self.install_whole(release, &lists, changes, &own, Some(Compression::Gzip))
                    }
                    done => done,
                }
            }
            Delivery::Pull(_, url) => {
                let id = release.id();
                let input = [url.as_str().as_bytes(), b"\n", &pack::small_files(&own)?].concat();
                let text = install::install_pulled(&self.root, id, &lists.expected, release.manifest().compression());
                self.run_checked(&format!("install {id}"), &text, Input::Bytes(&input))
                    .map_err(|error| pulled(&error, url))
            }
        };
        done.map(drop).map_err(unread)
    }

    /// Installs a whole release from an archive with this compression.
    fn install_whole(
        &self,
        release: &Release,
        lists: &Lists,
        changes: &Changes,
        own: &OwnFiles,
        compression: Option<Compression>,
    ) -> Result<String> {
        let archive = changes.whole(release, compression, own)?;
        let text = install::install(&self.root, release.id(), &lists.expected, compression);
        self.run_checked(&format!("install {}", release.id()), &text, Input::BytesThenFile(&[], open(&archive)?))
    }

    /// The manifest of the live release, from this machine or from the host.
    fn live_manifest(&self) -> Result<Option<Manifest>> {
        let Some((live, bundle)) = get(&self.live) else { return Ok(None) };
        let here = self.ctx.root.join(RELEASES).join(live.as_str()).join(manifest::FILE);
        let known =
            files::read(&here, manifest::BYTES_MAX).ok().and_then(|text| Manifest::parse(&text, &self.url).ok());
        if let Some(known) = known.filter(|known| known.bundle.sha256 == bundle) {
            return Ok(Some(known));
        }
        let text = script::read_meta(&self.root, &live, manifest::FILE);
        match self.run_checked("say what is live", &text, Input::Empty) {
            Ok(said) => Ok(Manifest::parse(said.as_bytes(), &self.url).ok()),
            // Without the live manifest, send the whole release.
            Err(error) if kind_of(&error) == Kind::Failed => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Installs a release as a delta to the live one if that saves enough. Returns false if the whole release has to be
    /// sent.
    fn install_changes(
        &self,
        release: &Release,
        lists: &Lists,
        changes: &Changes,
        own: &OwnFiles,
        mode: TransferMode,
    ) -> Result<bool> {
        let ours = release.manifest();
        let theirs = self.live_manifest()?;
        let Some(theirs) = theirs.filter(|theirs| theirs.id != ours.id) else { return Ok(false) };
        let delta = match changes.from(&theirs, release, mode, own, &Lists::of(&theirs).files()) {
            Ok(Some(delta)) => delta,
            Ok(None) => return Ok(false),
            // A delta is an optimisation, so its failure must not block a deploy.
            Err(error) => {
                self.ctx.warn(format!("{}: {error:#}; sending the whole release", self.url));
                return Ok(false);
            }
        };
        let archive = open(&delta.archive)?;
        let bytes = archive.metadata().map_or(0, |it| it.len());
        let text = install::install_changes(&self.root, &ours.id, &lists.expected, &theirs.id, mode.compression);
        match self.run_checked(&format!("install {}", ours.id), &text, Input::BytesThenFile(&[], archive)) {
            Ok(_) => {
                self.ctx.note(format!(
                    "{}: {bytes} bytes sent of {}: {} of {} files are those of {}{}",
                    self.url,
                    ours.bundle.bytes,
                    delta.same,
                    ours.files.len(),
                    theirs.id,
                    if delta.patched > 0 { format!(", and most of {} more", delta.patched) } else { String::new() }
                ));
                Ok(true)
            }
            // The live release was edited, or the host lacks a program or option. A whole release needs neither.
            Err(error) if is_worth_a_fallback(&error) => {
                self.ctx.warn(format!("{error:#}; sending the whole release"));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a release that a host could not install may be sent in another mode, which takes more room.
fn is_worth_a_fallback(error: &anyhow::Error) -> bool {
    matches!(kind_of(error), Kind::Verification | Kind::Failed) && !is_full(&format!("{error:#}"))
}

/// Adds a hint to the error of a host that cannot read a bundle.
fn unread(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    if !text.contains(install::NO_ZSTD) {
        return error;
    }
    let hint = "install it there: `apt-get install zstd`; or build anew with `compression: Compression::Gzip` in xtask/src/main.rs";
    CliError::new(kind_of(&error), text).hint(hint).into()
}

/// The error of a host that could not download a bundle, without the URL, which is a secret.
fn pulled(error: &anyhow::Error, url: &Url) -> anyhow::Error {
    let text = format!("{error:#}").replace(url.as_str(), "****");
    let hint = if kind_of(error) == Kind::Verification {
        "run `cargo xtask verify --store` where it was built: the store has other bytes than its manifest says".into()
    } else if text.contains("the server refused it") {
        "check that the job's key or role may read it: it signs the URL, which is valid for 15 minutes by the server's clock".into()
    } else if text.contains("cannot fetch the bundle") {
        format!(
            "check that the host can reach {}, or send it from here with `transfer: Transfer::Push` in xtask/src/main.rs",
            policy::origin(url)
        )
    } else {
        hint_of(error).unwrap_or("run it again with -v to see the commands").to_owned()
    };
    CliError::new(kind_of(error), text).hint(hint).into()
}

fn open(archive: &Archive) -> Result<File> {
    let what = || format!("cannot read {}", archive.file.display());
    File::open(&archive.file).with_hint(Kind::Failed, what, || "check the disk".into())
}

/// The lists that a host compares an unpacked release with.
struct Lists {
    entries: String,
    sums: String,
    manifest: Vec<u8>,
    expected: Expected,
}

impl Lists {
    fn of(manifest: &Manifest) -> Self {
        let json = manifest.to_json();
        let entries = manifest.entries();
        let own = [(manifest::FILE, json.as_slice()), (compare::ENTRIES, entries.as_bytes())];
        let own = own.map(|(file, bytes)| checksum_line(&digest::of(bytes), &format!("{META}/{file}")));
        let sums = manifest.checksums() + &own.concat();
        let expected = Expected {
            bundle: manifest.bundle.sha256.clone(),
            bytes: manifest.bundle.bytes,
            entries: digest::of(entries.as_bytes()),
            sums: digest::of(sums.as_bytes()),
        };
        Self { entries, sums, manifest: json, expected }
    }

    /// The lists as files, which are the same on all hosts that have the release.
    fn files(&self) -> OwnFiles {
        let files = [
            (manifest::FILE, self.manifest.as_slice()),
            (compare::ENTRIES, self.entries.as_bytes()),
            (SUMS, self.sums.as_bytes()),
        ];
        files.map(|(file, bytes)| (format!("{META}/{file}"), bytes.to_vec())).into()
    }

    /// The engine's own files in a release, with the record of its install.
    fn own(&self, manifest: &Manifest, record: &Record) -> OwnFiles {
        let own = [("bundle", format!("{}\n", manifest.bundle.sha256)), ("record", record.to_line())];
        let own = own.map(|(file, text)| (format!("{META}/{file}"), text.into_bytes()));
        self.files().into_iter().chain(own).collect()
    }
}
