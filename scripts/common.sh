# Functions of the scripts; sourced by them.
# shellcheck shell=bash

PYTHON=${PYTHON:-python}
BACKEND=${BACKEND:-torch}
DEVICE_TARGET=${DEVICE_TARGET:-GPU}
PYTHONPATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

# The first of STEM, STEM-002, STEM-003 ... that does not exist, newly made.
free_folder() {
    local folder=$1 number=1
    until mkdir "$folder" 2> /dev/null; do
        if [ ! -e "$folder" ]; then
            echo "error: the folder $folder cannot be made in $(pwd)" >&2
            return 1
        fi
        number=$((number + 1))
        folder=$(printf '%s-%03d' "$1" "$number")
    done
    echo "$folder"
}

# DEVICE_TARGET in the words of the framework; it fails where the framework has no such device.
device() {
    case $BACKEND-$DEVICE_TARGET in
        torch-CPU) echo cpu ;;
        torch-GPU) echo cuda ;;
        torch-*)
            echo "error: PyTorch runs on DEVICE_TARGET GPU or CPU, not $DEVICE_TARGET" >&2
            return 1 ;;
        *) echo "$DEVICE_TARGET" ;;
    esac
}
