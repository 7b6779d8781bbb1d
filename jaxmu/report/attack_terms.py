"""The words of the glossary for attacks and their numbers."""

from jaxmu.report import terms

# key: (title, the attack as the subject of a sentence, source)
ATTACKS: dict[str, tuple[str, str, str]] = {
  'outputs': (
    'Outputs',
    'the comparison of outputs',
    terms.PROJECT,
  ),
  'ulira': (
    'U-LiRA',
    'the per-example attack U-LiRA',
    'Hayes et al. 2024, with log-odds and leave-one-split-out',
  ),
  'ulira_reference': (
    'U-LiRA as released with the benchmark',
    'the released variant of U-LiRA on correctness, fitted in sample,',
    terms.BENCHMARK + ', released code',
  ),
  'lira_online': (
    'LiRA, online',
    'the likelihood-ratio attack LiRA with both hypotheses fitted',
    'Carlini et al. 2022',
  ),
  'lira_offline': (
    'LiRA, offline',
    'the likelihood-ratio attack LiRA with only unseen points fitted',
    'Carlini et al. 2022',
  ),
  'lira_forget': (
    'LiRA-Forget',
    'the attack LiRA-Forget against retrained models',
    'Pawelczyk et al. 2023',
  ),
  'kde': (
    'Kernel density attack',
    'the attack with kernel densities',
    'RULI 2025',
  ),
  'histogram': (
    'Histogram attack',
    'the attack with histograms',
    terms.PROJECT,
  ),
  'klom': (
    'KLoM',
    'the divergence of margins between unlearned and retrained models',
    'Georgiev et al. 2024',
  ),
  'competition': (
    'Competition metric',
    'the metric of the NeurIPS 2023 unlearning competition',
    'Triantafillou et al. 2024',
  ),
  'per_example': (
    'Per-point AUC',
    'the AUC of each point over the models',
    terms.PROJECT,
  ),
  'rmia': (
    'RMIA',
    'the attack RMIA, one-sided,',
    'Zarifzadeh et al. 2024',
  ),
  'population': (
    'Population attack',
    'one threshold on the loss for all points',
    'Yeom et al. 2018',
  ),
  'loss': (
    'Loss attack',
    'one threshold on the loss for all points',
    'Yeom et al. 2018',
  ),
  'confidence': (
    'Confidence attack',
    'one threshold on the confidence in the label',
    'Song & Mittal 2021',
  ),
  'entropy': (
    'Entropy attack',
    'one threshold on the entropy of the prediction',
    'Song & Mittal 2021',
  ),
  'modified_entropy': (
    'Modified entropy attack',
    'one threshold on the modified entropy of the prediction',
    'Song & Mittal 2021',
  ),
  'combined': (
    'Classifier on all signals',
    'a classifier on the loss, entropy and correctness of one model together',
    terms.PROJECT,
  ),
  'correctness': (
    'Correctness attack',
    'calling every correctly classified point forgotten',
    'Yeom et al. 2018',
  ),
}

# key: (title, sentence with {what} for the attack, unit, direction)
STATISTICS: dict[str, tuple[str, str, str, str]] = {
  'auc': (
    'AUC',
    'How often {what} ranks a forgotten point above an unseen one; a coin '
    'gives 0.5, a perfect attack 1.',
    'fraction',
    'half',
  ),
  'accuracy': (
    'accuracy',
    'How often {what} tells forgotten from unseen points, as many of each; '
    'guessing gives 0.5.',
    'fraction',
    'half',
  ),
  'balanced_accuracy': (
    'balanced accuracy',
    'How often {what} tells forgotten from unseen points, both counting the '
    'same, with a threshold fixed beforehand; guessing gives 0.5.',
    'fraction',
    'half',
  ),
  'mia': (
    'accuracy of the fitted attack',
    'How often an attacker who fits a threshold to the score tells forgotten '
    'from unseen points; guessing gives 0.5.',
    'fraction',
    'half',
  ),
  'best_balanced_accuracy': (
    'best balanced accuracy',
    'Balanced accuracy of {what} with the threshold chosen afterwards, which '
    'is too optimistic for the attacker.',
    'fraction',
    'half',
  ),
  'member_rate': (
    'share called members',
    'Share of the forgotten observations that {what} calls members: a '
    'true-positive rate to which no false-positive rate is known.',
    'fraction',
    'retrained',
  ),
  'share_exposed': (
    'share of exposed points',
    'Share of the points that {what} tells from unseen ones beyond chance, '
    'corrected for the number of points tried.',
    'fraction',
    'lower',
  ),
  'retain_auc': (
    'AUC on retained points',
    'How often {what} ranks a retained point above an unseen one; a coin '
    'gives 0.5.',
    'fraction',
    'half',
  ),
  'unscored': (
    'points not scored',
    'Points that {what} could not score, for want of observations.',
    'count',
    'none',
  ),
  'non_finite': (
    'non-finite outputs',
    'Outputs that were infinite or not a number when {what} read them.',
    'count',
    'lower',
  ),
}


