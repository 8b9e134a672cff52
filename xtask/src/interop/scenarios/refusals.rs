//! What must not come up: each time Cygnet says why, and nothing is installed.

use super::super::Scenario;
use super::super::pair::{Pair, SOON, changes, kernel_state};
use super::super::plan::{
    CYGNET, ChildPlan, Kit, NET, OFFICE, Plan, Proof, Role, SWAN, credential,
};
use super::selectors::subnets;
use crate::ensure;
use crate::lab::pki::{Authority, KeyKind, Request, Validity};
use crate::lab::{Lab, Result, wait_for};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for refusal in REFUSALS {
        for role in Role::BOTH {
            let name = format!("refuse-{}-{}", refusal.name, role.name());
            all.push(Scenario::new(name, refusal.about, move |lab| {
                let plan = (refusal.plan)(role)?;
                let why = match role {
                    Role::Initiator => refusal.initiator_says,
                    Role::Responder => refusal.responder_says,
                };
                Pair::start(lab, plan)?.refuses(why)
            }));
        }
    }
    for role in Role::BOTH {
        all.push(Scenario::new(
            format!("refused-by-strongswan-{}", role.name()),
            "strongSwan does not know the authority of our certificate",
            move |lab| refused(lab, role),
        ));
        all.push(Scenario::new(
            format!("refuse-second-child-{}", role.name()),
            "a second child without a common proposal: the first one is not touched",
            move |lab| second_child(lab, role),
        ));
    }
    all
}

struct Refusal {
    name: &'static str,
    about: &'static str,
    plan: fn(Role) -> Result<Plan>,
    /// What Cygnet says when it has called, and when it was called.
    initiator_says: &'static str,
    responder_says: &'static str,
}

/// What an initiator can know when its peer refuses its proof.
const REFUSED_US: &str = "the peer refused our proof of identity";

