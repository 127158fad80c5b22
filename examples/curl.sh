#!/bin/sh
# The whole way with curl alone: upload, submit, follow, download, check. Needs curl, sed, grep, tr and sha256sum.
#
#     sh examples/curl.sh MODEL ARCHITECTURE DATA [SPEC]
#
# SPEC is the job spec as JSON; by default a tenth of the weights in 4 bits. The service is ATMC_SERVER, its key, if it
# asks for one, ATMC_API_KEY. Puts model.atmc, model.onnx and report.json into this folder.
set -eu

model=$1 architecture=$2 data=$3
spec=${4:-'{"method": "atmc", "target": {"density": 0.1, "bits": 4}, "threat": {"norm": "linf", "epsilon": 0.1}}'}
server=${ATMC_SERVER:-http://127.0.0.1:8000}

# A refusal is printed, with what to do about it, and ends the script.
call() {
    path=$1
    shift
    if [ -n "${ATMC_API_KEY:-}" ]; then
        set -- -H "Authorization: Bearer $ATMC_API_KEY" "$@"
    fi
    answer=$(curl -sS --fail-with-body --retry 5 "$@" "$server$path") || {
        echo "$path: $answer" >&2
        exit 1
    }
    [ -z "$answer" ] || printf '%s\n' "$answer"
}

# The first text of this name in the JSON on standard input.
text() {
    grep -o "\"$1\": *\"[^\"]*\"" | sed -n '1s/.*: *"\(.*\)"/\1/p'
}

# One text of an answer. A pipe would hide that the call before it was refused.
ask() {
    wanted=$1
    shift
    said=$(call "$@") || exit 1
    printf '%s\n' "$said" | text "$wanted"
}

model_id=$(ask id /models -F "file=@$model" -F "architecture=$architecture")
dataset_id=$(ask id /datasets -F "file=@$data")

# A request with the same key is answered as the first was: one that is sent twice makes one job.
key=$(printf '%s' "$model_id $dataset_id $spec" | sha256sum | cut -c1-32)
body="{\"model_id\": \"$model_id\", \"dataset_id\": \"$dataset_id\", ${spec#?}"
job=$(ask id /jobs -H 'Content-Type: application/json' -H "Idempotency-Key: $key" -d "$body")
echo "$job"

state=queued
while :; do
    case $state in
        succeeded) break ;;
        failed | cancelled)
            call "/jobs/$job" >&2
            exit 1
            ;;
    esac
    # Answered when the state changes, or after half a minute.
    state=$(ask state "/jobs/$job?wait=30")
    echo "$job: $state"
done

artifacts=$(call "/jobs/$job/artifacts")
artifacts=$(printf '%s\n' "$artifacts" | tr '{' '\n')
for name in model.atmc model.onnx report.json; do
    # The store's own address, if it has one, is followed; the key does not go there.
    call "/jobs/$job/artifacts/$name" -L -o "$name.part"
    sha256=$(printf '%s\n' "$artifacts" | grep "\"name\": *\"$name\"" | text sha256)
    echo "$sha256  $name.part" | sha256sum -c --quiet -
    mv "$name.part" "$name"
    echo "$name: $sha256"
done
