//! The Ceph of the tests, and a proxy before it that does as a test says at any request.

use crate::parts::ctx;
use crate::record::skip;
use gangplank_bucket::ceph::Ceph;
use gangplank_bucket::object::Bucket;
use gangplank_bucket::object::settings::settings;
use gangplank_system::context::Context;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

pub const BUCKET: &str = "gangplank-tests";

/// The server of this test run; `None` without Ceph. CI must have it, so that these tests are never skipped there.
pub fn ceph() -> Option<&'static Ceph> {
    static SHARED: OnceLock<Option<Ceph>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let dir = own_dir();
        if !Ceph::is_installed(&ctx(&dir)) {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "install radosgw, ceph-mon and ceph-osd");
            skip("buckets on a real server: Ceph is not installed (radosgw, ceph-mon, ceph-osd)");
            return None;
        }
        let ceph = Ceph::start(&dir).unwrap();
        make_bucket(&ceph);
        Some(ceph)
    });
    shared.as_ref()
}

/// A directory of this process. What is shared by all tests is never dropped, so those of ended processes go here.
pub fn own_dir() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in std::fs::read_dir(tmp).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("ceph-").is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    tmp.join(format!("ceph-{}", std::process::id()))
}

pub fn make_bucket(ceph: &Ceph) {
    let dir = crate::record::tempdir();
    let ctx = with(dir.path(), &ceph.vars());
    let url = format!("s3://{BUCKET}");
    Bucket::open(&ctx, &url, &settings(&url, ctx.vars(), &|_| None).unwrap()).unwrap().make().unwrap();
}

/// A context with variables.
pub fn with(dir: &Path, vars: &[(String, String)]) -> Context {
    ctx(dir).with_vars(vars.iter().cloned())
}

/// A prefix that no other test uses.
pub fn fresh_url() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("s3://{BUCKET}/test-{}/shop", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What becomes of a request.
pub enum Fate {
    Forward,
    /// This answer, and the server never sees it.
    Answer(String),
    /// The connection ends after so many bytes of the request.
    CutRequest(usize),
    /// It is forwarded, and the connection ends after so many bytes of the answer.
    CutAnswer(usize),
    /// It is held for ever.
    Silence,
}

type Decide = Box<dyn Fn(usize, &str) -> Fate + Send + Sync>;

/// Stands before a server and decides about each request by its number, from 0, and its first line.
pub struct Proxy {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn new(to: &str, decide: Decide) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, lines) = (to.trim_start_matches("http://").to_owned(), Arc::new(Mutex::new(Vec::new())));
        let (decide, log) = (Arc::new(decide), Arc::clone(&lines));
        let sent = Arc::new(AtomicUsize::new(0));
        let sum = Arc::clone(&sent);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (to, decide, log, sum) = (to.clone(), Arc::clone(&decide), Arc::clone(&log), Arc::clone(&sum));
                std::thread::spawn(move || serve(client, &to, &**decide, (&log, &sum)));
            }
        });
        Self { port, lines, sent }
    }

    /// The bytes of the bodies of all requests.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The first lines of all requests.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// A server, or a proxy, that writes down what it is asked and answers everything alike.
pub fn recorder(answer: &'static str) -> Proxy {
    Proxy::new("", Box::new(move |_, _| Fate::Answer(answer.to_owned())))
}

/// What a bucket answers to a key that it does not let in.
pub const DENIED: &str =
    "HTTP/1.1 403 Forbidden\r\nContent-Length: 45\r\n\r\n<Error><Code>AccessDenied</Code></Error>     ";

/// One connection: request after request, each with its whole body before its answer.
fn serve(
    mut client: TcpStream,
    to: &str,
    decide: &dyn Fn(usize, &str) -> Fate,
    (log, sum): (&Mutex<Vec<String>>, &AtomicUsize),
) {
    let mut server = None;
    while let Some((head, length)) = head(&mut client) {
        let line = head.lines().next().unwrap_or_default().to_owned();
        let number = {
            let mut log = log.lock().unwrap();
            log.push(line.clone());
            log.len() - 1
        };
        let fate = decide(number, &line);
        if let Fate::CutRequest(bytes) = fate
            && bytes == 0
        {
            break;
        }
        let mut body = vec![0; length];
        sum.fetch_add(length, Ordering::Relaxed);
        // The server is not asked for what was answered here.
        let expects = |line: &&str| line.to_ascii_lowercase().starts_with("expect: 100-continue");
        let (asked, lines): (Vec<_>, Vec<_>) = head.split_inclusive("\r\n").partition(expects);
        if !asked.is_empty() {
            let _ = client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let head = lines.concat();
        if client.read_exact(&mut body).is_err() {
            break;
        }
        let mut reach = || server.take().unwrap_or_else(|| TcpStream::connect(to).unwrap());
        match fate {
            Fate::Answer(text) => {
                if client.write_all(text.as_bytes()).is_err() {
                    break;
                }
            }
            Fate::Silence => std::thread::sleep(Duration::from_secs(3600)),
            Fate::CutRequest(bytes) => {
                let mut server = reach();
                let _ = server.write_all(head.as_bytes()).and_then(|()| server.write_all(&body[..bytes.min(length)]));
                break;
            }
            Fate::Forward | Fate::CutAnswer(_) => {
                let mut connected = reach();
                if connected.write_all(head.as_bytes()).and_then(|()| connected.write_all(&body)).is_err() {
                    break;
                }
                let most = if let Fate::CutAnswer(bytes) = fate { bytes } else { usize::MAX };
                if !answer(&mut connected, &mut client, line.starts_with("HEAD "), most) {
                    break;
                }
                server = Some(connected);
            }
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// The head of a message, and the length of the body that follows.
fn head(stream: &mut TcpStream) -> Option<(String, usize)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some((head, length.unwrap_or(0)))
}

/// Hands an answer on; whether all of it went.
fn answer(server: &mut TcpStream, client: &mut TcpStream, is_head: bool, most: usize) -> bool {
    let Some((head, length)) = head(server) else { return false };
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let mut whole = head.into_bytes();
    if !is_head && !chunked {
        let at = whole.len();
        whole.resize(at + length, 0);
        if server.read_exact(&mut whole[at..]).is_err() {
            return false;
        }
    }
    if !is_head && chunked {
        let mut byte = [0];
        while !whole.ends_with(b"\r\n0\r\n\r\n") {
            if server.read_exact(&mut byte).is_err() {
                return false;
            }
            whole.push(byte[0]);
        }
    }
    let part = &whole[..whole.len().min(most)];
    client.write_all(part).is_ok() && part.len() == whole.len()
}
