//! Checks the local ports of a run before a long compile.

use gangplank_deploy::deploy::deployment::filled_in;
use gangplank_deploy::health::Checker;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Result, failed};
use gangplank_model::project::{Env, Service};
use gangplank_model::service::Spec;
use gangplank_model::state::ServiceState;
use gangplank_system::machine;

/// Fails if another program answers at the address of an env's service while the service is stopped. A warning for an
/// env with approval, which the run may not reach. `jobs` are those of the run.
pub fn check(tool: &Tool, jobs: &[String]) -> Result<()> {
    let Tool { ctx, project, .. } = *tool;
    let deployed = |env: &&Env| jobs.contains(&format!("deploy-{}", env.name));
    for env in project.envs.iter().filter(deployed) {
        let Some((address, port)) = taken(tool, env)? else { continue };
        let who = port.and_then(machine::listener);
        let by =
            who.as_ref().map_or_else(String::new, |it| format!(": process {} ({}) in {}", it.pid, it.name, it.dir));
        let text = format!("another program answers at {address}, the address of {}{by}", env.name);
        if env.approval {
            ctx.warn(text);
            continue;
        }
        let end = who
            .map_or("find it with `ss -ltnp` and stop it".to_owned(), |it| format!("stop it with `kill {}`", it.pid));
        return failed(text).hint(format!("{end}, or use another port for {} in xtask/src/main.rs", env.name)).err();
    }
    Ok(())
}

/// The program that answers at the local address of an env's service while the service is stopped.
fn taken(tool: &Tool, env: &Env) -> Result<Option<(String, Option<u16>)>> {
    let ctx = tool.ctx;
    // The deploy reports missing variables.
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
