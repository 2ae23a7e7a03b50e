#!/bin/bash
# What the training scripts share; called by them, not by hand:
#   run_train.sh FOLDER DEVICE_NUM EPOCH_SIZE LR DATASET [PRE_TRAINED PRE_TRAINED_EPOCH_SIZE]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
source "$here/common.sh"

stem=$1 count=$2 epochs=$3 lr=$4 dataset=$5
pre=()
if [ $# -eq 7 ]; then
    if [ ! -e "$6" ]; then
        echo "error: PRE_TRAINED: no file $6" >&2
        exit 1
    fi
    pre=(--pre_trained "$(realpath "$6")" --pre_trained_epoch_size "$7")
fi
target=$(device)
folder=$(free_folder "$stem")
echo "training on $count x $DEVICE_TARGET with $BACKEND; results and log are written to $folder"
read -r -a more <<< "${ARGS:-}"
set +e
"$PYTHON" -m ssd_nb.train --backend "$BACKEND" --device "$target" --device_num "$count" \
    --epoch_size "$epochs" --lr "$lr" --dataset "$dataset" "${pre[@]}" "${more[@]}" \
    --output_dir "$folder/run" > "$folder/log.txt" 2>&1 &
child=$!
trap 'kill -TERM "$child" 2> /dev/null' TERM INT
wait "$child"
status=$?
if kill -0 "$child" 2> /dev/null; then wait "$child"; status=$?; fi
grep -E 'error: |go on with: |results in |mAP: ' "$folder/log.txt" || tail -n 4 "$folder/log.txt"
exit "$status"
