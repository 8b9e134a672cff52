//! The authority and the certificates, with the extensions that Algo gives them.

use super::super::failure::Result;
use super::super::process::Exec;
use super::{Deployment, PASSWORD, USER, Year, write};

/// Extensions of the authority, the server and a user.
struct Extensions {
    authority: String,
    server: String,
    user: String,
}

pub(super) fn make(deployment: &Deployment) -> Result<()> {
    let extensions = match deployment.year {
        Year::Y2017 => of_2017(&deployment.address),
        Year::Y2026 => of_2026(&deployment.address, &deployment.domain()),
    };
    let pki = &deployment.pki;
    let sections = [
        ("authority", extensions.authority),
        ("server", extensions.server),
        ("user", extensions.user),
    ];
    let mut config = "[req]\ndistinguished_name=dn\n[dn]\n".to_owned();
    for (name, text) in sections {
        config.push_str(&format!("[{name}]\n{text}"));
    }
    write(&pki.join("openssl.cnf"), config)?;
    let (address, curve) = (&deployment.address, deployment.year.curve());
    let p12 = match deployment.year {
        Year::Y2017 => {
            "-legacy -certfile cacert.pem -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-RC2-40 -macalg sha1"
        }
        Year::Y2026 => "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1",
    };
    let line = format!(
        "cd '{directory}'
        umask 077
        mkdir -p certs private
        key() {{ openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out private/$1; }}
        key cakey.pem
        openssl req -x509 -new -config openssl.cnf -extensions authority -key private/cakey.pem \\
            -subj /CN={address} -days 3650 -out cacert.pem
        issue() {{
            key $1.key
            openssl req -new -config openssl.cnf -key private/$1.key -subj /CN=$1 -out $1.req
            openssl x509 -req -in $1.req -CA cacert.pem -CAkey private/cakey.pem -set_serial $3 -days 3650 \\
                -extfile openssl.cnf -extensions $2 -out certs/$1.crt 2>&1
        }}
        issue {address} server 1
        issue {USER} user 2
        openssl pkcs12 -export -in certs/{USER}.crt -inkey private/{USER}.key -name {USER} \\
            -out private/{USER}.p12 -passout pass:{PASSWORD} {p12}",
        directory = pki.display(),
    );
    Exec::shell(&line).run().map(drop)
}

fn of_2017(address: &str) -> Extensions {
    let leaf = |name: &str| {
        format!(
            "basicConstraints=CA:FALSE
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid,issuer:always
extendedKeyUsage=serverAuth,clientAuth,1.3.6.1.5.5.7.3.17
keyUsage=digitalSignature,keyEncipherment
subjectAltName={name}
"
        )
    };
    Extensions {
        authority: "basicConstraints=CA:true
keyUsage=cRLSign,keyCertSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid:always,issuer:always
"
        .to_owned(),
        server: leaf(&format!("DNS:{address},IP:{address}")),
        user: leaf(&format!("DNS:{USER}")),
    }
}

fn of_2026(address: &str, domain: &str) -> Extensions {
    let leaf = |purpose: &str, name: &str| {
        format!(
            "basicConstraints=CA:FALSE
keyUsage=digitalSignature,keyEncipherment
extendedKeyUsage={purpose},1.3.6.1.5.5.7.3.17
subjectAltName={name}
"
        )
    };
    let tops = [".com", ".org", ".net", ".gov", ".edu", ".mil", ".int"];
    let excluded = |kind: &str| tops.map(|top| format!("excluded;{kind}:{top}")).join(",");
    let constraints = [
        format!("permitted;IP:{address}/255.255.255.255"),
        format!("permitted;DNS:{domain}"),
        format!("permitted;email:{domain}"),
        excluded("DNS"),
        excluded("email"),
        "excluded;IP:10.0.0.0/255.0.0.0,excluded;IP:172.16.0.0/255.240.0.0".to_owned(),
        "excluded;IP:192.168.0.0/255.255.0.0".to_owned(),
        "excluded;IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0".to_owned(),
    ]
    .join(",");
    Extensions {
        authority: format!(
            "basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
extendedKeyUsage=critical,1.3.6.1.5.5.7.3.17
subjectAltName=DNS:{address}
subjectKeyIdentifier=hash
nameConstraints=critical,{constraints}
"
        ),
        server: leaf("serverAuth", &format!("IP:{address}")),
        user: leaf("clientAuth", &format!("email:{USER}@{domain}")),
    }
}
