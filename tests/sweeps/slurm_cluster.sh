#!/usr/bin/env bash
# Run a command beside a Slurm cluster of this one machine, for tests.
#
#   tests/sweeps/slurm_cluster.sh FOLDER COMMAND [ARGUMENT ...]
#
# Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge.
set -euo pipefail
folder=$1
mkdir -p "$folder"/state "$folder"/spool /run/munge /var/log/munge
host=$(hostname -s)
cat >"$folder/slurm.conf" <<EOF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/ctld.pid
SlurmdPidFile=$folder/d.pid
SlurmctldLogFile=$folder/ctld.log
SlurmdLogFile=$folder/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
export SLURM_CONF=$folder/slurm.conf
chown munge /run/munge /var/log/munge
pgrep -x munged >/dev/null || su -s /bin/bash munge -c /usr/sbin/munged
slurmctld
slurmd
trap 'kill $(cat "$folder"/ctld.pid "$folder"/d.pid)' EXIT
for _ in $(seq 30); do
  sinfo -h -o %T 2>/dev/null | grep -q idle && break
  sleep 1
done
"${@:2}"
