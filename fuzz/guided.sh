#!/usr/bin/env bash
# Fuzzes every target (or those named) with libFuzzer, guided by coverage, on the stable compiler.
#
#   fuzz/guided.sh SECONDS_PER_TARGET [TARGET...]
#
# Needs a C++ compiler (Debian: g++). There are no sanitizers on stable: what is caught is panics, failed assertions,
# time-outs and memory beyond 1 GiB. What is found lies in target/fuzz/findings; copy it to fuzz/regressions/TARGET/.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: fuzz/guided.sh SECONDS_PER_TARGET [TARGET...]}
shift

coverage="-C passes=sancov-module -C codegen-units=1 -C debug-assertions=on -C overflow-checks=on"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=" -C llvm-args=-sanitizer-coverage-$option"
done
host=$(rustc -vV | sed -n 's/^host: //p')
build() {
    # A target triple of its own keeps build scripts free of the instrumentation.
    CARGO_PROFILE_RELEASE_LTO=off RUSTFLAGS="$coverage" \
        cargo build --quiet --release --locked --target "$host" --target-dir target/fuzz -p wadjet-fuzz "$@"
}
build --features guided --bin guided
cargo build --quiet --locked -p wadjet-fuzz --bin fuzz

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(cargo run --quiet --locked -p wadjet-fuzz --bin fuzz -- list | cut -d' ' -f1)
fi

for target in "${targets[@]}"; do
    corpus=target/fuzz/corpus/$target findings=target/fuzz/findings/$target/
    mkdir -p "$corpus" "$findings"
    cargo run --quiet --locked -p wadjet-fuzz --bin fuzz -- seeds "$target" "$corpus" > /dev/null
    folders=("$corpus")
    [ -d "fuzz/regressions/$target" ] && folders+=("fuzz/regressions/$target")
    log=target/fuzz/$target.log
    if ! WADJET_FUZZ_TARGET=$target "target/fuzz/$host/release/guided" "${folders[@]}" \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 -seed=1 \
        -artifact_prefix="$findings" -print_final_stats=1 > "$log" 2>&1; then
        tail -n 40 "$log"
        echo "$target: broken; the input is in $findings"
        exit 1
    fi
    printf '%-16s %s inputs, coverage %s\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
        "$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)"
done
