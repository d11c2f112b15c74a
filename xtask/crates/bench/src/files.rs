//! `bench bundle` and `bench fetch`: packs a directory into a sealed release and unpacks it with verification, compared
//! with the `tar` and `sha256sum` of common scripts.

use crate::compare::{Baseline, Compare, Peer, Report, present};
use crate::options::{Options, Scratch, private_dir};
use crate::workload::{PAYLOAD, Source};
use gangplank_deploy::build;
use gangplank_deploy::build::Built;
use gangplank_model::error::{Kind, Result, WithHint};
use gangplank_model::project::{App, Compression};
use gangplank_model::release::layout::RELEASES;
use gangplank_system::context::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The peer that packs a `.tar.zst`, compared with ours if this xtask supports it.
const ZSTD: &str = "zstd";

/// Tools that write a bundle: `TREE` is the directory to pack, `OUT` a new directory.
///
/// A bundle with the digest of the whole, or also that of each file.
pub const BUNDLERS: &[Peer] = &[
    Peer {
        name: "tar-gz",
        program: "tar",
        install: "apt-get install tar",
        script: "mkdir \"$OUT\"; tar -czf \"$OUT/b.tar.gz\" -C \"$TREE\" .; cd \"$OUT\"; sha256sum b.tar.gz > b.sum",
    },
    Peer {
        name: "tar-pigz-files",
        program: "pigz",
        install: "apt-get install pigz",
        script:
            "mkdir \"$OUT\"; cd \"$TREE\"; find . -type f -print0 | sort -z | xargs -0 sha256sum > \"$OUT/files.sum\"
tar -I pigz -cf \"$OUT/b.tar.gz\" .; cd \"$OUT\"; sha256sum b.tar.gz > b.sum",
    },
    #[cfg(feature = "zstd")]
    Peer {
        name: "tar-zstd-files",
        program: ZSTD,
        install: "apt-get install zstd",
        script:
            "mkdir \"$OUT\"; cd \"$TREE\"; find . -type f -print0 | sort -z | xargs -0 sha256sum > \"$OUT/files.sum\"
tar -I 'zstd -q -T0 -3' -cf \"$OUT/b.tar.zst\" .; cd \"$OUT\"; sha256sum b.tar.zst > b.sum",
    },
];

/// Tools that unpack; `PACKED` is a directory with the packed files.
pub const UNPACKERS: &[Peer] = &[
    Peer {
        name: "tar",
        program: "tar",
        install: "apt-get install tar",
        script: "cd \"$PACKED\"; sha256sum -c --status b.sum; mkdir \"$OUT\"; tar -xzf b.tar.gz -C \"$OUT\"",
    },
    Peer {
        name: "tar-files",
        program: "tar",
        install: "apt-get install tar",
        script: "cd \"$PACKED\"; sha256sum -c --status b.sum; mkdir \"$OUT\"; tar -xzf b.tar.gz -C \"$OUT\"
cd \"$OUT\"; sha256sum -c --status \"$PACKED/files.sum\"",
    },
];

/// Packs the input of [`UNPACKERS`].
const PACK: &str = "tar -czf \"$OUT/b.tar.gz\" -C \"$TREE\" .; cd \"$OUT\"; sha256sum b.tar.gz > b.sum
cd \"$TREE\"; find . -type f -print0 | sort -z | xargs -0 sha256sum > \"$OUT/files.sum\"";

/// Seals the directory `payload` of a checkout. A hidden command, because the project is compiled into the xtask.
pub fn seal(ctx: &Context, compression: Compression) -> Result<Built> {
    build::build(
        ctx,
        &App { name: "bench", include: &[PAYLOAD], generated: &[PAYLOAD], compression, ..App::DEFAULT },
        &[],
    )
}

/// `bench bundle`: a first release, and the next one if given.
pub fn bundle(ctx: &Context, options: &Options) -> Result<Report> {
    compare_all(ctx, options, "bundle", BUNDLERS)
}

