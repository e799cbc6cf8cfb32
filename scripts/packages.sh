#!/bin/sh
# Installs the Debian packages that are missing: packages.sh [-y] build|test|check|package|arm ...
# Asks before it installs unless it runs as root or with -y. Says nothing when nothing is missing.
set -eu

build="g++ make cmake pkg-config git ca-certificates nlohmann-json3-dev libhwloc-dev libpng-dev libjpeg62-turbo-dev libsentencepiece-dev libxxhash-dev libfmt-dev libcli11-dev libtomlplusplus-dev libedit-dev libboost1.81-dev libopenblas0-pthread python3 python3-pip"
test="libgtest-dev libgmock-dev libbenchmark-dev coinor-libcbc-dev python3-venv tmux strace"
check="clang-format-14 ccache clang-14 libclang-rt-14-dev"
package="debootstrap dpkg-dev file python3-dev"
arm="g++-aarch64-linux-gnu qemu-user-static googletest"

assume_yes=0
wanted=""
for argument in "$@"; do
  case "$argument" in
    -y) assume_yes=1 ;;
    build) wanted="$wanted $build" ;;
    test) wanted="$wanted $test" ;;
    check) wanted="$wanted $check" ;;
    package) wanted="$wanted $package" ;;
    arm) wanted="$wanted $arm" ;;
    *) echo "packages.sh: unknown argument '$argument' (expected -y, build, test, check, package, arm)" >&2; exit 2 ;;
  esac
done

command -v dpkg-query >/dev/null || {
  echo "packages.sh: this is not a Debian system; please install: $wanted" >&2
  exit 0
}
missing=""
for package in $wanted; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

become=""
if [ "$(id -u)" -ne 0 ]; then
  become=sudo
  command -v sudo >/dev/null || { echo "missing packages, and no sudo to install them:$missing" >&2; exit 1; }
  if [ $assume_yes -eq 0 ] && [ -t 0 ]; then
    printf 'Install with apt-get:%s ? [Y/n] ' "$missing" >&2
    read -r answer
    case "$answer" in [nN]*) echo "not installed; the build will fail" >&2; exit 1 ;; esac
  fi
fi
echo "installing:$missing" >&2
$become apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive $become apt-get install -y -qq --no-install-recommends $missing >&2
