//! CircleCI's API v2, and the one endpoint of v1.1 that v2 lacks.
//!
//! Facts missing in the official description: project tokens get a 404 on v2, a wrong token and a wrong slug look
//! alike, and lists have pages even if no parameter for them is documented.

pub mod model;

use crate::circleci::model::{
    Artifact, ContextVariable, Definition, EnvVar, Job, JobDetails, Listed, Page, Person, Pipeline, Project, Settings,
    Started, Workflow,
};
use crate::context::Context;
use crate::git;
use crate::http;
use crate::http::session::{NEW_TOKEN, Reply, Session, Want};
use crate::http::{Secret, Url, policy};
use gangplank_model::error::{CliError, Kind, Result, not_found, usage};
use gangplank_model::slug;
use gangplank_model::slug::{Slug, escape};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;

/// The maximum number of pages, to detect an endless list.
const PAGES_MAX: usize = 1000;
/// The maximum bytes: a manifest of a hundred thousand files has about 20 MiB.
const SMALL_MAX: u64 = gangplank_model::release::manifest::BYTES_MAX;

/// A CircleCI project.
pub struct CircleCi<'ctx> {
    session: Session<'ctx>,
    home: Url,
    slug: Slug,
}

/// The result of a trigger.
#[derive(Debug)]
pub enum Triggered {
    /// A pipeline was created.
    Started(Started),
    /// Nothing was created, for this reason; the API answers with 200.
    NotStarted(String),
}

/// The token for the API.
///
/// `CIRCLE_TOKEN` is the name that CircleCI's own tools use. Names from common shell recipes are accepted with a note.
/// CircleCI jobs have no token unless a context provides one.
pub fn token(ctx: &Context) -> Result<Secret> {
    let hint = "create a personal API token at https://app.circleci.com/settings/user/tokens and export CIRCLE_TOKEN, or \
                put it into the job's context";
    let Some(name) = token_name(ctx) else {
        let set = TOKENS.iter().find(|name| ctx.vars().contains_key(**name));
        let what = set.map_or("CIRCLE_TOKEN is not set".to_owned(), |name| format!("{name} is set, but empty"));
        return CliError::new(Kind::Auth, format!("CircleCI's API needs a token, but {what}")).hint(hint).err();
    };
    let token = ctx.var(name).unwrap_or_default().trim();
    if token.starts_with("CCIPRJ_") {
        return CliError::new(
            Kind::Auth,
            format!("{name} holds a project token (CCIPRJ_...), which API v2 does not accept"),
        )
        .hint(hint)
        .err();
    }
    if token.contains(|c: char| !c.is_ascii_graphic()) {
        return CliError::new(Kind::Auth, format!("{name} contains invalid characters, e.g. a space or a newline"))
            .hint(hint)
            .err();
    }
    if name != TOKENS[0] {
        ctx.note(format!("using the token in {name}; its usual name is {}", TOKENS[0]));
    }
    Ok(Secret::new(token))
}

const TOKENS: [&str; 3] = ["CIRCLE_TOKEN", "API_TOKEN", "ARTIFACT_TOKEN"];

fn token_name(ctx: &Context) -> Option<&'static str> {
    TOKENS.into_iter().find(|name| ctx.var(name).is_some_and(|token| !token.trim().is_empty()))
}

/// Whether there is a token, so that a store which may not be needed need not fail.
pub fn has_token(ctx: &Context) -> bool {
    token_name(ctx).is_some()
}

