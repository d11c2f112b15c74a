//! `ci trigger`: starts the deploy or rollback workflow on CircleCI.
//!
//! CircleCI runs the config of the branch, with pipeline parameters for env and release; see [`gangplank_model::ci::workflows`].
//! Nothing is deployed from this machine.

use crate::ci::follow;
use crate::ci::follow::{Asking, End};
use crate::tool::Tool;
use gangplank_model::ci::workflows::parameter::{DEPLOY_ENV, REASON, RELEASE, ROLLBACK_ENV};
use gangplank_model::error::{CliError, Kind, Result, usage};
use gangplank_model::project::Handoff;
use gangplank_model::release::id::Selector;
use gangplank_system::circleci::model::Definition;
use gangplank_system::circleci::{CircleCi, Triggered};
use gangplank_system::git;
use serde::Serialize;
use serde_json::{Value, json};

/// The path of the config with our parameters.
const CONFIG: &str = crate::ci::generate::CONFIGS[0];
/// The maximum length of a parameter's value.
const VALUE_MAX: usize = 512;

/// The request.
#[derive(Debug)]
pub struct TriggerRequest<'a> {
    /// Roll back instead of deploying.
    pub rollback: bool,
    /// The env.
    pub env: &'a str,
    /// The release; by default that of the checkout, or the previous one for a rollback.
    pub release: Option<&'a Selector>,
    /// The reason, for the history.
    pub reason: Option<&'a str>,
    /// The pipeline definition, if the project has several.
    pub definition: Option<&'a str>,
}

/// The result of `ci trigger`.
#[derive(Debug, Serialize)]
pub struct Started {
    /// Number of the pipeline.
    pub pipeline: u64,
    /// Its UUID.
    pub id: String,
    /// The parameters.
    pub parameters: Value,
    /// The end; absent without `--follow`.
    pub end: Option<End>,
}

/// Starts the workflow, and with `follow` waits for its end; `approve` asks for approvals on the way.
pub fn trigger(tool: &Tool, request: &TriggerRequest, follow: Option<Asking>) -> Result<Started> {
    let Tool { ctx, project, .. } = *tool;
    project.env(request.env)?;
    if project.ci.handoff == Handoff::Workspace {
        return usage("the config of this project has no workflow to trigger: its handoff is `workspace`")
            .hint("set `handoff: Handoff::Artifacts` in xtask/src/main.rs, run `cargo xtask ci generate`, and push")
            .err();
    }
    let parameters = parameters(request, &|| Ok(git::commit(ctx)?.sha))?;
    let api = CircleCi::open(ctx, project.ci.slug)?;
    let definition = match request.definition {
        Some(id) => Some(id.to_owned()),
        None => definition(&api.definitions()?)?,
    };
    let branch = project.ci.branch;
    let started = match api.trigger(definition.as_deref(), branch, &parameters)? {
        Triggered::Started(started) => started,
        Triggered::NotStarted(reason) => {
            return CliError::new(Kind::Failed, format!("CircleCI started nothing on {branch}: {reason}"))
                .hint("push another commit to the branch, then trigger again: one with [skip ci] in its message starts nothing")
                .err();
        }
    };
    ctx.note(format!("pipeline {} of {} started", started.number, api.slug()));
    let end = match follow {
        Some(approve) => Some(follow::follow(ctx, &api, &started, approve)?),
        None => None,
    };
    Ok(Started { pipeline: started.number, id: started.id, parameters, end })
}

/// The parameters of a request. The checked-out commit is passed as a full SHA, because the job's HEAD differs.
fn parameters(request: &TriggerRequest, head: &dyn Fn() -> Result<String>) -> Result<Value> {
    let release = match request.release {
        None if request.rollback => Selector::Previous.to_string(),
        None | Some(Selector::Head) => head()?,
        Some(Selector::Previous) if !request.rollback => {
            return usage("`previous` is only valid for a rollback")
                .hint("run `cargo xtask ci trigger rollback ENV`")
                .err();
        }
        Some(selector) => selector.to_string(),
    };
    let env = if request.rollback { ROLLBACK_ENV } else { DEPLOY_ENV };
    let mut parameters = json!({ env: request.env, RELEASE: release });
    if let Some(reason) = request.reason {
        parameters[REASON] = reason.chars().take(VALUE_MAX).collect::<String>().into();
    }
    Ok(parameters)
}

/// The definition of our config; `None` if the project has no definitions, as with GitHub's and Bitbucket's OAuth apps.
fn definition(all: &[Definition]) -> Result<Option<String>> {
    let path = |it: &Definition| it.config_source.as_ref().and_then(|source| source.file_path.clone());
    let ours: Vec<_> = all.iter().filter(|it| path(it).is_none_or(|path| path == CONFIG)).collect();
    match (ours.as_slice(), all) {
        ([one], _) => Ok(Some(one.id.clone())),
        (_, []) => Ok(None),
        (several, _) => {
            let shown = if several.is_empty() { all.iter().collect() } else { several.to_vec() };
            let names: Vec<_> = shown.iter().map(|it| format!("{} ({})", it.id, it.name)).collect();
            let how = if several.is_empty() { "none runs" } else { "several run" };
            usage(format!("of the project's pipeline definitions {how} {CONFIG}: {}", names.join(", ")))
                .hint("choose one with --definition ID")
                .err()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rollback: bool, release: Option<&Selector>) -> TriggerRequest<'_> {
        TriggerRequest { rollback, env: "prod", release, reason: None, definition: None }
    }

    #[test]
    fn parameters_of_request_name_env_release_and_reason() {
        let text = |request: &TriggerRequest| parameters(request, &|| Ok("c0ffee".into())).map(|it| it.to_string());
        let build = Selector::Build(12);
        for (request, want) in [
            (request(false, None), r#"{"deploy-env":"prod","release":"c0ffee"}"#),
            (request(false, Some(&Selector::Head)), r#"{"deploy-env":"prod","release":"c0ffee"}"#),
            (request(false, Some(&Selector::Latest)), r#"{"deploy-env":"prod","release":"latest"}"#),
            (request(false, Some(&build)), r#"{"deploy-env":"prod","release":"build:12"}"#),
            (request(true, None), r#"{"release":"previous","rollback-env":"prod"}"#),
            (
                TriggerRequest { reason: Some("a price"), ..request(true, Some(&build)) },
                r#"{"reason":"a price","release":"build:12","rollback-env":"prod"}"#,
            ),
        ] {
            assert_eq!(text(&request).unwrap(), want);
        }
        assert!(text(&request(false, Some(&Selector::Previous))).is_err());
    }

    #[test]
    fn definition_is_the_single_one_that_runs_the_config() {
        let one = |id: &str, path: Option<&str>| -> Definition {
            let source = path.map(|path| json!({ "file_path": path }));
            serde_json::from_value(json!({ "id": id, "name": "n", "config_source": source })).unwrap()
        };
        let id = |all: &[Definition]| definition(all).map_err(|e| e.to_string());
        assert_eq!(id(&[]).unwrap(), None);
        assert_eq!(id(&[one("a", Some(CONFIG))]).unwrap().as_deref(), Some("a"));
        assert_eq!(id(&[one("a", Some("x.yml")), one("b", Some(CONFIG))]).unwrap().as_deref(), Some("b"));
        assert!(id(&[one("a", Some(CONFIG)), one("b", Some(CONFIG))]).unwrap_err().contains("several run"));
        assert!(id(&[one("a", Some("x.yml"))]).unwrap_err().contains("none runs"));
    }
}
