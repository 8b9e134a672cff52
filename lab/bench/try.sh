#!/bin/bash
# try.sh CONTENDER: a network of its own, the contender up, ping, 3 s of iperf3 in each direction, down.
. "$(dirname "$(readlink -f "$0")")/env.sh"
c=$PF_ROOT/contenders/$1.sh
[ -x "$c" ] || { echo "usage: $0 CONTENDER, one of:" "$(cd "$PF_ROOT/contenders" && ls [!_]*.sh | sed 's/\.sh$//' | tr '\n' ' ')"; exit 2; }
trap '"$c" down; "$PF_ROOT/topo.sh" down' EXIT
trap 'exit 130' INT TERM
"$PF_ROOT/topo.sh" up || exit
"$c" up || exit
for _ in $(seq 40); do ip netns exec $PF_CL ping -c1 -W1 $PF_SV_IP >/dev/null 2>&1 && break; sleep 0.2; done
ip netns exec $PF_CL ping -c3 -i0.2 $PF_SV_IP | tail -2
for reverse in '' -R; do
  ip netns exec $PF_SV iperf3 -s -1 >/dev/null & server=$!
  sleep 0.3
  ip netns exec $PF_CL iperf3 -c $PF_SV_IP -t 3 $reverse | grep -E 'sender|receiver|error'
  kill $server 2>/dev/null
done
"$c" pids