const REFUSALS: &[Refusal] = &[
    Refusal {
        name: "wrong-psk",
        about: "the pre-shared keys differ",
        plan: |role| {
            let mut plan = Plan::shared_key(role);
            plan.cygnet.proof = Proof::SharedKey("another key".to_owned());
            Ok(plan)
        },
        // The responder sees the other's proof first.
        initiator_says: REFUSED_US,
        responder_says: "the peer's proof does not match the pre-shared key",
    },
    Refusal {
        name: "wrong-identity",
        about: "the peer proves to be somebody else",
        plan: |role| {
            let mut plan = certificates(role)?;
            plan.cygnet.expects = "*.elsewhere.lab".to_owned();
            Ok(plan)
        },
        initiator_says: "the peer is swan.lab, this connection expects *.elsewhere.lab",
        responder_says: "the peer is swan.lab, connection office expects *.elsewhere.lab",
    },
    Refusal {
        name: "identity-not-in-certificate",
        about: "the peer's certificate does not hold the identity it claims",
        plan: |role| {
            let mut plan = Plan::shared_key(role);
            let kit = Kit::of(KeyKind::EcP256)?;
            // Signed by the right authority, for another name; strongSwan is made to claim its own.
            let request = Request::new(KeyKind::EcP256, "other").name("other.lab");
            plan.swan.proof = Proof::Certificate(Box::new(kit.root.issue(&request)?));
            plan.cygnet.proof = Proof::Certificate(Box::new(kit.cygnet.clone()));
            plan.trust(&kit.root);
            plan.cygnet.expects = "*.lab".to_owned();
            Ok(plan)
        },
        initiator_says: "CN=other does not contain the identity DNS:swan.lab its holder claims; it contains",
        responder_says: "CN=other does not contain the identity DNS:swan.lab its holder claims; it contains",
    },
    Refusal {
        name: "expired",
        about: "the peer's certificate is no longer valid",
        plan: |role| with_certificate(role, |request| request.validity(Validity::Expired)),
        initiator_says: "CN=swan expired 20",
        responder_says: "CN=swan expired 20",
    },
    Refusal {
        name: "not-yet-valid",
        about: "the peer's certificate is not valid yet",
        plan: |role| with_certificate(role, |request| request.validity(Validity::NotYet)),
        initiator_says: "CN=swan is not valid before 20",
        responder_says: "CN=swan is not valid before 20",
    },
    Refusal {
        name: "unknown-ca",
        about: "the peer's certificate is of an authority nobody here trusts",
        plan: |role| {
            let mut plan = certificates(role)?;
            let other = Authority::root(KeyKind::EcP256, "unknown authority")?;
            plan.cygnet.trusts = vec![other.certificate];
            Ok(plan)
        },
        initiator_says: "which is neither trusted here nor sent by the peer",
        responder_says: "which is neither trusted here nor sent by the peer",
    },
    Refusal {
        name: "revoked",
        about: "the peer's certificate is on the list of its authority",
        plan: |role| {
            let mut plan = certificates(role)?;
            let kit = Kit::of(KeyKind::EcP256)?;
            let list = kit.root.revocation_list(&[credential(&plan.swan)?])?;
            plan.cygnet.revoked = vec![list];
            Ok(plan)
        },
        initiator_says: "was revoked by its issuer on 20",
        responder_says: "was revoked by its issuer on 20",
    },
    Refusal {
        name: "sha1",
        about: "the peer can sign with SHA-1 only",
        plan: |role| {
            let mut plan = Plan::certificates(role, KeyKind::EcP256)?;
            let theirs = Kit::of(KeyKind::Rsa2048)?;
            plan.swan.proof = Proof::Certificate(Box::new(theirs.swan.clone()));
            plan.cygnet.trusts = vec![theirs.root.certificate.clone()];
            Ok(plan.swan_daemon("signature_authentication = no"))
        },
        initiator_says: "the peer signs with RSA and SHA-1, which the connection does not allow",
        responder_says: "the peer signs with RSA and SHA-1, which the connection does not allow",
    },
    Refusal {
        name: "ike-proposal",
        about: "no IKE proposal in common",
        plan: |role| {
            let mut plan = Plan::shared_key(role);
            plan.swan.ike = vec!["aes256-sha256-modp2048".to_owned()];
            Ok(plan)
        },
        initiator_says: "the peer accepts none of our proposals (NO_PROPOSAL_CHOSEN)",
        responder_says: "no IKE proposal in common: encryption: peer offers aes256; this side needs aes128gcm16",
    },
    Refusal {
        name: "group-alone",
        about: "the IKE proposals differ in the group alone",
        plan: |role| {
            let mut plan = Plan::shared_key(role);
            plan.swan.ike = vec!["aes128gcm16-prfsha512-modp2048".to_owned()];
            Ok(plan)
        },
        initiator_says: "the peer accepts none of our proposals (NO_PROPOSAL_CHOSEN)",
        responder_says: "no IKE proposal in common: key exchange: peer offers modp2048; this side needs ecp256",
    },
    Refusal {
        name: "esp-proposal",
        about: "no ESP proposal in common",
        plan: |role| {
            let mut plan = Plan::shared_key(role);
            plan.swan.esp = vec!["aes256-sha256".to_owned()];
            Ok(childless_is_nothing(plan))
        },
        initiator_says: "the peer accepts none of our proposals (NO_PROPOSAL_CHOSEN)",
        responder_says: "no ESP proposal in common: encryption: peer offers aes256; this side needs aes128gcm16",
    },
    Refusal {
        name: "selectors",
        about: "no traffic selectors in common",
        plan: |role| {
            let mut plan = Plan::shared_key(role);
            let ([cygnet, ..], [swan, ..]) = subnets(role);
            let mut child = ChildPlan::agreed(NET, &[cygnet], &[swan]);
            child.swan = (
                vec!["10.200.0.0/24".to_owned()],
                vec!["10.100.0.0/24".to_owned()],
            );
            plan.children = vec![child];
            Ok(childless_is_nothing(plan))
        },
        initiator_says: "the peer accepts none of our traffic selectors (TS_UNACCEPTABLE)",
        responder_says: "no traffic selectors in common: peer offers 10.200.0.0/24",
    },
];

