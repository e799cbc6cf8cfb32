#!/bin/sh
# Unpacks Debian's arm64 libraries that crumb links into build/aarch64-root, for the aarch64 preset and
# qemu. Nothing is installed: apt works on lists of its own. Needs the host to be Debian.
set -eu
cd "$(dirname "$0")/.."
root=$PWD/build/aarch64-root
[ -e "$root/done" ] && exit 0

packages="libfmt-dev libfmt9 libhwloc-dev libhwloc15 libpng-dev libpng16-16 libjpeg62-turbo-dev libjpeg62-turbo zlib1g-dev zlib1g libsentencepiece-dev libsentencepiece0 libxxhash-dev libxxhash0 libedit-dev libedit2 libbsd0 libboost1.81-dev libtomlplusplus-dev libtomlplusplus3
  libbsd-dev libmd0 libmd-dev libtinfo6 libncurses-dev libudev1 nlohmann-json3-dev libcli11-dev"
mkdir -p "$root/apt/state/lists/partial" "$root/apt/cache/archives/partial" "$root/debs"
: >"$root/apt/status"
apt() {
  apt-get -qq -o Dir::State="$root/apt/state" -o Dir::State::status="$root/apt/status" \
    -o Dir::Cache="$root/apt/cache" -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
    -o APT::Sandbox::User=root "$@"
}
apt update
(cd "$root/debs" && apt download $packages)
for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
rm -rf "$root/apt" "$root/debs"
: >"$root/done"
