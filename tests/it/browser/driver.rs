//! Chromium by `ChromeDriver`: the requests of the W3C's `WebDriver` that these tests need.

use crate::project::{ENDS_WITH_TESTS, base64_decoded, free_port, output_of};
use crate::record::{skip, tempdir};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A browser with a profile of its own.
pub struct Browser {
    session: String,
    _driver: Child,
    _profile: TempDir,
}

/// A screen.
#[derive(Clone, Copy)]
pub struct Look {
    pub name: &'static str,
    scheme: &'static str,
    width: u32,
}

impl Look {
    pub const LIGHT: Self = Self { name: "light", scheme: "light", width: 1200 };
    pub const DARK: Self = Self { name: "dark", scheme: "dark", width: 1200 };
    pub const PHONE: Self = Self { name: "phone", scheme: "light", width: 390 };
}

impl Browser {
    /// Starts one; nothing where Chromium is not installed. `cargo xtask test --all browser` installs it.
    pub fn start() -> Option<Self> {
        if Command::new("chromedriver").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "install chromium and chromium-driver");
            skip("pages in a browser: Chromium is not installed (chromium, chromium-driver)");
            return None;
        }
        let (port, profile) = (free_port(), tempdir());
        let mut command = Command::new("sh");
        command.args(["-c", ENDS_WITH_TESTS, "chromedriver", "chromedriver", &format!("--port={port}")]);
        let driver = command.stdin(Stdio::piped()).env("HOME", profile.path()).spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "ChromeDriver does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let answer = request(&base, &wanted);
        let session = format!("{base}/{}", answer["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}")));
        Some(Self { session, _driver: driver, _profile: profile })
    }

    /// Opens a file, and gives the milliseconds from the start of its navigation to the first frame after it was loaded.
    pub fn open(&self, file: &Path, look: Look) -> f64 {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": look.scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
        let screen = json!({ "width": look.width, "height": 1600, "deviceScaleFactor": 1, "mobile": look.width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", &screen);
        self.ask("url", &json!({ "url": format!("file://{}", file.display()) }));
        let drawn =
            "return new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))";
        self.run(drawn).as_f64().unwrap()
    }

    /// Runs a script in the page, and gives what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.ask("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// A picture of the screen, as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let asked = json!({ "captureBeyondViewport": true });
        let answer = self.devtools("Page.captureScreenshot", &asked);
        base64_decoded(answer["data"].as_str().unwrap())
    }

    /// What the console of the page has printed since the last call.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    fn devtools(&self, command: &str, params: &Value) -> Value {
        self.ask("goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    fn ask(&self, what: &str, body: &Value) -> Value {
        request(&format!("{}/{what}", self.session), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ =
            Command::new("curl").args(["--silent", "--max-time", "10", "--request", "DELETE", &self.session]).output();
    }
}

/// A request; fails the test for an error of the driver.
fn request(url: &str, body: &Value) -> Value {
    let args =
        ["--silent", "--max-time", "120", "--header", "Content-Type: application/json", "--data-binary", "@-", url];
    let answer = output_of("curl", &args, body.to_string().as_bytes());
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(answer["value"].get("error").is_none(), "{url}: {answer}");
    answer["value"].clone()
}
