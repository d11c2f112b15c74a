//! A bucket behind certificates that no authority of the system has signed: nginx before Ceph.

use crate::bucket::project;
use crate::bucket::server::{ceph, fresh_url};
use crate::cli::doctor::broken;
use crate::project::{free_port, output_of};
use crate::record::skip;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// nginx with a certificate of its own for `localhost`, before a server.
struct Nginx {
    child: Child,
    dir: TempDir,
    port: u16,
}

impl Nginx {
    fn start(to: &str) -> Option<Self> {
        if !Path::new("/usr/sbin/nginx").exists() {
            skip("a bucket with a certificate of its own: nginx is not installed");
            return None;
        }
        let (dir, port) = (crate::record::tempdir(), free_port());
        let file = |name: &str| dir.path().join(name).display().to_string();
        make_certificate(dir.path());
        let config = format!(
            "daemon off; pid {0}/pid; error_log {0}/log; events {{}} http {{ access_log off; client_max_body_size 0; \
             client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/a; uwsgi_temp_path {0}/b; \
             scgi_temp_path {0}/c; server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {0}/ca.pem; \
             ssl_certificate_key {0}/key.pem; location / {{ proxy_pass {to}; proxy_set_header Host $http_host; \
             proxy_request_buffering off; }} }} }}",
            dir.path().display()
        );
        std::fs::write(dir.path().join("conf"), config).unwrap();
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.args(["-c", &file("conf"), "-e", &file("log")]).stdin(Stdio::null()).stderr(Stdio::null());
        let nginx = Self { child: nginx.spawn().unwrap(), dir, port };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Some(nginx)
    }
}

/// Makes a self-signed certificate for `localhost`: `ca.pem` and `key.pem` in a directory.
pub fn make_certificate(dir: &Path) {
    let file = |name: &str| dir.join(name).display().to_string();
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    let names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    output_of("openssl", &[&new[..], &names, &["-keyout", &file("key.pem"), "-out", &file("ca.pem")]].concat(), b"");
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked to, it ends its worker as well.
        output_of("kill", &[&self.child.id().to_string()], b"");
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "group bucket"]
fn put_with_ca_bundle_trusts_the_certificates_in_it() {
    let Some(ceph) = ceph() else { return };
    let Some(nginx) = Nginx::start(&ceph.url()) else { return };
    let url = fresh_url();
    let mut p = project(&url, &format!("https://localhost:{}", nginx.port));
    p.var("GANGPLANK_API_DEADLINE", "2");
    p.release("1");
    let hint = "set AWS_CA_BUNDLE to its file in PEM";
    p.run("put").fails(4, "invalid peer certificate", hint);
    broken(&p, "doctor", "invalid peer certificate", hint);
    p.var("AWS_CA_BUNDLE", &nginx.dir.path().join("ca.pem").display().to_string());
    p.run("put").ok();
    p.run("publish").ok();
    p.run("deploy dev latest").ok();
    // The exchange of a token trusts them too: it gets as far as a refusal.
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_ROLE_ARN", "arn:aws:iam:::role/missing"),
        ("CIRCLE_OIDC_TOKEN_V2", "sesame.open.now"),
        ("AWS_ENDPOINT_URL_STS", &format!("https://localhost:{}", nginx.port)),
    ] {
        p.var(name, value);
    }
    p.run("put").fails(3, "cannot assume the role", "trust policy");
    p.var("AWS_CA_BUNDLE", &p.path("none.pem").display().to_string());
    p.run("put").fails(2, "which cannot be read", "set AWS_CA_BUNDLE to a file of certificates in PEM");
}