impl<'ctx> CircleCi<'ctx> {
    /// Opens the project of `CIRCLE_PROJECT_SLUG`, the project definition, or the git remote, in this order. Sends no
    /// request yet.
    pub fn open(ctx: &'ctx Context, stated: Option<&str>) -> Result<Self> {
        let token = token(ctx)?;
        let host = ctx.var("CIRCLE_HOST").unwrap_or("https://circleci.com").trim_end_matches('/');
        let home = http::url(&if host.contains("://") { host.to_owned() } else { format!("https://{host}") })?;
        if !home.username().is_empty() || home.password().is_some() {
            return usage("CIRCLE_HOST contains a user or a password, which the API does not accept")
                .hint("write only the host, such as https://circleci.com, and set CIRCLE_TOKEN")
                .err();
        }
        if !policy::is_secure(&home) {
            return usage(format!("CIRCLE_HOST={host} is neither https nor this machine"))
                .hint("write https://: the token is never sent unencrypted")
                .err();
        }
        let slug = match ctx.var("CIRCLE_PROJECT_SLUG").or(stated) {
            Some(slug) => Slug::parse(slug)?,
            None => git::remote(ctx).and_then(|url| Slug::of_remote(&url)).ok_or_else(slug::unknown)?,
        };
        Ok(Self { session: Session::new(ctx, &home, token)?, home, slug })
    }

    /// Its slug.
    pub fn slug(&self) -> &Slug {
        &self.slug
    }

    /// The user of the token.
    pub fn me(&self) -> Result<Person> {
        self.get("/me")
    }

    /// The settings of the project.
    pub fn settings(&self) -> Result<Settings> {
        self.get(&format!("/project/{}/settings", self.slug.path()))
    }

    /// Contexts of an organization.
    pub fn contexts(&self, organization: &str) -> Result<Vec<Listed>> {
        self.pages("/context".into(), vec![("owner-id", organization.to_owned())]).collect()
    }

    /// Names of the variables of a context.
    pub fn context_variables(&self, context: &str) -> Result<Vec<String>> {
        let all = self.pages(format!("/context/{}/environment-variable", escape(context)), vec![]);
        all.map(|it: Result<ContextVariable>| Ok(it?.variable)).collect()
    }

    /// Components of the project on the Deploys page.
    pub fn components(&self, project: &Project) -> Result<Vec<Listed>> {
        let organization = project.organization_id.clone().unwrap_or_default();
        let of = [("org-id", organization), ("project-id", project.id.clone()), ("page-size", "20".to_owned())];
        self.pages("/deploy/components".into(), of.to_vec()).collect()
    }

    /// The project.
    pub fn project(&self) -> Result<Project> {
        self.get(&format!("/project/{}", self.slug.path()))
    }

    /// Pipelines, newest first, fetched page by page; only those of `branch` if given.
    pub fn pipelines(&self, branch: &str) -> impl Iterator<Item = Result<Pipeline>> {
        self.pages(format!("/project/{}/pipeline", self.slug.path()), vec![("branch", branch.to_owned())])
    }

    /// A pipeline by its id.
    pub fn pipeline(&self, id: &str) -> Result<Pipeline> {
        self.get(&format!("/pipeline/{}", escape(id)))
    }

    /// A pipeline by its number.
    pub fn pipeline_by_number(&self, number: u64) -> Result<Pipeline> {
        self.get(&format!("/project/{}/pipeline/{number}", self.slug.path()))
    }

    /// Workflows of a pipeline, including reruns, newest first.
    pub fn workflows(&self, pipeline: &str) -> Result<Vec<Workflow>> {
        let all = self.pages(format!("/pipeline/{}/workflow", escape(pipeline)), vec![]);
        let mut all = all.collect::<Result<Vec<Workflow>>>()?;
        all.sort_by_key(|workflow| std::cmp::Reverse(workflow.created_at));
        Ok(all)
    }

    /// Jobs of a workflow.
    pub fn jobs(&self, workflow: &str) -> Result<Vec<Job>> {
        self.pages(format!("/workflow/{}/job", escape(workflow)), vec![]).collect()
    }

    /// A job by its number.
    pub fn job(&self, number: u64) -> Result<JobDetails> {
        self.get(&format!("/project/{}/job/{number}", self.slug.path()))
    }

    /// All artifacts of a job.
    pub fn artifacts(&self, job: u64) -> Result<Vec<Artifact>> {
        self.pages(format!("/project/{}/{job}/artifacts", self.slug.path()), vec![]).collect()
    }