/// `bench fetch`
pub fn fetch(ctx: &Context, options: &Options) -> Result<Report> {
    compare_all(ctx, options, "fetch", UNPACKERS)
}

fn compare_all(ctx: &Context, options: &Options, bench: &'static str, peers: &'static [Peer]) -> Result<Report> {
    let (present, missing) = present(ctx, options, bench, peers)?;
    let scratch = Scratch(private_dir(ctx)?);
    let mut rows = Vec::new();
    for (n, from) in options.sources().enumerate() {
        let dir = Scratch(scratch.0.join(format!("workload{n}")));
        let source = Source::prepare(ctx, &dir.0, from)?;
        let mut measure = |what, ours| {
            let meets = |peer: &&&Peer| (peer.program == ZSTD) == (what == ZSTD);
            let peers = present.iter().filter(meets).map(|peer| theirs(peer, &source));
            let baselines: Vec<_> = std::iter::once(ours).chain(peers).collect();
            if baselines.len() == 1 {
                return Ok(());
            }
            let comparison = Compare { workload: &source.name, what, alike: bench == "fetch", baselines };
            comparison.run(ctx, &scratch.0, options.rounds).map(|done| rows.extend(done))
        };
        if bench == "fetch" {
            measure(bench, unpacker(ctx, &source)?)?;
            continue;
        }
        let releases = source.project.join(RELEASES);
        measure(bench, bundler(&source, releases.clone(), Compression::Gzip)?)?;
        // The next release, with the earlier one beside it, as in any checkout.
        if source.advance(ctx, from)? {
            let release = seal(&ctx.at(&source.project), Compression::Gzip)?.dir;
            measure("change", bundler(&source, release, Compression::Gzip)?)?;
        }
        #[cfg(feature = "zstd")]
        measure(ZSTD, bundler(&source, releases, Compression::Zstd)?)?;
    }
    Ok(Report { bench, rounds: options.rounds, cpus: crate::options::cpus(), rows, missing })
}

fn bundler(source: &Source, makes: PathBuf, compression: Compression) -> Result<Baseline<'static>> {
    let (program, project, makes) = (Context::program()?, source.project.clone(), Some(makes));
    let command = move || {
        let mut command = Command::new(&program);
        command.arg("bench-bundle").args((compression == Compression::Zstd).then_some("--zstd")).current_dir(&project);
        command
    };
    Ok(Baseline { name: "ours", makes, command: Box::new(command) })
}

/// Our command, after the common input was packed.
fn unpacker(ctx: &Context, source: &Source) -> Result<Baseline<'static>> {
    let what = || format!("cannot write into {}", source.dir.display());
    fs::create_dir(source.packed()).with_hint(Kind::Failed, what, || "TMPDIR names another place".into())?;
    ctx.read(sh(PACK, source, &source.packed()))?;
    let sealed = seal(&ctx.at(&source.project), Compression::Gzip)?.dir;
    let (program, project, out) = (Context::program()?, source.project.clone(), source.dir.join("out-ours"));
    let makes = Some(out.clone());
    let command = move || {
        let mut command = Command::new(&program);
        command.arg("bench-unpack").arg(&sealed).arg(&out).current_dir(&project);
        command
    };
    Ok(Baseline { name: "ours", makes, command: Box::new(command) })
}

fn theirs(peer: &'static Peer, source: &Source) -> Baseline<'static> {
    let (out, source) = (source.dir.join(format!("out-{}", peer.name)), source.clone());
    let makes = Some(out.clone());
    Baseline { name: peer.name, makes, command: Box::new(move || sh(peer.script, &source, &out)) }
}

fn sh(script: &str, source: &Source, out: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).env("LC_ALL", "C");
    command.env("TREE", source.tree()).env("PACKED", source.packed()).env("OUT", out);
    command
}

impl Source {
    /// The directory to pack.
    fn tree(&self) -> PathBuf {
        self.project.join(PAYLOAD)
    }

    /// The directory with the packed files of other tools.
    fn packed(&self) -> PathBuf {
        self.dir.join("packed")
    }
}
