//! What a decision depends on, asked of hosts, stores and git once.

use crate::deploy::deployment::{Deployment, Options};
use crate::deploy::release_source::ReleaseSource;
use crate::deploy::waves::{AT_ONCE, par_map};
use gangplank_model::error::Result;
use gangplank_model::history::Verb;
use gangplank_model::plan::refuse::{self, HostSnapshot, Rules, Snapshot, StoreSnapshot};
use gangplank_model::plan::{self, Ancestry, Goal};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::service::Spec;
use gangplank_model::state::State;
use gangplank_system::git;
use std::collections::BTreeMap;

impl Deployment<'_> {
    fn states(&self) -> Result<Vec<State>> {
        let states =
            par_map(&self.targets, AT_ONCE, |target| target.state()).into_iter().collect::<Result<Vec<_>>>()?;
        for (target, state) in self.targets.iter().zip(&states).filter(|(_, state)| state.history.unreadable > 0) {
            let lines = state.history.unreadable;
            self.ctx.warn(format!("{}: skipped {lines} torn line(s) of history.jsonl, left by a crash", target.url()));
        }
        Ok(states)
    }

    /// The state of every target, as a snapshot. `interrupted` is whether a run of the same command was killed.
    ///
    /// Fails if a target runs a release of another app. All commands that change a host pass here, so none of them
    /// can touch it.
    pub fn snapshot(&self, interrupted: bool) -> Result<Snapshot> {
        let urls = self.targets.iter().map(|target| target.url().to_owned());
        let hosts = urls.zip(self.states()?).map(|(url, state)| HostSnapshot { url, state }).collect();
        let snapshot = Snapshot { hosts, stores: vec![], interrupted };
        refuse::other_app(self.app, &snapshot)?;
        Ok(snapshot)
    }

    /// What is wanted, with the age of the release relative to what is live on the hosts of a snapshot. Adds what stores
    /// recorded as live where the hosts run nothing.
    pub(super) fn goal(
        &self,
        verb: Verb,
        id: &ReleaseId,
        release: Option<&ReleaseSource>,
        snapshot: &mut Snapshot,
        options: &Options,
    ) -> Goal {
        let sha = release.map_or(id.short_sha(), |release| &release.manifest().commit.sha);
        let age = |live: &ReleaseId, live_sha: Option<&str>| {
            let live_sha = live_sha.unwrap_or(live.short_sha());
            let ancestry = if live == id { Ancestry::Unknown } else { git::ancestry(self.ctx, sha, live_sha) };
            plan::age(id, live, ancestry)
        };
        let lives = snapshot.hosts.iter().filter_map(|host| Some((host.state.live()?, &host.state.history)));
        let ages: BTreeMap<_, _> =
            lives.map(|(live, history)| (live.clone(), age(live, history.commit(live)))).collect();
        let goal = Goal {
            verb,
            release: id.clone(),
            bundle: release.map(|release| release.manifest().bundle.sha256.clone()),
            service: self.spec.digest(),
            vars: self.spec.vars(),
            has_service: self.spec != Spec::None,
            allow_older: options.allow_older,
            take_over: options.take_over,
            files: release
                .map(|release| release.manifest().files.iter().map(|file| file.path.clone()).collect())
                .unwrap_or_default(),
            ages,
        };
        if goal.ages.is_empty() && !goal.may_go_back() {
            for (url, history) in self.deploy_log.histories(self.ctx, self.env.name) {
                let Some(live) = history.live_stack().last().copied().cloned() else { continue };
                let age = age(&live, history.commit(&live));
                snapshot.stores.push(StoreSnapshot { url, live, age });
            }
        }
        goal
    }

    /// What the project and the command line demand of a plan.
    pub(super) fn rules<'a>(&'a self, options: &'a Options) -> Rules<'a> {
        Rules {
            env: self.env.name,
            approval: self.env.approval,
            shared: self.env.shared,
            keep: self.env.keep,
            hooks: self.env.hooks,
            expect_current: &options.expect_current,
            approved: options.approved.as_deref().filter(|_| !options.dry_run),
        }
    }
}
