"""The array script on a Slurm cluster of this machine, with a requeued task."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.sweeps import processes

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group('processes')]

# Submits the array, requeues its second task, and waits for both to end.
SCRIPT = """
set -euo pipefail
job=$(sbatch --parsable --array=0-1 --cpus-per-task=1 --gpus=0 --export=ALL \
  -o task_%a.log --open-mode=append {launch} {config} --workdir={folder})
sleep 20
scontrol requeue ${{job}}_1
for _ in $(seq 500); do
  [[ -z $(squeue -h) ]] && exit 0
  sleep 1
done
squeue
cat task_*.log
exit 1
"""


def test_the_tasks_of_an_array_share_a_sweep(home, alone):
  if os.geteuid() or not shutil.which('slurmctld'):
    pytest.skip(
      'needs root and: apt-get install slurmctld slurmd slurm-client munge'
    )
  folder = home / 'slurm'
  text = SCRIPT.format(
    launch=processes.ROOT / 'launch' / 'slurm_array.sbatch',
    config=f'{home / "sweep.py"}:{folder}',
    folder=folder,
  )
  (home / 'submit.sh').write_text(text)
  environment = processes.environment(home)
  environment['PATH'] = (
    f'{pathlib.Path(sys.executable).parent}:' + (environment['PATH'])
  )
  done = subprocess.run(
    [
      *('bash', str(processes.ROOT / 'tests' / 'sweeps' / 'slurm_cluster.sh')),
      *(str(home / 'cluster'), 'bash', str(home / 'submit.sh')),
    ],
    cwd=home,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=580,
  )
  logs = [(home / f'task_{k}.log').read_text() for k in (0, 1)]
  assert done.returncode == 0, done.stdout
  assert all('24 of 24 units done' in log for log in logs), logs
  processes.assert_equal(folder, alone)
