"""The words under pictures and tables of a report, all in one place."""

OVERVIEW = (
  'Second line: the direction that is better (↑ higher, ↓ lower, →R closer to '
  'the retrained models, →0 or →½ closer to that number). Coloured: the 95% '
  'interval excludes the value of the retrained models.'
)
ATTACKS = (
  'Each attack by its main number. Excess: the number minus that of the '
  'retrained models, paired by split; the interval is that of the excess where '
  'there is one, and coloured where it excludes 0.'
)
NUMBERS = (
  'One section per number; those of an attack open with a click. The retrained '
  'models come first: they are what perfect unlearning would give, and the '
  'dashed line in the small pictures. The gap is the value minus theirs; n '
  'says how many models, splits or seeds a number rests on.'
)

PICTURES = {
  'roc': (
    'True-positive rate of U-LiRA on forgotten points (vertical) at each '
    'false-positive rate on unseen points (horizontal), both on logarithmic '
    'axes. The diagonal is guessing; the bands are 95% intervals over '
    'independent groups of models.'
  ),
  'log_odds': (
    'Confidence in the true class, as log-odds, on points that the models '
    'forgot and on points that they never saw. The less the two differ, the '
    'less an attacker can tell.'
  ),
  'accuracy': (
    'Share of images classified correctly: retained (RA), forgotten (FA), '
    'validation (VA) and test (TA), with 95% intervals.'
  ),
  'curves': (
    'Accuracy while the models are trained from scratch, on test images and on '
    'images that they are trained on. The distance between the two is what '
    'they memorise.'
  ),
  'front': (
    'Distance from retraining in accuracies (horizontal) and success of an '
    'attack (vertical): both should be small. No other method beats a filled '
    'one in both; the original and the retrained models do not compete.'
  ),
  'rank': (
    'Mean rank of each method by {metric} over {number}; 1 is best. Methods '
    'under a bar differ by less than the critical difference of the Nemenyi '
    'test.'
  ),
  'trade_off': (
    'The two kinds of errors open to an attacker, false alarms and misses; the '
    'diagonal is guessing. μ is the distance of two normal distributions of '
    'unit width that are as hard to tell apart; retrained models show how much '
    'of it is chance.'
  ),
  'vulnerability': (
    'Each point is an example: how well its score tells models that had it '
    'from models that never saw it, before unlearning (horizontal) and after '
    '(vertical).'
  ),
}


def caption(name: str, **words: object) -> str:
  """Return the caption of a picture.

  Args:
    name: of the picture; 'rank_ret_dev' has the caption 'rank'.
    **words: fill its blanks.
  """
  text = PICTURES.get(name) or PICTURES[name.partition('_')[0]]
  return text.format(**words)
