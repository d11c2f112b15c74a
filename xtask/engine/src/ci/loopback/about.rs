//! What the API tells about a project beside its pipelines: its settings, the contexts of its organization, and what the
//! Deploys page knows.

use super::api::{Answer, Call, is_project};
use super::http::Reply;
use super::world::World;
use crate::release::digest;
use jiff::Timestamp;
use serde_json::{Value, json};

/// When everything in here was made.
const MADE: Timestamp = Timestamp::constant(1_780_000_000, 0);

pub(super) fn settings(call: &mut Call) -> Answer {
    is_project(call.world, &call.params[..3].join("/"))?;
    let it = &call.world.settings;
    let advanced = json!({
        "autocancel_builds": it.autocancel_builds,
        "build_fork_prs": it.build_fork_prs,
        "build_prs_only": false,
        "disable_ssh": false,
        "forks_receive_secret_env_vars": it.forks_receive_secret_env_vars,
        "oss": false,
        "pr_only_branch_overrides": [call.world.default_branch],
        "set_github_status": true,
        "setup_workflows": false,
        "write_settings_requires_admin": true,
    });
    Ok(Reply::json(200, json!({ "advanced": advanced })))
}

/// The same in every run, and another for each name.
fn id(kind: &str, name: &str) -> String {
    let hex = digest::of(format!("{kind} {name}").as_bytes());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

fn is_ours(world: &World, owner: Option<&String>) -> bool {
    owner == Some(&world.organization_id)
}

pub(super) fn contexts(call: &mut Call) -> Answer {
    if !is_ours(call.world, call.request.query.get("owner-id")) {
        return Err(Reply::message(404, "Organization not found."));
    }
    let one = |name: &String| {
        let id = id("context", name);
        (id.clone(), json!({ "id": id, "name": name, "created_at": MADE }))
    };
    call.page(call.world.contexts.keys().map(one).collect())
}

pub(super) fn context_variables(call: &mut Call) -> Answer {
    let asked = &call.params[0];
    let found = call.world.contexts.iter().find(|(name, _)| id("context", name) == *asked);
    let Some((_, variables)) = found else { return Err(Reply::message(404, "Context not found.")) };
    let one = |name: &String| {
        (name.clone(), json!({ "variable": name, "context_id": asked, "created_at": MADE, "updated_at": MADE }))
    };
    call.page(variables.iter().map(one).collect())
}

pub(super) fn components(call: &mut Call) -> Answer {
    if !is_ours(call.world, call.request.query.get("org-id")) || !call.request.query.contains_key("page-size") {
        return Err(Reply::message(400, "Unexpected request body provided."));
    }
    let project = call.world.project_id.clone();
    let one = |name: &String| -> (String, Value) {
        let it = json!({
            "id": id("component", name), "name": name, "project_id": project, "labels": [], "release_count": 1,
            "created_at": MADE, "updated_at": MADE,
        });
        (name.clone(), it)
    };
    call.page(call.world.components.iter().map(one).collect())
}
