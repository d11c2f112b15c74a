//! `LATEST_BUILD_NUM`: a project variable with the number of the job that built a branch's newest release.
//!
//! The API shows only its last four characters and has no conditional write, and a job sees the value from when it
//! started. So readers verify the release, and a writer then looks for a newer build and, if there is one, points at
//! that instead. Of two concurrent publishers the newer one wins, whatever the order of writes: its build succeeded
//! before its write, so the older one finds it.

use crate::store::find;
use crate::store::find::Found;
use crate::store::{ArtifactStore, job_of};
use gangplank_deploy::store::Published;
use gangplank_model::error::{CliError, Kind, Result, kind_of, usage};
use gangplank_model::plan::{Age, age};
use gangplank_model::release::manifest::Manifest;
use gangplank_system::context::Context;
use gangplank_system::git;

/// How often a pointer is corrected after concurrent writes.
const ROUNDS: usize = 10;

/// The release of the pointer's job, if this job was given one; else the newest release of the API.
pub fn latest(store: &ArtifactStore) -> Result<Option<Found>> {
    let Some((name, text)) = given(store) else { return find::newest(store) };
    let Ok(job) = text.trim().parse() else {
        return usage(format!("{name} is `{text}`, which is not a job number"))
            .hint("delete the variable in the project's settings; the next `cargo xtask publish` sets it again")
            .err();
    };
    find::of_build(store, job).map(Some).map_err(|error| {
        let hint = gangplank_model::error::hint_of(&error).unwrap_or("name a commit instead").to_owned();
        CliError::new(kind_of(&error), format!("{name} names job {job}, but {error:#}")).hint(hint).into()
    })
}

/// The pointer's name for the branch, and its value when this job started.
fn given<'a>(store: &ArtifactStore<'a>) -> Option<(&'static str, &'a str)> {
    let name = variable(store, store.branch())?;
    Some((name, store.ctx.var(name)?))
}

fn variable(store: &ArtifactStore, branch: &str) -> Option<&'static str> {
    store.project.ci.pointers.iter().find(|(of, _)| *of == branch).map(|(_, name)| *name)
}

/// Points at the build of a release, or at a newer one; never at an older one.
pub fn publish(store: &ArtifactStore, manifest: &Manifest) -> Result<Published> {
    let branch = manifest.commit.branch.as_deref().unwrap_or_default();
    let left = |reason: String| Published {
        store: store.url.clone(),
        pointer: None,
        job: None,
        release: None,
        moved: false,
        reason: Some(reason),
    };
    if branch != store.branch() {
        return Ok(left(format!("it is a build of `{branch}`, but this is a job of `{}`", store.branch())));
    }
    let Some(name) = variable(store, branch) else {
        return Ok(left(format!("only builds of {} have a pointer, not of `{branch}`", branches(store))));
    };
    let ours = find::of_build(store, job_of(manifest)?)?;
    if ours.manifest.bundle != manifest.bundle {
        return gangplank_model::error::verification(format!(
            "job {} stored other bytes of {} than are here",
            ours.job, manifest.id
        ))
        .hint("run `cargo xtask publish` in the workflow that built it")
        .err();
    }
    let mut moved = false;
    for _ in 0..ROUNDS {
        let best = newest_since(store, &ours)?;
        let api = store.api()?;
        let shown = api.env_var(name)?.map(|variable| variable.value);
        if let Some(current) = current(store, name, shown.as_deref(), best.job)?
            && current.job != best.job
            && older(store.ctx, &best.manifest, &current.manifest)
        {
            return Ok(Published {
                pointer: Some(name.to_owned()),
                job: Some(current.job),
                release: Some(current.manifest.id.clone()),
                ..left(format!("it already names a newer build, job {}", current.job))
            });
        }
        // Another number may have the same last digits, so write unless the value is certain; a repeated write is
        // harmless.
        let sure = moved || given_job(store, name) == Some(best.job);
        if sure && shown.as_deref().is_some_and(|shown| shows(shown, best.job)) {
            let reason = (best.job != ours.job).then(|| format!("job {} has already built a newer commit", best.job));
            return Ok(Published {
                pointer: Some(name.to_owned()),
                job: Some(best.job),
                release: Some(best.manifest.id),
                moved,
                ..left(reason.unwrap_or_default())
            });
        }
        let written = api.set_env_var(name, &best.job.to_string())?;
        if written.name != name || !shows(&written.value, best.job) {
            return CliError::new(
                Kind::Remote,
                format!("CircleCI kept {}={} where {name} should name job {}", written.name, written.value, best.job),
            )
            .hint("check the variable in the project's settings")
            .err();
        }
        moved = true;
    }
    CliError::new(Kind::Remote, format!("{name} was changed {ROUNDS} times by other writers"))
        .hint("find the other writer, then run `cargo xtask publish`")
        .err()
}

