"""Captions of the pictures and tables of a report."""

OVERVIEW = (
  'Second line: the direction that is better (↑ higher, ↓ lower, →R closer to '
  'the retrained models, →0 or →½ closer to that number). Coloured: the 95% '
  'interval of the paired difference from the retrained models excludes 0.'
)
ATTACKS = (
  'The main number of each attack. Excess: the number minus that of the '
  'retrained models, paired by split. The interval is that of the excess where '
  'there is one, coloured if it excludes 0.'
)
NUMBERS = (
  'One section per number; click on an attack to open its sections. The '
  'retrained models, which are the result of perfect unlearning, come first; '
  'the dashed line in the small pictures is their value. The gap is the value '
  'minus theirs, and n is the number of models, splits or seeds that were '
  'averaged.'
)

PICTURES = {
  'roc': (
    'True-positive rate of U-LiRA on forgotten examples (vertical) at each '
    'false-positive rate on unseen examples (horizontal), both on logarithmic '
    'axes. The diagonal is guessing; the bands are 95% intervals over '
    'independent groups of models.'
  ),
  'log_odds': (
    'Confidence in the true class, as log-odds, on examples that the models '
    'forgot and on examples that they never saw. The smaller the difference, '
    'the harder the attack.'
  ),
  'accuracy': (
    'Share of images classified correctly: retained (RA), forgotten (FA), '
    'validation (VA) and test (TA), with 95% intervals.'
  ),
  'curves': (
    'Accuracy while the models are trained from scratch, on test images and on '
    'training images. The gap between the two measures memorisation.'
  ),
  'front': (
    'Distance from retraining in accuracies (horizontal) and success of an '
    'attack (vertical): both should be small. Filled: no other method is '
    'better in both. The original and the retrained models are shown for '
    'comparison.'
  ),
  'rank': (
    'Mean rank of each method by {metric} over {number}; 1 is best. Methods '
    'under a bar differ by less than the critical difference of the Nemenyi '
    'test.'
  ),
  'search_history': (
    'The {what} of each trial, and the smallest so far, by initialisation. The '
    'lines show {lines}. Failed trials are not drawn.'
  ),
  'search_front': (
    'The objectives of all trials; 0 is best in each. No other trial is as '
    'good as a blue one in all four. The chosen setting has the smallest mean '
    'norm over the judging initialisations; its mark is its trial in the '
    'search.'
  ),
  'search_parallel': (
    'Each line is a trial, across its hyper-parameters from the smallest '
    'searched value (below) to the largest. Where blue lines meet, good trials '
    'agree.'
  ),
  'search_importances': (
    'How much of the variance of the norm each hyper-parameter explains by '
    'itself and together with others, by functional analysis of variance '
    '(Hutter et al. 2014) on the trials that did not fail.'
  ),
  'trade_off': (
    'The error rates that an attacker can reach: false positives and false '
    'negatives; the diagonal is guessing. μ is the distance of two normal '
    'distributions of unit width that are equally hard to distinguish; the '
    'value of the retrained models is due to chance.'
  ),
  'vulnerability': (
    'Each dot is an example. Its coordinates are the AUC with which its score '
    'distinguishes models that were trained on it from models that never saw '
    'it, before unlearning (horizontal) and after (vertical).'
  ),
}


def caption(name: str, **words: object) -> str:
  """Return the caption of a picture.

  Args:
    name: of the picture; 'rank_ret_dev' has the caption 'rank'.
    **words: values of its placeholders.
  """
  text = PICTURES.get(name) or PICTURES[name.partition('_')[0]]
  return text.format(**words)
