#!/bin/sh
# Measures what docs/performance.md shows and makes its tables anew, on a machine that does nothing else: about five minutes.
#
#   bench/performance.sh      as root, if AF_XDP is to be measured too
set -eu
cd "$(dirname "$0")/.."
cargo build --release -p wadjet-tools
wadjet=target/release/wadjet
reports=docs/performance
mkdir -p "$reports"
"$wadjet" bench --json "$reports/1-transports.json"
for transport in shm udp; do
    "$wadjet" bench --transport "$transport" --open-loop --vs-raw --json "$reports/2-load-$transport.json"
done
"$wadjet" performance
