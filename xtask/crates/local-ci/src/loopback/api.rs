//! API v2 as a table of routes, with authentication, project lookup and paging.

use crate::loopback::http::{Reply, Request};
use crate::loopback::mock_state::MockState;
use crate::loopback::{Credential, about, trigger, v2};
use gangplank_model::error::Result;
use gangplank_model::release::digest;
use serde_json::{Map, Value, json};

/// A request to be answered.
pub(super) struct Call<'a> {
    pub state: &'a mut MockState,
    pub request: &'a Request,
    /// URLs of the two listeners.
    pub api: &'a str,
    pub storage: &'a str,
    /// The path's values for the names in the route's template, in order.
    pub params: Vec<String>,
}

/// The result of a handler; both variants are answers.
pub(super) type Handled = Result<Reply, Reply>;

type Handler = fn(&mut Call) -> Handled;

/// Method, path as in the specification, and handler. The first match is used.
const ROUTES: &[(&str, &str, Handler)] = &[
    ("GET", "/me", v2::me),
    ("GET", "/project/{project-slug}", v2::project),
    ("GET", "/project/{project-slug}/envvar", v2::envvars),
    ("POST", "/project/{project-slug}/envvar", v2::set_envvar),
    ("GET", "/project/{project-slug}/envvar/{name}", v2::envvar),
    ("DELETE", "/project/{project-slug}/envvar/{name}", v2::delete_envvar),
    ("GET", "/project/{project-slug}/job/{job-number}", v2::job_details),
    ("GET", "/project/{project-slug}/pipeline", v2::pipelines),
    ("POST", "/project/{project-slug}/pipeline", trigger::superseded),
    ("GET", "/project/{project-slug}/pipeline/{pipeline-number}", v2::numbered_pipeline),
    ("POST", "/project/{provider}/{organization}/{project}/pipeline/run", trigger::run),
    ("GET", "/project/{project-slug}/{job-number}/artifacts", v2::artifacts),
    ("GET", "/jobs/{job_id}", v2::job),
    ("GET", "/pipeline/{pipeline-id}", v2::pipeline),
    ("GET", "/pipeline/{pipeline-id}/workflow", v2::workflows),
    ("GET", "/workflow/{id}", v2::workflow),
    ("GET", "/workflow/{id}/job", v2::workflow_jobs),
    ("POST", "/workflow/{id}/approve/{approval_request_id}", v2::approve),
    ("POST", "/workflow/{id}/cancel", v2::cancel),
    ("GET", "/projects/{project_id}/pipeline-definitions", trigger::definitions),
    ("GET", "/project/{provider}/{organization}/{project}/settings", about::settings),
    ("GET", "/context", about::contexts),
    ("GET", "/context/{context_id}/environment-variable", about::context_variables),
    ("GET", "/deploy/components", about::components),
];

/// Answers a path below `/api/v2`, and returns its route.
pub(super) fn answer(call: &mut Call, path: &str) -> (Reply, Option<&'static str>) {
    let Some((template, handler, params)) = find(&call.request.method, path) else {
        return (Reply::message(404, "Not found."), None);
    };
    call.params = params;
    let reply = authenticate(call.state, call.request, false).and_then(|()| {
        if template.contains("{project-slug}") {
            is_project(call.state, &call.params[0])?;
        }
        handler(call)
    });
    (reply.unwrap_or_else(|refused| refused), Some(template))
}

/// Method and path of every route, as in the specification.
pub(super) fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|(method, template, _)| (*method, *template))
}

/// The route of a path below `/api/v2`, as in the specification.
pub(super) fn template(method: &str, path: &str) -> Option<&'static str> {
    find(method, path).map(|(template, ..)| template)
}

fn find(method: &str, path: &str) -> Option<(&'static str, Handler, Vec<String>)> {
    let mut of_method = ROUTES.iter().filter(|(known, ..)| *known == method);
    of_method.find_map(|(_, template, handler)| Some((*template, *handler, params(template, path)?)))
}

/// Matches a path. A slug has three parts, separated by `/` or `%2F`.
fn params(template: &str, path: &str) -> Option<Vec<String>> {
    let (mut found, mut parts) = (Vec::new(), path.split('/'));
    for word in template.split('/') {
        let part = parts.next()?;
        if word == "{project-slug}" {
            found.push(format!("{part}/{}/{}", parts.next()?, parts.next()?));
        } else if word.starts_with('{') && !part.is_empty() {
            found.push(part.to_owned());
        } else if word != part {
            return None;
        }
    }
    parts.next().is_none().then_some(found)
}

/// The same 404 for a missing project and one that the token may not see.
pub(super) fn is_project(state: &MockState, slug: &str) -> Result<(), Reply> {
    let short = |slug: &str| match slug.split_once('/') {
        Some(("github", rest)) => format!("gh/{rest}"),
        Some(("bitbucket", rest)) => format!("bb/{rest}"),
        _ => slug.to_owned(),
    };
    if short(slug) == short(&state.slug) { Ok(()) } else { Err(Reply::message(404, "Project not found")) }
}

