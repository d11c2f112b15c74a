//! Artifact URLs: the API's host requires a token and redirects to storage, which rejects one.

use crate::auth::authenticate;
use crate::call::Call;
use crate::message::{Listener, Reply, Request};
use crate::mock_state::{Artifact, Job, MockState};
use crate::percent::{decode, encode};
use gangplank_model::release::digest;
use std::hash::{BuildHasher, RandomState};

/// The URL of an artifact in both APIs.
pub(super) fn url(api: &str, job: &Job, artifact: &Artifact) -> String {
    let path = artifact.path.split('/').map(encode).collect::<Vec<_>>().join("/");
    format!("{api}/output/job/{}/artifacts/{}/{path}", job.id, artifact.node_index)
}

/// `GET /output/job/...` on the API's host: redirects to a signed URL of storage.
pub(super) fn output(call: &mut Call) -> Reply {
    if call.request.method != "GET" && call.request.method != "HEAD" {
        return Reply::message(404, "Not found.");
    }
    if let Err(refused) = authenticate(call.state, call.request, true) {
        return refused;
    }
    let Some((name, file)) = find(call.state, &call.request.raw_path) else {
        return Reply::message(404, "Artifact not found.");
    };
    // Unpredictable, like a real one, and valid until the server ends.
    let signature = digest::of(format!("{} {}", RandomState::new().hash_one(0), call.state.signed.len()).as_bytes());
    call.state.signed.insert(signature.clone(), file);
    Reply::redirect(format!("{}/bucket/{signature}/{name}", call.storage))
}

fn find(state: &MockState, raw_path: &str) -> Option<(String, std::path::PathBuf)> {
    let (job, rest) = raw_path.strip_prefix("/output/job/")?.split_once("/artifacts/")?;
    let (node, path) = rest.split_once('/')?;
    let (node, path) = (node.parse::<u32>().ok()?, decode(path, true)?);
    let number = state.job(job)?.number?;
    let artifact = state.artifacts_of(number).find(|it| it.node_index == node && it.path == path)?;
    Some((encode(path.rsplit('/').next().unwrap_or_default()), artifact.file.clone()))
}

/// Storage. Its errors are those of S3.
pub(super) fn storage(state: &MockState, request: &Request) -> Reply {
    debug_assert_eq!(request.host, Listener::Storage);
    let refuse = |status, code: &str, message: &str| {
        let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>\n");
        Reply::text(status, "application/xml", text)
    };
    if request.headers.contains_key("authorization") {
        return refuse(400, "InvalidArgument", "Only one auth mechanism allowed");
    }
    let signature = request.path.strip_prefix("/bucket/").and_then(|rest| rest.split_once('/')).map(|(it, _)| it);
    match (request.method.as_str(), signature.and_then(|it| state.signed.get(it))) {
        ("GET" | "HEAD", Some(file)) => Reply::file(file),
        _ => refuse(403, "AccessDenied", "Access Denied"),
    }
}
