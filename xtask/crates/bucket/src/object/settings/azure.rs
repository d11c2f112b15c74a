//! Settings of Azure containers: the variables of Azure's own tools, and a connection string.
//!
//! The variables: <https://learn.microsoft.com/azure/storage/blobs/authorize-data-operations-cli>, the string:
//! <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.

use crate::object::settings::endpoint::Endpoint;
use crate::object::settings::values::{Credentials, Files, Scheme, Settings, Vars, is_on};
use gangplank_model::error::{CliError, Kind, Result, usage};
use gangplank_system::http;
use gangplank_system::http::NetworkOptions;
use gangplank_system::http::policy::is_secure;
use gangplank_system::http::proxy::Proxies;
use std::collections::BTreeMap;

const STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";
/// Account and key of all emulators, published by Microsoft.
const EMULATOR: (&str, &str) =
    ("devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==");
const EMULATOR_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";

/// The name of a variable, and its value.
type Named = (&'static str, String);

/// A credential.
struct Credential {
    /// Its name in the library.
    kind: &'static str,
    /// The variable that it comes from.
    name: &'static str,
    options: Vec<(&'static str, String)>,
}

/// The account, from the variables or the connection string.
#[derive(Default)]
struct Account {
    name: Option<Named>,
    key: Option<Named>,
    sas: Option<Named>,
    endpoint: Option<Named>,
}

/// Reads the settings of an `az://` store.
pub fn settings(
    url: &str,
    (bucket, prefix): (String, String),
    vars: &BTreeMap<String, String>,
    files: Files,
) -> Result<Settings> {
    let var = Vars(vars);
    check_token_file(&var, files)?;
    let account = match var.get(STRING) {
        Some(text) => Account::from_connection_string(text)?,
        None => Account::from_variables(&var),
    };
    let (mut options, key_name, credentials) = select_credential(&account, &var)?;
    let endpoint = match (&account.endpoint, &account.name) {
        (Some((name, text)), _) => Some(Endpoint::parse(url, name, text, None)?),
        (None, Some((name, account))) => {
            let text = format!("https://{account}.blob.core.windows.net");
            Some(Endpoint::parse(url, name, &text, None)?)
        }
        (None, None) => None,
    };
    if let Some((name, account)) = &account.name {
        check_account(name, account)?;
        options.insert("azure_storage_account_name".into(), account.clone());
    }
    if let Some(endpoint) = &endpoint {
        endpoint.without_bucket(url, &bucket, true)?;
        options.insert("azure_storage_endpoint".into(), endpoint.text());
    }
    for name in ["AZURE_STORAGE_ENCRYPTION_KEY", "AZURE_DISABLE_TAGGING"] {
        options.extend(var.get(name).map(|value| (name.to_ascii_lowercase(), value.to_owned())));
    }
    let signs = options.get("azure_credential_type").is_some_and(|kind| kind != "sas_token")
        && !options.contains_key("azure_skip_signature");
    Ok(Settings {
        scheme: Scheme::Azure,
        bucket,
        prefix,
        options,
        endpoint: endpoint.map(|it| it.url),
        credentials,
        signs,
        network: NetworkOptions { proxies: Proxies::from_vars(vars), ca_bundle: None },
        key_name: key_name.into(),
    })
}

impl Account {
    fn from_variables(var: &Vars) -> Self {
        let emulated = is_on(var.get("AZURE_STORAGE_USE_EMULATOR"));
        let emulator = |value: &str| emulated.then(|| ("AZURE_STORAGE_USE_EMULATOR", value.to_owned()));
        let key = var.first(&[
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_ACCESS_KEY",
            "AZURE_STORAGE_MASTER_KEY",
        ]);
        Self {
            name: var.first(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]).or_else(|| emulator(EMULATOR.0)),
            key: key.or_else(|| emulator(EMULATOR.1)),
            sas: var.first(&["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"]),
            endpoint: var
                .first(&["AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_SERVICE_ENDPOINT", "AZURE_ENDPOINT"])
                .or_else(|| emulator(EMULATOR_ENDPOINT)),
        }
    }

    /// Parses `NAME=VALUE;NAME=VALUE`. No part of it is printed, because any of them may be the key.
    fn from_connection_string(text: &str) -> Result<Self> {
        let wrong = |reason: &str| {
            usage(format!("{STRING} {reason}"))
                .hint("copy it again: `az storage account show-connection-string --name ACCOUNT --output tsv`")
        };
        let mut pairs = BTreeMap::new();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("has a part that is not NAME=VALUE"))?;
            pairs.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
        let get = |name: &str| pairs.get(name).filter(|value| !value.is_empty()).cloned();
        if is_on(get("usedevelopmentstorage").as_deref()) {
            let named = |value: &str| Some((STRING, value.to_owned()));
            let (name, key) = (named(EMULATOR.0), named(EMULATOR.1));
            return Ok(Self { name, key, sas: None, endpoint: named(EMULATOR_ENDPOINT) });
        }
        let name = get("accountname").or_else(|| account_of(&get("blobendpoint")?));
        let Some(name) = name else { return wrong("names no AccountName").err() };
        check_account(STRING, &name)?;
        let endpoint = get("blobendpoint").or_else(|| {
            let scheme = get("defaultendpointsprotocol").unwrap_or_else(|| "https".into());
            let suffix = get("endpointsuffix").unwrap_or_else(|| "core.windows.net".into());
            Some(format!("{scheme}://{name}.blob.{suffix}"))
        });
        let named = |value: Option<String>| value.map(|value| (STRING, value));
        let (key, sas) = (named(get("accountkey")), named(get("sharedaccesssignature")));
        if key.is_none() && sas.is_none() {
            return CliError::new(Kind::Auth, format!("{STRING} has neither AccountKey nor SharedAccessSignature"))
                .hint("copy it again: `az storage account show-connection-string --name ACCOUNT --output tsv`")
                .err();
        }
        Ok(Self { name: Some((STRING, name)), key, sas, endpoint: named(endpoint) })
    }
}

