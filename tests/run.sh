#!/usr/bin/env bash
# Every check of the project, from a fresh clone: bash tests/run.sh
#
# Installs what is missing (Debian, as root) of a C and C++ compiler; cmake, BLAS and LAPACK for the
# feature `faiss`; the headers of ALSA, and a sound server that stands in for a microphone, for the
# feature `microphone`; and the formatter and linter of the Rust toolchain. Rust itself must be
# there. Everything is built in the release profile,
# so that steps share what they build. The first step that fails ends the run. The last line is
# `N passed, N failed`: the tests that cargo counted; another step that fails counts as one.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

passed=0
failed=0

finish() {
    echo "$passed passed, $failed failed"
    exit $((failed > 0))
}

# step NAME COMMAND...
step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    if ! "$@"; then
        printf '== %s: FAILED after %d s\n' "$name" $((SECONDS - start))
        ((failed > 0)) || failed=1
        finish
    fi
    printf '== %s: done in %d s\n' "$name" $((SECONDS - start))
}

has() {
    command -v "$1" >/dev/null
}

# Whether programs can be linked with BLAS and LAPACK.
has_blas() {
    local program status
    program=$(mktemp)
    echo 'int main(void) { return 0; }' | cc -x c - -o "$program" -lblas -llapack 2>/dev/null
    status=$?
    rm -f "$program"
    return "$status"
}

compilers() {
    local packages=()
    has cc && has c++ || packages+=(build-essential)
    has cmake && has_blas || packages+=(cmake libopenblas-dev)
    has pkg-config && pkg-config --exists alsa || packages+=(pkg-config libasound2-dev)
    has pulseaudio && has paplay || packages+=(pulseaudio pulseaudio-utils libasound2-plugins)
    if ((${#packages[@]} == 0)); then
        return
    fi
    if ! has apt-get || [ "$(id -u)" != 0 ]; then
        echo "error: something is missing; as root on Debian: apt-get install ${packages[*]}"
        return 1
    fi
    echo "installing ${packages[*]} with apt-get"
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
}

# A microphone that is a sound server's null sink: heard, unplugged and heard again.
microphone() {
    cargo test --release --features full --test cli -- --ignored device::
}

rust() {
    if ! has cargo; then
        echo "error: cargo is not there; install Rust 1.89 or newer, as https://rustup.rs says"
        return 1
    fi
    cargo --version || return
    local component
    for component in fmt clippy; do
        cargo "$component" --version && continue
        if ! has rustup; then
            echo "error: cargo $component is not there; install it with your Rust"
            return 1
        fi
        echo "installing cargo $component with rustup"
        rustup component add "${component/fmt/rustfmt}" || return
    done
}

# The fuzz targets are a workspace of their own.
formatting() {
    cargo fmt --all --check && cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
}

tests() {
    local log status counts
    log=$(mktemp)
    cargo test --release --workspace --features full --no-fail-fast 2>&1 | tee "$log"
    status=$?
    counts=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' "$log" |
        awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }')
    rm -f "$log"
    read -r passed failed <<<"$counts"
    if ((passed == 0)); then
        echo "error: no test was run"
        return 1
    fi
    return "$status"
}

# Kernels and layers again with the instructions of lesser CPUs; a level above this CPU's own is its own.
instruction_sets() {
    local isa
    for isa in portable avx2 avx512; do
        echo "ASR_ISA=$isa"
        ASR_ISA=$isa cargo test --release --workspace --features full --lib -q || return
    done
}

# The larger reference cases, where their folder is at hand: ASR_GOLDEN names it.
references() {
    if [ ! -d "${ASR_GOLDEN:-}" ]; then
        echo "skipped: no folder of reference cases (ASR_GOLDEN names one)"
        return
    fi
    ASR_GOLDEN=$(cd "$ASR_GOLDEN" && pwd) cargo test --release --workspace --features full --test golden -- --ignored
}

# Streams of many minutes made of clips, where a folder of them is at hand: ASR_CLIPS names it.
clips() {
    if [ ! -d "${ASR_CLIPS:-}" ]; then
        echo "skipped: no folder of clips (ASR_CLIPS names one)"
        return
    fi
    ASR_CLIPS=$(cd "$ASR_CLIPS" && pwd) cargo test --release --workspace --all-features --test property -- --ignored --nocapture
}

# The binary of the step before, which has no features, says what it lacks.
without_microphones() {
    local said
    said=$(cargo run --release -- listen 2>&1) && return 1
    grep -qF 'built without `microphone`; rebuild with `--features microphone`' <<<"$said"
}

# The first command of README.md, as it stands there, writes text for each clip.
readme() {
    local command='cargo run --release -- transcribe examples/audio' line clips output lines
    for line in "$command" 'bash tests/run.sh'; do
        if ! grep -qxF "$line" README.md; then
            echo "error: README.md has no line \`$line\`"
            return 1
        fi
    done
    clips=$(find examples/audio -type f ! -name '*.md' ! -name '*.txt' | wc -l)
    output=$(bash -c "$command") || return
    printf '%s\n' "$output"
    lines=$(grep -cE '^[^ ]+: \[[a-z]{3}\] [^ ]' <<<"$output")
    if [ "$lines" != "$clips" ] || [ "$clips" = 0 ]; then
        echo "error: $lines of $clips clips in examples/audio came out as \`NAME: [LANGUAGE] TEXT\`"
        return 1
    fi
}

step compilers compilers
step rust rust
step formatting formatting
step lints cargo clippy --release --workspace --all-targets --features full -- -D warnings
step tests tests
step "instruction sets" instruction_sets
step "larger references" references
step clips clips
step microphone microphone
step documentation env RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --features full --no-deps --document-private-items
step benches cargo bench --workspace --features full --no-run
step "fuzz targets" cargo check --release --target-dir target --manifest-path tests/fuzz/Cargo.toml
step "README" readme
step "without microphones" without_microphones
finish
