//! The server: two listeners, a thread for each connection, and the way of a request through hook, handlers and log.

use crate::auth::{has_token, kind_of_credential};
use crate::call::Call;
use crate::log::Logged;
use crate::message::{Body, Listener, Reply, Request};
use crate::mock_state::MockState;
use crate::{api, http, output, v1};
use gangplank_model::error::{Kind, Result, WithHint};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Called before the API, on both hosts, without a lock on the state. `Some` is sent as the response; `None` passes the
/// request to the API.
pub type Hook = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;

/// The server. Drop stops its threads and closes its connections.
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

    /// Starts it with a hook, for tests that inject faults.
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

    /// URL of the API, the value of `CIRCLE_HOST`.
    pub fn url(&self) -> String {
        self.shared.api.clone()
    }

    /// Method and path of each supported route of API v2, as in the specification.
    pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
        api::routes()
    }

    /// URL of storage.
    pub fn storage_url(&self) -> String {
        self.shared.storage.clone()
    }

    /// The state. No request is answered while the guard is held.
    pub fn state(&self) -> MutexGuard<'_, MockState> {
        lock(&self.shared.state)
    }

    /// All requests so far, in the order of their responses.
    pub fn log(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for address in self.addresses {
            // Only a connection ends a call of accept(2).
            let _ = TcpStream::connect(address);
        }
        for thread in self.accepting.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A panic in one request, e.g. in a hook, does not affect others.
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
            // Out of file descriptors: wait for a connection to end.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let shared = Arc::clone(shared);
        if let Ok(thread) = thread::Builder::new().spawn(move || serve(&shared, stream, host)) {
            open.push((handle, thread));
        }
    }
    for (stream, thread) in open {
        // Unblocks the thread.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

/// Shuts the connection down when its thread ends, even by a panic: the handle for the server's shutdown would keep it
/// open.
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
            lock(&shared.log).push(Logged::unread(host, reply.status));
            return http::write(stream, http::ready(reply, None));
        }
    };
    let hooked = shared.hook.as_ref().and_then(|hook| hook(&request));
    let (reply, mut logged) = answer(shared, &request, hooked);
    // A file may be missing, which changes the status.
    let ready = http::ready(reply, Some(&request));
    logged.status = ready.status;
    // Logged before the response is sent, so that a client finds its request in the log.
    lock(&shared.log).push(logged);
    http::write(stream, ready);
}

fn answer(shared: &Shared, request: &Request, hooked: Option<Reply>) -> (Reply, Logged) {
    let mut guard = lock(&shared.state);
    let state = &mut *guard;
    let (credential, credential_is_right) = kind_of_credential(state, request);
    let token_seen = has_token(state, request);
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

/// The response to a request, and its route of v2.
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
