#!/usr/bin/env bash
# Run a job on a TPU VM of one host, from a local machine.
#
#   launch/tpu_vm.sh NAME ZONE msg_resnet:cifar10 [FLAG ...]
#
# Copies this checkout, installs it with JAX for TPU and starts the job. Sweeps on
# a slice of several hosts: tpu_pod.sh.
set -euo pipefail
name=${1:?name of the TPU VM} zone=${2:?its zone} config=${3:?configuration}
gcloud compute tpus tpu-vm scp --recurse --zone "$zone" . "$name:jaxmu"
flags=$(printf '%q ' --config="$config" "${@:4}")
# shellcheck disable=SC2029  # the flags are meant to expand here
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --command "
  cd jaxmu && python3 -m venv .venv && source .venv/bin/activate &&
  pip install --quiet -e . 'jax[tpu]' &&
  python -m jaxmu.main $flags"
