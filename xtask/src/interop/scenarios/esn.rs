//! Extended sequence numbers: strongSwan's own user-space ESP knows none, so its end is kernel ESP in
//! User-Mode Linux. Cygnet runs there too.

use super::super::Scenario;
use super::super::plan::Role;
use crate::ensure;
use crate::lab::{Failure, Lab, Result, uml};
use crate::project;
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    Role::BOTH
        .into_iter()
        .map(|role| {
            Scenario::new(
                format!("esn-kernel-{}", role.name()),
                "64-bit sequence numbers with kernel ESP in User-Mode Linux, and a rekey",
                move |lab| play(lab, role),
            )
        })
        .collect()
}

fn play(lab: &Lab, role: Role) -> Result<String> {
    if !uml::is_installed() {
        return Err(Failure::new(
            "User-Mode Linux is missing: `cargo xtask setup` installs it",
        ));
    }
    let (remote, swan_remote) = match role {
        Role::Initiator => ("192.0.2.2", "%any"),
        Role::Responder => ("any", "192.0.2.1"),
    };
    let config = format!(
        r#"[daemon]
run_dir = "/run/c"
log = "debug"

[tunnel.office]
remote = "{remote}"
identity = "cygnet.lab"
remote_identity = "swan.lab"
psk = "psk"
start = "manual"
ike = ["aes128gcm16-prfsha256-x25519"]
esp = ["aes128gcm16-esn"]
local_networks = ["10.1.0.0/24"]
remote_networks = ["10.2.0.0/24"]
"#
    );
    let swanctl = format!(
        "connections {{ office {{ version = 2
 mobike = no
 local_addrs = 192.0.2.2
 remote_addrs = {swan_remote}
 proposals = aes128gcm16-prfsha256-x25519
 local {{ auth = psk
 id = swan.lab }}
 remote {{ auth = psk
 id = cygnet.lab }}
 children {{ net {{ local_ts = 10.2.0.0/24
 remote_ts = 10.1.0.0/24
 esp_proposals = aes128gcm16-esn }} }} }} }}
