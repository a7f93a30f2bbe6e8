#!/usr/bin/env bash
# Compiles the XDP program. With --check it compiles it elsewhere and says whether the committed object agrees.
#
# Needs clang and llvm-strip of the version named below (Debian: clang-14, llvm-14, libbpf-dev). Compilers of different
# versions make different code, so only that one makes the object and can be asked whether it agrees: any other is an
# error, not a check that passes. CLANG and LLVM_STRIP name other commands for the two.
set -euo pipefail
cd "$(dirname "$0")"
version=14

# The command of the pinned version, by its full name or by that of the default.
pinned() {
    if command -v "$1-$version" > /dev/null; then echo "$1-$version"; else echo "$1"; fi
}
clang=${CLANG:-$(pinned clang)}
strip=${LLVM_STRIP:-$(pinned llvm-strip)}
found=$("$clang" -dumpversion 2> /dev/null | cut -d. -f1) || true
if [ "$found" != "$version" ]; then
    echo "steer.bpf.o is made and compared by clang $version, and \`$clang\` is ${found:-not there}: install clang-$version" \
        "and llvm-$version, or move the pin in compile.sh and commit the object that the new version makes" >&2
    exit 1
fi

compile() {
    # Paths are relative, so that the object is the same wherever it is made. Kernel headers lie by architecture.
    "$clang" -O2 -g -Wall -Werror -target bpf -mcpu=v3 -I"/usr/include/$(uname -m)-linux-gnu" \
        -fdebug-compilation-dir=. -c steer.bpf.c -o "$1"
    "$strip" -g "$1"
}

if [ "${1-}" != --check ]; then
    compile steer.bpf.o
    exit
fi
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
compile "$fresh"
cmp "$fresh" steer.bpf.o || { echo "steer.bpf.o is not made of steer.bpf.c: run xdp/src/program/compile.sh"; exit 1; }
