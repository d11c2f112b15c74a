//! Requests and responses as data: what a handler or a hook gets and returns, without a connection.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The listener of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// CircleCI: the API, and its artifact URLs.
    Api,
    /// The cloud storage that artifact URLs redirect to.
    Storage,
}

/// A complete request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The listener.
    pub host: Listener,
    /// The authority in its `Host` header.
    pub authority: String,
    /// `GET`, ...
    pub method: String,
    /// The path, decoded, without the query.
    pub path: String,
    /// The path as sent.
    pub raw_path: String,
    /// The query, decoded; the last value of a name counts.
    pub query: BTreeMap<String, String>,
    /// Headers with lower-case names; values of one name are joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// The body of a response.
#[derive(Debug, Clone)]
pub enum Body {
    /// A JSON value.
    Json(Value),
    /// Some text.
    Text {
        /// Its media type.
        content_type: String,
        /// The text.
        text: String,
    },
    /// Bytes.
    Bytes(Vec<u8>),
    /// A file, streamed. A `Range: bytes=N-` gets the rest of it from there.
    File(PathBuf),
    /// A fault: announces the whole body and closes the connection after this many bytes.
    Cut(Box<Body>, u64),
}

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers beyond those of the body.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

impl Reply {
    /// A JSON response.
    pub fn json(status: u16, value: Value) -> Self {
        Self { status, headers: Vec::new(), body: Body::Json(value) }
    }

    /// `{"message": ...}`, CircleCI's format for errors.
    pub fn message(status: u16, message: impl Into<String>) -> Self {
        Self::json(status, json!({ "message": message.into() }))
    }

    /// A response of another media type.
    pub fn text(status: u16, content_type: impl Into<String>, text: impl Into<String>) -> Self {
        let body = Body::Text { content_type: content_type.into(), text: text.into() };
        Self { status, headers: Vec::new(), body }
    }

    /// A response with a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { status: 200, headers: Vec::new(), body: Body::File(path.into()) }
    }

    /// A redirect.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::text(302, "text/plain", "").header("Location", location)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Closes the connection after this many bytes of the body.
    #[must_use]
    pub fn cut(mut self, after: u64) -> Self {
        self.body = Body::Cut(Box::new(self.body), after);
        self
    }
}
