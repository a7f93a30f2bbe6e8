#!/bin/sh
# Is `wadjet bench --raw` an honest floor? Builds a ping-pong in C (plain sockets, plain shared memory), runs it and the
# raw benchmark in turn, and prints the medians over the rounds, their ratio, and that of the best of each: on a machine that
# has other things to do the medians compare what it did meanwhile.
#
# `shm, loop` is C over shared memory and the raw benchmark in memory, added: what the way between two cores costs, and what
# everything around it does, where nothing crosses cores.
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

raw() {
    "$target/release/wadjet" bench --transport "$1" --raw --duration "$seconds" --cores "$list" --json - \
        2> "$target/floor/log" | sed -n 's/^ *"p50": *\([0-9]*\).*/\1/p' | head -n 1
}

row() {
    awk -v t="$1" -v c="$2" -v r="$3" -v bc="$4" -v br="$5" \
        'BEGIN { printf "%-14s %12d %12d %8.2f %12.2f\n", t, c, r, r / c, br / bc }'
}

printf '%-14s %12s %12s %8s %12s\n' floor 'C p50, ns' 'raw p50, ns' ratio 'of the best'
for floor in udp udp-connected shm; do
    : > "$target/floor/c"
    : > "$target/floor/raw"
    : > "$target/floor/memory"
    for _ in $(seq "$rounds"); do
        # shellcheck disable=SC2086
        "$target/floor/floor" "$floor" "$seconds" $cores | cut -d' ' -f1 >> "$target/floor/c"
        raw "${floor%-connected}" >> "$target/floor/raw"
        [ "$floor" != shm ] || raw memory >> "$target/floor/memory"
    done
    c=$(median < "$target/floor/c") raw=$(median < "$target/floor/raw")
    best_c=$(best < "$target/floor/c") best_raw=$(best < "$target/floor/raw")
    row "$floor" "$c" "$raw" "$best_c" "$best_raw"
done
memory=$(median < "$target/floor/memory") best_memory=$(best < "$target/floor/memory")
row 'shm, loop' $((c + memory)) "$raw" $((best_c + best_memory)) "$best_raw"
