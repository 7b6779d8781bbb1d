"""The words of the glossary for metrics of models; see `attack_terms` too."""

BENCHMARK = 'Cadet et al. 2024, arXiv 2410.01276'
PROJECT = 'this project'

# name: (title, sentence, unit, direction that is better, source)
METRICS: dict[str, tuple[str, str, str, str, str]] = {
  'ra': (
    'Retain accuracy (RA)',
    'Share of the training images to be kept that the model gets right.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'fa': (
    'Forget accuracy (FA)',
    'Share of the images to be forgotten that the model gets right; a model '
    'that never saw them gets them right about as often as test images.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'va': (
    'Validation accuracy (VA)',
    'Share of the validation images, on which no model was trained, that the '
    'model gets right.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'ta': (
    'Test accuracy (TA)',
    'Share of the test images, which nothing but this number ever used, that '
    'the model gets right.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'rr': (
    'Retain retention (RR)',
    'Retain accuracy divided by that of the retrained model.',
    'ratio',
    'one',
    BENCHMARK,
  ),
  'fr': (
    'Forget retention (FR)',
    'Forget accuracy divided by that of the retrained model.',
    'ratio',
    'one',
    BENCHMARK,
  ),
  'tr': (
    'Test retention (TR)',
    'Test accuracy divided by that of the retrained model.',
    'ratio',
    'one',
    BENCHMARK,
  ),
  'ret_dev': (
    'Retention deviation (RetDev)',
    'Sum of the relative distances of retain, forget and test accuracy from '
    'those of the retrained model of the same seed; 0 means equal accuracies.',
    '',
    'lower',
    BENCHMARK + ' (|RR-1| + |FR-1| + |TR-1|, paired by seed)',
  ),
  'ret_dev_means': (
    'Retention deviation of the means',
    'Retention deviation computed from accuracies averaged over seeds first, '
    'as some tables report it; never larger than the paired one by much.',
    '',
    'lower',
    BENCHMARK,
  ),
  'tow': (
    'Tug-of-war (ToW)',
    'Product of one minus the accuracy differences from the retrained model '
    'on retain, forget and test images; 1 means equal accuracies.',
    'fraction',
    'higher',
    'Zhao et al. 2024 (RUM)',
  ),
  'sape': (
    'Symmetric absolute percentage error (SAPE)',
    'Difference between two accuracies in percent of their sum.',
    'percent',
    'lower',
    'Zhang et al. 2023',
  ),
  'mia_val': (
    'Population attack vs validation (MIA)',
    'How often a simple attacker, who sees only the loss, tells forgotten '
    'from validation images; guessing is right half of the time.',
    'fraction',
    'retrained',
    BENCHMARK + ' (logistic regression on the loss)',
  ),
  'mia_test': (
    'Population attack vs test (T-MIA)',
    'How often a simple attacker, who sees only the loss, tells forgotten '
    'from test images; guessing is right half of the time.',
    'fraction',
    'retrained',
    BENCHMARK + ' (logistic regression on the loss)',
  ),
  'population_auc': (
    'Population attack: AUC',
    'How often one threshold on the loss for all points ranks a forgotten '
    'point above a test point; 0.5 is guessing, but where the two sets differ '
    'by themselves retrained models show what no leak looks like.',
    'fraction',
    'retrained',
    'Yeom et al. 2018',
  ),
  'indisc_val': (
    'Indiscernibility vs validation',
    'How helpless the population attack is: 1 when it only guesses, 0 when it '
    'always tells forgotten from validation images.',
    'fraction',
    'higher',
    BENCHMARK + ' (1 - |2 MIA - 1|)',
  ),
  'indisc_test': (
    'Indiscernibility vs test (Indisc)',
    'How helpless the population attack is: 1 when it only guesses, 0 when it '
    'always tells forgotten from test images.',
    'fraction',
    'higher',
    BENCHMARK + ' (1 - |2 MIA - 1|)',
  ),
  'disc_val': (
    'Discernibility vs validation',
    'One minus the indiscernibility: 0 when the population attack guesses.',
    'fraction',
    'lower',
    BENCHMARK + ' (|2 MIA - 1|)',
  ),
  'disc_test': (
    'Discernibility vs test',
    'One minus the indiscernibility: 0 when the population attack guesses.',
    'fraction',
    'lower',
    BENCHMARK + ' (|2 MIA - 1|)',
  ),
  'rte': (
    'Speed-up over retraining (RTE)',
    'How many times faster than retraining one model, compilation apart.',
    'times',
    'higher',
    BENCHMARK + ' (time to retrain / time to unlearn, one model, warm)',
  ),
  'rte_cold': (
    'Speed-up with compilation',
    'How many times faster than retraining one model when both also have to '
    'compile their program first.',
    'times',
    'higher',
    PROJECT,
  ),
  'rte_counted': (
    'Speed-up in counted work',
    'How many times fewer passes of an image through the network than '
    'retraining needs; the same on any machine.',
    'times',
    'higher',
    PROJECT,
  ),
  'cost': (
    'Counted work',
    'Passes of one image through the network that the method needs for one '
    'model, a backward pass counting as two; the same on any machine.',
    'count',
    'lower',
    PROJECT,
  ),
  'seconds': (
    'Time for one model',
    'Wall-clock time for one model alone on the device, compilation apart.',
    'seconds',
    'lower',
    PROJECT,
  ),
  'seconds_cold': (
    'Time for one model, with compilation',
    'Wall-clock time for one model alone on the device, from a cold start.',
    'seconds',
    'lower',
    PROJECT,
  ),
  'rank_combined': (
    'Combined rank',
    'Mean of the ranks by accuracies, by the population attack and by run '
    'time: a convenience, with no test behind it.',
    '',
    'lower',
    PROJECT,
  ),
  'distance_original': (
    'Distance from the original weights',
    'Euclidean distance of the weights from the original model, relative to '
    'the length of the weights; over the first eight models, without '
    'weights that never meet data.',
    'ratio',
    'none',
    BENCHMARK + ', released code',
  ),
  'distance_retrained': (
    'Distance from the retrained weights',
    'Euclidean distance of the weights from the retrained model, relative to '
    'the length of the weights. Two retrained models are far apart as well: '
    "theirs is given for the next member's.",
    'ratio',
    'none',
    BENCHMARK + ', released code',
  ),
}
