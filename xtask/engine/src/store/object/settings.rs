//! Where a bucket is and who asks: from the URL of a store, the usual variables of its cloud, and AWS's two files.
//!
//! Names and order of what is looked at: <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

use crate::cx::var;
use crate::error::{Failure, Kind, Result, usage};
use crate::http::policy::is_secure;
use crate::http::{self, Secret};
use std::collections::BTreeMap;

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `s3://`: AWS, and everything that speaks as it does.
    S3,
    /// `gs://`
    Google,
    /// `az://`
    Azure,
}

/// All that is needed to open a bucket.
#[derive(Clone)]
pub struct Settings {
    /// Whose protocol is spoken.
    pub scheme: Scheme,
    /// The bucket; a container in Azure.
    pub bucket: String,
    /// What the keys begin with, without `/` at its ends; may be empty.
    pub prefix: String,
    /// Options by the names that the variables have, in small letters. Some are secrets.
    pub options: BTreeMap<String, String>,
    /// Whether requests may go unencrypted.
    pub plain_http: bool,
    /// How the requests are signed.
    pub credentials: Credentials,
}

/// How requests are signed.
#[derive(Clone)]
pub enum Credentials {
    /// By what is in the options.
    Given,
    /// By keys that a role's token service gives for a token of CircleCI's.
    Exchanged(Role),
    /// Not at all: nothing was found. The text says what was looked for.
    Missing(String),
}

/// A role to take on.
#[derive(Clone)]
pub struct Role {
    /// `arn:aws:iam::ACCOUNT:role/NAME`
    pub arn: String,
    /// The token that says who we are; it comes from a file or a variable.
    pub token: Secret,
    /// The URL of the token service.
    pub endpoint: http::Url,
}

/// Gives the text of a file, if there is one.
pub type Files<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the settings of a store.
pub fn settings(url: &str, vars: &BTreeMap<String, String>, files: Files) -> Result<Settings> {
    let (scheme, bucket, prefix) = parts(url)?;
    let vars = &clean(vars)?;
    if vars.get(var::BUCKETS).is_some_and(|dir| !dir.is_empty()) {
        // A directory takes the place of the server, and asks nobody who they are.
        let (options, credentials) = (BTreeMap::new(), Credentials::Given);
        return Ok(Settings { scheme, bucket, prefix, options, plain_http: false, credentials });
    }
    match scheme {
        Scheme::S3 => s3(url, (bucket, prefix), vars, files),
        Scheme::Google | Scheme::Azure => {
            let own = if scheme == Scheme::Google { "GOOGLE_" } else { "AZURE_" };
            let named = vars.iter().filter(|(name, value)| name.starts_with(own) && !value.is_empty());
            let options: BTreeMap<_, _> =
                named.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
            let credentials = match (options.is_empty(), scheme) {
                (false, _) => Credentials::Given,
                (true, Scheme::Google) => Credentials::Missing("GOOGLE_SERVICE_ACCOUNT".into()),
                (true, _) => Credentials::Missing("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY".into()),
            };
            Ok(Settings { scheme, bucket, prefix, options, plain_http: false, credentials })
        }
    }
}

/// The variables of clouds without the blanks that a copy brings along. What cannot be sent is refused.
fn clean(vars: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let ours =
        |name: &str| ["AWS_", "AZURE_", "GOOGLE_", "S3_", "CIRCLE_OIDC_"].iter().any(|own| name.starts_with(own));
    let clean = |(name, value): (&String, &String)| {
        let value = if ours(name) { value.trim() } else { value.as_str() };
        // A service account of Google's may be a document of many lines.
        if ours(name) && !name.starts_with("GOOGLE_") && value.contains(|c: char| c.is_control() || !c.is_ascii()) {
            return usage(format!("{name} holds a character that cannot be sent: a newline in it?"))
                .hint("set it again, in one line")
                .err();
        }
        Ok((name.clone(), value.to_owned()))
    };
    vars.iter().map(clean).collect()
}