fn certificates(role: Role) -> Result<Plan> {
    Plan::certificates(role, KeyKind::EcP256)
}

/// An IKE SA may live without a child (RFC 7296 §1.2); a strongSwan that has called is to end it.
fn childless_is_nothing(plan: Plan) -> Plan {
    match plan.role {
        Role::Initiator => plan,
        Role::Responder => plan.swan_daemon("close_ike_on_child_failure = yes"),
    }
}

/// strongSwan has such a certificate of the right authority.
fn with_certificate(role: Role, change: fn(Request) -> Request) -> Result<Plan> {
    let kit = Kit::of(KeyKind::EcP256)?;
    let mut plan = certificates(role)?;
    let request = Request::new(KeyKind::EcP256, "swan").name(SWAN);
    plan.swan.proof = Proof::Certificate(Box::new(kit.root.issue(&change(request))?));
    Ok(plan)
}

fn refused(lab: &Lab, role: Role) -> Result<String> {
    let mut plan = certificates(role)?;
    let other = Authority::root(KeyKind::EcP256, "Cygnet's own authority")?;
    let request = Request::new(KeyKind::EcP256, "cygnet").name(CYGNET);
    plan.cygnet.proof = Proof::Certificate(Box::new(other.issue(&request)?));
    let pair = Pair::start(lab, plan)?;
    match role {
        Role::Initiator => pair.refuses(REFUSED_US),
        // It takes itself for established until the initiator, who sees our proof last, objects.
        Role::Responder => {
            pair.refuses("the peer refused our proof of identity (AUTHENTICATION_FAILED)")
        }
    }
}

fn second_child(lab: &Lab, role: Role) -> Result<String> {
    let (cygnet, swan) = subnets(role);
    let mut plan = Plan::shared_key(role);
    plan.children = vec![
        ChildPlan::agreed("first", &cygnet[..1], &swan[..1]),
        ChildPlan::agreed("second", &cygnet[1..], &swan[1..]),
    ];
    // The ends disagree about the second child's networks.
    plan.children[1].swan.0 = vec!["10.200.0.0/24".to_owned()];
    plan.children[1].swan.1 = vec!["10.100.0.0/24".to_owned()];
    let pair = Pair::start(lab, plan)?;
    match role {
        Role::Initiator => {
            pair.cygnet.control(&["up", OFFICE, "--wait", "2"])?;
        }
        Role::Responder => {
            pair.swan.initiate("first")?;
            let told = pair.swan.initiate("second");
            ensure!(told.is_err(), "strongSwan says that it succeeded");
        }
    }
    pair.wait_for_child("first")?;
    let why = match role {
        Role::Initiator => "the peer accepts none of our traffic selectors (TS_UNACCEPTABLE)",
        Role::Responder => "no traffic selectors in common: peer offers 10.200.0.0/24",
    };
    let line = pair
        .cygnet
        .wait_for_log(why, SOON)
        .map_err(|failure| pair.with_log(failure))?;
    wait_for("the first child alone", SOON, || {
        let own = pair.cygnet.children(OFFICE)?;
        let theirs = pair.swan.installed_children("second")?;
        Ok((own.len() == 1 && theirs.is_empty()).then_some(()))
    })?;
    // Refusals while it tries again do not touch what is there.
    let before = kernel_state(pair.cygnet.namespace())?;
    pair.carry()?;
    let difference = changes(&before, &kernel_state(pair.cygnet.namespace())?);
    ensure!(difference.is_empty(), "the kernel changed: {difference}");
    Ok(line.trim().to_owned())
}
