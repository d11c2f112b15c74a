//! `sign`: adds a signature to a release that was built here.

use crate::key::SigningKey;
use gangplank_deploy::handoff;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Result, usage};
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_model::release::signature;
use serde::Serialize;
use ssh_key::{HashAlg, SshSig};
use std::path::Path;

/// The result of `sign`.
#[derive(Debug, Serialize)]
pub struct Signed {
    /// The release.
    pub release: ReleaseId,
    /// Fingerprint of the key: `SHA256:...`.
    pub key: String,
    /// The number of its signatures.
    pub signatures: usize,
    /// Whether this key had signed it before.
    pub already_there: bool,
}

/// Signs a release with the key of a file, or of the variable. Every byte is verified before: what is signed is what was
/// built.
pub fn sign(tool: &Tool, release: Option<&Selector>, key: Option<&Path>) -> Result<Signed> {
    let ctx = tool.ctx;
    let key = SigningKey::find(ctx, key)?;
    let release = handoff::local(tool, release)?;
    let id = release.id().clone();
    let (text, public) = key.sign(ctx, &release.manifest().signed_bytes())?;
    let fingerprint = public.fingerprint(HashAlg::Sha256).to_string();
    let is_by_this_key = |text: &String| SshSig::from_pem(text).is_ok_and(|it| it.public_key() == public.key_data());
    let before = &release.manifest().signatures;
    let already_there = before.contains(&text);
    let mut all: Vec<_> = before.iter().filter(|text| !is_by_this_key(text)).cloned().collect();
    all.push(text);
    if all.len() > signature::SIGNATURES_MAX {
        return usage(format!("{id} has {} signatures already, the most", signature::SIGNATURES_MAX))
            .hint("build it again to begin without any")
            .err();
    }
    let signatures = all.len();
    if !already_there {
        release.with_signatures(all)?;
    }
    Ok(Signed { release: id, key: fingerprint, signatures, already_there })
}
