#!/bin/bash
# Evaluate a checkpoint on Ascend; positional arguments as in the reference.
#
#   bash run_eval.sh DATASET CHECKPOINT_PATH DEVICE_ID
#
# As run_eval_gpu.sh, but DEVICE_TARGET is Ascend and BACKEND mindspore where they are not given.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh script`
set -euo pipefail

export DEVICE_TARGET=${DEVICE_TARGET:-Ascend} BACKEND=${BACKEND:-mindspore} RUN_AS=$0
exec bash "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/run_eval_gpu.sh" "$@"