fn parts(url: &str) -> Result<(Scheme, String, String)> {
    let wrong = |why: &str| usage(format!("store {url}: {why}")).hint("write s3://BUCKET/PREFIX");
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it names no bucket"))?;
    let scheme = match scheme {
        "s3" => Scheme::S3,
        "gs" => Scheme::Google,
        "az" => Scheme::Azure,
        _ => return wrong("it is not the URL of a bucket").err(),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    // Google's may have a `_`, too.
    let of_bucket = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.') || c == '_' && scheme == Scheme::Google
    };
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let whole = bucket.chars().all(of_bucket) && bucket.starts_with(ends) && bucket.ends_with(ends);
    if bucket.len() < 3 || bucket.len() > 63 || !whole || bucket.contains("..") {
        return wrong("the name of a bucket has 3 to 63 small letters, digits, `-` and `.`").err();
    }
    let prefix = prefix.trim_end_matches('/');
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || !part.chars().all(is_name);
    if !prefix.is_empty() && prefix.split('/').any(bad) {
        return wrong("a prefix is made of letters, digits, `-`, `.`, `_` and single `/`").err();
    }
    Ok((scheme, bucket.to_owned(), prefix.to_owned()))
}

/// The variables of AWS that are for the client of buckets. Those that name a bucket or an endpoint are not among them:
/// the one is in the URL of the store, the other is looked at here.
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
    "AWS_SKIP_SIGNATURE",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
];

fn s3(
    url: &str,
    (bucket, prefix): (String, String),
    vars: &BTreeMap<String, String>,
    files: Files,
) -> Result<Settings> {
    let var = |name: &str| vars.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let profile = Profile::read(vars, files);
    let mut options: BTreeMap<String, String> = vars
        .iter()
        .filter(|(name, value)| PASSED_ON.contains(&name.as_str()) && !value.is_empty())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    let endpoint = var("S3_ENDPOINT")
        .or_else(|| var("AWS_ENDPOINT_URL_S3"))
        .or_else(|| var("AWS_ENDPOINT_URL"))
        .or_else(|| profile.get("endpoint_url"));
    let plain_http = match endpoint {
        None => false,
        Some(endpoint) => {
            let allowed =
                var("AWS_ALLOW_HTTP").is_some_and(|it| ["true", "1"].contains(&it.to_ascii_lowercase().as_str()));
            let plain = check_endpoint(url, endpoint, allowed)?;
            options.insert("aws_endpoint_url_s3".into(), endpoint.to_owned());
            plain
        }
    };
    let region = var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION")).or_else(|| profile.get("region"));
    let region = region.unwrap_or("us-east-1").to_owned();
    options.insert("aws_region".into(), region.clone());
    let credentials = credentials(vars, &profile, &region, files)?;
    if matches!(credentials, Credentials::Given) && var("AWS_ACCESS_KEY_ID").is_none() {
        for key in ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"] {
            options.extend(profile.get(key).map(|value| (key.to_owned(), value.to_owned())));
        }
    }
    Ok(Settings { scheme: Scheme::S3, bucket, prefix, options, plain_http, credentials })
}

/// Whether an endpoint is spoken to unencrypted, which needs a word of its own when it is another machine.
fn check_endpoint(url: &str, endpoint: &str, allowed: bool) -> Result<bool> {
    let parsed = http::url(endpoint).map_err(|_| {
        usage(format!("store {url}: its endpoint `{endpoint}` is no URL"))
            .hint("e.g. S3_ENDPOINT=https://s3.example.org")
    })?;
    if !is_secure(&parsed) && !allowed {
        return usage(format!(
            "store {url}: {} is another machine, and http shows it to everybody on the way",
            http::policy::origin(&parsed)
        ))
        .hint("use https, or set AWS_ALLOW_HTTP=true if that is what you want")
        .err();
    }
    Ok(parsed.scheme() == "http")
}

