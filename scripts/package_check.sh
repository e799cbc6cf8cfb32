#!/bin/sh
# Builds the Debian packages and uses them as a stranger would: package_check.sh [WORK_DIR]
# Needs root (chroot) and the network for pip and debootstrap; takes as long as a build of everything, and a few
# minutes. Prints sizes and times; the last line is "packages: good".
#   1 the .deb files, and that the stripped program is at most 6 MB
#   2 dpkg -i in a clean Debian (debootstrap --variant=minbase), `crumb run` there, dpkg -r
#   3 in a second clean root: find_package(crumb) and pkg-config samples in C
#   4 pip builds a wheel; a fresh venv installs it and runs apps/python/examples/sample.py
set -eu
cd "$(dirname "$0")/.."
source=$PWD
work=$(realpath -m "${1:-build/package-check}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
limit=6000000
model=$source/models/default/SmolLM2-135M-Instruct.int2.crumb
started=$(date +%s)
say() { echo "== $* ($(($(date +%s) - started)) s)"; }

[ "$(id -u)" -eq 0 ] || { echo "package_check.sh: needs root for chroot" >&2; exit 2; }
sh scripts/packages.sh -y build test package
sh scripts/build.sh package >build/package.log 2>&1 || { tail -n 40 build/package.log >&2; exit 1; }
rm -rf "$work"
mkdir -p "$work/deb"
say "built"

(cd build/package && cpack -B "$work/deb" >"$work/cpack.log" 2>&1) || { cat "$work/cpack.log" >&2; exit 1; }
for deb in "$work"/deb/*.deb; do echo "$(basename "$deb"): $(stat -c %s "$deb") bytes, needs $(dpkg-deb -f "$deb" Depends)"; done
dpkg-deb -x "$work"/deb/crumb_*.deb "$work/unpacked"
bytes=$(stat -c %s "$work/unpacked/usr/bin/crumb")
echo "usr/bin/crumb: $bytes bytes stripped (at most $limit)"
[ "$bytes" -le $limit ] || { echo "package_check.sh: the program is too large" >&2; exit 1; }
exported=$(nm -D --defined-only "$work"/unpacked/usr/lib/*/libcrumb.so.0 | grep -v ' crumb_\| A CRUMB_0' || true)
[ -z "$exported" ] || { echo "package_check.sh: libcrumb exports more than crumb_*: $exported" >&2; exit 1; }
say "packages"

debootstrap --variant=minbase --include=libopenblas0-pthread bookworm "$work/root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
  { tail "$work/debootstrap.log" >&2; exit 1; }
cp "$work"/deb/*.deb "$work/root/tmp/"
inside() { chroot "$work/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
say "a clean Debian"
inside sh -c 'apt-get install -y -qq --no-install-recommends $(dpkg-deb -f /tmp/crumb_*.deb Depends |
  sed "s/([^)]*)//g; s/|[^,]*//g; s/,/ /g")' >"$work/apt.log" 2>&1 || { tail "$work/apt.log" >&2; exit 1; }
inside sh -c 'dpkg -i /tmp/crumb_*.deb /tmp/crumb-model_*.deb' >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; exit 1; }
inside crumb version
answer=$(inside crumb run --temp 0 -n 16 -q --no-pin "What is the capital of France?")
echo "crumb run: $answer"
[ -n "$answer" ] || exit 1
say "installed and answered"

inside sh -c 'apt-get install -y -qq --no-install-recommends gcc libc6-dev cmake make pkg-config' >"$work/apt.log" 2>&1 ||
  { tail "$work/apt.log" >&2; exit 1; }
inside sh -c 'dpkg -i /tmp/crumb-dev_*.deb' >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; exit 1; }
cp -r apps/packaging/sample "$work/root/tmp/sample"
example=/usr/share/doc/crumb-dev/examples/chat.c
installed=/usr/share/crumb/models/$(basename "$model")
inside sh -ec "cmake -S /tmp/sample -B /tmp/sample/build -DEXAMPLE=$example && cmake --build /tmp/sample/build" >"$work/sample.log" 2>&1 ||
  { cat "$work/sample.log" >&2; exit 1; }
echo "find_package: $(inside /tmp/sample/build/chat $installed 'What is the capital of France?' 2>/dev/null)"
inside sh -ec "gcc -std=c99 -Wall -Werror $example \$(pkg-config --cflags --libs crumb) -o /tmp/chat" || exit 1
echo "pkg-config: $(inside /tmp/chat $installed 'What is the capital of France?' 2>/dev/null)"
inside dpkg -r crumb-dev crumb-model crumb >/dev/null
say "samples in C"

python3 -m venv "$work/venv"
if command -v ccache >/dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=ccache; fi
"$work/venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps -w "$work" apps/python
ls -l "$work"/*.whl | awk '{print $NF ": " $5 " bytes"}'
python3 -m venv "$work/fresh"
"$work/fresh/bin/pip" install --quiet --disable-pip-version-check --no-index "$work"/*.whl
(cd "$work" && "$work/fresh/bin/python" "$source/apps/python/examples/sample.py" "$model")
say "the wheel"
echo "packages: good"
