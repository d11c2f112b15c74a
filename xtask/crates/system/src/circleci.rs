//! CircleCI's API, v2 and the one endpoint of v1.1 that v2 lacks: questions in, values out.
//!
//! The facts that are not in the official description: project tokens get a 404 on v2, a wrong token and a wrong slug
//! look alike, and lists have pages even where no parameter for them is described.

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

/// More pages than any project of a human size has; beyond, something is wrong.
const PAGES_MAX: usize = 1000;
/// A manifest of a hundred thousand files is about 20 MiB.
const SMALL_MAX: u64 = gangplank_model::release::manifest::BYTES_MAX;

/// A project on a CircleCI.
pub struct CircleCi<'ctx> {
    session: Session<'ctx>,
    home: Url,
    slug: Slug,
}

/// What a trigger came to.
#[derive(Debug)]
pub enum Triggered {
    /// A pipeline was made.
    Started(Started),
    /// Nothing was made, for this reason: the API says so with a 200.
    NotStarted(String),
}

/// The token for the API.
///
/// `CIRCLE_TOKEN` is what CircleCI's own tools read. The names that shell recipes use are taken too, with a word about
/// it. In CircleCI's jobs there is none unless a context brings it.
pub fn token(ctx: &Context) -> Result<Secret> {
    let hint = "make a personal API token at https://app.circleci.com/settings/user/tokens and export CIRCLE_TOKEN, or \
                put it into the job's context";
    let Some(name) = token_name(ctx) else {
        let set = TOKENS.iter().find(|name| ctx.vars().contains_key(**name));
        let what = set.map_or("CIRCLE_TOKEN is not set".to_owned(), |name| format!("{name} is set, but empty"));
        return CliError::new(Kind::Auth, format!("CircleCI's API needs a token, and {what}")).hint(hint).err();
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
        return CliError::new(
            Kind::Auth,
            format!("{name} holds characters that no token has: a space, a newline in it?"),
        )
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

/// Whether there is a token at all, so that a store which may not be needed need not fail.
pub fn has_token(ctx: &Context) -> bool {
    token_name(ctx).is_some()
}

impl<'ctx> CircleCi<'ctx> {
    /// Opens the project: `CIRCLE_PROJECT_SLUG`, else the slug that the project states, else that of the git remote.
    /// Nothing is asked yet.
    pub fn open(ctx: &'ctx Context, stated: Option<&str>) -> Result<Self> {
        let token = token(ctx)?;
        let host = ctx.var("CIRCLE_HOST").unwrap_or("https://circleci.com").trim_end_matches('/');
        let home = http::url(&if host.contains("://") { host.to_owned() } else { format!("https://{host}") })?;
        if !home.username().is_empty() || home.password().is_some() {
            return usage("CIRCLE_HOST has a user or a password in it, and the API takes neither")
                .hint("write the host alone, such as https://circleci.com, and set CIRCLE_TOKEN")
                .err();
        }
        if !policy::is_secure(&home) {
            return usage(format!("CIRCLE_HOST={host} is neither https nor this machine"))
                .hint("the token is not sent in the clear: write https://")
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

    /// Whose token it is.
    pub fn me(&self) -> Result<Person> {
        self.get("/me")
    }

    /// What people have set for the project.
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

    /// What the Deploys page has heard of from this project.
    pub fn components(&self, project: &Project) -> Result<Vec<Listed>> {
        let organization = project.organization_id.clone().unwrap_or_default();
        let of = [("org-id", organization), ("project-id", project.id.clone()), ("page-size", "20".to_owned())];
        self.pages("/deploy/components".into(), of.to_vec()).collect()
    }

    /// The project itself.
    pub fn project(&self) -> Result<Project> {
        self.get(&format!("/project/{}", self.slug.path()))
    }

    /// Pipelines, the newest first, page by page; only of `branch` when given.
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

    /// Workflows of a pipeline, reruns included, the newest first.
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

    /// Everything that a job stored, all pages.
    pub fn artifacts(&self, job: u64) -> Result<Vec<Artifact>> {
        self.pages(format!("/project/{}/{job}/artifacts", self.slug.path()), vec![]).collect()
    }

    /// v1.1: what the latest successful job on a branch stored. Which job that was, the answer does not say.
    pub fn latest_artifacts(&self, branch: &str) -> Result<Vec<Artifact>> {
        let path = format!("/api/v1.1/project/{}/latest/artifacts", self.slug.v1_path()?);
        let url = self.url(&path, &[("branch", branch.to_owned()), ("filter", "successful".to_owned())])?;
        self.read(&url, &self.session.call(&url, None, true)?)
    }

    /// A variable of the project, masked; `None` when there is none.
    pub fn env_var(&self, name: &str) -> Result<Option<EnvVar>> {
        let url = self.v2(&format!("/project/{}/envvar/{}", self.slug.path(), escape(name)), &[])?;
        let reply = self.session.call(&url, None, true)?;
        if reply.status == 404 {
            // The same answer as for a project that is not there: that question settles it.
            self.project()?;
            return Ok(None);
        }
        self.read(&url, &reply).map(Some)
    }

    /// Sets a variable of the project, new or not. Last writer wins: the API has no precondition.
    pub fn set_env_var(&self, name: &str, value: &str) -> Result<EnvVar> {
        let url = self.v2(&format!("/project/{}/envvar", self.slug.path()), &[])?;
        let reply = self.session.call(&url, Some(&json!({ "name": name, "value": value })), true)?;
        self.read(&url, &reply)
    }

    /// Pipeline definitions of the project; none where the server knows no such thing.
    pub fn definitions(&self) -> Result<Vec<Definition>> {
        let project = self.project()?;
        let path = format!("/projects/{}/pipeline-definitions", escape(&project.id));
        let all: Result<Vec<_>> = self.pages(path, vec![]).collect();
        match all {
            Err(error) if gangplank_model::error::kind_of(&error) == Kind::NotFound => Ok(vec![]),
            other => other,
        }
    }

    /// Starts a pipeline on a branch: by its definition where there is one, else by the endpoint that it superseded.
    /// Neither is repeated when an answer is lost, because a second pipeline would be a second deploy.
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

    /// Says yes to an approval job.
    pub fn approve(&self, workflow: &str, job: &str, request: &str) -> Result<()> {
        let url = self.v2(&format!("/workflow/{}/approve/{}", escape(workflow), escape(request)), &[])?;
        let reply = self.session.call(&url, Some(&Value::Null), true)?;
        let Err(refused) = self.read::<Value>(&url, &reply) else { return Ok(()) };
        // The answer to a first yes may have been lost, or somebody else was faster.
        let waits = |it: &Job| it.name == job && it.status == "on_hold";
        if self.jobs(workflow)?.iter().any(waits) { Err(refused) } else { Ok(()) }
    }

    /// A small file of a job.
    pub fn small_file(&self, artifact: &Artifact, what: &str) -> Result<Vec<u8>> {
        self.session.bytes(&http::url(&artifact.url)?, &Want { what, most: SMALL_MAX, exactly: None })
    }

    /// A file of a job of which size and digest are known, into a new file.
    pub fn file(&self, artifact: &Artifact, what: &str, (bytes, sha256): (u64, &str), path: &Path) -> Result<()> {
        let want = Want { what, most: bytes, exactly: Some((bytes, sha256)) };
        self.session.file(&http::url(&artifact.url)?, &want, path)
    }

    /// Downloads a file only to see that it has this size and digest.
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

    /// The items of a list, asking for the next page when the last one is used up.
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
                    return CliError::new(Kind::Remote, format!("{path}: the pages of the answer have no end"))
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

    /// The value of an answer, or what the status means.
    fn read<T: DeserializeOwned>(&self, url: &Url, reply: &Reply) -> Result<T> {
        let where_to = format!("{}{}", policy::origin(url), url.path());
        if !matches!(reply.status, 200..=202) {
            return Err(self.refused(&where_to, reply).into());
        }
        let wrong = |reason: &str| {
            CliError::new(Kind::Remote, format!("{where_to} answered {reason}: {}", start(&reply.body)))
                .hint("is CIRCLE_HOST a CircleCI? Its pages for people answer HTML; proxies do too")
        };
        if reply.content_type.contains("html") {
            return wrong("a page of HTML, not JSON").err();
        }
        serde_json::from_slice(&reply.body).map_err(|e| wrong(&format!("what we do not understand ({e})")).into())
    }

    fn refused(&self, where_to: &str, reply: &Reply) -> CliError {
        let said = message(reply);
        let text = format!("{where_to} answered {}: {said}", reply.status);
        match reply.status {
            401 => CliError::new(Kind::Auth, text).hint(NEW_TOKEN),
            403 => CliError::new(Kind::Auth, text)
                .hint("the person of this token may not do that: ask for write access to the project"),
            404 if said.contains("Project not found") => not_found(text).hint(format!(
                "three things look like this: the slug {} is wrong (set CIRCLE_PROJECT_SLUG), the person of this token \
                 does not see the project, or the token is a project token",
                self.slug
            )),
            404 => not_found(text).hint("check the number or name that you gave"),
            _ => {
                CliError::new(Kind::Remote, text).hint("see the message; https://status.circleci.com tells of outages")
            }
        }
    }
}

/// CircleCI's own words: `message`, from some of its services `error`.
fn message(reply: &Reply) -> String {
    let value: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let said = ["error", "message"].iter().find_map(|name| value.get(name)?.as_str().map(str::to_owned));
    said.unwrap_or_else(|| start(&reply.body))
}

/// The first line of a body, for people.
fn start(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim();
    line.chars().filter(|c| !c.is_control()).take(120).collect()
}
