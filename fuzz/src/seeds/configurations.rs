//! Configuration files, good ones and one full of mistakes.

use super::Seed;

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    let texts = [
        ("office", OFFICE),
        ("client", CLIENT),
        ("server", SERVER),
        ("mistakes", MISTAKES),
        ("children", CHILDREN),
        ("gateway_dns", GATEWAY_DNS),
        ("gateway_dhcp", GATEWAY_DHCP),
        ("hooks", HOOKS),
        ("site", SITE),
        ("mapping", MAPPING),
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

const GATEWAY_DNS: &str = r#"[tunnel.home]
remote = "vpn.example.org"
psk = "home.psk"
virtual_address = true
search_mtu = false

[gateway]
tunnel = "home"
lan = ["eth0", "wlan0"]
default = "direct"
tunnelled = ["tv", "192.168.1.64/26"]
blocked = "aa:bb:cc:dd:ee:02"
direct_networks = ["10.7.0.0/16"]

[gateway.devices]
tv = ["aa:bb:cc:dd:ee:01", "aa:bb:cc:dd:ee:03"]

[gateway.dns]
resolvers = ["9.9.9.9", "2620:fe::fe"]
tls = "dns.quad9.net"
direct = ["corp.example", "example.net."]
direct_resolvers = ["192.168.1.1"]
lan_domains = "lan"
block = ["ads.hosts", "/srv/more.hosts"]
dot = "refuse"
cache = 0
"#;

const GATEWAY_DHCP: &str = r#"[tunnel.home]
remote = "203.0.113.5"
psk = "home.psk"
virtual_address = true

[gateway]
tunnel = "home"
lan = "eth0"

[gateway.dhcp]
range = "192.168.1.100-192.168.1.199"
interface = "eth0"
lease_time = "12h"
dns = ["9.9.9.9", "2620:fe::fe"]
router_advertisements = false

[gateway.dhcp.reservations]
"3c:22:fb:01:02:03" = "192.168.1.10"
"3c:22:fb:01:02:04" = "192.168.1.150"
"#;

const HOOKS: &str = r#"[server]
psk = "server.psk"
pools = ["10.99.0.0/24"]
hook = ["/usr/local/lib/cygnet/updown", "iptables"]
hook_timeout = "90s"
hook_user = "nobody"

[tunnel.office]
remote = "any"
remote_identity = "*@example.org"
psk = "k"
hook = "/usr/local/lib/cygnet/updown"
hook_user = "65534"
"#;

const SITE: &str = r#"# [tunnel.branch] was written by `cygnet site add`; `cygnet site remove branch` takes it out, down to the end mark
[tunnel.branch]
remote = "any"
remote_identity = "branch.there.cygnet.internal"
identity = "203.0.113.5"
psk = "branch/shared.psk"
local_networks = ["10.1.0.0/24", "fd00:1::/64"]
remote_networks = ["10.2.0.0/24", "fd00:2::/64"]
start = "manual"
ike = ["aes256-sha256-ecp384"]
# end of [tunnel.branch]
"#;

const MAPPING: &str = r#"[tunnel.branch]
remote = "203.0.113.7"
psk = "k"

[tunnel.branch.child.one]
local_networks = ["192.168.1.0/24", "10.7.0.0/24", "fd00:1::/64"]
local_map = ["10.201.1.0/24", "10.7.0.0/24", "fdc9::/64"]
remote_networks = ["10.202.1.0/24", "fdca::/64"]

[tunnel.branch.child.two]
local_networks = ["192.168.1.0/24"]
local_map = "10.201.1.0/24"
remote_networks = ["192.168.1.0/24"]
"#;
