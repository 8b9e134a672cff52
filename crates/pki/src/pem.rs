//! PEM (RFC 7468): labelled base64 in a text file. Contents are wiped when dropped, since they may be keys.

use zeroize::Zeroizing;

/// One `-----BEGIN label-----` … `-----END label-----` block.
pub(crate) struct Block {
    pub(crate) label: String,
    /// Line of its BEGIN, from 1.
    pub(crate) line: usize,
    pub(crate) contents: Zeroizing<Vec<u8>>,
    /// An RFC 1421 header says the contents are encrypted, as `openssl rsa -aes256` writes.
    pub(crate) encrypted: bool,
}

/// Where and how a PEM file is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct BadPem {
    pub(crate) line: usize,
    pub(crate) what: &'static str,
}

/// Whether the bytes look like PEM rather than DER.
pub(crate) fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(11).any(|it| it == b"-----BEGIN ")
}

/// All blocks; text between them (as `openssl x509 -text` writes) is passed over.
pub(crate) fn blocks(bytes: &[u8]) -> Result<Vec<Block>, BadPem> {
    let mut out = Vec::new();
    let mut open: Option<(Block, Base64)> = None;
    for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let bad = |what| BadPem { line: at + 1, what };
        let line = line.trim_ascii();
        match &mut open {
            None => {
                if let Some(label) = label(line, b"-----BEGIN ") {
                    let block = Block {
                        label,
                        line: at + 1,
                        // At most three quarters of the file, so that no copy is left behind by growing.
                        contents: Zeroizing::new(Vec::with_capacity(bytes.len() / 4 * 3 + 3)),
                        encrypted: false,
                    };
                    open = Some((block, Base64::default()));
                }
            }
            Some((block, base64)) => {
                if let Some(end) = label(line, b"-----END ") {
                    if end != block.label {
                        return Err(bad("END does not name what BEGIN named"));
                    }
                    base64
                        .finish()
                        .ok_or(bad("the base64 ends in the middle"))?;
                    out.extend(open.take().map(|(block, _)| block));
                } else if line.contains(&b':') {
                    block.encrypted |=
                        line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
                } else {
                    for &byte in line {
                        base64
                            .push(byte, &mut block.contents)
                            .ok_or(bad("expected base64"))?;
                    }
                }
            }
        }
    }
    match open {
        Some((block, _)) => Err(BadPem {
            line: block.line,
            what: "BEGIN without an END",
        }),
        None => Ok(out),
    }
}

/// One block as text, 64 characters a line.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = (0..3).fold(0, |sum, at| {
                sum << 8 | u32::from(three.get(at).copied().unwrap_or(0))
            });
            for at in 0..4 {
                out.push(match at <= three.len() {
                    true => char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]),
                    false => '=',
                });
            }
        }
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

fn label(line: &[u8], prefix: &[u8]) -> Option<String> {
    let label = line.strip_prefix(prefix)?.strip_suffix(b"-----")?;
    String::from_utf8(label.to_vec()).ok()
}

/// Decoder of one block.
#[derive(Default)]
struct Base64 {
    bits: u32,
    digits: u8,
    padding: u8,
}

impl Base64 {
    fn push(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<()> {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                self.padding += 1;
                let fits = self.digits + self.padding <= 4 && self.digits >= 2;
                return fits.then_some(());
            }
            _ => return None,
        };
        if self.padding > 0 {
            return None;
        }
        self.bits = self.bits << 6 | u32::from(value);
        self.digits += 1;
        match self.digits {
            2 => out.push((self.bits >> 4) as u8),
            3 => out.push((self.bits >> 2) as u8),
            4 => {
                out.push(self.bits as u8);
                (self.bits, self.digits) = (0, 0);
            }
            _ => {}
        }
        Some(())
    }

    fn finish(&self) -> Option<()> {
        (self.digits == 0 && self.padding == 0 || self.digits + self.padding == 4).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(body: &str) -> Result<Vec<u8>, BadPem> {
        let text = format!("-----BEGIN X-----\n{body}\n-----END X-----\n");
        Ok(blocks(text.as_bytes())?.remove(0).contents.to_vec())
    }

    #[test]
    fn base64_is_that_of_rfc_4648_section_10() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9v\r\n  YmFy", "foobar"),
        ] {
            assert_eq!(one(text).expect(text), bytes.as_bytes());
        }
        for bad in ["Z", "Zg", "Zg=", "Zg===", "=", "Zg==Zg==", "Z!==", "Zm9vY"] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn blocks_are_found_between_text_and_errors_name_the_line() {
        let text = b"Certificate:\n    Data\n-----BEGIN A-----\nZg==\n-----END A-----\n\n-----BEGIN B KEY-----\r\n\
            Proc-Type: 4,ENCRYPTED\r\nDEK-Info: AES\r\n\r\nZm8=\r\n-----END B KEY-----";
        let found = blocks(text).expect("two blocks");
        let shape: Vec<_> = found
            .iter()
            .map(|it| {
                (
                    it.label.as_str(),
                    it.line,
                    it.contents.as_slice(),
                    it.encrypted,
                )
            })
            .collect();
        assert_eq!(
            shape,
            [("A", 3, &b"f"[..], false), ("B KEY", 7, b"fo", true)]
        );
        let error = |text: &[u8]| blocks(text).err().map(|it| it.to_string());
        assert_eq!(
            error(b"\n-----BEGIN A-----\nZg==\n").as_deref(),
            Some("line 2: BEGIN without an END")
        );
        assert_eq!(
            error(b"-----BEGIN A-----\n-----END B-----\n").as_deref(),
            Some("line 2: END does not name what BEGIN named")
        );
        assert_eq!(
            error(b"-----BEGIN A-----\nZg==\nZ?\n-----END A-----\n").as_deref(),
            Some("line 3: expected base64")
        );
    }
}
