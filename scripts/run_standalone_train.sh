#!/bin/bash
# Train on one device.
#
#   bash run_standalone_train.sh EPOCH_SIZE LR DATASET DEVICE_ID [PRE_TRAINED PRE_TRAINED_EPOCH_SIZE]
#
# Results are written to LOG/ in the current folder, or LOG-002, LOG-003 ... where LOG exists.
# Environment: DEVICE_TARGET GPU (default), Ascend or CPU; BACKEND torch (default) or mindspore;
# ARGS further flags of `python -m ssd_nb.train`, e.g. ARGS='--coco_root /data/coco2017'; PYTHON the interpreter.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh script`
set -euo pipefail

arguments="EPOCH_SIZE LR DATASET DEVICE_ID [PRE_TRAINED PRE_TRAINED_EPOCH_SIZE]"
if [ $# -ne 4 ] && [ $# -ne 6 ]; then
    echo "usage: bash run_standalone_train.sh $arguments" >&2
    exit 1
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DEVICE_ID=$4 CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-$4}
exec bash "$here/run_train.sh" LOG 1 "${@:1:3}" "${@:5}"
