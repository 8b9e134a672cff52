# sourced by the WireGuard contenders: needs WGCMD (array; %IF is the interface)
D=$PF_RUN/$(basename "$0" .sh); 
side() { # ns if addr privfile pubfile-of-peer endpoint allowed
  ip netns exec $1 wg set $2 private-key $4 listen-port 51820 peer "$(cat $5)" endpoint $6:51820 allowed-ips $7
  ip -n $1 addr add $3/32 dev $2; ip -n $1 link set $2 mtu 1420 up; ip -n $1 route replace $7 dev $2
}
start() { # ns if name
  [ -x "${WGCMD[0]}" ] || { echo "there is no program ${WGCMD[0]}" >&2; return 1; }
  rm -f /var/run/wireguard/$2.sock
  ip netns exec $1 "${WGCMD[@]//%IF/$2}" >$D/$3.log 2>&1 & echo $! >$D/$3.pid
  for i in $(seq 50); do ip -n $1 link show $2 >/dev/null 2>&1 && [ -S /var/run/wireguard/$2.sock ] && return; sleep 0.1; done
  echo "$2 did not appear" >&2; return 1
}
case $1 in
 up) mkdir -p $D; umask 077; for s in a b; do wg genkey >$D/$s.key; wg pubkey <$D/$s.key >$D/$s.pub; done
   start $PF_A pfa A && start $PF_B pfb B || exit 1
   side $PF_A pfa 10.77.9.1 $D/a.key $D/b.pub $PF_WAN_B $PF_LAN_B
   side $PF_B pfb 10.77.9.2 $D/b.key $D/a.pub $PF_WAN_A $PF_LAN_A;;
 down) for s in A B; do [ -f $D/$s.pid ] && kill $(cat $D/$s.pid) 2>/dev/null; done; sleep 0.3
   ip -n $PF_A link del pfa 2>/dev/null; ip -n $PF_B link del pfb 2>/dev/null; rm -f /var/run/wireguard/pf[ab].sock; exit 0;;
 pids) for s in A B; do echo $s $(cat $D/$s.pid); done;;
esac
