//! Azurite, which is Microsoft's own emulator of Azure's storage: one for all tests, on loopback, in a directory.

use crate::project::{ENDS_WITH_TESTS, base64, base64_decoded, free_port, output_of, root};
use crate::record::skip;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const CONTAINER: &str = "gangplank-tests";
pub const ACCOUNT: &str = "devstoreaccount1";
/// The key of every emulator, which Microsoft publishes.
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const VERSION: &str = "2021-12-02";

pub struct Azurite {
    port: u16,
    _server: Child,
}

/// The server of this test run; nothing where Azurite is not installed. `cargo xtask test --all azure` installs it.
pub fn azurite() -> Option<&'static Azurite> {
    static SHARED: OnceLock<Option<Azurite>> = OnceLock::new();
    SHARED.get_or_init(Azurite::start).as_ref()
}

/// A prefix that no other test uses.
pub fn fresh_url() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("az://{CONTAINER}/test-{}/shop", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The program, where the group's installation or npm has put it.
fn program() -> Option<PathBuf> {
    let installed = root().join("target/tools/azurite/node_modules/.bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(installed).chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join("azurite-blob")).find(|program| program.exists())
}

impl Azurite {
    fn start() -> Option<Self> {
        let Some(program) = program() else {
            skip("containers of Azure on a real server: Azurite is not installed (npm install azurite)");
            return None;
        };
        let port = free_port();
        // What is shared by all tests is never dropped, so each start removes what the last one left.
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("azurite");
        let _ = std::fs::remove_dir_all(&dir);
        let mut command = Command::new("sh");
        command.args(["-c", ENDS_WITH_TESTS, "azurite"]).arg(program).args([
            "--silent",
            "--disableTelemetry",
            "--location",
        ]);
        command.arg(&dir).args(["--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        let server = command.stdin(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "Azurite did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let azurite = Self { port, _server: server };
        azurite.make(CONTAINER);
        Some(azurite)
    }

    /// `http://127.0.0.1:PORT/ACCOUNT`
    pub fn endpoint(&self) -> String {
        format!("{}/{ACCOUNT}", self.url())
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The variables with which it is used.
    pub fn vars(&self) -> [(String, String); 3] {
        [
            ("AZURE_STORAGE_ACCOUNT".into(), ACCOUNT.into()),
            ("AZURE_STORAGE_KEY".into(), KEY.into()),
            ("AZURE_STORAGE_ENDPOINT".into(), self.endpoint()),
        ]
    }

    /// As Azure's portal shows it.
    pub fn connection_string(&self) -> String {
        let endpoint = self.endpoint();
        format!("DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};")
    }

    /// Makes a container.
    fn make(&self, name: &str) {
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let path = format!("/{ACCOUNT}/{name}");
        let text = format!(
            "PUT{}x-ms-date:{date}\nx-ms-version:{VERSION}\n/{ACCOUNT}{path}\nrestype:container",
            "\n".repeat(12)
        );
        let url = format!("{}{path}?restype=container", self.url());
        let headers = [
            format!("x-ms-date: {date}"),
            format!("x-ms-version: {VERSION}"),
            format!("Authorization: SharedKey {ACCOUNT}:{}", sign(&text)),
            "Content-Type:".to_owned(),
        ];
        let headers: Vec<_> = headers.iter().flat_map(|header| ["-H", header]).collect();
        output_of("curl", &[&["-sS", "--fail-with-body", "-X", "PUT", "-d", ""][..], &headers, &[&url]].concat(), b"");
    }
}

/// A shared access signature of the container, with permissions, that expires in so many hours.
pub fn signature(permissions: &str, hours: i64) -> String {
    let now = jiff::Timestamp::now();
    let time = |hours| (now + jiff::SignedDuration::from_hours(hours)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (start, end) = (time(-48), time(hours));
    let text =
        [permissions, &start, &end, &format!("/blob/{ACCOUNT}/{CONTAINER}"), "", "", "", VERSION, "c"].join("\n");
    let sig = sign(&format!("{text}{}", "\n".repeat(7))).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={VERSION}&sr=c&sp={permissions}&st={start}&se={end}&sig={sig}")
}

/// The signature of a text with the key of the account.
fn sign(text: &str) -> String {
    let key = base64_decoded(KEY);
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let hmac = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-binary"];
    base64(&output_of("openssl", &hmac, text.as_bytes()))
}
