//! Holds `ci::loopback` to CircleCI's own specification: every answer of every route of API v2, good or bad, and every
//! body that our client sends, against the schemas in the `OpenAPI` document that `GANGPLANK_CIRCLECI_OPENAPI` names.

use crate::ci::loopback::{HttpReply, TOKEN, ask, get, post, state};
use crate::record::skip;
use gangplank_loopback::{JobStatus, Logged, Loopback, WorkflowStatus};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::process::Command;

const SLUG: &str = "gh/acme/shop";
const APP_SLUG: &str = "circleci/43G3lM5RtfFE7v5sa4nWAU/44n9wujWcTnVZ2b5S8Fnat";

/// One JSON value and where the specification has its schema.
#[derive(Clone)]
struct Instance {
    /// `GET /me 200`, or `POST ... body`.
    what: String,
    schema: Value,
    value: Value,
}

/// The specification and the validator, or why not.
fn tools() -> Option<(Value, OsString)> {
    let Some(openapi) = std::env::var_os("GANGPLANK_CIRCLECI_OPENAPI") else {
        skip("conformance: GANGPLANK_CIRCLECI_OPENAPI names no openapi-v2.json");
        return None;
    };
    let Some(validator) = std::env::var_os("GANGPLANK_CHECK_JSONSCHEMA") else {
        skip("conformance: check-jsonschema is not installed (python3 and PyPI bring it with `cargo xtask test`)");
        return None;
    };
    let text = fs::read_to_string(&openapi).unwrap_or_else(|e| panic!("{}: {e}", openapi.display()));
    Some((serde_json::from_str(&text).unwrap(), validator))
}

/// `OpenAPI` 3.0 as JSON Schema: `nullable` is a type of its own there, and components lie elsewhere.
fn converted(schema: &Value) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(converted).collect(),
        Value::Object(object) => {
            if let Some(Value::String(to)) = object.get("$ref") {
                return json!({ "$ref": to.replace("#/components/", "#/definitions/") });
            }
            let kept = object.iter().filter(|(key, _)| !key.starts_with("x-") && !is_prose(key, &object[*key]));
            let plain: Value = kept.map(|(key, value)| (key.clone(), converted(value))).collect();
            let nullable = ["nullable", "x-nullable"].iter().any(|key| object.get(*key) == Some(&json!(true)));
            if nullable { json!({ "anyOf": [{ "type": "null" }, plain] }) } else { plain }
        }
        other => other.clone(),
    }
}

/// What is for readers. As the name of a property it has an object.
fn is_prose(key: &str, value: &Value) -> bool {
    match key {
        "description" | "title" => value.is_string(),
        "example" | "nullable" => !value.as_object().is_some_and(|it| it.contains_key("type")),
        _ => false,
    }
}

/// Follows a `$ref` of the document itself, as answers use it.
fn resolved<'a>(openapi: &'a Value, it: &'a Value) -> &'a Value {
    match it.get("$ref").and_then(Value::as_str) {
        Some(to) => openapi.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("no {to}")),
        None => it,
    }
}

fn schema_of(content: &Value) -> Value {
    let schema = content.pointer("/content/application~1json/schema").expect("a schema");
    converted(schema)
}

fn operation<'a>(openapi: &'a Value, method: &str, route: &str) -> &'a Value {
    let found = openapi["paths"].get(route).and_then(|path| path.get(method.to_ascii_lowercase()));
    found.unwrap_or_else(|| panic!("the specification has no {method} {route}"))
}

/// Some operations do not say how they refuse a token.
fn says_nothing_of_tokens(openapi: &Value, method: &str, route: &str) -> bool {
    let responses = &operation(openapi, method, route)["responses"];
    ["401", "default"].iter().all(|status| responses.get(status).is_none())
}

/// The schema of an answer: that of its status, or the default one.
fn of_answer(openapi: &Value, it: &Logged) -> Option<Instance> {
    let (route, value) = (it.route?, it.body.clone().unwrap_or_else(|| panic!("{} {}: no JSON", it.method, it.path)));
    let responses = &operation(openapi, &it.method, route)["responses"];
    let known = responses.get(it.status.to_string()).or_else(|| responses.get("default"));
    if known.is_none() && says_nothing_of_tokens(openapi, &it.method, route) && it.status == 401 {
        return None;
    }
    let known = known.unwrap_or_else(|| panic!("{} {route} has no {}", it.method, it.status));
    let schema = schema_of(resolved(openapi, known));
    Some(Instance { what: format!("{} {route} {}", it.method, it.status), schema, value })
}

fn of_body(openapi: &Value, route: &str, value: Value) -> Instance {
    let schema = schema_of(&operation(openapi, "POST", route)["requestBody"]);
    Instance { what: format!("POST {route} body"), schema, value }
}

