#!/bin/sh
# Make a Python environment of pinned packages: sh install.sh FOLDER PACKAGE...
# UV_OPTIONS goes to `uv pip install`. Versions are those of constraints.txt beside or above this file; a package that
# has none there must be given with its version.
set -eu

folder=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
constraints=$here/constraints.txt
[ -f "$constraints" ] || constraints=$here/../constraints.txt
for package in "$@"; do
    case $package in
    *==* | .*) ;;
    *) grep -q "^$package==" "$constraints" || { echo "install.sh: $package needs a version" >&2 && exit 1; } ;;
    esac
done
python3 -m venv --without-pip "$folder"
# shellcheck disable=SC2086
uv pip install ${UV_OPTIONS:-} --python "$folder/bin/python" --constraints "$constraints" "$@"