/// The credential of a request, with its kind. Its value is used only here and in [`authenticate`].
fn credential(request: &Request) -> Option<(Credential, String)> {
    if let Some(value) = request.headers.get("authorization") {
        let (scheme, value) = value.split_once(' ').unwrap_or((value, ""));
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some((Credential::Bearer, value.trim().to_owned())),
            // The token is the user; the password is empty.
            "basic" => {
                let pair = base64(value.trim()).unwrap_or_default();
                Some((Credential::Basic, pair.split(':').next().unwrap_or_default().to_owned()))
            }
            _ => None,
        };
    }
    let header = request.headers.get("circle-token").map(|value| (Credential::CircleToken, value.clone()));
    header.or_else(|| request.query.get("circle-token").map(|value| (Credential::Query, value.clone())))
}

/// For the log: the kind of credential, and whether it is valid.
pub(super) fn kind_of_credential(state: &MockState, request: &Request) -> (Option<Credential>, bool) {
    match credential(request) {
        Some((kind, token)) => (Some(kind), state.tokens.contains(&token)),
        None => (None, false),
    }
}

/// Whether a request contains any of the tokens.
pub(super) fn has_token(state: &MockState, request: &Request) -> bool {
    let basic = credential(request).map(|(_, token)| token);
    let texts = request.headers.values().chain(request.query.values()).chain(request.query.keys());
    let body = String::from_utf8_lossy(&request.body);
    let texts = texts.chain([&request.path, &request.raw_path, &request.method]).map(String::as_str);
    let texts: Vec<&str> = texts.chain(basic.as_deref()).chain([body.as_ref()]).collect();
    state.tokens.iter().filter(|token| !token.is_empty()).any(|token| texts.iter().any(|it| it.contains(token)))
}

/// Checks the credential. `old` is for v1.1 and artifact URLs, which accept project tokens and tokens in the query.
pub(super) fn authenticate(state: &MockState, request: &Request, old: bool) -> Result<(), Reply> {
    let invalid = || Reply::message(401, "Invalid token provided.");
    match credential(request) {
        Some((Credential::Query, _)) if !old => Err(Reply::message(
            401,
            "Support for query parameter authentication has been deprecated to improve security. Please use a \
             supported authentication method such as header-based, or basic authentication.",
        )),
        Some((_, token)) if token.starts_with("CCIPRJ_") && !old => Err(Reply::message(404, "Project not found")),
        Some((_, token)) if state.tokens.contains(&token) => Ok(()),
        Some(_) => Err(invalid()),
        None => Err(Reply::message(401, "You must log in first.")),
    }
}

fn base64(text: &str) -> Option<String> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}

impl Call<'_> {
    /// A page of a list, whose items have unique ids. A page token is a digest of its first item: opaque to clients,
    /// and stable when new items are prepended.
    pub fn page(&self, items: Vec<(String, Value)>) -> Handled {
        let list = format!("{} {:?}", self.request.path, self.request.query.get("branch"));
        let token_of = |id: &str| digest::of(format!("{list} {id}").as_bytes())[..40].to_owned();
        let start = match self.request.query.get("page-token") {
            None => 0,
            Some(token) => {
                let found = items.iter().position(|(id, _)| token_of(id) == *token);
                found.ok_or_else(|| Reply::message(400, "Invalid page token."))?
            }
        };
        let end = start + self.state.page_size.max(1);
        let next = items.get(end).map(|(id, _)| token_of(id));
        let items: Vec<_> = items.into_iter().skip(start).take(end - start).map(|(_, item)| item).collect();
        Ok(Reply::json(200, json!({ "items": items, "next_page_token": next })))
    }

    /// The body, which must be a JSON object with the right content type.
    pub fn object(&self) -> Result<Map<String, Value>, Reply> {
        let content_type = self.request.headers.get("content-type").map_or("", String::as_str);
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Reply::message(400, "Unexpected content type: send application/json."));
        }
        match serde_json::from_slice(&self.request.body) {
            Ok(Value::Object(object)) => Ok(object),
            _ => Err(Reply::message(400, "Unexpected request body provided.")),
        }
    }
}

/// Whether a text is a UUID.
pub(super) fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    text.split('-').map(str::len).eq(lengths) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, plain) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(base64(text).as_deref(), Some(plain));
        }
        assert_eq!((base64("Zg!="), base64("/w==")), (None, None));
    }

    #[test]
    fn a_slug_takes_three_parts_of_a_path() {
        let table = [
            ("/me", "/me", Some(vec![])),
            ("/me", "/me/x", None),
            ("/project/{project-slug}", "/project/gh/a/b", Some(vec!["gh/a/b"])),
            ("/project/{project-slug}", "/project/gh/a", None),
            ("/workflow/{id}", "/workflow/", None),
        ];
        for (template, path, wanted) in table {
            let wanted = wanted.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(params(template, path), wanted, "{template} {path}");
        }
    }
}
