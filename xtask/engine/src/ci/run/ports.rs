//! Ports of this machine that a run will want, looked at before anything is compiled for minutes.

use crate::deploy::filled_in;
use crate::deploy::state::ServiceState;
use crate::error::{Result, failed};
use crate::health::Checker;
use crate::machine;
use crate::project::{Env, Service};
use crate::service::Spec;
use crate::tool::Tool;

/// Refuses when something answers where the service of an env is to listen, and the service does not run. An env behind an
/// approval may not be reached, so there it is a warning. `jobs` are those of the run.
pub fn check(tool: &Tool, jobs: &[String]) -> Result<()> {
    let Tool { ctx, project, .. } = *tool;
    let deployed = |env: &&Env| jobs.contains(&format!("deploy-{}", env.name));
    for env in project.envs.iter().filter(deployed) {
        let Some((address, port)) = taken(tool, env)? else { continue };
        let who = port.and_then(machine::listener);
        let by =
            who.as_ref().map_or_else(String::new, |it| format!(": process {} ({}) in {}", it.pid, it.name, it.dir));
        let text = format!("something answers at {address}, where {} is to listen{by}", env.name);
        if env.approval {
            ctx.warn(text);
            continue;
        }
        let end = who.map_or("`ss -ltnp` shows what: end it".to_owned(), |it| format!("`kill {}` ends it", it.pid));
        return failed(text).hint(format!("{end}; or give {} another port in xtask/src/main.rs", env.name)).err();
    }
    Ok(())
}

/// What answers where the service of an env would listen on this machine, while it does not run.
fn taken(tool: &Tool, env: &Env) -> Result<Option<(String, Option<u16>)>> {
    let ctx = tool.ctx;
    // A variable that is missing is the deploy's to report.
    let (true, Ok(vars)) =
        (matches!(env.service, Service::Pidfile { .. } | Service::Systemd { .. }), filled_in(ctx, env))
    else {
        return Ok(None);
    };
    let Ok(checker) = Checker::new(ctx, &env.health, &Spec::new(&env.service, &vars)) else { return Ok(None) };
    for url in env.targets.iter().filter(|url| url.starts_with("file:")) {
        let target = tool.target(url)?;
        if !matches!(target.state()?.service, ServiceState::None | ServiceState::Stopped) {
            continue;
        }
        if let Some(address) = checker.answered(&*target) {
            return Ok(Some((address, checker.port(&*target))));
        }
    }
    Ok(None)
}
