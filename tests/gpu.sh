#!/usr/bin/env bash
# Every test and bench that needs a CUDA device, as one table: bash tests/gpu.sh
#
# Needs an NVIDIA driver with a device, and what building with `--features cuda` needs
# (benches/README.md). Ends with 1 if a test fails, with 2 if there is no device or no build.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

if ! command -v nvidia-smi >/dev/null || ! device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null) ||
    [ -z "$device" ]; then
    echo "error: no CUDA device: \`nvidia-smi\` finds none" >&2
    exit 2
fi
device=${device%%$'\n'*}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! cargo test --release --workspace --features cuda --test cuda --test gpu --no-run ||
    ! cargo bench --features cuda --bench gpu --no-run; then
    echo "error: this does not build with \`--features cuda\`" >&2
    exit 2
fi
cargo test --release --workspace --features cuda --test cuda --test gpu --no-fail-fast -- \
    --ignored --test-threads=1 2>&1 | tee "$log"

printf '\n%s, %s\n\n| test | result |\n|---|---|\n' "$device" "$(git rev-parse --short HEAD 2>/dev/null || echo 'no revision')"
sed -n 's/^test \([^ ]*\).* \.\.\. \(ok\|FAILED\)$/| `\1` | \2 |/p' "$log"
failed=$(grep -c '\.\.\. FAILED$' "$log")
passed=$(grep -c '\.\.\. ok$' "$log")
echo
cargo bench --features cuda --bench gpu 2>/dev/null || failed=$((failed + 1))
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
