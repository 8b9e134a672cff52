//! The files of a user, under the names and in the folders that Algo gives them.

use super::super::failure::Result;
use super::super::process::Exec;
use super::{Deployment, PASSWORD, USER, Year, write};
use std::fs;

pub(super) fn write_all(deployment: &Deployment) -> Result<()> {
    let (configs, pki) = (&deployment.configs, &deployment.pki);
    let p12 = fs::read(pki.join(format!("private/{USER}.p12")))?;
    let authority = fs::read(pki.join("cacert.pem"))?;
    let secrets = format!("{} : ECDSA {USER}.key\n", deployment.address);
    let apple = mobileconfig(deployment)?;
    match deployment.year {
        Year::Y2017 => {
            write(&configs.join("cacert.pem"), authority)?;
            write(&configs.join(format!("{USER}.p12")), p12)?;
            write(
                &configs.join(format!("ipsec_{USER}.conf")),
                conf(deployment),
            )?;
            write(&configs.join(format!("ipsec_{USER}.secrets")), secrets)?;
            write(&configs.join(format!("{USER}.mobileconfig")), apple)?;
            write(
                &configs.join(format!("android_{USER}.sswan")),
                sswan(deployment)?,
            )
        }
        Year::Y2026 => {
            let manual = configs.join("ipsec/manual");
            // What a user is given who is not given the folder with everybody's keys.
            for folder in [manual, configs.join("handed-out")] {
                write(&folder.join("cacert.pem"), &authority)?;
                write(&folder.join(format!("{USER}.p12")), &p12)?;
                write(&folder.join(format!("{USER}.conf")), conf(deployment))?;
                write(&folder.join(format!("{USER}.secrets")), &secrets)?;
            }
            write(
                &configs.join(format!("ipsec/apple/{USER}.mobileconfig")),
                apple,
            )
        }
    }
}

fn conf(deployment: &Deployment) -> String {
    let address = &deployment.address;
    let (ike, esp) = deployment.year.proposals();
    let name = match deployment.year {
        Year::Y2017 => "ikev2",
        Year::Y2026 => "algovpn",
    };
    format!(
        "conn {name}-{address}
    fragmentation=yes
    rekey=no
    dpdaction=clear
    keyexchange=ikev2
    compress=no
    dpddelay=35s

    ike={ike}
    esp={esp}

    right={address}
    rightid={address}
    rightsubnet=0.0.0.0/0
    rightauth=pubkey

    leftsourceip=%config
    leftauth=pubkey
    leftcert={USER}.crt
    leftfirewall=yes
    left=%defaultroute

    auto=add
"
    )
}

fn sswan(deployment: &Deployment) -> Result<String> {
    let address = &deployment.address;
    let profile = serde_json::json!({
        "uuid": "5d8f33b8-8f6f-4c6e-9f2c-1f0d7f6f1a01",
        "name": format!("Algo {address}"),
        "type": "ikev2-cert",
        "remote": { "addr": address },
        "local": { "p12": base64(deployment, &format!("private/{USER}.p12"))?.trim() },
        "mtu": 1280,
    });
    Ok(format!("{profile:#}\n"))
}

/// As `base64` prints it, in lines.
fn base64(deployment: &Deployment, file: &str) -> Result<String> {
    let path = deployment.pki.join(file);
    Exec::new(["base64", &path.to_string_lossy()]).run()
}

fn mobileconfig(deployment: &Deployment) -> Result<String> {
    let address = &deployment.address;
    let (group, bits, minutes, local) = match deployment.year {
        Year::Y2017 => (19, 128, 20, USER.to_owned()),
        Year::Y2026 => (20, 256, 1440, format!("{USER}@{}", deployment.domain())),
    };
    let p12 = base64(deployment, &format!("private/{USER}.p12"))?;
    // Of the file as it is, PEM: that is what Algo puts there.
    let authority = base64(deployment, "cacert.pem")?;
    let text = |key: &str, value: &str| format!("<key>{key}</key><string>{value}</string>\n");
    let number = |key: &str, value: u32| format!("<key>{key}</key><integer>{value}</integer>\n");
    let sa = |key: &str| {
        format!(
            "<key>{key}</key>\n<dict>\n{}{}{}{}</dict>\n",
            number("DiffieHellmanGroup", group),
            text("EncryptionAlgorithm", &format!("AES-{bits}-GCM")),
            text("IntegrityAlgorithm", "SHA2-512"),
            number("LifeTimeInMinutes", minutes),
        )
    };
    let ikev2 = [
        number("OnDemandEnabled", 0),
        "<key>OnDemandRules</key>\n<array>\n<dict><key>Action</key><string>Connect</string></dict>\n</array>\n".to_owned(),
        text("AuthenticationMethod", "Certificate"),
        sa("ChildSecurityAssociationParameters"),
        text("DeadPeerDetectionRate", "Medium"),
        number("DisableMOBIKE", 0),
        number("DisableRedirect", 1),
        number("EnableCertificateRevocationCheck", 0),
        "<key>EnablePFS</key><true/>\n".to_owned(),
        sa("IKESecurityAssociationParameters"),
        text("LocalIdentifier", &local),
        text("PayloadCertificateUUID", "0B4F6B0E-0001"),
        text("CertificateType", &format!("ECDSA{}", if group == 19 { 256 } else { 384 })),
        text("ServerCertificateIssuerCommonName", address),
        text("RemoteAddress", address),
        text("RemoteIdentifier", address),
        number("UseConfigurationAttributeInternalIPSubnet", 0),
    ]
    .concat();
    let payload = |kind: &str, uuid: &str, rest: String| {
        format!(
            "<dict>\n{rest}{}{}{}</dict>\n",
            text("PayloadType", kind),
            text("PayloadIdentifier", &format!("{kind}.{uuid}")),
            text("PayloadUUID", uuid),
        )
    };
    let data = |content: &str| format!("<key>PayloadContent</key>\n<data>\n{content}</data>\n");
    let payloads = [
        payload(
            "com.apple.vpn.managed",
            "0B4F6B0E-0002",
            format!(
                "<key>IKEv2</key>\n<dict>\n{ikev2}</dict>\n<key>IPv4</key>\n<dict>\n{}</dict>\n\
                 <key>PayloadVersion</key><real>1</real>\n{}{}",
                number("OverridePrimary", 1),
                text("UserDefinedName", &format!("Algo VPN {address} IKEv2")),
                text("VPNType", "IKEv2"),
            ),
        ),
        payload(
            "com.apple.security.pkcs12",
            "0B4F6B0E-0001",
            text("Password", PASSWORD)
                + &text("PayloadCertificateFileName", "alice.p12")
                + &data(&p12),
        ),
        payload("com.apple.security.root", "0B4F6B0E-0003", data(&authority)),
    ]
    .concat();
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<plist version=\"1.0\">
<dict>
<key>PayloadContent</key>
<array>
{payloads}</array>
<key>PayloadRemovalDisallowed</key><false/>
{}{}{}</dict>
</plist>
",
        text("PayloadType", "Configuration"),
        text("PayloadUUID", "0B4F6B0E-0004"),
        number("PayloadVersion", 1),
    ))
}
