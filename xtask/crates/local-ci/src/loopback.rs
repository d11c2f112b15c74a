//! A CircleCI on loopback: what our client uses of API v2 and v1.1, so that the API is really in the loop on a laptop
//! and in tests.
//!
//! It answers from a [`MockState`], which the caller owns the other end of: pushes, jobs and artifacts come from there. There
//! are two listeners, because there are two hosts in reality: the API's, which also gives out artifact URLs, and
//! storage's, which these redirect to and which must never see a token.
//!
//! Statuses and bodies are those of CircleCI's `OpenAPI` document, and `tests/it/conformance.rs` holds them to it. Where
//! that says nothing the texts are ours. Not imitated: rate limits (a [`Hook`] can be one), EDN, the artifacts of public
//! projects, which need no token, and every route that our client does not use.

mod about;
mod api;
mod http;
mod mock_state;
mod output;
mod trigger;
mod v1;
mod v2;

pub use crate::loopback::http::{Body, Listener, Reply, Request};
pub use crate::loopback::mock_state::{
    Artifact, Definition, Job, JobStatus, MockState, Pipeline, Settings, Variable, Workflow, WorkflowStatus,
};

use crate::loopback::api::Call;
use gangplank_model::error::{Kind, Result, WithHint};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Asked before the API is, on both hosts. What it answers is sent; `None` leaves the request to the API. It runs
/// without a lock on the state.
pub type Hook = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;

/// How a request said who it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Circle-Token`.
    CircleToken,
    /// `Authorization: Basic`, the token as user.
    Basic,
    /// `?circle-token=`.
    Query,
}

/// A request that was answered. No token is in it: where one was, it says `[token]`.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The listener that was asked.
    pub host: Listener,
    /// The authority that the request was sent to, as the client wrote it.
    pub authority: String,
    /// The method; empty when it was no request at all.
    pub method: String,
    /// The path, decoded.
    pub path: String,
    /// The query, decoded.
    pub query: BTreeMap<String, String>,
    /// What was answered.
    pub status: u16,
    /// The kind of credential that it came with.
    pub credential: Option<Credential>,
    /// Whether that was a good one.
    pub credential_is_right: bool,
    /// Whether a good token was anywhere in it: a header, the path, the query, the body.
    pub token_seen: bool,
    /// The route of API v2, as the specification writes it: `/project/{project-slug}/pipeline`.
    pub route: Option<&'static str>,
    /// What was answered, if that was JSON.
    pub body: Option<Value>,
}

/// The server. It goes when this is dropped, with its threads and connections.
pub struct Loopback {
    shared: Arc<Shared>,
    addresses: [SocketAddr; 2],
    accepting: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<MockState>,
    log: Mutex<Vec<Logged>>,
    hook: Option<Hook>,
    stop: AtomicBool,
    api: String,
    storage: String,
}

impl Loopback {
    /// Starts it on free ports of 127.0.0.1.
    pub fn start(state: MockState) -> Result<Self> {
        Self::launch(state, None)
    }

    /// The same with a hook, which is how a test puts faults in.
    pub fn start_with(state: MockState, hook: Hook) -> Result<Self> {
        Self::launch(state, Some(hook))
    }

