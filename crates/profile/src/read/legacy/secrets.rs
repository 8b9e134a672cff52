//! `ipsec.secrets`: `whom it is for : KIND value`, a line each, longer ones indented below.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::syntax::without_comment;
use super::{Error, File, Note, Place, base_name};
use crate::read::material::{Material, Named, Secret, SecretKind};

const SECRETS_MAX: usize = 256;

/// Notes what is named, and takes the secrets; the files are looked for when they are needed.
pub(crate) fn read(
    file: &File,
    material: &mut Material,
    notes: &mut Vec<Note>,
) -> Result<(), Error> {
    let mut logical: Vec<(usize, Zeroizing<String>)> = Vec::new();
    for (at, line) in file.text()?.lines().enumerate() {
        let content = without_comment(line).trim_end();
        if content.trim().is_empty() {
            continue;
        }
        match logical.last_mut() {
            Some((_, last)) if content.starts_with([' ', '\t']) => {
                // Grown by hand, so that no copy of a secret stays behind.
                let mut joined =
                    Zeroizing::new(String::with_capacity(last.len() + 1 + content.len()));
                joined.push_str(last);
                joined.push_str(content);
                *last = joined;
            }
            _ => {
                if logical.len() >= SECRETS_MAX {
                    let place = Place::line(&file.name, at + 1);
                    return Err(Error::at(
                        &place,
                        format!("more than {SECRETS_MAX} secrets"),
                    ));
                }
                logical.push((at + 1, Zeroizing::new(content.to_owned())));
            }
        }
    }
    material.saw_secrets();
    for (line, content) in &logical {
        let place = Place::line(&file.name, *line);
        if let Err(text) = secret(content, &place, material) {
            notes.push(Note::NotRead(place, text));
        }
    }
    Ok(())
}

fn secret(content: &str, place: &Place, material: &mut Material) -> Result<(), String> {
    if content.split_whitespace().next() == Some("include") {
        return Err("include is not followed: name that file as well".into());
    }
    let (ids, rest) = split(content).ok_or("expected `WHOM : KIND VALUE`; the line is left out")?;
    let rest = rest.trim();
    let (kind, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let value = value.trim();
    let ids: Vec<String> = ids
        .split_whitespace()
        .take(16)
        .map(|it| it.trim_matches('"').to_owned())
        .collect();
    let kind = match kind.to_ascii_uppercase().as_str() {
        "RSA" | "ECDSA" | "PKCS8" => {
            material.named.push(named(value, place, false)?);
            return Ok(());
        }
        "P12" => {
            material.named.push(named(value, place, true)?);
            return Ok(());
        }
        "PSK" => SecretKind::PreShared,
        "EAP" => SecretKind::Eap,
        other => {
            return Err(format!(
                "a secret of kind {other} is not used here; it is left out"
            ));
        }
    };
    let value = decoded(value)?;
    material.secrets.push(Secret { kind, ids, value });
    Ok(())
}

/// At the colon before the kind: one of an IPv6 address is no such.
fn split(content: &str) -> Option<(&str, &str)> {
    if let Some(rest) = content.trim_start().strip_prefix(':') {
        return Some(("", rest));
    }
    let at = content
        .find(" : ")
        .or_else(|| content.find("\t:"))
        .or_else(|| content.find(": "))?;
    let (ids, rest) = content.split_at_checked(at)?;
    Some((ids, rest.trim_start().strip_prefix(':')?))
}

/// `alice.key`, `"alice.key" "passphrase"`, `alice.p12 %prompt`.
fn named(value: &str, place: &Place, p12: bool) -> Result<Named, String> {
    let (file, rest) = match value.strip_prefix('"') {
        Some(quoted) => quoted
            .split_once('"')
            .ok_or("a quotation mark is not closed")?,
        None => value.split_once(char::is_whitespace).unwrap_or((value, "")),
    };
    let file = base_name(file).ok_or("expected the name of a file")?;
    let password = rest.trim();
    let password = password
        .strip_prefix('"')
        .and_then(|it| it.strip_suffix('"'))
        .map(|it| Zeroizing::new(it.to_owned()));
    Ok(Named {
        file: file.to_owned(),
        place: place.clone(),
        p12,
        password,
    })
}

/// `"text"`, `0x…` in hexadecimal, `0s…` in base64.
pub(crate) fn decoded(value: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    if let Some(inner) = value.strip_prefix('"') {
        let inner = inner
            .strip_suffix('"')
            .ok_or("a quotation mark is not closed")?;
        return Ok(Zeroizing::new(inner.as_bytes().to_vec()));
    }
    if let Some(digits) = value.strip_prefix("0x") {
        let digit = |b: u8| {
            char::from(b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        // Of one size, so that no copy of a secret stays behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
        for [high, low] in pairs {
            let both = digit(*high).zip(digit(*low));
            bytes.extend(both.map(|(high, low)| high << 4 | low));
        }
        if bytes.len() != pairs.len() || !rest.is_empty() {
            return Err("expected an even number of hexadecimal digits behind 0x".into());
        }
        return Ok(bytes);
    }
    if let Some(digits) = value.strip_prefix("0s") {
        let bytes = STANDARD.decode(digits.trim());
        return bytes
            .map(Zeroizing::new)
            .map_err(|_| "expected base64 behind 0s".into());
    }
    if value.is_empty() {
        return Err("expected a secret behind its kind".into());
    }
    Ok(Zeroizing::new(value.as_bytes().to_vec()))
}
