//! Checks of the stores: whether each can be opened, read and written, and the env locks there.

use crate::doctor::check::{Check, Fault, Found, Scope, State, fault};
use gangplank_deploy::deploy::liveness::LivenessChecker;
use gangplank_deploy::deploy::lock;
use gangplank_deploy::store::Store;
use gangplank_model::owner::Liveness;
use gangplank_model::project::Handoff;
use gangplank_model::state::Lock;
use gangplank_model::store_url;
use gangplank_system::context::Context;

/// The owner of an env's lock, and its liveness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// The env.
    pub env: &'static str,
    /// The URL of the store.
    pub url: String,
    /// The owner; `None` if free.
    pub by: Option<(String, Liveness)>,
}

/// The facts about a store.
struct StoreCheck {
    url: &'static str,
    about: About,
}

enum About {
    /// Its URL is invalid.
    Unopened(Fault),
    /// Checked through the API, in an earlier group.
    ByApi,
    /// It exists only in jobs.
    OnlyInJobs,
    /// Not checked here, for this reason.
    Unasked(String),
    /// Unusable without credentials.
    Unusable(String),
    /// A write was tried.
    Tried(Found<()>),
}

/// The checks of all stores, and the env locks that they keep. `answers` is whether the API does.
pub fn look(ctx: &Context, scope: &Scope, answers: bool) -> (Vec<Check>, Vec<Locked>) {
    let liveness = LivenessChecker::new(ctx, scope.project.ci.slug);
    let (mut places, mut locks) = (Vec::new(), Vec::new());
    for &url in scope.project.stores {
        let about = match scope.tool.store(url) {
            Err(error) => About::Unopened(fault(error)),
            Ok(store) => {
                let about = ask(ctx, scope, url, &*store);
                if matches!(about, About::Tried(Ok(()))) && !scope.ci {
                    locks.extend(scope.envs.iter().filter_map(|env| held(&liveness, &*store, env.name)));
                }
                about
            }
        };
        places.push(StoreCheck { url, about });
    }
    (judge(&places, scope.project.ci.handoff, scope.in_job, answers), locks)
}

fn ask(ctx: &Context, scope: &Scope, url: &'static str, store: &dyn Store) -> About {
    let reason = store.unusable().map(|reason| reason.replace(&format!("{url} skipped: "), ""));
    match reason {
        _ if url.starts_with("circleci:") && !store_url::only_in_ci(url) && scope.ci => {
            About::Unasked("checked in a job with the token".into())
        }
        _ if url.starts_with("circleci:") && !store_url::only_in_ci(url) => About::ByApi,
        _ if store_url::only_in_ci(url) && !scope.in_job => About::OnlyInJobs,
        Some(reason) if scope.ci => About::Unasked(reason),
        Some(reason) => About::Unusable(reason),
        None if scope.ci && !store.is_remote() => About::Unasked("written by deploy jobs".into()),
        None => {
            if store.is_remote() {
                ctx.note(format!("asking {url}"));
            }
            About::Tried(store.examine().map_err(fault))
        }
    }
}

fn held(liveness: &LivenessChecker, store: &dyn Store, env: &'static str) -> Option<Locked> {
    let place = store.lock_of(env)?;
    // An error here would repeat one of the store's check.
    Some(Locked { env, url: place.url().to_owned(), by: owner(liveness, &place.holder().ok()?) })
}

/// The owner of a lock, and its liveness.
pub fn owner(liveness: &LivenessChecker, found: &Lock) -> Option<(String, Liveness)> {
    let life = match found {
        Lock::Held(owner) => liveness.liveness(owner),
        Lock::Free | Lock::Unreadable(_) => Liveness::Unknown,
    };
    lock::holder(liveness, found).map(|who| (who, life))
}

