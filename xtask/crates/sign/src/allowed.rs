//! The keys that an env trusts: public keys, and files in the format of `ALLOWED SIGNERS` of ssh-keygen(1).

use gangplank_model::error::{Result, usage};
use gangplank_model::project::Env;
use gangplank_model::release::signature::NAMESPACE;
use gangplank_system::context::Context;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::{Algorithm, PublicKey};
use std::fs::File;
use std::io::Read;

/// The maximum bytes of a file of keys.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A trusted key.
#[derive(Debug, Clone)]
pub struct AllowedKey {
    /// The key.
    pub key: PublicKey,
    /// Whose it is: its comment, or the principal in a file.
    pub name: String,
}

/// The keys of `require_signature`. One that cannot be read refuses all: a typing error must not change who is trusted.
pub fn allowed_keys(ctx: &Context, env: &Env) -> Result<Vec<AllowedKey>> {
    let mut all = Vec::new();
    for entry in env.require_signature {
        let wrong = |what: String| {
            usage(format!("`require_signature` of {}: {what}", env.name))
                .hint("write \"ssh-ed25519 AAAA... NAME\", or the path of an allowed_signers file: docs/signatures.md")
        };
        if entry.starts_with("ssh-") {
            let shown = entry.split(' ').next_back().unwrap_or_default();
            let key = public_key(entry).map_err(|reason| wrong(format!("the key `{shown}` {reason}")))?;
            let name = if key.comment().is_empty() { "an unnamed key".to_owned() } else { key.comment().to_owned() };
            all.push(AllowedKey { key, name });
            continue;
        }
        let mut text = String::new();
        let read = File::open(ctx.root.join(entry))
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| wrong(format!("cannot read {entry}: {error}")))?;
        if read as u64 > FILE_BYTES_MAX {
            return wrong(format!("{entry} has more than {FILE_BYTES_MAX} bytes")).err();
        }
        all.extend(of_file(&text, ctx.now()).map_err(|reason| wrong(format!("{entry}: {reason}")))?);
    }
    Ok(all)
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    let key = PublicKey::from_openssh(text).map_err(|error| format!("is not a public key: {error}"))?;
    match key.algorithm() {
        Algorithm::Ed25519 => Ok(key),
        other => Err(format!("is of the type {other}, and only ssh-ed25519 is supported")),
    }
}

/// The keys in the text of an `allowed_signers` file that are valid now and for our namespace.
fn of_file(text: &str, now: Timestamp) -> Result<Vec<AllowedKey>, String> {
    let mut all = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        all.extend(of_line(line, now).map_err(|reason| format!("line {}: {reason}", n + 1))?);
    }
    Ok(all)
}

fn of_line(line: &str, now: Timestamp) -> Result<Option<AllowedKey>, String> {
    let split = match line.strip_prefix('"') {
        Some(rest) => rest.split_once("\" "),
        None => line.split_once([' ', '\t']),
    };
    let Some((principals, rest)) = split else { return Err("it has no key".into()) };
    let rest = rest.trim_start();
    // As OpenSSH does: what is a key is no option.
    let (options, key) = match public_key(rest) {
        Ok(key) => (vec![], key),
        Err(error) if rest.starts_with("ssh-") => return Err(format!("the key {error}")),
        Err(_) => {
            let (options, rest) = options(rest)?;
            (options, public_key(rest).map_err(|error| format!("the key {error}"))?)
        }
    };
    for (name, value) in options {
        let is_valid = match name.to_ascii_lowercase().as_str() {
            "namespaces" => has_namespace(value)?,
            "valid-after" => now >= time(value)?,
            "valid-before" => now < time(value)?,
            // A certificate's authority is no key that signs releases.
            "cert-authority" => false,
            _ => return Err(format!("the option `{name}` is not known")),
        };
        if !is_valid {
            return Ok(None);
        }
    }
    Ok(Some(AllowedKey { key, name: principals.to_owned() }))
}

/// An option and its value; empty for one without.
type KeyOption<'a> = (&'a str, &'a str);

