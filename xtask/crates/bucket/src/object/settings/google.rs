//! Settings of Google buckets: a service account in a file or a variable, or the login of `gcloud`.
//!
//! Precedence: <https://cloud.google.com/docs/authentication/application-default-credentials>.

use crate::object::settings::endpoint::Endpoint;
use crate::object::settings::values::{Credentials, Files, Scheme, Settings, Vars, is_on};
use gangplank_model::error::{CliError, Kind, Result, usage};
use gangplank_system::http::NetworkOptions;
use gangplank_system::http::proxy::Proxies;
use serde_json::Value;
use std::collections::BTreeMap;

/// The file that `gcloud auth application-default login` writes, in the home directory.
const OF_GCLOUD: &str = ".config/gcloud/application_default_credentials.json";
/// Variables that name the metadata address. It is asked only if one is set.
const METADATA: &[&str] = &["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"];

/// A credential: options of the library, and the variable that they come from.
struct Credential {
    options: Vec<(&'static str, String)>,
    name: String,
    signs: bool,
    /// `gcs_base_url` of the document.
    endpoint: Option<String>,
}

/// Reads the settings of a `gs://` store.
pub fn settings(
    url: &str,
    (bucket, prefix): (String, String),
    vars: &BTreeMap<String, String>,
    files: Files,
) -> Result<Settings> {
    let var = Vars(vars);
    let login = login(&var, files)?;
    let named = var.first(&["GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST"]);
    let named =
        named.map(|(name, text)| (name.to_owned(), if text.contains("://") { text } else { format!("http://{text}") }));
    let of_login =
        || login.as_ref().and_then(|it| Some((format!("gcs_base_url in {}", it.name), it.endpoint.clone()?)));
    let (name, text) =
        named.or_else(of_login).unwrap_or_else(|| ("GOOGLE_BASE_URL".into(), "https://storage.googleapis.com".into()));
    let endpoint = Endpoint::parse(url, &name, &text, None)?;
    endpoint.without_bucket(url, &bucket, true)?;
    let missing = "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY";
    let (credentials, login) = match login {
        Some(login) => (Credentials::Given, login),
        None => {
            let name = "GOOGLE_APPLICATION_CREDENTIALS".to_owned();
            (
                Credentials::Missing(missing.into()),
                Credential { options: Vec::new(), name, signs: false, endpoint: None },
            )
        }
    };
    let base = ("google_base_url", endpoint.text());
    let options = login.options.into_iter().chain([base]).map(|(option, value)| (option.to_owned(), value)).collect();
    Ok(Settings {
        scheme: Scheme::Google,
        bucket,
        prefix,
        options,
        endpoint: Some(endpoint.url),
        credentials,
        signs: login.signs,
        network: NetworkOptions { proxies: Proxies::from_vars(vars), ca_bundle: None },
        key_name: login.name,
    })
}

fn login(var: &Vars, files: Files) -> Result<Option<Credential>> {
    let text = var.get("GOOGLE_SERVICE_ACCOUNT_KEY");
    let file = var.first(&["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"]);
    if let (Some(_), Some((name, _))) = (text, &file) {
        return usage(format!("GOOGLE_SERVICE_ACCOUNT_KEY and {name} are both set"))
            .hint(format!("unset one: `unset {name}`"))
            .err();
    }
    if let Some(text) = text {
        return document("GOOGLE_SERVICE_ACCOUNT_KEY", text, None).map(Some);
    }
    if let Some((name, path)) = file.or_else(|| var.first(&["GOOGLE_APPLICATION_CREDENTIALS"])) {
        let Some(text) = files(&path) else {
            return CliError::new(Kind::Auth, format!("{name} names {path}, which cannot be read"))
                .hint(format!("set {name} to the file of a service account, by its full path"))
                .err();
        };
        return document(name, &text, Some(&path)).map(Some);
    }
    let plain = |name: &str, token: &str, more: &[(&'static str, &str)]| {
        let token = ("google_bearer_token", token.to_owned());
        let options = more.iter().map(|(option, value)| (*option, (*value).to_owned())).chain([token]).collect();
        Some(Credential { options, name: name.to_owned(), signs: false, endpoint: None })
    };
    if let Some(token) = var.get("GOOGLE_BEARER_TOKEN") {
        return Ok(plain("GOOGLE_BEARER_TOKEN", token, &[]));
    }
    let home = format!("{}/{OF_GCLOUD}", var.get("HOME").unwrap_or_default());
    if let Some(text) = files(&home) {
        return document(&home, &text, Some(&home)).map(Some);
    }
    if is_on(var.get("GOOGLE_SKIP_SIGNATURE")) || var.get("STORAGE_EMULATOR_HOST").is_some() {
        return Ok(plain("GOOGLE_SKIP_SIGNATURE", "", &[("google_skip_signature", "true")]));
    }
    // Without options the library asks the metadata address.
    Ok(var.first(METADATA).map(|(name, _)| Credential {
        options: Vec::new(),
        name: name.into(),
        signs: true,
        endpoint: None,
    }))
}

/// Parses a document with credentials. No part of it is printed, because any of them may be the key.
fn document(name: &str, text: &str, path: Option<&str>) -> Result<Credential> {
    let wrong = |reason: &str| {
        CliError::new(Kind::Auth, format!("{name} holds {reason}"))
            .hint("use the JSON key of a service account: `gcloud iam service-accounts keys create KEY.json --iam-account=ACCOUNT`")
    };
    let value: Value = serde_json::from_str(text).map_err(|_| wrong("text that is not JSON"))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str);
    let endpoint = field("gcs_base_url").map(str::to_owned);
    let of_account = |options| Credential { options, name: name.to_owned(), signs: true, endpoint };
    match field("type").unwrap_or("service_account") {
        "service_account" => {
            let needed = ["client_email", "private_key", "private_key_id"];
            if let Some(missing) = needed.into_iter().find(|name| field(name).is_none()) {
                return wrong(&format!("a service account without `{missing}`")).err();
            }
            let signs_itself = value.get("disable_oauth").and_then(Value::as_bool) != Some(true);
            if signs_itself && !field("private_key").is_some_and(|key| key.contains("-----BEGIN")) {
                return wrong("a service account whose `private_key` is not in PEM").err();
            }
            Ok(of_account(vec![("google_service_account_key", text.to_owned())]))
        }
        "authorized_user" if path.is_some() => {
            Ok(of_account(vec![("google_application_credentials", path.unwrap_or_default().to_owned())]))
        }
        other => wrong(&format!("credentials of the type `{other}`, which is not supported")).err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::{hint_of, kind_of};

    const KEY: &str = r#"{"type": "service_account", "client_email": "ci@acme", "private_key_id": "1", "private_key": "-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----\n"}"#;

    fn files(path: &str) -> Option<String> {
        match path {
            "/key.json" => Some(KEY.into()),
            "/home/ana/.config/gcloud/application_default_credentials.json" => Some(
                r#"{"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}"#.into(),
            ),
            "/federated.json" => Some(r#"{"type": "external_account", "audience": "sesame"}"#.into()),
            _ => None,
        }
    }

    fn of(vars: &[(&str, &str)]) -> Result<Settings> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings("gs://builds/shop", ("builds".into(), "shop".into()), &vars, &files)
    }

    #[test]
    fn variables_of_google_select_endpoint_and_credential() {
        let cloud = "https://storage.googleapis.com";
        for (vars, option, name, endpoint, signs) in [
            (
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", KEY)][..],
                "google_service_account_key",
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                cloud,
                true,
            ),
            (
                &[("GOOGLE_APPLICATION_CREDENTIALS", "/key.json")],
                "google_service_account_key",
                "GOOGLE_APPLICATION_CREDENTIALS",
                cloud,
                true,
            ),
            (
                &[("GOOGLE_SERVICE_ACCOUNT", "/key.json")],
                "google_service_account_key",
                "GOOGLE_SERVICE_ACCOUNT",
                cloud,
                true,
            ),
            (&[("GOOGLE_BEARER_TOKEN", "t")], "google_bearer_token", "GOOGLE_BEARER_TOKEN", cloud, false),
            (
                &[("HOME", "/home/ana")],
                "google_application_credentials",
                "/home/ana/.config/gcloud/application_default_credentials.json",
                cloud,
                true,
            ),
            (
                &[("STORAGE_EMULATOR_HOST", "127.0.0.1:9023")],
                "google_skip_signature",
                "GOOGLE_SKIP_SIGNATURE",
                "http://127.0.0.1:9023",
                false,
            ),
        ] {
            let it = of(vars).unwrap();
            assert!(matches!(it.credentials, Credentials::Given), "{vars:?}");
            assert!(it.options.contains_key(option), "{vars:?}: {:?}", it.options.keys());
            assert_eq!(
                (it.key_name.as_str(), it.options["google_base_url"].as_str(), it.signs),
                (name, endpoint, signs)
            );
        }
    }

    #[test]
    fn metadata_address_without_a_variable_is_not_asked() {
        for (vars, asked) in [
            (&[][..], false),
            (&[("GOOGLE_CLOUD_PROJECT", "acme"), ("HOME", "/home/bob")], false),
            (&[("GOOGLE_BUCKET", "other")], false),
            (&[("GCE_METADATA_HOST", "metadata.google.internal")], true),
        ] {
            let it = of(vars).unwrap();
            assert_eq!(matches!(it.credentials, Credentials::Given), asked, "{vars:?}");
            assert_eq!(it.options.len(), 1, "only the base URL: {:?}", it.options.keys());
        }
    }

    #[test]
    fn variable_of_google_that_is_invalid_is_refused_without_its_value() {
        for (vars, code, says) in [
            (
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", "sesame")][..],
                Kind::Auth,
                "GOOGLE_SERVICE_ACCOUNT_KEY holds text that is not JSON",
            ),
            (&[("GOOGLE_SERVICE_ACCOUNT_KEY", r#"{"private_key": "sesame"}"#)], Kind::Auth, "without `client_email`"),
            (&[("GOOGLE_APPLICATION_CREDENTIALS", "/none.json")], Kind::Auth, "names /none.json, which cannot be read"),
            (&[("GOOGLE_APPLICATION_CREDENTIALS", "/federated.json")], Kind::Auth, "of the type `external_account`"),
            (
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", KEY), ("GOOGLE_SERVICE_ACCOUNT", "/key.json")],
                Kind::Usage,
                "are both set",
            ),
            (
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", &KEY.replace("-----BEGIN", "BEGIN"))],
                Kind::Auth,
                "whose `private_key` is not in PEM",
            ),
            (&[("GOOGLE_BASE_URL", "http://gcs.lan"), ("GOOGLE_BEARER_TOKEN", "t")], Kind::Usage, "another machine"),
        ] {
            let error = of(vars).map(drop).unwrap_err();
            assert_eq!(kind_of(&error), code, "{vars:?}");
            assert!(error.to_string().contains(says) && !error.to_string().contains("sesame"), "{error}");
            assert!(hint_of(&error).is_some());
        }
    }
}
