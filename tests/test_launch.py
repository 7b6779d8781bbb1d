"""Scripts of `launch/`: what they run, with stand-ins for a cluster's tools."""

import os
import pathlib
import subprocess

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[1] / 'launch'
SCRIPTS = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])
SLURM = {
  'SLURM_JOB_NODELIST': 'n[1-2]',
  'SLURM_CPUS_PER_TASK': '4',
  'SLURM_JOB_NUM_NODES': '2',
}
FLAGS = ['--config.methods=ft,ga', '--workdir=a b']
# Arguments of each script before the flags, and part of a line that it runs.
CALLS = {
  'local.sh': (
    ['msg_resnet', '2'],
    'python -m jaxmu.main --config=msg_resnet --config.run.devices=2',
  ),
  'slurm.sbatch': (
    ['msg_resnet'],
    'srun python -m jaxmu.main --config=msg_resnet',
  ),
  'slurm_array.sbatch': (
    ['deep_unlearn:paper'],
    'srun python -m jaxmu.sweep --config=deep_unlearn:paper --share=auto',
  ),
  'slurm_ray.sbatch': (
    ['deep_unlearn:paper'],
    'python -m jaxmu.sweep --config=deep_unlearn:paper --engine=ray',
  ),
  'tpu_vm.sh': (
    ['name', 'zone', 'msg_resnet'],
    'python -m jaxmu.main --config=msg_resnet',
  ),
  'tpu_pod.sh': (
    ['name', 'zone', 'deep_unlearn:paper'],
    'python -m jaxmu.sweep --share=$((number + 1))/$hosts',
  ),
}


@pytest.fixture
def tools(tmp_path):
  """A folder of commands that write how they are called to a file."""
  calls = tmp_path / 'calls'
  for name in ('python', 'srun', 'gcloud', 'ray', 'scontrol'):
    path = tmp_path / name
    answer = 'echo n1' if name == 'scontrol' else ':'
    path.write_text(
      f'#!/usr/bin/env bash\nprintf "%s " {name} "$@" >> {calls}\n'
      f'printf "\\0" >> {calls}\n{answer}\n'
    )
    path.chmod(0o755)
  return tmp_path


def _run(path, arguments, tools, **environment):
  done = subprocess.run(
    ['bash', str(path), *arguments],
    env={'PATH': f'{tools}:{os.environ["PATH"]}', **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=tools,
  )
  calls = tools / 'calls'
  text = calls.read_text() if calls.exists() else ''
  return done, text.split('\0')[:-1]


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_scripts_run_what_they_say(path, tools):
  given, expected = CALLS[path.name]
  done, lines = _run(path, [*given, *FLAGS], tools, **SLURM)
  assert done.returncode == 0, done.stdout
  text = '\n'.join(lines)
  assert expected in text
  text = text.replace('\\', '')  # of words that a remote shell reads
  assert all(flag in text for flag in FLAGS)


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_scripts_without_arguments_say_what_to_give(path, tools):
  done, lines = _run(path, [], tools, **SLURM)
  assert done.returncode != 0 and not lines
  assert path.name in done.stdout and 'unbound' not in done.stdout


def test_raylets_run_on_all_nodes(tools):
  _, lines = _run(LAUNCH / 'slurm_ray.sbatch', ['x'], tools, **SLURM)
  (head,) = [line for line in lines if '--head' in line]
  assert '--nodelist=n1' in head and '--num-cpus=4' in head
  (rest,) = [line for line in lines if '--address=n1:6379' in line]
  assert '--exclude=n1' in rest and 'srun --nodes=1 ' in rest


def test_a_process_of_a_tpu_slice_sees_the_chips_of_its_host(tools):
  given, _ = CALLS['tpu_pod.sh']
  _, lines = _run(LAUNCH / 'tpu_pod.sh', given, tools)
  text = '\n'.join(lines)
  assert 'TPU_PROCESS_BOUNDS=1,1,1' in text
  assert 'TPU_VISIBLE_CHIPS=0,1,2,3' in text
  assert all('--worker=all' in line for line in lines if 'gcloud' in line)


def test_the_manifest_of_an_indexed_job_names_its_pods_alike():
  content = yaml.safe_load((LAUNCH / 'kubernetes_jobset.yaml').read_text())
  (job,) = content['spec']['replicatedJobs']
  spec = job['template']['spec']
  (pod,) = spec['template']['spec']['containers']
  count = {one['name']: one['value'] for one in pod['env']}['JOB_COMPLETIONS']
  assert spec['completionMode'] == 'Indexed'
  assert spec['completions'] == spec['parallelism'] == int(count)
  assert pod['args'][-1] == '--share=auto'


def test_the_manifest_of_a_ray_job_runs_the_engine():
  content = yaml.safe_load((LAUNCH / 'kubernetes_ray.yaml').read_text())
  assert content['kind'] == 'RayJob'
  assert content['spec']['entrypoint'].endswith('--engine=ray')
  cluster = content['spec']['rayClusterSpec']
  groups = [cluster['headGroupSpec'], *cluster['workerGroupSpecs']]
  for group in groups:
    (volume,) = group['template']['spec']['volumes']
    assert volume['name'] == 'work'


def test_volumes_and_flags_of_manifests_are_those_of_the_command():
  from jaxmu import sweep

  for path in sorted(LAUNCH.glob('*.yaml')):
    words = path.read_text().replace('- --', '--').split()
    argv = [word for word in words if word.startswith('--')]
    flags = [one for one in argv if not one.startswith('--config=')]
    assert sweep.read(['--config=deep_unlearn:paper', *flags]), path.name
