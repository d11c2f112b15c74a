//! The HTTP side: which paths answer what, and how the service starts and stops.
//!
//! A deployment replaces a running service with the next one. So the old one has to stop without dropping a request,
//! and has to do it in bounded time; most of this module is about that.

use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tower_http::services::ServeDir;

use crate::settings::CliError;

/// How long requests may go on after the signal to stop. Docker kills after 10 s, most others later: there has to be
/// time left to say goodbye.
pub const GRACE: Duration = Duration::from_secs(9);

/// How long a connection that was taken from systemd's socket may take to send its request once we stop.
const LINGER: Duration = Duration::from_millis(250);

/// The answer of `/version`. Nothing in it needs escaping: the build script lets only commit ids and times through.
const VERSION: &str = concat!(
    r#"{"app":""#,
    env!("CARGO_PKG_NAME"),
    r#"","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#"","commit":""#,
    env!("APP_COMMIT"),
    r#"","built":""#,
    env!("APP_BUILT"),
    r#""}"#
);

/// All routes: the two that a deployment asks, and the files of `folder` for everybody else.
pub fn router(folder: &Path) -> Router {
    // `ServeDir` refuses every path that leads out of the folder, encoded or not.
    let files = ServeDir::new(folder).not_found_service(any(async || (StatusCode::NOT_FOUND, "not found\n")));
    Router::new()
        .route("/health", get(async || "ok"))
        .route("/version", get(async || ([(CONTENT_TYPE, "application/json")], VERSION).into_response()))
        .fallback_service(files)
        .layer(map_response(with_headers))
}

/// The headers of every answer.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // "Ask each time": otherwise a browser guesses, and shows the page of the previous deployment for a while. The
    // files carry an ETag, which keeps the asking cheap.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The socket that systemd listens on for us, if it does (`sd_listen_fds(3)`): it stays open while one release takes
/// over from another, so connections wait instead of being refused.
pub fn inherited() -> Result<Option<TcpListener>, CliError> {
    let socket = listenfd::ListenFd::from_env().take_tcp_listener(0);
    let listener = socket.and_then(|socket| {
        let Some(socket) = socket else { return Ok(None) };
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket).map(Some)
    });
    listener.map_err(|error| CliError {
        hint: "let the unit's first `ListenStream=` be a TCP port".to_owned(),
        ..failure("cannot take over the socket of systemd", &error)
    })
}

/// Takes the port.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "stop the program that has the port, or set PORT to another one",
            ErrorKind::PermissionDenied => "ports below 1024 are reserved: set PORT to a higher one",
            ErrorKind::AddrNotAvailable => "set HOST to an address of this machine, or to 0.0.0.0 for all of them",
            _ => "check HOST and PORT",
        };
        CliError { hint: hint.to_owned(), ..failure(&format!("cannot listen on {address}"), &error) }
    })
}

/// Where connections come from, until it is told to take no more: they are left to the next process.
pub struct Door {
    listener: TcpListener,
    closed: watch::Receiver<bool>,
    close: watch::Sender<bool>,
    linger: Duration,
}

