#!/usr/bin/env bash
# Runs every loom model, each in a process of its own (a model that fails may abort), and prints how
# many executions each explored. `tests/loom.sh TEXT` runs the models whose names contain TEXT.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=0 RUSTFLAGS="--cfg loom -C debug-assertions"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"

program=$(cargo test --release --lib --no-run 2>&1 | tee /dev/stderr |
    sed -n 's/.*Executable.*(\(.*\))$/\1/p')
models=$("$program" --list 2>/dev/null | sed -n 's/^\(.*models::.*\): test$/\1/p')
[ -n "$models" ] || { echo "there are no models"; exit 1; }

passed=0
failed=0
for model in $models; do
    case "$model" in *"${1:-}"*) ;; *) continue ;; esac
    if output=$("$program" --exact "$model" --nocapture 2>&1); then
        passed=$((passed + 1))
        grep '^model ' <<<"$output" || { echo "$model explored nothing"; failed=$((failed + 1)); }
    else
        failed=$((failed + 1))
        echo "FAILED: $model"
        tail -n 20 <<<"$output"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
