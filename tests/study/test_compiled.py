"""What is read of a compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import population
from jaxmu.study import compiled
from tests import program_text

# As the TPU compiler writes: a loop of four rounds, each of which runs a loop
# of three rounds or, in another branch, one instruction.
_TEXT = """HloModule jit_f, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %a = f32[8]{0} fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"10"}
  ROOT %t = (s32[], f32[8]{0}) tuple(%a)
}

%below (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  ROOT %c = pred[] fusion(%p, %limit), kind=kLoop
}

%long (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%p), condition=%below, body=%inner
  ROOT %g = f32[8]{0} get-tuple-element(%w), index=1
}

%short (p: f32[8]) -> f32[8] {
  ROOT %n = f32[8]{0} copy(%p), backend_config={"estimated_cycles":"7"}
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = f32[8]{0} conditional(%on, %p, %p), branch_computations={%short, %long}
  ROOT %t = (s32[], f32[8]{0}) tuple(%c), backend_config={"estimated_cycles":"1"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%x), condition=%other, body=%outer, backend_config={"known_trip_count":{"n":"4"}}
  ROOT %d = f32[8]{0} fusion(%w), backend_config={"estimated_cycles":"100"}
}
"""  # noqa: E501


def test_cycles_count_every_round_and_the_longest_branch():
  assert compiled.cycles(_TEXT) == 100 + 4 * (1 + max(7, 3 * 10))


def test_a_loop_of_unknown_length_is_an_error():
  endless = _TEXT.replace('constant(3)', 'parameter(1)')
  with pytest.raises(ValueError, match='rounds of a loop are not known: %w'):
    compiled.cycles(endless)


def test_programs_of_a_cpu_have_no_cycles():
  program = jax.jit(jnp.dot).lower(np.ones((8, 8)), np.ones((8, 8))).compile()
  cost = compiled.cost(program)
  assert cost.flops >= 2 * 8**3 and cost.bytes >= 3 * 4 * 64
  assert cost.cycles == 0


def test_contacts_are_found():
  spec = jax.sharding.PartitionSpec('members')
  links = jax.shard_map(
    lambda x: jax.lax.psum(x, 'members'),
    mesh=population.Layout(2).mesh(),
    in_specs=spec,
    out_specs=jax.sharding.PartitionSpec(),
  )
  asks = lambda x: jax.pure_callback(np.sin, x, x)  # noqa: E731
  linked, asked, plain = (
    jax.jit(function).lower(np.ones(4, np.float32)).compile().as_text()
    for function in (links, asks, jnp.sin)
  )
  assert program_text.collectives(linked) == {'all-reduce'}
  assert program_text.host_contacts(asked)
  for text in (plain, _TEXT):
    assert not program_text.collectives(text) | program_text.host_contacts(text)


def test_copies_of_a_shape_are_found():
  assert program_text.copies(_TEXT, 'f32[8]') == [
    *('a = fusion', 'n = copy', 'c = conditional', 'd = fusion'),
  ]
  assert not program_text.copies(_TEXT, 'f32[9]')
