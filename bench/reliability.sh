#!/bin/sh
# Measures what docs/reliability.md shows, and makes it anew. An hour and a quarter; each part takes what is said, on a machine that does nothing else.
#
#   bench/reliability.sh                       as root, for the network between hosts and AF_XDP
#   bench/reliability.sh failures quiet        some parts of it
set -eu
cd "$(dirname "$0")/.."
cargo build --release -p wadjet-tools
wadjet=target/release/wadjet
reports=docs/reliability
replicated=XFER:SAFE:TOTAL:EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK
sequenced=XFER:SEQUENCER:EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM

# Twenty minutes.
failures() {
    for transport in shm udp uring xdp; do
        for fault in kill stop; do
            for load in idle full; do
                "$wadjet" bench --failure $fault --load $load --transport $transport --members 3 --faults 100 \
                    --json "$reports/failure-$transport-$fault-$load.json"
            done
        done
    done
    "$wadjet" bench --failure partition --transport udp --members 3 --faults 50 --json "$reports/failure-udp-partition-idle.json"
    for transport in shm udp; do
        "$wadjet" bench --failure join --transport $transport --members 10 --json "$reports/join-$transport.json"
    done
}

# Twenty minutes.
quiet() {
    for transport in shm udp; do
        "$wadjet" bench --failure none --transport $transport --members 3 --load full --duration 600 \
            --json "$reports/none-$transport-full.json"
    done
}

# A quarter of an hour.
chaos() {
    "$wadjet" chaos --transport shm --kills 200 --stops 200 --seed 62 --json "$reports/chaos-shm.json"
    "$wadjet" chaos --transport shm --stack $replicated:COM --kills 200 --stops 200 --seed 63 --json "$reports/chaos-replicated-shm.json"
    "$wadjet" chaos --transport udp --kills 200 --stops 200 --partitions 100 --losses 50 --seed 64 --json "$reports/chaos-udp.json"
    "$wadjet" chaos --transport udp --stack $replicated:CHKSUM:COM --kills 200 --stops 200 --partitions 100 --losses 50 --seed 65 \
        --json "$reports/chaos-replicated-udp.json"
    "$wadjet" chaos --transport udp --stack $sequenced --kills 100 --stops 100 --partitions 50 --losses 25 --seed 66 \
        --json "$reports/chaos-sequencer-udp.json"
    for transport in uring xdp; do
        "$wadjet" chaos --transport $transport --stack $replicated:CHKSUM:COM --kills 30 --stops 30 --partitions 20 --losses 10 --seed 67 \
            --json "$reports/chaos-replicated-$transport.json"
    done
}

# A quarter of an hour.
seeds() {
    for scenario in views order; do
        "$wadjet" sim --scenario $scenario --seeds 0..20000 --check once --json >"$reports/seeds-$scenario.json"
    done
    "$wadjet" sim --seeds 0..20000 --check once --json >"$reports/seeds-swarm.json"
}

for part in ${*:-failures quiet chaos seeds}; do
    $part
done
"$wadjet" reliability
# The contract has a row for each failure.
"$wadjet" performance
