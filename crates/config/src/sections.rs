//! Which section knows which key, for a key that stands in another one.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::raw::{
    RawAdvertise, RawChild, RawDaemon, RawDhcp, RawDns, RawGateway, RawServer, RawThrough,
    RawTunnel,
};

struct Section {
    /// As its header says it; what is in capitals stands for any name.
    path: &'static [&'static str],
    keys: &'static [&'static str],
}

fn all() -> [Section; 9] {
    let section = |path, keys| Section { path, keys };
    [
        section(&["daemon"], keys::<RawDaemon>()),
        section(&["server"], keys::<RawServer>()),
        section(&["tunnel", "NAME"], keys::<RawTunnel>()),
        section(&["tunnel", "NAME", "child", "CHILD"], keys::<RawChild>()),
        section(&["gateway"], keys::<RawGateway>()),
        section(&["gateway", "through", "NAME"], keys::<RawThrough>()),
        section(&["gateway", "dns"], keys::<RawDns>()),
        section(&["gateway", "dhcp"], keys::<RawDhcp>()),
        section(&["gateway", "advertise"], keys::<RawAdvertise>()),
    ]
}

impl Section {
    /// Whether a section of this path is in it, or is it.
    fn is_around(&self, path: &[&str]) -> bool {
        let mut pairs = self.path.iter().zip(path);
        let is_name = |part: &str| part.bytes().all(|b| b.is_ascii_uppercase());
        path.len() >= self.path.len() && pairs.all(|(known, part)| known == part || is_name(known))
    }
}

/// Of a key that is unknown where it stands and known elsewhere: where it belongs, and what to do.
///
/// `header`: of the section it stands in, brackets included; `itself`: it is a part of that header.
pub(crate) fn elsewhere(key: &str, header: Option<&str>, itself: bool) -> Option<(String, String)> {
    let header = header.unwrap_or_default();
    let inner = header.trim_matches(['[', ']']);
    let path: Vec<&str> = inner
        .split('.')
        .map(|part| part.trim().trim_matches('"'))
        .collect();
    let all = all();
    if itself {
        let meant = all.iter().find(|it| it.path.last() == Some(&key))?;
        let meant = shown(meant.path);
        return Some((
            format!("there is no section {header}"),
            format!("did you mean {meant}?"),
        ));
    }
    let knowing = || all.iter().filter(|it| it.keys.contains(&key));
    let around = knowing().filter(|it| it.is_around(&path));
    if let Some(around) = around.max_by_key(|it| it.path.len()) {
        let owner = path.get(..around.path.len()).unwrap_or_default();
        let remedy = match owner.len() < path.len() {
            true => format!("write it there, above {header}"),
            false => "write it on a line of its own".to_owned(),
        };
        return Some((format!("`{key}` belongs to {}", shown(owner)), remedy));
    }
    let owners: Vec<String> = knowing().map(|it| shown(it.path)).collect();
    let owners = match owners.as_slice() {
        [] => return None,
        [one] => one.clone(),
        [before @ .., last] => format!("{} or {last}", before.join(", ")),
    };
    Some((
        format!("`{key}` belongs to {owners}"),
        "write it below that line".to_owned(),
    ))
}

fn shown(path: &[&str]) -> String {
    format!("[{}]", path.join("."))
}

/// The keys of a section, as its struct has them.
fn keys<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It is asked for its fields, and given none.
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

/// Keeps which fields a struct asks for.
struct Fields<'f>(&'f mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("nothing is here"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_has_keys() {
        for section in all() {
            assert!(!section.keys.is_empty(), "{:?}", section.path);
        }
    }

    #[test]
    fn a_key_is_sent_to_the_section_that_knows_it() {
        for (key, header, expected) in [
            (
                "direct_domains",
                Some("[gateway.dns]"),
                "`direct_domains` belongs to [gateway]; write it there, above [gateway.dns]",
            ),
            (
                "psk",
                Some("[tunnel.a.child.b]"),
                "`psk` belongs to [tunnel.a]; write it there, above [tunnel.a.child.b]",
            ),
            (
                "psk",
                Some("[ tunnel.\"a\" ]"),
                "`psk` belongs to [tunnel.a]; write it on a line of its own",
            ),
            (
                "cache",
                Some("[gateway.dhcp]"),
                "`cache` belongs to [gateway.dns]; write it below that line",
            ),
            (
                "remote",
                None,
                "`remote` belongs to [tunnel.NAME]; write it below that line",
            ),
            (
                "mobike",
                Some("[daemon]"),
                "`mobike` belongs to [server] or [tunnel.NAME]; write it below that line",
            ),
        ] {
            let (message, help) = elsewhere(key, header, false).expect("known elsewhere");
            assert_eq!(format!("{message}; {help}"), expected);
        }
        let (message, help) = elsewhere("dns", Some("[dns]"), true).expect("a section");
        assert_eq!(
            format!("{message}; {help}"),
            "there is no section [dns]; did you mean [gateway.dns]?"
        );
        for (key, itself) in [("firewall", false), ("home", true)] {
            assert_eq!(elsewhere(key, Some("[home]"), itself), None);
        }
    }
}
