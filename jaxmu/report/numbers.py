"""Numbers as people read them: few digits, a sign for gaps, n/a for NaN."""

import math

MISSING = 'n/a'


def value(number: float, unit: str = '', decimals: int = 4) -> str:
  """Return a number in the digits that its unit deserves.

  Args:
    number: any float; NaN becomes 'n/a'.
    unit: a unit of `glossary.Metric`.
    decimals: digits after the point of fractions and of numbers without unit.

  Returns:
    For instance '0.8734', '12.4×', '3.2 s', '1.25M'.
  """
  if math.isnan(number):
    return MISSING
  if math.isinf(number):
    return '∞' if number > 0 else '-∞'
  if unit == 'times':
    return f'{_significant(number)}×'
  if unit == 'seconds':
    return f'{_significant(number)} s'
  if unit == 'percent':
    return f'{_significant(number)}%'
  if unit == 'count':
    return _count(number)
  if number and (abs(number) < 0.5 * 10**-decimals or abs(number) >= 1e4):
    return f'{number:.1e}'
  return f'{number:.{decimals}f}'


def gap(number: float, unit: str = '', decimals: int = 4) -> str:
  """Return a difference, with its sign even when positive."""
  if math.isnan(number):
    return MISSING
  text = value(number, unit, decimals)
  return text if number < 0 else f'+{text}'


def interval(low: float, high: float, unit: str = '', decimals: int = 4) -> str:
  """Return '[low, high]', or '' where there is no interval."""
  if math.isnan(low) and math.isnan(high):
    return ''
  return f'[{value(low, unit, decimals)}, {value(high, unit, decimals)}]'


def spread(mean: float, deviation: float, decimals: int = 3) -> str:
  """Return 'mean ± sd', without the sd where it is NaN."""
  if math.isnan(mean):
    return MISSING
  if abs(mean) >= 10:
    decimals = min(decimals, 1)
  if math.isnan(deviation):
    return f'{mean:.{decimals}f}'
  return f'{mean:.{decimals}f} ± {deviation:.{decimals}f}'


def duration(seconds: float) -> str:
  """Return a time as '45 s', '3 min 20 s' or '2 h 05 min'."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds} s'
  if seconds < 3600:
    return f'{seconds // 60} min {seconds % 60:02d} s'
  return f'{seconds // 3600} h {seconds % 3600 // 60:02d} min'


def _significant(number: float) -> str:
  if abs(number) >= 100:
    return f'{number:,.0f}'
  return f'{number:.1f}' if abs(number) >= 10 else f'{number:.2f}'


def _count(number: float) -> str:
  for size, suffix in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M')):
    if abs(number) >= size:
      return f'{number / size:.3g}{suffix}'
  return f'{number:,.0f}' if number == round(number) else f'{number:,.1f}'
