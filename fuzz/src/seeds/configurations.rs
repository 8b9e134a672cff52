//! Configuration files, good ones and one full of mistakes.

use super::Seed;

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    let texts = [
        ("office", OFFICE),
        ("client", CLIENT),
        ("server", SERVER),
        ("mistakes", MISTAKES),
        ("children", CHILDREN),
    ];
    for (name, text) in texts {
        seeds.push(("config", name.to_owned(), text.as_bytes().to_vec()));
    }
}

const OFFICE: &str = r#"[tunnel.office]
remote = "203.0.113.7"
psk = "office.psk"
local_networks = ["10.1.0.0/24", "10.1.1.0/24"]
remote_networks = ["10.2.0.0/24"]
"#;

const CLIENT: &str = r#"[daemon]
log = "debug"
ike_port = 500
natt_port = 4500

[tunnel.home]
remote = ["vpn.example.org", "198.51.100.1"]
identity = "me@example.org"
psk = "home.psk"
virtual_address = true
mtu = 1400

[gateway]
tunnel = "home"
lan = "eth0"
guard = true
"#;

const SERVER: &str = r#"[server]
identity = "vpn.example.org"
psk = "server.psk"
pools = ["10.99.0.0/24", "fd00:99::/64"]
dns = ["10.99.0.1"]
networks = ["0.0.0.0/0", "::/0"]
"#;

const MISTAKES: &str = r#"[tunnel.office]
remote = "203.0.113.300"
psk = "k"
remote_networks = ["10.2.0.7/24"]
child_lifetime = "1 hour"
ike = ["aes128gcm16-prfsha256-modp1024"]
unknown = true
"#;

const CHILDREN: &str = r#"[tunnel.office]
remote = "any"
remote_identity = "b.example.org"
psk = "k"
child_lifetime = "10m"
ike = ["aes256gcm16-prfsha512-ecp384", "aes128-sha256-modp2048"]
esp = ["aes128gcm16-x25519", "aes256-sha256"]
[tunnel.office.child.one]
remote_networks = ["10.2.0.0/24"]
[tunnel.office.child.two]
remote_networks = ["10.3.0.0/24"]
child_lifetime = "20m"
"#;
