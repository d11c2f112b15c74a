//! `ci loopback`: serves the CircleCI API of local runs to other clients.

use crate::cloud::Cloud;
use gangplank_deploy::tool::Tool;
use gangplank_local_ci::run::cloud::Opening;
use gangplank_local_ci::run::{DIR, alone};
use gangplank_model::ci::pipeline::Pipeline;
use gangplank_model::error::Result;
use gangplank_model::event::{HostOutput, Listener, Stream};
use gangplank_system::git;
use std::time::Duration;

/// Serves API v2 and v1.1 over the state of `ci run` until interrupted. The first lines on stdout are the variables for
/// a client.
pub fn serve(tool: &Tool, pipeline: &Pipeline, listener: Listener) -> Result<()> {
    let Tool { ctx, project, .. } = *tool;
    let commit = git::commit(ctx)?;
    let branch = commit.branch.clone().unwrap_or_else(|| project.ci.branch.to_owned());
    let dir = ctx.root.join(DIR);
    let _only_one = alone(&dir)?;
    let cloud = Cloud::open(&Opening { ctx, project, pipeline, commit: &commit, branch: &branch, dir: &dir })?;
    for (name, value) in cloud.client_variables() {
        let line = format!("{name}={value}");
        listener(&HostOutput::Line { host: "circleci".into(), column: 0, stream: Stream::Stdout, line });
    }
    ctx.note("serving until Ctrl-C");
    while !ctx.interrupted() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
