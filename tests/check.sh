#!/usr/bin/env bash
# Everything that must hold: format, lints, documentation, tests (debug and release, one and more
# workers, forced migration), examples, loom models, the fuzz target, and the tools that look at a running
# program (valgrind, gdb). Installs what it needs, but for Rust itself. No check is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*"; }

need=()
for tool in valgrind gdb gcc; do
    command -v "$tool" >/dev/null || need+=("$tool")
done
if [ ${#need[@]} -gt 0 ]; then
    step "install ${need[*]}"
    apt-get update -q >/dev/null
    apt-get install -y -q "${need[@]}" >/dev/null
fi
cargo +nightly --version >/dev/null || { echo "cargo-fuzz wants a nightly toolchain"; exit 1; }
if ! cargo fuzz --version >/dev/null 2>&1; then
    step "install cargo-fuzz"
    cargo install --quiet --locked cargo-fuzz
fi

step "format"
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
step "lints"
cargo clippy --quiet --all-targets -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
step "tests, debug"
cargo test --quiet
step "tests, release, and the examples"
cargo test --quiet --release --lib --tests --examples
step "tests, release, every wake-up migrates"
SWARD_FORCE_MIGRATION=1 cargo test --quiet --release --tests
step "tests, release, one worker by default"
SWARD_WORKERS=1 cargo test --quiet --release --tests
step "tests, release, eight workers as well"
SWARD_WORKERS=8 SWARD_TEST_WORKERS=8 cargo test --quiet --release --tests
step "loom models"
bash tests/loom.sh
step "fuzz target"
cargo +nightly fuzz build
step "the main job: 2,000 downloads on two workers"
cargo run --quiet --release --example crawler
step "valgrind, which has no instruction for the thread pointer"
cargo build --quiet --release --example quickstart
valgrind --quiet --tool=none --error-exitcode=1 "${CARGO_TARGET_DIR:-target}"/release/examples/quickstart
step "gdb shows a green thread's frames"
bash tests/gdb.sh
step "all checks passed"
