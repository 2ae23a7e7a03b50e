#!/bin/bash
# Fetch COCO2017 (20 GB, and as much again while it is unpacked) into the folders that training expects.
#
#   bash download_coco.sh FOLDER
#
# FOLDER then holds annotations/, train2017/ and val2017/. Started again after an interruption, it goes on where it
# stood. Environment: COCO_URL another server with the same files; COCO_FILES another list of size, MD5 sum, path on
# the server and folder in it; KEEP_ZIP=1 leaves the archives there.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh script`
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: bash download_coco.sh FOLDER" >&2
    exit 1
fi
url=${COCO_URL:-http://images.cocodataset.org}
files=${COCO_FILES:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/coco2017.txt}
for tool in curl unzip md5sum; do
    if ! command -v "$tool" > /dev/null; then
        echo "error: $tool is missing; install it and try again" >&2
        exit 1
    fi
done

size_of() { stat -c %s "$1" 2> /dev/null || echo 0; }

# Bring one archive, or the rest of it, and compare its size and sum.
fetch() {
    local size=$1 sum=$2 path=$3 zip=$4
    if [ "$(size_of "$zip")" -lt "$size" ]; then
        if ! curl --fail --location --retry 5 --continue-at - --output "$zip" "$url/$path"; then
            echo "error: $url/$path cannot be fetched to the end; the same command goes on where it stood" >&2
            return 1
        fi
    fi
    if [ "$(size_of "$zip")" -ne "$size" ]; then
        echo "error: $zip has $(size_of "$zip") bytes instead of $size; delete it and try again" >&2
        return 1
    fi
    if ! echo "$sum  $zip" | md5sum --check --status; then
        echo "error: $zip is not the published file (its MD5 sum is not $sum); delete it and try again" >&2
        return 1
    fi
}

mkdir -p "$1"
cd "$1"
while read -r size sum path folder; do
    if [ -d "$folder" ]; then
        echo "$folder is there"
        continue
    fi
    zip=$(basename "$path")
    fetch "$size" "$sum" "$path" "$zip"
    rm -rf unpacking
    unzip -q "$zip" -d unpacking
    mv "unpacking/$folder" "$folder"
    rm -rf unpacking
    [ -n "${KEEP_ZIP:-}" ] || rm "$zip"
    echo "$folder is ready"
done < "$files"
echo "now train: python -m ssd_nb.train --coco_root $(pwd) --on_bad_data skip"
