//! `README.html`: what to do with the files, for a person who has never set up a VPN.
//!
//! One file, no script, nothing loaded from anywhere, no password in it.

use qrcode::QrCode;
use qrcode::render::svg;

use super::{Error, File, apple, facts::Facts, networkmanager, swanctl, windows};

const STYLE: &str = include_str!("page/style.css");

/// The strongSwan app, where Android finds it.
const APP: &str = "https://play.google.com/store/apps/details?id=org.strongswan.android";

/// Where it says how to install Cygnet.
const CYGNET: &str = "https://github.com/cygnet-vpn/cygnet#install";

pub(super) fn file(facts: &Facts<'_>, files: &[File]) -> Result<File, Error> {
    let has = |suffix: &str| files.iter().any(|file| file.path.ends_with(suffix));
    let title = escape(&facts.profile.title);
    let mut body = String::new();
    body.push_str(&intro(facts)?);
    body.push_str(&section(
        "iPhone, iPad, Mac",
        iphone(facts, has(".mobileconfig")),
    ));
    body.push_str(&section("Android", android(facts)?));
    body.push_str(&section("Windows 10 and 11", windows(facts, has(".ps1"))));
    body.push_str(&section("Linux with a desktop", networkmanager(facts)));
    body.push_str(&section("Linux without a desktop", linux(facts)));
    body.push_str(&section("MikroTik routers", routeros(facts, has(".rsc"))));
    body.push_str(&section(
        "Anything else that speaks IKEv2",
        other(facts, has(".p12")),
    ));
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    );
    Ok(File::public("README.html".to_owned(), html))
}

fn intro(facts: &Facts<'_>) -> Result<String, Error> {
    let profile = facts.profile;
    let (user, device) = (&profile.user, &profile.device);
    let remote = escape(&profile.remote);
    Ok(match &facts.certificate {
        Some(certificate) => format!(
            "<p>These files connect one device, <strong>{device}</strong> of <strong>{user}</strong>, to the VPN \
             server <strong>{remote}</strong>. Use them on that device alone: another device gets files of its own, \
             and a lost device can then be shut out without the others.</p>\n\
             <p>{}</p>\n",
            match certificate.key {
                Some(_) => {
                    "Treat them like a house key. Do not send them by mail, and delete them where you no longer need \
                     them. <strong>The import password</strong>, which some steps ask for, is not in them: the person \
                     who runs the server tells it to you."
                }
                None => {
                    "They are of no use without the private key, which was made on your device and has never left it: \
                     keep that one to yourself."
                }
            }
        ),
        None => {
            // What a person else would type into a small screen.
            let code = qr(&format!("Server: {}\nUser name: {user}", profile.remote))?;
            format!(
                "<p>These files connect <strong>{device}</strong> of <strong>{user}</strong> to the VPN server \
                 <strong>{remote}</strong>.</p>\n<p>Your user name is <strong>{user}</strong>. Your password is not \
                 in these files: you have agreed it with the person who runs the server.</p>\n\
                 <figure>{code}<figcaption>Holds the server's name and your user name, to copy them to a phone. No \
                 password.</figcaption></figure>\n"
            )
        }
    })
}

fn iphone(facts: &Facts<'_>, present: bool) -> String {
    let stem = &facts.stem;
    if !present && apple::is_too_hasty(facts) {
        return "<p>There is no file here: the server ends connections' keys too soon. iPhones, iPads and Macs need \
                <code>ike_lifetime</code> and <code>child_lifetime</code> of 15 minutes or more there.</p>\n"
            .to_owned();
    }
    if !present {
        return missing(facts, "iPhones, iPads and Macs");
    }
    let secret = match &facts.certificate {
        Some(_) => "the import password",
        None => "your user name and your password",
    };
    let on_demand = &facts.profile.on_demand;
    let start = match on_demand.wifi || on_demand.cellular {
        true => "From now on it connects by itself.",
        false => "To connect, switch it on in Settings, under VPN.",
    };
    format!(
        "<ol><li>Send <code>{stem}.mobileconfig</code> to the device with AirDrop, or open it there in Files.</li>\n\
         <li>iPhone and iPad: open Settings; near the top it says <em>Profile Downloaded</em>. Tap it, then \
         <em>Install</em>.<br>Mac: open the file, then System Settings, search for <em>Profiles</em> (Device \
         Management), double-click the profile, then <em>Install</em>.</li>\n\
         <li>When asked, type {secret}.</li>\n<li>{start}</li></ol>\n\
         <p>A newer file takes the place of the older one; nothing has to be removed before.</p>\n"
    )
}

