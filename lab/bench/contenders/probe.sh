#!/bin/bash
# esp-probe: reachable limit (static keys). PROBE_MODE = "" (aes128) | null | aes256 | chacha
D=$PF_RUN/$(basename "$0" .sh); case $(basename "$0" .sh) in probe-null) PROBE_MODE=null;; probe-aes256) PROBE_MODE=aes256;; esac
side() { ip netns exec $2 $PF_BIN/esp-probe pfp $3:4500 $4:4500 $1 $PROBE_MODE >$D/$1.log 2>&1 & echo $! >$D/$1.pid
 for i in $(seq 30); do ip -n $2 link show pfp >/dev/null 2>&1 && break; sleep 0.1; done
 ip -n $2 link set pfp mtu 1438 txqueuelen 1000 up; ip -n $2 route replace $5 dev pfp; }
case $1 in
 up) [ -x $PF_BIN/esp-probe ] || { echo "there is no program $PF_BIN/esp-probe" >&2; exit 1; }
   mkdir -p $D; side a $PF_A $PF_WAN_A $PF_WAN_B $PF_LAN_B; side b $PF_B $PF_WAN_B $PF_WAN_A $PF_LAN_A;;
 down) for s in a b; do kill $(cat $D/$s.pid) 2>/dev/null; done; sleep 0.2; exit 0;;
 pids) for s in a b; do echo ${s^^} $(cat $D/$s.pid); done;;
esac
