//! The CircleCI of runs on this machine, kept running for other clients: `ci loopback`.

use super::cloud::Cloud;
use super::{DIR, alone};
use crate::ci::pipeline::Pipeline;
use crate::error::Result;
use crate::event::{HostOutput, Listener, Stream};
use crate::git;
use crate::tool::Tool;
use std::time::Duration;

/// Answers API v2 and v1.1 from what `ci run` has left here, until it is interrupted. The first lines on stdout are the
/// variables by which a client finds it.
pub fn serve(tool: &Tool, pipeline: &Pipeline, listener: Listener) -> Result<()> {
    let Tool { ctx, project, .. } = *tool;
    let commit = git::commit(ctx)?;
    let branch = commit.branch.clone().unwrap_or_else(|| project.ci.branch.to_owned());
    let dir = ctx.root.join(DIR);
    let _only_one = alone(&dir)?;
    let cloud = Cloud::open(ctx, project, pipeline, &commit, &branch, &dir)?;
    for (name, value) in cloud.client_variables() {
        let line = format!("{name}={value}");
        listener(&HostOutput::Line { host: "circleci".into(), column: 0, stream: Stream::Stdout, line });
    }
    ctx.note("answering until it is interrupted (Ctrl-C)");
    while !ctx.interrupted() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
