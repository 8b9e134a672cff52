//! Log-ins by EAP: strongSwan's devices at a Cygnet server, and Cygnet at a strongSwan server.

use super::super::Scenario;
use super::super::pair::{Pair, SOON, Way};
use super::super::plan::{
    ChildPlan, Inner, Kit, NET, Plan, Proof, Role, SERVER, credential, credential_lines, with_files,
};
use crate::ensure;
use crate::lab::cygnet::Setup;
use crate::lab::offices::{Nat, Offices};
use crate::lab::pki::KeyKind;
use crate::lab::{Exec, Lab, Result, wait_for};

pub(super) const USER: &str = "alice";
/// ASCII: of other characters strongSwan makes something else than UTF-16.
pub(super) const PASSWORD: &str = "correct horse, battery 'staple'!";
const POOL: &str = "10.77.0.0/24";
/// What both ends say of a log-in that failed, and no more.
const WRONG: &str = "the user name or the password is wrong";

/// What strongSwan logs when it is refused: it does not wait for EAP-Failure.
const METHOD_FAILED: &str = "EAP_MSCHAPV2 method failed";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "eap-mschapv2-responder",
            "a strongSwan device logs in with a user name and a password",
            |lab| served(lab),
        ),
        Scenario::new(
            "eap-mschapv2-initiator",
            "Cygnet logs in at a strongSwan server with a user name and a password",
            |lab| logged_in(lab),
        ),
        Scenario::new(
            "eap-mschapv2-fragmented-responder",
            "the same with messages in fragments of 576 octets",
            |lab| fragmented(lab),
        ),
        Scenario::new(
            "refuse-wrong-password-responder",
            "a wrong password and an unknown user get the same answers, octet by octet as long",
            |lab| refused(lab),
        ),
        Scenario::new(
            "refuse-wrong-password-initiator",
            "strongSwan refuses our password, and we say so",
            |lab| refused_by_swan(lab),
        ),
        Scenario::new(
            "eap-tls-responder",
            "a strongSwan device logs in with its certificate by EAP-TLS",
            |lab| tls_served(lab),
        ),
        Scenario::new(
            "eap-tls-initiator",
            "Cygnet logs in at a strongSwan server with its certificate by EAP-TLS",
            |lab| tls_logged_in(lab),
        ),
        Scenario::new(
            "refuse-eap-tls-responder",
            "EAP-TLS by a certificate that was revoked",
            |lab| tls_refused(lab),
        ),
        Scenario::new(
            "eap-tls-beside-passwords-responder",
            "a server that asks for a password first lets in whoever would rather show a certificate",
            |lab| tls_beside(lab),
        ),
        Scenario::new(
            "eap-reload-responder",
            "a user whose password changed, or who was removed, is out at once; others stay",
            |lab| reloaded(lab),
        ),
    ]
}

/// The hash by which a server knows a password, made by openssl.
fn nt_hash(password: &str) -> Result<String> {
    let pipe = "printf %s \"$0\" | iconv -f UTF-8 -t UTF-16LE | openssl dgst -md4 -provider legacy -provider default -r";
    let finished = Exec::new(["sh", "-c", pipe, password]).finish()?;
    let hash = finished.stdout.split(' ').next().unwrap_or_default();
    ensure!(
        hash.len() == 32,
        "openssl made no MD4 hash: {}",
        finished.stderr
    );
    Ok(hash.to_owned())
}

fn passwords(users: &[(&str, &str)]) -> Result<String> {
    let mut text = "# name:NT hash\n".to_owned();
    for (user, password) in users {
        text.push_str(&format!("{user}:{}\n", nt_hash(password)?));
    }
    Ok(text)
}

/// A strongSwan device that logs in with this password at a Cygnet server.
pub(super) fn device(user: &str, password: &str) -> Result<Plan> {
    let mut plan = Plan::certificates(Role::Responder, KeyKind::EcP256)?;
    plan.connection = SERVER;
    plan.swan.proof = Proof::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    };
    Ok(plan.swan_set("vips", "0.0.0.0"))
}

