#!/bin/sh
# Agreed casts between two members: Corosync's closed process groups (udpu and knet) and Wadjet (TOTAL, and SAFE above it)
# over udp and xdp, in the same network namespaces, in turn, in one run. Prints medians over the rounds, and ratios to udpu.
#
#   bench/peers/run.sh [ROUNDS [SECONDS]]      as root; installs Corosync and its headers from Debian if they are missing
#
# Of what is measured nothing leaves the namespaces, which are removed at the end. Set CORES ("0 1") and SIZE (64 bytes).
set -eu
if [ "$(id -u)" -ne 0 ]; then
    echo "bench/peers/run.sh: network namespaces need root" >&2
    exit 2
fi
cd "$(dirname "$0")/../.."
rounds=${1:-3}
seconds=${2:-2}
size=${SIZE:-64}
cores=${CORES:-"0 1"}
target=${CARGO_TARGET_DIR:-target}
here=bench/peers
wadjet=$target/release/wadjet
work=$(mktemp -d)
running=''
# Ours, while Debian's packages are installed.
policy=''

end_daemons() {
    for pid in $running; do kill "$pid" 2> "$work/kill" || true; done
    for pid in $running; do wait "$pid" 2> "$work/kill" || true; done
    running=''
}

clean_up() {
    end_daemons
    [ ! -x "$wadjet" ] || "$wadjet" lab down --label peers > "$work/down"
    [ -z "$policy" ] || rm -f "$policy"
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

if ! command -v corosync > "$work/which" || [ ! -e /usr/include/corosync/cpg.h ]; then
    # Debian would start the daemon on this host, which is not where it is wanted.
    echo "installing corosync and libcpg-dev from Debian" >&2
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy"
    fi
    apt-get install --yes --no-install-recommends corosync libcpg-dev > "$work/apt" 2>&1 || {
        cat "$work/apt" >&2
        exit 1
    }
    [ -z "$policy" ] || rm "$policy"
    policy=''
fi
"${CC:-cc}" -O2 -Wall -Wextra -o "$work/cpg" "$here/cpg.c" -lcpg
echo "building the wadjet command: minutes, the first time" >&2
cargo build --quiet --release --locked -p wadjet-tools
"$wadjet" lab up 2 --label peers > "$work/up"

core_of() { echo "$cores" | cut -d ' ' -f "$1"; }

# start_daemons CONFIGURATION: one on each host, with /run and /var/lib/corosync of its own.
start_daemons() {
    for host in 1 2; do
        # shellcheck disable=SC2016
        taskset -c "$(core_of "$host")" ip netns exec "wadjet-peers-$host" sh -euc '
            mount -t tmpfs tmpfs /run
            mount -t tmpfs tmpfs /var/lib/corosync
            exec corosync -f -c "$0"' "$PWD/$here/$1.conf" > "$work/corosync-$host" 2>&1 &
        running="$running $!"
    done
}

# cpg PATTERN FIELD...: what the two clients say, in order of their ranks.
cpg() {
    ip netns exec wadjet-peers-2 "$work/cpg" 1 "$1" "$seconds" "$size" "$(core_of 2)" > "$work/other" &
    other=$!
    ip netns exec wadjet-peers-1 "$work/cpg" 0 "$1" "$seconds" "$size" "$(core_of 1)" > "$work/one"
    wait "$other"
    cat "$work/one" "$work/other"
}

# measured TRANSPORT ORDER PATTERN FIELD...: figures of Wadjet's JSON report.
measured() {
    list=$(echo "$cores" | tr ' ' ',')
    "$wadjet" bench --transport "$1" --lab peers --order "$2" --pattern "$3" --size "$size" --duration "$seconds" \
        --cores "$list" --json - 2> "$work/log" > "$work/json" || { cat "$work/log" "$work/json" >&2; exit 1; }
    shift 3
    for field in "$@"; do sed -n "s/^ *\"$field\": *\([0-9.]*\).*/\1/p" "$work/json" | head -n 1; done | paste -s -d ' '
}

for round in $(seq "$rounds"); do
    for transport in udpu knet; do
        echo "[$round/$rounds] Corosync over $transport" >&2
        start_daemons "$transport"
        cpg pingpong | cut -d ' ' -f 1,2 >> "$work/$transport-pingpong"
        cpg stream | cut -d ' ' -f 1 >> "$work/$transport-stream"
        end_daemons
    done
    for transport in udp xdp; do
        for order in agreed safe; do
            echo "[$round/$rounds] Wadjet over $transport, $order" >&2
            measured "$transport" "$order" pingpong p50 p99 >> "$work/$transport-$order-pingpong"
            measured "$transport" "$order" stream messages_per_second >> "$work/$transport-$order-stream"
        done
    done
done

# median FILE COLUMN
median() { cut -d ' ' -f "$2" "$work/$1" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

echo "$(corosync -v | head -n 1) $(uname -srm), $(nproc) cores, load $(cut -d ' ' -f 1 /proc/loadavg)," \
    "$(date -u +%Y-%m-%dT%H:%MZ): $size B, 2 members, median of $rounds rounds of $seconds s"
printf '%-24s %12s %12s %14s %14s %14s\n' '' 'p50, us' 'p99, us' 'messages/s' 'times faster' 'times the rate'
base_time=$(median udpu-pingpong 1)
base_rate=$(median udpu-stream 1)
for row in 'udpu Corosync udpu, agreed' 'knet Corosync knet, agreed' 'udp-agreed Wadjet udp, agreed' \
    'udp-safe Wadjet udp, safe' 'xdp-agreed Wadjet xdp, agreed' 'xdp-safe Wadjet xdp, safe'; do
    file=${row%% *}
    awk -v name="${row#* }" -v p50="$(median "$file-pingpong" 1)" -v p99="$(median "$file-pingpong" 2)" \
        -v rate="$(median "$file-stream" 1)" -v time="$base_time" -v base="$base_rate" 'BEGIN {
            printf "%-24s %12.1f %12.1f %14.0f %14.1f %14.1f\n", name, p50 / 1000, p99 / 1000, rate, time / p50, rate / base
        }'
done
