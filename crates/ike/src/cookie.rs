//! Stateless cookies (RFC 7296 §2.6): proof that a stranger receives at the address it claims,
//! without remembering it.

use std::net::IpAddr;
use std::time::Duration;

use cygnet_crypto::suite::Prf;
use cygnet_crypto::{Random, Secret};
use cygnet_wire::header::Spi;

use crate::time::Instant;

/// How long a secret makes new cookies. A cookie is good for one to two of these.
pub const SECRET_LIFETIME: Duration = Duration::from_secs(60);

/// Octets of our cookies: the version of the secret, then the hash. RFC 7296 §2.6 allows 1 to 64.
pub const COOKIE_LEN: usize = VERSION_LEN + HASH_LEN;

const VERSION_LEN: usize = 4;
const HASH_LEN: usize = 32;

/// Makes and recognises cookies.
///
/// The form is the one RFC 7296 §2.6 suggests: a version that names the secret, then a keyed hash
/// of the initiator's nonce, address and SPI.
pub struct Cookies {
    current: Generation,
    previous: Option<Generation>,
}

struct Generation {
    version: u32,
    secret: Secret,
    since: Instant,
}

impl Cookies {
    /// With a fresh secret.
    pub fn new(now: Instant, random: &mut dyn Random) -> Self {
        let mut version = [0; VERSION_LEN];
        random.fill(&mut version);
        Self {
            current: Generation::new(u32::from_be_bytes(version), now, random),
            previous: None,
        }
    }

    /// The cookie asked of the sender of an IKE_SA_INIT request.
    pub fn make(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
        nonce: &[u8],
        source: IpAddr,
        spi: Spi,
    ) -> [u8; COOKIE_LEN] {
        self.rotate(now, random);
        self.current.cookie(nonce, source, spi)
    }

    /// Whether `cookie` is one that [`Cookies::make`] gave to this sender lately.
    pub fn verify(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
        cookie: &[u8],
        nonce: &[u8],
        source: IpAddr,
        spi: Spi,
    ) -> bool {
        self.rotate(now, random);
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|generation| {
                cookie.starts_with(&generation.version.to_be_bytes())
                    && Secret::from_slice(&generation.cookie(nonce, source, spi)).ct_eq(cookie)
            })
    }

    fn rotate(&mut self, now: Instant, random: &mut dyn Random) {
        let age = now.since(self.current.since);
        if age < SECRET_LIFETIME {
            return;
        }
        let version = self.current.version.wrapping_add(1);
        let fresh = Generation::new(version, now, random);
        let retired = std::mem::replace(&mut self.current, fresh);
        // After a quiet hour the last secret is an hour old, and so are the cookies made with it.
        self.previous = (age < 2 * SECRET_LIFETIME).then_some(retired);
    }
}

impl Generation {
    fn new(version: u32, since: Instant, random: &mut dyn Random) -> Self {
        let mut secret = Secret::new(vec![0; HASH_LEN]);
        random.fill(secret.expose_mut());
        Self {
            version,
            secret,
            since,
        }
    }

    fn cookie(&self, nonce: &[u8], source: IpAddr, spi: Spi) -> [u8; COOKIE_LEN] {
        let address = match source {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        // The nonce is the only part of unknown length and stands last: no two inputs collide.
        let hash = Prf::HmacSha2_256.compute(
            self.secret.expose(),
            &[
                &[u8::from(source.is_ipv6())],
                &address,
                &spi.to_bytes(),
                nonce,
            ],
        );
        let mut cookie = [0; COOKIE_LEN];
        let (version, rest) = cookie.split_at_mut(VERSION_LEN);
        version.copy_from_slice(&self.version.to_be_bytes());
        rest.copy_from_slice(hash.expose());
        cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_random::TestRandom;

    const NONCE: &[u8] = &[7; 32];
    const SPI: Spi = Spi(0x1122_3344_5566_7788);

    fn at(seconds: u64) -> Instant {
        Instant::from_boot(Duration::from_secs(seconds))
    }

    fn source() -> IpAddr {
        "192.0.2.7".parse().unwrap()
    }

    #[test]
    fn a_cookie_comes_back_good_from_its_sender_alone() {
        let mut random = TestRandom::new(1);
        let mut cookies = Cookies::new(at(0), &mut random);
        let cookie = cookies.make(at(1), &mut random, NONCE, source(), SPI);
        let mut verify = |cookie: &[u8], nonce: &[u8], source: IpAddr, spi| {
            cookies.verify(at(2), &mut random, cookie, nonce, source, spi)
        };
        assert!(verify(&cookie, NONCE, source(), SPI));
        assert!(!verify(&cookie, &[8; 32], source(), SPI));
        assert!(!verify(&cookie, NONCE, "192.0.2.8".parse().unwrap(), SPI));
        assert!(!verify(&cookie, NONCE, source(), Spi(SPI.0 + 1)));
        assert!(!verify(&cookie[..35], NONCE, source(), SPI));
        assert!(!verify(&[], NONCE, source(), SPI));
        let mut altered = cookie;
        altered[COOKIE_LEN - 1] ^= 1;
        assert!(!verify(&altered, NONCE, source(), SPI));
    }

    #[test]
    fn a_cookie_outlives_one_change_of_the_secret_and_not_two() {
        let mut random = TestRandom::new(2);
        let mut cookies = Cookies::new(at(0), &mut random);
        let cookie = cookies.make(at(59), &mut random, NONCE, source(), SPI);
        let newer = cookies.make(at(61), &mut random, NONCE, source(), SPI);
        assert_ne!(cookie, newer);
        assert!(cookies.verify(at(62), &mut random, &cookie, NONCE, source(), SPI));
        assert!(cookies.verify(at(62), &mut random, &newer, NONCE, source(), SPI));
        assert!(!cookies.verify(at(125), &mut random, &cookie, NONCE, source(), SPI));
        assert!(cookies.verify(at(125), &mut random, &newer, NONCE, source(), SPI));
    }

    #[test]
    fn a_cookie_of_long_ago_is_refused_after_a_quiet_time() {
        let mut random = TestRandom::new(3);
        let mut cookies = Cookies::new(at(0), &mut random);
        let cookie = cookies.make(at(1), &mut random, NONCE, source(), SPI);
        assert!(!cookies.verify(at(3600), &mut random, &cookie, NONCE, source(), SPI));
    }
}
