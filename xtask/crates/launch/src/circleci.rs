//! Finds a stored program through CircleCI's API v2: `GET /project/{slug}/pipeline`, `/pipeline/{id}/workflow`,
//! `/workflow/{id}/job`, `/project/{slug}/{job}/artifacts`.

use crate::curl::Client;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// The job that stores the program.
pub const JOB: &str = "check";
/// The directory of the artifact.
pub const DESTINATION: &str = "program";
/// The end of its name.
const SUFFIX: &str = ".gz";
/// The number of jobs that are looked at: an xtask changes rarely, so the newest has it. Pipelines on request have no
/// such job and do not count.
const JOBS: usize = 10;
/// The maximum number of pages of pipelines, which have 20, and of workflows of a pipeline: reruns are workflows too.
const PAGES: usize = 2;
const PIPELINES: usize = 20;
const WORKFLOWS: usize = 10;
/// The maximum duration of the search and of the download. A search that is slower than that is slower than a compiler.
const SEARCH: Duration = Duration::from_secs(20);
const DOWNLOAD: Duration = Duration::from_secs(90);
/// The maximum size of a download.
const DOWNLOAD_MAX: u64 = 256 << 20;

/// The API of one project.
pub struct Api {
    client: Client,
    slug: String,
}

/// A stored program.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// The number of its job.
    pub job: u64,
    /// Where its bytes are.
    pub url: String,
    /// Their SHA-256.
    pub sha256: String,
}

/// The path of an artifact below [`DESTINATION`]: `INPUTS/SHA256.gz`.
pub fn name(inputs: &str, sha256: &str) -> String {
    format!("{inputs}/{sha256}{SUFFIX}")
}

impl Api {
    /// From `CIRCLE_TOKEN`, `CIRCLE_PROJECT_SLUG` and `CIRCLE_HOST`.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let token = get("CIRCLE_TOKEN").context(
            "there is no CIRCLE_TOKEN to find a stored one; add it to the context of `Ci` in xtask/src/main.rs",
        )?;
        let slug = get("CIRCLE_PROJECT_SLUG").context("there is no CIRCLE_PROJECT_SLUG")?;
        let is_slug = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
        ensure!(
            slug.split('/').count() == 3 && slug.chars().all(is_slug) && !slug.contains(".."),
            "CIRCLE_PROJECT_SLUG is no slug"
        );
        let host = get("CIRCLE_HOST").unwrap_or_else(|| "https://circleci.com".into());
        let host = if host.contains("://") { host } else { format!("https://{host}") };
        Ok(Self { client: Client::new(host.trim_end_matches('/'), &token)?, slug })
    }

    /// The project's slug.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// Answers by their path after `/api/v2`, within a limit for all of them.
    pub fn search(&self) -> impl Fn(&str) -> Result<Value> {
        let deadline = Instant::now() + SEARCH;
        move |path| {
            let body = self.client.read(&format!("/api/v2{path}"), deadline)?;
            serde_json::from_slice(&body).with_context(|| format!("{path}: not JSON"))
        }
    }

    /// Downloads a stored program.
    pub fn download(&self, stored: &Stored, to: &Path) -> Result<()> {
        self.client.download(&stored.url, to, DOWNLOAD_MAX, Instant::now() + DOWNLOAD)
    }
}

/// The newest stored program of these inputs, of a job that succeeded in a pipeline of the branch.
pub fn find(get: &dyn Fn(&str) -> Result<Value>, slug: &str, branch: &str, inputs: &str) -> Result<Stored> {
    ensure!(!branch.is_empty(), "there is no CIRCLE_BRANCH");
    let (mut looked_at, mut page) = (0, String::new());
    for _ in 0..PAGES {
        let pipelines = get(&format!("/project/{slug}/pipeline?branch={}{page}", escape(branch)))?;
        for pipeline in items(&pipelines).iter().filter(|it| it["vcs"]["branch"] == branch).take(PIPELINES) {
            for job in checks(get, pipeline)? {
                let artifacts = get(&format!("/project/{slug}/{job}/artifacts"))?;
                if let Some(found) = items(&artifacts).iter().find_map(|artifact| stored(artifact, job, inputs)) {
                    return Ok(found);
                }
                looked_at += 1;
                if looked_at == JOBS {
                    bail!("none of the last {JOBS} jobs `{JOB}` of {branch} has stored one of this source");
                }
            }
        }
        match pipelines["next_page_token"].as_str() {
            Some(token) => page = format!("&page-token={}", escape(token)),
            None => break,
        }
    }
    bail!("no job `{JOB}` of {branch} has stored one of this source")
}

/// The numbers of the successful jobs of a pipeline that may have stored a program.
fn checks(get: &dyn Fn(&str) -> Result<Value>, pipeline: &Value) -> Result<Vec<u64>> {
    let workflows = get(&format!("/pipeline/{}/workflow", id(pipeline)?))?;
    let mut numbers = Vec::new();
    for workflow in items(&workflows).iter().take(WORKFLOWS) {
        let jobs = get(&format!("/workflow/{}/job", id(workflow)?))?;
        let checked = items(&jobs).iter().filter(|job| job["name"] == JOB && job["status"] == "success");
        numbers.extend(checked.filter_map(|job| job["job_number"].as_u64()));
    }
    Ok(numbers)
}

