#!/bin/sh
# Measures what docs/performance.md shows, and makes its contract and docs/performance/tables.md anew, on a machine that does nothing else: about eight minutes.
#
#   bench/performance.sh      as root, if AF_XDP is to be measured too
set -eu
cd "$(dirname "$0")/.."
cargo build --release -p wadjet-tools
wadjet=target/release/wadjet
reports=docs/performance
mkdir -p "$reports"
"$wadjet" bench --json "$reports/1-transports.json"
for transport in memory shm udp; do
    "$wadjet" bench --transport "$transport" --open-loop --vs-raw --json "$reports/2-load-$transport.json"
done
# Curves: by size of a message, and by number of members (in memory one thread is all of them; elsewhere they share the cores).
for transport in shm udp; do
    "$wadjet" bench --transport "$transport" --pattern pingpong,stream --size 16,64,256,1024,1400 --vs-raw \
        --duration 1 --json "$reports/3-size-$transport.json"
done
for transport in memory shm; do
    "$wadjet" bench --transport "$transport" --pattern pingpong,all-to-all --members 2,3,4,6,8 --vs-raw \
        --duration 1 --json "$reports/4-members-$transport.json"
done
# What one order for all costs.
for transport in shm udp xdp; do
    "$wadjet" bench --transport "$transport" --order fifo,agreed,safe --pattern pingpong,stream,all-to-all --members 2,3 --vs-raw \
        --duration 1 --json "$reports/5-order-$transport.json"
done
"$wadjet" performance
