#!/usr/bin/env bash
# Run a command in a copy of this checkout as a newcomer's machine would run it:
#
#     tests/bare.sh make test
#
# The copy's path holds a space and a letter beyond ASCII, HOME is empty, the locale is C. The
# environment is installed from nothing; then the copy is read-only, and WordNet, Slurm, Node (HIDE
# names the programs) and GPUs are hidden. So a machine with leftovers cannot hide a missing install
# step. Hiding files needs root and Linux; elsewhere this says so and hides what it can.
# BARE names the folder to work in (a temporary one otherwise), which is kept if it is named and
# used as it is if it holds a copy.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
folder=${BARE:-$(mktemp -d)}
[ -n "${BARE:-}" ] || trap 'rm -rf "$folder"' EXIT
copy="$folder/vista für alle"
mkdir -p "$copy" "$folder/home" "$folder/caches" "$folder/tmp"
[ -e "$copy/Makefile" ] || (cd "$checkout" && git ls-files -z --cached --others --exclude-standard |
  xargs -0 cp --parents --no-dereference --preserve=mode,timestamps --target-directory="$copy")
export HOME="$folder/home" TMPDIR="$folder/tmp" LC_ALL=C CUDA_VISIBLE_DEVICES=
unset XDG_CACHE_HOME XDG_CONFIG_HOME PYTHONPATH VIRTUAL_ENV
cd "$copy"
make .venv/installed-dev
# What a read-only checkout cannot hold.
export RUFF_CACHE_DIR="$folder/caches/ruff" MYPY_CACHE_DIR="$folder/caches/mypy"
export HYPOTHESIS_STORAGE_DIRECTORY="$folder/caches/hypothesis"
export PYTEST_ADDOPTS="-p no:cacheprovider" PYTHONDONTWRITEBYTECODE=1
hide=$(cat <<'INSIDE'
set -euo pipefail
mount --bind . . && mount -o remount,ro,bind . && cd "$PWD"
mkdir -p "$HOME/empty"
[ ! -d /usr/share/wordnet ] || mount --bind "$HOME/empty" /usr/share/wordnet
for program in ${HIDE-slurmctld slurmd sbatch srun squeue munged node}; do
  for place in /usr/bin /usr/sbin /usr/local/bin; do
    [ ! -e "$place/$program" ] || mount --bind /dev/null "$(readlink -f "$place/$program")"
  done
done
exec "$@"
INSIDE
)
if [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
  unshare --mount bash -c "$hide" bash "$@"
else
  echo "Not root on Linux: WordNet, Slurm and Node stay visible."
  chmod -R a-w .
  status=0
  "$@" || status=$?
  chmod -R u+w .
  exit "$status"
fi