/// `acme` of `https://acme.blob.core.windows.net`.
fn account_of(endpoint: &str) -> Option<String> {
    let url = http::url(endpoint).ok()?;
    Some(url.domain()?.split_once(".blob.")?.0.to_owned())
}

fn check_account(name: &str, account: &str) -> Result<()> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if account.len() < 3 || account.len() > 24 || !account.chars().all(is_name) {
        return usage(format!("{name} is `{account}`, which is not the name of a storage account"))
            .hint("an account has 3 to 24 small letters and digits: `az storage account list --output table`")
            .err();
    }
    Ok(())
}

/// The options of the first credential that is set, its variable, and whether there is one. The kind is always passed on:
/// without it the library would ask the metadata address.
fn select_credential(account: &Account, var: &Vars) -> Result<(BTreeMap<String, String>, &'static str, Credentials)> {
    let mut found = Vec::new();
    let mut add = |kind, name, options| found.push(Credential { kind, name, options });
    if let Some((name, key)) = &account.key {
        check_key(name, key)?;
        add("access_key", name, vec![("azure_storage_account_key", key.clone())]);
    }
    if let Some((name, sas)) = &account.sas {
        check_sas(name, sas)?;
        add("sas_token", name, vec![("azure_storage_sas_key", sas.clone())]);
    }
    if let Some((name, token)) = var.first(&["AZURE_STORAGE_TOKEN"]) {
        add("bearer_token", name, vec![("azure_storage_token", token)]);
    }
    let directory = || {
        let (_, tenant) = var.first(&["AZURE_TENANT_ID", "AZURE_STORAGE_TENANT_ID"])?;
        let (_, client) = var.first(&["AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID"])?;
        let host = var.get("AZURE_AUTHORITY_HOST").map(|host| ("azure_authority_host", host.to_owned()));
        let ids = [("azure_tenant_id", tenant), ("azure_client_id", client)];
        Some(ids.into_iter().chain(host).collect::<Vec<_>>())
    };
    for (kind, names, option) in [
        ("workload_identity", &["AZURE_FEDERATED_TOKEN_FILE"][..], "azure_federated_token_file"),
        ("client_secret", &["AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET"], "azure_client_secret"),
    ] {
        if let (Some(ids), Some((name, value))) = (directory(), var.first(names)) {
            add(kind, name, [ids, vec![(option, value)]].concat());
        }
    }
    if is_on(var.get("AZURE_USE_AZURE_CLI")) {
        add("azure_cli", "AZURE_USE_AZURE_CLI", Vec::new());
    }
    if is_on(var.get("AZURE_SKIP_SIGNATURE")) {
        let nothing = [("azure_storage_token", String::new()), ("azure_skip_signature", "true".to_owned())];
        add("bearer_token", "AZURE_SKIP_SIGNATURE", nothing.into());
    }
    found.extend(managed_identity(var));
    check_authority(var)?;
    let wanted = var.get("AZURE_CREDENTIAL_TYPE").filter(|kind| *kind != "auto");
    let missing = |what: String| Ok((BTreeMap::new(), "AZURE_STORAGE_KEY", Credentials::Missing(what)));
    let selected = found.into_iter().find(|it| wanted.is_none_or(|wanted| wanted == it.kind));
    match (selected, &account.name) {
        (Some(_), None) => missing("AZURE_STORAGE_ACCOUNT, the account of the container".into()),
        (None, _) if wanted.is_some() => {
            missing(format!("the variables of AZURE_CREDENTIAL_TYPE={}", wanted.unwrap_or_default()))
        }
        (None, Some((name, _))) => missing(format!("AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN beside {name}")),
        (None, None) => missing(format!("{STRING}, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY")),
        (Some(Credential { kind, name, options }), Some(_)) => {
            let kind = ("azure_credential_type", kind.to_owned());
            let options = options.into_iter().chain([kind]).map(|(option, value)| (option.to_owned(), value));
            Ok((options.collect(), name, Credentials::Given))
        }
    }
}