    /// v1.1: the artifacts of the latest successful job on a branch. The answer does not name the job.
    pub fn latest_artifacts(&self, branch: &str) -> Result<Vec<Artifact>> {
        let path = format!("/api/v1.1/project/{}/latest/artifacts", self.slug.v1_path()?);
        let url = self.url(&path, &[("branch", branch.to_owned()), ("filter", "successful".to_owned())])?;
        self.read(&url, &self.session.call(&url, None, true)?)
    }

    /// A variable of the project, masked; `None` if missing.
    pub fn env_var(&self, name: &str) -> Result<Option<EnvVar>> {
        let url = self.v2(&format!("/project/{}/envvar/{}", self.slug.path(), escape(name)), &[])?;
        let reply = self.session.call(&url, None, true)?;
        if reply.status == 404 {
            // A missing project has the same answer; this request tells them apart.
            self.project()?;
            return Ok(None);
        }
        self.read(&url, &reply).map(Some)
    }

    /// Sets a variable of the project. The last writer wins: the API has no conditional write.
    pub fn set_env_var(&self, name: &str, value: &str) -> Result<EnvVar> {
        let url = self.v2(&format!("/project/{}/envvar", self.slug.path()), &[])?;
        let reply = self.session.call(&url, Some(&json!({ "name": name, "value": value })), true)?;
        self.read(&url, &reply)
    }

    /// Pipeline definitions of the project; empty if the server does not support them.
    pub fn definitions(&self) -> Result<Vec<Definition>> {
        let project = self.project()?;
        let path = format!("/projects/{}/pipeline-definitions", escape(&project.id));
        let all: Result<Vec<_>> = self.pages(path, vec![]).collect();
        match all {
            Err(error) if gangplank_model::error::kind_of(&error) == Kind::NotFound => Ok(vec![]),
            other => other,
        }
    }

    /// Starts a pipeline on a branch: by its definition if there is one, else by the older endpoint. Never retried
    /// after a lost answer, because a second pipeline would be a second deploy.
    pub fn trigger(&self, definition: Option<&str>, branch: &str, parameters: &Value) -> Result<Triggered> {
        let (path, body) = match definition {
            Some(id) => (
                format!("/project/{}/pipeline/run", self.slug.path()),
                json!({ "definition_id": id, "config": { "branch": branch }, "checkout": { "branch": branch }, "parameters": parameters }),
            ),
            None => (
                format!("/project/{}/pipeline", self.slug.path()),
                json!({ "branch": branch, "parameters": parameters }),
            ),
        };
        let url = self.v2(&path, &[])?;
        let reply = self.session.call(&url, Some(&body), false)?;
        if reply.status == 200 {
            return Ok(Triggered::NotStarted(message(&reply)));
        }
        self.read(&url, &reply).map(Triggered::Started)
    }

    /// Approves an approval job.
    pub fn approve(&self, workflow: &str, job: &str, request: &str) -> Result<()> {
        let url = self.v2(&format!("/workflow/{}/approve/{}", escape(workflow), escape(request)), &[])?;
        let reply = self.session.call(&url, Some(&Value::Null), true)?;
        let Err(refused) = self.read::<Value>(&url, &reply) else { return Ok(()) };
        // The answer to our first request may be lost, or another person approved first.
        let waits = |it: &Job| it.name == job && it.status == "on_hold";
        if self.jobs(workflow)?.iter().any(waits) { Err(refused) } else { Ok(()) }
    }

    /// A small file of a job.
    pub fn small_file(&self, artifact: &Artifact, what: &str) -> Result<Vec<u8>> {
        self.session.bytes(&http::url(&artifact.url)?, &Want { what, most: SMALL_MAX, exactly: None })
    }

    /// Downloads an artifact of known size and digest into a new file.
    pub fn file(&self, artifact: &Artifact, what: &str, (bytes, sha256): (u64, &str), path: &Path) -> Result<()> {
        let want = Want { what, most: bytes, exactly: Some((bytes, sha256)) };
        self.session.file(&http::url(&artifact.url)?, &want, path)
    }

