//! Chains put together at random, most with one or two flaws: our verdict is that of `openssl verify`.

use crate::openssl::{Agree, FROM, Lab, Make, Sequence, TO, case, judge, make};
use cygnet_pki::authority::to_pem;

const CHAINS: usize = 200;

/// Something rare: `usual` nine times out of ten.
fn rarely<'a>(sequence: &mut Sequence, usual: &'a str, others: &[&'a str]) -> &'a str {
    match sequence.next(10) {
        0 => sequence.pick(others),
        _ => usual,
    }
}

fn authority(sequence: &mut Sequence) -> String {
    let mut extensions = String::new();
    extensions.push_str(rarely(
        sequence,
        "basicConstraints=critical,CA:TRUE\n",
        &[
            "basicConstraints=CA:TRUE,pathlen:0\n",
            "basicConstraints=critical,CA:TRUE,pathlen:1\n",
            "basicConstraints=critical,CA:TRUE,pathlen:1\n",
            "basicConstraints=CA:FALSE\n",
        ],
    ));
    extensions.push_str(sequence.pick(&[
        "",
        "keyUsage=keyCertSign\n",
        "keyUsage=critical,keyCertSign,cRLSign\n",
    ]));
    extensions.push_str(rarely(
        sequence,
        "",
        &[
            "extendedKeyUsage=serverAuth\n",
            "extendedKeyUsage=critical,serverAuth,clientAuth\n",
            "extendedKeyUsage=clientAuth\n",
        ],
    ));
    extensions.push_str(rarely(
        sequence,
        "",
        &["1.2.3.4=critical,DER:0500\n", "1.2.3.4=DER:0500\n"],
    ));
    extensions.push_str(sequence.pick(&["", "subjectKeyIdentifier=hash\n"]));
    extensions.push_str(sequence.pick(&[
        "",
        "",
        "",
        "nameConstraints=critical,permitted;DNS:example.org\n",
        "nameConstraints=permitted;DNS:example.org,excluded;DNS:lab.example.org\n",
        "nameConstraints=critical,permitted;IP:192.0.2.0/255.255.255.0\n",
        "nameConstraints=critical,excluded;IP:192.0.2.128/255.255.255.128\n",
        "nameConstraints=critical,permitted;email:example.org,excluded;email:eve@example.org\n",
        "nameConstraints=critical,permitted;dirName:dn\n",
        "nameConstraints=critical,excluded;dirName:dn\n",
    ]));
    extensions.push_str("[dn]\nO=lab\n");
    extensions
}

fn end_entity(sequence: &mut Sequence) -> String {
    let mut extensions = String::new();
    extensions.push_str(sequence.pick(&["", "basicConstraints=CA:FALSE\n"]));
    extensions.push_str(sequence.pick(&["", "keyUsage=critical,digitalSignature\n"]));
    extensions.push_str(rarely(
        sequence,
        "",
        &[
            "extendedKeyUsage=serverAuth\n",
            "extendedKeyUsage=critical,serverAuth,clientAuth\n",
            "extendedKeyUsage=codeSigning\n",
        ],
    ));
    let names = sequence.pick(&[
        "DNS:gw.example.org",
        "DNS:gw.example.org",
        "DNS:gw.lab.example.org",
        "DNS:example.com",
        "IP:192.0.2.1",
        "IP:192.0.2.200,DNS:example.org",
        "IP:2001:db8::1",
        "email:alice@example.org",
        "email:eve@example.org,DNS:gw.example.org",
    ]);
    extensions.push_str(&format!("subjectAltName={names}\n"));
    extensions
}

#[test]
fn random_chains_are_judged_as_openssl_judges_them() {
    let lab = Lab::new("agreement");
    for level in 0..6 {
        lab.key(&format!("key{level}"), "ec:P-256");
    }
    let mut sequence = Sequence::new(5);
    let (mut good, mut refusals) = (0, Vec::new());
    for number in 0..CHAINS {
        let depth = 1 + sequence.next(4);
        let mut names = Vec::new();
        for level in 0..=depth {
            let name = format!("c{number}l{level}");
            lab.share_key(&format!("key{level}"), &name);
            let organisation = sequence.pick(&["/O=lab", "/O=lab", "/O=lab", "/O=Lab", "/O=other"]);
            let issuer = names.last().cloned().unwrap_or_else(|| name.clone());
            let extensions = match level == depth {
                true => end_entity(&mut sequence),
                false => authority(&mut sequence),
            };
            lab.make(Make {
                from: match sequence.next(40) {
                    0 => "20280101000000Z",
                    _ => FROM,
                },
                to: match sequence.next(40) {
                    0 => "20270101000000Z",
                    _ => TO,
                },
                ..make(
                    &name,
                    &format!("{organisation}/CN={name}"),
                    &issuer,
                    &extensions,
                )
            });
            if sequence.next(60) == 0 {
                let mut altered = lab.der(&name);
                *altered.last_mut().expect("not empty") ^= 1;
                lab.write(&format!("{name}.pem"), to_pem("CERTIFICATE", &altered));
            }
            names.push(name);
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let ([root, sent @ ..], [.., leaf]) = (&names[..], &names[..]) else {
            unreachable!("two certificates at least");
        };
        let lost = usize::from(sequence.next(20) == 0);
        let mut chain: Vec<_> = sent[..sent.len() - 1].iter().skip(lost).copied().collect();
        chain.reverse();
        let trusted = [*root];
        let mut it = case(leaf, &chain, &trusted);
        it.agree = Agree::With(&["-purpose", "sslserver"]);
        match judge(&lab, it) {
            Ok(_) => good += 1,
            Err(error) => refusals.push(
                format!("{error:?}")
                    .split_whitespace()
                    .next()
                    .map(str::to_string),
            ),
        }
    }
    // The mixture stays worth the while: enough of both, and of every sort.
    refusals.sort();
    refusals.dedup();
    assert!(
        (CHAINS / 6..CHAINS * 5 / 6).contains(&good),
        "{good} of {CHAINS} good"
    );
    assert!(refusals.len() >= 8, "only these refusals: {refusals:?}");
}