fn server(plan: &Plan, users: &[(&str, &str)], line: &str) -> Result<Setup> {
    let mut lines = vec![
        "[server]".to_owned(),
        format!("identity = \"{}\"", plan.cygnet.identity),
        format!("pools = [\"{POOL}\"]"),
        "passwords = \"passwords\"".to_owned(),
        line.to_owned(),
    ];
    lines.extend(credential_lines(&plan.cygnet));
    let setup = Setup::new(lines.join("\n")).file("passwords", passwords(users)?);
    Ok(with_files(setup, &plan.cygnet))
}

/// Both, with a server for users with these passwords; nobody has called yet.
pub(super) fn start(lab: &Lab, plan: Plan, users: &[(&str, &str)], line: &str) -> Result<Pair> {
    let setup = server(&plan, users, line)?;
    start_with(lab, plan, setup)
}

/// Both, with a server for those who show a certificate.
fn start_without_passwords(lab: &Lab, plan: Plan) -> Result<Pair> {
    let mut setup = server(&plan, &[], "eap_tls = true")?;
    setup.config = setup.config.replace("passwords = \"passwords\"\n", "");
    start_with(lab, plan, setup)
}

fn start_with(lab: &Lab, mut plan: Plan, setup: Setup) -> Result<Pair> {
    let mut offices = Offices::build(lab, Nat::None)?;
    offices.block_all_but_tunnel()?;
    let behind = Inner::V4.networks(&offices.b);
    plan.children = vec![ChildPlan {
        name: NET.to_owned(),
        cygnet: (behind.clone(), Vec::new()),
        swan: (Vec::new(), behind),
    }];
    Pair::start_with(lab, plan, offices, &setup)
}

/// The device calls; who Cygnet says that it is, and that packets pass.
fn comes_in(pair: &Pair) -> Result<String> {
    pair.swan
        .initiate(NET)
        .map_err(|failure| pair.with_log(failure))?;
    pair.wait_for_child(NET)?;
    let (own, theirs) = pair.ike_sa()?;
    ensure!(
        own.peer.as_deref() == Some(USER),
        "cygnet calls the device {:?}, not {USER}",
        own.peer
    );
    let had = theirs.virtual_addresses;
    ensure!(
        had.len() == 1 && own.virtual_addresses == had,
        "cygnet lent {:?}, strongSwan has {had:?}",
        own.virtual_addresses
    );
    let (near, far) = (pair.near(), &pair.far().gateway);
    let way = Way::new((&near.host, near.host4), (far, &had[0]));
    pair.carry_on(&[way])
}

fn served(lab: &Lab) -> Result<String> {
    let others = ("bob", "another password");
    let pair = start(
        lab,
        device(USER, PASSWORD)?,
        &[others, (USER, PASSWORD)],
        "",
    )?;
    let told = comes_in(&pair)?;
    let log = pair.swan.log();
    for said in [
        "authentication of 'cygnet.lab' with ECDSA_WITH_SHA256_DER successful",
        "EAP method EAP_MSCHAPV2 succeeded, MSK established",
        "authentication of 'cygnet.lab' with EAP successful",
    ] {
        ensure!(log.contains(said), "strongSwan does not say: {said}\n{log}");
    }
    Ok(told)
}

fn fragmented(lab: &Lab) -> Result<String> {
    let plan = device(USER, PASSWORD)?.swan_daemon("fragment_size = 576");
    let pair = start(lab, plan, &[(USER, PASSWORD)], "fragment_size = 576")?;
    let told = comes_in(&pair)?;
    let log = pair.swan.log();
    ensure!(log.contains("EF(1/"), "strongSwan saw no fragment: {log}");
    Ok(told)
}

