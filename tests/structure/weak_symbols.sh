#!/bin/sh
# An inline function compiled with an instruction set's flags is a weak symbol, and the linker may
# pick it for code that runs on every CPU. So these objects must have none.
# Usage: weak_symbols.sh NM OBJECT...
set -eu
nm=$1
shift
[ $# -gt 0 ] || { echo "no objects given" >&2; exit 1; }
bad=0
for object in "$@"; do
  if ! symbols=$("$nm" -C "$object"); then
    echo "$object: nm failed" >&2
    exit 1
  fi
  if printf '%s\n' "$symbols" | grep -E ' [WVu] '; then
    echo "$object: weak symbols, see above" >&2
    bad=1
  fi
done
exit $bad
