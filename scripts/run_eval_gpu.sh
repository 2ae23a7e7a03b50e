#!/bin/bash
# Evaluate a checkpoint on a GPU; positional arguments as in the reference.
#
#   bash run_eval_gpu.sh DATASET CHECKPOINT_PATH DEVICE_ID
#
# Results are written to eval<DEVICE_ID>/ in the current folder, or eval<DEVICE_ID>-002 ... where that exists.
# Environment: DEVICE_TARGET GPU (default), Ascend or CPU; BACKEND torch (default) or mindspore;
# ARGS further flags of `python -m ssd_nb.eval`, e.g. ARGS='--coco_root /data/coco2017'; PYTHON the interpreter.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh script`
set -euo pipefail

if [ $# -ne 3 ]; then
    echo "usage: bash $(basename "${RUN_AS:-$0}") DATASET CHECKPOINT_PATH DEVICE_ID" >&2
    exit 1
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
source "$here/common.sh"

if [ ! -e "$2" ]; then
    echo "error: CHECKPOINT_PATH: no file $2" >&2
    exit 1
fi
checkpoint=$(realpath "$2")
export DEVICE_ID=$3 CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-$3}
target=$(device)
folder=$(free_folder "eval$3")
echo "evaluating with $BACKEND on $DEVICE_TARGET; results and log are written to $folder"
read -r -a more <<< "${ARGS:-}"
status=0
"$PYTHON" -m ssd_nb.eval --backend "$BACKEND" --device "$target" --dataset "$1" --checkpoint_path "$checkpoint" \
    "${more[@]}" --output_dir "$folder/results" > "$folder/log.txt" 2>&1 || status=$?
tail -n 16 "$folder/log.txt"
exit "$status"
