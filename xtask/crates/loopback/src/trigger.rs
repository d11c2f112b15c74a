//! The two routes that start a pipeline, and the definitions used by the newer one.

use crate::call::{Call, Handled, is_project};
use crate::message::Reply;
use crate::mock_state::MockState;
use gangplank_model::error::Result;
use serde_json::{Map, Value, json};

const PARAMETERS_MAX: usize = 100;
const NAME_MAX: usize = 128;
const VALUE_MAX: usize = 512;

pub(super) fn definitions(call: &mut Call) -> Handled {
    let state = &call.state;
    if call.params[0] != state.project_id {
        return Err(Reply::message(404, "Project does not exist."));
    }
    let repository = json!({
        "full_name": format!("{}/{}", state.organization_name, state.project_name),
        "external_id": "1",
    });
    let items = state.definitions.iter().map(|it| {
        json!({
            "id": it.id,
            "name": it.name,
            "description": "",
            "created_at": it.created_at,
            "config_source": { "provider": it.provider, "file_path": it.file_path, "repo": repository },
            "checkout_source": { "provider": it.provider, "repo": repository },
        })
    });
    Ok(Reply::json(200, json!({ "items": items.collect::<Vec<_>>() })))
}

/// `POST /project/{project-slug}/pipeline`.
pub(super) fn superseded(call: &mut Call) -> Handled {
    if call.state.app_style {
        return Err(Reply::message(400, "This project has to be triggered with /pipeline/run."));
    }
    // According to the specification, null equals an empty body.
    let nothing = call.request.body.is_empty() || call.request.body == b"null";
    let body = if nothing { Map::new() } else { call.object()? };
    let parameters = parameters(call.state, body.get("parameters"))?;
    let source = Source::of(call.state, Some(&body))?;
    Ok(start(call.state, source, parameters))
}

/// `POST /project/{provider}/{organization}/{project}/pipeline/run`.
pub(super) fn run(call: &mut Call) -> Handled {
    // On this route the three parts are encoded separately; an encoded slug is not found.
    if call.request.raw_path.to_ascii_lowercase().contains("%2f") {
        return Err(Reply::message(404, "Not found."));
    }
    is_project(call.state, &call.params.join("/"))?;
    let body = call.object()?;
    only(&body, &["definition_id", "config", "checkout", "parameters"])?;
    let Some(definition) = body.get("definition_id").and_then(Value::as_str) else {
        return Err(Reply::message(400, "Missing one or more JSON fields."));
    };
    if !call.state.definitions.iter().any(|it| it.id == definition) {
        return Err(Reply::message(404, "Pipeline definition not found."));
    }
    let part = |name: &str| match body.get(name) {
        None => Ok(None),
        Some(Value::Object(part)) => only(part, &["branch", "tag"]).map(|()| Some(part)),
        Some(_) => Err(wrong_type(name)),
    };
    let (config, checkout) = (part("config")?, part("checkout")?);
    let parameters = parameters(call.state, body.get("parameters"))?;
    Source::of(call.state, config)?;
    let source = Source::of(call.state, checkout)?;
    if call.state.skip_ci {
        return Ok(Reply::message(200, "Ignoring pipeline due to CI skip in the commit"));
    }
    Ok(start(call.state, source, parameters))
}

/// The source of a pipeline.
struct Source {
    branch: Option<String>,
    tag: Option<String>,
    revision: String,
}

impl Source {
    /// `{"branch": ...}` or `{"tag": ...}`; the default branch if empty.
    fn of(state: &MockState, object: Option<&Map<String, Value>>) -> Result<Self, Reply> {
        let text = |name: &str| match object.and_then(|object| object.get(name)) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong_type(name)),
        };
        let (branch, tag) = match (text("branch")?, text("tag")?) {
            (Some(_), Some(_)) => return Err(Reply::message(400, "Give a branch or a tag, not both.")),
            (None, None) => (Some(state.default_branch.clone()), None),
            one => one,
        };
        let revision = match (&branch, &tag) {
            (Some(branch), _) => state.branches.get(branch),
            (None, Some(tag)) => state.tags.get(tag),
            (None, None) => None,
        };
        let Some(revision) = revision.cloned() else {
            return Err(Reply::message(400, if tag.is_some() { "Tag not found" } else { "Branch not found" }));
        };
        Ok(Self { branch, tag, revision })
    }
}

fn start(state: &mut MockState, source: Source, parameters: Map<String, Value>) -> Reply {
    let now = state.now();
    let id = state.add_pipeline(source.branch, source.tag, &source.revision, now, Some(parameters));
    let number = state.pipelines.len();
    Reply::json(201, json!({ "id": id, "number": number, "state": "created", "created_at": now }))
}

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), Reply> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Reply::message(400, format!("Unexpected JSON field '{name}'."))),
        None => Ok(()),
    }
}

fn wrong_type(name: &str) -> Reply {
    Reply::message(400, format!("JSON field '{name}' is of incorrect type."))
}

/// Parameters declared in the config, with documented types and limits.
fn parameters(state: &MockState, given: Option<&Value>) -> Result<Map<String, Value>, Reply> {
    let given = match given {
        None => return Ok(Map::new()),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(wrong_type("parameters")),
    };
    if given.len() > PARAMETERS_MAX {
        return Err(Reply::message(400, format!("More than {PARAMETERS_MAX} parameters.")));
    }
    let undeclared: Vec<_> = given.keys().filter(|name| !state.parameters_declared.contains(name)).collect();
    if !undeclared.is_empty() {
        let names = undeclared.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Reply::message(400, format!("Unexpected argument(s): {names}")));
    }
    for (name, value) in given {
        let fits = match value {
            Value::String(text) => text.chars().count() <= VALUE_MAX,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::Bool(_) => true,
            _ => false,
        };
        if !fits || name.chars().count() > NAME_MAX {
            return Err(wrong_type(name));
        }
    }
    Ok(given.clone())
}
