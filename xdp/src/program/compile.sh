#!/usr/bin/env bash
# Compiles the XDP program. With --check it compiles it elsewhere and says whether the committed object agrees.
#
# Needs clang and llvm-strip (Debian: clang, llvm, libbpf-dev). Compilers of different versions make different code:
# the committed object is that of the version named below, and only that one can be asked whether it agrees.
set -euo pipefail
cd "$(dirname "$0")"
version=14

compile() {
    # Paths are relative, so that the object is the same wherever it is made. Kernel headers lie by architecture.
    clang -O2 -g -Wall -Werror -target bpf -mcpu=v3 -I"/usr/include/$(uname -m)-linux-gnu" \
        -fdebug-compilation-dir=. -c steer.bpf.c -o "$1"
    llvm-strip -g "$1"
}

if [ "${1-}" != --check ]; then
    compile steer.bpf.o
    exit
fi
found=$(clang -dumpversion | cut -d. -f1)
if [ "$found" != "$version" ]; then
    echo "clang $found cannot say whether steer.bpf.o agrees with its source: it was made by clang $version"
    exit
fi
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
compile "$fresh"
cmp "$fresh" steer.bpf.o || { echo "steer.bpf.o is not made of steer.bpf.c: run xdp/src/program/compile.sh"; exit 1; }
