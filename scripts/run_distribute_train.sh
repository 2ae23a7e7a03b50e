#!/bin/bash
# Train on several devices of this machine; positional arguments as in the reference.
#
#   bash run_distribute_train.sh DEVICE_NUM EPOCH_SIZE LR DATASET RANK_TABLE_FILE [PRE_TRAINED PRE_TRAINED_EPOCH_SIZE]
#
# Results are written to LOG/ in the current folder, or LOG-002, LOG-003 ... where LOG exists.
# Environment: DEVICE_TARGET Ascend (default), GPU or CPU; BACKEND mindspore (default) or torch;
# ARGS further flags of `python -m ssd_nb.train`, e.g. ARGS='--coco_root /data/coco2017'; PYTHON the interpreter.
# RANK_TABLE_FILE: a file is handed to MindSpore in the environment variable of this name. Current MindSpore forms the
# group without it; give - then. PyTorch never reads it.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh script`
set -euo pipefail

arguments="DEVICE_NUM EPOCH_SIZE LR DATASET RANK_TABLE_FILE [PRE_TRAINED PRE_TRAINED_EPOCH_SIZE]"
if [ $# -ne 5 ] && [ $# -ne 7 ]; then
    echo "usage: bash run_distribute_train.sh $arguments" >&2
    exit 1
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
table=$5
if [ -f "$table" ]; then
    RANK_TABLE_FILE=$(realpath "$table")
    export RANK_TABLE_FILE
else
    echo "RANK_TABLE_FILE: no file $table; the launcher forms the group without it"
fi
export DEVICE_TARGET=${DEVICE_TARGET:-Ascend} BACKEND=${BACKEND:-mindspore}
exec bash "$here/run_train.sh" LOG "${@:1:4}" "${@:6}"