fn stored(artifact: &Value, job: u64, inputs: &str) -> Option<Stored> {
    let name = artifact["path"].as_str()?.strip_prefix(DESTINATION)?.strip_prefix('/')?;
    let sha256 = name.strip_prefix(inputs)?.strip_prefix('/')?.strip_suffix(SUFFIX)?;
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let url = artifact["url"].as_str()?.to_owned();
    (is_digest && artifact["node_index"] == 0).then(|| Stored { job, url, sha256: sha256.to_owned() })
}

fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map_or(&[], Vec::as_slice)
}

/// The id of a pipeline or workflow, safe in a path.
fn id(of: &Value) -> Result<&str> {
    let id = of["id"].as_str().context("an answer of CircleCI has no id")?;
    ensure!(id.len() <= 64 && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'), "not an id: {id:?}");
    Ok(id)
}

/// A text in a query.
fn escape(text: &str) -> String {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|c| if is_plain(c) { (c as char).to_string() } else { format!("%{c:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const INPUTS: &str = "aaaa";

    fn digest() -> String {
        "0123456789abcdef".repeat(4)
    }

    /// What the API answers: one pipeline of a branch, its workflow, its job, and the path of an artifact.
    fn api(branch: &str, job: &Value, path: &str) -> impl Fn(&str) -> Result<Value> {
        let answers = [
            ("/project/gh/a/b/pipeline?branch=f%2Fx", json!([{ "id": "1-2", "vcs": { "branch": branch } }])),
            ("/pipeline/1-2/workflow", json!([{ "id": "3" }])),
            ("/workflow/3/job", json!([job])),
            ("/project/gh/a/b/7/artifacts", json!([{ "path": path, "node_index": 0, "url": "https://x/y" }])),
        ];
        move |asked| {
            let found = answers.iter().find(|(path, _)| *path == asked);
            Ok(json!({ "items": found.with_context(|| asked.to_owned())?.1 }))
        }
    }

    #[test]
    fn program_of_a_good_job_of_the_branch_is_found() {
        let good = json!({ "name": "check", "status": "success", "job_number": 7 });
        let path = format!("{DESTINATION}/{}", name(INPUTS, &digest()));
        let found = find(&api("f/x", &good, &path), "gh/a/b", "f/x", INPUTS).unwrap();
        assert_eq!(found, Stored { job: 7, url: "https://x/y".into(), sha256: digest() });
        let failed = json!({ "name": "check", "status": "failed", "job_number": 7 });
        let other = json!({ "name": "test", "status": "success", "job_number": 7 });
        let waiting = json!({ "name": "check", "status": "success" });
        for (branch, job, path) in [
            ("main", &good, &path),
            ("f/x", &failed, &path),
            ("f/x", &other, &path),
            ("f/x", &waiting, &path),
            ("f/x", &good, &format!("{DESTINATION}/{}", name("bbbb", &digest()))),
            ("f/x", &good, &format!("{DESTINATION}/{}", name(INPUTS, "12"))),
            ("f/x", &good, &format!("{DESTINATION}/{}", name(INPUTS, &digest().to_uppercase()))),
            ("f/x", &good, &format!("{path}/../x.gz")),
        ] {
            let error = find(&api(branch, job, path), "gh/a/b", "f/x", INPUTS).unwrap_err().to_string();
            assert!(error.contains("no job `check` of f/x has stored"), "{branch} {job} {path}: {error}");
        }
    }

    #[test]
    fn answers_of_another_form_are_errors_or_nothing() {
        for answer in [json!(null), json!([]), json!({ "items": "x" }), json!({ "items": [{ "id": "1" }] })] {
            assert!(find(&|_| Ok(answer.clone()), "gh/a/b", "main", INPUTS).is_err(), "{answer}");
        }
        let hostile = json!({ "items": [{ "id": "../../me?x=", "vcs": { "branch": "main" } }] });
        let error = find(&|_| Ok(hostile.clone()), "gh/a/b", "main", INPUTS).unwrap_err().to_string();
        assert!(error.contains("not an id"), "{error}");
    }

    #[test]
    fn api_needs_a_token_a_slug_and_a_safe_host() {
        let open = |pairs: &[(&str, &str)]| {
            let get = |name: &str| Some(pairs.iter().find(|(known, _)| *known == name)?.1.to_owned());
            Api::from_environment(&get).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let (token, slug) = (("CIRCLE_TOKEN", "CCIPAT_1"), ("CIRCLE_PROJECT_SLUG", "gh/acme/shop"));
        assert_eq!(open(&[token, slug]), "");
        assert_eq!(open(&[token, slug, ("CIRCLE_HOST", "ci.example.com")]), "");
        assert_eq!(open(&[token, slug, ("CIRCLE_HOST", "http://127.0.0.1:5")]), "");
        assert!(open(&[slug, ("CIRCLE_TOKEN", " ")]).contains("no CIRCLE_TOKEN"));
        assert!(open(&[token]).contains("no CIRCLE_PROJECT_SLUG"));
        assert!(open(&[token, ("CIRCLE_PROJECT_SLUG", "gh/../..")]).contains("is no slug"));
        assert!(open(&[token, slug, ("CIRCLE_HOST", "http://ci.example.com")]).contains("not encrypted"));
    }
}