fn branches(store: &ArtifactStore) -> String {
    let all: Vec<_> = store.project.ci.pointers.iter().map(|(branch, _)| format!("`{branch}`")).collect();
    if all.is_empty() { "no branch".into() } else { all.join(", ") }
}

/// The newest good build of the branch, among ours and the pipelines after it.
fn newest_since(store: &ArtifactStore, ours: &Found) -> Result<Found> {
    let own = store.api()?.job(ours.job)?.pipeline.id;
    for pipeline in store.api()?.pipelines(store.branch()) {
        let pipeline = pipeline?;
        if pipeline.id == own {
            break;
        }
        if let Some(found) = find::of_pipeline_or_warn(store, &pipeline)?
            && !older(store.ctx, &found.manifest, &ours.manifest)
        {
            return Ok(found);
        }
    }
    Ok(ours.clone())
}

/// The job of the pointer, if it can be determined: the value given to this job if its last digits match, else the job
/// number near ours with these digits.
fn current(store: &ArtifactStore, name: &str, shown: Option<&str>, near: u64) -> Result<Option<Found>> {
    let Some(shown) = shown else { return Ok(None) };
    let candidates = given_job(store, name).into_iter().chain(near_numbers(shown, near));
    for job in candidates.filter(|job| shows(shown, *job)) {
        match find::of_build(store, job) {
            Ok(found) => return Ok(Some(found)),
            // No build of ours has that number.
            Err(error) if matches!(kind_of(&error), Kind::NotFound | Kind::Verification) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The value of the variable when this job started.
fn given_job(store: &ArtifactStore, name: &str) -> Option<u64> {
    store.ctx.var(name)?.trim().parse().ok()
}

/// Whether a masked value may be this number: `xxxx` and its last four digits.
fn shows(masked: &str, job: u64) -> bool {
    let digits = job.to_string();
    let tail = &digits[digits.len().saturating_sub(4)..];
    masked.strip_prefix("xxxx").is_some_and(|end| end == tail || end.is_empty() && digits.len() <= 4)
}

/// Numbers with the shown digits, closest to `near`: job numbers count up.
fn near_numbers(masked: &str, near: u64) -> Vec<u64> {
    let Some(end) = masked.strip_prefix("xxxx").and_then(|end| end.parse::<u64>().ok()) else { return vec![] };
    if masked.len() < 8 {
        return vec![end];
    }
    let base = near / 10_000;
    let mut numbers: Vec<u64> = [base.checked_sub(1), Some(base), Some(base + 1)]
        .into_iter()
        .flatten()
        .map(|base| base * 10_000 + end)
        .collect();
    numbers.sort_by_key(|number| number.abs_diff(near));
    numbers.truncate(2);
    numbers
}

fn older(ctx: &Context, candidate: &Manifest, than: &Manifest) -> bool {
    let ancestry = git::ancestry(ctx, &candidate.commit.sha, &than.commit.sha);
    age(&candidate.id, &than.id, ancestry) == Age::Older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_compares_the_visible_end_of_a_masked_number() {
        for (masked, job, fits) in [
            ("xxxx6789", 56789, true),
            ("xxxx6789", 6789, true),
            ("xxxx6789", 56788, false),
            ("xxxx123", 123, true),
            ("xxxx", 123, true),
            ("xxxx", 56789, false),
            ("6789", 6789, false),
            ("xxxx0012", 10012, true),
        ] {
            assert_eq!(shows(masked, job), fits, "{masked} {job}");
        }
    }

    #[test]
    fn near_numbers_end_alike_and_are_sorted_by_distance() {
        assert_eq!(near_numbers("xxxx6789", 56_800), [56_789, 66_789]);
        assert_eq!(near_numbers("xxxx9998", 60_001), [59_998, 69_998]);
        assert_eq!(near_numbers("xxxx0003", 59_999), [60_003, 50_003]);
        assert_eq!(near_numbers("xxxx123", 130), [123]);
        assert_eq!(near_numbers("xxxxtrue", 130), [0_u64; 0]);
    }
}