/// Cygnet that logs in with this password, where strongSwan knows another one.
fn client(password: &str, known: &str) -> Result<Plan> {
    let mut plan = Plan::certificates(Role::Initiator, KeyKind::EcP256)?;
    plan.cygnet.proof = Proof::Password {
        user: USER.to_owned(),
        password: password.to_owned(),
    };
    plan.cygnet.identity = USER.to_owned();
    plan.swan_knows = Some(known.to_owned());
    Ok(plan)
}

fn logged_in(lab: &Lab) -> Result<String> {
    let pair = Pair::connected(lab, client(PASSWORD, PASSWORD)?)?;
    let log = pair.swan.log();
    for said in [
        "EAP method EAP_MSCHAPV2 succeeded, MSK established",
        "authentication of 'alice' with EAP successful",
    ] {
        ensure!(log.contains(said), "strongSwan does not say: {said}\n{log}");
    }
    pair.carry()
}

fn refused_by_swan(lab: &Lab) -> Result<String> {
    Pair::start(lab, client("wrong", PASSWORD)?)?.refuses(WRONG)
}

fn refused(lab: &Lab) -> Result<String> {
    let pair = start(lab, device(USER, "wrong")?, &[(USER, PASSWORD)], "")?;
    let why = format!("{WRONG} (user {USER})");
    let told = pair.refuses(&why)?;
    let wrong = answers(&pair.swan.log());
    drop(pair);
    let other = Lab::new()?;
    let pair = start(&other, device("mallo", "wrong")?, &[(USER, PASSWORD)], "")?;
    pair.refuses(&format!("{WRONG} (user mallo)"))?;
    let unknown = answers(&pair.swan.log());
    ensure!(
        wrong == unknown && wrong.len() >= 4,
        "a wrong password gets {wrong:?}, an unknown user {unknown:?}"
    );
    Ok(format!("{told}; {} answers alike", wrong.len()))
}

/// What strongSwan was answered, with lengths; those of the two messages with random numbers of random
/// length, or an ECDSA signature, aside.
fn answers(log: &str) -> Vec<String> {
    let mut answers = Vec::new();
    let mut length = String::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("received packet: ") {
            length = rest.rsplit('(').next().unwrap_or_default().to_owned();
        } else if let Some((_, rest)) = line.split_once("parsed ")
            && rest.contains(" response ")
        {
            let varies = rest.contains(" KE ") || rest.contains(" CERT ");
            let length = if varies { "" } else { length.as_str() };
            answers.push(format!("{rest} {length}"));
        }
    }
    answers
}

/// With what [`Pair`] adds, which a reload could not change.
fn as_started(mut setup: Setup) -> Setup {
    setup.daemon.push_str("log = \"debug\"\n");
    setup
}

fn reloaded(lab: &Lab) -> Result<String> {
    let plan = device(USER, PASSWORD)?;
    let others = ("bob", "another password");
    let pair = start(lab, plan, &[(USER, PASSWORD), others], "")?;
    let plan = pair.plan.clone();
    comes_in(&pair)?;
    let reload = |users: &[(&str, &str)]| -> Result<()> {
        pair.cygnet.write(&as_started(server(&plan, users, "")?))?;
        pair.cygnet.reload()
    };
    let gone = |why: &str| {
        wait_for(why, SOON, || {
            let own = pair.cygnet.connection(SERVER)?.ike_sas;
            Ok((own.is_empty() && pair.swan.sas()?.is_empty()).then_some(()))
        })
        .map_err(|failure| pair.with_log(failure))
    };
    let first = pair.ike_sa()?.0.initiator_spi;
    // Others do not matter.
    reload(&[(USER, PASSWORD), ("bob", "changed"), ("carol", "new here")])?;
    let kept = pair.ike_sa()?.0.initiator_spi;
    ensure!(kept == first, "{first} ended, {kept} is there");
    reload(&[(USER, "changed"), others])?;
    gone("nobody is in by a password that is another one now")?;
    pair.swan.is_refused(NET, METHOD_FAILED)?;
    reload(&[(USER, PASSWORD), others])?;
    comes_in(&pair)?;
    let ended = pair.ike_sa()?;
    reload(&[others])?;
    gone("nobody is in who was removed")?;
    pair.swan.is_refused(NET, METHOD_FAILED)?;
    let setup = server(&plan, &[], "")?.file("passwords", "alice:not a hash\n");
    pair.cygnet.write(&as_started(setup))?;
    let told = pair.cygnet.control(&["reload"])?;
    ensure!(
        !told.success()
            && told
                .stderr
                .contains("passwords:1: expected 32 hexadecimal digits"),
        "a broken list is taken: {}{}",
        told.stdout,
        told.stderr
    );
    Ok(format!(
        "kept {}, ended it by another password, and {} by none",
        kept, ended.0.initiator_spi
    ))
}