fn judge(places: &[StoreCheck], handoff: Handoff, in_job: bool, answers: bool) -> Vec<Check> {
    let one = |place: &StoreCheck| {
        let (url, is_bucket) = (place.url, store_url::is_bucket(place.url));
        match &place.about {
            About::Unopened(fault) => Check::of(url, State::Broken, fault),
            About::ByApi if answers => Check::fine(url),
            About::ByApi => Check::skipped(url, "checked by CircleCI's API, see above"),
            About::OnlyInJobs => Check::skipped(url, "exists only in jobs"),
            About::Unasked(reason) => Check::skipped(url, reason),
            About::Unusable(reason) if is_bucket && (handoff == Handoff::S3 || in_job) => {
                Check::broken(url, reason, credentials(url))
            }
            About::Unusable(reason) if is_bucket => Check::warning(url, reason, credentials(url)),
            About::Unusable(reason) => {
                Check::warning(url, reason, "see what this store needs: the project adds it in xtask/src/main.rs")
            }
            About::Tried(Err(fault)) => Check::of(url, State::Broken, fault),
            About::Tried(Ok(())) if is_bucket => Check::ok(url, "writable, with conditional writes"),
            About::Tried(Ok(())) => Check::ok(url, "may be written"),
        }
    };
    let checks: Vec<_> = places.iter().map(one).collect();
    match checks.as_slice() {
        [] if in_job => vec![Check::broken(
            "stores",
            "the project has none, so jobs cannot pass releases on",
            "add \"circleci:workspace\" to `stores` in xtask/src/main.rs",
        )],
        [] => vec![Check::skipped("stores", "the project has none: local releases are deployed")],
        _ => checks,
    }
}

fn credentials(url: &str) -> &'static str {
    match url.split_once("://") {
        Some(("az", _)) => {
            "`export AZURE_STORAGE_CONNECTION_STRING=...`, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY: see docs/s3.md"
        }
        Some(("gs", _)) => {
            "`export GOOGLE_APPLICATION_CREDENTIALS=KEY.json`, or `gcloud auth application-default login`: see docs/s3.md"
        }
        _ => {
            "`export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...`, or set AWS_PROFILE; docs/s3.md says how a job gets \
             them without a stored key"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::Kind;

    #[test]
    fn judge_of_each_store_gives_its_state_and_hint() {
        use State::{Broken, Ok as Fine, Skipped, Warning};
        let no = || Fault { kind: Kind::Remote, text: "no".into(), hint: "do this".into() };
        let unusable = || About::Unusable("it wants a key".into());
        let (bucket, dir) = ("s3://builds/shop", "file:store");
        for (url, about, handoff, in_job, answers, state) in [
            (dir, About::Tried(Ok(())), Handoff::Workspace, false, false, Fine),
            (dir, About::Tried(Err(no())), Handoff::Workspace, false, false, Broken),
            (dir, About::Unasked("in a job".into()), Handoff::Workspace, true, false, Skipped),
            ("nonsense:x", About::Unopened(no()), Handoff::Workspace, false, false, Broken),
            ("circleci:workspace", About::OnlyInJobs, Handoff::Workspace, false, true, Skipped),
            ("circleci:artifacts", About::ByApi, Handoff::Artifacts, false, true, Fine),
            ("circleci:artifacts", About::ByApi, Handoff::Artifacts, false, false, Skipped),
            (bucket, About::Tried(Ok(())), Handoff::S3, false, false, Fine),
            (bucket, About::Tried(Err(no())), Handoff::Workspace, false, false, Broken),
            // A laptop without keys can deploy local releases; a job cannot.
            (bucket, unusable(), Handoff::Workspace, false, false, Warning),
            (bucket, unusable(), Handoff::Workspace, true, false, Broken),
            (bucket, unusable(), Handoff::S3, false, false, Broken),
        ] {
            let checks = judge(&[StoreCheck { url, about }], handoff, in_job, answers);
            assert_eq!(checks[0].state, state, "{url} {handoff:?} {in_job}");
            assert_eq!(checks[0].hint.is_some(), matches!(state, Broken | Warning), "{url}");
        }
        for (url, names) in
            [(bucket, "AWS_ACCESS_KEY_ID"), ("az://builds", "AZURE_STORAGE_KEY"), ("gs://builds", "GOOGLE_")]
        {
            let checks = judge(&[StoreCheck { url, about: unusable() }], Handoff::S3, false, false);
            assert!(checks[0].hint.as_ref().unwrap().contains(names), "{url}");
        }
        assert_eq!(judge(&[], Handoff::Workspace, true, false)[0].state, Broken);
        assert_eq!(judge(&[], Handoff::Workspace, false, false)[0].state, Skipped);
    }
}
