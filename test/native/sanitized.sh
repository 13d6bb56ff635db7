#!/bin/sh
# Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer in a directory of its own and runs test/native on it.
#   test/native/sanitized.sh [vitest arguments]      needs root, g++ with its sanitizers, node-gyp's headers
# The build of the working tree stays as it is.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -R "$root/native" "$root/binding.gyp" "$root/package.json" "$work"
prefix=$(node -p "require('node:path').resolve(process.execPath, '../..')")
nodedir=
[ -f "$prefix/include/node/node_api.h" ] && nodedir="--nodedir=$prefix"
(cd "$work" && node "$root/node_modules/node-gyp/bin/node-gyp.js" --loglevel=warn $nodedir rebuild -- -Dsanitize=1)

# The runtimes come before everything else that the process loads. Leaks are not looked for: Node itself leaves memory at exit.
# Tools that the tests start run under them too, and iproute2 calls strncpy with overlapping ranges; the addon does not use it.
echo interceptor_name:strncpy >"$work/suppressions"
cd "$root"
FAKETCP_ADDON="$work/build/Release/faketcp.node" \
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
  ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:suppressions=$work/suppressions" UBSAN_OPTIONS=print_stacktrace=1 \
  node node_modules/vitest/vitest.mjs run test/native "$@"
