//! `ci trigger`: starts the workflow that deploys, or rolls back, from a laptop.
//!
//! What runs is the config of the branch, with pipeline parameters that say which env and which release; see
//! [`crate::ci::workflows`]. Nothing is deployed from here.

use crate::ci::follow::{self, Asking, End};
use crate::ci::workflows::parameter::{DEPLOY_ENV, REASON, RELEASE, ROLLBACK_ENV};
use crate::circleci::model::Definition;
use crate::circleci::{CircleCi, Triggered};
use crate::error::{CliError, Kind, Result, usage};
use crate::git;
use crate::project::Handoff;
use crate::release::id::Selector;
use crate::tool::Tool;
use serde::Serialize;
use serde_json::{Value, json};

/// The path of the config that carries out our parameters.
const CONFIG: &str = crate::ci::generate::CONFIGS[0];
/// No value of a parameter may be longer.
const VALUE_MAX: usize = 512;

/// What to start.
#[derive(Debug)]
pub struct TriggerRequest<'a> {
    /// Roll back instead of deploying.
    pub rollback: bool,
    /// The env.
    pub env: &'a str,
    /// The release; that of the checkout, or for a rollback the one before, when left out.
    pub release: Option<&'a Selector>,
    /// The reason, for the history.
    pub reason: Option<&'a str>,
    /// The pipeline definition, where the project has several.
    pub definition: Option<&'a str>,
}

/// What `ci trigger` answers.
#[derive(Debug, Serialize)]
pub struct Started {
    /// Number of the pipeline.
    pub pipeline: u64,
    /// Its UUID.
    pub id: String,
    /// What it was started with.
    pub parameters: Value,
    /// How it ended; absent when nobody followed it.
    pub end: Option<End>,
}

/// Starts it, and with `follow` stays until it has ended; an approval on the way is asked by `approve`.
pub fn trigger(tool: &Tool, wish: &TriggerRequest, follow: Option<Asking>) -> Result<Started> {
    let Tool { ctx, project, .. } = *tool;
    project.env(wish.env)?;
    if project.ci.handoff == Handoff::Workspace {
        return usage(
            "the config of this project has no workflow that can be started from here: its handoff is `workspace`",
        )
        .hint("set `handoff: Handoff::Artifacts` in xtask/src/main.rs, run `cargo xtask ci generate`, and push")
        .err();
    }
    let parameters = parameters(wish, &|| Ok(git::commit(ctx)?.sha))?;
    let api = CircleCi::open(ctx, project.ci.slug)?;
    let definition = match wish.definition {
        Some(id) => Some(id.to_owned()),
        None => definition(&api.definitions()?)?,
    };
    let branch = project.ci.branch;
    let started = match api.trigger(definition.as_deref(), branch, &parameters)? {
        Triggered::Started(started) => started,
        Triggered::NotStarted(reason) => {
            return CliError::new(Kind::Failed, format!("CircleCI started nothing on {branch}: {reason}"))
                .hint("a commit with [skip ci] in its message starts nothing: push another one to the branch, then trigger again")
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

/// The parameters of a wish. The commit of the checkout is said by its full SHA, because the job's HEAD is another one.
fn parameters(wish: &TriggerRequest, head: &dyn Fn() -> Result<String>) -> Result<Value> {
    let release = match wish.release {
        None if wish.rollback => Selector::Previous.to_string(),
        None | Some(Selector::Head) => head()?,
        Some(Selector::Previous) if !wish.rollback => {
            return usage("`previous` is for a rollback").hint("`cargo xtask ci trigger rollback ENV`").err();
        }
        Some(selector) => selector.to_string(),
    };
    let env = if wish.rollback { ROLLBACK_ENV } else { DEPLOY_ENV };
    let mut parameters = json!({ env: wish.env, RELEASE: release });
    if let Some(reason) = wish.reason {
        parameters[REASON] = reason.chars().take(VALUE_MAX).collect::<String>().into();
    }
    Ok(parameters)
}

/// The definition that runs our config; `None` where the project has none, as with GitHub's and Bitbucket's OAuth apps.
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
                .hint("say which: --definition ID")
                .err()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(rollback: bool, release: Option<&Selector>) -> TriggerRequest<'_> {
        TriggerRequest { rollback, env: "prod", release, reason: None, definition: None }
    }

    #[test]
    fn what_is_asked_for_is_said_exactly() {
        let text = |wish: &TriggerRequest| parameters(wish, &|| Ok("c0ffee".into())).map(|it| it.to_string());
        let build = Selector::Build(12);
        for (wish, want) in [
            (wish(false, None), r#"{"deploy-env":"prod","release":"c0ffee"}"#),
            (wish(false, Some(&Selector::Head)), r#"{"deploy-env":"prod","release":"c0ffee"}"#),
            (wish(false, Some(&Selector::Latest)), r#"{"deploy-env":"prod","release":"latest"}"#),
            (wish(false, Some(&build)), r#"{"deploy-env":"prod","release":"build:12"}"#),
            (wish(true, None), r#"{"release":"previous","rollback-env":"prod"}"#),
            (
                TriggerRequest { reason: Some("a price"), ..wish(true, Some(&build)) },
                r#"{"reason":"a price","release":"build:12","rollback-env":"prod"}"#,
            ),
        ] {
            assert_eq!(text(&wish).unwrap(), want);
        }
        assert!(text(&wish(false, Some(&Selector::Previous))).is_err());
    }

    #[test]
    fn the_definition_of_our_config() {
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
