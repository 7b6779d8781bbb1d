"""Tables, plots and pages made from results.

The functions turn rows and plain arrays into files. Nothing here trains,
attacks or reads a model.

  results    rows of results, their files, and numbers as text
  glossary   the meaning of every number, its direction, and captions
  summary    results in sentences
  tables     results on the terminal, and the benchmark's table
  plots      figures
  ranks      ranks of methods over initialisations and over cells
  html       all files of a report, among them a self-contained page
  progress   progress bars with an estimate of the time left
"""