fn android(facts: &Facts<'_>) -> Result<String, Error> {
    let stem = &facts.stem;
    let code = qr(APP)?;
    let login = match &facts.certificate {
        Some(certificate) if certificate.key.is_some() => {
            "<li>Tap <em>Import certificate</em>, type the import password, and confirm until Android says that the \
             certificate is installed. Choose it.</li>\n<li>Tap <em>Import</em>, at the top.</li>\n\
             <li>Tap the profile to connect.</li>"
        }
        Some(_) => {
            "<li>Choose the certificate that you have installed on this device.</li>\n<li>Tap <em>Import</em>, at the \
             top.</li>\n<li>Tap the profile to connect.</li>"
        }
        None => {
            "<li>Tap <em>Import</em>, at the top.</li>\n<li>Tap the profile to connect, and type your password.</li>"
        }
    };
    Ok(format!(
        "<ol><li>Install the app <a href=\"{link}\">strongSwan VPN Client</a>.</li>\n\
         <li>Copy <code>{stem}.sswan</code> to the phone.</li>\n\
         <li>In the app, open the menu (three dots), <em>Import VPN profile</em>, and choose the file.</li>\n\
         {login}</ol>\n<figure>{code}<figcaption>Opens the app in Google's Play Store.</figcaption></figure>\n",
        link = escape(APP)
    ))
}

fn windows(facts: &Facts<'_>, present: bool) -> String {
    if !present && windows::is_left_out(facts) {
        return "<p>There is no file here: this server signs with RSA, and Windows takes such signatures with an outdated \
                hash (SHA-1) alone. It needs a server with other keys (<code>cygnet server init --key p256</code>).</p>\n"
            .to_owned();
    }
    if !present {
        return missing(facts, "Windows");
    }
    let stem = &facts.stem;
    let (copy, ask) = match &facts.certificate {
        Some(_) => (
            format!("the two files <code>{stem}.ps1</code> and <code>{stem}.p12</code>"),
            "When asked, type the import password.",
        ),
        None => (
            format!("the file <code>{stem}.ps1</code>"),
            "When you connect for the first time, type your user name and your password.",
        ),
    };
    let run = format!("powershell -ExecutionPolicy Bypass -File .\\{stem}.ps1");
    format!(
        "<ol><li>Copy {copy} from the folder <code>windows</code> to a folder of the computer.</li>\n\
         <li>Click Start, type <em>PowerShell</em>, right-click it, <em>Run as administrator</em>.</li>\n\
         <li>Go to the folder (<code>cd</code> and its path) and run<pre>{run}</pre></li>\n<li>{ask}</li>\n\
         <li>Connect by the network symbol of the task bar.</li></ol>\n\
         <p><code>{run} remove</code> takes everything away again; <code>reconnect</code> hangs up and connects.</p>\n\
         <p>Do not make the connection in Windows' own dialog: it offers the server only outdated encryption, and you \
         see <em>Policy match error</em>.</p>\n"
    )
}

fn networkmanager(facts: &Facts<'_>) -> String {
    let stem = &facts.stem;
    let folder = networkmanager::folder(facts);
    let (files, own_key) = match &facts.certificate {
        Some(certificate) if certificate.key.is_some() => {
            ("ca.crt device.crt device.key", String::new())
        }
        Some(_) => (
            "ca.crt device.crt",
            format!("<p>Put your private key at <code>{folder}/device.key</code>.</p>\n"),
        ),
        None => ("ca.crt", String::new()),
    };
    let ask = match &facts.certificate {
        Some(_) => "",
        None => " It asks for your password.",
    };
    format!(
        "<p>For NetworkManager, which most desktops have. In a terminal, in the folder <code>networkmanager</code> (the \
         first line is for Debian and Ubuntu):</p>\n<pre>sudo apt install network-manager-strongswan {plugins}\n\
         sudo install -D -m 600 -t {folder} {files}\n\
         sudo install -m 600 {stem}.nmconnection /etc/NetworkManager/system-connections/\n\
         sudo nmcli connection reload</pre>\n{own_key}\
         <p>Then switch it on in the network menu, under VPN.{ask}</p>\n",
        plugins = plugins(facts),
    )
}

fn linux(facts: &Facts<'_>) -> String {
    let stem = &facts.stem;
    let mut text = String::new();
    let own_key = facts.certificate.as_ref().map(|it| it.key.is_none());
    if let Some(own_key) = own_key {
        let (key, where_from) = match own_key {
            true => (
                " YOUR.key",
                " <code>YOUR.key</code> is the private key you made.",
            ),
            false => ("", ""),
        };
        text.push_str(&format!(
            "<p>With Cygnet itself (<a href=\"{CYGNET}\">how to install it</a>), for this machine alone:{where_from}</p>\n\
             <pre>sudo cygnet import {stem}.cygnet{key}</pre>\n\
             <p>To make it the gateway of a whole network, then also this, which asks first and takes itself back unless you \
             confirm:</p>\n<pre>sudo cygnet gateway setup</pre>\n"
        ));
    }
    text.push_str(&format!(
        "<p>With strongSwan, in the folder <code>swanctl</code> (look first whether you have a \
         <code>/etc/swanctl/swanctl.conf</code> of your own; then put this one into \
         <code>/etc/swanctl/conf.d</code>):</p>\n\
         <pre>sudo apt install charon-systemd strongswan-swanctl {plugins}\n\
         sudo cp -R . /etc/swanctl/\nsudo swanctl --load-all</pre>\n",
        plugins = plugins(facts),
    ));
    match own_key {
        Some(own_key) => text.push_str(&format!(
            "<p>With strongSwan's older starter, in the folder <code>ipsec</code> (look first whether you have an \
             <code>/etc/ipsec.conf</code> or <code>/etc/ipsec.secrets</code> of your own, which these two would replace; \
             then add their lines to yours):</p>\n\
             <pre>sudo apt install strongswan-starter libstrongswan-standard-plugins\nsudo cp ipsec.conf ipsec.secrets /etc/\n\
             sudo cp -R cacerts certs{private} /etc/ipsec.d/\nsudo ipsec restart</pre>\n",
            private = if own_key { "" } else { " private" },
        )),
        None => text.push_str(&format!(
            "<p>Before the last command, write your password into <code>/etc/swanctl/swanctl.conf</code>, where it \
             says <em>{}</em>, and <code>sudo chmod 600</code> that file.</p>\n",
            swanctl::PASSWORD_GOES_HERE
        )),
    }
    if own_key == Some(true) {
        text.push_str(&format!(
            "<p>Before the last command, your private key goes to <code>/etc/swanctl/private/{stem}.key</code> or \
             <code>/etc/ipsec.d/private/{stem}.key</code>.</p>\n"
        ));
    }
    text
}

