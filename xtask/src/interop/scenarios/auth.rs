//! Every authentication with both of Algo's suites, and every form of identity.

use super::super::Scenario;
use super::super::pair::Pair;
use super::super::plan::{Kit, Plan, Proof, Role};
use crate::ensure;
use crate::lab::pki::{Authority, KeyKind, Request};
use crate::lab::{Lab, Result};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for method in METHODS {
        for suite in SUITES {
            for role in Role::BOTH {
                let name = format!("auth-{}-{}-{}", method.name, suite.name, role.name());
                let about = format!("{}; {} and {}", method.about, suite.ike, suite.esp);
                all.push(Scenario::new(name, about, move |lab| {
                    method.play(lab, suite, role)
                }));
            }
        }
    }
    for identity in IDENTITIES {
        for role in Role::BOTH {
            let name = format!("identity-{}-{}", identity.name, role.name());
            all.push(Scenario::new(name, identity.about, move |lab| {
                identity.play(lab, role)
            }));
        }
    }
    all.push(Scenario::new(
        "identity-requested-responder",
        "strongSwan wants to talk to another name of Cygnet's certificate than the configured one",
        |lab| requested(lab),
    ));
    all
}

/// As an iPhone does that has the server's address for its RemoteIdentifier.
fn requested(lab: &Lab) -> Result<String> {
    const OTHER: &str = "cygnet@lab";
    let mut plan = Plan::certificates(Role::Responder, KeyKind::EcP256)?;
    plan.swan.expects = OTHER.to_owned();
    let pair = Pair::connected(lab, plan)?;
    let (own, theirs) = pair.ike_sa()?;
    ensure!(
        theirs.remote_id == OTHER && own.peer.as_deref() == Some(pair.plan.swan.identity.as_str()),
        "strongSwan talks to {}, cygnet to {:?}",
        theirs.remote_id,
        own.peer
    );
    pair.carry()
}

struct Suite {
    name: &'static str,
    ike: &'static str,
    esp: &'static str,
}

/// What Algo configures.
const SUITES: &[Suite] = &[
    Suite {
        name: "suite128",
        ike: "aes128gcm16-prfsha512-ecp256",
        esp: "aes128gcm16-ecp256",
    },
    Suite {
        name: "suite256",
        ike: "aes256gcm16-prfsha512-ecp384",
        esp: "aes256gcm16-ecp384",
    },
];

struct Method {
    name: &'static str,
    about: &'static str,
    /// Kinds of key: Cygnet's, strongSwan's. None: a shared key.
    keys: Option<(KeyKind, KeyKind)>,
    /// `auth` of strongSwan's own section and of its peer's.
    swan_auth: (Option<&'static str>, Option<&'static str>),
    swan_daemon: &'static [&'static str],
    cygnet_line: Option<&'static str>,
    /// How strongSwan logs Cygnet's proof, and its own.
    told: (&'static str, &'static str),
}

const PLAIN: Method = Method {
    name: "",
    about: "",
    keys: None,
    swan_auth: (None, None),
    swan_daemon: &[],
    cygnet_line: None,
    told: ("", ""),
};

const METHODS: &[Method] = &[
    Method {
        name: "psk",
        about: "a pre-shared key",
        told: ("with pre-shared key", "with pre-shared key"),
        ..PLAIN
    },
    Method {
        name: "ecdsa256",
        about: "ECDSA P-256, RFC 7427",
        keys: Some((KeyKind::EcP256, KeyKind::EcP256)),
        told: ("ECDSA_WITH_SHA256_DER", "ECDSA_WITH_SHA256_DER"),
        ..PLAIN
    },
    Method {
        name: "ecdsa384",
        about: "ECDSA P-384, RFC 7427",
        keys: Some((KeyKind::EcP384, KeyKind::EcP384)),
        told: ("ECDSA_WITH_SHA384_DER", "ECDSA_WITH_SHA384_DER"),
        ..PLAIN
    },
    Method {
        name: "ecdsa521",
        about: "ECDSA P-521, RFC 7427",
        keys: Some((KeyKind::EcP521, KeyKind::EcP521)),
        told: ("ECDSA_WITH_SHA512_DER", "ECDSA_WITH_SHA512_DER"),
        ..PLAIN
    },
    Method {
        name: "ecdsa-classic",
        about: "ECDSA by methods 9 and 10 (RFC 4754), a peer without RFC 7427",
        keys: Some((KeyKind::EcP256, KeyKind::EcP384)),
        swan_daemon: &["signature_authentication = no"],
        told: ("with ECDSA-256 signature", "with ECDSA-384 signature"),
        ..PLAIN
    },
    Method {
        name: "rsa-pkcs1",
        about: "RSA, PKCS#1 v1.5 with SHA-2 by RFC 7427",
        keys: Some((KeyKind::Rsa2048, KeyKind::Rsa2048)),
        swan_auth: (Some("ike:rsa-sha256"), None),
        told: ("RSA_EMSA_PKCS1_SHA2_256", "RSA_EMSA_PKCS1_SHA2_256"),
        ..PLAIN
    },
    Method {
        name: "rsa-pss",
        about: "RSA-PSS demanded of both",
        keys: Some((KeyKind::Rsa2048, KeyKind::Rsa2048)),
        swan_auth: (
            Some("ike:rsa/pss-sha256"),
            Some("ike:rsa/pss-sha256-sha384-sha512"),
        ),
        cygnet_line: Some("rsa_pss = true"),
        told: ("RSA_EMSA_PSS", "RSA_EMSA_PSS"),
        ..PLAIN
    },
    Method {
        name: "rsa-method1",
        about: "RSA by method 1 (SHA-1 from strongSwan, allowed by the policy), ECDSA by method 9 back",
        keys: Some((KeyKind::EcP256, KeyKind::Rsa2048)),
        swan_daemon: &["signature_authentication = no"],
        cygnet_line: Some("verify_sha1 = true"),
        told: ("with ECDSA-256 signature", "with RSA signature"),
        ..PLAIN
    },
    Method {
        name: "ed25519",
        about: "Ed25519, RFC 8420",
        keys: Some((KeyKind::Ed25519, KeyKind::Ed25519)),
        told: ("ED25519", "ED25519"),
        ..PLAIN
    },
];

