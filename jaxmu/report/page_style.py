"""The style sheet of the HTML report: no images, fonts or scripts from afar."""

CSS = """
:root {
  --ink: #1c1f23; --soft: #5b626b; --line: #dcdfe3; --paper: #ffffff;
  --wash: #f5f6f8; --mark: #0072b2; --differs: #b34700; --warn: #fff4e0;
  --warn-line: #e69f00;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e8eb; --soft: #a0a8b2; --line: #363c44; --paper: #16191d;
    --wash: #1f2328; --mark: #56b4e9; --differs: #f0a060; --warn: #33270f;
    --warn-line: #b37b00;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    Arial, "DejaVu Sans", sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem;
  letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .75rem;
  padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; line-height: 1.35; margin: 2rem 0 .25rem; }
p, li { max-width: 44rem; }
p { margin: .5rem 0; }
.lead { font-size: 1.08rem; }
.soft, figcaption, .source { color: var(--soft); }
.source, .key { font-size: .82rem; }
.key { font-family: ui-monospace, "DejaVu Sans Mono", monospace;
  font-weight: 400; color: var(--soft); }
.findings { padding-left: 1.2rem; }
.findings li { margin: .55rem 0; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line);
  padding: .6rem 1rem; margin: 1rem 0; }
.warnings ul { margin: .25rem 0; padding-left: 1.1rem; }
nav { margin: 1rem 0 0; font-size: .92rem; display: flex; flex-wrap: wrap;
  gap: .2rem 1.1rem; }
a { color: var(--mark); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: .9rem; line-height: 1.4; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, td.words, th.words { text-align: left; }
td.words { white-space: normal; min-width: 15rem; color: var(--soft); }
thead th { color: var(--soft); font-weight: 500; border-bottom-width: 2px;
  vertical-align: bottom; }
tr.reference td { background: var(--wash); font-weight: 600; }
tr.reference td:first-child { box-shadow: inset 3px 0 var(--soft);
  padding-left: .6rem; }
td.differs { color: var(--differs); font-weight: 600; }
.failed { color: var(--differs); font-size: .82rem; }
svg.range { display: block; width: 11rem; height: 1.1rem; }
svg.range .whole { stroke: var(--line); }
svg.range .null { stroke: var(--soft); stroke-dasharray: 2 2; }
svg.range .interval { stroke: var(--mark); stroke-width: 2; }
svg.range .value { fill: var(--mark); }
tr.reference svg .interval { stroke: var(--soft); }
tr.reference svg .value { fill: var(--soft); }
figure { margin: 2rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figcaption { font-size: .92rem; max-width: 44rem; margin-top: .5rem; }
pre { background: var(--wash); padding: .8rem 1rem; border-radius: 6px;
  overflow-x: auto; font: .85rem/1.5 ui-monospace, "DejaVu Sans Mono",
  monospace; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
table.facts td { text-align: left; white-space: normal; vertical-align: top;
  overflow-wrap: anywhere; }
table.facts td:first-child { color: var(--soft); white-space: nowrap; }
@media (max-width: 40rem) {
  body { font-size: 15px; }
  main { padding: 1.5rem .9rem 3rem; }
  svg.range { width: 7rem; }
  table.facts td:first-child { white-space: normal; }
}
@media print { nav { display: none; } details { display: block; } }
"""
