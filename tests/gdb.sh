#!/usr/bin/env bash
# Stops a program inside a green thread and demands that gdb's backtrace shows the green thread's own
# frames: the example's function, and below it the bottom frame of every green thread.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --example quickstart
trace=$(gdb --batch --nx \
    --eval-command "set debuginfod enabled off" \
    --eval-command "break quickstart::play" \
    --eval-command "run" \
    --eval-command "backtrace" \
    --eval-command "kill" \
    "${CARGO_TARGET_DIR:-target}/debug/examples/quickstart" 2>&1)
for frame in "quickstart::play" "green_main"; do
    grep -q "^#.*$frame" <<<"$trace" || { printf '%s\nno frame of %s\n' "$trace" "$frame"; exit 1; }
done
echo "gdb sees quickstart::play and green_main"
