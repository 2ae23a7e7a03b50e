#!/bin/bash
# Train on several GPUs of this machine; positional arguments as in the reference.
#
#   bash run_distribute_train_gpu.sh DEVICE_NUM EPOCH_SIZE LR DATASET [PRE_TRAINED PRE_TRAINED_EPOCH_SIZE]
#
# Results are written to LOG/ in the current folder, or LOG-002, LOG-003 ... where LOG exists.
# Environment: DEVICE_TARGET GPU (default) or CPU; BACKEND torch (default) or mindspore;
# ARGS further flags of `python -m ssd_nb.train`, e.g. ARGS='--coco_root /data/coco2017'; PYTHON the interpreter.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh script`
set -euo pipefail

arguments="DEVICE_NUM EPOCH_SIZE LR DATASET [PRE_TRAINED PRE_TRAINED_EPOCH_SIZE]"
if [ $# -ne 4 ] && [ $# -ne 6 ]; then
    echo "usage: bash run_distribute_train_gpu.sh $arguments" >&2
    exit 1
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$here/run_train.sh" LOG "$@"
