"""The quickstart runs from top to bottom and shows its pictures."""

import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.xdist_group('notebook')
def test_quickstart_runs_and_shows_two_pictures(job_environment, monkeypatch):
  # The kernel inherits the environment.
  for name, value in job_environment.items():
    monkeypatch.setenv(name, value)
  notebook = nbformat.read(ROOT / 'notebooks' / 'quickstart.ipynb', 4)
  for cell in notebook.cells:
    # A tiny network: the test asks whether it runs, not how well it learns.
    cell.source = cell.source.replace(
      "model='resnet18'", "model='tiny', num_epochs=2"
    ).replace('splits=12', 'splits=8, pool=640')
  client = nbclient.NotebookClient(
    notebook,
    timeout=500,
    kernel_name='python3',
    resources={'metadata': {'path': str(ROOT / 'notebooks')}},
  )
  client.execute()
  outputs = [out for c in notebook.cells for out in c.get('outputs', [])]
  pictures = [out for out in outputs if 'image/png' in out.get('data', {})]
  assert len(pictures) == 2
  printed = ''.join(
    out.get('text', '') + out.get('data', {}).get('text/plain', '')
    for out in outputs
  )
  assert 'AUC' in printed and 'RetDev' in printed
