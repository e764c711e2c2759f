#!/usr/bin/env bash
# Breaks the protocols one by one and demands that a loom model notices: the evidence that the models
# prove something. Each file in tests/mutants/ says what it changes:
#
#   file:  the source it changes          old:  text that is there once
#   model: models to run (part of name)   new:  what stands there instead (\n is a line break)
#
# `tests/mutants.sh TEXT` tries the mutants whose names contain TEXT.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r Cargo.toml README.md benches examples runtime tests "$scratch"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/mutants"

caught=0
survived=0
for mutant in tests/mutants/*"${1:-}"*.txt; do
    name=$(basename "$mutant" .txt)
    field() { sed -n "s/^$1: //p" "$mutant"; }
    file=$(field file)
    cp "$root/$file" "$scratch/$file"
    if ! OLD=$(field old) NEW=$(field new) perl -0pi -e '
        ($old, $new) = map { s/\\n/\n/gr } @ENV{qw(OLD NEW)};
        $count = () = /\Q$old\E/g;
        die "found $count times\n" if $count != 1;
        s/\Q$old\E/$new/;' "$scratch/$file"; then
        echo "STALE    $name: its text is not there once"
        survived=$((survived + 1))
        cp "$root/$file" "$scratch/$file"
        continue
    fi
    if output=$(bash "$scratch/tests/loom.sh" "$(field model)" 2>&1); then
        echo "SURVIVED $name"
        survived=$((survived + 1))
    elif grep -q '^FAILED: ' <<<"$output"; then
        echo "caught   $name by$(sed -n 's/^FAILED: .*::models::/ /p' <<<"$output" | tr -d '\n')"
        caught=$((caught + 1))
    else
        echo "BROKEN   $name does not compile"
        tail -n 15 <<<"$output"
        survived=$((survived + 1))
    fi
    cp "$root/$file" "$scratch/$file"
done
echo "$caught caught, $survived survived"
[ "$survived" = 0 ] && [ "$caught" != 0 ]