/// A strongSwan device that shows its certificate in EAP-TLS at a Cygnet server.
fn tls_device() -> Result<Plan> {
    let mut plan = Plan::certificates(Role::Responder, KeyKind::EcP256)?;
    plan.connection = SERVER;
    plan.swan_auth.0 = Some("eap-tls".to_owned());
    Ok(plan.swan_set("vips", "0.0.0.0"))
}

/// It is known by what its certificate says, however it calls itself.
fn comes_in_by_tls(pair: &Pair) -> Result<String> {
    pair.swan
        .initiate(NET)
        .map_err(|failure| pair.with_log(failure))?;
    pair.wait_for_child(NET)?;
    let (own, theirs) = pair.ike_sa()?;
    ensure!(
        own.peer.as_deref() == Some("swan@lab"),
        "cygnet calls the device {:?}",
        own.peer
    );
    let log = pair.swan.log();
    let said = "EAP method EAP_TLS succeeded, MSK established";
    ensure!(log.contains(said), "strongSwan does not say: {said}\n{log}");
    let (near, far) = (pair.near(), &pair.far().gateway);
    let had = theirs.virtual_addresses;
    ensure!(had.len() == 1, "strongSwan has {had:?}");
    pair.carry_on(&[Way::new((&near.host, near.host4), (far, &had[0]))])
}

fn tls_served(lab: &Lab) -> Result<String> {
    let pair = start_without_passwords(lab, tls_device()?)?;
    comes_in_by_tls(&pair)
}

fn tls_beside(lab: &Lab) -> Result<String> {
    let pair = start(lab, tls_device()?, &[(USER, PASSWORD)], "eap_tls = true")?;
    let told = comes_in_by_tls(&pair)?;
    let log = pair.swan.log();
    ensure!(
        log.contains("server requested EAP_MSCHAPV2 authentication"),
        "strongSwan was not asked for a password first: {log}"
    );
    Ok(told)
}

fn tls_refused(lab: &Lab) -> Result<String> {
    let mut plan = tls_device()?;
    let kit = Kit::of(KeyKind::EcP256)?;
    plan.cygnet.revoked = vec![kit.root.revocation_list(&[credential(&plan.swan)?])?];
    start_without_passwords(lab, plan)?.refuses("was revoked by its issuer on 20")
}

fn tls_logged_in(lab: &Lab) -> Result<String> {
    let mut plan = Plan::certificates(Role::Initiator, KeyKind::EcP256)?;
    plan.swan_auth.1 = Some("eap-tls".to_owned());
    let pair = Pair::connected(lab, plan.cygnet_line("eap = \"tls\""))?;
    let log = pair.swan.log();
    for said in [
        "EAP method EAP_TLS succeeded, MSK established",
        "authentication of 'cygnet.lab' with EAP successful",
    ] {
        ensure!(log.contains(said), "strongSwan does not say: {said}\n{log}");
    }
    pair.carry()
}
