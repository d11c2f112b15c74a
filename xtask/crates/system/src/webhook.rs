//! Sends a JSON document to a webhook, signed if it has a key. The URL may be a secret, so that messages name only its
//! server.
//!
//! The signature is that of Standard Webhooks: HMAC-SHA256 over `ID.TIMESTAMP.BODY`, in base64, after `v1,`. The source:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use crate::context::Context;
use crate::http::policy::{is_secure, origin};
use crate::http::proxy::Proxies;
use crate::http::{Broken, Client, NetworkOptions, Url, url};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use gangplank_model::error::{CliError, Kind, Result, usage};
use gangplank_model::release::digest;
use ring::hmac;
use serde_json::Value;
use std::time::Duration;

/// How long one request may take: a slow recipient must not delay a deploy by much.
const LIMIT: Duration = Duration::from_secs(10);
/// The pause before the second attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// The sizes of a key in bytes.
const KEY: std::ops::RangeInclusive<usize> = 24..=64;
/// The hint for a key that is none.
const KEY_HINT: &str = "make one: `echo whsec_$(openssl rand -base64 32)`, and give it to the receiver too";

/// The key of a signature.
pub struct Key(hmac::Key);

impl Key {
    /// Parses `whsec_` and 24 to 64 bytes in base64. The text is in no message.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = text.trim().strip_prefix("whsec_").and_then(|text| BASE64_STANDARD.decode(text).ok());
        match bytes.filter(|bytes| KEY.contains(&bytes.len())) {
            Some(bytes) => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
            None => usage("the key of a webhook is not `whsec_` and 24 to 64 bytes in base64").hint(KEY_HINT).err(),
        }
    }

    /// The headers that sign a body sent at this second.
    fn headers(&self, id: &str, second: i64, body: &str) -> [(&'static str, String); 3] {
        let tag = hmac::sign(&self.0, format!("{id}.{second}.{body}").as_bytes());
        let signature = format!("v1,{}", BASE64_STANDARD.encode(tag.as_ref()));
        [("webhook-id", id.to_owned()), ("webhook-timestamp", second.to_string()), ("webhook-signature", signature)]
    }
}

/// The URL of a webhook. Fails if it is neither https nor on this machine.
fn target(to: &str) -> Result<Url> {
    match url(to) {
        Ok(target) if is_secure(&target) => Ok(target),
        // The text may be a secret.
        _ => usage("the URL of a webhook is neither https nor on this machine")
            .hint("correct its variable, or `notify` in xtask/src/main.rs")
            .err(),
    }
}

/// Fails for a URL to which nothing would be sent.
pub fn check(to: &str) -> Result<()> {
    target(to).map(drop)
}

/// Posts a document, twice if the server does not answer or is overloaded. Both attempts have the same id, so that a
/// receiver can drop the second.
pub fn send(ctx: &Context, to: &str, key: Option<&Key>, document: &Value) -> Result<()> {
    let target = target(to)?;
    let network = NetworkOptions { proxies: Proxies::from_vars(ctx.vars()), ..NetworkOptions::default() };
    let client = Client::with_network(&network)?;
    let (body, second) = (document.to_string(), ctx.now().as_second());
    let id = format!("msg_{}", &digest::of(format!("{}{second}{body}", std::process::id()).as_bytes())[..24]);
    let headers = key.map_or(vec![], |key| key.headers(&id, second, &body).to_vec());
    let post = || attempt(&client, &target, &headers, &body);
    match post() {
        Ok(()) => Ok(()),
        Err(refused) if !refused.again => Err(refused.error(&target)),
        Err(_) => {
            std::thread::sleep(PAUSE);
            post().map_err(|refused| refused.error(&target))
        }
    }
}

/// A failed attempt.
struct Refused {
    reason: String,
    again: bool,
}

impl Refused {
    fn error(self, target: &Url) -> anyhow::Error {
        CliError::new(Kind::Remote, format!("the webhook at {} did not accept it: {}", origin(target), self.reason))
            .hint("check its URL; `cargo xtask notify ENV --test` sends a test")
            .into()
    }
}

fn attempt(client: &Client, target: &Url, headers: &[(&str, String)], body: &str) -> Result<(), Refused> {
    match client.post_json(target, headers, body, LIMIT) {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(Refused {
            reason: format!("status {}", answer.status),
            again: answer.status == 429 || answer.status >= 500,
        }),
        Err(Broken { reason, .. }) => Err(Refused { reason, again: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_that_of_the_specification() {
        // The example of the reference libraries.
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let headers = key.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(headers[2].1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn key_that_is_none_is_refused_and_not_shown() {
        for text in ["", "whsec_", "hunter2hunter2", "whsec_c2hvcnQ=", "whsec_?"] {
            let error = Key::parse(text).err().unwrap();
            assert!(text.len() < 7 || !error.to_string().contains(text), "{error}");
        }
    }
}