# Numbers that only one attack has: as `terms.METRICS`.
SPECIAL: dict[str, tuple[str, str, str, str, str]] = {
  'per_example_mean': (
    'Per-point AUC: mean',
    'Mean over the points of the AUC of each, which says how well its own '
    'scores tell models that forgot it from models that never saw it.',
    'fraction',
    'half',
    terms.PROJECT,
  ),
  'per_example_above': (
    'Per-point AUC: share above 0.6',
    'Share of the points with an AUC above 0.6; with few models many are, by '
    'chance alone, so compare with the retrained models.',
    'fraction',
    'retrained',
    terms.PROJECT,
  ),
  'per_example_below': (
    'Per-point AUC: share below 0.4',
    'Share of the points with an AUC below 0.4, pushed further away than an '
    'unseen point; compare with the retrained models.',
    'fraction',
    'retrained',
    terms.PROJECT,
  ),
  'per_example_exposed': (
    'Per-point AUC: share exposed',
    'Share of the points that are still remembered, beyond chance even after '
    'correction for the number of points tested.',
    'fraction',
    'lower',
    'Benjamini & Hochberg 1995',
  ),
  'per_example_over_unlearned': (
    'Per-point AUC: share over-unlearned',
    'Share of the points pushed further away than unseen ones, which exposes '
    'them as well, corrected for the number of points tested.',
    'fraction',
    'lower',
    'Benjamini & Hochberg 1995',
  ),
  'per_example_examples': (
    'Per-point AUC: points tested',
    'Points with enough models of both kinds to be tested.',
    'count',
    'none',
    terms.PROJECT,
  ),
  'klom_mean': (
    'KLoM: mean',
    'How far the margins of unlearned models are from those of retrained '
    'ones, as a Kullback-Leibler divergence per point, mean over points.',
    'nats',
    'lower',
    'Georgiev et al. 2024',
  ),
  'competition_forget_score': (
    'Competition: forgetting score F',
    'Near 1 when no test tells unlearned from retrained models on any point; '
    'taking the best of many thresholds keeps it well below 1 even then, so '
    'compare with retrained against retrained.',
    'fraction',
    'higher',
    'Triantafillou et al. 2024',
  ),
  'competition_relative_score': (
    'Competition: F relative to retrained against retrained',
    'The forgetting score divided by what retrained models get against other '
    'retrained models; 1 is as good as can be measured.',
    'ratio',
    'higher',
    terms.PROJECT,
  ),
  'competition_final_score': (
    'Competition: final score',
    'The forgetting score times the accuracies on retained and on never-seen '
    'points, each relative to retrained models: what ranked the competition.',
    'fraction',
    'higher',
    'Triantafillou et al. 2024',
  ),
  'competition_epsilon': (
    'Competition: median epsilon',
    'Median over the points of epsilon, the largest log-ratio of error rates '
    'that a test reaches; positive even without any difference.',
    'nats',
    'lower',
    'Triantafillou et al. 2024',
  ),
  'competition_lower_bound': (
    'Competition: share of points with a proven epsilon',
    'Share of the points for which thresholds chosen on other models prove an '
    'epsilon above zero.',
    'fraction',
    'lower',
    terms.PROJECT,
  ),
  'outputs_kl': (
    'Outputs: divergence from retrained',
    'How far the predicted probabilities for forgotten images are from those '
    'of the retrained model, as a Kullback-Leibler divergence.',
    'nats',
    'retrained',
    terms.PROJECT,
  ),
  'outputs_total_variation': (
    'Outputs: total variation from retrained',
    'How far the predicted probabilities for forgotten images are from those '
    'of the retrained model: the probability to be moved, 0 to 1.',
    'fraction',
    'retrained',
    terms.PROJECT,
  ),
  'outputs_disagreement': (
    'Outputs: disagreement with retrained',
    'Share of the forgotten images to which the model and the retrained model '
    'give different classes.',
    'fraction',
    'retrained',
    terms.PROJECT,
  ),
}
