//! The results of a release in the other envs of a project.

use crate::deploy::deploy_log::DeployLog;
use crate::deploy::deployment::{Deployment, Options};
use crate::tool::Tool;
use gangplank_model::project::Env;
use gangplank_model::release::id::ReleaseId;

/// The other envs where this release failed last, with a warning for each. No warning for an approved plan, which has
/// shown it.
pub(crate) fn warn_of_failures(tool: &Tool, site: &Deployment, id: &ReleaseId, options: &Options) -> Vec<String> {
    let failed_in = failed_in(tool, site.env, id, &site.deploy_log);
    for env in failed_in.iter().filter(|_| options.approved.is_none()) {
        site.ctx.warn(format!("{id} failed in {env}: `cargo xtask history {env}` shows why"));
    }
    failed_in
}

/// Names of the other envs where a deploy of this release failed last, from the stores and the first host of each env.
/// Hosts are asked only if the env needs approval; from a job only local ones, because a job has no keys of other envs.
fn failed_in(tool: &Tool, env: &Env, id: &ReleaseId, deploy_log: &DeployLog) -> Vec<String> {
    let Tool { ctx, project, .. } = *tool;
    let others = project.envs.iter().filter(|other| other.name != env.name);
    let failed = |other: &&Env| {
        let told = deploy_log.histories(ctx, other.name);
        if told.iter().any(|(_, history)| history.bad().contains(&id)) {
            return true;
        }
        let Some(url) = other.targets.first().filter(|url| env.approval && (!ctx.in_ci() || url.starts_with("file:")))
        else {
            return false;
        };
        match tool.target(url).and_then(|target| target.state()) {
            Ok(state) => state.history.bad().contains(&id),
            Err(error) => {
                ctx.note(format!("{} could not be asked whether {id} failed there: {error:#}", other.name));
                false
            }
        }
    };
    others.filter(failed).map(|other| other.name.to_owned()).collect()
}
