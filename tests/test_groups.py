"""Tests of a group share their fixtures, so one worker must run them all."""

import pytest


@pytest.mark.xdist_group('one')
def test_a_group_runs_in_one_worker(request):
  if not hasattr(request.config, 'workerinput'):
    pytest.skip('this run has no workers')
  assert request.node.nodeid.endswith('@one')
