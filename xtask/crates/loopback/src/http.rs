//! HTTP/1.1: reads a request from a connection and writes its response. One request per connection, so that an idle
//! client blocks nothing.

use crate::message::{Body, Listener, Reply, Request};
use crate::percent::decode;
use gangplank_model::error::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const HEAD_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
const BODY_MAX: usize = 1 << 20;

/// The time limit of a silent client.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a request. An `Err` is the response to an invalid one, `None` if the client is gone.
pub(super) fn read(stream: &mut TcpStream, host: Listener) -> Result<Request, Option<Reply>> {
    let bad = || Some(Reply::message(400, "Bad request."));
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 8 << 10];
        let n = stream.read(&mut chunk).map_err(|_| None)?;
        if n == 0 {
            return Err(if bytes.is_empty() { None } else { bad() });
        }
        bytes.extend_from_slice(&chunk[..n]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(&bytes) {
            Ok(httparse::Status::Complete(end)) => {
                let mut request = request(&head, host).ok_or_else(bad)?;
                let length = body_length(&request)?;
                let mut body = bytes.split_off(end);
                body.truncate(length);
                let missing = length - body.len();
                stream.take(missing as u64).read_to_end(&mut body).map_err(|_| None)?;
                if body.len() < length {
                    return Err(bad());
                }
                request.body = body;
                return Ok(request);
            }
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(Some(Reply::message(431, "Request header fields too large.")));
            }
            Err(_) => return Err(bad()),
        }
    }
}

/// Parses the head of a request. Absolute targets are for proxies, so only a path is accepted.
fn request(head: &httparse::Request, host: Listener) -> Option<Request> {
    let target = head.path.filter(|target| target.starts_with('/'))?;
    let target = target.split('#').next().unwrap_or_default();
    let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
    let mut query = BTreeMap::new();
    for pair in raw_query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        query.insert(decode(name, true)?, decode(value, true)?);
    }
    let mut headers = BTreeMap::<String, String>::new();
    for header in head.headers.iter() {
        let value = String::from_utf8_lossy(header.value).trim().to_owned();
        headers
            .entry(header.name.to_ascii_lowercase())
            .and_modify(|known| *known = format!("{known}, {value}"))
            .or_insert(value);
    }
    Some(Request {
        host,
        authority: headers.get("host").cloned()?,
        method: head.method?.to_owned(),
        path: decode(raw_path, false)?,
        raw_path: raw_path.to_owned(),
        query,
        headers,
        body: Vec::new(),
    })
}

fn body_length(request: &Request) -> Result<usize, Option<Reply>> {
    if request.headers.contains_key("transfer-encoding") {
        return Err(Some(Reply::message(411, "Length required.")));
    }
    match request.headers.get("content-length").map(|text| text.parse::<usize>()) {
        None => Ok(0),
        Some(Ok(length)) if length <= BODY_MAX => Ok(length),
        Some(Ok(_)) => Err(Some(Reply::message(413, "Request entity too large."))),
        Some(Err(_)) => Err(Some(Reply::message(400, "Bad request."))),
    }
}

/// A response with its body opened, so that its status is final.
pub(super) struct Ready {
    pub status: u16,
    head: String,
    body: Box<dyn Read>,
}

/// Opens the body of a response, and applies ranges.
pub(super) fn ready(reply: Reply, request: Option<&Request>) -> Ready {
    let mut headers = reply.headers;
    let mut status = reply.status;
    let (body, cut) = match reply.body {
        Body::Cut(body, after) => (*body, Some(after)),
        body => (body, None),
    };
    let (content_type, mut body, length): (String, Box<dyn Read>, u64) = match body {
        Body::Json(value) => of_bytes("application/json", value.to_string().into_bytes()),
        Body::Text { content_type, text } => of_bytes(&content_type, text.into_bytes()),
        Body::Bytes(bytes) => of_bytes("application/octet-stream", bytes),
        // The inner fault adds nothing.
        Body::Cut(..) => of_bytes("text/plain", Vec::new()),
        Body::File(path) => match File::open(path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((length, file)) => {
                headers.push(("Accept-Ranges".into(), "bytes".into()));
                let range = request.and_then(|request| request.headers.get("range"));
                of_file(file, length, range.map(String::as_str), &mut status, &mut headers)
            }
            Err(_) => {
                status = 404;
                of_bytes("text/plain", b"The file is gone.\n".to_vec())
            }
        },
    };
    let mut head = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\n", reason(status));
    let _ = write!(head, "Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
    for (name, value) in &headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let without = matches!(status, 204 | 304) || request.is_some_and(|request| request.method == "HEAD");
    if without {
        body = Box::new(io::empty());
    } else if let Some(after) = cut {
        body = Box::new(body.take(after));
    }
    Ready { status, head, body }
}

fn of_bytes(content_type: &str, bytes: Vec<u8>) -> (String, Box<dyn Read>, u64) {
    let length = bytes.len() as u64;
    (content_type.to_owned(), Box::new(io::Cursor::new(bytes)), length)
}

/// `bytes=N-` and `bytes=N-M`; for any other range, a server may answer with the whole.
fn of_file(
    mut file: File,
    length: u64,
    range: Option<&str>,
    status: &mut u16,
    headers: &mut Vec<(String, String)>,
) -> (String, Box<dyn Read>, u64) {
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let parsed = range.and_then(|(from, to)| {
        let to = if to.is_empty() { u64::MAX } else { to.parse().ok()? };
        from.parse::<u64>().ok().filter(|from| *from <= to).map(|from| (from, to))
    });
    let content_type = "application/octet-stream".to_owned();
    let Some((from, to)) = parsed.filter(|_| *status == 200) else {
        return (content_type, Box::new(file.take(length)), length);
    };
    if from >= length || file.seek(SeekFrom::Start(from)).is_err() {
        *status = 416;
        headers.push(("Content-Range".into(), format!("bytes */{length}")));
        return of_bytes("text/plain", Vec::new());
    }
    *status = 206;
    let last = to.min(length - 1);
    headers.push(("Content-Range".into(), format!("bytes {from}-{last}/{length}")));
    (content_type, Box::new(file.take(last - from + 1)), last - from + 1)
}

/// Writes a response and closes the connection, without losing the response.
pub(super) fn write(stream: &mut TcpStream, ready: Ready) {
    let mut body = ready.body;
    let written = stream.write_all(ready.head.as_bytes()).and_then(|()| io::copy(&mut body, stream));
    if written.is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        // Closing with unread bytes of the request would reset the connection, and the response might be lost.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = io::copy(&mut stream.take(4 << 20), &mut io::sink());
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        206 => "Partial Content",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        _ => "Other",
    }
}
