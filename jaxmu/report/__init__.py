"""Tables, plots and pages made from results.

Pure functions from rows and plain arrays to files. Nothing here trains, attacks
or reads a model.

  results      rows of results, their files, and numbers as text
  glossary     what every number means and which direction is better
  summary      results in sentences
  tables       results on the terminal
  paper_table  the benchmark's table, as text and as Markdown
  html_tables  the tables of the HTML report
  plots        results in pictures
  captions     the words under pictures and tables
  html         all files of a report, among them a self-contained page
  progress     bars with an estimate of the time left
"""
