#!/bin/sh
# Builds the wheel and tries it as a user would: in a bare environment, away from the checkout.
# Usage: smoke.sh PYTHON-WITH-BUILD
set -eu
build_python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
checkout=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$build_python" -m build --wheel --outdir "$work/dist" "$checkout" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$work"/dist/*.whl
cp "$checkout/samples/digits_cnn.onnx" "$work/model.onnx"
cd "$work"
PATH="$work/venv/bin:$PATH"

cloakonnx --version
python -m cloakonnx --help >/dev/null
cloakonnx inspect model.onnx --json >inspect.json
python -c "
import json, numpy
tap = next(t for t in json.load(open('inspect.json'))['taps'] if t['default'])
mask = numpy.ones(tap['features'], 'float32')
mask[:3] = 0
numpy.save('mask.npy', mask)
open('tap', 'w').write(tap['name'])
"
cloakonnx apply model.onnx --mask mask.npy --tap "$(cat tap)"
cloakonnx verify model.hardened.onnx --source model.onnx
cloakonnx strip model.hardened.onnx
cmp model.onnx model.stripped.onnx
if cloakonnx apply missing.onnx 2>error; then echo "a missing file was accepted"; exit 1; fi
test "$(wc -l <error)" -eq 1
python -c "
import sys, cloakonnx
assert not {'onnx', 'onnxruntime'} & set(sys.modules), 'import cloakonnx is not light'
cloakonnx.load('model.onnx')
"
python -c "
from importlib.resources import files
folder = files('cloakonnx.reporting').joinpath('templates')
assert all(folder.joinpath(name).is_file() for name in ('report.html.j2', 'report.css', 'report.js'))
"
echo "smoke test passed"
