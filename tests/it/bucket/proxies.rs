//! Proxies, token services and metadata addresses. Each test records on loopback what is requested; no real server is
//! needed.

use crate::bucket::server::{DENIED, Proxy, recorder};
use crate::project::{Project, Ran, free_port};

const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
const S3: &str = "s3://builds/shop";
const AZURE: &str = "az://builds/shop";
const GOOGLE: &str = "gs://builds/shop";
const AWS_KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "localkey"), ("AWS_SECRET_ACCESS_KEY", "localsecret")];

/// A project with a release that waits to be put, and these variables.
fn project(store: &str, vars: &[(&str, &str)]) -> Project {
    let mut p = Project::new();
    p.change("store file:store\n", &format!("store {store}\n"));
    p.release("1");
    p.var("GANGPLANK_API_DEADLINE", "2");
    p.var("HOME", &p.path("").display().to_string());
    for (name, value) in vars {
        p.var(name, value);
    }
    p
}

fn put(store: &str, vars: &[(&str, &str)]) -> Ran {
    project(store, vars).run("put")
}

/// Asserts that something was asked.
#[track_caller]
fn asked(recorder: &Proxy, piece: &str) {
    let log = recorder.log();
    assert!(log.iter().any(|line| line.contains(piece)), "`{piece}` is not in {log:?}");
}

#[test]
fn put_to_server_on_this_machine_uses_no_proxy() {
    for (store, endpoint, more) in [
        (S3, "S3_ENDPOINT", &AWS_KEYS[..]),
        (AZURE, "AZURE_STORAGE_ENDPOINT", &[("AZURE_STORAGE_ACCOUNT", "acme"), ("AZURE_STORAGE_KEY", "c2VzYW1l")]),
        (GOOGLE, "GOOGLE_BASE_URL", &[("GOOGLE_BEARER_TOKEN", "sesame-open")]),
    ] {
        let (server, proxy) = (recorder(DENIED), recorder(BAD_GATEWAY));
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
            let (through, to) = (proxy.url(), server.url());
            put(store, &[&[(variable, through.as_str()), (endpoint, &to)], more].concat()).fails(
                3,
                "access denied",
                "docs/s3.md",
            );
            assert_eq!(proxy.log(), [""; 0], "{store} {variable}");
        }
        asked(&server, "/builds");
    }
}

#[test]
fn put_to_another_machine_uses_the_proxy() {
    let proxy = recorder(DENIED);
    let plain = [("S3_ENDPOINT", "http://s3.invalid"), ("AWS_ALLOW_HTTP", "true"), ("HTTP_PROXY", &proxy.url())];
    put(S3, &[&plain, &AWS_KEYS[..]].concat()).fails(3, "access denied", "s3:");
    asked(&proxy, "http://s3.invalid/builds");
    let tunnel = recorder(BAD_GATEWAY);
    let named = format!("the proxy {} (https_proxy)", tunnel.url());
    let vars = [("S3_ENDPOINT", "https://s3.invalid"), ("https_proxy", &tunnel.url())];
    put(S3, &[&vars, &AWS_KEYS[..]].concat()).fails(4, &named, "NO_PROXY=s3.invalid");
    asked(&tunnel, "CONNECT s3.invalid:443");
}