/// What Debian packs apart from strongSwan: elliptic curves, and logins by password.
fn plugins(facts: &Facts<'_>) -> &'static str {
    match &facts.certificate {
        Some(_) => "libstrongswan-standard-plugins",
        None => "libstrongswan-standard-plugins libcharon-extauth-plugins",
    }
}

fn routeros(facts: &Facts<'_>, present: bool) -> String {
    if !present {
        return match &facts.certificate {
            Some(certificate) if certificate.key.is_some() => {
                "<p>There is no script here: RouterOS knows none of the algorithms that this server accepts for IKE. \
                 It needs AES-CBC there; the person who runs the server can allow it with \
                 <code>aes256-sha256-ecp384</code>.</p>\n"
                    .to_owned()
            }
            _ => missing(facts, "RouterOS"),
        };
    }
    let stem = &facts.stem;
    format!(
        "<ol><li>In WinBox or WebFig, open <em>Files</em> and upload the two files of the folder \
         <code>routeros</code>.</li>\n\
         <li>Open a terminal and type, one after the other,\
         <pre>/certificate import file-name={stem}.p12\n/import file-name={stem}.rsc</pre>\
         The first asks for the import password.</li>\n\
         <li>Name the devices that shall go through the tunnel, for example\
         <pre>/ip firewall address-list add list=cygnet-{list} address=192.168.88.0/24</pre></li></ol>\n",
        list = stem.replace('.', "-")
    )
}

fn other(facts: &Facts<'_>, present: bool) -> String {
    let profile = facts.profile;
    let mut text = format!(
        "<table><tr><th>Server</th><td>{}</td></tr>\n<tr><th>The server's identity</th><td>{}</td></tr>\n",
        escape(&profile.remote),
        escape(&profile.remote_identity)
    );
    match &facts.certificate {
        Some(certificate) => text.push_str(&format!(
            "<tr><th>Your identity</th><td>{}</td></tr>\n<tr><th>Login</th><td>certificate</td></tr>\n",
            escape(certificate.identity)
        )),
        None => text.push_str(&format!(
            "<tr><th>Login</th><td>user name (EAP-MSCHAPv2), {}</td></tr>\n",
            profile.user
        )),
    }
    text.push_str("<tr><th>The server's authority</th><td><code>networkmanager/ca.crt</code></td></tr>\n</table>\n");
    if present {
        text.push_str(&format!(
            "<p><code>{}.p12</code> holds your certificate, your key and the authority, under the import \
             password.</p>\n",
            facts.stem
        ));
    }
    text
}

/// Why there is no file for a system.
fn missing(facts: &Facts<'_>, system: &str) -> String {
    // iPhones, iPads and Macs are many.
    let s = if system.ends_with("Macs") { "" } else { "s" };
    match &facts.certificate {
        Some(certificate) if certificate.key.is_none() => format!(
            "<p>There is no file here: {system} import{s} a certificate together with its private key, and yours has \
             never left your device.</p>\n"
        ),
        None if system == "RouterOS" => {
            "<p>There is no script here: it needs a login by certificate.</p>\n".to_owned()
        }
        _ => format!(
            "<p>There is no file here: {system} know{s} none of the algorithms that this server is set to accept.</p>\n"
        ),
    }
}

fn section(title: &str, body: String) -> String {
    format!("<details>\n<summary>{title}</summary>\n{body}</details>\n")
}

/// As an image inside the page, black on white in either colour scheme, since cameras expect that.
fn qr(text: &str) -> Result<String, Error> {
    let code = QrCode::new(text).map_err(|error| Error::Format {
        format: "QR code",
        why: error.to_string(),
    })?;
    let svg = code
        .render::<svg::Color<'_>>()
        .min_dimensions(180, 180)
        .build();
    // Inside HTML there is no XML declaration.
    let start = svg.find("<svg").unwrap_or(0);
    Ok(svg.get(start..).unwrap_or_default().to_owned())
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}
