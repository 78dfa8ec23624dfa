#!/usr/bin/env bash
# Build the package, install its wheel with all dependencies into an empty environment, and run the
# smoke config in a folder of `vista init`, as a user who has no checkout. Tells how long each step
# takes. PYTHON and TORCH_INDEX as in the Makefile.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH VIRTUAL_ENV
step() {  # NAME COMMAND...
  local start=$SECONDS
  "${@:2}"
  echo "$1: $((SECONDS - start)) s"
}
install() { "$folder/environment/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"; }

mkdir "$folder/checkout"
git ls-files -z --cached --others --exclude-standard |
  xargs -0 cp --parents --no-dereference --target-directory="$folder/checkout"
step "environment" "${PYTHON:-python3}" -m venv "$folder/environment"
step "wheel" install wheel --no-deps --wheel-dir "$folder" "$folder/checkout"
step "torch" install install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"
step "package" install install --constraint constraints.txt "$folder"/vista_saes-*.whl
export PATH="$folder/environment/bin:$PATH"
cd "$folder"
vista init project --config smoke
cd project
step "run" snakemake --cores 2 --quiet all
vista summary config/config.yaml >/dev/null
# A user's Python, in a user's folder: nothing came from the checkout.
python -c 'import sys, vista; assert vista.__file__.startswith(sys.prefix), vista.__file__'
