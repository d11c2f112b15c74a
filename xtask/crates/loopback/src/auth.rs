//! Credentials of requests: which kind, and whether they are valid.

use crate::message::{Reply, Request};
use crate::mock_state::MockState;
use gangplank_model::error::Result;

/// The kind of a request's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Circle-Token`.
    CircleToken,
    /// `Authorization: Basic`, the token as user.
    Basic,
    /// `?circle-token=`.
    Query,
}

/// The credential of a request, with its kind. Its value is used only here and in [`authenticate`].
fn credential(request: &Request) -> Option<(Credential, String)> {
    if let Some(value) = request.headers.get("authorization") {
        let (scheme, value) = value.split_once(' ').unwrap_or((value, ""));
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some((Credential::Bearer, value.trim().to_owned())),
            // The token is the user; the password is empty.
            "basic" => {
                let pair = base64(value.trim()).unwrap_or_default();
                Some((Credential::Basic, pair.split(':').next().unwrap_or_default().to_owned()))
            }
            _ => None,
        };
    }
    let header = request.headers.get("circle-token").map(|value| (Credential::CircleToken, value.clone()));
    header.or_else(|| request.query.get("circle-token").map(|value| (Credential::Query, value.clone())))
}

/// For the log: the kind of credential, and whether it is valid.
pub(super) fn kind_of_credential(state: &MockState, request: &Request) -> (Option<Credential>, bool) {
    match credential(request) {
        Some((kind, token)) => (Some(kind), state.tokens.contains(&token)),
        None => (None, false),
    }
}

/// Whether a request contains any of the tokens.
pub(super) fn has_token(state: &MockState, request: &Request) -> bool {
    let basic = credential(request).map(|(_, token)| token);
    let texts = request.headers.values().chain(request.query.values()).chain(request.query.keys());
    let body = String::from_utf8_lossy(&request.body);
    let texts = texts.chain([&request.path, &request.raw_path, &request.method]).map(String::as_str);
    let texts: Vec<&str> = texts.chain(basic.as_deref()).chain([body.as_ref()]).collect();
    state.tokens.iter().filter(|token| !token.is_empty()).any(|token| texts.iter().any(|it| it.contains(token)))
}

/// Checks the credential. `old` is for v1.1 and artifact URLs, which accept project tokens and tokens in the query.
pub(super) fn authenticate(state: &MockState, request: &Request, old: bool) -> Result<(), Reply> {
    let invalid = || Reply::message(401, "Invalid token provided.");
    match credential(request) {
        Some((Credential::Query, _)) if !old => Err(Reply::message(
            401,
            "Support for query parameter authentication has been deprecated to improve security. Please use a \
             supported authentication method such as header-based, or basic authentication.",
        )),
        Some((_, token)) if token.starts_with("CCIPRJ_") && !old => Err(Reply::message(404, "Project not found")),
        Some((_, token)) if state.tokens.contains(&token) => Ok(()),
        Some(_) => Err(invalid()),
        None => Err(Reply::message(401, "You must log in first.")),
    }
}

fn base64(text: &str) -> Option<String> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, plain) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(base64(text).as_deref(), Some(plain));
        }
        assert_eq!((base64("Zg!="), base64("/w==")), (None, None));
    }
}
