//! Temporary keys from a cloud's token service, in exchange for CircleCI's OIDC token.
//!
//! The exchange: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>, the token:
//! <https://circleci.com/docs/openid-connect-tokens/>.

use crate::object::diagnose::tag;
use crate::object::settings::values::Role;
use gangplank_model::error::{CliError, Kind, Result, kind_of};
use gangplank_system::context::{Context, Input};
use gangplank_system::http::proxy::Proxy;
use gangplank_system::http::{Client, NetworkOptions, Secret, policy};
use std::process::Command;
use std::time::Duration;

/// Attempts if the service does not answer.
const ATTEMPTS: u32 = 4;

/// The options for the keys of a role.
pub type Keys = [(String, String); 3];

/// Requests the keys of a role.
pub fn keys(ctx: &Context, role: &Role, network: &NetworkOptions) -> Result<Keys> {
    let service = Service { client: Client::with_network(network)?, proxy: network.proxies.for_url(&role.endpoint)? };
    match exchange(ctx, &service, role, &role.token) {
        // The token in the environment is valid for an hour, and the job may be older. Not every service reports that
        // it expired.
        Err(refused) if kind_of(&refused) == Kind::Auth => match fresh(ctx) {
            Some(token) => exchange(ctx, &service, role, &token),
            None => Err(refused),
        },
        done => done,
    }
}

/// The token service and its proxy.
struct Service {
    client: Client,
    proxy: Option<Proxy>,
}

fn exchange(ctx: &Context, service: &Service, role: &Role, token: &Secret) -> Result<Keys> {
    let session = format!("gangplank-{}", ctx.var("CIRCLE_BUILD_NUM").unwrap_or("laptop"));
    let fields = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role.arn.as_str()),
        ("RoleSessionName", session.as_str()),
    ];
    let what = format!("cannot assume the role {} at {}", role.arn, policy::origin(&role.endpoint));
    let mut reason = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(125 << attempt));
        }
        match service.client.post_form(&role.endpoint, &fields, ("WebIdentityToken", token)) {
            Ok(answer) if !policy::is_passing(answer.status) => return read(&what, answer.status, &answer.body),
            Ok(answer) => reason = format!("it answered {}", answer.status),
            Err(broken) => reason = broken.reason,
        }
    }
    let (by, hint) = match &service.proxy {
        Some(proxy) => (format!("{}: ", proxy.label()), proxy.hint(Some(&role.endpoint))),
        None => {
            let hint = "check the network and AWS_ENDPOINT_URL_STS, then run the same command again; AWS_CA_BUNDLE names \
                        certificates of your own";
            (String::new(), hint.to_owned())
        }
    };
    CliError::new(Kind::Remote, format!("{what}: {by}{reason} (tried {ATTEMPTS} times)")).hint(hint).err()
}

fn read(what: &str, status: u16, text: &str) -> Result<Keys> {
    let names = [
        ("aws_access_key_id", "AccessKeyId"),
        ("aws_secret_access_key", "SecretAccessKey"),
        ("aws_session_token", "SessionToken"),
    ];
    let found = names.map(|(option, name)| tag(text, name).map(|value| (option.to_owned(), value.to_owned())));
    if let (200, [Some(id), Some(key), Some(session)]) = (status, found) {
        return Ok([id, key, session]);
    }
    let code = tag(text, "Code").map_or_else(|| status.to_string(), str::to_owned);
    let message = tag(text, "Message").map(|message| format!(" ({message})")).unwrap_or_default();
    let hint = match code.as_str() {
        "ExpiredTokenException" => "rerun the job from its start: its token is valid for an hour",
        _ => {
            "check that the trust policy of the role names this organization, project and branch, and that the job is younger than \
             an hour? See docs/s3.md"
        }
    };
    CliError::new(Kind::Auth, format!("{what}: {code}{message}")).hint(hint).err()
}

/// A new token, if CircleCI's own program is available.
fn fresh(ctx: &Context) -> Option<Secret> {
    let mut command = Command::new(ctx.program_on_path("circleci")?);
    command.args(["run", "oidc", "get"]);
    let answer = ctx.answer(command, Input::Empty).ok()?;
    let token = answer.stdout.trim();
    (answer.ok() && !token.is_empty()).then(|| Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::hint_of;

    #[test]
    fn read_of_role_answer_gives_credentials_or_the_reason() {
        let good = "<Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken></Credentials>";
        assert_eq!(read("x", 200, good).ok().unwrap()[2], ("aws_session_token".to_owned(), "t".to_owned()));
        let refused = |status, text| read("cannot", status, text).map(drop).unwrap_err();
        let denied = refused(403, "<Error><Code>AccessDenied</Code><Message>Not authorized</Message></Error>");
        assert_eq!(denied.to_string(), "cannot: AccessDenied (Not authorized)");
        let expired = refused(400, "<Code>ExpiredTokenException</Code>");
        assert!(hint_of(&expired).unwrap().contains("from its start"));
        assert_eq!(refused(200, "<html>").to_string(), "cannot: 200");
    }
}
