//! The key to sign with: from a variable, a file, or ssh-agent.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use gangplank_model::error::{CliError, Kind, Result, WithHint, failed, usage};
use gangplank_model::release::signature::NAMESPACE;
use gangplank_system::context::{Context, Input, exit, var};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use zeroize::Zeroizing;

/// The variable with the key: its text, its text in base64, or the path of its file.
pub const VARIABLE: &str = var::SIGNING_KEY;
/// The beginning of a private key.
const BEGIN: &str = "-----BEGIN";
/// The maximum bytes of the path of a key.
const PATH_MAX: usize = 255;
/// The maximum bytes of a key's file.
const BYTES_MAX: u64 = 16 << 10;

/// The result of `keygen`.
#[derive(Debug, Serialize)]
pub struct Keygen {
    /// The file of the private key.
    pub private: PathBuf,
    /// The file of the public key.
    pub public: PathBuf,
    /// The public key, as `require_signature` takes it.
    pub key: String,
}

/// A key to sign with.
pub enum SigningKey {
    /// In memory.
    Here(Box<PrivateKey>),
    /// In ssh-agent, with the file of its public key.
    Agent(PathBuf),
}

/// The key of a seed of 32 random bytes.
pub fn from_seed(seed: &[u8; 32], comment: &str) -> PrivateKey {
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(seed));
    key.set_comment(comment);
    key
}

/// `keygen FILE`: writes a private key that only its owner can read, and FILE.pub beside it.
pub fn keygen(ctx: &Context, file: &Path) -> Result<Keygen> {
    let private = ctx.root.join(file);
    let public = PathBuf::from(format!("{}.pub", private.display()));
    let mut seed = Zeroizing::new([0; 32]);
    if SystemRandom::new().fill(&mut *seed).is_err() {
        return failed("the system gives no random bytes").hint("run the same command again").err();
    }
    let comment = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let key = from_seed(&seed, &comment);
    let written = key.to_openssh(LineEnding::LF).and_then(|text| Ok((text, key.public_key().to_openssh()?)));
    let (text, line) =
        written.map_err(|error| failed(format!("cannot write the key: {error}")).hint("run the same command again"))?;
    if let Some(there) = [&private, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return usage(format!("{} already exists", there.display())).hint("name a new file").err();
    }
    for (path, bytes, mode) in [(&private, text.as_bytes(), 0o600), (&public, format!("{line}\n").as_bytes(), 0o644)] {
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        opened.and_then(|mut to| to.write_all(bytes).and_then(|()| to.sync_all())).with_hint(
            Kind::Usage,
            || format!("cannot create {}", path.display()),
            || "name a new file in an existing directory, outside of git: `cargo xtask keygen ~/.ssh/NAME`".into(),
        )?;
    }
    Ok(Keygen { private, public, key: line })
}

impl SigningKey {
    /// The key of a file, or of [`VARIABLE`].
    pub fn find(ctx: &Context, file: Option<&Path>) -> Result<Self> {
        let source = match file {
            Some(file) => Source::File(file.to_owned()),
            None => source(ctx.var(VARIABLE).unwrap_or_default())?,
        };
        let (text, from) = match source {
            Source::Text(text) => (text, VARIABLE.to_owned()),
            Source::File(file) => {
                let path = ctx.root.join(&file);
                let mut text = Zeroizing::new(String::new());
                let read = File::open(&path).and_then(|it| it.take(BYTES_MAX).read_to_string(&mut text));
                read.with_hint(
                    Kind::Usage,
                    || format!("cannot read the key {}", path.display()),
                    || format!("name its file, or set {VARIABLE}; `cargo xtask keygen FILE` makes one"),
                )?;
                if !text.trim_start().starts_with(BEGIN) && text.trim_start().starts_with("ssh-") {
                    return Ok(Self::Agent(path));
                }
                (text, path.display().to_string())
            }
        };
        // The error is left out: it might show what it could not read.
        let Ok(key) = PrivateKey::from_openssh(text.trim_start().as_bytes()) else {
            return usage(format!("{from} is not a private key in OpenSSH's format"))
                .hint("make one with `cargo xtask keygen FILE`")
                .err();
        };
        if key.is_encrypted() {
            return CliError::new(Kind::Auth, format!("the key {from} has a passphrase"))
                .hint("add it to ssh-agent, `ssh-add FILE`, and use `--key FILE.pub`")
                .err();
        }
        check_type(&key.algorithm(), &from)?;
        Ok(Self::Here(Box::new(key)))
    }

