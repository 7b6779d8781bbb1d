"""The quickstart runs from top to bottom and shows its pictures."""

import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.xdist_group('notebook')
def test_quickstart_runs_and_shows_two_pictures():
  notebook = nbformat.read(ROOT / 'notebooks' / 'quickstart.ipynb', 4)
  for cell in notebook.cells:
    # A tiny network: the test asks whether it runs, not how well it learns.
    cell.source = cell.source.replace(
      'config.splits.num_splits = 12',
      'config.splits.num_splits = 8; config.train.num_epochs = 2; '
      "config.model = {'name': 'tiny', 'options': {}}",
    )
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
  printed = ''.join(out.get('text', '') for out in outputs)
  assert 'AUC' in printed and 'RetDev' in printed