secrets {{ ike {{ secret = \"one for both\" }} }}
"
    );
    let program = project::cygnet();
    let script = SCRIPT
        .replace("@CYGNET@", &program.to_string_lossy())
        .replace("@ROLE@", role.name());
    let files = [
        ("cygnet.toml", config.as_str()),
        ("psk", "one for both\n"),
        ("swanctl.conf", swanctl.as_str()),
        ("strongswan.conf", STRONGSWAN),
    ];
    let outcome = uml::run(lab, role.name(), &script, &files, Duration::from_secs(100))?;
    let output = outcome.output;
    ensure!(
        outcome.status == 0,
        "it ended with {}:\n{output}",
        outcome.status
    );
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("SEEN "))
        .unwrap_or_default();
    Ok(line.to_owned())
}

const STRONGSWAN: &str = "charon-systemd {
 load = random nonce openssl aes gcm hmac kdf pem pkcs1 x509 pubkey sha2 curve25519 kernel-netlink socket-default vici updown
 plugins { vici { socket = unix:///run/swan/vici } }
 journal { default = -1 }
 filelog { log { path = /run/swan/log
 default = 1
 flush_line = yes } }
}
";

/// `c` is Cygnet's host, `s` strongSwan's. Each claim is checked where it is made; `fail` shows both logs.
const SCRIPT: &str = r#"
set -u
fail() { echo "FAILED: $*"; tail -20 /run/c.log; tail -20 /run/swan/log; exit 1; }
until_true() { for _ in $(seq 150); do eval "$1" && return 0; sleep 0.1; done; fail "not within 15 s: $1"; }
printf '#!/bin/sh\nexec busybox modprobe "$@"\n' >/run/modprobe; chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
busybox modprobe -a ipv6 esp4 xfrm_user veth tun gcm ctr ghash-generic seqiv
ip netns add c; ip netns add s
ip link add w netns c type veth peer name w netns s
for n in c s; do ip -n $n link set lo up; ip -n $n link set w up; done
ip -n c addr add 192.0.2.1/24 dev w; ip -n c addr add 10.1.0.1/24 dev lo
ip -n s addr add 192.0.2.2/24 dev w; ip -n s addr add 10.2.0.1/24 dev lo
ip -n s route add 10.1.0.0/24 via 192.0.2.1 src 10.2.0.1
# This kernel was built without nftables for IP; the MSS rules of Cygnet's are not what is shown here.
mkdir -p /run/bin; printf '#!/bin/sh\ncat >/dev/null\n' >/run/bin/nft; chmod 755 /run/bin/nft
export PATH=/run/bin:$PATH
mkdir -p /run/swan /run/cfg; cp /mnt/out/cygnet.toml /mnt/out/psk /run/cfg; chmod 600 /run/cfg/psk
STRONGSWAN_CONF=/mnt/out/strongswan.conf ip netns exec s /usr/sbin/charon-systemd >/run/swan/out 2>&1 &
ip netns exec c @CYGNET@ run --config /run/cfg/cygnet.toml >/run/c.log 2>&1 &
until_true '[ -S /run/swan/vici ]'
until_true '[ -S /run/c/control.sock ]'
swan() { swanctl "$@" --uri unix:///run/swan/vici; }
swan --load-all --file /mnt/out/swanctl.conf >/run/load 2>&1 || fail "$(cat /run/load)"
cyg() { @CYGNET@ "$@" --socket /run/c/control.sock; }
if [ @ROLE@ = initiator ]; then cyg up office || fail up; else swan --initiate --child net >/run/up 2>&1 || fail "$(cat /run/up)"; fi
until_true 'cyg status --json | grep -q "\"spi_in\""'
packets() { cyg status --json | tr ',{' '\n\n' | sed -n 's/.*"packets_'$1'": *\([0-9]*\).*/\1/p' | tail -1; }
kernel() { ip -n s -s xfrm state | sed -n 's/.*(bytes), \([0-9]*\)(packets).*/\1/p' | sort -n | uniq -c | tr -s ' ' | tr '\n' ';'; }
check() {
  for _ in 1 2 3 4 5; do ip netns exec c ping -q -c 1 -W 5 -I 10.1.0.1 10.2.0.1 >/run/ping 2>&1 || fail "$(cat /run/ping)"; done
  ip -n s xfrm state | grep -q 'flag.* esn\|esn' || fail "no ESN in the kernel: $(ip -n s xfrm state)"
  ip -n s xfrm state | grep -q 'encap type espinudp' || fail "not in UDP"
  cyg status --json | grep -q 'esn' || fail "$(cyg status --json)"
}
check
[ "$(packets in)" = 5 ] && [ "$(packets out)" = 5 ] || fail "cygnet counts $(packets in) in, $(packets out) out"
ip -n s -s xfrm state | grep -c ' 5(packets)' | grep -qx 2 || fail "the kernel counts $(ip -n s -s xfrm state)"
old=$(ip -n s xfrm state | grep -o 'spi 0x[0-9a-f]*' | sort | tr '\n' ' ')
curl -sS --fail-with-body --unix-socket /run/c/control.sock -X POST -d '{"child":"net"}' http://cygnet/v1/connections/office/rekey >/run/rekey 2>&1 || fail "$(cat /run/rekey)"
until_true '[ "$(swan --list-sas | grep -c "INSTALLED")" = 1 ] && ! swan --list-sas --raw | grep -q REKEYING && [ "$(ip -n s xfrm state | grep -o "spi 0x[0-9a-f]*" | sort | tr "\n" " ")" != "$old" ]'
check
echo "SEEN ESN in the kernel's SAs and in Cygnet's, 5 packets each way counted at both ends, a rekey"
exit 0
"#;