    /// Signs bytes; returns the signature's text, and the public key.
    pub fn sign(&self, ctx: &Context, bytes: &[u8]) -> Result<(String, PublicKey)> {
        match self {
            Self::Here(key) => {
                let signed = key.sign(NAMESPACE, HashAlg::Sha512, bytes).and_then(|it| it.to_pem(LineEnding::LF));
                let text = signed.map_err(|error| failed(format!("cannot sign: {error}")).hint("use another key"))?;
                Ok((text, key.public_key().clone()))
            }
            Self::Agent(public) => by_agent(ctx, public, bytes),
        }
    }
}

/// Fails for a key whose signatures no env accepts.
fn check_type(algorithm: &Algorithm, from: &str) -> Result<()> {
    if *algorithm == Algorithm::Ed25519 {
        return Ok(());
    }
    usage(format!("the key {from} is of the type {algorithm}"))
        .hint("use an ed25519 key: `cargo xtask keygen FILE`")
        .err()
}

/// `ssh-keygen` speaks with the agent, whatever holds its keys.
fn by_agent(ctx: &Context, public: &Path, bytes: &[u8]) -> Result<(String, PublicKey)> {
    let text = fs::read_to_string(public).unwrap_or_default();
    let key = PublicKey::from_openssh(text.trim()).map_err(|error| {
        usage(format!("{} is not a public key: {error}", public.display())).hint("name the .pub file of the key")
    })?;
    check_type(&key.algorithm(), &public.display().to_string())?;
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(public);
    let answer = ctx.answer(command, Input::Bytes(bytes))?;
    if answer.ok() && answer.stdout.starts_with(BEGIN) {
        return Ok((answer.stdout, key));
    }
    CliError::new(Kind::Auth, format!("ssh-keygen did not sign ({}): {}", exit(answer.code), answer.stderr.trim()))
        .hint("list the keys of the agent with `ssh-add -l`; add this one with `ssh-add FILE`")
        .err()
}

/// Where a key is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Text(Zeroizing<String>),
    File(PathBuf),
}

/// The source that the value of [`VARIABLE`] means. Some secret stores keep no line breaks, so base64 is one, too.
fn source(value: &str) -> Result<Source> {
    let value = value.trim();
    if value.is_empty() {
        return CliError::new(Kind::Auth, format!("{VARIABLE} is not set"))
            .hint("set it to a private key or its path, or name a file with --key; `cargo xtask keygen FILE` makes one")
            .err();
    }
    if value.starts_with(BEGIN) {
        return Ok(Source::Text(Zeroizing::new(value.to_owned())));
    }
    // `base64` breaks its lines.
    let packed: Zeroizing<Vec<u8>> = Zeroizing::new(value.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let decoded = BASE64_STANDARD.decode(&*packed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(text) = decoded.map(Zeroizing::new).filter(|text| text.starts_with(BEGIN)) {
        return Ok(Source::Text(text));
    }
    // What is no path may be a damaged key, so it is not shown.
    if value.len() > PATH_MAX || value.contains(['\n', '\r']) || value.contains(BEGIN) {
        return usage(format!("{VARIABLE} is neither a private key nor a path"))
            .hint("set it to the text of the key's file, unchanged, or to its path")
            .err();
    }
    Ok(Source::File(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_has_a_text_or_a_path() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n";
        let text = || Source::Text(Zeroizing::new(key.trim().to_owned()));
        assert_eq!(source(key).unwrap(), text());
        assert_eq!(source(&BASE64_STANDARD.encode(key.trim())).unwrap(), text());
        for path in ["/run/key", "key", "AAAA"] {
            assert_eq!(source(path).unwrap(), Source::File(path.into()));
        }
        let wrapped = BASE64_STANDARD.encode(key.trim());
        assert_eq!(source(&format!("{}\n{}", &wrapped[..20], &wrapped[20..])).unwrap(), text());
        for damaged in [" \n".to_owned(), format!("'{key}'"), "A".repeat(300)] {
            let error = source(&damaged).unwrap_err();
            assert!(damaged.trim().is_empty() || !error.to_string().contains(damaged.trim()), "{error}");
        }
    }
}
