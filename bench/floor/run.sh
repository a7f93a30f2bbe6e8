#!/bin/sh
# Is `wadjet bench --raw` an honest floor? Builds a ping-pong in C (plain sockets, plain shared memory), runs it and the
# raw benchmark in turn, and prints the medians over the rounds, their ratio, and that of the best of each: on a machine that
# has other things to do the medians compare what it did meanwhile.
#
#   bench/floor/run.sh [ROUNDS [SECONDS]]      needs a C compiler (`CC`, default cc) and two cores (`CORES`, default "0 1")
set -eu
cd "$(dirname "$0")/../.."
rounds=${1:-5}
seconds=${2:-1}
cores=${CORES:-"0 1"}
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/floor"
"${CC:-cc}" -O2 -Wall -Wextra -o "$target/floor/floor" bench/floor/floor.c
cargo build --quiet --release -p wadjet-tools
list=$(echo "$cores" | tr ' ' ',')

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

best() { sort -n | head -n 1; }

printf '%-14s %12s %12s %8s %12s\n' floor 'C p50, ns' 'raw p50, ns' ratio 'of the best'
for floor in udp udp-connected shm; do
    transport=${floor%-connected}
    : > "$target/floor/c"
    : > "$target/floor/raw"
    for _ in $(seq "$rounds"); do
        # shellcheck disable=SC2086
        "$target/floor/floor" "$floor" "$seconds" $cores | cut -d' ' -f1 >> "$target/floor/c"
        "$target/release/wadjet" bench --transport "$transport" --raw --duration "$seconds" --cores "$list" --json - \
            2> "$target/floor/log" | sed -n 's/^ *"p50": *\([0-9]*\).*/\1/p' | head -n 1 >> "$target/floor/raw"
    done
    c=$(median < "$target/floor/c")
    raw=$(median < "$target/floor/raw")
    best_c=$(best < "$target/floor/c")
    best_raw=$(best < "$target/floor/raw")
    awk -v t="$floor" -v c="$c" -v r="$raw" -v bc="$best_c" -v br="$best_raw" \
        'BEGIN { printf "%-14s %12d %12d %8.2f %12.2f\n", t, c, r, r / c, br / bc }'
done
