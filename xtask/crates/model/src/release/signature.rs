//! Signatures of a manifest, in the format of OpenSSH's `PROTOCOL.sshsig`.

/// The use that a key signs for: a signature of a git commit does not count for a release.
pub const NAMESPACE: &str = "gangplank";
/// The maximum number of signatures of a release.
pub const SIGNATURES_MAX: usize = 4;
/// The maximum bytes of a signature; one by an ed25519 key has 300.
const BYTES_MAX: usize = 4096;

/// Fails for texts that are not SSH signatures. Whether a trusted key made them is checked where an env requires it.
pub fn check(signatures: &[String]) -> Result<(), String> {
    if signatures.len() > SIGNATURES_MAX {
        return Err(format!("more than {SIGNATURES_MAX} signatures"));
    }
    let is_one = |text: &String| {
        text.len() <= BYTES_MAX
            && text.starts_with("-----BEGIN SSH SIGNATURE-----\n")
            && text.ends_with("\n-----END SSH SIGNATURE-----\n")
            && text.bytes().all(|byte| byte == b'\n' || byte.is_ascii_graphic() || byte == b' ')
    };
    if signatures.iter().all(is_one) { Ok(()) } else { Err("it has a text that is not an SSH signature".into()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_that_are_not_signatures_are_refused() {
        let armour = |text: &str| format!("-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n");
        let good = armour("AAAA");
        for (signatures, want) in [
            (vec![], true),
            (vec![good.clone(); 4], true),
            (vec![good.clone(); 5], false),
            (vec![good.clone(), "AAAA".into()], false),
            (vec![armour("\x1b[2J")], false),
            (vec![armour(&"A".repeat(5000))], false),
        ] {
            assert_eq!(super::check(&signatures).is_ok(), want, "{signatures:?}");
        }
    }
}