/// A metadata address gives tokens to every process of the machine, so it is asked only if a variable names it.
fn managed_identity(var: &Vars) -> Option<Credential> {
    let by_type = (var.get("AZURE_CREDENTIAL_TYPE") == Some("managed_identity")).then_some("AZURE_CREDENTIAL_TYPE");
    let endpoint = var.first(&["AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "IDENTITY_ENDPOINT"]);
    let name = endpoint.as_ref().map(|(name, _)| *name).or(by_type)?;
    let ids = [
        ("azure_client_id", var.get("AZURE_CLIENT_ID")),
        ("azure_object_id", var.get("AZURE_OBJECT_ID")),
        ("azure_msi_resource_id", var.get("AZURE_MSI_RESOURCE_ID")),
    ];
    let ids = ids.into_iter().filter_map(|(option, value)| Some((option, value?.to_owned())));
    let options = ids.chain(endpoint.map(|(_, url)| ("azure_msi_endpoint", url))).collect();
    Some(Credential { kind: "managed_identity", name, options })
}

fn check_key(name: &str, key: &str) -> Result<()> {
    let digits = key.trim_end_matches('=');
    let good = digits.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'));
    if good && !digits.is_empty() && key.len().is_multiple_of(4) && key.len() - digits.len() <= 2 {
        return Ok(());
    }
    CliError::new(Kind::Auth, format!("the key in {name} is not base64"))
        .hint(format!("copy it again, whole, into {name}: `az storage account keys list --account-name ACCOUNT`"))
        .err()
}

fn check_sas(name: &str, sas: &str) -> Result<()> {
    if sas.trim_start_matches('?').split('&').any(|pair| pair.starts_with("sig="))
        && sas.split('&').all(|it| it.contains('='))
    {
        return Ok(());
    }
    CliError::new(Kind::Auth, format!("the shared access signature in {name} has no `sig=`"))
        .hint(format!("copy it again into {name}, from `sv=` to the end, in quotes"))
        .err()
}

fn check_token_file(var: &Vars, files: Files) -> Result<()> {
    let name = "AZURE_FEDERATED_TOKEN_FILE";
    match var.get(name) {
        Some(path) if files(path).is_none() => {
            CliError::new(Kind::Auth, format!("{name} names {path}, which cannot be read"))
                .hint(format!("write the token there first, or `unset {name}`"))
                .err()
        }
        _ => Ok(()),
    }
}

fn check_authority(var: &Vars) -> Result<()> {
    match var.get("AZURE_AUTHORITY_HOST").map(http::url) {
        Some(Err(_)) => usage("AZURE_AUTHORITY_HOST is not a URL").hint("e.g. https://login.microsoftonline.com").err(),
        Some(Ok(url)) if !is_secure(&url) => {
            usage("AZURE_AUTHORITY_HOST is not https, so the secret would not be encrypted").hint("use https").err()
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::{hint_of, kind_of};

    fn of(vars: &[(&str, &str)]) -> Result<Settings> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let files = |path: &str| (path == "/token").then(|| "eyJ".to_owned());
        settings("az://builds/shop", ("builds".into(), "shop".into()), &vars, &files)
    }

    /// Account, endpoint, kind of credential and the variable that it comes from.
    fn summary(vars: &[(&str, &str)]) -> String {
        match of(vars) {
            Err(error) => format!("code {}: {error}", kind_of(&error) as u8),
            Ok(it) => match it.credentials {
                Credentials::Missing(what) => format!("missing {what}"),
                _ => {
                    let option = |name: &str| it.options.get(name).cloned().unwrap_or_default();
                    let [account, endpoint, kind] =
                        ["azure_storage_account_name", "azure_storage_endpoint", "azure_credential_type"].map(option);
                    format!("{account} {endpoint} {kind} {}", it.key_name)
                }
            },
        }
    }

    const ACCOUNT: (&str, &str) = ("AZURE_STORAGE_ACCOUNT", "acme");
    const KEY: (&str, &str) = ("AZURE_STORAGE_KEY", "c2VzYW1l");

    #[test]
    fn variables_of_azure_select_account_endpoint_and_credential() {
        let cloud = "acme https://acme.blob.core.windows.net";
        for (vars, want) in [
            (&[ACCOUNT, KEY][..], format!("{cloud} access_key AZURE_STORAGE_KEY")),
            (
                &[("AZURE_STORAGE_ACCOUNT_NAME", "acme"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VzYW1l")],
                format!("{cloud} access_key AZURE_STORAGE_ACCOUNT_KEY"),
            ),
            (
                &[ACCOUNT, ("AZURE_STORAGE_SAS_TOKEN", "?sv=2024&sig=ab%3D")],
                format!("{cloud} sas_token AZURE_STORAGE_SAS_TOKEN"),
            ),
            (
                &[ACCOUNT, KEY, ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:10000/acme/")],
                "acme http://127.0.0.1:10000/acme access_key AZURE_STORAGE_KEY".into(),
            ),
            (
                &[(
                    STRING,
                    "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=c2VzYQ==;EndpointSuffix=core.chinacloudapi.cn",
                )],
                format!("acme https://acme.blob.core.chinacloudapi.cn access_key {STRING}"),
            ),
            (
                &[(STRING, "BlobEndpoint=https://acme.blob.core.windows.net/;SharedAccessSignature=sv=2024&sig=ab%3D")],
                format!("{cloud} sas_token {STRING}"),
            ),
            (
                &[(STRING, "UseDevelopmentStorage=true"), ACCOUNT],
                format!("devstoreaccount1 {EMULATOR_ENDPOINT} access_key {STRING}"),
            ),
            (
                &[("AZURE_STORAGE_USE_EMULATOR", "true")],
                format!("devstoreaccount1 {EMULATOR_ENDPOINT} access_key AZURE_STORAGE_USE_EMULATOR"),
            ),
            (
                &[ACCOUNT, ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "s")],
                format!("{cloud} client_secret AZURE_CLIENT_SECRET"),
            ),
            (
                &[
                    ACCOUNT,
                    ("AZURE_TENANT_ID", "t"),
                    ("AZURE_CLIENT_ID", "c"),
                    ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
                ],
                format!("{cloud} workload_identity AZURE_FEDERATED_TOKEN_FILE"),
            ),
            (&[ACCOUNT, ("AZURE_STORAGE_TOKEN", "t")], format!("{cloud} bearer_token AZURE_STORAGE_TOKEN")),
        ] {
            assert_eq!(summary(vars), want, "{vars:?}");
        }
    }

    #[test]
    fn metadata_address_without_a_variable_is_not_asked() {
        let cloud = "acme https://acme.blob.core.windows.net managed_identity";
        for (vars, want) in [
            (
                &[ACCOUNT][..],
                "missing AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN beside AZURE_STORAGE_ACCOUNT".into(),
            ),
            (
                &[("AZURE_SUBSCRIPTION_ID", "1")],
                format!("missing {STRING}, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY"),
            ),
            (&[KEY], "missing AZURE_STORAGE_ACCOUNT, the account of the container".into()),
            (
                &[ACCOUNT, ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "s")],
                "missing AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN beside AZURE_STORAGE_ACCOUNT".into(),
            ),
            (
                &[ACCOUNT, KEY, ("AZURE_CREDENTIAL_TYPE", "sas_token")],
                "missing the variables of AZURE_CREDENTIAL_TYPE=sas_token".into(),
            ),
            (&[ACCOUNT, ("AZURE_CREDENTIAL_TYPE", "managed_identity")], format!("{cloud} AZURE_CREDENTIAL_TYPE")),
            (&[ACCOUNT, ("AZURE_MSI_ENDPOINT", "http://127.0.0.1:1/token")], format!("{cloud} AZURE_MSI_ENDPOINT")),
        ] {
            assert_eq!(summary(vars), want, "{vars:?}");
        }
    }

    #[test]
    fn variable_of_azure_that_is_invalid_is_refused_without_its_value() {
        for (vars, code, says) in [
            (&[ACCOUNT, ("AZURE_STORAGE_KEY", "sesame")][..], Kind::Auth, "the key in AZURE_STORAGE_KEY is not base64"),
            (&[ACCOUNT, ("AZURE_STORAGE_SAS_TOKEN", "sesame")], Kind::Auth, "AZURE_STORAGE_SAS_TOKEN has no `sig=`"),
            (&[(STRING, "sesame")], Kind::Usage, "has a part that is not NAME=VALUE"),
            (&[(STRING, "AccountKey=c2VzYW1l")], Kind::Usage, "names no AccountName"),
            (&[(STRING, "AccountName=acme;AccountKey=sesame")], Kind::Auth, "is not base64"),
            (&[(STRING, "AccountName=acme")], Kind::Auth, "neither AccountKey nor SharedAccessSignature"),
            (
                &[(STRING, "AccountName=evil.example/x#;AccountKey=c2VzYW1l")],
                Kind::Usage,
                "not the name of a storage account",
            ),
            (
                &[(STRING, "DefaultEndpointsProtocol=http;AccountName=acme;AccountKey=c2VzYW1l")],
                Kind::Usage,
                "is another machine",
            ),
            (&[("AZURE_STORAGE_ACCOUNT", "acme.example"), KEY], Kind::Usage, "is `acme.example`"),
            (
                &[ACCOUNT, KEY, ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1/acme/builds")],
                Kind::Usage,
                "already contains the bucket",
            ),
            (&[ACCOUNT, ("AZURE_FEDERATED_TOKEN_FILE", "/none")], Kind::Auth, "names /none, which cannot be read"),
            (&[ACCOUNT, KEY, ("AZURE_AUTHORITY_HOST", "http://login.lan")], Kind::Usage, "AZURE_AUTHORITY_HOST"),
        ] {
            let error = of(vars).map(drop).unwrap_err();
            assert_eq!(kind_of(&error), code, "{vars:?}");
            assert!(error.to_string().contains(says) && !error.to_string().contains("sesame"), "{error}");
            assert!(hint_of(&error).is_some());
        }
    }
}
