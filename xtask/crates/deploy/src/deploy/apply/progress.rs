//! A host during a deploy.

use crate::host::Target;
use gangplank_model::history::Took;
use gangplank_model::plan::{HostPlan, Step};
use gangplank_model::release::id::ReleaseId;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// A target, its plan and its progress.
pub(super) struct HostProgress<'a> {
    pub(super) target: &'a dyn Target,
    pub(super) plan: &'a HostPlan,
    /// Whether the switch was started, successful or not.
    pub(super) begun: AtomicBool,
    /// Whether a restart was requested.
    pub(super) restarted: AtomicBool,
    /// Whether the revert had to change anything.
    pub(super) reverted: AtomicBool,
    /// How long its steps took so far.
    pub(super) took: Mutex<Took>,
}

impl<'a> HostProgress<'a> {
    pub(super) fn new(target: &'a dyn Target, plan: &'a HostPlan) -> Self {
        let no = || AtomicBool::new(false);
        Self { target, plan, begun: no(), restarted: no(), reverted: no(), took: Mutex::default() }
    }

    pub(super) fn has(&self, wanted: impl Fn(&Step) -> bool) -> bool {
        self.plan.steps.iter().any(wanted)
    }

    /// The release that goes live.
    pub(super) fn goal(&self) -> Option<&'a ReleaseId> {
        self.plan.steps.iter().find_map(|step| match step {
            Step::Confirm { release } | Step::Activate { release, .. } => Some(release),
            _ => None,
        })
    }

    /// The release that `current` will point at, and the one it points at now.
    pub(super) fn switch(&self) -> Option<(&'a ReleaseId, Option<&'a ReleaseId>)> {
        self.plan.steps.iter().find_map(|step| match step {
            Step::Activate { release, from } => Some((release, from.as_ref())),
            _ => None,
        })
    }

    /// The release that the service is restarted with.
    pub(super) fn restart(&self) -> Option<&'a ReleaseId> {
        self.plan.steps.iter().find_map(|step| match step {
            Step::Restart { release } => Some(release),
            _ => None,
        })
    }

    /// The release to verify before it goes live: one that was installed by an earlier run.
    pub(super) fn to_be_checked(&self) -> Option<&'a ReleaseId> {
        let installs = self.has(|step| matches!(step, Step::Install { .. }));
        self.switch().map(|(release, _)| release).or_else(|| self.restart()).filter(|_| !installs)
    }
}
