//! A request on its way through the handlers, and what all handlers share: pages, JSON bodies, and the project's slug.

use crate::message::{Reply, Request};
use crate::mock_state::MockState;
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

/// The same 404 for a missing project and one that the token may not see.
pub(super) fn is_project(state: &MockState, slug: &str) -> Result<(), Reply> {
    let short = |slug: &str| match slug.split_once('/') {
        Some(("github", rest)) => format!("gh/{rest}"),
        Some(("bitbucket", rest)) => format!("bb/{rest}"),
        _ => slug.to_owned(),
    };
    if short(slug) == short(&state.slug) { Ok(()) } else { Err(Reply::message(404, "Project not found")) }
}

/// Whether a text is a UUID.
pub(super) fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    text.split('-').map(str::len).eq(lengths) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}