impl Method {
    fn play(&self, lab: &Lab, suite: &Suite, role: Role) -> Result<String> {
        let mut plan = match self.keys {
            None => Plan::shared_key(role),
            Some((cygnet, swan)) => {
                let mut plan = Plan::certificates(role, cygnet)?;
                let theirs = Kit::of(swan)?;
                plan.swan.proof = Proof::Certificate(Box::new(theirs.swan.clone()));
                plan.cygnet.trusts = vec![theirs.root.certificate.clone()];
                plan
            }
        }
        .suite(suite.ike, suite.esp);
        let owned = |text: Option<&str>| text.map(str::to_owned);
        plan.swan_auth = (owned(self.swan_auth.0), owned(self.swan_auth.1));
        plan.swan_daemon = self
            .swan_daemon
            .iter()
            .map(|&line| line.to_owned())
            .collect();
        plan.cygnet_lines.extend(owned(self.cygnet_line));
        let pair = Pair::connected(lab, plan)?;
        let (own, theirs) = pair.ike_sa()?;
        ensure!(
            own.suite.as_deref() == Some(suite.ike),
            "the IKE SA uses {:?}",
            own.suite
        );
        ensure!(
            (theirs.local_id.as_str(), theirs.remote_id.as_str())
                == (
                    pair.plan.swan.identity.as_str(),
                    pair.plan.cygnet.identity.as_str()
                ),
            "strongSwan calls itself {} and us {}",
            theirs.local_id,
            theirs.remote_id
        );
        let log = pair.swan.log();
        for (whose, how) in [("(myself)", self.told.1), ("cygnet.lab'", self.told.0)] {
            let said = log.lines().any(|line| {
                line.contains("authentication of") && line.contains(whose) && line.contains(how)
            });
            ensure!(
                said,
                "strongSwan does not say that {whose} proved itself by {how}: {log}"
            );
        }
        pair.carry()
    }
}

struct Identity {
    name: &'static str,
    about: &'static str,
    /// Cygnet's, strongSwan's; `DN`: the subject of the certificate.
    own: (&'static str, &'static str),
    /// What Cygnet expects, when not just that identity.
    expects: Option<&'static str>,
}

const IDENTITIES: &[Identity] = &[
    Identity {
        name: "dn",
        about: "both are known by the subject of their certificates",
        own: ("DN", "DN"),
        expects: None,
    },
    Identity {
        name: "dn-template",
        about: "a subject with a wildcard is expected",
        own: ("DN", "DN"),
        expects: Some("C=XX, O=lab, CN=*"),
    },
    Identity {
        name: "email",
        about: "both are known by e-mail addresses",
        own: ("cygnet@lab", "swan@lab"),
        expects: None,
    },
    Identity {
        name: "email-wildcard",
        about: "anybody of a domain is expected",
        own: ("cygnet@lab", "swan@lab"),
        expects: Some("*@lab"),
    },
    Identity {
        name: "fqdn-wildcard",
        about: "any host of a domain is expected",
        own: ("cygnet.lab", "swan.lab"),
        expects: Some("*.lab"),
    },
    Identity {
        name: "address",
        about: "both are known by their addresses",
        own: ("ADDRESS", "ADDRESS"),
        expects: None,
    },
];

impl Identity {
    fn play(&self, lab: &Lab, role: Role) -> Result<String> {
        let root = Authority::root(KeyKind::EcP256, "identities")?;
        let mut plan = Plan::certificates(role, KeyKind::EcP256)?;
        plan.trust(&root);
        // The initiator is at .1, see `Offices`.
        let (cygnet, swan) = match role {
            Role::Initiator => ("192.0.2.1", "192.0.2.2"),
            Role::Responder => ("192.0.2.2", "192.0.2.1"),
        };
        for (party, own, address) in [
            (&mut plan.cygnet, self.own.0, cygnet),
            (&mut plan.swan, self.own.1, swan),
        ] {
            let common_name = party.identity.clone();
            let request = Request::new(KeyKind::EcP256, &common_name);
            let request = match own {
                "DN" => request,
                "ADDRESS" => request.name(address),
                name => request.name(name),
            };
            let credential = root.issue(&request)?;
            party.identity = match own {
                "DN" => credential.subject.clone(),
                "ADDRESS" => address.to_owned(),
                name => name.to_owned(),
            };
            party.proof = Proof::Certificate(Box::new(credential));
        }
        plan.swan.expects.clone_from(&plan.cygnet.identity);
        plan.cygnet.expects = match self.expects {
            Some(pattern) => pattern.to_owned(),
            None => plan.swan.identity.clone(),
        };
        let pair = Pair::connected(lab, plan)?;
        let (own, _) = pair.ike_sa()?;
        let expected = pair.plan.swan.identity.as_str();
        ensure!(
            own.peer.as_deref() == Some(expected),
            "cygnet calls its peer {:?}, not {expected}",
            own.peer
        );
        pair.carry()
    }
}