#[test]
fn put_through_proxy_that_is_down_names_it_without_its_password() {
    let port = free_port();
    let proxy = format!("http://ana:sesame-open@127.0.0.1:{port}");
    for (endpoint, variable) in [("http://s3.invalid", "HTTP_PROXY"), ("https://s3.invalid", "HTTPS_PROXY")] {
        let vars = [("S3_ENDPOINT", endpoint), ("AWS_ALLOW_HTTP", "true"), (variable, &proxy)];
        let named = format!("the proxy http://127.0.0.1:{port} ({variable}): Connection refused");
        let hint = format!("start the proxy, correct {variable}, or set NO_PROXY=s3.invalid");
        let ran = put(S3, &[&vars, &AWS_KEYS[..]].concat()).fails(4, &named, &hint);
        assert!(!ran.stderr.contains("sesame"), "{}", ran.stderr);
    }
    let closed = recorder("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    let vars = [("S3_ENDPOINT", "https://s3.invalid"), ("HTTPS_PROXY", &closed.url())];
    put(S3, &[&vars, &AWS_KEYS[..]].concat()).fails(4, "requires a login", "set HTTPS_PROXY=http://USER:PASSWORD@");
    let vars = [("S3_ENDPOINT", "https://s3.invalid"), ("HTTPS_PROXY", "socks5://127.0.0.1:1080")];
    put(S3, &[&vars, &AWS_KEYS[..]].concat()).fails(2, "names a proxy with the scheme `socks5`", "HTTPS_PROXY=http://");
}

#[test]
fn exchange_of_a_token_goes_through_the_proxy() {
    let role = [("AWS_ROLE_ARN", "arn:aws:iam::1:role/deploy"), ("CIRCLE_OIDC_TOKEN_V2", "sesame.open.now")];
    let (tunnel, port) = (recorder(BAD_GATEWAY), free_port());
    let far = ("AWS_ENDPOINT_URL_STS", "https://sts.invalid");
    let what = "cannot assume the role arn:aws:iam::1:role/deploy at https://sts.invalid: the proxy";
    let ran = put(S3, &[&[far, ("HTTPS_PROXY", &tunnel.url())], &role[..]].concat());
    ran.fails(4, &format!("{what} {} (HTTPS_PROXY)", tunnel.url()), "NO_PROXY=sts.invalid");
    asked(&tunnel, "CONNECT sts.invalid:443");
    let down = format!("http://127.0.0.1:{port}");
    let ran = put(S3, &[&[far, ("HTTPS_PROXY", &down)], &role[..]].concat());
    ran.fails(4, &format!("{what} {down} (HTTPS_PROXY): Connection refused"), "start the proxy");
    // A service on this machine is asked directly.
    let (service, proxy) = (recorder(DENIED), recorder(BAD_GATEWAY));
    let near = [("AWS_ENDPOINT_URL_STS", service.url()), ("HTTP_PROXY", proxy.url())];
    let near: Vec<_> = near.iter().map(|(name, value)| (*name, value.as_str())).collect();
    put(S3, &[&near[..], &role].concat()).fails(3, "AccessDenied", "trust policy");
    asked(&service, "POST / ");
    assert_eq!(proxy.log(), [""; 0]);
}

#[test]
fn metadata_address_is_asked_only_where_a_variable_names_it() {
    let account = ("AZURE_STORAGE_ACCOUNT", "acme");
    let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1");
    for (store, vars) in [
        (S3, &[][..]),
        (S3, &[uri]),
        (AZURE, &[account]),
        (AZURE, &[account, ("AZURE_CLIENT_ID", "1"), ("AZURE_TENANT_ID", "2")]),
        (AZURE, &[("AZURE_STORAGE_KEY", "c2VzYW1l")]),
        (GOOGLE, &[("GOOGLE_CLOUD_PROJECT", "acme")]),
        (GOOGLE, &[("GOOGLE_BUCKET", "builds")]),
    ] {
        let proxy = recorder(BAD_GATEWAY);
        put(store, &[vars, &[("HTTP_PROXY", &proxy.url())]].concat()).fails(3, "no credentials: set ", "docs/s3.md");
        assert_eq!(proxy.log(), [""; 0], "{store} {vars:?}");
    }
    for (store, variable, path, more) in [
        (S3, "AWS_METADATA_ENDPOINT", "", &[("S3_ENDPOINT", "http://127.0.0.1:1")][..]),
        (AZURE, "AZURE_MSI_ENDPOINT", "/token", &[account]),
        (GOOGLE, "GCE_METADATA_HOST", "", &[("GCE_METADATA_IP", "127.0.0.1:1")]),
    ] {
        let named = recorder(DENIED);
        let url = format!("{}{path}", named.url());
        let value = if store == GOOGLE { url.trim_start_matches("http://") } else { &url };
        assert_ne!(put(store, &[&[(variable, value)], more].concat()).code, 0);
        asked(&named, " /");
    }
}

#[test]
fn put_to_endpoint_that_names_the_bucket_is_refused() {
    let server = recorder(DENIED);
    let own = format!("{}/builds", server.url());
    let ran = put(S3, &[&[("S3_ENDPOINT", own.as_str())], &AWS_KEYS[..]].concat());
    ran.fails(2, "S3_ENDPOINT already contains the bucket `builds`", &format!("set S3_ENDPOINT={}", server.url()));
    let ran =
        put(S3, &[&[("AWS_ENDPOINT_URL_S3", "https://builds.s3.eu-west-1.amazonaws.com")], &AWS_KEYS[..]].concat());
    ran.fails(
        2,
        "AWS_ENDPOINT_URL_S3 already contains the bucket",
        "AWS_ENDPOINT_URL_S3=https://s3.eu-west-1.amazonaws.com",
    );
    assert_eq!(server.log(), [""; 0]);
}
