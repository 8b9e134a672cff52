#!/bin/bash
# Cygnet: a real `cygnet run` on both gateways, site to site, as an operator would set it up. The binary is $CYGNET, or the one built here.
D=$PF_RUN/$(basename "$0" .sh)
CYGNET=${CYGNET:-$(dirname "$(readlink -f "$0")")/../../../target/release/cygnet}
side() { # A|B  ns  own name  peer's name  peer's address  own network  peer's network  start
  local d=$D/$1
  mkdir -p "$d"
  cp "$D/psk" "$d/psk"
  cat >"$d/cygnet.toml" <<X
[daemon]
run_dir = "$d/run"

[tunnel.site]
remote = "$5"
identity = "$3"
remote_identity = "$4"
psk = "psk"
local_networks = ["$6"]
remote_networks = ["$7"]
start = "$8"
X
  ip netns exec "$2" "$CYGNET" run --config "$d/cygnet.toml" >"$d/log" 2>&1 &
  echo $! >"$d/pid"
  for _ in $(seq 100); do
    control "$1" status >/dev/null 2>&1 && return
    kill -0 "$(cat "$d/pid")" 2>/dev/null || break
    sleep 0.05
  done
  echo "cygnet on $2 does not answer: $(tail -n 3 "$d/log")" >&2
  return 1
}
control() { "$CYGNET" "${@:2}" --socket "$D/$1/run/control.sock"; }
supervisor() { cat "$D/$1/pid" 2>/dev/null; }
engine() { control "$1" status --json 2>/dev/null | grep -o '"engine": *[0-9]\+' | grep -o '[0-9]\+'; }
alive() { [ -d "/proc/$1" ] && ! grep -q "^State:.Z" "/proc/$1/status" 2>/dev/null; }
case $1 in
  up)
    [ -x "$CYGNET" ] || { echo "no program $CYGNET: cargo build --release -p cygnet" >&2; exit 1; }
    umask 077
    rm -rf "$D"
    mkdir -p "$D"
    openssl rand -hex 32 >"$D/psk"
    # B answers, A calls: one IKE SA, not two that cross.
    side B "$PF_B" b.bench a.bench "$PF_WAN_A" "$PF_LAN_B" "$PF_LAN_A" manual || exit 1
    side A "$PF_A" a.bench b.bench "$PF_WAN_B" "$PF_LAN_A" "$PF_LAN_B" always || exit 1
    control A up site --wait 10 >&2
    ;;
  down)
    ended=0
    pids=()
    for s in A B; do pids+=($(supervisor $s) $(engine $s)); done
    for s in A B; do p=$(supervisor $s) && alive "$p" && kill "$p"; done
    for _ in $(seq 100); do
      left=()
      for p in "${pids[@]}"; do alive "$p" && left+=("$p"); done
      [ ${#left[@]} = 0 ] && break
      sleep 0.05
    done
    if [ ${#left[@]} != 0 ]; then
      echo "cygnet ignored SIGTERM: ${left[*]}" >&2
      kill -KILL "${left[@]}"
      ended=1
    fi
    rm -rf "$D"
    exit $ended
    ;;
  pids) # the supervisor and the engine of each side
    for s in A B; do for p in $(supervisor $s) $(engine $s); do echo "$s $p"; done; done ;;
esac
