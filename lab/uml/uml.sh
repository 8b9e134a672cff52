#!/bin/bash
# uml.sh [-m MEM] [-t SECS] [-w DIR] -- CMD [ARGS...]
#
# Runs CMD as root inside User-Mode Linux (Debian packages user-mode-linux and busybox-static): a Linux
# 6.1 with kernel ESP, veth, tun, nftables and netem, up in three seconds, and no privilege needed.
# Prints what CMD prints, on stdout and stderr; returns CMD's status.
#
#   -m MEM   the machine's memory (1024M)
#   -t SECS  ends the machine after this time (120)
#   -w DIR   is /mnt/out in the machine, writable
#
# The machine's files are this machine's root, below a tmpfs: CMD may write anywhere, and only what it
# writes to /mnt/out stays. Exit 124: the time ran out; 125: the machine died before CMD ended.
# There is one CPU, and there are no XFRM interfaces, no nft_nat and no nft_fib.
set -u
mem=1024M limit=120 out=
while getopts m:t:w: option; do
  case $option in
    m) mem=$OPTARG ;;
    t) limit=$OPTARG ;;
    w) out=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ "${1:-}" = -- ] && shift

work=$(mktemp -d "${TMPDIR:-/tmp}/uml.XXXXXX")
machine=
cleanup() {
  # timeout(1) hands the signal on to the machine.
  [ -n "$machine" ] && kill "$machine" 2>/dev/null && wait "$machine"
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 143' TERM INT
ctl=$work/ctl
mkdir "$ctl"
[ -n "$out" ] || { out=$work/out; mkdir "$out"; }
printf '%q ' "$@" >"$ctl/cmd"
pwd >"$ctl/cwd"
: >"$ctl/log"

# The first program of the machine. Its root is this machine's, read-only: builds the overlay and
# changes into it.
cat >"$ctl/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t tmpfs -o mode=755 tmpfs /mnt
$b mkdir /mnt/up /mnt/wk /mnt/root /mnt/low
$b mount -t proc proc /proc
version=$($b uname -r)
ctl=$($b sed -n 's/.*umlctl=\([^ ]*\).*/\1/p' /proc/cmdline)
out=$($b sed -n 's/.*umlout=\([^ ]*\).*/\1/p' /proc/cmdline)
$b insmod /usr/lib/uml/modules/$version/kernel/fs/overlayfs/overlay.ko || echo "no overlay module"
$b mount -t hostfs -o ro,/ none /mnt/low
$b mount -t overlay -o lowerdir=/mnt/low,upperdir=/mnt/up,workdir=/mnt/wk overlay /mnt/root
r=/mnt/root
$b mount -t proc proc $r/proc
$b mount -t sysfs sysfs $r/sys
$b mount -t devtmpfs dev $r/dev 2>/dev/null
$b mkdir -p $r/dev/pts $r/dev/shm $r/dev/net $r/mnt/out $r/mnt/ctl $r/run $r/tmp $r/lib/modules/$version
$b mount -t devpts devpts $r/dev/pts
$b mount -t tmpfs tmpfs $r/run
$b mount -t tmpfs tmpfs $r/dev/shm
$b ln -s /proc/self/fd $r/dev/fd 2>/dev/null
[ -e $r/dev/net/tun ] || $b mknod $r/dev/net/tun c 10 200
$b mount -t hostfs -o $out none $r/mnt/out
$b mount -t hostfs -o $ctl none $r/mnt/ctl
$b mount -t hostfs -o ro,/usr/lib/uml/modules/$version none $r/lib/modules/$version
$b mkdir -p $r/run/netns $r/run/lock
exec $b chroot $r /bin/sh /mnt/ctl/stage2
INIT
cat >"$ctl/stage2" <<'STAGE2'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
ip link set lo up
cd "$(cat /mnt/ctl/cwd)" 2>/dev/null || cd /
eval "$(cat /mnt/ctl/cmd)" </dev/null >/mnt/ctl/log 2>&1
echo $? >/mnt/ctl/rc
sync
echo o >/proc/sysrq-trigger 2>/dev/null
busybox poweroff -f
STAGE2
chmod 755 "$ctl/init"

HOME=$work timeout -k 5 "$limit" linux.uml mem="$mem" root=/dev/root rootfstype=hostfs rootflags=/ \
  ro quiet init="$ctl/init" con=null con0=null,fd:1 umid="u$$" umlctl="$ctl" \
  umlout="$(realpath "$out")" </dev/null >"$work/console" 2>&1 &
machine=$!
tail -n +1 -f --pid="$machine" "$ctl/log" 2>/dev/null &
tail=$!
wait "$machine"
status=$?
machine=
wait "$tail" 2>/dev/null
[ -s "$ctl/rc" ] && exit "$(cat "$ctl/rc")"
tail -30 "$work/console" >&2
[ "$status" = 124 ] && exit 124
exit 125
