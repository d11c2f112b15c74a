//! Whether a release was signed by a key that an env trusts.

use crate::allowed::{AllowedKey, allowed_keys};
use gangplank_model::error::{Result, verification};
use gangplank_model::project::Env;
use gangplank_model::release::manifest::Manifest;
use gangplank_model::release::signature::NAMESPACE;
use gangplank_system::context::Context;
use ssh_key::{HashAlg, PublicKey, SshSig};

/// Why no signature of a release counts. In order: the last one that applies says most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It has no signature.
    Unsigned,
    /// A signature cannot be read, for this reason.
    Unreadable(String),
    /// It was signed by another key, with this fingerprint.
    OtherKey(String),
    /// It was signed by a trusted key for another use.
    OtherNamespace(String),
    /// A trusted key signed other bytes.
    OtherBytes(String),
}

/// Fails unless one of the keys of `require_signature` signed the release; returns who did.
pub fn check(ctx: &Context, env: &Env, manifest: &Manifest) -> Result<String> {
    let keys = allowed_keys(ctx, env)?;
    let refusal = match judge(&keys, &manifest.signed_bytes(), &manifest.signatures) {
        Ok(signer) => return Ok(signer),
        Err(refusal) => refusal,
    };
    let id = &manifest.id;
    let sign = format!("sign it where it was built, `cargo xtask sign {id}`, before `put`; see docs/signatures.md");
    let (what, hint) = match refusal {
        Refusal::Unsigned => (format!("{id} is not signed, and {} requires a signature", env.name), sign),
        Refusal::Unreadable(reason) => (format!("a signature of {id} cannot be read: {reason}"), sign),
        Refusal::OtherKey(fingerprint) => (
            format!("{id} was signed by the key {fingerprint}, which is not in `require_signature` of {}", env.name),
            "find out whose key it is; `require_signature` in xtask/src/main.rs lists the trusted ones".to_owned(),
        ),
        Refusal::OtherNamespace(namespace) => {
            (format!("{id} was signed for the namespace `{namespace}`, not for `{NAMESPACE}`"), sign)
        }
        Refusal::OtherBytes(signer) => (
            format!("the signature of {id} by {signer} is of another manifest: it was changed after it was signed"),
            "do not deploy it: find out who can write to the store; then build, sign and put it again".to_owned(),
        ),
    };
    verification(what).hint(hint).err()
}

/// Who signed these bytes, among the keys.
pub fn judge(keys: &[AllowedKey], bytes: &[u8], signatures: &[String]) -> Result<String, Refusal> {
    let mut refusal = Refusal::Unsigned;
    for signature in signatures {
        match of_one(keys, bytes, signature) {
            Ok(signer) => return Ok(signer),
            Err(reason) => refusal = refusal.max(reason),
        }
    }
    Err(refusal)
}

fn of_one(keys: &[AllowedKey], bytes: &[u8], signature: &str) -> Result<String, Refusal> {
    let signature = SshSig::from_pem(signature).map_err(|error| Refusal::Unreadable(error.to_string()))?;
    let signer = PublicKey::from(signature.public_key().clone());
    let Some(key) = keys.iter().find(|key| key.key.key_data() == signer.key_data()) else {
        return Err(Refusal::OtherKey(signer.fingerprint(HashAlg::Sha256).to_string()));
    };
    if signature.namespace() != NAMESPACE {
        return Err(Refusal::OtherNamespace(signature.namespace().escape_debug().to_string()));
    }
    match signer.verify(NAMESPACE, bytes, &signature) {
        Ok(()) => Ok(key.name.clone()),
        Err(_) => Err(Refusal::OtherBytes(key.name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::from_seed;
    use ssh_key::LineEnding;

    fn signed(seed: u8, namespace: &str, bytes: &[u8]) -> String {
        from_seed(&[seed; 32], "").sign(namespace, HashAlg::Sha512, bytes).unwrap().to_pem(LineEnding::LF).unwrap()
    }

    #[test]
    fn only_a_trusted_key_s_signature_of_these_bytes_for_this_use_counts() {
        let keys: Vec<_> = [(1, "ana"), (2, "ben")]
            .map(|(seed, name)| AllowedKey {
                key: from_seed(&[seed; 32], "").public_key().clone(),
                name: name.to_owned(),
            })
            .into();
        let other = PublicKey::from(from_seed(&[3; 32], "").public_key().key_data().clone());
        let other = other.fingerprint(HashAlg::Sha256).to_string();
        let good = signed(1, NAMESPACE, b"m");
        let cut = good.replace("-----END", "-----end");
        for (signatures, want) in [
            (vec![], Err(Refusal::Unsigned)),
            (vec![good.clone()], Ok("ana")),
            // Rotation: two keys sign, either is trusted.
            (vec![signed(3, NAMESPACE, b"m"), signed(2, NAMESPACE, b"m")], Ok("ben")),
            (vec![signed(3, NAMESPACE, b"m")], Err(Refusal::OtherKey(other))),
            (vec![signed(2, "file", b"m")], Err(Refusal::OtherNamespace("file".into()))),
            (vec![signed(1, NAMESPACE, b"n"), signed(2, "file", b"m")], Err(Refusal::OtherBytes("ana".into()))),
        ] {
            assert_eq!(judge(&keys, b"m", &signatures), want.map(str::to_owned), "{signatures:?}");
        }
        assert!(matches!(judge(&keys, b"m", &[cut]), Err(Refusal::Unreadable(_))));
        assert!(matches!(judge(&[], b"m", &[good]), Err(Refusal::OtherKey(_))), "no key is trusted by default");
    }
}