fn credentials(vars: &BTreeMap<String, String>, profile: &Profile, region: &str, files: Files) -> Result<Credentials> {
    let var = |name: &str| vars.get(name).map(String::as_str).filter(|value| !value.is_empty());
    match (var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY")) {
        (Some(_), Some(_)) => return Ok(Credentials::Given),
        (None, None) => {}
        (have, _) => {
            let missing = if have.is_some() { "AWS_SECRET_ACCESS_KEY" } else { "AWS_ACCESS_KEY_ID" };
            return Failure::new(Kind::Auth, format!("{missing} is not set, and its other half is"))
                .hint("set both in the context of the job")
                .err();
        }
    }
    if let Some(arn) = var("AWS_ROLE_ARN") {
        let file = var("AWS_WEB_IDENTITY_TOKEN_FILE").and_then(files);
        let token = var("CIRCLE_OIDC_TOKEN_V2").or_else(|| var("CIRCLE_OIDC_TOKEN")).map(str::to_owned);
        let Some(token) = file.map(|text| text.trim().to_owned()).or(token) else {
            let what = "CIRCLE_OIDC_TOKEN_V2, to take on AWS_ROLE_ARN with: jobs with a context have it";
            return Ok(Credentials::Missing(what.into()));
        };
        let endpoint =
            var("AWS_ENDPOINT_URL_STS").map_or_else(|| format!("https://sts.{region}.amazonaws.com"), str::to_owned);
        let endpoint = http::url(&endpoint).map_err(|_| {
            usage(format!("`{endpoint}` is no URL of a token service"))
                .hint("set AWS_REGION to a region, or AWS_ENDPOINT_URL_STS to a URL")
        })?;
        if !is_secure(&endpoint) {
            return usage("AWS_ENDPOINT_URL_STS is not https, and would show the token").hint("use https").err();
        }
        return Ok(Credentials::Exchanged(Role { arn: arn.to_owned(), token: Secret::new(token), endpoint }));
    }
    if profile.get("aws_access_key_id").is_some() != profile.get("aws_secret_access_key").is_some() {
        let name = var("AWS_PROFILE").unwrap_or("default");
        return Failure::new(Kind::Auth, format!("profile `{name}` of ~/.aws has only one half of a key"))
            .hint("it needs aws_access_key_id and aws_secret_access_key: `aws configure` writes both")
            .err();
    }
    let given = profile.get("aws_access_key_id").is_some()
        || var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
        || var("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some()
        || var("AWS_SKIP_SIGNATURE") == Some("true");
    Ok(match (given, var("AWS_PROFILE")) {
        (true, _) => Credentials::Given,
        (false, None) => Credentials::Missing("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN".into()),
        (false, Some(name)) => Credentials::Missing(format!(
            "aws_access_key_id in profile `{name}` of ~/.aws/credentials or ~/.aws/config; SSO and role_arn are not read"
        )),
    })
}

/// A profile of `~/.aws/credentials` and `~/.aws/config`, the first one having the last word.
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

/// The keys of a section, which may go by several names.
fn section(text: &str, names: &[&str]) -> BTreeMap<String, String> {
    let (mut keys, mut inside) = (BTreeMap::new(), false);
    for line in text.lines() {
        // Lines that are indented belong to a table of their own, e.g. that of `s3`.
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
    use crate::error::{hint_of, kind_of};

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
        settings(url, &vars, &files)
    }

    #[test]
    fn urls_of_buckets() {
        for (url, bucket, prefix) in [
            ("s3://acme-builds/shop", "acme-builds", "shop"),
            ("s3://acme-builds", "acme-builds", ""),
            ("gs://acme-builds/a/b/", "acme-builds", "a/b"),
            ("az://builds/shop", "builds", "shop"),
        ] {
            let it = of(url, &[]).unwrap();
            assert_eq!((it.bucket.as_str(), it.prefix.as_str()), (bucket, prefix), "{url}");
        }
        for url in [
            "s3://",
            "s3://a",
            "s3://a b/c",
            "s3://bucket/../x",
            "s3://bucket//x",
            "s3://user@bucket/x",
            "s3://...",
            "s3://App-Bucket/x",
            "s3://app_bucket/x",
            "s3://-bucket/x",
            "ftp://bucket/x",
        ] {
            let error = of(url, &[]).map(drop).unwrap_err();
            assert_eq!(kind_of(&error), Kind::Usage, "{url}");
            assert!(hint_of(&error).is_some());
        }
    }

    #[test]
    fn who_asks() {
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
        assert!(broken.to_string().contains("AWS_SESSION_TOKEN holds a character"), "{broken}");
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
            assert_eq!(of("s3://builds/shop", &vars).ok().map(|it| it.plain_http), plain, "{endpoint} {allow}");
        }
        let role = [("AWS_ROLE_ARN", "arn"), ("CIRCLE_OIDC_TOKEN", "eyJ"), ("AWS_ENDPOINT_URL_STS", "http://sts.lan")];
        assert!(of("s3://builds/shop", &role).is_err());
    }
}