    fn launch(state: MockState, hook: Option<Hook>) -> Result<Self> {
        let listen = || {
            let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|it| Ok((it.local_addr()?, it)));
            listener.with_hint(
                Kind::Failed,
                || "cannot listen on 127.0.0.1".into(),
                || "look at `ip address show lo`: it has to be up".into(),
            )
        };
        let ((api, api_listener), (storage, storage_listener)) = (listen()?, listen()?);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            log: Mutex::new(Vec::new()),
            hook,
            stop: AtomicBool::new(false),
            api: format!("http://{api}"),
            storage: format!("http://{storage}"),
        });
        let accept = |listener, host| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&shared, &listener, host))
        };
        let accepting = vec![accept(api_listener, Listener::Api), accept(storage_listener, Listener::Storage)];
        Ok(Self { shared, addresses: [api, storage], accepting })
    }

    /// URL of the API's host, which is what `CIRCLE_HOST` says.
    pub fn url(&self) -> String {
        self.shared.api.clone()
    }

    /// Method and path of each route of API v2 that is answered, as the specification writes them.
    pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
        api::routes()
    }

    /// URL of storage.
    pub fn storage_url(&self) -> String {
        self.shared.storage.clone()
    }

    /// The state, to look at and to change. No request is answered while it is held.
    pub fn state(&self) -> MutexGuard<'_, MockState> {
        lock(&self.shared.state)
    }

    /// All requests so far, in the order of their answers.
    pub fn log(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for address in self.addresses {
            // Nothing else ends a call of accept(2).
            let _ = TcpStream::connect(address);
        }
        for thread in self.accepting.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A panic of one request, in a hook say, is not one of all others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, host: Listener) {
    let mut open: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        open.retain(|(_, thread)| !thread.is_finished());
        let Ok((stream, handle)) = stream.and_then(|stream| Ok((stream.try_clone()?, stream))) else {
            // Out of descriptors: some connection has to end first.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let shared = Arc::clone(shared);
        if let Ok(thread) = thread::Builder::new().spawn(move || serve(&shared, stream, host)) {
            open.push((handle, thread));
        }
    }
    for (stream, thread) in open {
        // Ends what the thread may be waiting for.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

/// Closed for good when its thread ends, though it panics: the handle that a shutdown needs would keep it open.
struct Connection(TcpStream);

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

fn serve(shared: &Shared, stream: TcpStream, host: Listener) {
    let mut connection = Connection(stream);
    let stream = &mut connection.0;
    let request = match http::read(stream, host) {
        Ok(request) => request,
        Err(None) => return,
        Err(Some(reply)) => {
            lock(&shared.log).push(unread(host, reply.status));
            return http::write(stream, http::ready(reply, None));
        }
    };
    let hooked = shared.hook.as_ref().and_then(|hook| hook(&request));
    let (reply, mut logged) = answer(shared, &request, hooked);
    // A file may turn out to be gone, and then the status is another one.
    let ready = http::ready(reply, Some(&request));
    logged.status = ready.status;
    // Before the answer is out, so that whoever has read it finds it in the log.
    lock(&shared.log).push(logged);
    http::write(stream, ready);
}

fn answer(shared: &Shared, request: &Request, hooked: Option<Reply>) -> (Reply, Logged) {
    let mut guard = lock(&shared.state);
    let state = &mut *guard;
    let (credential, credential_is_right) = api::kind_of_credential(state, request);
    let token_seen = api::has_token(state, request);
    let tokens = state.tokens.clone();
    let (reply, route) = match hooked {
        Some(reply) => (reply, v2_path(request).and_then(|path| api::template(&request.method, path))),
        None => dispatch(&mut Call { state, request, api: &shared.api, storage: &shared.storage, params: Vec::new() }),
    };
    drop(guard);
    let hide = |text: &str| {
        let good = tokens.iter().filter(|token| !token.is_empty());
        good.fold(text.to_owned(), |text, token| text.replace(token.as_str(), "[token]"))
    };
    let body = match &reply.body {
        Body::Json(value) => serde_json::from_str(&hide(&value.to_string())).ok(),
        _ => None,
    };
    let logged = Logged {
        host: request.host,
        authority: hide(&request.authority),
        method: hide(&request.method),
        path: hide(&request.path),
        query: request.query.iter().map(|(name, value)| (hide(name), hide(value))).collect(),
        status: reply.status,
        credential,
        credential_is_right,
        token_seen,
        route,
        body,
    };
    (reply, logged)
}

/// The answer to a request, and the route of v2 that it came from.
fn dispatch(call: &mut Call) -> (Reply, Option<&'static str>) {
    let request = call.request;
    if request.host == Listener::Storage {
        return (output::storage(call.state, request), None);
    }
    if let Some(path) = v2_path(request) {
        return api::answer(call, path);
    }
    let reply = match request.path.strip_prefix("/api/v1.1") {
        Some(path) => v1::answer(call, path),
        None if request.path.starts_with("/output/job/") => output::output(call),
        None => Reply::message(404, "Not found."),
    };
    (reply, None)
}

fn v2_path(request: &Request) -> Option<&str> {
    request.path.strip_prefix("/api/v2").filter(|_| request.host == Listener::Api)
}

/// What was no request.
fn unread(host: Listener, status: u16) -> Logged {
    Logged {
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
