#!/usr/bin/env bash
# Everything that needs a GPU, in one go and in under ten minutes; see run.py beside this file for the options.
#
#   bash benchmarks/gpu/run.sh                          # on a machine with a GPU
#   bash benchmarks/gpu/run.sh --device cpu --tiny      # the same work in small, anywhere: what CI runs
#
# It needs this repository and, where their packages are not installed, wheels in ./wheels (or $LIMBECK_WHEELS): torch for
# CUDA, onnxruntime-gpu and what pyproject.toml names. Nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheels=${LIMBECK_WHEELS:-wheels}
python=python3
if [[ -d $wheels ]]; then
  wheels=$(cd "$wheels" && pwd)
  python3 -m venv --system-site-packages "$work/venv"
  python=$work/venv/bin/python
  # each by itself: what the machine brings along, such as its own torch, need not be among them
  "$python" -m pip install --quiet --no-index --no-deps "$wheels"/*.whl
  set -- --wheels "$wheels" "$@"
fi
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
"$python" benchmarks/gpu/run.py --work "$work" "$@"
