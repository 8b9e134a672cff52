//! What `[gateway.dns]` means.

use std::net::IpAddr;

use cygnet_ike::policy::Host;

use super::Builder;
use crate::raw::{OneOrMany, RawDns};
use crate::{Dns, DnsTls, Dot, parse, units};

const CACHE: u32 = 4096;

impl Builder<'_> {
    pub(super) fn dns(&mut self, raw: &RawDns) -> Dns {
        let resolvers = self.resolvers("resolvers", raw.resolvers.as_ref());
        let tls = self.dns_tls(raw, &resolvers);
        let direct = self.domains(raw.direct.as_ref());
        let lan_domains = self.domains(raw.lan_domains.as_ref());
        for written in raw.lan_domains.iter().flat_map(OneOrMany::iter) {
            if units::domain(written.get_ref()).is_ok_and(|domain| direct.contains(&domain)) {
                self.mistake_with_help(
                    written.span(),
                    format!(
                        "`{}` is in `direct` as well, which asks outside the LAN",
                        written.get_ref()
                    ),
                    "keep it in one of the two",
                );
            }
        }
        let block = raw.block.iter().flat_map(OneOrMany::iter);
        let block = self.values(block, |path| match path {
            "" => {
                Err("a block list has no name: expected that of a file in hosts format".to_owned())
            }
            path => Ok(path.to_owned()),
        });
        let dot = self.value_or(raw.dot.as_ref(), Dot::Tunnel, |text| match text {
            "tunnel" => Ok(Dot::Tunnel),
            "refuse" => Ok(Dot::Refuse),
            _ => Err(format!(
                "`{text}` says nothing about DNS over TLS: expected \"tunnel\" (through it as other traffic) or \
                 \"refuse\""
            )),
        });
        let cache = raw.cache.as_ref().map_or(CACHE, |written| {
            if *written.get_ref() > Dns::MAX_CACHE {
                self.mistake(
                    written.span(),
                    format!(
                        "`cache` is too large: expected 0 to {} responses",
                        Dns::MAX_CACHE
                    ),
                );
            }
            *written.get_ref()
        });
        Dns {
            resolvers,
            tls,
            lan_domains,
            direct,
            direct_resolvers: self.resolvers("direct_resolvers", raw.direct_resolvers.as_ref()),
            block,
            dot,
            cache,
        }
    }

    fn domains(&mut self, written: Option<&OneOrMany>) -> Vec<String> {
        let written = written.into_iter().flat_map(OneOrMany::iter);
        self.values(written, units::domain)
    }

    fn resolvers(&mut self, key: &str, written: Option<&OneOrMany>) -> Vec<IpAddr> {
        let Some(written) = written else {
            return Vec::new();
        };
        if let Some(more) = written.iter().nth(Dns::MAX_RESOLVERS) {
            self.mistake(
                more.span(),
                format!(
                    "`{key}` names too many: expected {} at most",
                    Dns::MAX_RESOLVERS
                ),
            );
        }
        // This machine's own resolver may be on it; behind a tunnel there is no such address.
        let loopback = key == "direct_resolvers";
        self.values(written.iter(), |text| {
            let address = units::address(text)?;
            let nobody = address.is_unspecified() || address.is_multicast();
            if nobody || address.is_loopback() && !loopback {
                return Err(format!("`{text}`: no resolver can be reached there"));
            }
            Ok(address)
        })
    }

    fn dns_tls(&mut self, raw: &RawDns, resolvers: &[IpAddr]) -> Option<DnsTls> {
        let Some(name) = &raw.tls else {
            if let Some(ca) = &raw.ca {
                self.mistake_with_help(
                    ca.span(),
                    "`ca` judges certificates, and without `tls` no resolver shows one",
                    "write tls = \"NAME\", the name in the resolvers' certificates",
                );
            }
            return None;
        };
        if resolvers.is_empty() {
            self.mistake_with_help(
                name.span(),
                "`tls` without `resolvers`: which name those have that the server hands out is not known",
                "write resolvers = [\"9.9.9.9\"] or others that answer by that name",
            );
        }
        let known = self.value(name, |text| {
            Ok(match parse::host(text)? {
                Host::Name(name) => name,
                Host::Address(address) => address.to_string(),
            })
        })?;
        let authorities = match &raw.ca {
            None => Vec::new(),
            Some(ca) => self.file(ca, parse::anchors)?,
        };
        Some(DnsTls {
            name: known,
            authorities,
        })
    }
}
