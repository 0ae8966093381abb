#!/bin/sh
# Runs the tests in two halves side by side, which take as long as each other; the first one's output comes last.
#   sh tests/run.sh PYTHON
set -u
python=$1
first="tests/cli tests/docs tests/action tests/fixtures"
ignored="--ignore=tests/peers --ignore=tests/cluster --ignore=tests/browser"
for each in $first; do ignored="$ignored --ignore=$each"; done
log=$(mktemp)
"$python" -m pytest -q $first >"$log" 2>&1 &
child=$!
trap 'kill "$child" 2>/dev/null; cat "$log"; rm -f "$log"; exit 130' INT TERM
"$python" -m pytest -q tests $ignored
second=$?
wait "$child"
code=$?
cat "$log"
rm -f "$log"
[ "$code" -eq 0 ] && [ "$second" -eq 0 ]
