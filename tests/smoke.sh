#!/bin/sh
# Builds the wheel and tries it as a user would: in bare environments, away from the checkout. README's blocks are pasted
# from top to bottom; the second environment is made by the lines of docs/installing.md for the CPU package.
# Usage: smoke.sh PYTHON-WITH-BUILD
set -eu
build_python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
checkout=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH

"$build_python" -m build --wheel --outdir "$work/dist" "$checkout" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
(cd "$checkout" && "$build_python" -m tests.docs.pages README.md) >"$work/readme.sh"
(cd "$checkout" && "$build_python" -c "from tests.docs.test_blocks import CPU_ONLY; print(CPU_ONLY)") >"$work/cpu-only.sh"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "$work"/dist/*.whl
cp "$checkout/samples/digits_cnn.onnx" "$work/model.onnx"
cd "$work"
bare=$PATH
PATH="$work/venv/bin:$bare"

pip check
cloakonnx --version
python -m cloakonnx --help >/dev/null
cloakonnx doctor
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
mkdir pasted
(cd pasted && sh -eu ../readme.sh) || { echo "a line of README.md fails"; exit 1; }
test -s pasted/cloakonnx-demo/model-hardened/report.html

"${PYTHON:-python3}" -m venv "$work/cpu"
PATH="$work/cpu/bin:$bare"
PIP_QUIET=1 sh -eu cpu-only.sh
pip install --quiet --no-deps "$work"/dist/*.whl
mkdir small
cd small
cloakonnx doctor
cloakonnx demo
cmp cloakonnx-demo/model-hardened/hardened.onnx ../pasted/cloakonnx-demo/model-hardened/hardened.onnx ||
  echo "the CPU package gives other masks than onnxruntime-gpu here"
echo "smoke test passed"