    /// Downloads an artifact only to verify its size and digest.
    pub fn check_file(&self, artifact: &Artifact, what: &str, (bytes, sha256): (u64, &str)) -> Result<()> {
        let want = Want { what, most: bytes, exactly: Some((bytes, sha256)) };
        self.session.download(&http::url(&artifact.url)?, &want, &mut http::session::Destination::Nowhere).map(drop)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = self.v2(path, &[])?;
        self.read(&url, &self.session.call(&url, None, true)?)
    }

    fn v2(&self, path: &str, query: &[(&str, String)]) -> Result<Url> {
        self.url(&format!("/api/v2{path}"), query)
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> Result<Url> {
        let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        http::url(&format!("{}{path}{query}", self.home.as_str().trim_end_matches('/')))
    }

    /// The items of a list; requests the next page on demand.
    fn pages<T: DeserializeOwned>(
        &self,
        path: String,
        query: Vec<(&'static str, String)>,
    ) -> impl Iterator<Item = Result<T>> {
        let mut seen: Vec<String> = Vec::new();
        let mut next = Some(query.clone());
        let mut page = move || -> Result<Option<Vec<T>>> {
            let Some(asked) = next.take() else { return Ok(None) };
            let url = self.v2(&path, &asked)?;
            let Page { items, next_page_token } = self.read(&url, &self.session.call(&url, None, true)?)?;
            if let Some(token) = next_page_token.filter(|token| !token.is_empty()) {
                if seen.contains(&token) || seen.len() >= PAGES_MAX {
                    return CliError::new(Kind::Remote, format!("{path}: the answer has too many pages"))
                        .hint("see https://status.circleci.com, then run the same command again")
                        .err();
                }
                let mut query = query.clone();
                query.push(("page-token", token.clone()));
                seen.push(token);
                next = Some(query);
            }
            Ok(Some(items))
        };
        let mut failed = false;
        std::iter::from_fn(move || if failed { None } else { page().inspect_err(|_| failed = true).transpose() })
            .flat_map(|page| match page {
                Ok(items) => items.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
    }

    /// Parses an answer, or maps its status to an error.
    fn read<T: DeserializeOwned>(&self, url: &Url, reply: &Reply) -> Result<T> {
        let where_to = format!("{}{}", policy::origin(url), url.path());
        if !matches!(reply.status, 200..=202) {
            return Err(self.refused(&where_to, reply).into());
        }
        let wrong = |reason: &str| {
            CliError::new(Kind::Remote, format!("{where_to} answered {reason}: {}", start(&reply.body)))
                .hint("check that CIRCLE_HOST is a CircleCI server: its web pages and proxies answer HTML")
        };
        if reply.content_type.contains("html") {
            return wrong("HTML, not JSON").err();
        }
        serde_json::from_slice(&reply.body).map_err(|e| wrong(&format!("invalid JSON ({e})")).into())
    }

    fn refused(&self, where_to: &str, reply: &Reply) -> CliError {
        let said = message(reply);
        let text = format!("{where_to} answered {}: {said}", reply.status);
        match reply.status {
            401 => CliError::new(Kind::Auth, text).hint(NEW_TOKEN),
            403 => {
                CliError::new(Kind::Auth, text).hint("ask for write access to the project for the user of this token")
            }
            404 if said.contains("Project not found") => not_found(text).hint(format!(
                "check three causes: the slug {} is wrong (set CIRCLE_PROJECT_SLUG), the user of this token \
                 does not see the project, or the token is a project token",
                self.slug
            )),
            404 => not_found(text).hint("check the number or name"),
            _ => CliError::new(Kind::Remote, text).hint("see the message, or https://status.circleci.com for outages"),
        }
    }
}

/// The error message of CircleCI: `message`, or `error` in some of its services.
fn message(reply: &Reply) -> String {
    let value: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let said = ["error", "message"].iter().find_map(|name| value.get(name)?.as_str().map(str::to_owned));
    said.unwrap_or_else(|| start(&reply.body))
}

/// The first line of a body, for messages.
fn start(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim();
    line.chars().filter(|c| !c.is_control()).take(120).collect()
}
