//! The log of requests, for tests.

use crate::auth::Credential;
use crate::message::Listener;
use serde_json::Value;
use std::collections::BTreeMap;

/// An answered request. Tokens are replaced by `[token]`.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The listener.
    pub host: Listener,
    /// The authority in the request.
    pub authority: String,
    /// The method; empty for an invalid request.
    pub method: String,
    /// The path, decoded.
    pub path: String,
    /// The query, decoded.
    pub query: BTreeMap<String, String>,
    /// The status of the response.
    pub status: u16,
    /// The kind of credential.
    pub credential: Option<Credential>,
    /// Whether the credential was valid.
    pub credential_is_right: bool,
    /// Whether the request contained a valid token: in a header, the path, the query or the body.
    pub token_seen: bool,
    /// The route of API v2, as in the specification: `/project/{project-slug}/pipeline`.
    pub route: Option<&'static str>,
    /// The response, if it was JSON.
    pub body: Option<Value>,
}

impl Logged {
    /// The log entry of an invalid request.
    pub(super) fn unread(host: Listener, status: u16) -> Self {
        Self {
            host,
            authority: String::new(),
            method: String::new(),
            path: String::new(),
            query: BTreeMap::new(),
            status,
            credential: None,
            credential_is_right: false,
            token_seen: false,
            route: None,
            body: None,
        }
    }
}
