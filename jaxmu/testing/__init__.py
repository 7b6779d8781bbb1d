"""Contracts that plug-ins must satisfy, to run on one's own.

  from jaxmu import testing

  testing.check_method('my_method.py')

A check takes what `jaxmu.methods.get` and its like take: a name, an import
path, a file, a module or the object. It returns nothing if all rules hold, and
raises a `ContractError` that says which rules are broken, and what to do.
"""

from jaxmu.testing.faults import ContractError, Fault
from jaxmu.testing.methods import METHOD_RULES, check_method

__all__ = ['METHOD_RULES', 'ContractError', 'Fault', 'check_method']
