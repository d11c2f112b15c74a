//! Percent-encoding of paths and queries.

use std::fmt::Write as _;

/// Decodes percent-encoding, and `+` as a space if `plus`. `None` if the result is not UTF-8.
pub(super) fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8
            }
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Encodes like Java's `URLEncoder`, as CircleCI does for the names of artifacts.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_of_encoded_text_gives_the_text() {
        for (text, encoded) in [("a b+c", "a+b%2Bc"), ("é/%", "%C3%A9%2F%25"), ("x-1.tar.gz", "x-1.tar.gz")] {
            assert_eq!(encode(text), encoded);
            assert_eq!(decode(encoded, true).as_deref(), Some(text));
        }
    }

    #[test]
    fn decode_of_invalid_text_is_refused() {
        for text in ["%", "%4", "%zz", "%ff", "%+4"] {
            assert_eq!(decode(text, false), None, "{text}");
        }
    }
}
