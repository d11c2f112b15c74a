//! Settings of S3 buckets: the variables and the two files of AWS.
//!
//! Names and precedence: <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

use crate::object::settings::endpoint::Endpoint;
use crate::object::settings::values::{Credentials, Files, Role, Scheme, Settings, Vars, is_on};
use gangplank_model::error::{CliError, Kind, Result, usage};
use gangplank_system::http;
use gangplank_system::http::policy::is_secure;
use gangplank_system::http::proxy::Proxies;
use gangplank_system::http::{CaBundle, NetworkOptions, Secret};
use std::collections::BTreeMap;

/// The AWS variables passed to the library. Bucket and endpoint are not among them: the first is in the store's URL,
/// the second is handled here.
const PASSED_ON: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
    "AWS_REQUEST_PAYER",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_KMS_KEY_ID",
];

/// Reads the settings of an `s3://` store.
pub fn settings(
    url: &str,
    (bucket, prefix): (String, String),
    vars: &BTreeMap<String, String>,
    files: Files,
) -> Result<Settings> {
    let var = |name: &str| Vars(vars).get(name);
    let profile = Profile::read(vars, files);
    let mut options: BTreeMap<String, String> = vars
        .iter()
        .filter(|(name, value)| PASSED_ON.contains(&name.as_str()) && !value.is_empty())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    let region = var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION")).or_else(|| profile.get("region"));
    let region = region.unwrap_or("us-east-1").to_owned();
    options.insert("aws_region".into(), region.clone());
    let named = ["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    let named = named.into_iter().find_map(|name| Some((name, var(name)?)));
    for name in ["AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] {
        options.insert(name.to_ascii_lowercase(), is_on(var(name)).to_string());
    }
    let endpoint = match named.or_else(|| Some(("endpoint_url", profile.get("endpoint_url")?))) {
        None => http::url(&format!("https://s3.{region}.amazonaws.com"))
            .map_err(|_| usage(format!("AWS_REGION={region} is not a region")).hint("set it to e.g. eu-central-1"))?,
        Some((name, text)) => {
            let endpoint = own_endpoint(url, &bucket, name, text, vars)?;
            options.insert("aws_endpoint_url_s3".into(), endpoint.text());
            endpoint.url
        }
    };
    let credentials = credentials(vars, &profile, &region, files)?;
    if matches!(credentials, Credentials::Given) && var("AWS_ACCESS_KEY_ID").is_none() {
        for key in ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"] {
            options.extend(profile.get(key).map(|value| (key.to_owned(), value.to_owned())));
        }
    }
    let network = NetworkOptions { proxies: Proxies::from_vars(vars), ca_bundle: ca_bundle(vars, &profile, files)? };
    let signs = !is_on(var("AWS_SKIP_SIGNATURE"));
    // The library asks the metadata address for a key even if requests are not signed.
    if is_on(var("AWS_SKIP_SIGNATURE")) {
        options.extend(["aws_access_key_id", "aws_secret_access_key"].map(|key| (key.to_owned(), "none".to_owned())));
    }
    let key_name = "AWS_SECRET_ACCESS_KEY".into();
    let endpoint = Some(endpoint);
    Ok(Settings { scheme: Scheme::S3, bucket, prefix, options, endpoint, credentials, signs, network, key_name })
}

fn own_endpoint(
    store: &str,
    bucket: &str,
    name: &str,
    text: &str,
    vars: &BTreeMap<String, String>,
) -> Result<Endpoint> {
    let var = |name: &str| vars.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let allowed = if is_on(var("AWS_ALLOW_HTTP")) { "true" } else { "" };
    let endpoint = Endpoint::parse(store, name, text, Some(allowed))?;
    let style = var("AWS_VIRTUAL_HOSTED_STYLE_REQUEST");
    if is_on(style) {
        return endpoint.with_bucket(store, bucket);
    }
    endpoint.without_bucket(store, bucket, style.is_some())?;
    Ok(endpoint)
}

