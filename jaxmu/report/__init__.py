"""Tables, plots and pages made from results.

Pure functions from rows and plain arrays to artefacts. Nothing here trains,
attacks or reads a model, and nothing imports the rest of the project:

  records    rows of results, and the files that hold them
  glossary   what every metric means and which direction is better
  table      results on the terminal
  findings   results in sentences
  plots      results in pictures
  page       all of it in one self-contained HTML file
  bundle     all files of a report in one call
  progress   bars with an estimate of the time left
"""
