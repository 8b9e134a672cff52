# Names and addresses of the bench. A contender sources nothing; it gets these as environment variables.
PF_ROOT=${PF_ROOT:-$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")}
export PF_ROOT
export PF_CL=${PF_CL:-pf-cl} PF_A=${PF_A:-pf-gwa} PF_B=${PF_B:-pf-gwb} PF_SV=${PF_SV:-pf-sv}
export PF_WAN_A=10.77.0.1 PF_WAN_B=10.77.0.2 PF_WAN_IF=wan0
export PF_LAN_A=10.77.1.0/24 PF_LAN_B=10.77.2.0/24
export PF_GW_A=10.77.1.1 PF_GW_B=10.77.2.1 PF_CL_IP=10.77.1.2 PF_SV_IP=10.77.2.2
export PF_RUN=${PF_RUN:-${TMPDIR:-/tmp}/vpn-bench/run}
export PF_BIN=${PF_BIN:-$PF_ROOT/../../target/bench/bin}
mkdir -p "$PF_RUN"