/// Validates all in one call, because starting the validator is most of it: each value becomes `{what: value}`, and the
/// schema has a property for each `what`. Gives what it said of each that does not fit.
fn refused(openapi: &Value, validator: &OsString, instances: &[Instance]) -> Vec<String> {
    let dir = crate::record::tempdir();
    let properties: Value = instances.iter().map(|it| (it.what.clone(), it.schema.clone())).collect();
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": { "schemas": converted(&openapi["components"]["schemas"]) },
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    let path = dir.path().join("schema.json");
    fs::write(&path, schema.to_string()).unwrap();
    let mut command = Command::new(validator);
    command.args(["--output-format", "json", "--schemafile"]).arg(path);
    let file = |n: usize| dir.path().join(format!("{n}.json")).display().to_string();
    for (n, it) in instances.iter().enumerate() {
        fs::write(file(n), json!({ it.what.as_str(): it.value }).to_string()).unwrap();
        command.arg(file(n));
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    let errors = said["errors"].as_array().unwrap_or_else(|| panic!("{text}"));
    assert_eq!(output.status.success(), errors.is_empty(), "{text}");
    let of = |n: usize| errors.iter().find(|error| error["filename"] == json!(file(n)));
    let refused = instances.iter().enumerate().filter_map(|(n, it)| Some(format!("{}: {}", it.what, of(n)?)));
    refused.collect()
}

/// Every route, asked in every way that gives another kind of answer.
fn exercise(it: &Loopback, slug: &str) {
    let project = format!("/api/v2/project/{slug}");
    let (pipeline, workflow, hold, build, definition, project_id) = populate(it);
    let unknown = it.state().uuid();
    let body = |value: Value| Some(value);
    let posts = [
        (format!("{project}/envvar"), body(json!({ "name": "POINTER", "value": "12345" }))),
        (format!("{project}/envvar"), body(json!({ "name": 1 }))),
        (format!("{project}/envvar"), None),
        (format!("{project}/pipeline"), body(json!({ "branch": "main", "parameters": { "deploy": true } }))),
        (format!("{project}/pipeline"), body(json!({ "parameters": { "what": 1 } }))),
        (
            format!("{project}/pipeline/run"),
            body(json!({ "definition_id": definition, "checkout": { "branch": "main" } })),
        ),
        (format!("{project}/pipeline/run"), body(json!({ "definition_id": unknown }))),
        (format!("{project}/pipeline/run"), body(json!({ "what": unknown }))),
        (format!("{project}/pipeline/run"), None),
        (format!("/api/v2/workflow/{workflow}/approve/{hold}"), None),
        (format!("/api/v2/workflow/{workflow}/approve/{hold}"), None),
        (format!("/api/v2/workflow/{workflow}/approve/{unknown}"), None),
    ];
    for path in gets(it, &project, [&pipeline, &workflow, &build, &project_id]) {
        get(it, &path);
        ask(&it.url(), &format!("GET {path}"), &["Authorization: Bearer wrong"], None);
    }
    for (path, body) in &posts {
        post(it, path, body.as_ref());
        ask(&it.url(), &format!("POST {path}"), &[], body.as_ref());
    }
    it.state().skip_ci = true;
    post(it, &format!("{project}/pipeline/run"), Some(&json!({ "definition_id": definition })));
    for path in [format!("{project}/envvar"), format!("{project}/envvar/POINTER"), format!("{project}/pipeline")] {
        get(it, &path);
    }
    for path in [format!("/api/v2/workflow/{workflow}/cancel"), format!("/api/v2/workflow/{unknown}/cancel")] {
        post(it, &path, None);
        ask(&it.url(), &format!("POST {path}"), &[], None);
    }
    for token in ["wrong", TOKEN, TOKEN] {
        let header = format!("Authorization: Bearer {token}");
        ask(&it.url(), &format!("DELETE {project}/envvar/POINTER"), &[&header], None);
    }
}

/// Paths that are asked with a good and with a wrong token.
fn gets(it: &Loopback, project: &str, [pipeline, workflow, build, project_id]: [&str; 4]) -> Vec<String> {
    let unknown = it.state().uuid();
    let mut paths: Vec<_> = ["", "/envvar", "/envvar/NONE", "/1/artifacts", "/2/artifacts", "/9/artifacts"]
        .iter()
        .chain(&["/job/1", "/job/9", "/pipeline", "/pipeline?page-token=x", "/pipeline?branch=main", "/pipeline/1"])
        .chain(&["/pipeline/99", "/envvar?page-token=x"])
        .map(|rest| format!("{project}{rest}"))
        .collect();
    paths.extend(["me".to_owned(), "project/gh/not/there".to_owned()].map(|rest| format!("/api/v2/{rest}")));
    for id in [pipeline, &unknown] {
        paths.extend([format!("/api/v2/pipeline/{id}"), format!("/api/v2/pipeline/{id}/workflow")]);
    }
    for id in [workflow, &unknown, "x"] {
        paths.extend([format!("/api/v2/workflow/{id}"), format!("/api/v2/workflow/{id}/job")]);
    }
    paths.extend([build, &unknown].map(|id| format!("/api/v2/jobs/{id}")));
    paths.extend([project_id, &unknown].map(|id| format!("/api/v2/projects/{id}/pipeline-definitions")));
    paths.extend([format!("{project}/settings"), "/api/v2/project/gh/not/there/settings".into()]);
    let organization = it.state().organization_id.clone();
    for id in [&organization, &unknown] {
        paths.push(format!("/api/v2/context?owner-id={id}"));
        paths.push(format!("/api/v2/deploy/components?org-id={id}&page-size=20"));
    }
    let contexts = get(it, &paths[paths.len() - 4]).json();
    let context = contexts["items"][0]["id"].as_str().unwrap();
    paths.extend([context, &unknown].map(|id| format!("/api/v2/context/{id}/environment-variable")));
    paths
}

/// A pipeline with a workflow in all states: its UUID, those of a workflow, an approval, a job, a definition, the project.
fn populate(it: &Loopback) -> (String, String, String, String, String, String) {
    let mut state = it.state();
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    state.contexts.insert("shop-dev".into(), vec!["KEY".into(), "OTHER".into()]);
    state.components.push("shop".into());
    for n in 0..3 {
        state.push("main", &format!("c0ffee{n}"), now);
    }
    let pipeline = state.push("main", "c0ffee", now);
    let workflow = state.add_workflow(&pipeline, "ship");
    let (build, deploy) = (state.add_job(&workflow, "build", &[]), state.add_job(&workflow, "deploy", &["build"]));
    let number = state.start_job(&build);
    state.store_artifact(number, "app.tar.gz", 0, "/nowhere".into());
    state.end_job(&build, JobStatus::Success);
    state.start_job(&deploy);
    let hold = state.add_approval(&workflow, "hold", &["build"]);
    state.hold(&hold);
    let failed = state.add_workflow(&pipeline, "other");
    let job = state.add_job(&failed, "check", &[]);
    state.start_job(&job);
    state.end_job(&job, JobStatus::TerminatedUnknown);
    state.set_workflow_status(&failed, WorkflowStatus::Failed);
    state.rerun_from_failed(&failed);
    (pipeline, workflow, hold, build, state.definitions[0].id.clone(), state.project_id.clone())
}

#[test]
fn answers_and_bodies_are_as_specified() {
    let Some((openapi, validator)) = tools() else { return };
    let mut instances = Vec::new();
    for slug in [SLUG, APP_SLUG] {
        let mut its = state(slug);
        its.page_size = 3;
        let it = Loopback::start(its).unwrap();
        exercise(&it, slug);
        instances.extend(it.log().iter().filter_map(|logged| of_answer(&openapi, logged)));
    }
    let bodies = [
        ("/project/{project-slug}/envvar", json!({ "name": "LATEST", "value": "1" })),
        ("/project/{project-slug}/pipeline", json!({ "branch": "main", "parameters": { "release": "x" } })),
        (
            "/project/{provider}/{organization}/{project}/pipeline/run",
            json!({
                "definition_id": "0d6d5b5a-0000-4000-a000-000000000000",
                "config": { "branch": "main" },
                "checkout": { "branch": "main" },
                "parameters": { "release": "x" },
            }),
        ),
    ];
    instances.extend(bodies.into_iter().map(|(route, value)| of_body(&openapi, route, value)));
    for (method, route) in Loopback::routes() {
        let has = |statuses: &[&str]| {
            statuses.iter().any(|status| instances.iter().any(|it| it.what == format!("{method} {route} {status}")))
        };
        assert!(has(&["200", "201", "202"]), "{method} {route} never succeeded");
        let refuses = has(&["401"]) || says_nothing_of_tokens(&openapi, method, route);
        assert!(refuses && (route == "/me" || has(&["400", "404"])), "{method} {route} never failed");
    }
    let refused = refused(&openapi, &validator, &instances);
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn schema_check_of_wrong_answers_and_bodies_refuses_each() {
    let Some((openapi, validator)) = tools() else { return };
    let it = Loopback::start(state(SLUG)).unwrap();
    let project: fn(&Loopback) -> HttpReply = |it| get(it, "/api/v2/project/gh/acme/shop");
    project(&it);
    let (_, workflow, ..) = populate(&it);
    get(&it, &format!("/api/v2/workflow/{workflow}"));
    let log = it.log();
    let good: Vec<_> = log.iter().filter_map(|logged| of_answer(&openapi, logged)).collect();
    assert_eq!(refused(&openapi, &validator, &good), [""; 0]);
    let wrong = |n: usize, name: &str, value: Value| {
        let mut it: Instance = good[n].clone();
        it.value[name] = value;
        it
    };
    let table = [
        wrong(0, "id", json!("no-uuid")),
        wrong(0, "name", Value::Null),
        wrong(0, "vcs_info", json!({ "provider": "GitLab", "vcs_url": "", "default_branch": "" })),
        wrong(1, "status", json!("fine")),
        wrong(1, "created_at", json!("yesterday")),
        wrong(1, "surplus", json!(1)),
        of_body(&openapi, "/project/{provider}/{organization}/{project}/pipeline/run", json!({ "ref": "main" })),
        of_body(&openapi, "/project/{project-slug}/envvar", json!({ "name": "A" })),
    ];
    let refused = refused(&openapi, &validator, &table);
    assert_eq!(refused.len(), table.len(), "{}", refused.join("\n"));
}