/// Options, separated by commas, and what follows them: `namespaces="git,gangplank",cert-authority ssh-ed25519 ...`.
fn options(text: &str) -> Result<(Vec<KeyOption<'_>>, &str), String> {
    let (mut all, mut rest) = (Vec::new(), text);
    loop {
        let end = rest.find([',', ' ', '\t', '=']).ok_or("it has no key")?;
        let (name, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix("=\"") {
            Some(quoted) => quoted.split_once('"').ok_or_else(|| format!("the value of `{name}` has no end"))?,
            None if after.starts_with('=') => return Err(format!("the value of `{name}` is not quoted")),
            None => ("", after),
        };
        let is_known = all.iter().any(|(known, _): &KeyOption| known.eq_ignore_ascii_case(name));
        if name.is_empty() || value.contains('\\') || is_known {
            return Err(format!("the option `{name}` cannot be read"));
        }
        all.push((name, value));
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.starts_with([' ', '\t']) => return Ok((all, after.trim_start())),
            None => return Err(format!("`{name}` is not followed by a key")),
        }
    }
}

/// Whether a list of namespaces has ours. Patterns other than `*` are refused rather than read in a way of our own.
fn has_namespace(list: &str) -> Result<bool, String> {
    let mut has = false;
    for name in list.split(',') {
        if name != "*" && name.contains(['*', '?', '!']) {
            return Err(format!("the pattern `{name}` is not supported: name the namespace {NAMESPACE}"));
        }
        has |= name == "*" || name == NAMESPACE;
    }
    Ok(has)
}

/// `YYYYMMDDZ` or `YYYYMMDDHHMM[SS]Z`. Without `Z` it would mean another time on each machine.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is not a time in UTC: write YYYYMMDDZ or YYYYMMDDHHMMSSZ");
    let digits = text.strip_suffix('Z').ok_or_else(wrong)?;
    let whole = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        14 => digits.to_owned(),
        _ => return Err(wrong()),
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", whole).map_err(|_| wrong())?;
    civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::from_seed;

    #[test]
    fn file_gives_the_keys_that_are_valid_now_for_our_namespace() {
        let key = |seed: u8| from_seed(&[seed; 32], "").public_key().to_openssh().unwrap();
        let (one, two, now) = (key(1), key(2), "2026-12-01T00:00:00Z".parse().unwrap());
        for (line, want) in [
            (format!("# text\n\nana@example.com {one} laptop"), Ok("ana@example.com")),
            (format!("\"ana b\" {one}"), Ok("ana b")),
            (format!("ana namespaces=\"git,gangplank\" {one}"), Ok("ana")),
            (format!("ana namespaces=\"*\",valid-after=\"20260101Z\" {one}\nben {two}"), Ok("ana ben")),
            (format!("ana namespaces=\"git\" {one}"), Ok("")),
            (format!("ana valid-before=\"20261201Z\" {one}"), Ok("")),
            (format!("ana valid-before=\"202612010001Z\" {one}"), Ok("ana")),
            (format!("ana cert-authority {one}"), Ok("")),
            (format!("ana namespaces=\"gang*\" {one}"), Err("line 1: the pattern `gang*` is not supported")),
            (format!("ana valid-after=\"20260101\" {one}"), Err("`20260101` is not a time in UTC")),
            (
                format!("ana namespaces=\"git\",Namespaces=\"gangplank\" {one}"),
                Err("the option `Namespaces` cannot be read"),
            ),
            (format!("ana no-pty {one}"), Err("the option `no-pty` is not known")),
            ("ana".into(), Err("line 1: it has no key")),
            ("ana ssh-ed25519 AAAA".into(), Err("the key is not a public key")),
            (one.clone(), Err("it has no key")),
            (format!("ana namespaces=\"gangplank {one}"), Err("the value of `namespaces` has no end")),
            (format!("ana namespaces=gangplank {one}"), Err("the value of `namespaces` is not quoted")),
            (format!("ana namespaces=\"gangplank\"x {one}"), Err("`namespaces` is not followed by a key")),
            (format!("ana namespaces=\"git\",cert-authority {one}"), Ok("")),
        ] {
            let found =
                of_file(&line, now).map(|keys| keys.into_iter().map(|it| it.name).collect::<Vec<_>>().join(" "));
            match want {
                Ok(names) => assert_eq!(found.as_deref(), Ok(names), "{line}"),
                Err(reason) => assert!(found.as_ref().unwrap_err().contains(reason), "{line}: {found:?}"),
            }
        }
    }
}