/// The certificates of `AWS_CA_BUNDLE`, which replace the system's, as in AWS's own tools.
fn ca_bundle(vars: &BTreeMap<String, String>, profile: &Profile, files: Files) -> Result<Option<CaBundle>> {
    let named = vars.get("AWS_CA_BUNDLE").map(String::as_str).filter(|path| !path.is_empty());
    let named = named.map(|path| ("AWS_CA_BUNDLE", path));
    let Some((name, path)) = named.or_else(|| Some(("ca_bundle", profile.get("ca_bundle")?))) else { return Ok(None) };
    let wrong = |reason: &str| {
        usage(format!("{name} names {path}, {reason}")).hint(format!("set {name} to a file of certificates in PEM"))
    };
    let text = files(path).ok_or_else(|| wrong("which cannot be read"))?;
    CaBundle::parse(&text).map(Some).ok_or_else(|| wrong("which contains no certificate in PEM").into())
}

fn credentials(vars: &BTreeMap<String, String>, profile: &Profile, region: &str, files: Files) -> Result<Credentials> {
    let var = |name: &str| vars.get(name).map(String::as_str).filter(|value| !value.is_empty());
    match (var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY")) {
        (Some(_), Some(_)) => return Ok(Credentials::Given),
        (None, None) => {}
        (have, _) => {
            let missing = if have.is_some() { "AWS_SECRET_ACCESS_KEY" } else { "AWS_ACCESS_KEY_ID" };
            return CliError::new(Kind::Auth, format!("{missing} is not set, but its other half is"))
                .hint("set both in the context of the job")
                .err();
        }
    }
    if let Some(arn) = var("AWS_ROLE_ARN") {
        let file = var("AWS_WEB_IDENTITY_TOKEN_FILE").and_then(files);
        let token = var("CIRCLE_OIDC_TOKEN_V2").or_else(|| var("CIRCLE_OIDC_TOKEN")).map(str::to_owned);
        let Some(token) = file.map(|text| text.trim().to_owned()).or(token) else {
            let what = "CIRCLE_OIDC_TOKEN_V2, to assume AWS_ROLE_ARN; jobs with a context have it";
            return Ok(Credentials::Missing(what.into()));
        };
        let endpoint =
            var("AWS_ENDPOINT_URL_STS").map_or_else(|| format!("https://sts.{region}.amazonaws.com"), str::to_owned);
        let endpoint = http::url(&endpoint).map_err(|_| {
            usage(format!("`{endpoint}` is not the URL of a token service"))
                .hint("set AWS_REGION to a region, or AWS_ENDPOINT_URL_STS to a URL")
        })?;
        if !is_secure(&endpoint) {
            return usage("AWS_ENDPOINT_URL_STS is not https, so the token would not be encrypted")
                .hint("use https")
                .err();
        }
        return Ok(Credentials::Exchanged(Role { arn: arn.to_owned(), token: Secret::new(token), endpoint }));
    }
    if profile.get("aws_access_key_id").is_some() != profile.get("aws_secret_access_key").is_some() {
        let name = var("AWS_PROFILE").unwrap_or("default");
        return CliError::new(Kind::Auth, format!("profile `{name}` of ~/.aws has only half of a key"))
            .hint("set aws_access_key_id and aws_secret_access_key: `aws configure` writes both")
            .err();
    }
    let given = profile.get("aws_access_key_id").is_some()
        || var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
        // Without the file the library would ask the metadata address instead.
        || var("AWS_CONTAINER_CREDENTIALS_FULL_URI").and(var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")).is_some()
        || var("AWS_METADATA_ENDPOINT").is_some()
        || is_on(var("AWS_SKIP_SIGNATURE"));
    Ok(match (given, var("AWS_PROFILE")) {
        (true, _) => Credentials::Given,
        (false, None) => Credentials::Missing("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN".into()),
        (false, Some(name)) => Credentials::Missing(format!(
            "aws_access_key_id in profile `{name}` of ~/.aws/credentials or ~/.aws/config; SSO and role_arn are not read"
        )),
    })
}

/// A profile of `~/.aws/credentials` and `~/.aws/config`; the first takes precedence.
struct Profile(BTreeMap<String, String>);

impl Profile {
    fn read(vars: &BTreeMap<String, String>, files: Files) -> Self {
        let var = |name: &str| vars.get(name).filter(|value| !value.is_empty());
        let home = var("HOME").map_or("", String::as_str);
        let name = var("AWS_PROFILE").map_or("default", String::as_str);
        let path = |named: &str, own: &str| var(named).cloned().unwrap_or_else(|| format!("{home}/.aws/{own}"));
        let text = |path: String| files(&path).unwrap_or_default();
        let mut keys = section(&text(path("AWS_CONFIG_FILE", "config")), &[name, &format!("profile {name}")]);
        keys.extend(section(&text(path("AWS_SHARED_CREDENTIALS_FILE", "credentials")), &[name]));
        Self(keys)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The keys of a section, which may have several names.
fn section(text: &str, names: &[&str]) -> BTreeMap<String, String> {
    let (mut keys, mut inside) = (BTreeMap::new(), false);
    for line in text.lines() {
        // Indented lines belong to a nested table, e.g. `s3`.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = names.contains(&name.trim());
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            keys.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::{hint_of, kind_of};

    const CREDENTIALS: &str = "[default]\naws_access_key_id = AKIDEFAULT\naws_secret_access_key=s3cr3t\n\n[ci]\naws_access_key_id=AKICI\naws_secret_access_key=other\naws_session_token=session\n";
    const CONFIG: &str = "# ours\n[default]\nregion = eu-central-1\ns3 =\n  endpoint_url = http://nested\n[profile ci]\nregion=eu-west-1\nendpoint_url=https://s3.example.org\n";

    fn files(path: &str) -> Option<String> {
        match path {
            "/home/ana/.aws/credentials" => Some(CREDENTIALS.into()),
            "/home/ana/.aws/config" => Some(CONFIG.into()),
            "/token" => Some("from-a-file\n".into()),
            _ => None,
        }
    }

    fn of(url: &str, vars: &[(&str, &str)]) -> Result<Settings> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        crate::object::settings::settings(url, &vars, &files)
    }

    #[test]
    fn settings_take_credentials_from_variables_profile_or_role() {
        let home = ("HOME", "/home/ana");
        let keys = [("AWS_ACCESS_KEY_ID", "AKIVAR"), ("AWS_SECRET_ACCESS_KEY", "x")];
        let option =
            |vars: &[(&str, &str)], name: &str| of("s3://builds/shop", vars).unwrap().options.get(name).cloned();
        assert_eq!(option(&[home, keys[0], keys[1]], "aws_access_key_id").unwrap(), "AKIVAR");
        assert_eq!(option(&[home, keys[0], keys[1]], "aws_session_token"), None);
        assert_eq!(option(&[home], "aws_access_key_id").unwrap(), "AKIDEFAULT");
        assert_eq!(option(&[home], "aws_region").unwrap(), "eu-central-1");
        assert_eq!(option(&[home, ("AWS_PROFILE", "ci")], "aws_session_token").unwrap(), "session");
        assert_eq!(option(&[home, ("AWS_PROFILE", "ci")], "aws_endpoint_url_s3").unwrap(), "https://s3.example.org");
        assert_eq!(option(&[home, ("AWS_REGION", "us-west-2")], "aws_region").unwrap(), "us-west-2");
        let kind = |vars: &[(&str, &str)]| match of("s3://builds/shop", vars).unwrap().credentials {
            Credentials::Given => "given",
            Credentials::Exchanged(role) if format!("{:?}", role.token).contains("secret") => "exchanged",
            Credentials::Exchanged(_) => "shown",
            Credentials::Missing(_) => "missing",
        };
        let role = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/deploy");
        assert_eq!(kind(&[]), "missing");
        assert_eq!(kind(&[home]), "given");
        assert_eq!(kind(&[home, ("AWS_PROFILE", "none")]), "missing");
        assert_eq!(kind(&[role]), "missing");
        assert_eq!(kind(&[role, ("CIRCLE_OIDC_TOKEN_V2", "eyJ")]), "exchanged");
        assert_eq!(kind(&[role, ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]), "exchanged");
        let half = of("s3://builds/shop", &keys[..1]).map(drop).unwrap_err();
        assert_eq!(kind_of(&half), Kind::Auth);
        assert_eq!(option(&[home, ("AWS_REGION", " us-west-2\n")], "aws_region").unwrap(), "us-west-2");
        let broken = of("s3://builds/shop", &[("AWS_SESSION_TOKEN", "a\nb")]).map(drop).unwrap_err();
        assert!(broken.to_string().contains("AWS_SESSION_TOKEN contains an invalid character"), "{broken}");
    }

    #[test]
    fn metadata_address_without_a_variable_is_not_asked() {
        for (vars, asks) in [
            (&[][..], "missing"),
            (&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1")], "missing"),
            (
                &[
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1"),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/token"),
                ],
                "container",
            ),
            (&[("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1338")], "metadata"),
            (&[("AWS_SKIP_SIGNATURE", "yes")], "key"),
        ] {
            let it = of("s3://builds/shop", vars).unwrap();
            let has = |name: &str| it.options.contains_key(name);
            let found = match it.credentials {
                Credentials::Missing(_) => "missing",
                _ if has("aws_access_key_id") => "key",
                _ if has("aws_container_authorization_token_file") => "container",
                _ if has("aws_metadata_endpoint") => "metadata",
                _ => "anything",
            };
            assert_eq!(found, asks, "{vars:?}");
            assert_eq!(it.signs, asks != "key", "{vars:?}");
        }
    }

    #[test]
    fn certificates_of_a_bundle_are_read_or_refused() {
        for (path, says) in [
            ("/none.pem", "AWS_CA_BUNDLE names /none.pem, which cannot be read"),
            ("/token", "AWS_CA_BUNDLE names /token, which contains no certificate in PEM"),
        ] {
            let error = of("s3://builds/shop", &[("AWS_CA_BUNDLE", path)]).map(drop).unwrap_err();
            assert_eq!((kind_of(&error), error.to_string().as_str()), (Kind::Usage, says));
            assert!(hint_of(&error).unwrap().contains("PEM"));
        }
        assert!(of("s3://builds/shop", &[]).unwrap().network.ca_bundle.is_none());
    }

    #[test]
    fn endpoint_with_the_bucket_needs_virtual_hosted_style() {
        for (endpoint, style, want) in [
            ("https://s3.example.org", "", Some("https://s3.example.org")),
            ("https://s3.example.org/builds", "", None),
            ("https://builds.s3.example.org", "", None),
            ("https://builds.s3.example.org", "true", Some("https://builds.s3.example.org")),
            ("https://s3.example.org", "true", Some("https://builds.s3.example.org")),
            ("https://builds.example.org", "false", Some("https://builds.example.org")),
        ] {
            let vars = [("S3_ENDPOINT", endpoint), ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", style)];
            let found = of("s3://builds/shop", &vars).ok().map(|it| it.options["aws_endpoint_url_s3"].clone());
            assert_eq!(found.as_deref(), want, "{endpoint} {style}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for (endpoint, allow, plain) in [
            ("https://s3.example.org", "", Some(false)),
            ("http://127.0.0.1:9000", "", Some(true)),
            ("http://localhost:9000", "", Some(true)),
            ("http://s3.lan:9000", "true", Some(true)),
            ("http://s3.lan:9000", "", None),
            ("s3.lan:9000", "true", None),
        ] {
            let vars = [("S3_ENDPOINT", endpoint), ("AWS_ALLOW_HTTP", allow)];
            assert_eq!(of("s3://builds/shop", &vars).ok().map(|it| it.plain_http()), plain, "{endpoint} {allow}");
        }
        let role = [("AWS_ROLE_ARN", "arn"), ("CIRCLE_OIDC_TOKEN", "eyJ"), ("AWS_ENDPOINT_URL_STS", "http://sts.lan")];
        assert!(of("s3://builds/shop", &role).is_err());
    }
}
