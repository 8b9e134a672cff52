#!/bin/bash
# topo.sh up | down | wan veth|wire
#  client --lan-- gwA --wan-- gwB --lan-- server, all veth, MTU 1500.
#  wan veth: veth defaults (a GSO super-packet crosses the wire whole).
#  wan wire: software TSO/USO at the sender, one 1500-byte frame at a time on
#            the wire, software GRO at the receiver (NIC without USO/TSO).
. "$(dirname "$(readlink -f "$0")")/env.sh"
set -e
x() { ip netns exec "$@"; }
up() {
  for n in $PF_CL $PF_A $PF_B $PF_SV; do
    ip netns add $n
    x $n sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 \
      net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
      net.ipv4.conf.all.send_redirects=0
    ip -n $n link set lo up
  done
  for n in $PF_A $PF_B; do x $n sysctl -qw net.ipv4.ip_forward=1; done
  ip -n $PF_CL link add lan0 type veth peer name lan0 netns $PF_A
  ip -n $PF_A link add $PF_WAN_IF type veth peer name $PF_WAN_IF netns $PF_B
  ip -n $PF_SV link add lan0 type veth peer name lan0 netns $PF_B
  ip -n $PF_CL addr add $PF_CL_IP/24 dev lan0; ip -n $PF_SV addr add $PF_SV_IP/24 dev lan0
  ip -n $PF_A addr add $PF_GW_A/24 dev lan0; ip -n $PF_B addr add $PF_GW_B/24 dev lan0
  ip -n $PF_A addr add $PF_WAN_A/24 dev $PF_WAN_IF; ip -n $PF_B addr add $PF_WAN_B/24 dev $PF_WAN_IF
  for p in $PF_CL:lan0 $PF_SV:lan0 $PF_A:lan0 $PF_B:lan0 $PF_A:$PF_WAN_IF $PF_B:$PF_WAN_IF; do
    ip -n ${p%%:*} link set ${p##*:} up mtu 1500; done
  # Loss is part of what is measured, and bbr, the default of some machines, looks past it. A namespace
  # may not choose its own default; a route may.
  ip -n $PF_CL route add default via $PF_GW_A congctl cubic
  ip -n $PF_SV route add default via $PF_GW_B congctl cubic
  # Small UDP packets must arrive at the gateway one by one, as from a real LAN.
  for n in $PF_CL $PF_SV; do x $n ethtool -K lan0 tx-udp-segmentation off 2>/dev/null || true; done
}
down() { for n in $PF_CL $PF_A $PF_B $PF_SV; do ip netns del $n 2>/dev/null || true; done; }
wan() {
  for n in $PF_A $PF_B; do
    case $1 in
      veth) x $n ethtool -K $PF_WAN_IF tso on tx-udp-segmentation on gso on gro off >/dev/null 2>&1 || true;;
      wire) x $n ethtool -K $PF_WAN_IF tso off tx-udp-segmentation off gso on gro on >/dev/null 2>&1 || true;;
    esac; done
}
case $1 in up) down; up;; down) down;; wan) wan $2;; *) echo "usage: $0 up|down|wan veth|wire"; exit 2;; esac
