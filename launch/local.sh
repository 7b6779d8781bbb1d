#!/usr/bin/env bash
# Run a job on the devices of this machine.
#
#   launch/local.sh msg_resnet [DEVICES] [FLAG ...]
#
# DEVICES defaults to all GPUs, or to one device per core on a CPU.
set -euo pipefail
config=${1:?give a configuration, e.g. msg_resnet}
devices=${2:-0}
exec python -m jaxmu.main --config="$config" \
  --config.run.devices="$devices" "${@:3}"
