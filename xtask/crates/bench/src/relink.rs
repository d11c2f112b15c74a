//! W3: the sample app before and after a change of a few lines, built for release. Nearly every offset in a relinked
//! binary moves, which edits in place do not show.

use gangplank_model::error::{Kind, Result, WithHint, failed};
use gangplank_system::context::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that is changed.
const SOURCE: &str = "app/src/main.rs";
/// A string of it, and what takes its place.
const CHANGE: (&str, &str) = ("say(\"stopped\");", "say(format_args!(\"stopped, {}\", goodbye(3)));");
const FUNCTION: &str = "
fn goodbye(times: usize) -> String {
    (1..=times).map(|time| format!(\"goodbye {time}\")).collect::<Vec<_>>().join(\", \")
}
";

/// Builds both in `scratch`. Returns the directory of the first; the second is beside it.
pub fn make(ctx: &Context, scratch: &Path) -> Result<PathBuf> {
    let (checkout, first) = (scratch.join("relink"), scratch.join("W3"));
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet"]).arg(&ctx.root).arg(&checkout);
    ctx.read(clone)?;
    let there = ctx.at(&checkout);
    build(&there, &first)?;
    let source = checkout.join(SOURCE);
    let what = || format!("cannot change {}", source.display());
    let hint = || "TMPDIR names another place".to_owned();
    let text = fs::read_to_string(&source).with_hint(Kind::Failed, what, hint)?;
    let (from, to) = CHANGE;
    if !text.contains(from) {
        return failed(format!("{SOURCE} has no line `{from}`")).hint("change it in bench/src/relink.rs").err();
    }
    fs::write(&source, text.replace(from, to) + FUNCTION).with_hint(Kind::Failed, what, hint)?;
    build(&there, &scratch.join("W3.v2"))?;
    Ok(first)
}

fn build(ctx: &Context, into: &Path) -> Result<()> {
    ctx.note(format!("building {} of {SOURCE}", into.file_name().unwrap_or_default().display()));
    ctx.read(ctx.cargo(&["build", "--release", "--quiet", "--locked", "--package", "app", "--target-dir", "target"]))?;
    let copy = || {
        fs::create_dir(into)?;
        fs::copy(ctx.root.join("target/release/app"), into.join("app"))
    };
    copy().map(drop).with_hint(
        Kind::Failed,
        || format!("cannot write {}", into.display()),
        || "TMPDIR names another place".into(),
    )
}
