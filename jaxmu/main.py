"""Train, unlearn, attack and report: `python -m jaxmu.main --config=FILE`."""

import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from jaxmu.study import execution

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Configuration, e.g. configs/msg_resnet.py or FILE:SCALE.'
)
PLAN = flags.DEFINE_bool(
  'plan', False, 'Print stages, models, time, memory and disk; train nothing.'
)


def main(argv: list[str]) -> None:
  """Run the job that the configuration describes."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  logging.set_verbosity(logging.WARNING)
  config = CONFIG.value.to_dict()
  set_up_jax(config)
  # Imported late: the number of devices must be set before JAX starts.
  from jaxmu.study import job, planner, run, settings

  try:
    chosen = settings.from_config(config)
    if PLAN.value:
      opened = job.open_job(chosen)
      run.check_job(opened, planner.plan_steps(opened))
      print(planner.plan_text(opened, tell=print))
    else:
      run.run(chosen, command=' '.join(['python -m jaxmu.main', *sys.argv[1:]]))
  except ValueError as error:
    logging.debug('refused', exc_info=True)
    sys.exit(f'error: {error}')


def set_up_jax(config: dict) -> None:
  """Choose the number of CPU devices and keep compiled programs."""
  # Not checked yet; what is wrong is refused with all other settings.
  asked = config.get('run', {}).get('devices', 0)
  given = isinstance(asked, int) and asked > 0
  devices = asked if given else execution.cores()
  jax.config.update('jax_num_cpu_devices', devices)
  cache = pathlib.Path(config.get('workdir', '')).expanduser() / 'cache' / 'jax'
  jax.config.update('jax_compilation_cache_dir', str(cache))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main)
