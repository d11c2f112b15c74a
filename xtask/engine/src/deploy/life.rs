//! Whether the owner of a lock still lives: this machine knows its own processes, CircleCI its jobs, and of all others it
//! is known for how long they have not renewed it.

use crate::circleci::model::Job;
use crate::circleci::{self, CircleCi};
use crate::cx::Cx;
use crate::machine::{Life, Owner};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often CircleCI is asked about the same job while somebody waits for its lock.
const AGAIN: Duration = Duration::from_secs(15);
/// How long the last command of a job that was cancelled may still run on a host.
const ENDING: SignedDuration = SignedDuration::from_secs(30);

/// Knows of owners whether they live.
pub struct Registry<'cx> {
    cx: &'cx Cx,
    slug: Option<&'cx str>,
    api: OnceLock<Option<CircleCi<'cx>>>,
    asked: Mutex<BTreeMap<String, (Instant, Life)>>,
}

impl<'cx> Registry<'cx> {
    /// Nothing is asked yet. `slug` is what the project states.
    pub fn new(cx: &'cx Cx, slug: Option<&'cx str>) -> Self {
        Self { cx, slug, api: OnceLock::new(), asked: Mutex::default() }
    }

    /// The outside.
    pub fn cx(&self) -> &'cx Cx {
        self.cx
    }

    /// Whether an owner lives. What cannot be found out is unknown, and never taken for dead.
    pub fn life(&self, owner: &Owner) -> Life {
        match owner.life() {
            Life::Unknown => judge(self.of_ci(owner), owner.lease, owner.unheard),
            life => life,
        }
    }

    /// Why an owner is taken for dead.
    pub fn gone(&self, owner: &Owner) -> String {
        match (&owner.ci, owner.life(), owner.unheard) {
            (_, Life::Alive | Life::Ending | Life::Dead, _) => format!("its process {} is gone", owner.pid),
            (Some(ci), _, _) if self.of_ci(owner) == Life::Dead => {
                format!("CircleCI says that job {} has ended", ci.job)
            }
            (_, _, unheard) => format!("it has not been heard of for {} min", unheard.unwrap_or_default() / 60),
        }
    }

    /// What CircleCI says of an owner's job.
    fn of_ci(&self, owner: &Owner) -> Life {
        if owner.ci.is_none() {
            return Life::Unknown;
        }
        // Whoever takes the lock of another host meanwhile waits for the same answer.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, life)) = asked.get(&owner.token)
            && at.elapsed() < AGAIN
        {
            return *life;
        }
        let life = self.ask(owner).unwrap_or(Life::Unknown);
        asked.insert(owner.token.clone(), (Instant::now(), life));
        life
    }

    fn ask(&self, owner: &Owner) -> Option<Life> {
        let ci = owner.ci.as_ref()?;
        let jobs = self.api()?.jobs(ci.workflow.as_deref()?);
        match jobs {
            Ok(jobs) => jobs.iter().find(|job| job.job_number == Some(ci.job)).map(|job| of_job(job, self.cx.now())),
            Err(error) => {
                self.cx.warn(format!("CircleCI does not say whether job {} still runs: {error:#}", ci.job));
                None
            }
        }
    }

    fn api(&self) -> Option<&CircleCi<'cx>> {
        let open = || circleci::has_token(self.cx).then(|| CircleCi::open(self.cx, self.slug).ok()).flatten();
        self.api.get_or_init(open).as_ref()
    }
}

/// Whether an owner lives whom this machine cannot see, by what CircleCI says of its job and by its lease.
///
/// CircleCI comes first: a job that runs is waited for, however long nothing was heard of it. An owner that never renewed
/// is not judged by that. Nobody is robbed by a wrong answer here, only stopped: whoever wakes up finds the lock to be
/// another's before it does anything more.
fn judge(of_ci: Life, lease: Option<u64>, unheard: Option<u64>) -> Life {
    match (of_ci, lease, unheard) {
        (Life::Unknown, Some(lease), Some(unheard)) if unheard >= lease => Life::Dead,
        (life, _, _) => life,
    }
}

/// What the status of a job says: the names are those of
/// <https://circleci.com/api/v2/openapi.json>, and one that is not known there says nothing.
fn of_job(job: &Job, now: Timestamp) -> Life {
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
            Some(stopped) if now.duration_since(stopped) >= ENDING => Life::Dead,
            // Without a time it is being stopped just now.
            _ => Life::Ending,
        },
        "running" | "queued" | "not_running" | "on_hold" | "blocked" => Life::Alive,
        _ => Life::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_dead_by_its_silence() {
        for (of_ci, lease, unheard, life) in [
            (Life::Unknown, Some(180), Some(180), Life::Dead),
            (Life::Unknown, Some(180), Some(9000), Life::Dead),
            (Life::Unknown, Some(180), Some(179), Life::Unknown),
            // It was renewed within the minute, or the host cannot tell.
            (Life::Unknown, Some(180), None, Life::Unknown),
            // A version that does not renew.
            (Life::Unknown, None, Some(9000), Life::Unknown),
            // CircleCI knows better.
            (Life::Alive, Some(180), Some(9000), Life::Alive),
            (Life::Ending, Some(180), Some(9000), Life::Ending),
            (Life::Dead, Some(180), None, Life::Dead),
            (Life::Dead, None, None, Life::Dead),
        ] {
            assert_eq!(judge(of_ci, lease, unheard), life, "{of_ci:?} {lease:?} {unheard:?}");
        }
    }

    #[test]
    fn what_the_status_of_a_job_says() {
        let now = Timestamp::from_second(1_780_000_000).unwrap();
        let ago = |seconds| (now - SignedDuration::from_secs(seconds)).to_string();
        for (status, stopped, life) in [
            ("running", None, Life::Alive),
            ("on_hold", None, Life::Alive),
            ("canceled", Some(ago(5)), Life::Ending),
            ("canceled", Some(ago(31)), Life::Dead),
            ("failed", Some(ago(3600)), Life::Dead),
            ("canceled", None, Life::Ending),
            ("retried", Some(ago(60)), Life::Dead),
            ("a new word", Some(ago(3600)), Life::Unknown),
        ] {
            let job = serde_json::json!({
                "name": "deploy", "type": "build", "status": status, "job_number": 7, "stopped_at": stopped,
            });
            assert_eq!(of_job(&serde_json::from_value(job).unwrap(), now), life, "{status}");
        }
    }
}
