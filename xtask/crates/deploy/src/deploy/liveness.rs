//! Whether the owner of a lock is alive: by its process on this machine, by its job on CircleCI, or by its last
//! renewal.

use gangplank_model::owner::{Liveness, Owner};
use gangplank_system::circleci;
use gangplank_system::circleci::CircleCi;
use gangplank_system::circleci::model::Job;
use gangplank_system::context::Context;
use gangplank_system::machine;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer of CircleCI about a job is cached.
const AGAIN: Duration = Duration::from_secs(15);
/// How long the last command of a cancelled job may still run on a host.
const ENDING: SignedDuration = SignedDuration::from_secs(30);

/// Determines whether the owners of locks are alive.
pub struct LivenessChecker<'ctx> {
    ctx: &'ctx Context,
    slug: Option<&'ctx str>,
    api: OnceLock<Option<CircleCi<'ctx>>>,
    asked: Mutex<BTreeMap<String, (Instant, Liveness)>>,
}

impl<'ctx> LivenessChecker<'ctx> {
    /// A checker for a project; `slug` is the one configured there.
    pub fn new(ctx: &'ctx Context, slug: Option<&'ctx str>) -> Self {
        Self { ctx, slug, api: OnceLock::new(), asked: Mutex::default() }
    }

    /// The I/O context.
    pub fn ctx(&self) -> &'ctx Context {
        self.ctx
    }

    /// Whether an owner is alive. `Unknown` never counts as dead.
    pub fn liveness(&self, owner: &Owner) -> Liveness {
        match machine::liveness(owner) {
            Liveness::Unknown => judge(self.of_ci(owner), owner.lease, owner.seconds_since_renewal),
            life => life,
        }
    }

    /// Why an owner counts as dead.
    pub fn gone(&self, owner: &Owner) -> String {
        match (&owner.ci, machine::liveness(owner), owner.seconds_since_renewal) {
            (_, Liveness::Alive | Liveness::Ending | Liveness::Dead, _) => format!("its process {} is gone", owner.pid),
            (Some(ci), _, _) if self.of_ci(owner) == Liveness::Dead => {
                format!("CircleCI says that job {} has ended", ci.job)
            }
            (_, _, seconds_since_renewal) => {
                format!("its lock was not renewed for {} min", seconds_since_renewal.unwrap_or_default() / 60)
            }
        }
    }

    /// The liveness of an owner's job according to CircleCI.
    fn of_ci(&self, owner: &Owner) -> Liveness {
        if owner.ci.is_none() {
            return Liveness::Unknown;
        }
        // The mutex is held during the request: threads that lock other hosts wait for the same answer.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, life)) = asked.get(&owner.token)
            && at.elapsed() < AGAIN
        {
            return *life;
        }
        let life = self.ask(owner).unwrap_or(Liveness::Unknown);
        asked.insert(owner.token.clone(), (Instant::now(), life));
        life
    }

    fn ask(&self, owner: &Owner) -> Option<Liveness> {
        let ci = owner.ci.as_ref()?;
        let jobs = self.api()?.jobs(ci.workflow.as_deref()?);
        match jobs {
            Ok(jobs) => jobs.iter().find(|job| job.job_number == Some(ci.job)).map(|job| of_job(job, self.ctx.now())),
            Err(error) => {
                self.ctx.warn(format!("CircleCI does not say whether job {} still runs: {error:#}", ci.job));
                None
            }
        }
    }

    fn api(&self) -> Option<&CircleCi<'ctx>> {
        let open = || circleci::has_token(self.ctx).then(|| CircleCi::open(self.ctx, self.slug).ok()).flatten();
        self.api.get_or_init(open).as_ref()
    }
}

/// The liveness of an owner on another machine, from its CircleCI job and its lease.
///
/// CircleCI takes precedence: a running job is alive even if its lease has expired. An owner that never renewed has no
/// lease. A false positive only stops the old owner: its next script finds the lock taken and exits.
fn judge(of_ci: Liveness, lease: Option<u64>, seconds_since_renewal: Option<u64>) -> Liveness {
    match (of_ci, lease, seconds_since_renewal) {
        (Liveness::Unknown, Some(lease), Some(seconds_since_renewal)) if seconds_since_renewal >= lease => {
            Liveness::Dead
        }
        (life, _, _) => life,
    }
}

/// The liveness for a job status of <https://circleci.com/api/v2/openapi.json>; `Unknown` for any other status.
fn of_job(job: &Job, now: Timestamp) -> Liveness {
    match job.status.as_str() {
        "success"
        | "failed"
        | "canceled"
        | "timedout"
        | "infrastructure_fail"
        | "terminated-unknown"
        | "not_run"
        | "unauthorized"
        | "retried" => match job.stopped_at {
            Some(stopped) if now.duration_since(stopped) >= ENDING => Liveness::Dead,
            // Without `stopped_at` the job is being stopped.
            _ => Liveness::Ending,
        },
        "running" | "queued" | "not_running" | "on_hold" | "blocked" => Liveness::Alive,
        _ => Liveness::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judge_after_an_expired_lease_says_dead_unless_circleci_knows() {
        for (of_ci, lease, seconds_since_renewal, life) in [
            (Liveness::Unknown, Some(180), Some(180), Liveness::Dead),
            (Liveness::Unknown, Some(180), Some(9000), Liveness::Dead),
            (Liveness::Unknown, Some(180), Some(179), Liveness::Unknown),
            // Renewed within the minute, or the host cannot tell.
            (Liveness::Unknown, Some(180), None, Liveness::Unknown),
            // A version without renewal.
            (Liveness::Unknown, None, Some(9000), Liveness::Unknown),
            // CircleCI takes precedence.
            (Liveness::Alive, Some(180), Some(9000), Liveness::Alive),
            (Liveness::Ending, Some(180), Some(9000), Liveness::Ending),
            (Liveness::Dead, Some(180), None, Liveness::Dead),
            (Liveness::Dead, None, None, Liveness::Dead),
        ] {
            assert_eq!(
                judge(of_ci, lease, seconds_since_renewal),
                life,
                "{of_ci:?} {lease:?} {seconds_since_renewal:?}"
            );
        }
    }

    #[test]
    fn job_status_and_time_decide_the_liveness() {
        let now = Timestamp::from_second(1_780_000_000).unwrap();
        let ago = |seconds| (now - SignedDuration::from_secs(seconds)).to_string();
        for (status, stopped, life) in [
            ("running", None, Liveness::Alive),
            ("on_hold", None, Liveness::Alive),
            ("canceled", Some(ago(5)), Liveness::Ending),
            ("canceled", Some(ago(31)), Liveness::Dead),
            ("failed", Some(ago(3600)), Liveness::Dead),
            ("canceled", None, Liveness::Ending),
            ("retried", Some(ago(60)), Liveness::Dead),
            ("a new word", Some(ago(3600)), Liveness::Unknown),
        ] {
            let job = serde_json::json!({
                "name": "deploy", "type": "build", "status": status, "job_number": 7, "stopped_at": stopped,
            });
            assert_eq!(of_job(&serde_json::from_value(job).unwrap(), now), life, "{status}");
        }
    }
}