impl Door {
    /// A socket of our own is closed when we stop. That of systemd stays, so open connections get a moment to send
    /// their request: one that is closed before it was read is an error to its client.
    pub fn new(listener: TcpListener, stays: bool) -> Self {
        let (close, closed) = watch::channel(false);
        Self { listener, closed, close, linger: if stays { LINGER } else { Duration::ZERO } }
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let closed = async { drop(self.closed.wait_for(|closed| *closed).await) };
        tokio::select! {
            biased;
            () = closed => std::future::pending().await,
            accepted = Listener::accept(&mut self.listener) => accepted,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Answers requests until `stop` is ready, then finishes those in flight for up to `grace`.
pub async fn serve(
    door: Door,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> Result<(), CliError> {
    let (tell, told) = oneshot::channel();
    let (close, linger) = (door.close.clone(), door.linger);
    let serving = axum::serve(door, router).with_graceful_shutdown(async move {
        stop.await;
        let _ = close.send(true);
        tokio::time::sleep(linger).await;
        let _ = tell.send(());
    });
    let overdue = async {
        let _ = told.await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        result = serving.into_future() => result.map_err(|error| failure("cannot go on serving", &error)),
        () = overdue => {
            // Stopping was asked for, and it happened: a client that never ends is no failure of the service.
            let _ = writeln!(io::stderr(), "warning: cut off the requests still open after {grace:?}");
            Ok(())
        }
    }
}

/// Is ready when the process is asked to stop: SIGTERM from a process manager, SIGINT from a keyboard.
///
/// The handlers are in place when this returns, not when the result is first awaited.
#[cfg(unix)]
pub fn signal() -> Result<impl Future<Output = ()> + Send + 'static, CliError> {
    use tokio::signal::unix::{SignalKind, signal};

    let handler = |kind| signal(kind).map_err(|error| failure("cannot handle signals", &error));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Is ready when the process is asked to stop, which on this system is a key on the keyboard.
#[cfg(not(unix))]
pub fn signal() -> Result<impl Future<Output = ()> + Send + 'static, CliError> {
    Ok(async {
        // Without a handler the key ends the process by itself; that is then the only way to stop.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// What the operating system did not let happen. The number that Rust adds to its text says nothing to a reader.
pub fn failure(what: &str, error: &io::Error) -> CliError {
    let text = error.to_string();
    let reason = text.split(" (os error ").next().unwrap_or(&text);
    CliError {
        message: format!("{what}: {reason}"),
        hint: "the operating system refused; its log may say more".to_owned(),
        code: 1,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::net::TcpStream;
    use std::sync::{Arc, mpsc};
    use std::thread::{self, JoinHandle};
    use std::time::Instant;

    use tokio::sync::Mutex;

    use super::*;

    /// No test waits this long unless something is broken.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A service on a port of its own, in a thread of its own. Dropping it stops it, so no test leaves one behind.
    struct Service {
        address: SocketAddr,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<JoinHandle<Result<(), CliError>>>,
    }

    impl Service {
        fn start(router: Router, grace: Duration) -> Service {
            let (stop, stopped) = oneshot::channel::<()>();
            let (tell, told) = mpsc::channel();
            let thread = thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
                    let _ = tell.send(listener.local_addr().expect("an address"));
                    let stop = async { stopped.await.unwrap_or_default() };
                    serve(Door::new(listener, false), router, stop, grace).await
                })
            });
            let address = told.recv_timeout(PATIENCE).expect("the service starts");
            Service { address, stop: Some(stop), thread: Some(thread) }
        }

        fn with_files() -> Service {
            Service::start(router(Path::new("static")), GRACE)
        }

        fn ask(&self, target: &str) -> Answer {
            Answer::read(self.send(target))
        }

        fn send(&self, target: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("the request is sent");
            stream
        }

        fn tell_to_stop(&mut self) {
            self.stop.take();
        }

        fn join(&mut self) -> Result<(), CliError> {
            self.thread.take().expect("not joined yet").join().expect("the service does not panic")
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            self.tell_to_stop();
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    struct Answer {
        status: u16,
        head: String,
        body: String,
    }

    impl Answer {
        fn read(mut stream: TcpStream) -> Answer {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("an answer");
            let text = String::from_utf8(bytes).expect("an answer in text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
            Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
        }
    }

    /// A service with the route `/slow`: it reports that a request came in, and answers when it is released.
    fn slow(grace: Duration) -> (Service, mpsc::Receiver<()>, oneshot::Sender<()>) {
        let (arrive, arrived) = mpsc::channel();
        let (release, released) = oneshot::channel::<()>();
        let released = Arc::new(Mutex::new(Some(released)));
        let handler = async move || {
            arrive.send(()).expect("the test is still there");
            let released = released.lock().await.take().expect("one request only");
            released.await.expect("the request is released");
            "done at last"
        };
        (Service::start(Router::new().route("/slow", get(handler)), grace), arrived, release)
    }

    #[test]
    fn health_says_ok() {
        let answer = Service::with_files().ask("/health");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    }

    #[test]
    fn version_tells_what_was_built() {
        let answer = Service::with_files().ask("/version");
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        let (commit, built) = (env!("APP_COMMIT"), env!("APP_BUILT"));
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        assert_eq!(
            answer.body,
            format!(r#"{{"app":"{name}","version":"{version}","commit":"{commit}","built":"{built}"}}"#)
        );
    }

    #[test]
    fn the_folder_is_served() {
        let service = Service::with_files();
        for (target, file, kind) in [
            ("/", "index.html", "text/html"),
            ("/index.html", "index.html", "text/html"),
            ("/style.css", "style.css", "text/css"),
            ("/favicon.svg", "favicon.svg", "image/svg+xml"),
        ] {
            let answer = service.ask(target);
            let expected = fs::read_to_string(Path::new("static").join(file)).expect("a file of the service");
            assert_eq!((answer.status, answer.body), (200, expected), "{target}");
            assert!(answer.head.contains(&format!("content-type: {kind}")), "{target}: {}", answer.head);
            assert!(answer.head.contains("cache-control: no-cache"), "{target}: {}", answer.head);
            assert!(answer.head.contains("etag: "), "{target}: {}", answer.head);
        }
    }

    #[test]
    fn what_is_not_there_is_404() {
        let service = Service::with_files();
        for target in ["/nothing", "/nothing.html", "/health/", "/version/more", "/index.html/more"] {
            let answer = service.ask(target);
            assert_eq!((answer.status, answer.body.as_str()), (404, "not found\n"), "{target}");
        }
    }

    #[test]
    fn nothing_outside_the_folder_is_served() {
        // Without the file this test would pass for the wrong reason.
        assert!(Path::new("static/../Cargo.toml").is_file());
        let service = Service::with_files();
        for target in [
            "/../Cargo.toml",
            "/./../Cargo.toml",
            "//../Cargo.toml",
            "/..//Cargo.toml",
            "/static/../../Cargo.toml",
            "/style.css/../../Cargo.toml",
            "/%2e%2e/Cargo.toml",
            "/.%2e/Cargo.toml",
            "/%2E%2E%2FCargo.toml",
            "/..%2fCargo.toml",
            "/..%5cCargo.toml",
            "/%252e%252e/Cargo.toml",
            "/%2fetc%2fpasswd",
            "//etc/passwd",
            "/..%00/Cargo.toml",
            "/%ff/../Cargo.toml",
        ] {
            let answer = service.ask(target);
            assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.head);
            assert!(!answer.body.contains("[package]") && !answer.body.contains("root:"), "{target}");
        }
    }

    #[test]
    fn a_request_in_flight_is_finished() {
        let (mut service, arrived, release) = slow(PATIENCE);
        let stream = service.send("/slow");
        arrived.recv_timeout(PATIENCE).expect("the request arrives");

        service.tell_to_stop();
        // The listener closes while the request is still open: a new connection has to reach the next service.
        let start = Instant::now();
        while TcpStream::connect(service.address).is_ok() {
            assert!(start.elapsed() < PATIENCE, "the listener is still open");
            thread::sleep(Duration::from_millis(5));
        }
        release.send(()).expect("the request is still open");

        let answer = Answer::read(stream);
        assert_eq!((answer.status, answer.body.as_str()), (200, "done at last"));
        assert_eq!(service.join(), Ok(()));
    }

    #[test]
    fn a_request_that_never_ends_is_cut_off() {
        let (mut service, arrived, _release) = slow(Duration::from_millis(50));
        let mut stream = service.send("/slow");
        arrived.recv_timeout(PATIENCE).expect("the request arrives");

        service.tell_to_stop();
        assert_eq!(service.join(), Ok(()));
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or_default(), 0, "no answer");
    }

    #[test]
    fn idle_connections_do_not_delay_the_stop() {
        let mut service = Service::start(router(Path::new("static")), PATIENCE);
        let silent = TcpStream::connect(service.address).expect("a connection");
        let mut kept = TcpStream::connect(service.address).expect("a connection");
        kept.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").expect("the request is sent");
        let read = kept.read(&mut [0; 1024]).expect("an answer");
        assert!(read > 0, "the connection is kept alive, and answered");

        let start = Instant::now();
        service.tell_to_stop();
        assert_eq!(service.join(), Ok(()));
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        drop((silent, kept));
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_with_a_way_out() {
        let service = Service::with_files();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let failure = runtime.block_on(listen(service.address)).expect_err("the port is taken");
        assert_eq!(failure.code, 1);
        assert!(failure.message.starts_with(&format!("cannot listen on {}: ", service.address)), "{failure}");
        assert!(!failure.message.contains("os error"), "{failure}");
        assert!(failure.hint.contains("PORT"), "{failure}");
    }
}
