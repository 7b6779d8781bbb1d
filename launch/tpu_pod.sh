#!/usr/bin/env bash
# Run a sweep on all hosts of a TPU slice, from a local machine.
#
#   launch/tpu_pod.sh NAME ZONE deep_unlearn:paper --workdir=gs://BUCKET/sweep
#
# Copies this checkout to every host, installs it with JAX for TPU and starts one
# process per host. A process sees the chips of its host alone, so programs need
# no connection between hosts; the hosts divide the work and need a work directory
# that all of them see. Started again, also on a slice of another size, it goes on.
# CHIPS_PER_HOST and BOUNDS fit hosts with four chips; see the TPU documentation
# for others.
set -euo pipefail
name=${1:?name of the TPU slice} zone=${2:?its zone} config=${3:?a sweep}
chips=${CHIPS_PER_HOST:-0,1,2,3} bounds=${BOUNDS:-2,2,1}
gcloud compute tpus tpu-vm scp --recurse --worker=all --zone "$zone" \
  . "$name:jaxmu"
flags=$(printf '%q ' --config="$config" "${@:4}")
attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
# shellcheck disable=SC2016,SC2029  # expanded here or there, as quoted
gcloud compute tpus tpu-vm ssh "$name" --worker=all --zone "$zone" --command "
  ask() { curl -sf -H Metadata-Flavor:Google $attributes/\$1; }
  number=\$(ask agent-worker-number)
  hosts=\$(ask worker-network-endpoints | tr ',' '\n' | wc -l)
  export TPU_VISIBLE_CHIPS=$chips TPU_CHIPS_PER_PROCESS_BOUNDS=$bounds
  export TPU_PROCESS_BOUNDS=1,1,1
  cd jaxmu && python3 -m venv .venv && source .venv/bin/activate &&
  pip install --quiet -e '.[gcs]' 'jax[tpu]' &&
  python -m jaxmu.sweep --share=\$((number + 1))/\$hosts $flags"
