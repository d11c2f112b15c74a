//! The API's answers about a project: settings, contexts of its organization, and components of the Deploys page.

use crate::call::{Call, Handled, is_project};
use crate::message::Reply;
use crate::mock_state::MockState;
use gangplank_model::release::digest;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The creation time of everything here.
const MADE: Timestamp = Timestamp::constant(1_780_000_000, 0);

pub(super) fn settings(call: &mut Call) -> Handled {
    is_project(call.state, &call.params[..3].join("/"))?;
    let it = &call.state.settings;
    let advanced = json!({
        "autocancel_builds": it.autocancel_builds,
        "build_fork_prs": it.build_fork_prs,
        "build_prs_only": false,
        "disable_ssh": false,
        "forks_receive_secret_env_vars": it.forks_receive_secret_env_vars,
        "oss": false,
        "pr_only_branch_overrides": [call.state.default_branch],
        "set_github_status": true,
        "setup_workflows": false,
        "write_settings_requires_admin": true,
    });
    Ok(Reply::json(200, json!({ "advanced": advanced })))
}

/// An id, constant per name.
fn id(kind: &str, name: &str) -> String {
    let hex = digest::of(format!("{kind} {name}").as_bytes());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

fn is_ours(state: &MockState, owner: Option<&String>) -> bool {
    owner == Some(&state.organization_id)
}

pub(super) fn contexts(call: &mut Call) -> Handled {
    if !is_ours(call.state, call.request.query.get("owner-id")) {
        return Err(Reply::message(404, "Organization not found."));
    }
    let one = |name: &String| {
        let id = id("context", name);
        (id.clone(), json!({ "id": id, "name": name, "created_at": MADE }))
    };
    call.page(call.state.contexts.keys().map(one).collect())
}

pub(super) fn context_variables(call: &mut Call) -> Handled {
    let asked = &call.params[0];
    let found = call.state.contexts.iter().find(|(name, _)| id("context", name) == *asked);
    let Some((_, variables)) = found else { return Err(Reply::message(404, "Context not found.")) };
    let one = |name: &String| {
        (name.clone(), json!({ "variable": name, "context_id": asked, "created_at": MADE, "updated_at": MADE }))
    };
    call.page(variables.iter().map(one).collect())
}

pub(super) fn components(call: &mut Call) -> Handled {
    if !is_ours(call.state, call.request.query.get("org-id")) || !call.request.query.contains_key("page-size") {
        return Err(Reply::message(400, "Unexpected request body provided."));
    }
    let project = call.state.project_id.clone();
    let one = |name: &String| -> (String, Value) {
        let it = json!({
            "id": id("component", name), "name": name, "project_id": project, "labels": [], "release_count": 1,
            "created_at": MADE, "updated_at": MADE,
        });
        (name.clone(), it)
    };
    call.page(call.state.components.iter().map(one).collect())
}
